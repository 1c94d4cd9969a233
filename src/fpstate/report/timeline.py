"""A scenario as an SVG picture: one lane a CPU, its colour whose state is in the registers, and a mark for each step.

A lane is as many stripes as contexts have values in the registers, each as high as its share of the components: one
guest-only component left behind shows as a thin stripe.  White is the initial configuration; a pale stripe is a value
that its owner has replaced.  The same scenario always gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fpstate.linux.machine import Event
from fpstate.linux.machine.event import CpuState
from fpstate.linux.scenario import Outcome
from fpstate.report.svg import document, escaped, text

__all__ = ["svg"]

_LEFT: Final = 70
_COLUMN: Final = 46
_LANE: Final = 56
_GAP: Final = 42
_TOP: Final = 66
_LINE: Final = 17
_PALETTE: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8c6bb1")
"""Okabe and Ito's colours, which colour-blind readers tell apart, and one more."""
_FIXED: Final = {"initial": "#ffffff", "default": "#eeeeee", "the kernel": "#777777", "torn": "#000000"}
_RED: Final = "#c00000"
_PALE: Final = "0.4"
_FONT: Final = 'font-family="Helvetica, Arial, sans-serif"'


def svg(outcome: Outcome) -> str:
    """Return the picture."""
    return _Picture(outcome).draw()


def _base(whose: str) -> tuple[str, bool]:
    """Return whose value it is, and whether it is out of date."""
    for ending in (" (old)", " (gone)"):
        if whose.endswith(ending):
            return whose.removesuffix(ending), True
    return whose, False


@dataclass(slots=True)
class _Picture:
    """The picture in the making."""

    outcome: Outcome
    parts: list[str] = field(default_factory=list)

    def draw(self) -> str:
        outcome = self.outcome
        events, scenario = outcome.events, outcome.scenario
        owners = self._owners()
        colours = {owner: _PALETTE[i % len(_PALETTE)] for i, owner in enumerate(owners)} | _FIXED
        machine = outcome.machine
        lanes = _TOP + scenario.cpus * (_LANE + _GAP)
        listed = self._listed()
        columns = max(len(events), 1)
        longest = max((len(words) for words, _ in listed), default=0)
        width = max(_LEFT + columns * _COLUMN + 20, int(longest * 7.2) + 60, 640)
        height = lanes + 60 + len(listed) * _LINE
        title = scenario.title or scenario.name
        self._text(16, 24, title, size=16, weight="bold")
        self._text(16, 44, f"{machine.policy.name} on {machine.config.cpu.name}", size=12)
        for number in range(scenario.cpus):
            self._lane(number, colours)
        self._legend(lanes + 4, owners, colours)
        for row, (words, red) in enumerate(listed):
            self._text(16, lanes + 48 + row * _LINE, words, size=12, fill=_RED if red else "#000000")
        background = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        return document(width, height, title, [background, *self.parts], _FONT)

    def _owners(self) -> list[str]:
        """Return every context that ever has values in registers, in the order of their names."""
        found = set()
        for event in self.outcome.events:
            for cpu in event.state.cpus if event.state is not None else ():
                found |= {_base(whose)[0] for whose, _ in cpu.registers}
        return sorted(found - set(_FIXED))

    def _listed(self) -> list[tuple[str, bool]]:
        """Return the lines below the lanes, and which of them are findings."""
        lines = []
        for index, (event, planned) in enumerate(zip(self.outcome.events, self.outcome.planned, strict=True), 1):
            note = f"  - {planned.note}" if planned is not None and planned.note else ""
            lines.append((f"{index}. {event.step} {event.arguments}{note}", False))
            lines += [(f"     {f.property}: {f.text}", True) for f in event.findings]
        return lines

    def _lane(self, number: int, colours: dict[str, str]) -> None:
        top = _TOP + number * (_LANE + _GAP) + _GAP
        self._text(16, top + _LANE / 2 + 4, f"CPU {number}", size=13, weight="bold")
        events = self.outcome.events
        for index, event in enumerate(events):
            if event.state is None:
                continue
            left = _LEFT + index * _COLUMN
            cpu = event.state.cpus[number]
            self._stripes(left, top, cpu, colours)
            if index == 0 or _runs(events[index - 1], number) != _runs(event, number):
                context, mode = _runs(event, number)
                self._text(left + 2, top - 15, context, size=10, fill="#444444")
                self._text(left + 2, top - 4, mode, size=10, fill="#444444")
                self._line(left, top - 24, top + _LANE, "#999999")
            if event.params.get("cpu", 0) == number:
                self._mark(left + _COLUMN / 2, top + _LANE / 2, index + 1, red=bool(event.findings))
        right = _LEFT + len(events) * _COLUMN
        box = f'<rect x="{_LEFT}" y="{top}" width="{right - _LEFT}" height="{_LANE}"'
        self.parts.append(f'{box} fill="none" stroke="#000000"/>')

    def _stripes(self, left: float, top: float, cpu: CpuState, colours: dict[str, str]) -> None:
        total = sum(mask.bit_count() for _, mask in cpu.registers)
        at = 0
        for whose, mask in cpu.registers:
            base, pale = _base(whose)
            height = round(_LANE * (at + mask.bit_count()) / total, 1) - round(_LANE * at / total, 1)
            y = round(top + round(_LANE * at / total, 1), 1)
            opacity = f' fill-opacity="{_PALE}"' if pale else ""
            shape = f'<rect x="{left}" y="{y}" width="{_COLUMN}" height="{round(height, 1)}"'
            self.parts.append(f'{shape} fill="{colours[base]}"{opacity}><title>{escaped(whose)}</title></rect>')
            at += mask.bit_count()

    def _mark(self, x: float, y: float, number: int, *, red: bool) -> None:
        fill, ink = (_RED, "#ffffff") if red else ("#ffffff", "#000000")
        self.parts.append(f'<circle cx="{x}" cy="{y}" r="11" fill="{fill}" stroke="#000000"/>')
        self._text(x, y + 4, str(number), size=11, anchor="middle", fill=ink)

    def _legend(self, top: float, owners: list[str], colours: dict[str, str]) -> None:
        x = 16
        for name in (*owners, *(name for name in _FIXED if name in self._fixed())):
            box = f'<rect x="{x}" y="{top}" width="14" height="14" fill="{colours[name]}" stroke="#000000"/>'
            self.parts.append(box)
            self._text(x + 20, top + 12, name, size=12)
            x += 44 + 7 * len(name)

    def _fixed(self) -> set[str]:
        states = [event.state for event in self.outcome.events if event.state is not None]
        return {whose for state in states for cpu in state.cpus for whose, _ in cpu.registers}

    def _line(self, x: float, top: float, bottom: float, colour: str) -> None:
        self.parts.append(f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="{colour}"/>')

    def _text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int,
        weight: str = "normal",
        anchor: str = "start",
        fill: str = "#000000",
    ) -> None:
        further = f'xml:space="preserve" fill="{fill}"'
        self.parts.append(text(x, y, words, further, size=size, weight=weight, anchor=anchor))


def _runs(event: Event, number: int) -> tuple[str, str]:
    """Return in words what CPU *number* runs after *event*, and in which mode."""
    if event.state is None:
        return "", ""
    current = event.state.cpus[number].current
    if current is None:
        return "idle", ""
    mode = event.state.tasks[current].mode
    return (f"guest {current}", "") if mode == "guest" else (f"task {current}", mode)
