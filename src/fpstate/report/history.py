"""What the verifier says to the bugs of history, as text and as a document."""

from __future__ import annotations

from collections.abc import Sequence

from fpstate.report import SCHEMA, Document
from fpstate.report.tables import bold, table, warn, wrapped
from fpstate.verify.history import OUTSIDE, Result
from fpstate.verify.result import Run, Taken
from fpstate.verify.story import context_name, tell

__all__ = ["document", "text"]


def document(results: Sequence[Result]) -> Document:
    """Return the bugs, and those that the model cannot show."""
    return {
        "schema": SCHEMA,
        "bugs": [_bug(result) for result in results],
        "outside": [{"id": o.id, "cve": o.cve, "commits": list(o.commits), "why": o.why} for o in OUTSIDE.values()],
    }


def _bug(result: Result) -> Document:
    bug = result.bug
    return {
        "id": bug.id,
        "title": bug.title,
        "cve": bug.cve,
        "commits": list(bug.commits),
        "fixed_in": bug.fixed_in,
        "function": bug.function,
        "symptom": bug.symptom,
        "fix": bug.fix,
        "sure": bug.sure,
        "found": result.found,
        "properties": list(result.broken),
        "reason": result.reason,
        "states": result.states,
        "seconds": round(result.seconds, 3),
        "steps": [
            {"step": told.step, **told.arguments, "text": told.text, "changes": list(told.changes)}
            for told in (tell(_run(result), result.focus) if result.run else ())
        ],
    }


def _run(result: Result) -> Run:
    """Return the run in plain values."""
    run = result.run
    if run is None:
        return Run((), ())
    return Run(tuple(Taken(command.step, command.arguments) for command in run.commands), run.states)


def text(results: Sequence[Result]) -> str:
    """Return a table of many, the story of a single one."""
    if len(results) == 1:
        return _story(results[0])
    rows = [_row(result) for result in results]
    heading = ("bug", "CVE", "found by", "steps", "states", "seconds")
    missed = sum(not result.found for result in results)
    last = (
        f"{len(results) - missed} of {len(results)} bugs are found; {len(OUTSIDE)} more cannot be shown by the model."
    )
    return "\n\n".join((table(heading, rows, right=(3, 4, 5)), last))


def _row(result: Result) -> list[str]:
    found = ", ".join(result.broken) if result.found else warn("nothing")
    steps = str(len(result.run.commands)) if result.run else "-"
    return [result.bug.id, result.bug.cve, found, steps, f"{result.states:,}", f"{result.seconds:.1f}"]


def _story(result: Result) -> str:
    bug = result.bug
    facts = [
        ("found by", ", ".join(result.broken) or "nothing"),
        ("CVE", bug.cve or "none known"),
        ("commits", ", ".join(bug.commits) or "none"),
        ("fixed in", bug.fixed_in),
        ("function", bug.function),
        ("symptom", bug.symptom),
        ("fix", bug.fix),
        ("sure", bug.sure),
    ]
    parts = [bold(f"{bug.id}: {bug.title}"), table((), [[name, value] for name, value in facts])]
    if result.reason:
        parts.append(wrapped(result.reason))
    if result.run:
        lines = [f"how it is broken, for {context_name(result.focus)}:"]
        for number, told in enumerate(tell(_run(result), result.focus), 1):
            lines.append(f"  {number:>2}. {told.text}  [{told.step}]")
            lines += [f"        {change}" for change in told.changes]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
