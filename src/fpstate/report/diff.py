"""Differences of two images as text and as a document."""

from __future__ import annotations

from collections.abc import Sequence

from fpstate.image import Difference, Image
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.tables import table

__all__ = ["document", "fields", "listed", "text"]


def document(a: Image, b: Image, found: Sequence[Difference]) -> Document:
    """Return every register that differs, with both values."""
    return {"schema": SCHEMA, "a": _header(a), "b": _header(b), "same": not found, **fields(found)}


def fields(found: Sequence[Difference]) -> Document:
    """Return the components that differ, and each register with both values."""
    return {
        "components": _components(found),
        "registers": {d.register.name: {"a": d.register.format(d.a), "b": d.register.format(d.b)} for d in found},
    }


def _header(image: Image) -> Document:
    return {"format": image.format, "xstate_bv": hexmask(image.xstate_bv), "xcomp_bv": hexmask(image.xcomp_bv)}


def _components(found: Sequence[Difference]) -> str:
    """Return the mask of the components in whose bytes registers differ."""
    mask = 0
    for difference in found:
        mask |= difference.components
    return hexmask(mask)


def text(a: Image, b: Image, found: Sequence[Difference]) -> str:
    """Return a table of the registers that differ; long values show where they do."""
    if not found:
        return f"the same state; XSTATE_BV {a.xstate_bv:#x} and {b.xstate_bv:#x}"
    return listed(a, found)


def listed(a: Image, found: Sequence[Difference]) -> str:
    """Return the table of *found*; *a* tells the components' names."""
    names = a.caps.cpu.catalogue.names
    rows = [[d.register.name, names(d.components), *_values(d)] for d in found]
    return table(("register", "component", "A", "B"), rows)


_LONGEST = 64
"""Digits of a value that are shown whole."""


def _values(difference: Difference) -> tuple[str, str]:
    a, b = difference.register.format(difference.a), difference.register.format(difference.b)
    if len(a) <= _LONGEST:
        return a, b
    first = next(i for i, pair in enumerate(zip(difference.a, difference.b, strict=True)) if pair[0] != pair[1])
    start = first & ~15
    shown = [value[start : start + 16].hex() for value in (difference.a, difference.b)]
    return f"byte {start}: {shown[0]}...", f"byte {start}: {shown[1]}..."
