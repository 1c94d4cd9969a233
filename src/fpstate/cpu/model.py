"""A CPU as fpstate sees it: the components it enumerates, where it puts them, and what nobody said about it.

`fpstate.cpu.conclude` makes a `Cpu` of what an input says.  Contradictions are kept as they are; `fpstate.cpu.lint`
names them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

from fpstate.cpu.dump import BootLog, Dump, Leaves, Registers, log_only
from fpstate.errors import CannotTell
from fpstate.xfeatures import CATALOGUE, LEGACY, MIN_SIZE, Catalogue, Xfeature, bits

__all__ = ["Component", "Cpu", "Origin", "Palette", "compacted_places", "compacted_size", "standard_size"]

Origin = Literal["cpuid", "boot log", "deduced", "catalogue", "user"]
"""Where a component's numbers come from, strongest first.

``deduced``: the only place of a real CPU that fits the sizes shown; ``catalogue``: the size that every known CPU has.
"""


@dataclass(frozen=True, slots=True)
class Component:
    """One state component as one CPU enumerates it (CPUID.0DH.i).

    Attributes:
        bit: its number.
        size: bytes.
        offset: bytes from the start of a standard-format image; None for supervisor components and where unknown.
        supervisor, aligned, xfd: CPUID.0DH.i:ECX bits 0, 1, 2.
        origin: where the numbers come from.
    """

    bit: int
    size: int
    offset: int | None
    supervisor: bool = False
    aligned: bool = False
    xfd: bool = False
    origin: Origin = "cpuid"


def standard_size(components: Mapping[int, Component], mask: int) -> int:
    """Return the bytes of a standard-format image of *mask*: the greatest end of its user components.

    Offsets are not ascending in the component's number (APX lies below PKRU), hence the maximum (SDM 13.4.3).

    Raises:
        CannotTell: the standard offset of a component in *mask* is not known.
    """
    size = MIN_SIZE
    for bit in bits(mask & ~LEGACY):
        component = components.get(bit)
        if component is None or component.supervisor:
            continue
        if component.offset is None:
            raise CannotTell(f"the standard-format offset of component {bit} is not known for this CPU")
        size = max(size, component.offset + component.size)
    return size


def compacted_places(
    components: Mapping[int, Component], mask: int, *, align: bool = True
) -> Iterator[tuple[Component, int]]:
    """Yield each extended component of a compacted image whose XCOMP_BV has *mask*, with its offset (SDM 13.4.3).

    In ascending number, each after the one before it, on the next 64 bytes if its sub-leaf asks for that.  Components
    in *mask* that the CPU does not enumerate take no place.  With *align* False nothing is aligned: what some
    hypervisors add up.
    """
    end = MIN_SIZE
    for bit in bits(mask & ~LEGACY):
        component = components.get(bit)
        if component is not None:
            offset = (end + 63) & ~63 if align and component.aligned else end
            end = offset + component.size
            yield component, offset


def compacted_size(components: Mapping[int, Component], mask: int, *, align: bool = True) -> int:
    """Return the bytes of that image: where its last component ends; nothing is rounded up."""
    size = MIN_SIZE
    for component, offset in compacted_places(components, mask, align=align):
        size = offset + component.size
    return size


class Palette(NamedTuple):
    """One way to divide XTILEDATA into tiles (CPUID.1DH.i; SDM volume 1, 18.2).  Sizes are bytes.

    Attributes:
        number: i, from 1.
        total: of all tiles.
        tile: of one tile.
        row: of one row of a tile.
        tiles, rows: how many tiles, and how many rows in one.
    """

    number: int
    total: int
    tile: int
    row: int
    tiles: int
    rows: int


_MOST_PALETTES = 64
"""CPUs have one; a number in leaf 1DH is not trusted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cpu:
    """One CPU.  Two are equal only if they are the same object; compare fields instead.

    Attributes:
        name: what to call it.
        source: where the knowledge comes from.
        leaves: the CPUID calls it was concluded from; may be empty.
        xcr0_mask: user components that CPUID enumerates, D.0:EDX:EAX.
        xss_mask: supervisor components, D.1:EDX:ECX; None if not known.
        components: bit to `Component` for every enumerated extended component (bit 2 and up).
        flags: Linux names of the CPU flags that are set.
        flags_unknown: flags that the source says nothing about.
        missing: enumerated components whose sub-leaf the source does not show.
        unread: enumerated components whose sub-leaf the source shows as zeros though its tool did not read it.
        boot_log: what a boot printed, if that is the source.
        dump: what was read, with the state it was taken in.
        guesses: what was guessed, from what, and what else it could be.
        notes: other remarks of the reader.
    """

    name: str
    source: str
    leaves: Leaves = field(default_factory=dict)
    xcr0_mask: int = 0
    xss_mask: int | None = 0
    components: Mapping[int, Component] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    flags_unknown: frozenset[str] = frozenset()
    missing: int = 0
    unread: int = 0
    boot_log: BootLog | None = None
    dump: Dump = field(default_factory=lambda: Dump(format="none"))
    guesses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    catalogue: Catalogue = CATALOGUE

    @property
    def mask(self) -> int:
        """Every component the CPU enumerates, XCR0's and IA32_XSS's."""
        return self.xcr0_mask | (self.xss_mask or 0)

    @property
    def has_xsave(self) -> bool:
        """Whether CPUID.1:ECX[26] is set, or leaf 0DH stands in for it."""
        return "XSAVE" in self.flags or ("XSAVE" in self.flags_unknown and bool(self.xcr0_mask))

    @property
    def log_only(self) -> bool:
        """Whether boot lines are all that is known of the CPU."""
        return log_only(self.leaves, self.boot_log)

    def register(self, leaf: int, subleaf: int) -> Registers | None:
        """Return what the source shows for CPUID(*leaf*, *subleaf*), or None."""
        return self.leaves.get((leaf, subleaf))

    def palettes(self) -> Iterator[Palette]:
        """Yield the tile palettes of leaf 1DH; one that the source does not show is all zeros."""
        top = self.register(0x1D, 0) or (0, 0, 0, 0)
        for number in range(1, min(top[0], _MOST_PALETTES) + 1):
            eax, ebx, ecx, _ = self.register(0x1D, number) or (0, 0, 0, 0)
            yield Palette(number, eax & 0xFFFF, eax >> 16, ebx & 0xFFFF, ebx >> 16, ecx & 0xFFFF)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Everything to say beside the numbers: the guesses, then the notes."""
        return (*self.guesses, *self.notes)

    @cached_property
    def user_components(self) -> int:
        """Enumerated bits whose component is a user one (the legacy two included)."""
        return self.xcr0_mask & ~self.supervisor_components

    @cached_property
    def supervisor_components(self) -> int:
        """Enumerated bits whose sub-leaf says supervisor."""
        mask = 0
        for bit, component in self.components.items():
            if component.supervisor:
                mask |= 1 << bit
        return mask

    def standard_size(self, mask: int) -> int:
        """Bytes of a standard-format image of *mask*; see `standard_size`."""
        return standard_size(self.components, mask)

    def compacted_size(self, mask: int) -> int:
        """Bytes of a compacted image of *mask*; see `compacted_size`."""
        return compacted_size(self.components, mask)

    def with_components(self, rows: tuple[Xfeature, ...], catalogue: Catalogue) -> Cpu:
        """Return this CPU as if it enumerated the user's components *rows* as well, each as its row says.

        A user component without a standard-format place goes behind everything that the CPU has.
        """
        components = dict(self.components)
        xcr0, xss = self.xcr0_mask, self.xss_mask or 0
        flags = set(self.flags)
        for row in rows:
            offset = None
            if not row.supervisor:
                xcr0 |= row.mask
                end = standard_size(components, xcr0 & ~row.mask)
                offset = row.placements[0].offset if row.placements else (end + 63) & ~63
            else:
                xss |= row.mask
            if row.bit > 1:
                components[row.bit] = Component(
                    row.bit, row.size, offset, row.supervisor, row.aligned, row.xfd, origin="user"
                )
            if row.flag:
                flags.add(row.flag)
        return replace(
            self,
            xcr0_mask=xcr0,
            xss_mask=xss,
            components=dict(sorted(components.items())),
            flags=frozenset(flags),
            catalogue=catalogue,
            dump=Dump(format=self.dump.format),
            leaves={k: v for k, v in self.leaves.items() if k[0] != 0xD},
            notes=(*self.notes, *(f"component {row.bit} ({row.name}) is yours, not the CPU's" for row in rows)),
        )
