"""The extended state of a traced process, as PTRACE_GETREGSET hands it out.

``measure`` runs in a helper process: it forks a child and traces it.  Sources: ptrace(2), Linux
``arch/x86/kernel/fpu/xstate.c`` (``__copy_xstate_to_uabi_buf`` puts the user features into the software bytes).
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

from fpstate.errors import CannotTell
from fpstate.linux.observe.child import Answer, asked_of_helper
from fpstate.linux.observe.libc import end_with_parent
from fpstate.linux.tracee import NT_X86_XSTATE, PTRACE_TRACEME, ptrace, read_regset
from fpstate.xfeatures import SOFTWARE

__all__ = ["PROBE", "measure"]


def measure(_seconds: float) -> Answer:
    """Trace a child that stopped itself and read its NT_X86_XSTATE regset.

    Raises:
        CannotTell: tracing is forbidden, or there is no such regset.
    """
    tracee = os.fork()
    if tracee == 0:
        _stop_traced()
    try:
        _, status = os.waitpid(tracee, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status)
            said = os.strerror(code) if code > 0 else f"it ended with {code}"
            raise CannotTell(f"a child could not be traced: {said}", cure="see /proc/sys/kernel/yama/ptrace_scope")
        return _read_regset(tracee)
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(tracee, signal.SIGKILL)
            os.waitpid(tracee, 0)


def _stop_traced() -> None:
    """Be the tracee: ask to be traced and stop; never return."""
    code = 1
    try:
        end_with_parent(signal.SIGKILL)  # nobody else would continue it
        ptrace(PTRACE_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
    except OSError as error:
        code = error.errno or 1
    finally:
        os._exit(code)


def _read_regset(tracee: int) -> Answer:
    try:
        image = read_regset(tracee, NT_X86_XSTATE)
    except OSError as error:
        raise CannotTell(f"PTRACE_GETREGSET(NT_X86_XSTATE): {error.strerror}: XSAVE is off") from error
    features = int.from_bytes(image[SOFTWARE : SOFTWARE + 8], "little")
    return {"ptrace_xstate_size": len(image), "ptrace_sw_xfeatures": features}


PROBE: Final = asked_of_helper(
    "regset",
    {
        "ptrace_xstate_size": "iov_len of PTRACE_GETREGSET(NT_X86_XSTATE)",
        "ptrace_sw_xfeatures": "offset 464 of PTRACE_GETREGSET(NT_X86_XSTATE)",
    },
)
