"""Signal frames: ``arch/x86/kernel/fpu/signal.c``."""

from __future__ import annotations

from typing import Any

from fpstate.isa.rules import Fault
from fpstate.linux.kernel.state import Cpu, Task
from fpstate.linux.kernel.xstate import Xstate

__all__ = ["Signal"]


class Signal(Xstate):
    """Delivery and return."""

    def copy_fpstate_to_sigframe(self, cpu: Cpu, task: Task) -> Any:
        """Save the registers into the frame, where the handler reads them; return the image."""
        if task.need_fpu_load:
            self.fpregs_restore_userregs(cpu, task)
        self.xfd_validate_state(cpu, task, task.fpstate, task.fpstate.user_xfeatures, restores=False)
        return self.hw.xsave_to_user(cpu, task.fpstate)

    def setup_sigframe(self, cpu: Cpu, task: Task) -> Any:
        """handle_signal(): the frame, then initial registers for the handler."""
        image = self.copy_fpstate_to_sigframe(cpu, task)
        self.fpu_clear_user_states(cpu, task)
        return image

    def user_features(self, task: Task) -> int:
        """What a frame of *task* can bring in."""
        return task.fpstate.user_xfeatures & self.sets.user_maximum

    def restore_fpregs_from_user(self, cpu: Cpu, task: Task, image: Any) -> None:
        """The fast path of sigreturn, for 64-bit frames: straight from user memory.

        Raises:
            Fault: XRSTOR refused the image.
        """
        mask = self.user_features(task)
        self.xfd_update_state(cpu, task.fpstate)
        try:
            self.hw.xrstor_from_user(cpu, image, mask)
        except Fault:
            self.restore_failed(cpu, task)
            raise
        self.initialise_the_rest(cpu, task)
        self.restore_supervisor(cpu, task)
        self.fpregs_mark_activate(cpu, task)

    def initialise_the_rest(self, cpu: Cpu, task: Task) -> None:
        """What the frame did not bring becomes initial: of the task's own components, or of all that there are."""
        everything = self.sets.user_restore if self.policy.sigreturn_initialises_dynamic else self.user_features(task)
        missing = everything & ~self.user_features(task)
        if missing:
            self.hw.xrstor(cpu, self.init_fpstate, missing)

    def restore_supervisor(self, cpu: Cpu, task: Task) -> None:
        """The user's image brought no supervisor state: if the registers were not the task's, it is in its fpstate."""
        if task.need_fpu_load and self.sets.supervisor:
            self.hw.xrstor(cpu, task.fpstate, self.sets.supervisor)

    def restore_failed(self, cpu: Cpu, task: Task) -> None:
        """XRSTOR from user memory faulted, and may have changed registers that are somebody else's."""
        if task.need_fpu_load:
            self.cpu_invalidate_fpregs_state(cpu)

    def sigreturn_faults(self, cpu: Cpu, task: Task) -> None:
        """A page of the frame is missing: the fast path has changed some registers, and will repeat all of it."""
        self.xfd_update_state(cpu, task.fpstate)
        self.hw.partly_restored(cpu, self.user_features(task), own=not task.need_fpu_load)
        self.restore_failed(cpu, task)

    def fpu_restore_sig_slow(self, cpu: Cpu, task: Task, image: Any) -> None:
        """The slow path of __fpu_restore_sig(), ia32 frames: by way of the fpstate, with its checks."""
        self.leave_registers(cpu, task)
        pkru = self.hw.from_user(task.fpstate, image)
        self.hw.wrpkru(cpu, pkru)

    def leave_registers(self, cpu: Cpu, task: Task) -> None:
        """What the slow path does before it copies: from here on the image counts, with the supervisor state in it."""
        if not task.need_fpu_load:
            if self.sets.supervisor:
                self.hw.xsave(cpu, task.fpstate)
            task.need_fpu_load = 1
        self.fpu_invalidate_state(task)
        self.cpu_invalidate_fpregs_state(cpu)

    def fpu_restore_sig_refused(self, cpu: Cpu, task: Task, image: Any) -> None:  # noqa: ARG002  refused: not copied
        """The slow path, where copy_uabi_to_xstate() refuses the header: initial registers, and SIGSEGV."""
        self.leave_registers(cpu, task)
        self.fpu_clear_user_states(cpu, task)
