"""A thread of another process, stopped for no longer than it is read or written: ptrace(2).

PTRACE_SEIZE stops nothing and sends no signal, PTRACE_INTERRUPT stops without one.  Three things may then be seen, and
each is left as it was found: our own stop; a group-stop, in which job control had put the process, and in which
PTRACE_DETACH leaves it; and a signal on its way, which is handed back with PTRACE_DETACH, its siginfo untouched.

Only the thread that seized may ask anything, and the kernel lets go of its tracees when it ends: so each tracing runs
in a thread of its own (`in_tracer`), and nothing stays traced, whatever happens.

One thing cannot be undone: a system call in which the thread slept is interrupted.  Most restart by themselves; a few,
epoll_wait(2) among them, then return EINTR, as they do after SIGSTOP and SIGCONT (signal(7)).

And one thing cannot be hidden from the process that traces: wait(2) in any of its threads is told of the stops of
whatever any of them traces, asked for or not.  Where the traced thread is also a child that another thread waits for,
that wait ends with the stop; `subprocess.Popen.wait` then takes SIGTRAP for the child's end.  A process that reads its
own children must not wait for them meanwhile.

Sources: ptrace(2); Linux ``<linux/ptrace.h>``, ``<linux/elf.h>``, ``kernel/ptrace.c``, ``kernel/signal.c``
(``do_jobctl_trap``, ``ptrace_signal``), ``kernel/exit.c`` (``wait_task_stopped``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fpstate.errors import CannotTell
from fpstate.linux.notes import NT_PRFPREG, NT_PRSTATUS, NT_X86_SHSTK, NT_X86_XSTATE
from fpstate.linux.observe.libc import demand, libc

if TYPE_CHECKING:
    import ctypes

__all__ = [
    "LARGEST_REGSET",
    "NT_PRFPREG",
    "NT_PRSTATUS",
    "NT_X86_SHSTK",
    "NT_X86_XSTATE",
    "PTRACE_TRACEME",
    "Tracee",
    "in_tracer",
    "ptrace",
    "read_regset",
    "stopped",
    "write_regset",
]

PTRACE_TRACEME: Final = 0
_PTRACE_DETACH: Final = 17
_PTRACE_GETREGSET, _PTRACE_SETREGSET = 0x4204, 0x4205
_PTRACE_GETSIGINFO = 0x4202
_PTRACE_SEIZE, _PTRACE_INTERRUPT = 0x4206, 0x4207
_PTRACE_EVENT_STOP: Final = 128
_PR_SET_TIMERSLACK: Final = 29  # <linux/prctl.h>
_WALL: Final = 0x40000000  # <linux/wait.h>: threads as well as processes

LARGEST_REGSET: Final = 1 << 16
"""Bytes offered for a regset: five times the largest that a CPU has."""

_PATIENCE: Final = 2.0
"""Seconds that a thread gets for stopping: one in uninterruptible sleep does not."""
_SOON: Final = 0.001
"""Seconds in which a thread that can stop does: so long it is asked every 20 microseconds, in the end every 10 ms.

Between two questions we sleep, and do not yield: a thread that waits for our CPU could not stop.
"""

_T = TypeVar("_T")


def in_tracer(work: Callable[[], _T]) -> _T:
    """Return what *work* returns, run in a thread that ends with it: then the kernel lets go of all that it traced."""
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        libc().prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # this thread's: it wakes when it asked to
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised below, where somebody waits for it
            failed.append(error)

    tracer = threading.Thread(target=run, name="fpstate-tracer", daemon=True)
    tracer.start()
    tracer.join()
    if failed:
        raise failed[0]
    return done[0]


def ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> int:
    """Make one request of a tracee.

    Raises:
        OSError: it fails.
    """
    return demand(int(_function()(request, tid, address or None, data or None)), "ptrace")


@cache
def _function() -> Any:
    """Return ptrace of the C library: once, for a thread stands still meanwhile."""
    import ctypes  # noqa: PLC0415 - see fpstate.linux.observe: importing it stays cheap

    function = libc().ptrace
    function.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    function.restype = ctypes.c_long
    return function


def _io_vector(buffer: ctypes.Array[ctypes.c_char]) -> ctypes.Array[ctypes.c_size_t]:
    """Return a ``struct iovec``, address and bytes, both as wide as a pointer."""
    import ctypes  # noqa: PLC0415 - loaded already

    return (ctypes.c_size_t * 2)(ctypes.addressof(buffer), len(buffer))


def read_regset(tid: int, note: int, size: int = LARGEST_REGSET) -> bytes:
    """Return regset *note* of a stopped tracee, at most *size* bytes of it.

    Raises:
        OSError: EINVAL or ENODEV where the kernel, or the task, has none; ESRCH where the thread is gone.
    """
    import ctypes  # noqa: PLC0415 - see ptrace

    buffer = ctypes.create_string_buffer(size)
    vector = _io_vector(buffer)
    ptrace(_PTRACE_GETREGSET, tid, note, ctypes.addressof(vector))
    return ctypes.string_at(buffer, vector[1])


def write_regset(tid: int, note: int, data: bytes) -> None:
    """Write regset *note* of a stopped tracee.

    Raises:
        OSError: the kernel refuses; it then has changed nothing of an XSTATE (copy_uabi_to_xstate() checks first).
    """
    import ctypes  # noqa: PLC0415 - see ptrace

    buffer = ctypes.create_string_buffer(data, len(data))
    vector = _io_vector(buffer)
    ptrace(_PTRACE_SETREGSET, tid, note, ctypes.addressof(vector))


@dataclass(slots=True)
class Tracee:
    """A stopped thread.

    Attributes:
        tid: its number.
        status: what stopped it: the signal, and an event above bit 8, as waitid(2) tells.
        stopped_ns: nanoseconds from PTRACE_INTERRUPT to the end of PTRACE_DETACH: the longest that it stood still for
            us; 0 as long as it is stopped.
    """

    tid: int
    status: int = 0
    stopped_ns: int = 0

    @property
    def in_group_stop(self) -> bool:
        """Whether job control had stopped it, or was about to."""
        return self.status >> 8 == _PTRACE_EVENT_STOP and self.status & 0xFF != signal.SIGTRAP

    @property
    def signal(self) -> int:
        """The signal that was on its way to the thread and is handed back; 0 if none was."""
        return 0 if self.status >> 8 == _PTRACE_EVENT_STOP else self.status & 0xFF

    def regset(self, note: int, size: int = LARGEST_REGSET) -> bytes | None:
        """Return a regset as `read_regset`, or None where there is none.

        Raises:
            ProcessLookupError: the thread is gone.
        """
        try:
            return read_regset(self.tid, note, size)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENODEV, errno.EIO}:
                return None
            raise


@contextlib.contextmanager
def stopped(tid: int, *, patience: float = _PATIENCE) -> Iterator[Tracee]:
    """Stop thread *tid* for the block.  To be used inside `in_tracer`.

    Raises:
        PermissionError: it may not be traced; `fpstate.linux.whytrace.refusal` says why.
        ProcessLookupError: it is gone, maybe since a moment ago.
        CannotTell: it did not stop within *patience* seconds.
    """
    tracee = Tracee(tid)
    ptrace(_PTRACE_SEIZE, tid)
    start = time.perf_counter_ns()
    ptrace(_PTRACE_INTERRUPT, tid)
    tracee.status = _wait(tid, patience)
    try:
        yield tracee
    finally:
        with contextlib.suppress(ProcessLookupError):  # killed meanwhile
            ptrace(_PTRACE_DETACH, tid, 0, tracee.signal)
        tracee.stopped_ns = time.perf_counter_ns() - start


def _wait(tid: int, patience: float) -> int:
    """Wait for the stop and return its status.  Only stops are asked for: a child's end is its parent's to collect."""
    start = time.monotonic()
    while True:
        try:
            found = os.waitid(os.P_PID, tid, os.WSTOPPED | os.WNOHANG | _WALL)
        except ChildProcessError:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"thread {tid}") from None
        if found is not None and found.si_pid:
            return found.si_status
        waited = time.monotonic() - start
        if waited < _SOON:
            time.sleep(20e-6)
            continue
        state = state_of(tid)
        if state in {"Z", "X", ""}:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"thread {tid}")
        if state == "t":  # another thread of ours waits for this child of ours, and was told of the stop instead
            return _status_by_siginfo(tid)
        if waited > patience:
            raise CannotTell(
                f"thread {tid} did not stop within {patience:g} s: it is in state {state} (proc(5)), and stops only "
                "when its system call is over",
                cure="try again later; /proc/PID/wchan says where it waits",
            )
        time.sleep(min(waited / 10, 0.01))


def _status_by_siginfo(tid: int) -> int:
    """Return what waitid(2) says of a stop, by its siginfo: an event is in si_code (ptrace_do_notify())."""
    import ctypes  # noqa: PLC0415 - see ptrace

    siginfo = (ctypes.c_int32 * 32)()  # si_signo, si_errno, si_code, and 116 bytes more
    ptrace(_PTRACE_GETSIGINFO, tid, 0, ctypes.addressof(siginfo))
    signo, _, code = siginfo[:3]
    return int(code if code >> 8 == _PTRACE_EVENT_STOP else signo)


def state_of(tid: int) -> str:
    """Return the state letter of thread *tid* (proc(5)); "" if it is gone."""
    try:
        with open(f"/proc/{tid}/stat", "rb") as file:  # noqa: PTH123 - asked often, and pathlib is slow to build
            return file.read().rpartition(b") ")[2][:1].decode("ascii")
    except OSError:
        return ""
