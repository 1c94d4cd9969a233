"""What programs, guests and their VMMs ask for with numbers, and what they are told: calls.

A call is a step with arguments and an answer: an errno, a fault that KVM injects, a value.  Calls are of the machine
over bytes alone.  The verifier needs none of them: what they change no other context can reach, and where they move
registers they go through functions that its steps take too.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fpstate.linux.kernel import Cpu, Guest, Task
from fpstate.linux.machine.specification import ByteSpecification
from fpstate.linux.steps import Step, World, step_of

__all__ = ["CALLS", "Answer"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call is told.

    Attributes:
        error: the name of an errno, or what a guest gets, such as ``#GP``; "" if it is done.
        value: what it wanted to know, or None.
    """

    error: str = ""
    value: int | None = None

    def __str__(self) -> str:
        if self.error:
            return self.error
        return "done" if self.value is None else f"{self.value:#x}"


_NAMES: Final = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}
"""Names of errnos; glibc has two for this one, the kernel has not."""


def _errno(number: int) -> Answer:
    return Answer(_NAMES[number] if number else "")


# -- programs ---------------------------------------------------------------------------------------------------------


def arch_prctl(w: World, cpu: Cpu, task: Task, option: int, value: int) -> Answer:
    """A program asks what it may use, or for more: *option* is ARCH_GET_XCOMP_SUPP, 0x1021, or one behind it."""
    w.in_syscall(cpu, task)
    failed, stored = w.kernel.fpu_xstate_prctl(task, option, value)
    return Answer(value=stored) if stored is not None else _errno(failed)


def sigaltstack(w: World, cpu: Cpu, task: Task, size: int) -> Answer:
    """A program calls for an alternate signal stack of *size* bytes: ENOMEM if a frame would not fit on it."""
    w.in_syscall(cpu, task)
    return _errno(w.kernel.do_sigaltstack(task, size))


# -- guests -----------------------------------------------------------------------------------------------------------


def _guest_is_told(failed: int, what: str = "#GP") -> Answer:
    return Answer(what if failed else "")


def guest_xsetbv(w: World, cpu: Cpu, task: Task, value: int) -> Answer:
    """The guest executed XSETBV, which exits; KVM carries it out or injects #GP."""
    guest = w.in_kvm_run(cpu, task)
    return _guest_is_told(w.kernel.kvm_set_xcr(guest, value))


def guest_wrmsr_xss(w: World, cpu: Cpu, task: Task, value: int) -> Answer:
    """The guest wrote IA32_XSS, which exits."""
    guest = w.in_kvm_run(cpu, task)
    return _guest_is_told(w.kernel.kvm_set_xss(guest, value))


def guest_sets_ssp(w: World, cpu: Cpu, task: Task, value: int) -> Answer:
    """The guest switches to another shadow stack; nothing exits."""
    guest = w.in_guest(cpu, task)
    _needs_shadow_stacks(w, guest)
    guest.ssp = value
    return Answer()


def _needs_shadow_stacks(w: World, guest: Guest) -> None:
    w.spec.needs(_has_shadow_stacks(w, guest), "the guest must have shadow stacks")


def kvm_enter_smm(w: World, cpu: Cpu, task: Task) -> Answer:
    """The vCPU takes an SMI: its SSP goes to SMRAM."""
    guest = w.in_kvm_run(cpu, task)
    _needs_shadow_stacks(w, guest)
    w.spec.needs(guest.smram is None, "it must not be in SMM")
    w.kernel.enter_smm(guest)
    return Answer()


def kvm_leave_smm(w: World, cpu: Cpu, task: Task) -> Answer:
    """The guest executed RSM, which exits: its SSP comes from SMRAM."""
    guest = w.in_kvm_run(cpu, task)
    w.spec.needs(guest.smram is not None, "it must be in SMM")
    return _guest_is_told(w.kernel.emulator_leave_smm(guest), "triple fault")


def nested_vm_entry(w: World, cpu: Cpu, task: Task, value: int) -> Answer:
    """The guest's VMRESUME, which exits: its own guest runs from here on, with SSP *value* of vmcs12."""
    guest = w.in_kvm_run(cpu, task)
    w.spec.needs(w.assumptions.nested, "no guest runs guests")
    _needs_shadow_stacks(w, guest)
    w.spec.needs(guest.l1_ssp is None, "its own guest runs already")
    return _guest_is_told(w.kernel.nested_vmx_enter_non_root_mode(guest, value), "VM-entry failure")


def nested_vm_exit(w: World, cpu: Cpu, task: Task) -> Answer:
    """The guest's own guest exits to it: SSP is the one of vmcs12's host state."""
    guest = w.in_kvm_run(cpu, task)
    w.spec.needs(guest.l1_ssp is not None, "its own guest must be running")
    w.kernel.nested_vmx_vmexit(guest)
    return Answer()


# -- VMMs -------------------------------------------------------------------------------------------------------------


def kvm_get_xcrs(w: World, cpu: Cpu, task: Task) -> Answer:
    """KVM_GET_XCRS: XCR0 of the guest."""
    w.in_syscall(cpu, task)
    return Answer(value=w.vcpu(task).xcr0)


def kvm_set_xcrs(w: World, cpu: Cpu, task: Task, value: int) -> Answer:
    """KVM_SET_XCRS."""
    w.in_syscall(cpu, task)
    return _errno(errno.EINVAL if w.kernel.kvm_set_xcr(w.vcpu(task), value) else 0)


def kvm_get_one_reg_ssp(w: World, cpu: Cpu, task: Task) -> Answer:
    """KVM_GET_ONE_REG of KVM_REG_GUEST_SSP."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    return Answer(value=guest.ssp) if _has_shadow_stacks(w, guest) else Answer("EINVAL")


def kvm_set_one_reg_ssp(w: World, cpu: Cpu, task: Task, value: int) -> Answer:
    """KVM_SET_ONE_REG of KVM_REG_GUEST_SSP."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    refused = not _has_shadow_stacks(w, guest) or w.kernel.kvm_set_ssp(guest, value)
    return _errno(errno.EINVAL if refused else 0)


def _has_shadow_stacks(w: World, guest: Guest) -> bool:
    return w.kernel.guest_writable(guest) & w.kernel.sets.cet != 0


@dataclass(frozen=True, slots=True)
class Stream:
    """What a VMM takes of a vCPU to another machine.

    Attributes:
        xsave: the image of KVM_GET_XSAVE2.
        xcr0: of KVM_GET_XCRS.
        xss, xfd, cet: MSRs; of U_CET and PLx_SSP by number.
        ssp: of KVM_GET_ONE_REG.
    """

    xsave: Any
    xcr0: int
    xss: int
    xfd: int
    cet: dict[int, int]
    ssp: int


def vmm_saves(w: World, cpu: Cpu, task: Task) -> Answer:
    """The VMM reads a stopped vCPU for live migration: XSAVE, XCRS, then MSRs and SSP."""
    w.in_syscall(cpu, task)
    guest, kernel = w.vcpu(task), w.kernel
    xsave = kernel.kvm_get_xsave(guest)
    w.spec.shows(xsave, guest)
    kernel.msr_io_begins(cpu, task, guest)
    cet = kernel.hw.read_msrs(cpu, kernel.guest_writable(guest) & kernel.sets.cet)
    kernel.msr_io_ends(cpu, task, guest)
    w.streams[task.number] = Stream(xsave, guest.xcr0, guest.xss, guest.fpstate.xfd, cet, guest.ssp)
    return Answer()


def vmm_restores(w: World, cpu: Cpu, task: Task, other: Task) -> Answer:
    """The VMM at the other end makes the new vCPU of *task* what `vmm_saves` read of that of *other*: it has moved."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    w.spec.needs(other.number in w.streams and other.guest is not None, "nothing was read of the other vCPU")
    w.spec.needs(w.spec.is_initial(guest, guest.fpstate.xfeatures), "the vCPU must be new")
    stream: Stream = w.streams.pop(other.number)
    assert isinstance(w.spec, ByteSpecification) and other.guest is not None  # noqa: S101, PT018  calls run over bytes
    w.spec.moves(other.guest, guest)
    # KVM's selftests and QEMU set the MSRs first, so that IA32_XFD is right when the image comes.
    order = [_restore_msrs, _restore_xcrs, _restore_xsave]
    for restore in order if w.assumptions.msrs_first else reversed(order):
        answer: Answer = restore(w, cpu, task, guest, stream)
        if answer.error:
            return answer
    return Answer()


def _restore_msrs(w: World, cpu: Cpu, task: Task, guest: Guest, stream: Stream) -> Answer:
    kernel = w.kernel
    if kernel.kvm_set_xss(guest, stream.xss) or kernel.kvm_set_ssp(guest, stream.ssp):
        return Answer("EINVAL")
    if stream.cet:
        mask = kernel.guest_writable(guest) & kernel.sets.cet
        if not mask:
            return Answer("EINVAL")
        kernel.msr_io_begins(cpu, task, guest)
        kernel.hw.write_msrs(cpu, mask, stream.cet)
        kernel.msr_io_ends(cpu, task, guest)
    if stream.xfd:
        if stream.xfd & ~kernel.guest_dynamic(guest):
            return Answer("EINVAL")
        kernel.kvm_set_xfd(cpu, task, guest, stream.xfd)
        w.spec.disowns(guest, stream.xfd)
    return Answer()


def _restore_xcrs(w: World, _cpu: Cpu, _task: Task, guest: Guest, stream: Stream) -> Answer:
    return Answer("EINVAL" if w.kernel.kvm_set_xcr(guest, stream.xcr0) else "")


def _restore_xsave(w: World, _cpu: Cpu, _task: Task, guest: Guest, stream: Stream) -> Answer:
    w.kernel.kvm_set_xsave(guest, stream.xsave)
    return Answer()


_FUNCTIONS: Final[tuple[Callable[..., Answer], ...]] = (
    arch_prctl,
    sigaltstack,
    guest_xsetbv,
    guest_wrmsr_xss,
    guest_sets_ssp,
    kvm_enter_smm,
    kvm_leave_smm,
    nested_vm_entry,
    nested_vm_exit,
    kvm_get_xcrs,
    kvm_set_xcrs,
    kvm_get_one_reg_ssp,
    kvm_set_one_reg_ssp,
    vmm_saves,
    vmm_restores,
)
CALLS: Final[dict[str, Step]] = {step.name: step for step in map(step_of, _FUNCTIONS)}
"""Every call by name."""
