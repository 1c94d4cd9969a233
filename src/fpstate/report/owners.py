"""Who owned each CPU's registers, as an SVG picture of bounded size.

One lane a CPU.  A column is one bin of time; its height is shared out by how long each thread owned the registers, in
full colour while they were in use, pale while they were only kept after a save.  White is nobody, or not known.
"""

from __future__ import annotations

from itertools import groupby
from typing import Final, NamedTuple

from fpstate.errors import printable
from fpstate.report.svg import document, text
from fpstate.report.trace_report import Scale
from fpstate.traces.bins import MOST_BINS
from fpstate.traces.told import Told

__all__ = ["svg"]

_LEFT: Final = 70
_TOP: Final = 60
_COLUMN: Final = 2
_LANE: Final = 40
_GAP: Final = 10
_MOST_LANES: Final = 128
_PALETTE: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8c6bb1")
"""Okabe and Ito's colours, which colour-blind readers tell apart, and one more."""
_OTHERS: Final = "#999999"
_FONT: Final = 'font-family="Helvetica, Arial, sans-serif"'
_STEPS: Final = 20
"""A stripe's height is a multiple of a 20th of its lane: what is thinner is not seen."""


class _Stripe(NamedTuple):
    """Part of a column: its lower and upper edge in steps, its colour, and whether it is pale."""

    low: int
    high: int
    colour: str
    pale: bool


def svg(told: Told) -> str:
    """Return the picture: at most 128 lanes of at most 512 columns, each of at most 20 stripes."""
    span = told.held.span()
    columns = min(len(span), MOST_BINS)
    lanes = told.timeline(columns) if columns else {}
    shown = dict(list(lanes.items())[:_MOST_LANES])
    colours = _colours(told)
    width = _LEFT + max(columns * _COLUMN, 600) + 20
    scale = Scale(told.about.clock, nanoseconds=told.about.in_nanoseconds)
    each = 1 << told.held.width
    head = f"{sum(told.events.values()):,} events in {scale(told.last - told.first)}, {scale(each)} a column"
    further = f", CPUs beyond {_MOST_LANES} left out" if len(lanes) > len(shown) else ""
    parts = [
        f'<rect width="{width}" height="{_height(len(shown))}" fill="#ffffff"/>',
        text(16, 24, f"{told.about.source}: who owns the registers", "", size=16, weight="bold"),
        text(16, 44, f"{head}; pale: kept after a save{further}", "", size=12),
    ]
    for row, (cpu, cells) in enumerate(shown.items()):
        stripes = [_stripes(cells.get(column, {}), colours, each) for column in range(columns)]
        parts += _lane(_TOP + row * (_LANE + _GAP), f"CPU {cpu}", stripes)
    parts += _legend(_TOP + len(shown) * (_LANE + _GAP) + 4, told, colours)
    return document(width, _height(len(shown)), f"owners of {told.about.source}", parts, _FONT)


def _height(lanes: int) -> int:
    return _TOP + lanes * (_LANE + _GAP) + 30


def _colours(told: Told) -> dict[int, str]:
    """Give colours to the threads that owned registers longest."""
    times: dict[int, int] = {}
    for owner in told.owners:
        times[owner.pid] = times.get(owner.pid, 0) + owner.in_use + owner.kept
    return dict(zip(sorted(times, key=lambda pid: (-times[pid], pid)), _PALETTE, strict=False))


def _lane(top: int, name: str, columns: list[list[_Stripe]]) -> list[str]:
    parts = [text(16, top + _LANE / 2 + 4, name, "", size=13, weight="bold")]
    start = 0
    for stripes, alike in groupby(columns):
        end = start + len(list(alike))
        parts += [_rect(start, end, top, stripe) for stripe in stripes]
        start = end
    box = f'<rect x="{_LEFT}" y="{top}" width="{len(columns) * _COLUMN}" height="{_LANE}"'
    return [*parts, f'{box} fill="none" stroke="#000000"/>']


def _stripes(owners: dict[int, list[int]], colours: dict[int, str], width: int) -> list[_Stripe]:
    """Return a column's stripes from the bottom up: the threads in the order of the legend."""
    shares: dict[tuple[str, bool], int] = {}
    order = [*colours, *sorted(set(owners) - set(colours))]
    for pid in order:
        for pale, time in zip((False, True), owners.get(pid, [0, 0]), strict=True):
            key = colours.get(pid, _OTHERS), pale
            shares[key] = shares.get(key, 0) + time
    stripes, at = [], 0
    for (colour, pale), time in shares.items():
        low, at = at, at + time
        edges = round(low * _STEPS / width), round(at * _STEPS / width)
        if edges[0] < edges[1]:
            stripes.append(_Stripe(*edges, colour, pale))
    return stripes


def _rect(start: int, end: int, top: int, stripe: _Stripe) -> str:
    step = _LANE // _STEPS
    place = f'x="{_LEFT + start * _COLUMN}" y="{top + _LANE - stripe.high * step}"'
    size = f'width="{(end - start) * _COLUMN}" height="{(stripe.high - stripe.low) * step}"'
    opacity = ' fill-opacity="0.4"' if stripe.pale else ""
    return f'<rect {place} {size} fill="{stripe.colour}"{opacity}/>'


def _legend(top: int, told: Told, colours: dict[int, str]) -> list[str]:
    parts, x = [], 16
    names = {pid: f"{printable(told.name(pid)) or 'thread'} ({pid})" for pid in colours}
    entries = [(colours[pid], name) for pid, name in names.items()]
    if any(owner.pid not in colours for owner in told.owners):
        entries.append((_OTHERS, "others"))
    for colour, name in entries:
        parts.append(f'<rect x="{x}" y="{top}" width="14" height="14" fill="{colour}" stroke="#000000"/>')
        parts.append(text(x + 20, top + 12, name, "", size=12))
        x += 44 + 7 * len(name)
    return parts
