"""A calibration as text; its document is `fpstate.pricing.calibration.document`."""

from __future__ import annotations

from fpstate.pricing.calibration import DERIVED, Calibration, Point
from fpstate.report import hexmask
from fpstate.report.tables import bold, table, wrapped

__all__ = ["text"]


def text(calibration: Calibration) -> str:
    """Return what was measured, how, what it gave, and what is missing."""
    machine, clock = calibration.machine, calibration.clock
    name = machine.name or f"CPU {machine.signature:#x}"
    where = " in a virtual machine" if machine.hypervisor else ""
    heading = f"{bold(name)}{where}, XCR0 {hexmask(machine.xcr0)}, Linux {machine.kernel}, {machine.date}"
    how = (
        f"Ticks of the TSC for one instruction, which nothing overlaps: {clock.samples} samples of {clock.repeats} in "
        f"{clock.runs} runs, {clock.overhead:g} ticks of overhead a sample subtracted. Readings differ by multiples of "
        f"{clock.granularity} ticks. {clock.core_per_tick:g} core clocks passed in one tick."
    )
    rows = [_row(point) for point in calibration.points]
    headers = ("instruction", "RFBM", "in use", "min", "q1", "median", "q3", "medians of runs")
    parts = [heading, wrapped(how), table(headers, rows, right=(3, 4, 5, 6))]
    parts.append("\n".join(wrapped(f"{name}: {words}.") for name, words in DERIVED.items()))
    parts.append("published:\n" + _published(calibration))
    parts.append("not measured:\n" + "\n".join(map(wrapped, calibration.not_measured)))
    return "\n\n".join(parts)


def _row(point: Point) -> list[str]:
    numbers = [f"{value:.0f}" for value in (point.minimum, point.q1, point.median, point.q3)]
    masks = [hexmask(point.rfbm), hexmask(point.in_use)]
    return [point.instruction, *masks, *numbers, f"{point.low:.0f} to {point.high:.0f}"]


def _published(calibration: Calibration) -> str:
    rows = [
        [figure.title, f"{figure.low} to {figure.high}", figure.each, figure.date, figure.source]
        for figure in calibration.published.values()
        if figure.low is not None
    ]
    return table(("cost", "cycles", "each", "date", "source"), rows)
