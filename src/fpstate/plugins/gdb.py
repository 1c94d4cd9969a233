"""The command ``fpstate`` inside gdb: the full extended state of the selected thread, of a live process or a core.

    (gdb) python import fpstate.plugins.gdb
    (gdb) fpstate
    (gdb) fpstate zmm3 k1

gdb's own reading knows the layouts that gdb knows.  This one asks the kernel: gdb's Python runs in the thread of gdb
that traces the process, and so may use ptrace(2) on it itself.  Of a core it reads the file that gdb has open, as
``fpstate decode`` does.
"""

from __future__ import annotations

import importlib
import re
from typing import Any, Final

from fpstate import cpu as cpus
from fpstate import registers as regs
from fpstate.errors import FpstateError, UnreadableInput
from fpstate.image import Image, read
from fpstate.isa import Capabilities
from fpstate.linux.tracee import NT_X86_XSTATE, read_regset
from fpstate.report import decode as decode_report
from fpstate.report import show
from fpstate.sources.decoded import decode

__all__ = ["describe"]

gdb: Final[Any] = importlib.import_module("gdb")  # there is one inside gdb alone, and it has no types
_CORE: Final = re.compile(r"core dump file:\s+`(.*)', file type ")
"""Where ``info files`` names it; gdb's Python tells it nowhere."""


def describe(names: list[str]) -> str:
    """Return the state of the selected thread as ``fpstate show`` or, of a core, ``fpstate decode`` shows it.

    Args:
        names: registers to show alone; all that are not initial if empty.

    Raises:
        UnreadableInput: no thread is selected, the kernel does not give its state, or the core has none.
        UsageError: there is no such register, or the core has no such thread.
    """
    thread = gdb.selected_thread()
    if thread is None:
        raise UnreadableInput("no thread is selected", cure="start or attach to a process, or open a core")
    pid, lwp, _ = thread.ptid
    wanted = [name.lstrip("$") for name in names]
    core = _core()
    return _of_core(core, lwp or pid, wanted) if core else _of_live(lwp or pid, wanted)


def _core() -> str | None:
    """Return the path of the core that gdb reads registers from; None where it debugs something live."""
    connection = getattr(gdb.selected_inferior(), "connection", None)
    if connection is None or connection.type != "core":
        return None
    found = _CORE.search(gdb.execute("info files", to_string=True))
    return None if found is None else found[1]


def _of_core(path: str, tid: int, names: list[str]) -> str:
    found = decode(path)
    threads = [found.thread(tid)]
    return decode_report.registers_text(found, threads, names) if names else decode_report.text(found, threads)


def _of_live(tid: int, names: list[str]) -> str:
    image = _live(tid)
    wanted = [regs.find(name, image.caps.sizes) for name in names]
    return show.text(image, show.values(image, wanted, everything=False), brief=bool(wanted))


def _live(tid: int) -> Image:
    try:
        data = read_regset(tid, NT_X86_XSTATE)
    except OSError as error:
        raise UnreadableInput(
            f"thread {tid} is not one that this gdb traces itself ({error.strerror}): a remote target?",
            cure="of a core: fpstate decode CORE --thread TID",
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
