"""What user space sees of a configuration: signal frames, alternate stacks, regsets, arch_prctl.

Sources: Linux 7.2 ``arch/x86/kernel/signal.c``, ``fpu/signal.c``, ``fpu/regset.c``, ``fpu/xstate.c``; the numbers
were checked on real boots (64-bit kernels with IA32 emulation).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fpstate.linux.config import BootConfig
    from fpstate.linux.policy import Policy

__all__ = ["Frame", "UserAbi", "max_sigframe", "permission_errno", "user_abi"]

FRAME_STRUCT: Final = 736
"""Bytes of the larger of the signal frame structs with IA32 emulation: sizeof(struct rt_sigframe_ia32)."""
FSAVE_HEADER: Final = 112
"""Bytes of ``struct fregs_state``, which an ia32 frame puts before the FXSAVE image."""
FP_XSTATE_MAGIC1: Final = 0x46505853
"""First software word of a frame's image that has extended state (``<asm/sigcontext.h>``)."""
FP_XSTATE_MAGIC2: Final = 0x46505845
"""The word behind such an image."""
MAGIC2_SIZE: Final = 4
"""Bytes of FP_XSTATE_MAGIC2 behind the image."""
MINSIGSTKSZ: Final = 2048
"""The smallest alternate stack that sigaltstack(2) accepts while no dynamic feature is permitted."""
ARCH_GET_XCOMP_SUPP: Final = 0x1021
ARCH_GET_XCOMP_PERM: Final = 0x1022
ARCH_REQ_XCOMP_PERM: Final = 0x1023
ARCH_GET_XCOMP_GUEST_PERM: Final = 0x1024
ARCH_REQ_XCOMP_GUEST_PERM: Final = 0x1025
"""Options of arch_prctl(2) (``<asm/prctl.h>``)."""


def fpu_part(user_size: int, *, xsave: bool) -> int:
    """Bytes that a frame may need for an image of *user_size* (fpu__get_fpstate_size())."""
    return user_size + FSAVE_HEADER + (MAGIC2_SIZE if xsave else 0)


def max_sigframe(user_max_size: int, *, xsave: bool) -> int:
    """Bytes of the largest signal frame: the boot line's number, and AT_MINSIGSTKSZ (init_sigframe_size())."""
    alignment = 15 + 63
    return (FRAME_STRUCT + alignment + fpu_part(user_max_size, xsave=xsave) + 15) & ~15


@dataclass(frozen=True, slots=True)
class Frame:
    """The software bytes of a signal frame's image, at offset 464 (``struct _fpx_sw_bytes``).

    Attributes:
        xfeatures: the components the frame holds.
        xstate_size: bytes of the image.
        extended_size: bytes with FP_XSTATE_MAGIC2 behind it; 112 more in an ia32 frame.
    """

    xfeatures: int
    xstate_size: int
    extended_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAbi:
    """What user space can read of a boot.

    Attributes:
        max_sigframe: bytes of the largest frame.
        minsigstksz: AT_MINSIGSTKSZ.
        frame: the frame of a task that has used no dynamic feature.
        frame_dynamic: the frame of a task that has, or None if there is no dynamic feature.
        altstack_min: the smallest alternate stack accepted by default.
        altstack_min_permitted: the smallest accepted once the dynamic features are permitted, or None.
        regset_size: bytes of NT_X86_XSTATE; None if there is no such regset (no XSAVE).
        regset_xfeatures: the first software word of that regset.
        xcomp_supp, xcomp_perm, xcomp_guest_perm: ARCH_GET_XCOMP_SUPP, _PERM and _GUEST_PERM of a new process.
        xcomp_perm_after: ARCH_GET_XCOMP_PERM once every dynamic feature was granted.
    """

    max_sigframe: int
    minsigstksz: int
    frame: Frame
    frame_dynamic: Frame | None
    altstack_min: int
    altstack_min_permitted: int | None
    regset_size: int | None
    regset_xfeatures: int
    xcomp_supp: int
    xcomp_perm: int
    xcomp_guest_perm: int
    xcomp_perm_after: int


def user_abi(config: BootConfig) -> UserAbi:
    """Return what user space sees of *config*."""
    xsave = config.fate == "xsave"
    user = config.user
    largest = max_sigframe(user.max_size, xsave=xsave)
    dynamic = user.max_features & config.policy.user_dynamic if xsave else 0
    frame = Frame(
        user.default_features if xsave else 0,
        user.default_size,
        user.default_size + MAGIC2_SIZE,
    )
    permitted = config.user_permitted_size
    frame_dynamic = Frame(user.max_features, permitted, permitted + MAGIC2_SIZE) if dynamic else None
    granted = config.kernel.default_features & config.policy.user
    around = largest - fpu_part(user.max_size, xsave=xsave)
    return UserAbi(
        max_sigframe=largest,
        minsigstksz=largest,
        frame=frame,
        frame_dynamic=frame_dynamic,
        altstack_min=max(MINSIGSTKSZ, around + user.default_size + 1)
        if config.parameters.strict_sas_size
        else MINSIGSTKSZ,
        altstack_min_permitted=max(MINSIGSTKSZ, around + permitted + 1) if dynamic else None,
        regset_size=user.max_size if xsave else None,
        regset_xfeatures=user.max_features if xsave else 0,
        xcomp_supp=user.max_features | user.legacy_features,
        # The disable path leaves these sets alone, and a new process copies them.
        xcomp_perm=granted,
        xcomp_guest_perm=config.guest.features & config.policy.user,
        xcomp_perm_after=granted | dynamic,
    )


def permission_errno(config: BootConfig, number: int) -> int:
    """Return the errno of ARCH_REQ_XCOMP_PERM(*number*) in a process with a large enough alternate stack; 0 is success.

    Linux 7.2 ``xstate_request_perm()``: first the number's range, then whether it is a dynamic feature, then whether
    this machine has it.
    """
    return request_errno(config.policy, config.user.max_features, number)


def request_errno(policy: Policy, user_max_features: int, number: int) -> int:
    """Return the errno of a permission request for component *number* of fpu_user_cfg.max_features; 0 is success."""
    if not 0 <= number < policy.xfeature_max:
        return errno.EINVAL
    requested = 1 << number & policy.user_dynamic
    if not requested or requested & ~user_max_features:
        return errno.EOPNOTSUPP
    return 0
