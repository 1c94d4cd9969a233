"""Where components lie in an XSAVE image, standard and compacted, and the sum that makes a size (SDM 13.4).

A `Layout` is a value: slots in ascending offset, the holes between them, and the total.  `difference` explains what
separates two sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fpstate.cpu import xcr0
from fpstate.cpu.model import Component, Cpu, compacted_places, compacted_size
from fpstate.errors import CannotTell, UsageError
from fpstate.xfeatures import CATALOGUE, COMPACTED, HEADER_SIZE, LEGACY, LEGACY_SIZE, MIN_SIZE, Catalogue, bits

__all__ = ["Format", "Hole", "Layout", "Slot", "Term", "compacted", "difference", "layouts", "standard"]

Format = Literal["standard", "compacted"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A component's place in an image.

    Attributes:
        bit: its number.
        name: its name.
        offset: bytes from the start of the image.
        size: bytes.
        padding: bytes that alignment put before it (compacted format only).
        origin: where size and offset come from; see `fpstate.cpu.model.Origin`.
    """

    bit: int
    name: str
    offset: int
    size: int
    padding: int = 0
    origin: str = "cpuid"

    @property
    def end(self) -> int:
        """Offset of the first byte after it."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes of an image that no component in it owns.

    Attributes:
        offset: bytes from the start of the image.
        size: bytes.
        why: what the bytes are there for.
    """

    offset: int
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a size: *size* bytes for *what*."""

    size: int
    what: str


@dataclass(frozen=True, slots=True)
class Layout:
    """An XSAVE image's map.

    Attributes:
        format: ``"standard"`` or ``"compacted"``.
        mask: the components it has room for.
        size: bytes.
        slots: the components, in ascending offset; x87 and SSE lie in the legacy region.
        holes: what lies between and is nobody's, in ascending offset.
    """

    format: Format
    mask: int
    size: int
    slots: tuple[Slot, ...]
    holes: tuple[Hole, ...]

    def slot(self, bit: int) -> Slot | None:
        """Return the place of component *bit*, or None if the image has none for it."""
        return next((slot for slot in self.slots if slot.bit == bit), None)

    def terms(self) -> tuple[Term, ...]:
        """Return the summands of `size`, in ascending offset: their sizes add up to it."""
        parts: list[tuple[int, Term]] = [(0, Term(LEGACY_SIZE, "legacy region")), (512, Term(HEADER_SIZE, "header"))]
        parts += [(s.offset, Term(s.size, s.name)) for s in self.slots if s.bit > 1]
        parts += [(h.offset, Term(h.size, h.why)) for h in self.holes]
        end = 0
        terms: list[Term] = []
        for offset, term in sorted(parts, key=lambda p: p[0]):
            if offset < end:
                terms.append(Term(offset - end, f"{term.what} lies over what is before it"))
            terms.append(term)
            end = max(end, offset + term.size)
        return tuple(terms)

    def explain(self) -> str:
        """Return the sum as one line: ``10752 = 576 legacy region and header + 256 AVX + ...``."""
        rest = " + ".join(f"{t.size} {t.what}" for t in self.terms()[2:])
        head = f"{self.size} = {MIN_SIZE} legacy region and header"
        return f"{head} + {rest}" if rest else head


def standard(cpu: Cpu, mask: int) -> Layout:
    """Return the standard-format layout of *mask* on *cpu*; supervisor components have no place in it.

    Raises:
        CannotTell: the source of *cpu* does not tell where a component of *mask* lies.
    """
    slots = _legacy_slots(mask, cpu.catalogue)
    extended = (cpu.components[bit] for bit in bits(mask & ~LEGACY) if bit in cpu.components)
    for component in extended:
        if component.supervisor:
            continue
        if component.offset is None:
            raise CannotTell(
                f"where {cpu.catalogue.name(component.bit)} (component {component.bit}) lies in standard format is "
                f"not known for {cpu.name}",
                cure=f"give a source with CPUID leaf 0DH, sub-leaf {component.bit}, or the CPU's name (--cpu)",
            )
        slots.append(_slot(component, component.offset, 0, cpu.catalogue))
    slots.sort(key=lambda s: (s.offset, s.bit))
    placed = sum(1 << s.bit for s in slots)
    size = cpu.standard_size(placed)
    return Layout("standard", placed, size, tuple(slots), _standard_holes(slots, cpu.components, placed, cpu.catalogue))


def compacted(cpu: Cpu, mask: int) -> Layout:
    """Return the layout of a compacted image on *cpu* whose XCOMP_BV has *mask*."""
    slots = _legacy_slots(mask, cpu.catalogue)
    holes: list[Hole] = []
    end = MIN_SIZE
    for component, offset in compacted_places(cpu.components, mask):
        if offset > end:
            name = cpu.catalogue.name(component.bit)
            holes.append(Hole(end, offset - end, f"alignment of {name} to 64 bytes"))
        slots.append(_slot(component, offset, offset - end, cpu.catalogue))
        end = offset + component.size
    placed = sum(1 << s.bit for s in slots)
    return Layout("compacted", placed, end, tuple(slots), tuple(holes))


def layouts(cpu: Cpu, mask: int | None = None) -> tuple[Layout | CannotTell, Layout]:
    """Return the standard and the compacted layout of *mask* on *cpu*; *mask* None is all that it enumerates.

    The standard one is a `CannotTell` value where the source does not hold its offsets.

    Raises:
        UsageError: *mask* sets a bit that *cpu* does not enumerate, or one that XSETBV would refuse.
    """
    if mask is None:
        mask = cpu.mask  # shown as it is: what is wrong with it, lint says
    else:
        check_mask(cpu, mask)
    try:
        first: Layout | CannotTell = standard(cpu, mask)
    except CannotTell as error:
        first = error
    return first, compacted(cpu, mask)


def check_mask(cpu: Cpu, mask: int) -> None:
    """Refuse a mask that no image on *cpu* can have.

    An image may hold any part of what is enabled: x87 and SSE may be left out of it, and Linux leaves XTILEDATA out
    of most.  What is refused is a component that cannot be enabled together with the others, by XSETBV's rules.

    Raises:
        UsageError: names the bit and the rule.
    """
    if mask & COMPACTED:
        raise UsageError("bit 63 is the format flag of XCOMP_BV, not a component; leave it out of the mask")
    absent = mask & ~cpu.mask & ~LEGACY
    if absent:
        names = cpu.catalogue.names(absent)
        raise UsageError(
            f"{cpu.name} does not enumerate {names} (mask {absent:#x})",
            cure=f"it enumerates {cpu.catalogue.names(cpu.mask)} ({cpu.mask:#x})",
        )
    user = mask & cpu.user_components | LEGACY
    broken = next((rule for rule in xcr0.RULES if rule.name != "xtile" and rule.broken(user)), None)
    if broken:
        raise UsageError(f"mask {mask:#x} is impossible: {broken.text}, or XSETBV faults (SDM 13.3)")


def difference(first: Layout, second: Layout) -> tuple[Term, ...]:
    """Return what leads from *first*'s size to *second*'s: signed terms that add up to the difference."""
    ours: dict[str, int] = {}
    for layout, sign in ((first, -1), (second, 1)):
        for term in layout.terms():
            ours[term.what] = ours.get(term.what, 0) + sign * term.size
    return tuple(Term(size, what) for what, size in ours.items() if size)


def _slot(component: Component, offset: int, padding: int, catalogue: Catalogue) -> Slot:
    name = catalogue.name(component.bit)
    return Slot(component.bit, name, offset, component.size, padding, component.origin)


def _legacy_slots(mask: int, catalogue: Catalogue) -> list[Slot]:
    slots = []
    for bit in bits(mask & LEGACY):
        row = catalogue.get(bit) or CATALOGUE.get(bit)
        if row is not None:
            place = row.placements[0]
            slots.append(Slot(bit, row.name, place.offset, place.size))
    return slots


def _standard_holes(
    slots: list[Slot], components: Mapping[int, Component], mask: int, catalogue: Catalogue
) -> tuple[Hole, ...]:
    """Return the gaps of the extended region, each with the components that own them when they are enabled."""
    holes = []
    end = MIN_SIZE
    for slot in slots:
        if slot.bit <= 1:
            continue
        if slot.offset > end:
            owners = [
                catalogue.name(c.bit)
                for c in components.values()
                if c.offset is not None and end <= c.offset < slot.offset and not mask >> c.bit & 1
            ]
            why = f"place of {', '.join(owners)}" if owners else _vacant(end, slot.offset, catalogue)
            holes.append(Hole(end, slot.offset - end, why))
        end = max(end, slot.end)
    return tuple(holes)


def _vacant(start: int, end: int, catalogue: Catalogue) -> str:
    """Name the components of other CPUs that live in a gap which this CPU leaves empty."""
    names = [
        row.name for row in catalogue if any(start <= p.offset and p.offset + p.size <= end for p in row.placements)
    ]
    return f"unused here ({', '.join(names)} on other CPUs)" if names else "unused"


def hidden_by_alignment(cpu: Cpu, mask: int, bit: int) -> int:
    """Return how many of component *bit*'s bytes a compacted image of *mask* does not grow by, thanks to alignment.

    Negative where alignment makes the component cost more than its size.
    """
    with_it, without = mask | 1 << bit, mask & ~(1 << bit)
    growth = compacted_size(cpu.components, with_it) - compacted_size(cpu.components, without)
    return cpu.components[bit].size - growth
