"""Signal frames: ``arch/x86/kernel/fpu/signal.c``."""

from __future__ import annotations

import errno
from typing import Any, Final

from fpstate.isa.rules import Fault
from fpstate.linux.abi import MINSIGSTKSZ
from fpstate.linux.kernel.state import Cpu, Task
from fpstate.linux.kernel.xstate import Xstate

__all__ = ["EVERYTHING", "Signal"]

EVERYTHING: Final = -1
"""What a frame brings whose software bytes name every component."""


class Signal(Xstate):
    """Delivery and return."""

    def copy_fpstate_to_sigframe(self, cpu: Cpu, task: Task) -> Any:
        """Save the registers into the frame, where the handler reads them; return the image."""
        if task.need_fpu_load:
            self.fpregs_restore_userregs(cpu, task)
        self.xfd_validate_state(cpu, task, task.fpstate, task.fpstate.user_xfeatures, restores=False)
        return self.hw.xsave_to_user(cpu, task.fpstate)

    def user_features(self, task: Task) -> int:
        """What a frame of *task* can bring in."""
        return task.fpstate.user_xfeatures & self.sets.user_maximum

    def restore_fpregs_from_user(
        self, cpu: Cpu, task: Task, image: Any, xrestore: int = EVERYTHING, *, fx_only: bool = False
    ) -> None:
        """The fast path of sigreturn, for 64-bit frames: straight from user memory.

        Args:
            cpu: where *task* is current.
            task: whose frame it is.
            image: the frame's.
            xrestore: what the software bytes say that it brings.
            fx_only: check_xstate_in_sigframe() found no extended state in it.

        Raises:
            Fault: XRSTOR or FXRSTOR refused the image.
        """
        brought = self.user_features(task) & xrestore
        self.xfd_update_state(cpu, task.fpstate)
        try:
            if fx_only:
                self.hw.fxrstor_from_user(cpu, image)
            else:
                self.hw.xrstor_from_user(cpu, image, brought)
        except Fault:
            self.restore_failed(cpu, task)
            raise
        self.initialise_the_rest(cpu, task, brought)
        self.restore_supervisor(cpu, task)
        self.fpregs_mark_activate(cpu, task)

    def initialise_the_rest(self, cpu: Cpu, task: Task, brought: int) -> None:
        """What the frame did not bring becomes initial, PKRU too: of the task's components, or of all there are."""
        everything = self.user_features(task)
        if self.policy.sigreturn_initialises_dynamic:
            everything |= self.sets.user_restore
        missing = everything & ~brought
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
        task.pkru = self.hw.from_user(task.fpstate, image)
        self.os_xrstor_safe(cpu, task)
        self.fpregs_mark_activate(cpu, task)

    def os_xrstor_safe(self, cpu: Cpu, task: Task) -> None:
        """Load everything that the fpstate can have, PKRU too."""
        self.xfd_update_state(cpu, task.fpstate)
        self.hw.xrstor(cpu, task.fpstate, self.sets.maximum)

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

    def fpu_restore_sig_failed(self, cpu: Cpu, task: Task) -> None:
        """The end of fpu__restore_sig() where the image was refused: initial registers, and SIGSEGV."""
        self.fpu_clear_user_states(cpu, task)

    # -- alternate stacks: kernel/signal.c, arch/x86/kernel/signal.c ---------------------------------------------------

    def do_sigaltstack(self, task: Task, size: int) -> int:
        """sigaltstack(2) with a stack of *size* bytes; return 0 or an errno."""
        if size < MINSIGSTKSZ or not self.sigaltstack_size_valid(task, size):
            return errno.ENOMEM
        task.sas_size = size
        return 0

    def sigaltstack_size_valid(self, task: Task, size: int) -> bool:
        """Whether a frame with all that the process is permitted fits; without dynamic permission nobody asks."""
        if size > self.hw.sigframe_size(task.state_perm):
            return True
        return not (self.hw.strict_sas_size or task.state_perm & self.sets.dynamic)
