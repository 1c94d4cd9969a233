"""What the kernel keeps: per CPU, per task, per fpstate, per guest FPU (``asm/fpu/types.h``, ``asm/processor.h``).

The fields hold plain numbers when the kernel runs over bytes, and symbols when the verifier reads its rules; nothing in
`fpstate.linux.kernel` knows which.  What is a pointer in the kernel is a `ref` here: the number of the CPU or task
plus one, so that 0 is NULL (and a ``last_cpu`` of -1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["FREE", "GUEST", "KERNEL", "NULL", "USER", "Cpu", "Fpstate", "Guest", "Task"]

NULL: Final = 0
"""No CPU, no task."""

FREE, USER, KERNEL, GUEST = range(4)
"""What a task does: its slot is free; it runs in user mode; it is in the kernel, on a CPU or not; its guest runs."""


@dataclass(slots=True, eq=False)
class Cpu:
    """One logical CPU and the per-CPU variables about its registers.

    Attributes:
        number: from 0.
        curr: ref of the current task; NULL is the idle thread, a kernel thread.
        fpregs_owner_ctx: ref of the task whose state the registers last held.
        in_kernel_fpu: between kernel_fpu_begin() and kernel_fpu_end().
        xfd_state: the per-CPU shadow of the IA32_XFD MSR.
        xfd: the MSR itself.
        guest_xstate: the guest's XCR0 and IA32_XSS are loaded.
        regs: the registers: bytes of a processor, or whose value they hold.
    """

    number: int
    curr: int = NULL
    fpregs_owner_ctx: int = NULL
    in_kernel_fpu: int = 0
    xfd_state: int = 0
    xfd: int = 0
    guest_xstate: int = 0
    regs: Any = None

    @property
    def ref(self) -> int:
        """What `Task.last_cpu` holds of this CPU."""
        return self.number + 1


@dataclass(slots=True, eq=False)
class Fpstate:
    """``struct fpstate``.

    Attributes:
        name: for messages.
        xfeatures, user_xfeatures: what the image holds room for, and the part of it that user space sees.
        size, user_size: bytes of the image, and of its standard-format user copy.
        allocated: bytes that were asked of the allocator for the image.
        xfd: components that XFD disables while this fpstate is active.
        is_guest, in_use: a KVM buffer; plugged into a task.
        image: the XSAVE area, or whose value it holds.
    """

    name: str
    xfeatures: int = 0
    user_xfeatures: int = 0
    size: int = 0
    user_size: int = 0
    allocated: int = 0
    xfd: int = 0
    is_guest: int = 0
    in_use: int = 0
    image: Any = None


@dataclass(slots=True, eq=False)
class Guest:
    """``struct fpu_guest``, and what else KVM keeps of one vCPU's extended state.

    Attributes:
        number: that of the task whose vCPU it is.
        fpstate: the guest's.
        xcr0, xss: the guest's XCR0 and IA32_XSS.
        uabi_size: bytes of KVM_GET_XSAVE2.
        pkru, host_pkru: the guest's PKRU while the host's is loaded, and the host's as vcpu_load() read it.
        own: what KVM keeps beside the fpstate: the buffer of a component that the core does not manage, or its MSRs.
        xfd_intercepted: guest writes of IA32_XFD exit.
        ssp: the guest's shadow stack pointer, which the VMCS or VMCB holds.
        smram: the SSP that it had when it entered SMM; None outside SMM.
        l1_ssp: the SSP of vmcs12's host state while the guest's own guest runs; else None.
        loaded: between vcpu_load() and vcpu_put().
        exists: the vCPU was created.
    """

    number: int
    fpstate: Fpstate
    xcr0: int = 1
    xss: int = 0
    uabi_size: int = 0
    pkru: Any = 0
    host_pkru: Any = 0
    own: Any = None
    xfd_intercepted: int = 1
    ssp: int = 0
    smram: int | None = None
    l1_ssp: int | None = None
    loaded: int = 0
    exists: int = 0


@dataclass(slots=True, eq=False)
class Task:
    """One task: ``struct fpu`` and the thread's flags.  Every task is a process of its own.

    Attributes:
        number: from 0.
        mode: FREE, USER, KERNEL or GUEST.
        on_cpu: it is current somewhere.
        need_fpu_load: TIF_NEED_FPU_LOAD.
        last_cpu: ref of the CPU whose registers last held its state.
        own: the embedded fpstate, or the larger one that took its place.
        plugged: ``fpu->fpstate`` is the guest's, ``__task_fpstate`` the own one.
        state_perm, guest_perm: ``__state_perm`` of ``fpu->perm`` and ``fpu->guest_perm``.
        state_size, guest_size: ``__state_size`` of them.
        pkru: ``thread.pkru``.
        lbr: the buffer of its perf event's LBR call stack.
        sas_size: bytes of its alternate signal stack, 0 for none.
        shstk: ARCH_SHSTK_SHSTK in ``thread.features``.
        guest: the vCPU that it runs, or None.
    """

    number: int
    own: Fpstate
    mode: int = FREE
    on_cpu: int = 0
    need_fpu_load: int = 0
    last_cpu: int = NULL
    plugged: int = 0
    state_perm: int = 0
    guest_perm: int = 0
    state_size: int = 0
    guest_size: int = 0
    pkru: Any = 0
    lbr: Any = None
    sas_size: int = 0
    shstk: bool = False
    guest: Guest | None = field(default=None)

    @property
    def ref(self) -> int:
        """What `Cpu.curr` and `Cpu.fpregs_owner_ctx` hold of this task."""
        return self.number + 1

    @property
    def fpstate(self) -> Fpstate:
        """``fpu->fpstate``: the active one."""
        if self.guest is not None and self.plugged:
            return self.guest.fpstate
        return self.own
