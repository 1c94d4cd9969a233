"""The guest side: ``arch/x86/kvm/x86.c`` as far as extended state goes."""

from __future__ import annotations

from typing import Any

from fpstate.cpu import xcr0
from fpstate.linux.kernel.process import Process
from fpstate.linux.kernel.state import GUEST, KERNEL, Cpu, Guest, Task

__all__ = ["Kvm"]


class Kvm(Process):
    """One vCPU a task.  *task* is the vCPU's thread, current on *cpu*, unless something else is said."""

    # -- creation ---------------------------------------------------------------------------------------------------

    def kvm_create_vcpu(self, task: Task, guest: Guest) -> None:
        """kvm_arch_vcpu_create(), RESET included."""
        self.fpu_alloc_guest_fpstate(task, guest)
        guest.pkru = guest.host_pkru = self.hw.pkru_initial
        guest.own = self.hw.nothing
        guest.xfd_intercepted = 1
        guest.exists = 1

    def kvm_destroy_vcpu(self, guest: Guest) -> None:
        """kvm_arch_vcpu_destroy()."""
        self.fpu_free_guest_fpstate(guest)
        guest.exists = 0

    def guest_writable(self, guest: Guest) -> int:
        """What the guest can change, by whatever means."""
        return self.sets.kvm & (guest.fpstate.xfeatures | self.sets.kvm_own)

    def guest_dynamic(self, guest: Guest) -> int:
        """The dynamic components that the guest has."""
        return self.sets.kvm & self.sets.dynamic & guest.fpstate.xfeatures

    # -- KVM_RUN and the guest FPU --------------------------------------------------------------------------------

    def kvm_load_guest_fpu(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """Plug the guest's fpstate in."""
        self.spec.warn("kvm_load_guest_fpu: KVM_BUG_ON in_use", guest.fpstate.in_use)
        self.fpu_swap_kvm_fpstate(cpu, task, guest, enter=True)
        self.spec.trace("kvm_fpu load", cpu, task)

    def kvm_put_guest_fpu(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """Take it out again."""
        self.spec.warn("kvm_put_guest_fpu: KVM_BUG_ON not in_use", not guest.fpstate.in_use)
        self.fpu_swap_kvm_fpstate(cpu, task, guest, enter=False)
        self.spec.trace("kvm_fpu unload", cpu, task)

    def vcpu_load(self, cpu: Cpu, guest: Guest) -> None:
        """kvm_arch_vcpu_load(): at an ioctl's start, and when the thread is scheduled in during one."""
        guest.host_pkru = self.hw.rdpkru(cpu)
        guest.loaded = 1
        self.load_own(cpu, guest)

    def vcpu_put(self, cpu: Cpu, guest: Guest) -> None:
        """kvm_arch_vcpu_put(): at its end, and when the thread is scheduled out during one."""
        self.save_own(cpu, guest)
        guest.loaded = 0

    def kvm_run_begins(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """kvm_arch_vcpu_ioctl_run(), up to its loop."""
        self.vcpu_load(cpu, guest)
        self.kvm_load_guest_fpu(cpu, task, guest)

    def kvm_run_ends(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """The rest of it."""
        self.kvm_put_guest_fpu(cpu, task, guest)
        self.vcpu_put(cpu, guest)

    def load_own(self, cpu: Cpu, guest: Guest) -> None:
        """Load what a design keeps beside the guest's fpstate."""
        if self.sets.kvm_own & self.sets.raw_msr:
            self.hw.write_msrs(cpu, self.sets.raw_msr, guest.own)
        elif self.sets.kvm_own:
            self.hw.xrstors(cpu, guest.own, self.sets.kvm_own)

    def save_own(self, cpu: Cpu, guest: Guest) -> None:
        """Save it; MSRs are then written with 0, for the host has no use for them."""
        if self.sets.kvm_own & self.sets.raw_msr:
            guest.own = self.hw.read_msrs(cpu, self.sets.raw_msr)
            self.hw.write_msrs(cpu, self.sets.raw_msr, self.hw.nothing)
        elif self.sets.kvm_own:
            guest.own = self.hw.xsaves(cpu, guest.own, self.sets.kvm_own)

    def kvm_sched_out(self, cpu: Cpu, task: Task) -> None:
        """The preempt notifier, before the switch."""
        if task.guest is not None and task.guest.loaded:
            self.save_own(cpu, task.guest)

    def kvm_sched_in(self, cpu: Cpu, task: Task) -> None:
        """The preempt notifier, after the switch."""
        if task.guest is not None and task.guest.loaded:
            task.guest.host_pkru = self.hw.rdpkru(cpu)
            self.load_own(cpu, task.guest)

    # -- VM entry and exit: interrupts are off --------------------------------------------------------------------

    def vm_entry(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """vcpu_enter_guest() up to VMLAUNCH, VMRESUME or VMRUN."""
        self.fpregs_assert_state_consistent(cpu, task)
        if task.need_fpu_load:
            self.switch_fpu_return(cpu, task)
        self.kvm_load_guest_xsave_state(cpu, guest)
        task.mode = GUEST

    def vm_exit(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """vcpu_enter_guest() from the VM exit until interrupts are on again."""
        self.kvm_load_host_xsave_state(cpu, guest)
        if not guest.xfd_intercepted:
            self.fpu_sync_guest_vmexit_xfd_state(cpu, task)
        task.mode = KERNEL

    def kvm_load_guest_xsave_state(self, cpu: Cpu, guest: Guest) -> None:
        """The guest's XCR0, IA32_XSS and PKRU."""
        self.hw.load_xsave_state(cpu, guest)
        self.hw.wrpkru(cpu, guest.pkru)

    def kvm_load_host_xsave_state(self, cpu: Cpu, guest: Guest) -> None:
        """The host's."""
        guest.pkru = self.hw.rdpkru(cpu)
        self.hw.wrpkru(cpu, guest.host_pkru)
        self.hw.load_xsave_state(cpu, None)

    # -- MSRs and ioctls ----------------------------------------------------------------------------------------------

    def kvm_access_xstate_msr(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """Before RDMSR or WRMSR of a guest MSR that lies in the guest's fpstate: make the registers hold it."""
        self.spec.warn("kvm_access_xstate_msr: KVM_BUG_ON not in_use", not guest.fpstate.in_use)
        self.fpregs_lock_and_load(cpu, task)

    def msr_io_begins(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """KVM_GET_MSRS and KVM_SET_MSRS: __msr_io(), at the list's first MSR that lies in the guest's fpstate."""
        self.vcpu_load(cpu, guest)
        self.kvm_load_guest_fpu(cpu, task, guest)

    def msr_io_ends(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """Behind the list."""
        self.kvm_put_guest_fpu(cpu, task, guest)
        self.vcpu_put(cpu, guest)

    def kvm_fpu_get(self, cpu: Cpu, task: Task) -> None:
        """Before the emulator reads or writes the guest's XMM and YMM registers: make the registers hold them."""
        self.fpregs_lock_and_load(cpu, task)

    def kvm_set_xfd(self, cpu: Cpu, task: Task, guest: Guest, xfd: int) -> None:
        """MSR_IA32_XFD, by an intercepted WRMSR of the guest or by KVM_SET_MSRS."""
        self.fpu_update_guest_xfd(cpu, task, guest, xfd)
        if xfd:
            guest.xfd_intercepted = 0

    def kvm_set_xcr(self, guest: Guest, value: int) -> int:
        """__kvm_set_xcr(), of XCR0: return 1 if the guest cannot have *value*."""
        supported = self.guest_writable(guest) & self.sets.xcr0 | 1
        if value & ~supported or xcr0.fault(value) is not None:
            return 1
        guest.xcr0 = value
        return 0

    def kvm_set_xss(self, guest: Guest, value: int) -> int:
        """MSR_IA32_XSS, by an intercepted WRMSR or by KVM_SET_MSRS: return 1 if the guest cannot have *value*."""
        if value & ~(self.guest_writable(guest) & self.sets.xss):
            return 1
        guest.xss = value
        return 0

    def kvm_set_ssp(self, guest: Guest, value: int) -> int:
        """MSR_KVM_INTERNAL_GUEST_SSP, for KVM_SET_ONE_REG and RSM: return 1 unless canonical and a multiple of 4."""
        if value % 4 or -(value >> 47) & (1 << 17) - 1 not in {0, 1}:
            return 1
        guest.ssp = value
        return 0

    # -- SMM and nested guests: SSP lies in the VMCS, no component moves -------------------------------------------

    def enter_smm(self, guest: Guest) -> None:
        """enter_smm_save_state_64()."""
        guest.smram = guest.ssp

    def emulator_leave_smm(self, guest: Guest) -> int:
        """rsm_load_state_64(): return 1 if SMRAM has what SSP cannot be."""
        saved, guest.smram = guest.smram, None
        return self.kvm_set_ssp(guest, saved or 0)

    def nested_vmx_enter_non_root_mode(self, guest: Guest, ssp: int) -> int:
        """VM_ENTRY_LOAD_CET_STATE: return 1 if is_valid_cet_state() refuses *ssp* of vmcs12: its two low bits."""
        if ssp % 4:
            return 1
        guest.ssp, guest.l1_ssp = ssp, guest.ssp
        return 0

    def nested_vmx_vmexit(self, guest: Guest) -> None:
        """VM_EXIT_LOAD_CET_STATE."""
        guest.ssp, guest.l1_ssp = guest.l1_ssp or 0, None

    def kvm_get_xsave(self, guest: Guest) -> Any:
        """KVM_GET_XSAVE(2)."""
        return self.fpu_copy_guest_fpstate_to_uabi(guest, self.sets.kvm, guest.pkru)

    def kvm_set_xsave(self, guest: Guest, image: Any) -> None:
        """KVM_SET_XSAVE."""
        if self.policy.kvm_drops_xfd:
            image = self.hw.without(image, guest.fpstate.xfd)
        guest.pkru = self.fpu_copy_uabi_to_guest_fpstate(guest, image)

    def kvm_xstate_reset(self, cpu: Cpu, task: Task, guest: Guest, *, wants_to_run: int) -> None:
        """INIT of a vCPU: its MPX and CET state becomes initial, the rest stays."""
        in_use = guest.fpstate.in_use
        self.spec.warn("kvm_xstate_reset", in_use != wants_to_run)
        if in_use:
            self.kvm_put_guest_fpu(cpu, task, guest)
        self.hw.zero(guest.fpstate, self.sets.reset_by_init)
        if in_use:
            self.kvm_load_guest_fpu(cpu, task, guest)
        if self.sets.kvm_own & self.sets.reset_by_init:
            self.hw.write_msrs(cpu, self.sets.kvm_own & self.sets.reset_by_init, self.hw.nothing)

    def kvm_get_mpstate(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """KVM_GET_MP_STATE: a pending INIT is taken here, outside KVM_RUN."""
        self.vcpu_load(cpu, guest)
        self.kvm_xstate_reset(cpu, task, guest, wants_to_run=0)
        self.vcpu_put(cpu, guest)
