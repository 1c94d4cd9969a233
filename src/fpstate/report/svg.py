"""What every SVG picture is made of: its frame, its text, and words as XML can hold them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fpstate.errors import printable

__all__ = ["document", "escaped", "text"]


def escaped(words: str) -> str:
    """Return *words* as XML can hold them: names of CPUs, files and policies may have characters that it cannot."""
    return escape(printable(words))


def text(
    x: float, y: float, words: str, attributes: str, *, size: int, weight: str = "normal", anchor: str = "start"
) -> str:
    """Return *words* at a place; *attributes* are further ones."""
    style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
    return f'<text x="{round(x, 1)}" y="{round(y, 1)}" {style}{attributes and " " + attributes}>{escaped(words)}</text>'


def document(width: int, height: float, title: str, parts: Iterable[str], attributes: str = "") -> str:
    """Return the picture of *parts*; *attributes* are further ones of the outermost element."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"{attributes and " " + attributes} role="img">'
    )
    return "\n".join([head, f"<title>{escaped(title)}</title>", *parts, "</svg>", ""])
