"""ptrace and core dumps: ``arch/x86/kernel/fpu/regset.c``."""

from __future__ import annotations

import errno
from typing import Any, Final

from fpstate.linux.kernel.signal import Signal
from fpstate.linux.kernel.state import Cpu, Task

__all__ = ["Regset"]

CET_USER: Final = 11


class Regset(Signal):
    """The regsets of a stopped task, and of the current one when it dumps core."""

    def xstateregs_get(self, task: Task) -> Any:
        """PTRACE_GETREGSET: the user image of a stopped task; its PKRU is in thread.pkru."""
        return self.copy_xstate_to_uabi_buf(task.own, task.own.user_xfeatures, task.pkru)

    def xstateregs_set(self, task: Task, image: Any) -> None:
        """PTRACE_SETREGSET: *image* becomes the state of a stopped task."""
        self.hw.check_regset(image)
        self.fpu_force_restore(task)
        task.pkru = self.hw.from_user(task.own, image)

    def xstateregs_get_current(self, cpu: Cpu, task: Task) -> Any:
        """A core dump: the user image of the current task."""
        self.fpu_sync_fpstate(cpu, task)
        pkru = self.hw.rdpkru(cpu) if self.policy.coredump_reads_pkru else task.pkru
        return self.copy_xstate_to_uabi_buf(task.own, task.own.user_xfeatures, pkru)

    def xfpregs_get(self, task: Task) -> Any:
        """NT_PRFPREG of a stopped task: its FXSAVE image."""
        return self.hw.to_user_fx(task.own)

    def ssp_active(self, task: Task) -> bool:
        """Whether the task has a shadow stack."""
        return task.shstk

    def ssp_get(self, task: Task) -> tuple[int, bytes]:
        """NT_X86_SHSTK of a stopped task: an errno, or 0 and the shadow stack pointer."""
        cetregs = self.hw.component(task.own, CET_USER) if self.ssp_active(task) else None
        if cetregs is None:
            return errno.ENODEV, b""
        return 0, bytes(cetregs[8:16])

    def dump_xsave_layout_desc(self) -> list[tuple[int, int, int, int]]:
        """The note NT_X86_XSAVE_LAYOUT of a core: type, size, offset and flags of each extended component."""
        return [(bit, size, offset, 0) for bit, size, offset in self.hw.standard_places(self.sets.user_maximum)]
