"""ptrace and core dumps: ``arch/x86/kernel/fpu/regset.c``."""

from __future__ import annotations

from typing import Any

from fpstate.linux.kernel.signal import Signal
from fpstate.linux.kernel.state import Cpu, Task

__all__ = ["Regset"]


class Regset(Signal):
    """NT_X86_XSTATE of a stopped task, and of the current one when it dumps core."""

    def xstateregs_get(self, task: Task) -> Any:
        """PTRACE_GETREGSET: the user image of a stopped task; its PKRU is in thread.pkru."""
        return self.copy_xstate_to_uabi_buf(task.own, task.own.user_xfeatures, task.pkru)

    def xstateregs_set(self, task: Task, image: Any) -> None:
        """PTRACE_SETREGSET: *image* becomes the state of a stopped task."""
        self.fpu_force_restore(task)
        task.pkru = self.hw.from_user(task.own, image)

    def xstateregs_get_current(self, cpu: Cpu, task: Task) -> Any:
        """A core dump: the user image of the current task."""
        self.fpu_sync_fpstate(cpu, task)
        return self.copy_xstate_to_uabi_buf(task.own, task.own.user_xfeatures, self.hw.rdpkru(cpu))
