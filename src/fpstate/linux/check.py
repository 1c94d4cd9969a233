"""Hold the prediction for this host against what its running kernel shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fpstate.cpu.model import Cpu
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, UserAbi, user_abi
from fpstate.linux.boot import boot
from fpstate.linux.config import CACHE_LINE, BootConfig
from fpstate.linux.kvm import KvmView, kvm_view
from fpstate.linux.observe import Observation, kernel_release, observe
from fpstate.linux.observe import cmdline as running_cmdline
from fpstate.linux.policy import Policy, for_release

__all__ = ["Check", "Row", "check", "judge"]

Seen = int | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One fact.

    Attributes:
        fact: its id, as in `fpstate.linux.observe`.
        claim: the prediction in words: ``0xe7``, ``at most 0x1800``.
        seen: what the kernel showed; None if it could not be read.
        agrees: whether they agree; None if that cannot be told.
        how: where it was read.
        why_not: why it could not be read, and what would help.
    """

    fact: str
    claim: str
    seen: Seen | None
    agrees: bool | None
    how: str
    why_not: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The whole comparison.

    Attributes:
        config: what was predicted.
        release: the running kernel.
        remark: that the policy is only the nearest to this kernel, if so.
        rows: one fact each.
    """

    config: BootConfig
    release: str
    remark: str | None
    rows: tuple[Row, ...]

    @property
    def agrees(self) -> bool:
        """Whether no fact disagrees; facts that could not be read do not count."""
        return all(row.agrees is not False for row in self.rows)


@dataclass(frozen=True, slots=True)
class _Prediction:
    """What predictions are made of."""

    config: BootConfig
    abi: UserAbi
    kvm: KvmView


@dataclass(frozen=True, slots=True)
class _Claim:
    """A prediction: in words, and as a test of what is seen."""

    text: str
    holds: Callable[[Seen], bool]


def check(cpu: Cpu, policy: Policy | None, *, cmdline: str | None = None, debug_fpu: bool = True) -> Check:
    """Predict from *cpu* and the running kernel's version and command line, then look.

    Args:
        cpu: this host.
        policy: what the kernel is taken to be; None picks it by the release.
        cmdline: taken in place of the running kernel's.
        debug_fpu: CONFIG_X86_DEBUG_FPU.
    """
    release = kernel_release()
    remark = None
    if policy is None:
        policy, remark = for_release(release)
    text = cmdline if cmdline is not None else running_cmdline() or ""
    config = boot(cpu, policy, text, debug_fpu=debug_fpu)
    return Check(config=config, release=release, remark=remark, rows=judge(config, observe()))


def judge(config: BootConfig, observations: list[Observation]) -> tuple[Row, ...]:
    """Return one row for each observation that *config* says anything about."""
    prediction = _Prediction(config, user_abi(config), kvm_view(config))
    rows = []
    for seen in observations:
        claim = _CLAIMS[seen.fact](prediction) if seen.fact in _CLAIMS else None
        if claim is None:
            continue
        agrees = None if seen.value is None else claim.holds(seen.value)
        rows.append(Row(seen.fact, claim.text, seen.value, agrees, seen.how, seen.why_not))
    return tuple(rows)


def _exactly(value: int) -> _Claim:
    return _Claim(f"{value:#x}", lambda seen: seen == value)


def _bytes(value: int) -> _Claim:
    return _Claim(f"{value} bytes", lambda seen: seen == value)


def _at_most(mask: int) -> _Claim:
    return _Claim(f"at most {mask:#x}", lambda seen: isinstance(seen, int) and not seen & ~mask)


def _lines(config: BootConfig) -> _Claim:
    return _Claim(f"{len(config.boot_log)} lines", lambda seen: seen == config.boot_log)


def _register(name: str, value: int) -> _Claim:
    return _Claim(
        f"{name}={value:#x}", lambda seen: isinstance(seen, str) and int(_fields(seen).get(name, "-1"), 16) == value
    )


def _fields(text: str) -> dict[str, str]:
    """Read ``eax=000000e7 ebx=...`` into its fields."""
    return dict(part.split("=", 1) for part in text.split() if "=" in part)


def _slab(size: int) -> _Claim:
    """Claim that an object is whole cache lines and, behind them, an fpstate of *size* bytes, maybe rounded up."""

    def holds(seen: Seen) -> bool:
        return isinstance(seen, int) and seen > size and 0 in {(seen - size) % CACHE_LINE, seen % CACHE_LINE}

    return _Claim(f"a multiple of {CACHE_LINE} and {size}", holds)


def _regset_size(prediction: _Prediction) -> _Claim | None:
    size = prediction.abi.regset_size
    return None if size is None else _bytes(size)


_CLAIMS: Final[dict[str, Callable[[_Prediction], _Claim | None]]] = {
    "boot_log": lambda p: _lines(p.config),
    "xcr0": lambda p: _exactly(p.config.xcr0),
    "xcomp_supp": lambda p: _exactly(p.abi.xcomp_supp),
    "xcomp_perm": lambda p: _exactly(p.abi.xcomp_perm),
    "xcomp_guest_perm": lambda p: _exactly(p.abi.xcomp_guest_perm),
    "minsigstksz": lambda p: _bytes(p.abi.minsigstksz),
    "sigframe_magic1": lambda _: _exactly(FP_XSTATE_MAGIC1),
    "sigframe_extended_size": lambda p: _bytes(p.abi.frame.extended_size),
    "sigframe_xfeatures": lambda p: _exactly(p.abi.frame.xfeatures),
    "sigframe_xstate_size": lambda p: _bytes(p.abi.frame.xstate_size),
    "sigframe_magic2": lambda p: _exactly(FP_XSTATE_MAGIC2) if p.config.fate == "xsave" else None,
    "ptrace_xstate_size": _regset_size,
    "ptrace_sw_xfeatures": lambda p: _exactly(p.abi.regset_xfeatures),
    "kvm_xsave2": lambda p: _bytes(p.kvm.cap_xsave2),
    "kvm_guest_supp": lambda p: _exactly(p.kvm.supported_xcr0),
    "kvm_cpuid_d0": lambda p: _register("eax", p.kvm.permitted_xcr0 & 0xFFFFFFFF),
    "kvm_xss_bits": lambda p: _at_most(p.kvm.supported_xss),
    "task_xcomp_bv": lambda p: _exactly(p.config.task_xcomp_bv),
    "guest_xcomp_bv": lambda p: _exactly(p.config.guest_xcomp_bv),
    "task_struct_slab": lambda p: _slab(p.config.kernel.default_size),
}
"""What is predicted about each fact that `observe` reads."""
