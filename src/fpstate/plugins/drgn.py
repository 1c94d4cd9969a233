"""A task's fpstate out of a kernel, live or dumped, by drgn.

    >>> from fpstate.plugins.drgn import thread_of
    >>> thread = thread_of(find_task(prog, 4242))

The image is the kernel's own, compacted where it uses XSAVES, with supervisor components.  Of a task that is running
the registers are newer than it (TIF_NEED_FPU_LOAD is then clear).

Sources: Linux ``<asm/fpu/types.h>`` (``struct fpstate``, since 5.16), ``x86_task_fpu()``: since 6.16 ``struct fpu``
lies behind the task_struct, before it was ``thread.fpu``.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from fpstate.errors import UnreadableInput, printable
from fpstate.sources.capture import Thread
from fpstate.xfeatures import MIN_SIZE

__all__ = ["thread_of"]

_LARGEST: Final = 1 << 16
"""Bytes of an image: ``size`` of a damaged dump is not trusted further."""


def thread_of(task: Any) -> Thread:
    """Return the state of *task*, a ``struct task_struct *`` of drgn, or the structure itself.

    Its values have ``xfeatures``, ``user_xfeatures`` and ``xfd`` of the fpstate.

    Raises:
        UnreadableInput: the kernel has no struct fpstate (before 5.16), or the memory is missing or damaged.
    """
    drgn = importlib.import_module("drgn")
    task = task if task.type_.kind == drgn.TypeKind.POINTER else task.address_of_()
    try:
        fpstate = _fpu(drgn, task).fpstate
        size = fpstate.size.value_()
        if not MIN_SIZE <= size <= _LARGEST:
            raise UnreadableInput(f"the fpstate of the task at {task.value_():#x} has {size} bytes: it is damaged")
        image = task.prog_.read(fpstate.regs.address_of_().value_(), size)
        values = {name: fpstate.member_(name).value_() for name in ("xfeatures", "user_xfeatures", "xfd")}
        name, tid = task.comm.string_().decode("utf-8", "replace"), task.pid.value_()
    except AttributeError as missing:
        raise UnreadableInput(f"this kernel has no struct fpstate: {missing}", cure="Linux 5.16 or later") from missing
    except (LookupError, drgn.FaultError) as fault:
        raise UnreadableInput(f"the task at {task.value_():#x} cannot be read: {fault}") from fault
    return Thread(tid, memoryview(image), name=printable(name), values=values)


def _fpu(drgn: Any, task: Any) -> Any:
    """Return the task's ``struct fpu``: x86_task_fpu().

    Raises:
        AttributeError, LookupError: the kernel has none.
    """
    if any(member.name == "fpu" for member in task.thread.type_.members):
        return task.thread.fpu
    behind = task.value_() + drgn.sizeof(task.type_.type)
    return drgn.Object(task.prog_, task.prog_.type("struct fpu"), address=behind)
