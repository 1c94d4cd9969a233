"""The extended state of a traced process, as PTRACE_GETREGSET hands it out.

``measure`` runs in a helper process: it forks a child and traces it.  Sources: ptrace(2), Linux ``<linux/elf.h>``,
``arch/x86/kernel/fpu/xstate.c`` (``__copy_xstate_to_uabi_buf`` puts the user features into the software bytes).
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final

from fpstate.errors import CannotTell
from fpstate.linux.observe.child import Answer, asked_of_helper
from fpstate.linux.observe.libc import end_with_parent, libc

if TYPE_CHECKING:
    import ctypes

__all__ = ["PROBE", "measure"]

_PTRACE_TRACEME, _PTRACE_GETREGSET = 0, 0x4204  # <linux/ptrace.h>
_NT_X86_XSTATE: Final = 0x202  # <linux/elf.h>
_SW_RESERVED: Final = 464
"""Offset of the software bytes in the image: word 0 is the mask of user features."""
_LARGEST: Final = 1 << 16


def measure(_seconds: float) -> Answer:
    """Trace a child that stopped itself and read its NT_X86_XSTATE regset.

    Raises:
        CannotTell: tracing is forbidden, or there is no such regset.
    """
    import ctypes  # noqa: PLC0415 - see the package: importing it stays cheap

    library = libc()
    library.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    library.ptrace.restype = ctypes.c_long
    tracee = os.fork()
    if tracee == 0:
        _stop_traced(library)
    try:
        _, status = os.waitpid(tracee, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status)
            said = os.strerror(code) if code > 0 else f"it ended with {code}"
            raise CannotTell(f"a child could not be traced: {said}", cure="see /proc/sys/kernel/yama/ptrace_scope")
        return _read_regset(library, tracee)
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(tracee, signal.SIGKILL)
            os.waitpid(tracee, 0)


def _stop_traced(library: ctypes.CDLL) -> None:
    """Be the tracee: ask to be traced and stop; never return."""
    import ctypes  # noqa: PLC0415 - loaded already

    code = 1
    try:
        end_with_parent(signal.SIGKILL)  # nobody else would continue it
        if library.ptrace(_PTRACE_TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        code = ctypes.get_errno()
    finally:
        os._exit(code)


def _read_regset(library: ctypes.CDLL, tracee: int) -> Answer:
    import ctypes  # noqa: PLC0415 - loaded already

    class IoVec(ctypes.Structure):
        """``struct iovec``."""

        _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))

    image = ctypes.create_string_buffer(_LARGEST)
    vector = IoVec(iov_base=ctypes.addressof(image), iov_len=_LARGEST)
    if library.ptrace(_PTRACE_GETREGSET, tracee, _NT_X86_XSTATE, ctypes.byref(vector)):
        raise CannotTell(f"PTRACE_GETREGSET(NT_X86_XSTATE): {os.strerror(ctypes.get_errno())}: XSAVE is off")
    size = int(vector.iov_len)
    features = int.from_bytes(image.raw[_SW_RESERVED : _SW_RESERVED + 8], "little")
    return {"ptrace_xstate_size": size, "ptrace_sw_xfeatures": features}


PROBE: Final = asked_of_helper(
    "regset",
    {
        "ptrace_xstate_size": "iov_len of PTRACE_GETREGSET(NT_X86_XSTATE)",
        "ptrace_sw_xfeatures": "offset 464 of PTRACE_GETREGSET(NT_X86_XSTATE)",
    },
)
