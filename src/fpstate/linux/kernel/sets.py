"""The masks that the kernel works with once it has booted: `BootConfig`, as the running kernel reads it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fpstate.linux.config import BootConfig
from fpstate.linux.kvm import kvm_view
from fpstate.xfeatures import CET, LBR, MPX, PKRU

__all__ = ["GUEST_PERM_LOCKED", "Sets"]

PASID = 10
_EVERYTHING = (1 << 63) - 1
GUEST_PERM_LOCKED = 1 << 63
"""FPU_GUEST_PERM_LOCKED in ``guest_perm.__state_perm``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """Masks over component bits.

    Attributes:
        maximum, default: ``fpu_kernel_cfg``.
        guest_default: ``guest_default_cfg.features``.
        user_maximum, user_default: ``fpu_user_cfg``.
        guest_allocated: what the guest buffer has room for.
        restore, guest_restore: RFBM of loading a task's fpstate and a guest's.
        supervisor: xfeatures_mask_supervisor().
        independent: xfeatures_mask_independent().
        dynamic: XFEATURE_MASK_USER_DYNAMIC, of this machine.
        user_restore: XFEATURE_MASK_USER_RESTORE, of this machine.
        xcr0, xss: the host's.
        initial_xfd: ``init_fpstate.xfd``.
        kvm: what KVM offers to guests, kvm_caps.supported_xcr0 and supported_xss together.
        kvm_own: what KVM keeps beside the guest fpstate, through xsaves() and xrstors() or through RDMSR and WRMSR.
        raw_msr: the part of it that is RDMSR and WRMSR.
        pasid, pkru, cet_user, cet_kernel, cet: these components.
        user_writable: what programs can change, by whatever means.
        signal_clears: what a signal handler starts without.
        reset_by_init: what INIT of a vCPU puts into its initial configuration.
        watched: the bits that a verification is about.
        tracked: the bits that are looked at; all of them when the kernel runs over bytes.
    """

    maximum: int
    default: int
    guest_default: int
    user_maximum: int
    user_default: int
    guest_allocated: int
    restore: int
    guest_restore: int
    supervisor: int
    independent: int
    dynamic: int
    user_restore: int
    xcr0: int
    xss: int
    initial_xfd: int
    kvm: int
    kvm_own: int
    raw_msr: int
    pasid: int
    pkru: int
    cet_user: int
    cet_kernel: int
    cet: int
    user_writable: int
    signal_clears: int
    reset_by_init: int
    watched: int
    tracked: int

    @property
    def projected(self) -> bool:
        """Whether some components are not looked at."""
        return self.tracked != _EVERYTHING

    def project(self, tracked: int) -> Sets:
        """Return the sets with nothing but the *tracked* bits in them."""
        return Sets(**{f.name: getattr(self, f.name) & tracked for f in fields(self)})

    @classmethod
    def of(cls, config: BootConfig) -> Sets:
        """Return the sets of a kernel that booted as *config*."""
        policy, kernel, user = config.policy, config.kernel, config.user
        view = kvm_view(config)
        raw = policy.raw_msr & config.cpu.mask
        allocated = user.default_features if view.overrun else config.guest.features
        cet_user = kernel.max_features & CET & -CET
        lbr = config.xss & policy.independent & 1 << LBR
        offered = view.supported_xcr0 | view.supported_xss | raw
        return cls(
            maximum=kernel.max_features,
            default=kernel.default_features,
            guest_default=config.guest.features,
            user_maximum=user.max_features,
            user_default=user.default_features,
            guest_allocated=allocated,
            restore=config.restore_rfbm,
            guest_restore=config.guest_restore_rfbm,
            supervisor=config.supervisor,
            independent=config.xss & policy.independent,
            dynamic=user.max_features & policy.user_dynamic,
            user_restore=user.max_features & ~policy.never_restored,
            xcr0=config.xcr0,
            xss=config.xss,
            initial_xfd=config.xfd,
            kvm=offered,
            kvm_own=offered & (policy.independent | policy.raw_msr),
            raw_msr=raw,
            pasid=1 << PASID,
            pkru=1 << PKRU,
            cet_user=cet_user,
            cet_kernel=config.cpu.mask & (CET & CET - 1),
            cet=CET,
            user_writable=user.max_features | cet_user | lbr,
            signal_clears=user.max_features,
            reset_by_init=offered & (MPX | CET),
            watched=_EVERYTHING,
            tracked=_EVERYTHING,
        )
