"""XFD, permissions and larger buffers: ``arch/x86/kernel/fpu/xstate.c`` and the #NM handler."""

from __future__ import annotations

import errno

from fpstate.linux import abi
from fpstate.linux.kernel.core import Core
from fpstate.linux.kernel.sets import GUEST_PERM_LOCKED
from fpstate.linux.kernel.state import Cpu, Task

__all__ = ["Xstate"]


class Xstate(Core):
    """What a task does to get a dynamic component, and what the kernel does when it first uses it."""

    # -- arch_prctl(ARCH_REQ_XCOMP_PERM, ARCH_REQ_XCOMP_GUEST_PERM) ----------------------------------------------

    def fpu_xstate_prctl(self, task: Task, option: int, value: int) -> tuple[int, int | None]:
        """Return 0 or an errno, and what a GET option stores for the caller."""
        match option:
            case abi.ARCH_GET_XCOMP_SUPP:
                return 0, self.sets.user_maximum
            case abi.ARCH_GET_XCOMP_PERM:
                return 0, task.state_perm & self.policy.user
            case abi.ARCH_GET_XCOMP_GUEST_PERM:
                return 0, task.guest_perm & self.policy.user
            case abi.ARCH_REQ_XCOMP_PERM | abi.ARCH_REQ_XCOMP_GUEST_PERM:
                return self.xstate_request_perm(task, value, guest=option == abi.ARCH_REQ_XCOMP_GUEST_PERM), None
            case _:
                return errno.EINVAL, None

    def xstate_request_perm(self, task: Task, number: int, *, guest: bool) -> int:
        """Ask for component *number*; return 0 or an errno."""
        refused = abi.request_errno(self.policy, self.sets.user_maximum, number)
        if refused:
            return refused
        requested = 1 << number
        permitted = task.guest_perm if guest else task.state_perm
        if permitted & requested == requested:
            return 0
        return self.__xstate_request_perm(task, permitted, requested, guest=guest)

    def __xstate_request_perm(self, task: Task, permitted: int, requested: int, *, guest: bool) -> int:
        """The part under siglock."""
        if guest and permitted & GUEST_PERM_LOCKED:
            return errno.EBUSY
        mask = permitted | requested
        if self.policy.permission_keeps_supervisor:
            stored, calculated = mask, mask
        else:  # until 6.15: the host's size is right all the same, for the supervisor components are added again
            stored = mask & self.policy.user
            calculated = mask if guest else mask | self.sets.supervisor
        if not guest and self.hw.altstack_too_small(task, mask):
            return errno.ENOSPC
        if guest:
            task.guest_perm, task.guest_size = stored, self.hw.size(calculated)
        else:
            task.state_perm, task.state_size = stored, self.hw.size(calculated)
        return 0

    # -- #NM -----------------------------------------------------------------------------------------------------

    def handle_xfd_event(self, cpu: Cpu, task: Task, xfd_err: int) -> int:
        """exc_device_not_available() with IA32_XFD_ERR: return 0 to try again, or what makes the signal: an errno."""
        return self.__xfd_enable_feature(cpu, task, xfd_err, guest=False)

    def fpu_enable_guest_xfd_features(self, cpu: Cpu, task: Task, xfeatures: int) -> int:
        """KVM_SET_CPUID2 gives the guest dynamic components: make room for them."""
        missing = xfeatures & ~task.guest.fpstate.xfeatures if task.guest is not None else 0
        if not missing:
            return 0
        return self.__xfd_enable_feature(cpu, task, missing, guest=True)

    def __xfd_enable_feature(self, cpu: Cpu, task: Task, xfd_err: int, *, guest: bool) -> int:
        """Permission first, then room."""
        event = xfd_err & self.sets.dynamic
        if not event:
            return 0
        permitted = task.guest_perm if guest else task.state_perm
        if permitted & event != event:
            return errno.EPERM
        return self.fpstate_realloc(cpu, task, event, task.guest_size if guest else task.state_size, guest=guest)

    def fpstate_realloc(self, cpu: Cpu, task: Task, xfeatures: int, size: int, *, guest: bool) -> int:
        """Replace an fpstate by a larger one.  Its image is not copied: the live registers are the state."""
        base = task.guest.fpstate if guest and task.guest is not None else task.own
        in_use = base is task.fpstate
        if in_use and task.need_fpu_load:
            self.fpregs_restore_userregs(cpu, task)
        base.size = base.allocated = size
        base.xfeatures |= xfeatures
        base.user_xfeatures |= xfeatures
        base.user_size = self.hw.user_size(base.user_xfeatures)
        base.xfd &= ~xfeatures
        base.image = self.hw.new_image(base)
        if guest and task.guest is not None:
            task.guest.uabi_size = base.user_size
        if in_use:
            self.xfd_update_state(cpu, base)
        return 0
