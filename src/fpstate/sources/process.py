"""The extended state of a live process or thread, as ptrace(2) hands it out.

Each thread is stopped for as long as its own registers are read, and no longer: the threads are read one after the
other, not at one moment.  `fpstate.linux.tracee` says what that leaves behind (nothing, but an interrupted system
call).

The image is what Linux makes for user space, in standard format (``copy_xstate_to_uabi_buf``): supervisor components
are never in it, and bytes 464 to 471 hold the largest user features of this boot.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from fpstate import cpu as cpus
from fpstate.cpu.host import why_not_x86_64
from fpstate.cpu.model import Cpu
from fpstate.errors import CannotTell, FpstateError, UnreadableInput, UsageError, printable
from fpstate.linux import whytrace
from fpstate.linux.tracee import (
    NT_PRFPREG,
    NT_PRSTATUS,
    NT_X86_SHSTK,
    NT_X86_XSTATE,
    Tracee,
    in_tracer,
    stopped,
)
from fpstate.sources.capture import Abi, Capture, Form, Thread
from fpstate.xfeatures import LEGACY_SIZE, MIN_SIZE, SOFTWARE

__all__ = [
    "Reading",
    "capture_process",
    "capture_thread",
    "host_cpu",
    "leader_of",
    "read_thread",
    "require_linux",
    "stop",
    "threads_of",
]

_ROUNDS: Final = 3
"""How often the threads are listed: one that was started meanwhile is read as well."""
_MOST_THREADS: Final = 1 << 16
_PRSTATUS_I386: Final = 17 * 4
"""Bytes of NT_PRSTATUS (``struct user_regs_struct32``) of a thread that runs 32-bit code."""
_ELFCLASS32, _EM_X86_64 = 1, 62  # <linux/elf.h>: an x32 program is both


@dataclass(frozen=True, slots=True)
class Reading:
    """What one stop of a thread gave.

    Attributes:
        tid: the thread.
        xstate: NT_X86_XSTATE; None where the kernel has none (no XSAVE).
        fp: NT_PRFPREG, read only in its place; else None.
        shstk: NT_X86_SHSTK, the shadow stack pointer; None without a user shadow stack.
        general: NT_PRSTATUS, the general registers.
        in_group_stop: job control had stopped the thread, and it still is.
        stopped_ns: nanoseconds for which it stood still for us, at most.
    """

    tid: int
    xstate: bytes | None
    fp: bytes | None
    shstk: bytes | None
    general: bytes
    in_group_stop: bool
    stopped_ns: int

    @property
    def i386(self) -> bool:
        """Whether it ran 32-bit code: then the kernel shows the registers of that."""
        return len(self.general) == _PRSTATUS_I386


def capture_process(pid: int) -> Capture:
    """Return the state of every thread of process *pid*, the first thread first.

    A thread that ends before it is read is left out, with a note.  A child of this process must not be waited for
    meanwhile: `fpstate.linux.tracee` says why.

    Raises:
        UnreadableInput: there is no such process, it may not be traced (the message says why), or this is no x86-64
            Linux.
        CannotTell: none of its threads could be stopped.
    """
    require_linux()
    leader = leader_of(pid)
    notes = [] if leader == pid else [f"{pid} is a thread of process {leader}"]
    readings: list[Reading] = []
    refused: list[FpstateError] = []
    seen: set[int] = set()
    for _ in range(_ROUNDS):
        new = [tid for tid in threads_of(leader) if tid not in seen][: _MOST_THREADS - len(seen)]
        if not new:
            break
        seen.update(new)
        for tid, found in in_tracer(partial(_read_each, new)):
            if isinstance(found, Reading):
                readings.append(found)
            elif found is None:
                notes.append(f"thread {tid} ended before it could be read")
            else:
                refused.append(found)
    if not readings:
        raise refused[0] if refused else UnreadableInput(f"process {leader} ended before it could be read")
    notes += [str(error) for error in refused]
    return _capture(f"pid {leader}", leader, readings, notes)


def capture_thread(tid: int) -> Capture:
    """Return the state of thread *tid* alone.

    Raises:
        UnreadableInput, CannotTell: as `capture_process`.
    """
    require_linux()
    leader = leader_of(tid)
    reading = in_tracer(partial(read_thread, tid))
    return _capture(f"tid {tid}", leader, [reading], [])


def require_linux() -> None:
    """Refuse a machine without processes that have x86 state.

    Raises:
        UnreadableInput: it is no x86-64 Linux.
    """
    refusal = why_not_x86_64()
    if refusal:
        raise UnreadableInput(f"no live state here: {refusal}", cure="take a core there, and read that")


def threads_of(pid: int) -> list[int]:
    """Return the threads of process *pid*, the first one first; none where it is gone."""
    try:
        tids = sorted(int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
    return sorted(tids, key=lambda tid: tid != pid)


def leader_of(tid: int) -> int:
    """Return the process that thread *tid* belongs to.

    Raises:
        UsageError: *tid* is not above 0.
        UnreadableInput: there is no such thread.
    """
    if tid <= 0:
        raise UsageError(f"a process or thread has a number above 0, not {tid}")
    status = whytrace.status_of(tid)
    if not status.get("Tgid", "").isdecimal():
        raise UnreadableInput(
            f"there is no process or thread {tid}", cure="ps -eLf lists them; /proc must be mounted and not hide it"
        )
    return int(status["Tgid"])


def _read_each(tids: Iterable[int]) -> list[tuple[int, Reading | FpstateError | None]]:
    """Read each thread; None for one that is gone, the error for one that cannot be read."""
    found: list[tuple[int, Reading | FpstateError | None]] = []
    for tid in tids:
        try:
            found.append((tid, read_thread(tid)))
        except (UnreadableInput, CannotTell) as error:
            found.append((tid, None if isinstance(error.__cause__, ProcessLookupError) else error))
    return found


@contextlib.contextmanager
def stop(tid: int) -> Iterator[Tracee]:
    """Stop thread *tid* for the block.  To be used inside `fpstate.linux.tracee.in_tracer`.

    Raises:
        UnreadableInput: it is gone (the cause is then a ProcessLookupError), or may not be traced.
        CannotTell: it does not stop.
    """
    try:
        with stopped(tid) as tracee:
            yield tracee
    except ProcessLookupError as gone:
        raise UnreadableInput(f"thread {tid} has ended") from gone
    except OSError as error:
        if error.errno != errno.EPERM:
            raise UnreadableInput(f"ptrace of thread {tid}: {error.strerror}") from error
        raise whytrace.refusal(tid) from error


def read_thread(tid: int) -> Reading:
    """Stop thread *tid*, read its registers and let it go; to be used, and raises, as `stop`."""
    with stop(tid) as tracee:
        regsets = _regsets(tracee)
    return Reading(tid, *regsets, tracee.in_group_stop, tracee.stopped_ns)


def _regsets(tracee: Tracee) -> tuple[bytes | None, bytes | None, bytes | None, bytes]:
    """Return XSTATE, FPREG where that is missing, SHSTK and PRSTATUS."""
    xstate = tracee.regset(NT_X86_XSTATE)
    fp = tracee.regset(NT_PRFPREG) if xstate is None else None
    return xstate, fp, tracee.regset(NT_X86_SHSTK, 8), tracee.regset(NT_PRSTATUS) or b""


def host_cpu() -> tuple[Cpu | None, tuple[str, ...]]:
    """Return this host's CPU; None and the reason, as a note, where its CPUID cannot be read."""
    try:
        return cpus.this_host(), ()
    except FpstateError as refused:
        return None, (str(refused),)


def _capture(source: str, leader: int, readings: list[Reading], notes: list[str]) -> Capture:
    x32 = _is_x32(leader)
    threads = [_thread(leader, reading, x32=x32) for reading in readings]
    cpu, reasons = host_cpu()
    return Capture(source, "process", threads, cpu, notes=(_stops(readings), *notes, *reasons))


def _stops(readings: list[Reading]) -> str:
    """Say for how long the threads stood still, and which are left in job control's hands."""
    longest = max(readings, key=lambda reading: reading.stopped_ns)
    text = f"{len(readings)} threads were stopped one by one, none longer than {_microseconds(longest)}"
    if len(readings) == 1:
        text = f"thread {longest.tid} was stopped for {_microseconds(longest)}"
    waiting = [str(reading.tid) for reading in readings if reading.in_group_stop]
    return f"{text}; job control's stop is left as it was" if waiting else text


def _microseconds(reading: Reading) -> str:
    return f"{max(reading.stopped_ns // 1000, 1)} microseconds"


def _thread(leader: int, reading: Reading, *, x32: bool) -> Thread:
    form, image = _image(reading)
    abi: Abi = "i386" if reading.i386 else "x32" if x32 else "x86-64"
    values = {} if reading.shstk is None else {"ssp": int.from_bytes(reading.shstk, "little")}
    return Thread(
        reading.tid, memoryview(image), form, _name(leader, reading.tid), abi, enabled=_enabled(reading), values=values
    )


def _image(reading: Reading) -> tuple[Form, bytes]:
    if reading.xstate is not None and len(reading.xstate) >= MIN_SIZE:
        return "xsave", reading.xstate
    if reading.fp is None:
        return "none", b""
    return ("fxsave" if len(reading.fp) >= LEGACY_SIZE else "fsave"), reading.fp


def _enabled(reading: Reading) -> int | None:
    """Return the largest user features, which are XCR0's."""
    if reading.xstate is None:
        return None
    return int.from_bytes(reading.xstate[SOFTWARE : SOFTWARE + 8], "little") or None


def _name(leader: int, tid: int) -> str:
    try:
        text = Path(f"/proc/{leader}/task/{tid}/comm").read_text(encoding="utf-8", errors="replace")
    except OSError:  # gone since
        return ""
    return printable(text.rstrip("\n"))


def _is_x32(pid: int) -> bool:
    """Tell whether the program of process *pid* is an x32 one; False where it cannot be read."""
    try:
        with Path(f"/proc/{pid}/exe").open("rb") as file:
            head = file.read(20)
    except OSError:  # kernel threads, and processes of other users
        return False
    return is_x32(head)


def is_x32(head: bytes) -> bool:
    """Tell whether the ELF header that *head* begins is that of an x32 program."""
    machine = int.from_bytes(head[18:20], "little")
    return head[:4] == b"\x7fELF" and head[4:5] == bytes([_ELFCLASS32]) and machine == _EM_X86_64
