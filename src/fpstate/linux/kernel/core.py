"""Saving, loading, copying and dropping FPU state: ``arch/x86/kernel/fpu/core.c`` and ``asm/fpu/sched.h``."""

from __future__ import annotations

from typing import Any

from fpstate.linux.kernel.independent import Independent
from fpstate.linux.kernel.sets import GUEST_PERM_LOCKED
from fpstate.linux.kernel.state import NULL, Cpu, Fpstate, Guest, Task
from fpstate.linux.kvm import XSAVE_IOCTL_SIZE
from fpstate.xfeatures import XTILE

__all__ = ["Core"]


class Core(Independent):
    """The core's functions; each has the kernel's name and the kernel's order."""

    # -- context switch ------------------------------------------------------------------------------------------

    def switch_fpu(self, cpu: Cpu, prev: Task) -> None:
        """Save the state of *prev*, which leaves *cpu*; the next task loads its own on its way to user mode.

        Until 6.15 this was switch_fpu_prepare(), which left TIF_NEED_FPU_LOAD to switch_fpu_finish().
        """
        if not prev.need_fpu_load:
            if not self.policy.switch_marks_next:
                prev.need_fpu_load = 1
            self.save_fpregs_to_fpstate(cpu, prev)
            prev.last_cpu = cpu.ref
            self.spec.trace("x86_fpu_regs_deactivated", cpu, prev)

    def switch_fpu_finish(self, succ: Task) -> None:
        """Until 6.15: *succ*, which has come, loads its state on its way to user mode."""
        if self.policy.switch_marks_next:
            succ.need_fpu_load = 1

    def switch_fpu_return(self, cpu: Cpu, task: Task) -> None:
        """Load the state of the current task: on the way to user mode, and before a VM entry."""
        self.fpregs_restore_userregs(cpu, task)

    def fpregs_lock_and_load(self, cpu: Cpu, task: Task) -> None:
        """Make the registers hold the state of the current task, so that MSRs of it can be written."""
        self.fpregs_assert_state_consistent(cpu, task)
        if task.need_fpu_load:
            self.fpregs_restore_userregs(cpu, task)

    # -- the kernel's own use ------------------------------------------------------------------------------------

    def irq_fpu_usable(self, cpu: Cpu) -> bool:
        """Tell whether the kernel may use the registers here."""
        return not cpu.in_kernel_fpu

    def kernel_fpu_begin(self, cpu: Cpu, task: Task | None) -> None:
        """Take the registers for the kernel; *task* is the current one, None for a kernel thread."""
        self.spec.warn("kernel_fpu_begin: not usable", not self.irq_fpu_usable(cpu))
        cpu.in_kernel_fpu = 1
        if task is not None and not task.need_fpu_load:
            task.need_fpu_load = 1
            self.save_fpregs_to_fpstate(cpu, task)
        self.cpu_invalidate_fpregs_state(cpu)

    def cpu_invalidate_fpregs_state(self, cpu: Cpu) -> None:
        """__cpu_invalidate_fpregs_state(): the registers of *cpu* are about to be overwritten."""
        cpu.fpregs_owner_ctx = NULL

    def kernel_fpu_end(self, cpu: Cpu) -> None:
        """Give them back."""
        self.spec.warn("kernel_fpu_end: not in use", not cpu.in_kernel_fpu)
        cpu.in_kernel_fpu = 0

    def fpu_idle_fpregs(self, cpu: Cpu) -> None:
        """The idle driver releases tiles in use before a deep C-state; whose they were has to load them again."""
        if self.hw.xfeatures_in_use(cpu, XTILE):
            self.hw.tile_release(cpu)
            cpu.fpregs_owner_ctx = NULL

    def fpu_init_cpu(self, cpu: Cpu) -> None:
        """fpu__init_cpu(): a CPU comes up with XCR0, IA32_XSS, and IA32_XFD with its shadow."""
        cpu.in_kernel_fpu = 0
        if self.sets.dynamic:
            self.hw.write_xfd(cpu, self.init_fpstate.xfd)
            cpu.xfd_state = self.init_fpstate.xfd

    # -- fork, exec, exit ----------------------------------------------------------------------------------------

    def fpstate_reset(self, task: Task) -> None:
        """A task's fpstate and permissions as boot configured them; the embedded buffer replaces a larger one."""
        sets = self.sets
        own = task.own
        grown = own.xfeatures & sets.dynamic
        own.size = own.allocated = self.hw.size(sets.default)
        own.user_size = self.hw.user_size(sets.user_default)
        own.xfeatures, own.user_xfeatures = sets.default, sets.user_default
        own.xfd = self.init_fpstate.xfd
        if grown:
            own.image = self.hw.new_image(own)
        task.state_perm, task.guest_perm = sets.default, sets.guest_default
        task.state_size, task.guest_size = self.hw.size(sets.default), self.hw.size(sets.guest_default)

    def fpu_clone(self, cpu: Cpu, parent: Task, child: Task, *, minimal: bool, new_stack: bool) -> None:
        """Give *child* the state of *parent*, the current task; dynamic components are not inherited."""
        child.last_cpu = NULL
        self.fpstate_reset(child)
        child.own.image = self.hw.new_image(child.own)  # arch_dup_task_struct() leaves zeros there
        child.need_fpu_load = 1
        if minimal:
            self.hw.copy_init(child.own)
            return
        if parent.need_fpu_load:
            self.fpregs_restore_userregs(cpu, parent)
        self.hw.xsave(cpu, child.own)
        self.spec.inherits(child, parent)
        self.fpu_inherit_perms(parent, child)
        self.hw.drop(child.own, self.sets.pasid)
        if new_stack:
            self.update_fpu_shstk(parent, child)
        self.spec.trace("x86_fpu_copy_dst", cpu, child)

    def fpu_inherit_perms(self, parent: Task, child: Task) -> None:
        """Permissions go to the child process, the guest's with its lock."""
        if self.sets.dynamic:
            child.state_perm, child.state_size = parent.state_perm, parent.state_size
            child.guest_perm, child.guest_size = parent.guest_perm, parent.guest_size

    def update_fpu_shstk(self, parent: Task, child: Task) -> None:
        """A thread with a shadow stack of its own starts at its top."""
        cet = self.hw.in_image(child.own, self.sets.cet_user)
        self.spec.warn("update_fpu_shstk", cet == 0, of=parent)
        self.hw.set_ssp(child.own, self.spec.new_ssp(child))

    def fpu_flush_thread(self, cpu: Cpu, task: Task) -> None:
        """exec: everything in its initial configuration, permissions as at boot."""
        self.fpstate_reset(task)
        self.fpu_reset_fpregs(cpu, task)

    def fpu_reset_fpregs(self, cpu: Cpu, task: Task) -> None:
        """The image becomes ``init_fpstate``'s, to be loaded on the way to user mode."""
        self.fpu_invalidate_state(task)
        self.hw.copy_init(task.own)
        task.need_fpu_load = 1
        self.pkru_write_default(cpu)

    def fpu_drop(self, cpu: Cpu, task: Task) -> None:
        """fpu__drop(): the current task exits.  Until 6.15 TIF_NEED_FPU_LOAD made no difference."""
        if task.need_fpu_load and not self.policy.switch_marks_next:
            return
        self.fpregs_deactivate(cpu, task)
        self.spec.trace("x86_fpu_dropped", cpu, task)

    # -- signals and regsets ---------------------------------------------------------------------------------------

    def fpu_clear_user_states(self, cpu: Cpu, task: Task) -> None:
        """fpu__clear_user_states(): user components become initial, supervisor ones stay."""
        if self.sets.supervisor and not self.fpregs_state_valid(cpu, task):
            self.hw.xrstor(cpu, task.fpstate, self.sets.supervisor)
        if self.policy.signal_updates_xfd:
            self.xfd_update_state(cpu, task.fpstate)
        self.restore_fpregs_from_init_fpstate(cpu, self.sets.user_restore)
        self.fpregs_mark_activate(cpu, task)

    def restore_fpregs_from_init_fpstate(self, cpu: Cpu, mask: int) -> None:
        """Initialise *mask*, and PKRU as programs start with it."""
        self.spec.require("P4", self.hw.fits(self.init_fpstate.size, self.init_fpstate.xfeatures))
        self.hw.xrstor(cpu, self.init_fpstate, mask)
        self.pkru_write_default(cpu)

    def fpu_sync_fpstate(self, cpu: Cpu, task: Task) -> None:
        """Make the image of the current task newest, for a core dump."""
        self.spec.trace("x86_fpu_before_save", cpu, task)
        if not task.need_fpu_load:
            self.save_fpregs_to_fpstate(cpu, task)
        self.spec.trace("x86_fpu_after_save", cpu, task)

    def copy_xstate_to_uabi_buf(self, fpstate: Fpstate, mask: int, pkru: Any) -> Any:
        """The user image of an fpstate."""
        return self.hw.to_user(fpstate, mask, pkru, always=self.policy.copies_pkru_always)

    def fpu_force_restore(self, task: Task) -> None:
        """A stopped task's image is about to be written: its registers are no longer newest, wherever they are."""
        self.fpu_invalidate_state(task)

    # -- PKRU, which is switched by hand -----------------------------------------------------------------------

    def pkru_write_default(self, cpu: Cpu) -> None:
        """PKRU as the kernel starts programs."""
        self.hw.wrpkru(cpu, self.hw.pkru_default)

    # -- KVM's fpstates -----------------------------------------------------------------------------------------------

    def fpu_alloc_guest_fpstate(self, task: Task, guest: Guest) -> None:
        """A vCPU's fpstate, and no more permission requests for guests from here on."""
        sets = self.sets
        fpstate = guest.fpstate
        fpstate.is_guest = 1
        fpstate.allocated = self.hw.size(sets.guest_allocated)
        fpstate.size = self.hw.size(sets.guest_default)
        fpstate.user_size = self.hw.user_size(sets.user_default)
        fpstate.xfeatures, fpstate.user_xfeatures = sets.guest_default, sets.user_default
        fpstate.xfd = 0
        fpstate.image = self.hw.new_image(fpstate)
        guest.uabi_size = XSAVE_IOCTL_SIZE
        self.fpu_lock_guest_permissions(task)

    def fpu_lock_guest_permissions(self, task: Task) -> None:
        """No more permission requests for guests."""
        task.guest_perm |= GUEST_PERM_LOCKED

    def fpu_free_guest_fpstate(self, guest: Guest) -> None:
        """The vCPU is gone; a buffer in use is leaked, not freed."""
        self.spec.warn("fpu_free_guest_fpstate", guest.fpstate.in_use)

    def fpu_swap_kvm_fpstate(self, cpu: Cpu, task: Task, guest: Guest, *, enter: bool) -> None:
        """Plug the guest's fpstate into the task, or take it out."""
        if not task.need_fpu_load:
            self.save_fpregs_to_fpstate(cpu, task)
        if enter:
            task.plugged = 1
            guest.fpstate.in_use = 1
        else:
            guest.fpstate.in_use = 0
            task.plugged = 0
        self.restore_fpregs_from_fpstate(cpu, task.fpstate)
        self.fpregs_mark_activate(cpu, task)

    def fpu_update_guest_xfd(self, cpu: Cpu, task: Task, guest: Guest, xfd: int) -> None:
        """The guest's IA32_XFD changes, by its own write or by KVM_SET_MSRS."""
        fpstate = guest.fpstate
        if self.policy.kvm_drops_xfd and xfd and task.need_fpu_load:
            self.hw.drop(fpstate, xfd)
        fpstate.xfd = xfd
        if self.policy.guest_xfd_waits_for_load and fpstate.in_use and task.need_fpu_load:
            self.fpu_invalidate_state(task)  # the registers may be another task's: the next load writes the MSR
        elif fpstate.in_use:
            self.xfd_update_state(cpu, fpstate)

    def fpu_sync_guest_vmexit_xfd_state(self, cpu: Cpu, task: Task) -> None:
        """The guest may have written IA32_XFD unseen: read it back into the fpstate and the shadow."""
        if self.sets.dynamic:
            task.fpstate.xfd = cpu.xfd
            cpu.xfd_state = cpu.xfd

    def fpu_copy_guest_fpstate_to_uabi(self, guest: Guest, mask: int, pkru: Any) -> Any:
        """KVM_GET_XSAVE: the user image of a vCPU."""
        return self.copy_xstate_to_uabi_buf(guest.fpstate, mask & guest.fpstate.user_xfeatures, pkru)

    def fpu_copy_uabi_to_guest_fpstate(self, guest: Guest, image: Any) -> Any:
        """KVM_SET_XSAVE: take a user image; return its PKRU, or the vCPU's if it has none."""
        if self.policy.kvm_drops_xfd:
            armed = self.hw.in_user_image(image, guest.fpstate.xfd)
            if self.spec.warn("fpu_copy_uabi_to_guest_fpstate", armed != 0):
                return guest.pkru  # and EINVAL
        pkru = self.hw.from_user(guest.fpstate, image)
        return pkru if self.hw.in_user_image(image, self.sets.pkru) else guest.pkru
