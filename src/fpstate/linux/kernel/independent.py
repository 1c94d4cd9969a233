"""xsaves() and xrstors(): independent components, which no fpstate holds (``arch/x86/kernel/fpu/xstate.c``)."""

from __future__ import annotations

from typing import Any

from fpstate.linux.kernel.context import Context
from fpstate.linux.kernel.state import Cpu

__all__ = ["Independent"]


class Independent(Context):
    """The helpers, for masks of nothing but independent components."""

    def validate_independent_components(self, mask: int) -> None:
        """Warn of a mask that is empty or has a component that the core manages."""
        self.spec.warn("validate_independent_components", mask == 0 or mask & ~self.sets.independent != 0)

    def independent_xsaves(self, cpu: Cpu, buffer: Any, mask: int) -> Any:
        """xsaves()."""
        self.validate_independent_components(mask)
        return self.hw.xsaves(cpu, buffer, mask)

    def independent_xrstors(self, cpu: Cpu, buffer: Any, mask: int) -> None:
        """xrstors()."""
        self.validate_independent_components(mask)
        self.hw.xrstors(cpu, buffer, mask)
