"""XCOMP_BV of a real task's and a real guest's fpstate, as the kernel's own tracepoints print them.

``measure`` runs in a helper process.  It makes a tracing instance of its own, so that nobody's tracing is disturbed,
and where tracefs is not mounted it mounts it in a mount namespace of its own.  The instance is removed at the end.

Each KVM_RUN plugs the guest's fpstate into the task and, on the way out, the task's own back.  ``fpu_swap_kvm_fpstate``
prints x86_fpu_regs_activated for the one just plugged in, and only then comes ``kvm_fpu: load`` or ``unload``: what was
activated last before a ``load`` is the guest's.  Kernels before 5.16 swapped it behind the event's back, so there both
events show the task's.  Sources: Linux ``arch/x86/include/asm/trace/fpu.h``, ``arch/x86/kernel/fpu/core.c``,
``include/trace/events/kvm.h``, ``Documentation/trace/events.rst``.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NoReturn

from fpstate.cpu.host import OSXSAVE, read_host
from fpstate.errors import CannotTell
from fpstate.linux.abi import ARCH_GET_XCOMP_SUPP
from fpstate.linux.observe import guest
from fpstate.linux.observe.child import Answer, asked_of_helper
from fpstate.linux.observe.fact import FAILURES, why
from fpstate.linux.observe.kvm import open_kvm
from fpstate.linux.observe.task import arch_prctl
from fpstate.linux.tracefs import Instance, expect_tracefs, own_name, remove_leftovers

__all__ = ["PROBE", "guest_xcomp_bv", "measure", "read_events", "task_xcomp_bv"]

Event = tuple[str, int]
"""("activated", XCOMP_BV), ("load", 0) or ("unload", 0)."""

_EVENT: Final = re.compile(
    r": x86_fpu_regs_activated: .*\bxcomp_bv: (?P<xcomp_bv>[0-9a-f]+)\s*$|: kvm_fpu: (?P<kvm>load|unload)\s*$"
)
_ACTIVATED: Final = "x86_fpu/x86_fpu_regs_activated"
_KVM_FPU: Final = "kvm/kvm_fpu"
_ROUNDS: Final = 20
_BUFFER_KB: Final = 64


def read_events(text: str) -> list[Event]:
    """Return the events of a tracing instance's ``trace`` file, in its order."""
    events: list[Event] = []
    for line in text.splitlines():
        match = _EVENT.search(line)
        if match is None:
            continue
        value = match["xcomp_bv"]
        events.append(("activated", int(value, 16)) if value else (match["kvm"], 0))
    return events


def task_xcomp_bv(events: Iterable[Event]) -> int | None:
    """Return the XCOMP_BV that was activated most often."""
    return _most_common(value for name, value in events if name == "activated")


def guest_xcomp_bv(events: Iterable[Event], task: int | None) -> int | None:
    """Return the XCOMP_BV that was activated last before a kvm_fpu load.

    Without kvm_fpu events it is the one that differs from the *task*'s, if any does.
    """
    plugged_in: list[int] = []
    others: list[int] = []
    last: int | None = None
    for name, value in events:
        if name == "activated":
            last = value
            if value != task:
                others.append(value)
        elif name == "load" and last is not None:
            plugged_in.append(last)
    return _most_common(plugged_in or others)


def _most_common(values: Iterable[int]) -> int | None:
    ranked = Counter(values).most_common(1)
    return ranked[0][0] if ranked else None


def measure(seconds: float) -> Answer:
    """Trace this process while it switches with another, then while it runs a guest.

    Raises:
        CannotTell: there is nothing to trace with.
        OSError: the kernel refuses tracing.
    """
    if not read_host().leaves[1, 0][2] & OSXSAVE:
        raise CannotTell("XSAVE is off (CPUID.1:ECX.OSXSAVE = 0), and then the event prints no mask of its own")
    name = own_name()
    Path("/proc/self/comm").write_text(name, encoding="ascii")  # what the filter goes by, in any PID namespace
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    expect_tracefs()
    remove_leftovers()
    with Instance(name, buffer_kb=_BUFFER_KB) as instance:
        instance.enable(_ACTIVATED, f'comm == "{name}"')
        with _limit(seconds / 3):
            _switch()
        task = task_xcomp_bv(_take(instance))
        answer: dict[str, int | str] = {"task_xcomp_bv": "the task was traced, and no event came"}
        if task is not None:
            answer["task_xcomp_bv"] = task
        try:
            with _limit(seconds / 3):
                answer["guest_xcomp_bv"] = _trace_guest(instance, name, task)
        except FAILURES as error:
            answer["guest_xcomp_bv"] = why(error, "running a guest")
    return answer


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise CannotTell in the block if it is still running after *seconds*: a guest may never come back."""

    def expired(_number: int, _frame: object) -> NoReturn:
        raise CannotTell(f"not done within {seconds:.1f} s")

    signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _switch() -> None:
    """Hand a byte to and fro between this process and a child on the same CPU, so that each is switched out."""
    to_child, to_parent = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(to_child[1])  # else the child keeps its own end open and never sees the other's death
            while os.read(to_child[0], 1):
                os.write(to_parent[1], b".")
        finally:
            os._exit(0)
    try:
        os.close(to_parent[1])
        for _ in range(_ROUNDS):
            os.write(to_child[1], b".")
            if not os.read(to_parent[0], 1):
                break
    finally:
        os.close(to_child[1])
        os.waitpid(child, 0)


def _trace_guest(instance: Instance, name: str, task: int | None) -> int:
    """Run a guest and return the XCOMP_BV of its fpstate."""
    try:
        arch_prctl(ARCH_GET_XCOMP_SUPP)
    except OSError as error:
        raise CannotTell("Linux before 5.16 swaps the guest's state without an event") from error
    with open_kvm() as device:
        if instance.has(_KVM_FPU):
            instance.enable(_KVM_FPU, f'comm == "{name}"')
        guest.run(device, _ROUNDS)
    found = guest_xcomp_bv(_take(instance), task)
    if found is None:
        raise CannotTell("the guest ran, and no event showed its fpstate")
    return found


def _take(instance: Instance) -> list[Event]:
    """Return what was recorded, and empty the buffer."""
    text = instance.read("trace")
    instance.write("trace", "")
    return read_events(text)


PROBE: Final = asked_of_helper(
    "tracing",
    {
        "task_xcomp_bv": "tracepoint x86_fpu:x86_fpu_regs_activated of an ordinary task",
        "guest_xcomp_bv": "tracepoint x86_fpu:x86_fpu_regs_activated before kvm:kvm_fpu load",
    },
)
