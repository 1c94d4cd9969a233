"""The mistakes of history: kernels, policies and numbers with one of them each, under the ids of ``data/bugs.toml``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

from fpstate.cpu.model import Cpu as CpuModel
from fpstate.linux.abi import MINSIGSTKSZ, max_sigframe
from fpstate.linux.boot import boot
from fpstate.linux.kernel import GUEST, NULL, Cpu, Fpstate, Guest, Hardware, Kernel, Sets, Specification, Task
from fpstate.linux.kvm import XSAVE_IOCTL_SIZE
from fpstate.linux.policy import Policy
from fpstate.xfeatures import CET, LBR, MIN_SIZE

__all__ = ["KERNELS", "NUMBERS", "RULES", "Numbers"]

Numbers = Callable[[CpuModel, Policy, bool], str | None]
"""What a boot alone decides: of a CPU, a policy, and whether the mistake is made, what is wrong; None if nothing is."""

KERNELS: Final[dict[str, type[Kernel]]] = {}
"""Kernels with a mistake."""
NUMBERS: Final[dict[str, Numbers]] = {}
"""Mistakes in numbers."""
RULES: Final[dict[str, dict[str, Any]]] = {
    "supervisor-perm-clobbered": {"permission_keeps_supervisor": False},
    "guest-buffer-user-size": {"guest_allocation": "user-default"},
    "xstate-bv-with-xfd": {"kvm_drops_xfd": False},
    "lbr-bit-unenumerated": {"independent_needs_cpuid": False},
    "v8-02-bit-forced-on": {"forced": {11: ("SHSTK", "IBT")}},
    "sigreturn-leaves-tiles": {"sigreturn_initialises_dynamic": False},
    "guest-xfd-written-early": {"guest_xfd_waits_for_load": False},
    "regset-hides-pkru": {"copies_pkru_always": False},
    "coredump-shows-old-pkru": {"coredump_reads_pkru": False},
    "signal-handler-without-xfd": {"signal_updates_xfd": False},
}
"""Fields of a policy that are a mistake."""
_K = TypeVar("_K", bound=type[Kernel])


def _mistake(name: str) -> Callable[[_K], _K]:
    def note(kernel: _K) -> _K:
        KERNELS[name] = kernel
        return kernel

    return note


def _number(name: str) -> Callable[[Numbers], Numbers]:
    def note(numbers: Numbers) -> Numbers:
        NUMBERS[name] = numbers
        return numbers

    return note


# The owner of the registers.


@_mistake("lazy-fpu-state-leak")
class _Lazy(Kernel):
    def switch_fpu_return(self, cpu: Cpu, task: Task) -> None:
        """CR0.TS traps the task's first use; until then the registers stay their owner's."""
        if cpu.fpregs_owner_ctx == NULL or self.fpregs_state_valid(cpu, task):
            super().switch_fpu_return(cpu, task)


@_mistake("cached-owner-pointer")
class _CachedOwner(Kernel):
    def fpregs_state_valid(self, cpu: Cpu, task: Task) -> bool:
        """The owner is the one that was read before the preemption: the task itself."""
        return task.last_cpu == cpu.ref


@_mistake("kernel-fpu-owner-not-cleared")
class _KernelKeepsOwner(Kernel):
    def kernel_fpu_begin(self, cpu: Cpu, task: Task | None) -> None:
        """The state is saved, and the registers still count as the task's."""
        owner = cpu.fpregs_owner_ctx
        super().kernel_fpu_begin(cpu, task)
        cpu.fpregs_owner_ctx = owner


@_mistake("hotplug-stale-owner")
class _KeepsOwnerOverHotplug(Kernel):
    def cpu_disable_lazy_restore(self, cpu: Cpu) -> None:
        """Nothing is done about the owner."""


@_mistake("ptrace-edit-lost")
class _TrustsRegistersAfterPtrace(Kernel):
    def fpu_force_restore(self, task: Task) -> None:
        """last_cpu stays."""


@_mistake("fork-last-cpu-copied")
class _CopiesLastCpu(Kernel):
    def fpu_clone(self, cpu: Cpu, parent: Task, child: Task, *, minimal: bool, new_stack: bool) -> None:
        """The copy of task_struct has copied last_cpu too."""
        last_cpu = parent.last_cpu
        super().fpu_clone(cpu, parent, child, minimal=minimal, new_stack=new_stack)
        child.last_cpu = last_cpu


@_mistake("irq-fpu-usable-hardirq")
class _InterruptedSave(Kernel):
    def save_fpregs_to_fpstate(self, cpu: Cpu, task: Task) -> None:
        """A hard interrupt comes within fpregs_lock(), right before XSAVE, and its handler uses the FPU."""
        super().save_fpregs_to_fpstate(cpu, task)
        self.cpu_invalidate_fpregs_state(cpu)
        self.hw.kernel_code(cpu)
        super().save_fpregs_to_fpstate(cpu, task)


# Signals.


@_mistake("bogus-xcomp-bv")
class _BogusXcompBv(Kernel):
    def fpu_restore_sig_slow(self, cpu: Cpu, task: Task, image: Any) -> None:
        """XRSTOR refuses the copied header; the registers stay what they are, and count as restored."""
        self.leave_registers(cpu, task)
        self.hw.from_user(task.fpstate, image)
        self.fpregs_mark_activate(cpu, task)


@_mistake("failed-xrstor-foreign-regs")
class _KeepsOwnerAfterFault(Kernel):
    def restore_failed(self, cpu: Cpu, task: Task) -> None:
        """The owner stays."""


@_mistake("failed-load-owner-not-cleared")
class _KeepsOwnerAfterInitialising(Kernel):
    def sigreturn_faults(self, cpu: Cpu, task: Task) -> None:
        """What the frame lacks is initialised first; then the page of the rest is missing, and the owner stays."""
        self.xfd_update_state(cpu, task.fpstate)
        self.hw.xrstor(cpu, self.init_fpstate, self.user_features(task))


@_mistake("sigreturn-unvalidated-copy")
class _CopiesBeforeChecking(Kernel):
    def fpu_restore_sig_refused(self, cpu: Cpu, task: Task, image: Any) -> None:
        """The image is copied as it is; only then is its header looked at."""
        self.leave_registers(cpu, task)
        task.fpstate.image = image
        self.fpu_clear_user_states(cpu, task)


@_mistake("signal-restore-early-fail-no-reset")
class _FailsWithoutReset(Kernel):
    def fpu_restore_sig_refused(self, cpu: Cpu, task: Task, image: Any) -> None:
        """Nothing is done about the registers."""


@_mistake("supervisor-wiped-fx-only")
class _WipesSupervisor(Kernel):
    def os_xrstor_safe(self, cpu: Cpu, task: Task) -> None:
        """The frame has no extended state: XSTATE_BV is narrowed to x87 and SSE."""
        self.hw.drop(task.fpstate, self.sets.supervisor)
        super().os_xrstor_safe(cpu, task)


@_mistake("fsave-header-stale")
class _HeaderOfOldImage(Kernel):
    def copy_fpstate_to_sigframe(self, cpu: Cpu, task: Task) -> Any:
        """The header is made of the image, and the registers were saved to user memory alone."""
        super().copy_fpstate_to_sigframe(cpu, task)
        return self.copy_xstate_to_uabi_buf(task.fpstate, task.fpstate.user_xfeatures, self.hw.rdpkru(cpu))


# PKRU.


@_mistake("pkru-init-eager-switch")
class _DefaultForInitialPkru(Kernel):
    def pkru_load(self, cpu: Cpu, succ: Task) -> None:
        """Where the image lacks PKRU the default is taken, not 0."""
        absent = succ.pkru == self.hw.pkru_initial
        self.hw.wrpkru(cpu, self.hw.pkru_default if absent else succ.pkru)


@_mistake("pkru-ptrace-write-ignored")
class _IgnoresPkruOfPtrace(Kernel):
    def xstateregs_set(self, task: Task, image: Any) -> None:
        """PKRU goes to the image, from which nobody takes it any more."""
        self.fpu_force_restore(task)
        self.hw.from_user(task.own, image)


@_mistake("pkru-ptrace-init-ignored")
class _IgnoresInitialPkruOfPtrace(Kernel):
    def xstateregs_set(self, task: Task, image: Any) -> None:
        """An image without PKRU leaves PKRU as it was."""
        before = task.pkru
        super().xstateregs_set(task, image)
        if not self.hw.in_user_image(image, self.sets.pkru):
            task.pkru = before


@_mistake("pkru-sigframe-init-bit")
class _FrameWithoutPkruBit(Kernel):
    def copy_fpstate_to_sigframe(self, cpu: Cpu, task: Task) -> Any:
        """PKRU is 0 while the frame is written, so XSAVE leaves its bit clear; the value goes there, the bit stays."""
        self.hw.wrpkru(cpu, self.hw.pkru_initial)
        return super().copy_fpstate_to_sigframe(cpu, task)


@_mistake("pkru-guest-pke-gate")
class _GatesPkruByCr4(Kernel):
    def kvm_load_guest_xsave_state(self, cpu: Cpu, guest: Guest) -> None:
        """The guest has CR4.PKE clear: PKRU stays the host's."""
        self.hw.load_xsave_state(cpu, guest)

    def kvm_load_host_xsave_state(self, cpu: Cpu, guest: Guest) -> None:  # noqa: ARG002
        """PKRU stays the guest's."""
        self.hw.load_xsave_state(cpu, None)


# Permissions, sizes, XFD.


@_mistake("supervisor-size-missed")
class _SizeWithoutSupervisor(Kernel):
    def xstate_request_perm(self, task: Task, number: int, *, guest: bool) -> int:
        """The size is calculated for the user components."""
        error = super().xstate_request_perm(task, number, guest=guest)
        if not guest:
            task.state_size = self.hw.size(task.state_perm & self.policy.user)
        return error


@_mistake("req-perm-overwrites")
class _ReplacesPermissions(Kernel):
    def xstate_request_perm(self, task: Task, number: int, *, guest: bool) -> int:
        """What was asked for is stored in place of what there was."""
        error = super().xstate_request_perm(task, number, guest=guest)
        if not guest:
            task.state_perm = 1 << number & self.policy.user_dynamic
        return error


@_mistake("fork-copies-tiles")
class _CopiesTiles(Kernel):
    copied: Fpstate | None = None

    def fpu_clone(self, cpu: Cpu, parent: Task, child: Task, *, minimal: bool, new_stack: bool) -> None:
        """The features and XFD of the parent are copied with the rest of struct fpu, but not its larger buffer."""
        self.copied = parent.own
        super().fpu_clone(cpu, parent, child, minimal=minimal, new_stack=new_stack)

    def fpstate_reset(self, task: Task) -> None:
        """They stay."""
        super().fpstate_reset(task)
        if self.copied is not None:
            task.own.xfeatures, task.own.xfd = self.copied.xfeatures, self.copied.xfd


@_mistake("fork-permissions-without-sizes")
class _InheritsNoSizes(Kernel):
    def fpu_inherit_perms(self, parent: Task, child: Task) -> None:
        """The masks alone."""
        child.state_perm, child.guest_perm = parent.state_perm, parent.guest_perm


@_mistake("init-fpstate-includes-dynamic")
class _InitFpstateWithTiles(Kernel):
    def __init__(self, policy: Policy, sets: Sets, hw: Hardware, spec: Specification) -> None:
        super().__init__(policy, sets, hw, spec)
        self.init_fpstate.xfeatures = sets.maximum


@_mistake("stale-xfd-shadow")
class _StaleShadow(Kernel):
    def fpu_init_cpu(self, cpu: Cpu) -> None:
        """The MSR is written, the shadow is not."""
        shadow = cpu.xfd_state
        super().fpu_init_cpu(cpu)
        cpu.xfd_state = shadow


# KVM.


@_mistake("v8-06-uninitialised-size")
class _UninitialisedSize(Kernel):
    def fpu_alloc_guest_fpstate(self, task: Task, guest: Guest) -> None:
        """The size is whatever was on the stack."""
        super().fpu_alloc_guest_fpstate(task, guest)
        guest.fpstate.size = self.hw.size(0)


@_mistake("guest-xcr0-irq")
class _LeavesGuestXcr0(Kernel):
    def kvm_load_host_xsave_state(self, cpu: Cpu, guest: Guest) -> None:
        """XCR0 and IA32_XSS stay the guest's until the vCPU is put."""
        super().kvm_load_host_xsave_state(cpu, guest)
        self.hw.load_xsave_state(cpu, guest)

    def kvm_sched_out(self, cpu: Cpu, task: Task) -> None:
        """They become the host's here, too late."""
        self.hw.load_xsave_state(cpu, None)
        super().kvm_sched_out(cpu, task)

    def kvm_run_ends(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """Or here."""
        self.hw.load_xsave_state(cpu, None)
        super().kvm_run_ends(cpu, task, guest)


@_mistake("guest-xcr0-mce")
class _MachineCheckSchedules(Kernel):
    def vm_exit(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """A machine check ended the guest's run; its handler may schedule, and XCR0 is the guest's until it returns."""
        super().vm_exit(cpu, task, guest)
        self.hw.load_xsave_state(cpu, guest)

    def kvm_run_ends(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """It has returned."""
        self.hw.load_xsave_state(cpu, None)
        super().kvm_run_ends(cpu, task, guest)


@_mistake("guest-put-without-load-cet")
class _PutsUnconditionally(Kernel):
    def kvm_xstate_reset(self, cpu: Cpu, task: Task, guest: Guest, *, wants_to_run: int) -> None:  # noqa: ARG002
        """INIT is taken to come within KVM_RUN."""
        self.kvm_put_guest_fpu(cpu, task, guest)
        self.hw.zero(guest.fpstate, self.sets.reset_by_init)
        self.kvm_load_guest_fpu(cpu, task, guest)


@_mistake("guest-spurious-load")
class _LoadsTwice(Kernel):
    def vm_entry(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """The image is loaded once more."""
        self.restore_fpregs_from_fpstate(cpu, guest.fpstate)
        self.fpregs_mark_activate(cpu, task)
        super().vm_entry(cpu, task, guest)


@_mistake("guest-swap-ignores-need-load")
class _SwapSavesAnyRegisters(Kernel):
    def fpu_swap_kvm_fpstate(self, cpu: Cpu, task: Task, guest: Guest, *, enter: bool) -> None:
        """The registers are saved whosever they are."""
        task.need_fpu_load = 0
        super().fpu_swap_kvm_fpstate(cpu, task, guest, enter=enter)


@_mistake("guest-entry-ignores-need-load")
class _LoadsWhenScheduledIn(Kernel):
    def kvm_sched_in(self, cpu: Cpu, task: Task) -> None:
        """The registers are loaded here, long before VM entry."""
        super().kvm_sched_in(cpu, task)
        if task.plugged and task.need_fpu_load:
            self.switch_fpu_return(cpu, task)

    def vm_entry(self, cpu: Cpu, task: Task, guest: Guest) -> None:
        """They are taken to be the guest's still."""
        self.kvm_load_guest_xsave_state(cpu, guest)
        task.mode = GUEST


@_mistake("emulator-fpu-unloaded")
class _EmulatesOnAnyRegisters(Kernel):
    def kvm_fpu_get(self, cpu: Cpu, task: Task) -> None:
        """The registers are taken to be the guest's."""


@_mistake("msr-access-fpu-unloaded")
class _MsrsOfTheHost(Kernel):
    def msr_io_begins(self, cpu: Cpu, task: Task, guest: Guest) -> None:  # noqa: ARG002  that is the mistake
        """The guest's FPU is not loaded."""
        self.vcpu_load(cpu, guest)

    def msr_io_ends(self, cpu: Cpu, task: Task, guest: Guest) -> None:  # noqa: ARG002
        """Nor put."""
        self.vcpu_put(cpu, guest)


@_mistake("vcpu-fpstate-freed-in-use")
class _StaysInUse(Kernel):
    def fpu_swap_kvm_fpstate(self, cpu: Cpu, task: Task, guest: Guest, *, enter: bool) -> None:
        """in_use is never cleared."""
        super().fpu_swap_kvm_fpstate(cpu, task, guest, enter=enter)
        guest.fpstate.in_use = 1


@_mistake("set-xsave-refuses-unsupported")
class _RefusesUserImage(Kernel):
    def fpu_copy_uabi_to_guest_fpstate(self, guest: Guest, image: Any) -> Any:  # noqa: ARG002  that is the mistake
        """The image has a component that the guest's CPUID lacks: EINVAL."""
        return guest.pkru


# What a boot alone decides.


def _without(cpu: CpuModel, mask: int) -> CpuModel:
    """Return *cpu* as if CPUID did not enumerate the supervisor components of *mask*; its flags stay."""
    return replace(
        cpu,
        xss_mask=(cpu.xss_mask or 0) & ~mask,
        components={bit: component for bit, component in cpu.components.items() if not mask >> bit & 1},
        leaves={place: registers for place, registers in cpu.leaves.items() if place[0] != 0xD},
    )


@_number("lbr-bit-unenumerated")
def _unenumerated_lbr(cpu: CpuModel, policy: Policy, mistaken: bool) -> str | None:  # noqa: ARG001  the policy makes it
    return boot(_without(cpu, 1 << LBR), policy).panic


@_number("v8-02-bit-forced-on")
def _unenumerated_cet(cpu: CpuModel, policy: Policy, mistaken: bool) -> str | None:  # noqa: ARG001
    return boot(_without(cpu, CET), policy).panic


@_number("guest-uabi-size-small")
def _small_user_image(cpu: CpuModel, policy: Policy, mistaken: bool) -> str | None:
    size = boot(cpu, policy).user.default_size if mistaken else XSAVE_IOCTL_SIZE
    if size >= MIN_SIZE:
        return None
    return f"the header of KVM's user image ends at byte {MIN_SIZE}, its buffer at byte {size} on {cpu.name}"


@_number("altstack-overflow")
def _frame_below_the_stack(cpu: CpuModel, policy: Policy, mistaken: bool) -> str | None:
    frame = max_sigframe(boot(cpu, policy).user.default_size, xsave=True)
    if not mistaken or frame <= MINSIGSTKSZ:
        return None
    return f"a frame takes up to {frame} bytes, and sigaltstack(2) accepts {MINSIGSTKSZ} on {cpu.name}"


@_number("v8-24-mask-number-confusion")
def _numbers_for_masks(cpu: CpuModel, policy: Policy, mistaken: bool) -> str | None:
    supported = boot(cpu, policy).xss & policy.kvm_xss
    left = supported & ~(11 | 12 if mistaken else CET)
    return f"supported_xss is {left:#x} with CET switched off on {cpu.name}" if left else None
