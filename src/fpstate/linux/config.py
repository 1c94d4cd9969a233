"""What a boot leaves behind: the records of ``arch/x86/kernel/fpu`` and what follows from them by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from fpstate.cpu.model import Cpu
from fpstate.linux.cmdline import Parameters
from fpstate.linux.policy import Policy
from fpstate.xfeatures import COMPACTED

__all__ = ["CACHE_LINE", "BootConfig", "Fate", "GuestConfig", "StateConfig"]

CACHE_LINE: Final = 64
"""Bytes; an image, and so a task_struct with one at its end, is aligned to them."""

Fate = Literal["xsave", "fxsave", "panic"]
"""How the kernel saves FPU state after the boot, or that it did not get that far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateConfig:
    """``struct fpu_state_config``: ``fpu_kernel_cfg`` or ``fpu_user_cfg``.

    Attributes:
        max_features: every component in use, the dynamic and guest-only ones included.
        default_features: the components of a new task's fpstate.
        max_size: bytes for *max_features* as CPUID reports them.
        default_size: bytes for *default_features* as the kernel adds them up.
        legacy_features: x87 and SSE as FXSAVE gives them; user configuration only.
        independent_features: enabled in IA32_XSS and managed elsewhere; kernel configuration only.
    """

    max_features: int = 0
    default_features: int = 0
    max_size: int
    default_size: int
    legacy_features: int = 0
    independent_features: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """``struct vcpu_fpu_config guest_default_cfg``, or what stood in for it.

    Attributes:
        features: the components of a new vCPU's fpstate.
        size: bytes of its image.
        allocated: bytes that the buffer was allocated for; less than *size* is the overrun of kernels before Feb 2025.
    """

    features: int = 0
    size: int
    allocated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BootConfig:
    """The outcome of one boot of one kernel on one CPU.

    Attributes:
        cpu, policy, parameters: what was booted.
        kernel, user, guest: the configuration records.
        user_permitted_size: bytes of the standard-format image once every dynamic feature is permitted, as the kernel
            adds them up.
        flags: the CPU flags as the kernel sees them, after errata and command line.
        xcr0, xss: the host's XCR0 and IA32_XSS; 0 where XSAVE is not in use.
        xfd: ``init_fpstate.xfd``, the components armed in IA32_XFD.
        supervisor: the supervisor components that XRSTORS of the core manages.
        compacted: True if fpstates are in compacted format.
        save_instruction, restore_instruction: what save_fpregs_to_fpstate and restore_fpregs_from_fpstate execute.
        fate: how it ended.
        xsave_disabled: why XSAVE is not in use, in the kernel's words where it has any; None if it is.
        panic: what stops the kernel; None if nothing does.
        boot_log: the kernel's own lines, in order, without time stamps.
        assumptions: what was taken for granted because the source of the CPU does not tell.
    """

    cpu: Cpu
    policy: Policy
    parameters: Parameters
    kernel: StateConfig
    user: StateConfig
    guest: GuestConfig
    user_permitted_size: int
    flags: frozenset[str]
    xcr0: int = 0
    xss: int = 0
    xfd: int = 0
    supervisor: int = 0
    compacted: bool = False
    save_instruction: str
    restore_instruction: str
    fate: Fate
    xsave_disabled: str | None = None
    panic: str | None = None
    boot_log: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def task_xcomp_bv(self) -> int:
        """XCOMP_BV of a new task's fpstate, and of ``init_fpstate``; 0 in standard format."""
        return self.save_rfbm | COMPACTED if self.compacted else 0

    @property
    def guest_xcomp_bv(self) -> int:
        """XCOMP_BV of a new vCPU's fpstate; 0 in standard format."""
        return self.guest_save_rfbm | COMPACTED if self.compacted else 0

    @property
    def save_rfbm(self) -> int:
        """What saving a new task's registers writes: saving follows the buffer.  0 without XSAVE, as all of these."""
        return self.kernel.default_features if self.fate == "xsave" else 0

    @property
    def guest_save_rfbm(self) -> int:
        """What saving a new vCPU's registers writes."""
        return self.guest.features if self.fate == "xsave" else 0

    @property
    def restore_rfbm(self) -> int:
        """What loading a task's fpstate restores or initialises: restoring follows the machine."""
        mask = self.guest_restore_rfbm
        if self.policy.restores_guest_only == "guest":
            mask &= ~self.policy.guest_only
        return mask

    @property
    def guest_restore_rfbm(self) -> int:
        """What loading a vCPU's fpstate restores or initialises."""
        return self.kernel.max_features & self.policy.fpstate if self.fate == "xsave" else 0
