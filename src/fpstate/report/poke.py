"""What was written to a thread, as text and as a document."""

from __future__ import annotations

from fpstate.linux.poke import Poke
from fpstate.report import SCHEMA, Document
from fpstate.report.tables import table

__all__ = ["document", "text"]


def document(done: Poke) -> Document:
    """Return the registers named with their old and new values, and what reads back otherwise."""
    return {
        "schema": SCHEMA,
        "tid": done.tid,
        "written": done.written,
        "stopped_us": max(done.stopped_ns // 1000, 1),
        "changes": [
            {"register": register.name, "old": register.format(old), "new": register.format(new)}
            for register, old, new in done.changes
        ],
        "differences": [
            {"register": register.name, "written": register.format(a), "read": register.format(b)}
            for register, a, b in done.differences
        ],
        "notes": list(done.remarks),
    }


def text(done: Poke) -> str:
    """Return the same as tables."""
    did = "written and read back" if done.written else "not written: a rehearsal"
    rows = [[register.name, register.format(old), register.format(new)] for register, old, new in done.changes]
    parts = [
        f"thread {done.tid}, {did}; it was stopped for {max(done.stopped_ns // 1000, 1)} microseconds",
        table(("register", "old", "new"), rows),
    ]
    if done.differences:
        rows = [[register.name, register.format(a), register.format(b)] for register, a, b in done.differences]
        parts.append("The kernel keeps something else:\n" + table(("register", "written", "read"), rows))
    return "\n\n".join([*parts, *done.remarks])
