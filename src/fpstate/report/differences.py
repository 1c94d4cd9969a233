"""What differs between two sources as text and as a document."""

from __future__ import annotations

from collections.abc import Sequence

from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.decode import finding_document, finding_lines
from fpstate.report.diff import fields, listed
from fpstate.report.tables import bold
from fpstate.sources.decoded import Decoded
from fpstate.sources.differences import Compared, ThreadDifference
from fpstate.sources.placement import Placed

__all__ = ["document", "text"]

_MOST_TIDS = 12
"""Numbers of threads that are listed before the rest is counted."""


def document(compared: Compared) -> Document:
    """Return every thread that both sources have, with what differs."""
    return {
        "schema": SCHEMA,
        "a": _source(compared.a),
        "b": _source(compared.b),
        "same": compared.same,
        "threads": [_thread(thread) for thread in compared.threads],
        "only_a": [placed.thread.tid for placed in compared.only_a],
        "only_b": [placed.thread.tid for placed in compared.only_b],
    }


def _source(decoded: Decoded) -> Document:
    findings = [finding_document(finding) for finding in decoded.findings]
    return {"source": decoded.capture.source, "kind": decoded.capture.kind, "findings": findings}


def _thread(thread: ThreadDifference) -> Document:
    only_a, only_b = thread.in_use
    return {
        "a": _header(thread.a),
        "b": _header(thread.b),
        "same": thread.same,
        **fields(thread.registers),
        "values": {name: {"a": hexmask(a), "b": hexmask(b)} for name, (a, b) in thread.values.items()},
        "in_use_in_a_only": hexmask(only_a),
        "in_use_in_b_only": hexmask(only_b),
        "not_compared": hexmask(thread.uncompared),
    }


def _header(placed: Placed) -> Document:
    bv, comp = placed.xstate_bv, placed.xcomp_bv
    return {
        "tid": placed.thread.tid,
        "format": placed.format,
        "xstate_bv": None if bv is None else hexmask(bv),
        "xcomp_bv": None if comp is None else hexmask(comp),
    }


def text(compared: Compared) -> str:
    """Return a part for each thread that differs, or whose XSTATE_BV does; those that agree are counted."""
    parts = [f"{label} {_title(decoded)}" for label, decoded in (("A", compared.a), ("B", compared.b))]
    parts = ["\n".join(parts)]
    quiet = []
    for thread in compared.threads:
        if thread.same and not _remarks(thread):
            quiet.append(_pair(thread))
        else:
            parts.append(_part(thread))
    if quiet:
        parts.append(f"the same state: {_listed(quiet)}")
    for label, only in (("A", compared.only_a), ("B", compared.only_b)):
        if only:
            parts.append(f"in {label} alone: {_listed([_number(placed) for placed in only])}")
    for label, decoded in (("A", compared.a), ("B", compared.b)):
        if decoded.findings:
            parts.append("\n".join(f"{label}: {line}" for line in finding_lines(decoded)))
    return "\n\n".join(parts)


def _title(decoded: Decoded) -> str:
    count = len(decoded.threads)
    return f"{decoded.capture.source}: {decoded.capture.kind}, {count} thread{'' if count == 1 else 's'}"


def _listed(tids: Sequence[str]) -> str:
    more = f" and {len(tids) - _MOST_TIDS} more" if len(tids) > _MOST_TIDS else ""
    return f"thread{'' if len(tids) == 1 else 's'} {', '.join(tids[:_MOST_TIDS])}{more}"


def _number(placed: Placed) -> str:
    return "without a number" if placed.thread.tid is None else str(placed.thread.tid)


def _pair(thread: ThreadDifference) -> str:
    a, b = _number(thread.a), _number(thread.b)
    return a if a == b else f"{a} (B: {b})"


def _part(thread: ThreadDifference) -> str:
    rows = [bold(f"thread {_pair(thread)}"), *_remarks(thread)]
    if thread.registers and thread.a.image is not None:
        rows.append(listed(thread.a.image, thread.registers))
    rows += [f"{name}: {x:#x} in A, {y:#x} in B" for name, (x, y) in thread.values.items()]
    if thread.same:
        rows.append("the same values")
    return "\n".join(rows)


def _remarks(thread: ThreadDifference) -> list[str]:
    """Return what else is to be known: where XSTATE_BV differs, and what was not compared."""
    names = thread.a.layout.caps.cpu.catalogue.names
    found = []
    for label, placed in (("A", thread.a), ("B", thread.b)):
        if placed.image is None:
            found.append(f"{label} has no state of it")
    for label, other, mask in (("A", "B", thread.in_use[0]), ("B", "A", thread.in_use[1])):
        differing, equal = mask & thread.differing, mask & ~thread.differing
        if differing:
            found.append(f"{names(differing)}: in use in {label}, initial in {other}")
        if equal:
            found.append(f"{names(equal)}: in use in {label}, initial in {other}, with the same values")
    if thread.uncompared:
        found.append(f"{names(thread.uncompared)}: not compared, one of the two does not hold it")
    return found
