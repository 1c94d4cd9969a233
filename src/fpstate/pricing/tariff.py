"""What one instruction costs in TSC ticks, by a calibration: a range, never a number alone.

A point that was measured is taken as it is: the least and the greatest median of a run, and the median of all.  What
lies between measured points costs what lies between their costs.  What no user mode can measure is derived, in words
that `fpstate.pricing.calibration.DERIVED` has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from fpstate.cpu.model import Cpu
from fpstate.errors import CannotTell
from fpstate.pricing.calibration import Calibration, Point
from fpstate.xfeatures import LEGACY, bits

__all__ = ["NOTHING", "Item", "Range", "Tariff", "total"]

_USER_FORM: Final = {"XSAVES": "XSAVEC", "XRSTORS": "XRSTOR compacted"}
_MSR: Final = 8


@dataclass(frozen=True, slots=True)
class Range:
    """TSC ticks: at least, most likely, and at most."""

    low: float
    mid: float
    high: float

    def __add__(self, other: Range) -> Range:
        """Add the ends: the costs may all be low together."""
        return Range(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def times(self, count: int) -> Range:
        """Return the cost of *count* of them; where *count* is negative, what they save, at least and at most."""
        ends = sorted((self.low * count, self.high * count))
        return Range(ends[0], self.mid * count, ends[1])


NOTHING: Final = Range(0.0, 0.0, 0.0)


class Item(NamedTuple):
    """Something with one cost, however often it happens: two runs that have it in common pay the same for it.

    Attributes:
        what: ``user``, an instruction with its user components; ``rdmsr`` and ``wrmsr``, these instructions, or, where
            *rfbm* is a supervisor component, what it adds to a save or a restore.
        instruction: which; "" for an MSR's own.
        rfbm, in_use: the masks.
    """

    what: str
    instruction: str = ""
    rfbm: int = 0
    in_use: int = 0


@dataclass(frozen=True, eq=False)
class Tariff:
    """The costs of one CPU's instructions.

    Attributes:
        calibration: what was measured, of this CPU or of another.
        cpu: whose components are moved.
    """

    calibration: Calibration
    cpu: Cpu
    _known: dict[Item, Range] = field(default_factory=dict)

    def save(self, instruction: str, rfbm: int, in_use: int) -> Range:
        """Return the cost of a save of *rfbm* with *in_use* in use."""
        return total(self, dict.fromkeys(self.saving(instruction, rfbm, in_use), 1))

    def restore(self, instruction: str, rfbm: int, xstate_bv: int) -> Range:
        """Return the cost of a restore of *rfbm* from an image that holds *xstate_bv*."""
        return total(self, dict.fromkeys(self.restoring(instruction, rfbm, xstate_bv), 1))

    def saving(self, instruction: str, rfbm: int, in_use: int) -> tuple[Item, ...]:
        """Return what a save is made of: its user components, and each supervisor component that is in use."""
        return self._items("rdmsr", instruction, rfbm, in_use & rfbm, self._supervisor(rfbm & in_use))

    def restoring(self, instruction: str, rfbm: int, xstate_bv: int) -> tuple[Item, ...]:
        """Return what a restore is made of: its user components, and each supervisor component of RFBM."""
        return self._items("wrmsr", instruction, rfbm, xstate_bv & rfbm, self._supervisor(rfbm))

    def cost(self, item: Item) -> Range:
        """Return the cost of an item."""
        if item not in self._known:
            self._known[item] = self._priced(item)
        return self._known[item]

    def _items(self, msr: str, instruction: str, rfbm: int, in_use: int, supervisor: Iterable[int]) -> tuple[Item, ...]:
        user = ~self.cpu.supervisor_components
        beside = (Item(msr, instruction, 1 << bit, 0) for bit in supervisor)
        return (Item("user", instruction, rfbm & user, in_use & user), *beside)

    def _priced(self, item: Item) -> Range:
        """Return what an item costs; a supervisor component: from nothing to as many MSR accesses."""
        if item.what == "user":
            return self._cost(item.instruction, item.rfbm, item.in_use)
        if not item.rfbm:
            return self.msr(item.what)
        size = self._sum(item.rfbm)
        most = self.msr(item.what).low * (size // _MSR)
        return Range(0.0, min(size * self._marginal(self._form(item.instruction)), most), most)

    def msr(self, name: str) -> Range:
        """Return the cost of one ``rdmsr`` or ``wrmsr``, as published.

        Raises:
            CannotTell: the calibration has no figure.
        """
        figure = self.calibration.published.get(name)
        if figure is None or figure.low is None or figure.high is None:
            raise CannotTell(f"{self.calibration.source} has no published figure of {name}", cure="make it anew")
        return Range(figure.low, (figure.low + figure.high) / 2, figure.high)

    def _cost(self, instruction: str, rfbm: int, in_use: int) -> Range:
        """Return the cost of the user components."""
        form = self._form(instruction)
        points = self._points(form)
        if form[0] == "F":
            return _of(points[0])
        exact = next((point for point in points if (point.rfbm, point.in_use) == (rfbm, in_use)), None)
        return _of(exact) if exact else self._between(form, rfbm, in_use)

    def _between(self, form: str, rfbm: int, in_use: int) -> Range:
        """Return a cost from the dearest point that does less and the cheapest that does more."""
        points = self._points(form)
        less = [point for point in points if not (point.rfbm & ~rfbm or point.in_use & ~in_use)]
        more = [point for point in points if not (rfbm & ~point.rfbm or in_use & ~point.in_use)]
        below = max(less, key=lambda point: (self._weight(point), point.median), default=None)
        above = min(more, key=lambda point: (self._weight(point), point.median), default=None)
        at = self._bytes(rfbm, in_use)
        if below is None:
            below = min(points, key=self._weight)
        if above is None:
            rest = max(0, at[0] - self._weight(below)[0])
            base, marginal = _of(below), self._marginal(form)
            return base + Range(0.0, rest * marginal, rest * max(marginal, self._average(form)))
        low, high = self._weight(below), self._weight(above)
        span = sum(high) - sum(low)
        share = (sum(at) - sum(low)) / span if span > 0 else 0.5
        middle = below.median + (above.median - below.median) * min(max(share, 0.0), 1.0)
        return Range(min(below.low, above.low), middle, max(below.high, above.high))

    def _form(self, instruction: str) -> str:
        form = _USER_FORM.get(instruction, instruction)
        if form == "XRSTOR" and "XSAVEC" in self.cpu.flags:
            form = "XRSTOR compacted"  # a kernel with XSAVEC and without XSAVES keeps compacted images
        return form if self._has(form) else {"XSAVEC": "XSAVEOPT", "XRSTOR compacted": "XRSTOR"}.get(form, form)

    def _has(self, form: str) -> bool:
        return any(point.instruction == form for point in self.calibration.points)

    def _points(self, form: str) -> list[Point]:
        found = self._by_form.get(form)
        if not found:
            raise CannotTell(f"{self.calibration.source or 'the calibration'} has no point of {form}")
        return found

    @cached_property
    def _by_form(self) -> dict[str, list[Point]]:
        found: dict[str, list[Point]] = {}
        for point in self.calibration.points:
            found.setdefault(point.instruction, []).append(point)
        return found

    # Weights: bytes in use, and bytes of RFBM at a hundredth, which only order points

    def _weight(self, point: Point) -> tuple[int, float]:
        return self._bytes(point.rfbm, point.in_use)

    def _bytes(self, rfbm: int, in_use: int) -> tuple[int, float]:
        return self._sum(in_use), self._sum(rfbm) / 100

    def _sum(self, mask: int) -> int:
        return sum(self._size(bit) for bit in bits(mask))

    def _size(self, bit: int) -> int:
        component, row = self.cpu.components.get(bit), self.cpu.catalogue.get(bit)
        if component is not None:
            return component.size
        return self.calibration.machine.sizes.get(bit, row.size if row and LEGACY >> bit & 1 else 0)

    def _supervisor(self, mask: int) -> Iterable[int]:
        return bits(mask & self.cpu.supervisor_components)

    def _marginal(self, form: str) -> float:
        """Return ticks a byte in use adds: from nothing to everything in use, of the widest RFBM measured."""
        points = self._points(form)
        widest = max(points, key=lambda point: (point.rfbm.bit_count(), point.rfbm)).rfbm
        ends = {point.in_use: point.median for point in points if point.rfbm == widest}
        return max(0.0, (ends.get(widest, 0.0) - ends.get(0, 0.0)) / max(1, self._sum(widest)))

    def _average(self, form: str) -> float:
        """Return ticks a byte of the dearest point, all overhead of the instruction included."""
        dearest = max(self._points(form), key=lambda point: point.median)
        return dearest.median / max(1, self._sum(dearest.rfbm))


def total(tariff: Tariff, items: Mapping[Item, int]) -> Range:
    """Return the cost of *items* by how often each happens; a difference of two runs may have negative counts."""
    every = NOTHING
    for item, count in items.items():
        every += tariff.cost(item).times(count)
    return every


def _of(point: Point) -> Range:
    return Range(min(point.low, point.median), point.median, max(point.high, point.median))
