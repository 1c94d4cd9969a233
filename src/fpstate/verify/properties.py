"""What must hold: the properties, each with a sentence and its source, and the claims that they consist of.

A claim is a `Check` or an invariant's clause; its name is the property's id, or says which WARN or fault it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from fpstate.linux.config import BootConfig
from fpstate.linux.kernel import Sets
from fpstate.linux.kvm import kvm_view
from fpstate.linux.steps import Assumptions
from fpstate.xfeatures import APX, AVX, AVX512, LEGACY, MPX

__all__ = ["CLASSES", "PROPERTIES", "ComponentClass", "Property", "class_of", "property_of", "static_verdicts"]


@dataclass(frozen=True, slots=True)
class ComponentClass:
    """Components that the kernel treats alike, verified through one of them.

    Attributes:
        name: what output calls it.
        bits: candidates to look at; the first that the kernel manages stands for all.
        with_supervisor: a supervisor component is tracked beside it, for permissions and sizes.
        text: what it is.
    """

    name: str
    bits: tuple[int, ...]
    text: str
    with_supervisor: bool = False


CLASSES: Final = (
    ComponentClass("user", (2, 1), "ordinary user state: x87, SSE, AVX, AVX-512, opmask, MPX, APX"),
    ComponentClass("user-dynamic", (18,), "state under XFD: tile data"),
    ComponentClass("permissions", (18,), "permissions and sizes of fpstates that may grow", with_supervisor=True),
    ComponentClass("pkru", (9,), "PKRU, which the core saves but never restores"),
    ComponentClass("cet-user", (11,), "CET_USER: U_CET and PL3_SSP"),
    ComponentClass("cet-kernel", (12,), "CET_KERNEL: PL0_SSP, PL1_SSP and PL2_SSP"),
    ComponentClass("independent", (15,), "independent state: LBR"),
)
"""The classes, each with a model of its own."""
ORDINARY: Final = LEGACY | AVX | AVX512 | MPX | 1 << APX | 1 << 17
"""What the class of ordinary user state stands for: TILECFG too, which XFD does not disable."""


def class_of(bit: int) -> str | None:
    """Return the name of the class that component *bit* belongs to; None for one that no class stands for."""
    named = next((kind.name for kind in CLASSES if bit in kind.bits), None)
    return named or ("user" if ORDINARY >> bit & 1 else None)


@dataclass(frozen=True, slots=True)
class Property:
    """One property.

    Attributes:
        id: its name.
        text: one sentence.
        source: who says so.
    """

    id: str
    text: str
    source: str


_CORE = "Linux 7.2 arch/x86/kernel/fpu/core.c"
_XSTATE = "Linux 7.2 arch/x86/kernel/fpu/xstate.c"
_CONTEXT = "Linux 7.2 arch/x86/kernel/fpu/context.h"
_SIGNAL = "Linux 7.2 arch/x86/kernel/fpu/signal.c"
_KVM = "Linux 7.2 arch/x86/kvm/x86.c"
_SDM = "Intel SDM volume 1"

PROPERTIES: Final = {
    p.id: p
    for p in (
        Property("ISO-RUN", "no context runs with another's value in its registers", "the definition of isolation"),
        Property("ISO-BUF", "no buffer that a context can read holds another's value", "the definition of isolation"),
        Property("INT-RUN", "what runs is the newest value that its owner wrote", "the definition of integrity"),
        Property(
            "INT-BUF",
            "frames, regsets, core dumps, fork and KVM_GET_XSAVE give the newest value",
            "the definition of integrity",
        ),
        Property("P1", "XCR0 | IA32_XSS has every component of the fpstate that is saved or loaded", f"{_SDM} 13.12"),
        Property("P2", "XSTATE_BV is within XCOMP_BV", f"{_SDM} 13.8.2, 13.12"),
        Property("P3", "a buffer is as large as its components need", f"{_CORE} fpu_alloc_guest_fpstate()"),
        Property("P4", "an fpstate's size is that of its components", f"{_XSTATE} fpstate_realloc()"),
        Property(
            "P5", "loading an fpstate leaves nothing foreign that host code can observe", f"{_CORE} (restore mask)"
        ),
        Property(
            "P6",
            "what KVM offers to guests is in their fpstates, or KVM keeps it; a guest-only component is in no task's",
            f"{_XSTATE} guest_default_cfg",
        ),
        Property(
            "P7", "XFD is armed exactly while the fpstate lacks the dynamic component", f"{_XSTATE} fpstate_realloc()"
        ),
        Property(
            "P8",
            "IA32_XFD is the active fpstate's, and the per-CPU shadow tells the truth",
            f"{_XSTATE} xfd_update_state()",
        ),
        Property(
            "P9",
            "a guest image that will be loaded has nothing that its IA32_XFD disables",
            f"{_CORE} fpu_update_guest_xfd()",
        ),
        Property(
            "P10",
            "a guest's XCR0 and IA32_XSS are loaded only while nothing can interrupt",
            f"{_KVM} vcpu_enter_guest()",
        ),
        Property(
            "P11",
            "without TIF_NEED_FPU_LOAD the registers are the current task's",
            f"{_CONTEXT} fpregs_assert_state_consistent()",
        ),
        Property(
            "P12",
            "registers that count as valid, and images that count as saved, hold the newest value",
            f"{_CONTEXT} fpregs_state_valid()",
        ),
        Property(
            "P13",
            "a guest's fpstate is in use exactly while it is plugged into its task",
            f"{_CORE} fpu_swap_kvm_fpstate()",
        ),
        Property("P14", "user images hold no supervisor state", f"{_XSTATE} copy_xstate_to_uabi_buf()"),
        Property(
            "P15",
            "loading a task's or a guest's fpstate never takes PKRU from it",
            "Linux 7.2 arch/x86/include/asm/fpu/xstate.h",
        ),
        Property(
            "P16",
            "KVM touches an XSAVE-managed MSR only with the guest's state loaded",
            f"{_KVM} kvm_access_xstate_msr()",
        ),
        Property("P17", "independent components are in no fpstate", f"{_XSTATE} validate_independent_components()"),
        Property(
            "P18",
            "guest permissions are frozen once there is a vCPU, and sizes count supervisor state",
            f"{_CORE} fpu_lock_guest_permissions()",
        ),
        Property(
            "P19",
            "the host uses no supervisor shadow stack while guests' PL0_SSP is in registers",
            f"{_KVM} kvm_x86_vendor_init()",
        ),
        Property("P20", "kernel threads neither save nor load user state", f"{_CONTEXT} fpregs_restore_userregs()"),
        Property(
            "PERM",
            "a permission request leaves the supervisor components in __state_perm",
            f"{_XSTATE} __xstate_request_perm(), d8414603b29f",
        ),
        Property(
            "STEP",
            "a step does what it is for: who runs where, what is permitted, how much room there is",
            "the functions' own contracts",
        ),
        Property("WARN", "no WARN of the kernel is reached", "the kernel's own assertions"),
        Property("FAULT", "no instruction of the kernel faults where nothing handles it", f"{_SIGNAL}, {_CORE}"),
    )
}
"""Every property by id, in the order of a report."""

_OF_CLAIM: Final = {"WARN: kvm_access_xstate_msr: KVM_BUG_ON not in_use": "P16"}


def property_of(claim: str) -> str | None:
    """Return the id of the property that *claim* is part of; None for a clause that only the induction needs."""
    if claim in _OF_CLAIM:
        return _OF_CLAIM[claim]
    name = claim.partition(":")[0]
    return name if name in PROPERTIES else None


Verdict = Literal["proven", "violated"]


def static_verdicts(
    config: BootConfig, sets: Sets, assumptions: Assumptions, classes: Collection[str] | None = None
) -> dict[str, tuple[Verdict, str, list[str]]]:
    """Return what the sets of a boot alone decide: property to verdict, reason, and the assumptions that it needs."""
    policy = config.policy
    host_sss = assumptions.host_sss and assumptions.fred
    looked_at = classes is None or "cet-kernel" in classes
    guests = sets.kvm & sets.cet_kernel if looked_at else 0
    kept = (sets.default | sets.guest_default) & ~policy.never_restored & ~sets.restore
    observable = kept & ~sets.cet_kernel | (kept if host_sss else 0)
    names = config.cpu.catalogue.names
    unused = ["fred off" if assumptions.host_sss else "host-sss off"]
    verdicts: dict[str, tuple[Verdict, str, list[str]]] = {
        "P5": _judge(observable, f"{names(observable)} stays in the registers", unused if kept and looked_at else []),
        "P6": _judge(
            sets.default & policy.guest_only | policy.guest_only & sets.maximum & ~sets.guest_default,
            "the guest-only set is not kept apart",
        ),
        "P15": _judge((sets.restore | sets.guest_restore) & sets.pkru, "PKRU is loaded with the rest"),
        "P17": _judge(
            sets.independent & (sets.maximum | sets.default | sets.guest_default),
            "an fpstate has an independent component",
        ),
        "P19": _judge(guests if host_sss else 0, "the host uses PL0_SSP itself", unused if guests else []),
    }
    homeless = sets.kvm & ~(sets.guest_default | sets.dynamic | sets.kvm_own)
    if homeless:
        verdicts["P6"] = ("violated", f"KVM offers {names(homeless)}, which guests' fpstates lack", [])
    overrun = kvm_view(config).overrun
    if overrun:
        reason = f"the guest's image is {overrun} bytes larger than its buffer on {config.cpu.name}"
        verdicts["P3"] = ("violated", reason, [])
    return verdicts


def _judge(bad: int, reason: str, needs: list[str] | None = None) -> tuple[Verdict, str, list[str]]:
    return ("violated", reason, []) if bad else ("proven", "", needs or [])
