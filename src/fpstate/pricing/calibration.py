"""A calibration: what the XSAVE instructions of one CPU cost, measured, with its spread and what was not measured.

It is a JSON document, written by ``fpstate calibrate`` and read by ``fpstate trace cost``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Final

from fpstate.errors import UnreadableInput
from fpstate.pricing.published import Figure
from fpstate.xfeatures import COMPACTED

__all__ = [
    "DERIVED",
    "INSTRUCTIONS",
    "Calibration",
    "Clock",
    "Machine",
    "Point",
    "document",
    "parse",
    "read",
    "shipped",
]

SCHEMA: Final = 1
_LIMIT: Final = 1 << 20
_MOST_POINTS: Final = 4096
_MOST_CYCLES: Final = 10**9
_ZERO_TICKS: Final = 64.0
"""Ticks below zero that noise may leave of a cheap instruction once the overhead is subtracted."""

INSTRUCTIONS: Final = ("XSAVE", "XSAVEOPT", "XSAVEC", "XRSTOR", "XRSTOR compacted", "FXSAVE", "FXRSTOR")
"""What points are of; ``XRSTOR compacted`` is XRSTOR of an image in compacted format."""

DERIVED: Final[Mapping[str, str]] = {
    "XSAVES": (
        "as XSAVEC of the same user components; each supervisor component in use adds between nothing and one RDMSR, "
        "by the least published figure, for 8 bytes of it: in the middle its bytes at the measured marginal cost of a "
        "byte"
    ),
    "XRSTORS": (
        "as XRSTOR of a compacted image of the same user components; each supervisor component of RFBM, loaded or "
        "initialised, adds between nothing and one WRMSR, by the least published figure, for 8 bytes of it: in the "
        "middle its bytes at the measured marginal cost of a byte"
    ),
}
"""How the supervisor forms, which fault in user mode (SDM 13.11, 13.12: CPL must be 0), follow from user forms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was measured.

    Attributes:
        name: as CPUID's brand string has it, "" if it has none.
        signature: CPUID.1:EAX.
        hypervisor: CPUID.1:ECX[31].
        xcr0: its enabled components.
        sizes: bytes of each extended component, by bit.
        kernel: uname's release.
        date: when, in UTC, ISO 8601.
    """

    name: str
    signature: int
    hypervisor: bool
    xcr0: int
    sizes: Mapping[int, int]
    kernel: str
    date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """What was measured with.

    Attributes:
        granularity: ticks; what all differences of readings are multiples of.
        overhead: ticks of a sample without an instruction, median; subtracted from all.
        core_per_tick: core clocks in one tick while measuring.
        repeats: executions in a sample; samples: of each point; runs: that they were taken in, with all other points
            between two of them.
    """

    granularity: int
    overhead: float
    core_per_tick: float
    repeats: int
    samples: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One instruction with one RFBM and one XINUSE (of a restore: XSTATE_BV).  Costs are TSC ticks of one execution.

    Attributes:
        instruction: one of `INSTRUCTIONS`.
        rfbm, in_use: the masks; *in_use* is a subset.
        minimum, q1, median, q3: of all samples, overhead subtracted.
        low, high: the least and the greatest median of a run.
    """

    instruction: str
    rfbm: int
    in_use: int
    minimum: float
    q1: float
    median: float
    q3: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The whole.

    Attributes:
        source: where it was read from; "" if just measured.
        machine, clock, points: what was measured, with what, and what it gave.
        published: by name, what others published; see `fpstate.pricing.published`.
        not_measured: in words, what is missing and why.
    """

    source: str
    machine: Machine
    clock: Clock
    points: tuple[Point, ...]
    published: Mapping[str, Figure]
    not_measured: tuple[str, ...]


def document(calibration: Calibration) -> dict[str, Any]:
    """Return it as JSON writes it; masks are hex strings."""
    machine = asdict(calibration.machine)
    machine["signature"] = f"{calibration.machine.signature:#x}"
    machine["xcr0"] = f"{calibration.machine.xcr0:#x}"
    machine["sizes"] = {str(bit): size for bit, size in calibration.machine.sizes.items()}
    points = [
        asdict(point) | {"rfbm": f"{point.rfbm:#x}", "in_use": f"{point.in_use:#x}"} for point in calibration.points
    ]
    return {
        "schema": SCHEMA,
        "calibration": "XSAVE instructions",
        "unit": "TSC ticks",
        "machine": machine,
        "clock": asdict(calibration.clock),
        "points": points,
        "derived": dict(DERIVED),
        "published": {name: asdict(figure) for name, figure in calibration.published.items()},
        "not_measured": list(calibration.not_measured),
    }


# Reading


def read(path: str) -> Calibration:
    """Return the calibration in a file.

    Raises:
        UnreadableInput: it cannot be read, or is no calibration; names the field.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LIMIT + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnreadableInput(f"cannot read {path}: {reason}") from error
    if len(data) > _LIMIT:
        raise UnreadableInput(f"{path} is larger than {_LIMIT >> 20} MiB: no calibration")
    return parse(data, path)


@cache
def shipped() -> Calibration:
    """Return the package's own calibration, of one Zen 4."""
    path = Path(__file__).parent.parent / "data" / "calibration.json"
    return parse(path.read_bytes(), "the package's calibration")


def parse(data: bytes, name: str) -> Calibration:
    """Return the calibration that *data* holds; *name* is what to call it.

    Raises:
        UnreadableInput: it is none; names the field.
    """
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableInput(f"{name} is no JSON: {error}", cure="make one: fpstate calibrate -o FILE") from error
    return _Reader(name).calibration(tree)


class _Reader:
    """Takes a tree apart, and refuses by the name of the field what cannot be meant."""

    def __init__(self, name: str) -> None:
        self._name = name

    def calibration(self, tree: object) -> Calibration:
        top = self._table(tree, "the document")
        if top.get("calibration") != "XSAVE instructions":
            raise UnreadableInput(f"{self._name} is no calibration", cure="make one: fpstate calibrate -o FILE")
        if top.get("schema") != SCHEMA or isinstance(top.get("schema"), bool):
            raise self._refusal("schema", f"must be {SCHEMA}")
        rows = self._list(top.get("points"), "points")
        if not 0 < len(rows) <= _MOST_POINTS:
            raise self._refusal("points", f"must hold 1 to {_MOST_POINTS}")
        published = self._table(top.get("published"), "published")
        return Calibration(
            source=self._name,
            machine=self._machine(top.get("machine")),
            clock=self._clock(top.get("clock")),
            points=tuple(self._point(row, f"points[{i}]") for i, row in enumerate(rows)),
            published={str(name): self._figure(row, f"published.{name}") for name, row in published.items()},
            not_measured=tuple(
                self._text(row, "not_measured") for row in self._list(top.get("not_measured"), "not_measured")
            ),
        )

    def _machine(self, tree: object) -> Machine:
        row = self._table(tree, "machine")
        sizes = self._table(row.get("sizes"), "machine.sizes")
        bits = {name: int(name) if name.isdecimal() and len(name) <= 2 else 0 for name in sizes}
        if not all(2 <= bit < 63 for bit in bits.values()):
            raise self._refusal("machine.sizes", "must be of components 2 to 62")
        hypervisor = row.get("hypervisor")
        if not isinstance(hypervisor, bool):
            raise self._refusal("machine.hypervisor", "must be true or false")
        return Machine(
            name=self._text(row.get("name"), "machine.name"),
            signature=self._mask(row.get("signature"), "machine.signature"),
            hypervisor=hypervisor,
            xcr0=self._mask(row.get("xcr0"), "machine.xcr0"),
            sizes={bits[name]: int(self._number(size, f"machine.sizes.{name}")) for name, size in sizes.items()},
            kernel=self._text(row.get("kernel"), "machine.kernel"),
            date=self._text(row.get("date"), "machine.date"),
        )

    def _clock(self, tree: object) -> Clock:
        row = self._table(tree, "clock")
        numbers = {field.name: self._number(row.get(field.name), f"clock.{field.name}") for field in fields(Clock)}
        whole = ("granularity", "repeats", "samples", "runs")
        return Clock(**{**numbers, **{name: int(numbers[name]) for name in whole}})  # type: ignore[arg-type]  # ints where whole

    def _point(self, tree: object, where: str) -> Point:
        row = self._table(tree, where)
        instruction = self._text(row.get("instruction"), f"{where}.instruction")
        if instruction not in INSTRUCTIONS:
            raise self._refusal(f"{where}.instruction", f"must be one of {', '.join(INSTRUCTIONS)}")
        rfbm, in_use = self._mask(row.get("rfbm"), f"{where}.rfbm"), self._mask(row.get("in_use"), f"{where}.in_use")
        if in_use & ~rfbm:
            raise self._refusal(f"{where}.in_use", f"must be a subset of rfbm: it has {in_use & ~rfbm:#x} more")
        names = ("minimum", "q1", "median", "q3", "low", "high")
        costs = {name: self._number(row.get(name), f"{where}.{name}", least=-_ZERO_TICKS) for name in names}
        if not costs["minimum"] <= costs["q1"] <= costs["median"] <= costs["q3"] or costs["low"] > costs["high"]:
            raise self._refusal(where, "must ascend: minimum, q1, median, q3; low, high")
        return Point(instruction=instruction, rfbm=rfbm, in_use=in_use, **costs)

    def _figure(self, tree: object, where: str) -> Figure:
        row = self._table(tree, where)
        low, high = (
            None if row.get(name) is None else int(self._number(row[name], f"{where}.{name}"))
            for name in ("low", "high")
        )
        if (low is None) is not (high is None) or (low is not None and high is not None and low > high):
            raise self._refusal(where, "must have low and high, in this order, or neither")
        texts = {
            name: self._text(row.get(name), f"{where}.{name}") for name in ("title", "each", "unit", "source", "date")
        }
        return Figure(low=low, high=high, weak=bool(row.get("weak")), **texts)

    # Values

    def _refusal(self, where: str, rule: str) -> UnreadableInput:
        return UnreadableInput(f"{self._name}: {where} {rule}", cure="make it anew: fpstate calibrate -o FILE")

    def _table(self, value: object, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._refusal(where, "must be an object")
        return value

    def _list(self, value: object, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._refusal(where, "must be an array")
        return value

    def _text(self, value: object, where: str) -> str:
        if not isinstance(value, str):
            raise self._refusal(where, "must be text")
        return value

    def _number(self, value: object, where: str, *, least: float = 0.0) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._refusal(where, "must be a number")
        if not least <= value <= _MOST_CYCLES or not math.isfinite(value):
            raise self._refusal(where, f"must be {least:g} to {_MOST_CYCLES}")
        return float(value)

    def _mask(self, value: object, where: str) -> int:
        text = self._text(value, where)
        try:
            mask = int(text, 16) if len(text) <= 18 else -1
        except ValueError:
            mask = -1
        if not 0 <= mask < COMPACTED:
            raise self._refusal(where, "must be a mask in hex")
        return mask
