"""Who owns the registers of a CPU: ``arch/x86/kernel/fpu/context.h``, and the traps that guard it."""

from __future__ import annotations

from fpstate.isa.rules import Fault
from fpstate.linux.kernel.hardware import Hardware, Specification
from fpstate.linux.kernel.sets import Sets
from fpstate.linux.kernel.state import NULL, Cpu, Fpstate, Task
from fpstate.linux.policy import Policy

__all__ = ["Context"]


class Context:
    """The base of `Kernel`: its configuration, and the owner's bookkeeping.

    Attributes:
        policy: the design or release, for the rules in which they differ.
        sets: the masks of its configuration.
        hw: what executes its instructions.
        spec: what hears of its WARNs and properties.
        init_fpstate: every component in its initial configuration.
    """

    def __init__(self, policy: Policy, sets: Sets, hw: Hardware, spec: Specification) -> None:
        self.policy = policy
        self.sets = sets
        self.hw = hw
        self.spec = spec
        self.init_fpstate = Fpstate(
            "init_fpstate",
            xfeatures=sets.default,
            user_xfeatures=sets.user_default,
            xfd=sets.initial_xfd,
            size=hw.size(sets.default),
            allocated=hw.size(sets.default),
        )
        self.init_fpstate.image = hw.new_image(self.init_fpstate)

    # -- context.h -----------------------------------------------------------------------------------------------

    def fpregs_state_valid(self, cpu: Cpu, task: Task) -> bool:
        """Tell whether the registers of *cpu* hold the state of *task*."""
        return cpu.fpregs_owner_ctx == task.ref and task.last_cpu == cpu.ref

    def fpregs_deactivate(self, cpu: Cpu, task: Task) -> None:
        """The registers of *cpu* hold nobody's state."""
        cpu.fpregs_owner_ctx = NULL
        self.spec.trace("x86_fpu_regs_deactivated", cpu, task)

    def fpregs_activate(self, cpu: Cpu, task: Task) -> None:
        """The registers of *cpu* hold the state of *task*."""
        cpu.fpregs_owner_ctx = task.ref
        self.spec.trace("x86_fpu_regs_activated", cpu, task)

    def cpu_disable_lazy_restore(self, cpu: Cpu) -> None:
        """__cpu_disable_lazy_restore(): whatever was in the registers of *cpu* is gone."""
        cpu.fpregs_owner_ctx = NULL

    def fpu_invalidate_state(self, task: Task) -> None:
        """__fpu_invalidate_fpregs_state(): the image is newer than any registers."""
        task.last_cpu = NULL

    def fpregs_restore_userregs(self, cpu: Cpu, task: Task) -> None:
        """Load the state of the current task, unless the registers still hold it."""
        if not self.fpregs_state_valid(cpu, task):
            self.restore_fpregs_from_fpstate(cpu, task.fpstate)
            self.fpregs_activate(cpu, task)
            task.last_cpu = cpu.ref
        task.need_fpu_load = 0

    def fpregs_assert_state_consistent(self, cpu: Cpu, task: Task) -> None:
        """Without TIF_NEED_FPU_LOAD the registers hold current's state (CONFIG_X86_DEBUG_FPU)."""
        if not task.need_fpu_load:
            self.spec.warn("fpregs_assert_state_consistent", not self.fpregs_state_valid(cpu, task))

    def fpregs_mark_activate(self, cpu: Cpu, task: Task) -> None:
        """The registers were just loaded with the state of the current task."""
        self.fpregs_activate(cpu, task)
        task.last_cpu = cpu.ref
        task.need_fpu_load = 0

    # -- save and restore (fpu/core.c, fpu/xstate.h) -----------------------------------------------------------------

    def save_fpregs_to_fpstate(self, cpu: Cpu, task: Task) -> None:
        """Save the registers into the active fpstate: saving follows the buffer."""
        fpstate = task.fpstate
        self.xfd_validate_state(cpu, task, fpstate, fpstate.xfeatures, restores=False)
        self.spec.require("P20", cpu.curr != NULL)
        self.spec.require("P3", self.hw.fits(fpstate.allocated, fpstate.xfeatures))
        self.spec.require("P1", fpstate.xfeatures & ~self.hw.enabled(cpu) == 0)
        self.hw.xsave(cpu, fpstate)

    def restore_fpregs_from_fpstate(self, cpu: Cpu, fpstate: Fpstate) -> None:
        """Load the registers from *fpstate*: restoring follows the machine, what the image lacks is initialised."""
        mask = self.sets.guest_restore if fpstate.is_guest else self.sets.restore
        self.xfd_update_state(cpu, fpstate)
        self.spec.require("P20", cpu.curr != NULL)
        self.spec.require("P4", self.hw.fits(fpstate.size, fpstate.xfeatures))
        self.spec.require("P1", fpstate.xfeatures & ~self.hw.enabled(cpu) == 0)
        try:
            self.hw.xrstor(cpu, fpstate, mask)
        except Fault as fault:
            if fault.vector == "#NM":  # no exception table entry helps: the kernel dies of an unexpected #NM
                raise
            self.spec.warn("ex_handler_fprestore", condition=True)  # Bad FPU state detected, reinitializing
            self.xfd_update_state(cpu, self.init_fpstate)
            self.hw.xrstor(cpu, self.init_fpstate, self.sets.restore)

    def xfd_update_state(self, cpu: Cpu, fpstate: Fpstate) -> None:
        """Write IA32_XFD if the shadow says that it differs: before XRSTOR, or the component would be initialised."""
        if self.sets.dynamic and cpu.xfd_state != fpstate.xfd:
            self.hw.write_xfd(cpu, fpstate.xfd)
            cpu.xfd_state = fpstate.xfd

    def xfd_validate_state(self, cpu: Cpu, task: Task, fpstate: Fpstate, mask: int, *, restores: bool) -> None:
        """Warn of an XFD that does not fit what is saved: xstate_op_valid() (CONFIG_X86_DEBUG_FPU)."""
        if not self.sets.dynamic or fpstate.xfd == cpu.xfd_state:
            return
        current = fpstate.xfd == task.fpstate.xfd
        outside = mask & ~cpu.xfd_state & ~fpstate.xfeatures
        self.spec.warn("xfd_validate_state", current or (fpstate is self.init_fpstate and not restores) or outside != 0)
