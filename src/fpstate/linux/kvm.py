"""What KVM makes of a host configuration: sizes that its ioctls report, and the buffers it allocates.

Sources: Linux 7.2 ``arch/x86/kvm/cpuid.c`` (xstate_required_size), ``kvm/x86.c``, ``kernel/fpu/core.c``
(fpu_alloc_guest_fpstate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fpstate.linux.config import BootConfig
from fpstate.xfeatures import CET, XTILE, XTILEDATA

__all__ = ["XSAVE_IOCTL_SIZE", "KvmView", "kvm_view"]

XSAVE_IOCTL_SIZE: Final = 4096
"""sizeof(struct kvm_xsave): what KVM_GET_XSAVE copies, and the least that KVM_CAP_XSAVE2 says."""
FPSTATE_HEADER: Final = 64
"""offsetof(struct fpstate, regs): what the allocation holds before the image."""
PAGE: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class KvmView:
    """KVM on one host.

    Attributes:
        supported_xcr0: what a guest's XCR0 may have at most.
        permitted_xcr0: the part of it that a process without guest permissions is offered.
        supported_xss: what a guest's IA32_XSS may have at most; the vendor module may offer less.
        cap_xsave2: KVM_CAP_XSAVE2 in bytes for a process without guest permissions.
        cap_xsave2_permitted: the same once the dynamic features are permitted to guests.
        allocation: bytes asked of vzalloc for a guest fpstate.
        allocation_pages: pages it takes.
        overrun: bytes by which the image is larger than the buffer, as in kernels before Feb 2025.
    """

    supported_xcr0: int
    permitted_xcr0: int
    supported_xss: int
    cap_xsave2: int
    cap_xsave2_permitted: int
    allocation: int
    allocation_pages: int
    overrun: int


def kvm_view(config: BootConfig) -> KvmView:
    """Return what KVM makes of *config*."""
    policy = config.policy
    xcr0 = config.xcr0 & policy.kvm_xcr0
    dynamic = xcr0 & policy.user_dynamic
    permitted = xcr0 & ~_unpermitted(dynamic)
    allocation = config.guest.allocated + FPSTATE_HEADER
    return KvmView(
        supported_xcr0=xcr0,
        permitted_xcr0=permitted,
        supported_xss=_supported_xss(config),
        cap_xsave2=max(XSAVE_IOCTL_SIZE, config.cpu.standard_size(permitted)),
        cap_xsave2_permitted=max(XSAVE_IOCTL_SIZE, config.cpu.standard_size(xcr0)),
        allocation=allocation,
        allocation_pages=-(-allocation // PAGE),
        overrun=max(0, config.guest.size - config.guest.allocated),
    )


def _supported_xss(config: BootConfig) -> int:
    """Return kvm_caps.supported_xss: a policy's CET components all or not at all, and not without SHSTK or IBT."""
    supported = config.xss & config.policy.kvm_xss
    cet = config.policy.kvm_xss & CET
    if supported & cet != cet or config.flags.isdisjoint({"SHSTK", "IBT"}):
        supported &= ~cet
    return supported


def _unpermitted(dynamic: int) -> int:
    """Return what goes when no dynamic feature is permitted: XTILECFG goes with XTILEDATA (KVM's own rule)."""
    return dynamic | (XTILE if dynamic >> XTILEDATA & 1 else 0)
