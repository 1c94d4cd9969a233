"""The command ``fpstate`` inside gdb: the full extended state of the selected thread of a live process.

    (gdb) python import fpstate.plugins.gdb
    (gdb) fpstate
    (gdb) fpstate zmm3 k1

gdb's own reading knows the layouts that gdb knows.  This one asks the kernel: gdb's Python runs in the thread of gdb
that traces the process, and so may use ptrace(2) on it itself.  Of a core, which has no live thread, it says which
command reads it.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from fpstate import cpu as cpus
from fpstate import registers as regs
from fpstate.errors import FpstateError, UnreadableInput
from fpstate.image import Image, read
from fpstate.isa import Capabilities
from fpstate.linux.tracee import NT_X86_XSTATE, read_regset
from fpstate.report import show

__all__ = ["describe"]

gdb: Final[Any] = importlib.import_module("gdb")  # there is one inside gdb alone, and it has no types


def describe(names: list[str]) -> str:
    """Return the state of the selected thread as ``fpstate show`` shows it.

    Args:
        names: registers to show alone; all that are not initial if empty.

    Raises:
        UnreadableInput: no live thread is selected, or the kernel does not give its state.
        UsageError: there is no such register.
    """
    image = _selected()
    wanted = [regs.find(name.lstrip("$"), image.caps.sizes) for name in names]
    return show.text(image, show.values(image, wanted, everything=False), brief=bool(wanted))


def _selected() -> Image:
    thread = gdb.selected_thread()
    if thread is None:
        raise UnreadableInput("no thread is selected", cure="start or attach to a process")
    pid, lwp, _ = thread.ptid
    tid = lwp or pid
    try:
        data = read_regset(tid, NT_X86_XSTATE)
    except OSError as error:
        raise UnreadableInput(
            f"thread {tid} is not one that this gdb traces itself ({error.strerror}): a core, or a remote target",
            cure="of a core: fpstate decode CORE",
        ) from error
    return read(data, Capabilities(cpus.this_host()))


class _Fpstate(gdb.Command):  # type: ignore[misc]  # gdb's module has no types
    """Show the full extended state of the selected thread: fpstate [REGISTER]..."""

    def __init__(self) -> None:
        super().__init__("fpstate", gdb.COMMAND_DATA)

    def invoke(self, argument: str, _from_tty: bool) -> None:
        """Run the command (gdb's own hook)."""
        try:
            gdb.write(f"{describe(gdb.string_to_argv(argument))}\n")
        except FpstateError as refusal:
            raise gdb.GdbError(f"fpstate: {refusal}") from refusal


_Fpstate()
