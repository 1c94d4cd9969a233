"""One register of a live thread, written through PTRACE_SETREGSET(NT_X86_XSTATE).

The image is read, the register changed in it and nothing else, and what the kernel would refuse is refused here first,
by rule.  Then it is written, read back and compared, all within one stop of the thread.

Source: Linux ``xstateregs_set``, ``copy_uabi_to_xstate`` (``arch/x86/kernel/fpu/regset.c``, ``xstate.c``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from fpstate import registers as regs
from fpstate.errors import CannotTell, FpstateError, UsageError
from fpstate.image import Difference, Image, patch, read, register_differences
from fpstate.isa import Capabilities
from fpstate.isa.masks import ALL, complement
from fpstate.isa.profile import of_cpu
from fpstate.linux import policy as policies
from fpstate.linux.copyin import check_ptrace
from fpstate.linux.tracee import NT_X86_XSTATE, Tracee, in_tracer, write_regset
from fpstate.registers import Register
from fpstate.sources.process import leader_of, require_linux, stop
from fpstate.xfeatures import LEGACY, LEGACY_SIZE, PKRU, SOFTWARE, bits

__all__ = ["Change", "Poke", "poke"]

_FULL_STACK: Final = 0xFF
"""The abridged tag byte when no x87 register is empty."""


class Change(NamedTuple):
    """A register, what it held, and what it was to hold."""

    register: Register
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class Poke:
    """What was written to a thread.

    Attributes:
        tid: the thread.
        changes: the registers named, in the order given.
        written: False for a rehearsal.
        differences: registers that read back otherwise than they were written; empty if all is as it was meant to be.
        remarks: what to know beside it.
        stopped_ns: nanoseconds for which the thread stood still, at most.
    """

    tid: int
    changes: tuple[Change, ...]
    written: bool
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]
    stopped_ns: int


def poke(tid: int, values: Mapping[str, bytes], caps: Capabilities, *, dry_run: bool = False) -> Poke:
    """Write *values* into registers of thread *tid*.

    Args:
        tid: the thread.
        values: each register's bytes, in memory order.
        caps: this host's CPU, which lays out the image.
        dry_run: read and check alone.

    Raises:
        UsageError: a register does not exist here, values contradict, or the kernel would refuse the image: the
            message has the rule.
        UnreadableInput, CannotTell: the thread cannot be traced, or has no NT_X86_XSTATE.
    """
    require_linux()
    leader_of(tid)
    for name in values:
        regs.find(name, caps.sizes)
    kernel = _kernel(caps)  # and caps.standard: what takes time is done before the thread is stopped
    caps.standard(caps.user)

    def work() -> Poke:
        with stop(tid) as tracee:
            old, made = _prepare(tracee, values, caps, kernel)
            back = old if dry_run else _written(tracee, made)
        new = read(made, caps)
        changes = tuple(_changes(read(old, caps), new, values))
        differences = () if dry_run else tuple(register_differences(new, read(back, caps)))
        notes = tuple(_remarks(read(old, caps), new, [change.register for change in changes]))
        return Poke(tid, changes, not dry_run, differences, notes, tracee.stopped_ns)

    return in_tracer(work)


class _Kernel(NamedTuple):
    """What the rules need of kernel and CPU: MXCSR_MASK, and the components that wait for permission."""

    mxcsr_mask: int
    dynamic: int


def _kernel(caps: Capabilities) -> _Kernel:
    policy = policies.find(policies.DEFAULT, policies.table(None, caps.cpu.catalogue))
    return _Kernel(of_cpu(caps.cpu).mxcsr_mask, policy.user_dynamic)


def _prepare(tracee: Tracee, values: Mapping[str, bytes], caps: Capabilities, kernel: _Kernel) -> tuple[bytes, bytes]:
    """Return the thread's image and the one to write.

    Raises:
        UsageError, CannotTell: see `poke`.
    """
    old = tracee.regset(NT_X86_XSTATE)
    if old is None or len(old) <= LEGACY_SIZE:
        raise CannotTell(f"thread {tracee.tid} has no NT_X86_XSTATE: XSAVE is off")
    features = _features(old, caps, kernel)
    _refuse(old, [regs.find(name, caps.sizes) for name in values], caps, features)
    made = patch(read(old, caps), values)
    finding = check_ptrace(made, features=features, size=len(old), mxcsr_mask=kernel.mxcsr_mask)
    if finding is not None:
        raise UsageError(str(finding))
    return old, made


def _features(image: bytes, caps: Capabilities, kernel: _Kernel) -> int:
    """Return the thread's user features: all of the boot's, but a dynamic one only where it is in use.

    Whether a dynamic one is permitted and has been used before, only the thread itself could ask.
    """
    boots = int.from_bytes(image[SOFTWARE : SOFTWARE + 8], "little") or caps.user
    in_use = int.from_bytes(image[LEGACY_SIZE : LEGACY_SIZE + 8], "little")
    return boots & (complement(kernel.dynamic) | in_use)


def _refuse(image: bytes, wanted: list[Register], caps: Capabilities, features: int) -> None:
    """Refuse registers whose component the kernel would not take for this task.

    Args:
        image: the task's NT_X86_XSTATE.
        wanted: the registers.
        caps: the CPU.
        features: the task's ``user_xfeatures``.

    Raises:
        UsageError: with the rule, and why the component is not among the task's.
    """
    for register in wanted:
        header = bytearray(image)
        in_use = int.from_bytes(image[LEGACY_SIZE : LEGACY_SIZE + 8], "little") | register.components
        header[LEGACY_SIZE : LEGACY_SIZE + 8] = in_use.to_bytes(8, "little")
        finding = check_ptrace(bytes(header), features=features, size=len(image), mxcsr_mask=ALL)
        if finding is not None and finding.rule.id == "ptrace-features" and finding.bit is not None:
            raise UsageError(f"{register.name} {_why(finding.bit, caps)}: {finding}")


def _why(bit: int, caps: Capabilities) -> str:
    """Say of component *bit*, which no image of the task may have, why."""
    name = caps.cpu.catalogue.name(bit)
    if caps.supervisor >> bit & 1 or any(row.bit == bit and row.supervisor for row in caps.cpu.catalogue):
        return f"lies in {name}, a supervisor component, and NT_X86_XSTATE has user components alone"
    if not caps.user >> bit & 1:
        return f"lies in {name}, which {caps.cpu.name} has not"
    return f"lies in {name}, which this task, or this boot, does not have"


def _written(tracee: Tracee, image: bytes) -> bytes:
    """Write *image* and return what is read back.

    Raises:
        FpstateError: the kernel refuses what the rules allow.
    """
    try:
        write_regset(tracee.tid, NT_X86_XSTATE, image)
    except ProcessLookupError:
        raise
    except OSError as error:
        raise FpstateError(
            f"the kernel refuses the image, which fpstate's rules allow: {error.strerror}; the thread is unchanged"
        ) from error
    return tracee.regset(NT_X86_XSTATE) or b""


def _changes(old: Image, new: Image, values: Mapping[str, bytes]) -> list[Change]:
    found = [regs.find(name, old.caps.sizes) for name in values]
    return [Change(register, old.register(register), new.register(register)) for register in found]


def _remarks(old: Image, new: Image, changed: list[Register]) -> list[str]:
    """Return what the change brings with it, in words."""
    names = new.caps.cpu.catalogue.names
    found = []
    fresh = new.xstate_bv & complement(old.xstate_bv)
    if fresh:
        found.append(f"{names(fresh)} was in its initial configuration and is in use now")
    if any(register.components >> PKRU & 1 for register in changed):
        found.append("PKRU decides which memory the thread may touch: a key that it needs and has no longer is SIGSEGV")
    if any(bit == 0 for register in changed for bit in bits(register.components & LEGACY)):
        empty = int.from_bytes(new.register("ftag"), "little") ^ _FULL_STACK
        top = int.from_bytes(new.register("fstat"), "little") >> 11 & 7
        for register in changed:
            number = register.name.removeprefix("st")
            if register.name.startswith("st") and number.isdecimal() and empty >> (int(number) + top) % 8 & 1:
                found.append(f"{register.name} is marked empty in ftag: reading it is a stack fault")
    return found
