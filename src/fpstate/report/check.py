"""A prediction held against the running kernel, as text and as a document."""

from __future__ import annotations

from fpstate.linux.check import Check, Row, Seen
from fpstate.report import SCHEMA, Document, config, hexmask
from fpstate.report.tables import bold, table, warn

__all__ = ["document", "text"]


def document(check: Check) -> Document:
    """Return the configuration predicted and a row for each fact."""
    return {
        "schema": SCHEMA,
        "release": check.release,
        "remark": check.remark,
        "agrees": check.agrees,
        "rows": [
            {
                "fact": row.fact,
                "predicted": row.claim,
                "seen": list(row.seen) if isinstance(row.seen, tuple) else _plain(row),
                "agrees": row.agrees,
                "how": row.how,
                "why_not": row.why_not,
            }
            for row in check.rows
        ],
        "config": config.document(check.config),
    }


def _plain(row: Row) -> str | int | None:
    """Return what was seen as documents write it: masks as hex strings, sizes as numbers."""
    if isinstance(row.seen, int) and "0x" in row.claim:
        return hexmask(row.seen)
    return None if isinstance(row.seen, tuple) else row.seen


def text(check: Check) -> str:
    """Return one line a fact, and the boot lines that differ."""
    policy = check.config.policy
    parts = [f"{bold(f'kernel {check.release}')} held against {policy.name} ({policy.title})"]
    if check.remark:
        parts.append(f"note: {check.remark}")
    cells = [(row.fact, row.claim, _seen(row), _verdict(row), row.why_not or row.how) for row in check.rows]
    parts.append(table(("fact", "predicted", "seen", "", "read from"), cells))
    parts += [_line_difference(row, check.config.boot_log) for row in check.rows if row.fact == "boot_log"]
    read = sum(row.agrees is not None for row in check.rows)
    wrong = sum(row.agrees is False for row in check.rows)
    unread = len(check.rows) - read
    parts.append(f"{read - wrong} of {read} facts agree, {wrong} differ, {unread} could not be read")
    return "\n\n".join(part for part in parts if part)


def _seen(row: Row) -> str:
    return "-" if row.seen is None else _value(row.seen, row.claim)


def _value(seen: Seen, claim: str) -> str:
    if isinstance(seen, tuple):
        return f"{len(seen)} lines"
    if isinstance(seen, str):
        return seen.split()[0]
    return f"{seen:#x}" if "0x" in claim else str(seen)


def _verdict(row: Row) -> str:
    if row.agrees is None:
        return "not read"
    return "agrees" if row.agrees else warn("DIFFERS")


def _line_difference(row: Row, predicted: tuple[str, ...]) -> str:
    """Return the boot lines that only one side has, if both are known and they differ."""
    if not isinstance(row.seen, tuple) or row.agrees:
        return ""
    ours = [f"  predicted only: {line}" for line in predicted if line not in row.seen]
    theirs = [f"  seen only:      {line}" for line in row.seen if line not in predicted]
    return "\n".join([*ours, *theirs])
