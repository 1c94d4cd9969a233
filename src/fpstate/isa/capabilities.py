"""What CPUID says about a CPU, as the instructions need it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final, NamedTuple

from fpstate import registers as regs
from fpstate.cpu.model import Cpu, compacted_places
from fpstate.errors import CannotTell, UsageError
from fpstate.xfeatures import LBR, LEGACY, MIN_SIZE, bits

__all__ = ["Capabilities", "Places"]

_LARGEST: Final = 1 << 16
"""Bytes of a component: a size that CPUID gives is not trusted further."""
_MOST_PLANS: Final = 4096
"""Layouts remembered for each format; a run of random masks starts over."""


class Places(NamedTuple):
    """Where the extended components of one image lie.

    Attributes:
        slots: (component, offset in the image, size), ascending by component.
        end: bytes of the image.
    """

    slots: tuple[tuple[int, int, int], ...]
    end: int


@dataclass(frozen=True, eq=False)
class Capabilities:
    """What `Cpu` enumerates about the XSAVE feature set.

    Attributes:
        cpu: the CPU.
    """

    cpu: Cpu

    def __post_init__(self) -> None:
        if not self.cpu.has_xsave:
            raise UsageError(f"{self.cpu.name} has no XSAVE")
        for bit, size in self.sizes.items():
            needed = _needed(bit)
            if not needed <= size <= _LARGEST:
                name = self.cpu.catalogue.name(bit)
                raise CannotTell(
                    f"{self.cpu.name} gives component {bit} ({name}) {size} bytes; its registers take {needed}, "
                    f"and fpstate executes with at most {_LARGEST}",
                    cure="see what 'fpstate lint' says to this CPU",
                )

    @cached_property
    def user(self) -> int:
        """The components that XCR0 can enable."""
        return self.cpu.xcr0_mask | LEGACY

    @cached_property
    def supervisor(self) -> int:
        """The components that IA32_XSS can enable; none where XSAVES is missing."""
        return (self.cpu.xss_mask or 0) if self.has("XSAVES") else 0

    @cached_property
    def xfd(self) -> int:
        """The components that IA32_XFD can disable."""
        mask = 0
        for bit, component in self.cpu.components.items():
            if component.xfd and self.has("XFD"):
                mask |= 1 << bit
        return mask

    @cached_property
    def sizes(self) -> dict[int, int]:
        """Component, 2 and up, to its bytes."""
        return {bit: component.size for bit, component in self.cpu.components.items()}

    @cached_property
    def padding(self) -> dict[int, tuple[tuple[int, int], ...]]:
        """User component to the runs (start, end) of its bytes that no register claims: PKRU, BNDCSR."""
        found = {}
        for bit, size in self.sizes.items():
            runs = regs.unclaimed(bit, size) if regs.of_component(bit) else ()
            if runs and not self.supervisor >> bit & 1:
                found[bit] = runs
        return found

    @cached_property
    def _flags(self) -> frozenset[str]:
        """The flags that are set, and those that leaf 0DH stands in for where the source shows nothing else."""
        cpu = self.cpu
        implied = {"FXSR", "XSAVE", "OSXSAVE"}
        for bit, names in {
            11: ("SHSTK", "IBT"),
            9: ("PKU",),
            14: ("UINTR",),
            15: ("ARCH_LBR",),
            8: ("INTEL_PT",),
        }.items():
            implied |= set(names) if cpu.mask >> bit & 1 else set()
        if cpu.log_only:
            implied |= {"XSAVEOPT", "XSAVEC", "XGETBV1"} | ({"XSAVES"} if cpu.xss_mask else set())
        return cpu.flags | (implied & cpu.flags_unknown) | {"XSAVE"}

    def has(self, flag: str) -> bool:
        """Tell whether the CPU has the feature that Linux calls *flag*."""
        return flag in self._flags

    @cached_property
    def linear_bits(self) -> int:
        """Width of a linear address: CPUID.80000008H:EAX[15:8]; 57 with LA57 (CPUID.7.0:ECX[16]), else 48."""
        address_sizes = self.cpu.register(0x8000_0008, 0)
        if address_sizes is not None and 32 <= address_sizes[0] >> 8 & 0xFF <= 64:
            return address_sizes[0] >> 8 & 0xFF
        return 57 if self.has("LA57") else 48

    @cached_property
    def no_fcs_fds(self) -> bool:
        """Whether FCS and FDS are saved as 0 and not restored (CPUID.7.0:EBX[13])."""
        return self.has("ZERO_FCS_FDS")

    def canonical(self, address: int) -> bool:
        """Tell whether *address*, 64 bits, is canonical for the width that CPUID enumerates."""
        top = address >> (self.linear_bits - 1)
        return top in {0, (1 << (65 - self.linear_bits)) - 1}

    @cached_property
    def _standard(self) -> dict[int, Places]:
        return {}

    @cached_property
    def _compacted(self) -> dict[int, Places]:
        return {}

    def standard(self, mask: int) -> Places:
        """Return the standard-format places of the user components in *mask*.

        Raises:
            CannotTell: the offset of one of them is not known.
        """
        places = self._standard.get(mask)
        if places is None:
            components = self.cpu.components
            end = self.cpu.standard_size(mask)
            slots = []
            for bit in bits(mask & ~LEGACY):
                component = components.get(bit)
                if component is not None and component.offset is not None and not component.supervisor:
                    slots.append((bit, component.offset, component.size))
            places = _remember(self._standard, mask, Places(tuple(slots), end))
        return places

    def compacted(self, mask: int) -> Places:
        """Return the places of a compacted image whose XCOMP_BV has *mask*."""
        places = self._compacted.get(mask)
        if places is None:
            slots = tuple((c.bit, offset, c.size) for c, offset in compacted_places(self.cpu.components, mask))
            end = slots[-1][1] + slots[-1][2] if slots else MIN_SIZE
            places = _remember(self._compacted, mask, Places(slots, end))
        return places


@cache
def _needed(bit: int) -> int:
    """Return the bytes that the registers of component *bit* take; of LBR those of the smallest depth, 8."""
    if bit == LBR:
        return 40 + 24 * 8
    return max((part.offset + part.size for r in regs.of_component(bit) for part in r.parts), default=0)


def _remember(plans: dict[int, Places], mask: int, places: Places) -> Places:
    if len(plans) >= _MOST_PLANS:
        plans.clear()
    plans[mask] = places
    return places
