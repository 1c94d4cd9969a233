"""Layouts as text and as a document."""

from __future__ import annotations

from fpstate.cpu.model import Cpu
from fpstate.errors import CannotTell
from fpstate.layout import Layout, Term, difference
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.tables import bold, table
from fpstate.xfeatures import LEGACY_SIZE

__all__ = ["difference_document", "difference_text", "document", "text"]

Pair = tuple[Layout | CannotTell, Layout]


def document(cpu: Cpu, mask: int, pair: Pair) -> Document:
    """Return the layouts of *mask* on *cpu*; ``standard.size`` is null where the source does not tell."""
    standard, compacted = pair
    return {
        "schema": SCHEMA,
        "cpu": cpu.name,
        "source": cpu.source,
        "mask": hexmask(mask),
        "names": cpu.catalogue.names(mask),
        "standard": _unknown(standard) if isinstance(standard, CannotTell) else _one(standard),
        "compacted": _one(compacted),
        "notes": [*_no_image(cpu), *cpu.remarks],
    }


def _no_image(cpu: Cpu) -> list[str]:
    """Say so if the CPU has no XSAVE, and so no image but FXSAVE's."""
    return [] if cpu.has_xsave else [f"{cpu.name} has no XSAVE: its only image is FXSAVE's, {LEGACY_SIZE} bytes"]


def _unknown(error: CannotTell) -> Document:
    return {"size": None, "mask": None, "components": [], "holes": [], "explain": None, "unknown": str(error)}


def _one(layout: Layout) -> Document:
    return {
        "size": layout.size,
        "mask": hexmask(layout.mask),
        "components": [
            {
                "bit": slot.bit,
                "name": slot.name,
                "offset": slot.offset,
                "size": slot.size,
                "padding": slot.padding,
                "origin": slot.origin,
            }
            for slot in layout.slots
        ],
        "holes": [{"offset": hole.offset, "size": hole.size, "why": hole.why} for hole in layout.holes],
        "explain": layout.explain(),
    }


def text(cpu: Cpu, mask: int, pair: Pair, *, explain: bool) -> str:
    """Return both layouts as tables, with the sum of each if *explain*."""
    parts = ["\n".join([f"{bold(cpu.name)}: {mask:#x} {cpu.catalogue.names(mask)}", *_no_image(cpu)])]
    for layout in pair:
        if isinstance(layout, CannotTell):
            parts.append(f"standard format: {layout}")
            continue
        parts.append(_table(layout))
        if explain:
            parts.append(layout.explain())
    if cpu.remarks:
        parts.append("\n".join(f"note: {remark}" for remark in cpu.remarks))
    return "\n\n".join(parts)


def _table(layout: Layout) -> str:
    rows: list[tuple[int, list[str]]] = [
        (slot.offset, [str(slot.offset), str(slot.size), str(slot.bit), slot.name, _remark(slot.origin)])
        for slot in layout.slots
    ]
    rows.append((512, ["512", "64", "", "header", ""]))
    rows += [(hole.offset, [str(hole.offset), str(hole.size), "", f"({hole.why})", ""]) for hole in layout.holes]
    cells = [row for _, row in sorted(rows, key=lambda r: r[0])]
    title = f"{layout.format} format, {layout.size} bytes"
    return f"{title}\n{table(('offset', 'size', 'bit', 'component', ''), cells, right=(0, 1, 2))}"


def _remark(origin: str) -> str:
    return "" if origin in {"cpuid", "boot log"} else origin


def difference_document(first: Layout, second: Layout) -> Document:
    """Return what leads from *first*'s size to *second*'s."""
    return {
        "from": first.size,
        "to": second.size,
        "difference": second.size - first.size,
        "terms": [{"size": term.size, "what": term.what} for term in difference(first, second)],
    }


def difference_text(first: Layout, second: Layout) -> str:
    """Return the difference of two sizes as one line of signed terms."""
    terms = difference(first, second)
    total = second.size - first.size
    parts = " ".join(_signed(term) for term in terms) or "the same components"
    return f"{second.format} format: {second.size} - {first.size} = {total:+d}: {parts}"


def _signed(term: Term) -> str:
    return f"{'+' if term.size > 0 else '-'} {abs(term.size)} {term.what}"
