"""Which masks the kernel that was traced can have in its fpstates: the model's answer, of its CPU and command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fpstate.linux.config import BootConfig
from fpstate.xfeatures import COMPACTED, Catalogue

__all__ = ["Expected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The masks of a kernel's fpstates.

    Attributes:
        cpu, policy: what booted.
        catalogue: names of the components.
        uses_xsave: without it the tracepoints have no masks.
        compacted: whether fpstates are in compacted format.
        possible: every component that the kernel enabled for fpstates.
        task, guest: XCOMP_BV of a new task's fpstate and of a new guest's, 0 in standard format.
        dynamic: components that either can get later.
        guest_only: components that no task has.
    """

    cpu: str
    policy: str
    catalogue: Catalogue
    uses_xsave: bool
    compacted: bool
    possible: int
    task: int
    guest: int
    dynamic: int
    guest_only: int

    @classmethod
    def of(cls, config: BootConfig) -> Self:
        """Return what a kernel that booted as *config* shows."""
        kernel, guest = config.kernel, config.guest
        return cls(
            cpu=config.cpu.name,
            policy=config.policy.name,
            catalogue=config.cpu.catalogue,
            uses_xsave=config.fate == "xsave",
            compacted=config.compacted,
            possible=kernel.max_features,
            task=config.task_xcomp_bv,
            guest=config.guest_xcomp_bv,
            dynamic=config.user.max_features & config.policy.user_dynamic,
            guest_only=guest.features & ~kernel.default_features,
        )

    def is_task(self, xcomp_bv: int) -> bool:
        """Whether a task's fpstate can have this XCOMP_BV."""
        return xcomp_bv & ~self.dynamic == self.task & ~self.dynamic

    def is_guest(self, xcomp_bv: int) -> bool:
        """Whether a guest's fpstate can have this XCOMP_BV."""
        return xcomp_bv & ~self.dynamic == self.guest & ~self.dynamic

    def says(self, xcomp_bv: int) -> str:
        """Return XCOMP_BV in hex and in names."""
        names = self.catalogue.names(xcomp_bv & ~COMPACTED)
        return f"{xcomp_bv:#x} ({names})" if names else f"{xcomp_bv:#x}"
