"""An image as an SVG picture: where each component lies in standard format, and below it in compacted format.

In use: filled.  In its initial configuration: outlined.  Bytes that are nobody's: hatched.  Below the pictures stands
every piece with its offset and size.  Colours follow the reader's light or dark scheme; the same image always gives the
same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from fpstate.errors import CannotTell
from fpstate.image import Image
from fpstate.layout import Layout, compacted, standard
from fpstate.report.svg import document, escaped, text
from fpstate.xfeatures import HEADER_SIZE, LEGACY, LEGACY_PLACES, LEGACY_SIZE

__all__ = ["svg"]

_WIDTH: Final = 960
_LEFT: Final = 16
_BAR: Final = 46
_LINE: Final = 16
_LEAST: Final = 36.0
"""Pixels of the narrowest piece: eight bytes of PKRU beside eight kilobytes of tiles must still be seen."""
_LETTER: Final = 7.4
_STYLE: Final = """
  svg { color-scheme: light dark; background: #ffffff; color: #1a1a1a; font-family: Helvetica, Arial, sans-serif; }
  text { fill: currentColor; }
  rect { stroke: currentColor; stroke-width: 1; }
  .in-use { fill: #56b4e9; }
  .init { fill: none; }
  .fixed { fill: #bbbbbb; }
  .hole { fill: url(#hatch); }
  .name { fill: #000000; }
  path { stroke: currentColor; }
  @media (prefers-color-scheme: dark) {
    svg { background: #16181c; color: #e8e8e8; }
    .in-use { fill: #0072b2; }
    .fixed { fill: #555555; }
    .name { fill: #ffffff; }
  }
"""
"""Okabe and Ito's blues; text on a filled piece is black in light and white in dark, everywhere else the page's."""
_HATCH: Final = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path d="M0 0V6" stroke-width="1.2"/></pattern></defs>'
)
_STATES: Final = {
    "in-use": "in use",
    "init": "initial configuration",
    "hole": "nobody's",
    "fixed": "legacy region's other bytes, header",
}


class _Piece(NamedTuple):
    """A run of bytes: of a component, of the image's frame, or nobody's."""

    offset: int
    size: int
    name: str
    state: str


def svg(image: Image) -> str:
    """Return the picture of *image*: its own format, and what the other would be for the same components.

    A format that cannot be told (a component's standard offset is not known) is left out, with the reason in its place.
    """
    return _Picture(image).draw()


def _pieces(image: Image, layout: Layout) -> list[_Piece]:
    """Return the runs of bytes of *layout*, ascending."""
    end = sum(LEGACY_PLACES[1])  # of XMM15
    found = [
        _Piece(end, LEGACY_SIZE - end, "reserved, software", "fixed"),
        _Piece(LEGACY_SIZE, HEADER_SIZE, "header", "fixed"),
    ]
    for slot in layout.slots:
        state = "in-use" if image.xstate_bv >> slot.bit & 1 else "init"
        found.append(_Piece(slot.offset, slot.size, slot.name, state))
    found += [_Piece(hole.offset, hole.size, hole.why, "hole") for hole in layout.holes]
    return sorted(found)


def _scaled(pieces: list[_Piece], width: float) -> list[float]:
    """Return the left edges of *pieces*, and the right edge of the last: to scale, but none narrower than `_LEAST`."""
    total = sum(piece.size for piece in pieces)
    spare = max(width - _LEAST * len(pieces), 0.0)
    edges = [float(_LEFT)]
    for piece in pieces:
        edges.append(edges[-1] + _LEAST + spare * piece.size / total)
    return [round(edge, 1) for edge in edges]


@dataclass(slots=True)
class _Picture:
    """The picture in the making."""

    image: Image
    parts: list[str] = field(default_factory=list)

    def draw(self) -> str:
        image = self.image
        cpu = image.caps.cpu
        title = f"XSAVE image, {image.format} format, {len(image.data)} bytes, as {cpu.name} lays it out"
        self._text(_LEFT, 24, title, size=15, weight="bold")
        self._text(_LEFT, 42, f"XSTATE_BV {image.xstate_bv:#x}   XCOMP_BV {image.xcomp_bv:#x}", size=12)
        top = self._legend(58)
        for number, name in enumerate(("standard", "compacted")):
            top = self._format(name, top + 26 if number else top + 18)
        height = top + 12
        return document(_WIDTH, height, title, [f"<style>{_STYLE}</style>", _HATCH, *self.parts])

    def _format(self, name: str, top: int) -> int:
        """Draw one format from *top* on, and return where it ends."""
        image = self.image
        mask = image.components | LEGACY
        try:
            if name == "standard":
                layout = standard(image.caps.cpu, mask & image.caps.user)
            else:
                layout = compacted(image.caps.cpu, mask)
        except CannotTell as reason:
            self._text(_LEFT, top + 12, f"{name} format cannot be told: {reason}", size=12)
            return top + 20
        own = "this image" if image.format == name else "the same components"
        self._text(_LEFT, top + 12, f"{name} format, {layout.size} bytes: {own}", size=13, weight="bold")
        pieces = _pieces(image, layout)
        edges = _scaled(pieces, _WIDTH - 2 * _LEFT)
        for piece, (left, right) in zip(pieces, pairwise(edges), strict=True):
            self._box(piece, left, right, top + 22)
        return self._listed(pieces, top + 22 + _BAR + 24)

    def _box(self, piece: _Piece, left: float, right: float, top: int) -> None:
        width = round(right - left, 1)
        words = escaped(f"{piece.name}: {piece.size} bytes at {piece.offset}, {_STATES[piece.state]}")
        shape = f'<rect class="{piece.state}" x="{left}" y="{top}" width="{width}" height="{_BAR}">'
        self.parts.append(f"{shape}<title>{words}</title></rect>")
        if piece.state != "hole" and len(piece.name) * _LETTER < width:
            css = "name" if piece.state in {"in-use", "fixed"} else ""
            self._text(left + width / 2, top + _BAR / 2 + 4, piece.name, size=11, anchor="middle", css=css)
        if width > 5 * _LETTER:
            self._text(left, top + _BAR + 12, str(piece.offset), size=10)

    def _listed(self, pieces: list[_Piece], top: int) -> int:
        """Write offset, size, name and state of every piece, a line each; return where they end."""
        for row, piece in enumerate(pieces):
            y = top + 12 + row * _LINE
            self._text(_LEFT + 50, y, str(piece.offset), size=11, anchor="end")
            self._text(_LEFT + 110, y, str(piece.size), size=11, anchor="end")
            words = piece.name if piece.state == "fixed" else f"{piece.name}: {_STATES[piece.state]}"
            self._text(_LEFT + 124, y, words, size=11)
        return top + len(pieces) * _LINE

    def _legend(self, top: int) -> int:
        x = float(_LEFT)
        for state, words in _STATES.items():
            self.parts.append(f'<rect class="{state}" x="{x}" y="{top}" width="14" height="14"/>')
            self._text(x + 20, top + 11, words, size=11)
            x = round(x + 44 + 6 * len(words), 1)
        return top + 14

    def _text(
        self, x: float, y: float, words: str, *, size: int, weight: str = "normal", anchor: str = "start", css: str = ""
    ) -> None:
        named = f'class="{css}"' if css else ""
        self.parts.append(text(x, y, words, named, size=size, weight=weight, anchor=anchor))
