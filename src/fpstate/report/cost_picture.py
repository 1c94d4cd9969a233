"""The costs of a run as an SVG picture: a bar a policy, with the range that its ticks may lie in."""

from __future__ import annotations

from typing import Final

from fpstate.pricing.tariff import Range
from fpstate.report.svg import document, text
from fpstate.traces.cost import Costs, paired

__all__ = ["svg"]

_FONT: Final = 'font-family="Helvetica, Arial, sans-serif"'
_BLACK: Final = 'fill="#000000"'
_GREY: Final = 'fill="#444444"'
_BAR: Final = "#56b4e9"
_LEFT: Final = 170
_WIDTH: Final = 420
_NUMBERS: Final = 250
_ROW: Final = 30
_TOP: Final = 96
_GAP: Final = 70


def svg(costs: Costs, source: str) -> str:
    """Return the picture; *source* is the recording's name."""
    found = paired(costs)
    title = f"What {source} costs under {len(found)} {'policy' if len(found) == 1 else 'policies'}"
    calibration = costs.tariff.calibration.machine
    parts = [
        f'<rect width="{_LEFT + _WIDTH + _NUMBERS}" height="{_height(len(found))}" fill="#ffffff"/>',
        text(16, 26, title, _BLACK, size=16, weight="bold"),
        text(
            16, 46, f"{costs.comparison.cpu.name}; ticks as on {calibration.name}, {calibration.date}", _GREY, size=12
        ),
        *_bars("TSC ticks of the run: bar, as the run shows it; line, the least and the most", _TOP, _totals(costs)),
    ]
    below = _TOP + len(found) * _ROW + _GAP
    first = found[0][0] if found else ""
    differences = [(name, difference) for name, _, difference in found]
    parts += _bars(f"dearer than {first}: what both do at the same cost is not in it", below, differences)
    return document(_LEFT + _WIDTH + _NUMBERS, _height(len(found)), title, parts, _FONT)


def _height(policies: int) -> int:
    return _TOP + 2 * policies * _ROW + _GAP + 20


def _totals(costs: Costs) -> list[tuple[str, Range]]:
    return [(name, costs.cycles(price)) for name, price, _ in paired(costs)]


def _bars(heading: str, top: float, values: list[tuple[str, Range]]) -> list[str]:
    least = min([0.0, *(cost.low for _, cost in values)])
    most = max([0.0, *(cost.high for _, cost in values)])
    scale = _WIDTH / ((most - least) or 1.0)

    def x(value: float) -> float:
        return round(_LEFT + (value - least) * scale, 1)

    zero = x(0)
    parts = [text(16, top - 12, heading, _BLACK, size=13, weight="bold")]
    for row, (name, cost) in enumerate(values):
        y = top + row * _ROW
        left, right = sorted((zero, x(cost.mid)))
        parts.append(f'<rect x="{left}" y="{y}" width="{round(right - left, 1)}" height="18" fill="{_BAR}"/>')
        parts += _whisker(x(cost.low), x(cost.high), y + 9)
        parts.append(text(_LEFT - 8, y + 14, name, _BLACK, size=12, anchor="end"))
        numbers = f"{cost.mid:,.0f} ({cost.low:,.0f} to {cost.high:,.0f})"
        parts.append(text(_LEFT + _WIDTH + 10, y + 14, numbers, _GREY, size=11))
    bottom = top + len(values) * _ROW - 6
    parts.append(f'<line x1="{zero}" y1="{top - 4}" x2="{zero}" y2="{bottom}" stroke="#000000"/>')
    return parts


def _whisker(low: float, high: float, y: float) -> list[str]:
    ends = [(low, y - 5, low, y + 5), (high, y - 5, high, y + 5), (low, y, high, y)]
    return [f'<line x1="{a}" y1="{b}" x2="{c}" y2="{d}" stroke="#c00000" stroke-width="1.5"/>' for a, b, c, d in ends]
