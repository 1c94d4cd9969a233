"""Where real CPUs put components, and which of those places fit what a source shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise, product

from fpstate.cpu.model import Component
from fpstate.xfeatures import CATALOGUE, LBR, LEGACY, MIN_SIZE, Catalogue, Placement, Xfeature, bits

__all__ = ["choose", "unusual", "usual", "usual_size"]


def choose(rows: list[Xfeature], shown: Mapping[int, Component], all_size: int) -> tuple[list[Placement | None], int]:
    """Choose a standard-format place for each of *rows*: the choice of real places that fits best.

    It fits if nothing overlaps the components *shown* and the area ends at CPUID.0DH.0:ECX (*all_size*); among those,
    the choice that mixes the fewest families of layouts.  Also returns how many other choices fit as well.
    """
    taken = [(c.offset, c.offset + c.size) for c in shown.values() if c.offset is not None]
    choices: list[tuple[int, tuple[Placement, ...]]] = []
    known = [row for row in rows if row.placements]
    for choice in product(*(row.placements for row in known)):
        spans = sorted([*taken, *((p.offset, p.offset + p.size) for p in choice)])
        overlap = any(a[1] > b[0] for a, b in pairwise(spans))
        if not overlap and max((end for _, end in spans), default=MIN_SIZE) == all_size:
            families = {p.layout for p in choice} | {_family(c) for c in shown.values()}
            choices.append((len(families - {"all", ""}), choice))
    if not choices:
        return [None] * len(rows), 0
    fewest = min(families for families, _ in choices)
    best = [choice for families, choice in choices if families == fewest]
    by_bit = {row.bit: place for row, place in zip(known, best[0], strict=True)}
    return [by_bit.get(row.bit) for row in rows], len(best) - 1


def _family(component: Component) -> str:
    """Return the layout family that a component's place belongs to; empty if to none."""
    place = _place(component, CATALOGUE.get(component.bit))
    return place.layout if place else ""


def _place(component: Component, row: Xfeature | None) -> Placement | None:
    """Return the real place that *component* has, by its offset."""
    places = row.placements if row else ()
    return next((place for place in places if place.offset == component.offset), None)


def usual_size(component: Component, row: Xfeature) -> int:
    """Return the bytes that every known CPU gives a component at this place: PKRU is 64 on Zen 2 alone."""
    place = _place(component, row)
    return place.size if place else row.size


def unusual(component: Component, row: Xfeature | None) -> bool:
    """Tell whether a sub-leaf says what no known CPU's says; arch-LBR's size follows its depth."""
    if row is None or component.origin != "cpuid" or component.bit == LBR:
        return False
    if component.supervisor != row.supervisor:
        return True
    placed = row.supervisor or not row.placements or _place(component, row) is not None
    return not placed or component.size != usual_size(component, row) or component.aligned != row.aligned


def usual(components: Mapping[int, Component], xcr0: int, all_size: int, catalogue: Catalogue) -> dict[int, Component]:
    """Return *components* with the unusual ones as every known CPU has them.

    A user component goes where CPUID.0DH.0:ECX (*all_size*) leaves room for it, and stays where it is if nowhere does.
    """
    odd = [bit for bit, component in components.items() if unusual(component, catalogue.get(bit))]
    rest = {bit: component for bit, component in components.items() if bit not in odd}
    found = dict(components)
    rows = [row for bit in odd if (row := catalogue.get(bit)) is not None]
    user = [row for row in rows if xcr0 >> row.bit & 1 and not row.supervisor]
    places, _ = choose(user, {b: c for b, c in rest.items() if b in set(bits(xcr0 & ~LEGACY))}, all_size)
    by_bit = dict(zip((row.bit for row in user), places, strict=True))
    for row in rows:
        component = components[row.bit]
        place = by_bit.get(row.bit)
        found[row.bit] = replace(
            component,
            size=place.size if place else usual_size(component, row),
            offset=place.offset if place else component.offset,
            supervisor=row.supervisor,
            aligned=row.aligned,
        )
    return found
