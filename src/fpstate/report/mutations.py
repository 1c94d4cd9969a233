"""Which small mistakes in the kernel's functions go unnoticed, and why, as text and as a document."""

from __future__ import annotations

from collections import Counter

from fpstate.report import SCHEMA, Document
from fpstate.report.tables import bold, table, warn, wrapped
from fpstate.verify.mutate import Outcome, Tally
from fpstate.verify.properties import PROPERTIES, property_of

__all__ = ["document", "text"]

_NO_KERNEL = "no kernel any more"


def document(tally: Tally) -> Document:
    """Return the mutations, each with what became of it."""
    return {
        "schema": SCHEMA,
        "noticed": tally.killed,
        "equivalent": len(tally.equivalent),
        "outside": len(tally.outside),
        "unexplained": len(tally.unexplained),
        "mutations": [_mutation(outcome) for outcome in tally.outcomes],
    }


def _mutation(outcome: Outcome) -> Document:
    return {
        "id": outcome.mutation.id,
        "noticed": bool(outcome.killed_by),
        "claim": outcome.killed_by,
        "property": property_of(outcome.killed_by),
        "component": outcome.component,
        "because": outcome.why,
    }


def text(tally: Tally) -> str:
    """Return how many each property notices, and of the others why they go unnoticed."""
    parts = []
    if tally.killed:
        parts.append(table(("noticed by", "mutations"), _by_property(tally), right=(1,)))
    parts += _reasons(tally)
    if tally.unexplained:
        lines = "\n".join(f"  {outcome.mutation.id}" for outcome in tally.unexplained)
        parts.append(f"{warn('unnoticed, and nobody has said why:')}\n{lines}")
    counts = (
        f"{len(tally.outcomes)} mutations: {tally.killed} noticed, {len(tally.equivalent)} equivalent, "
        f"{len(tally.outside)} outside the properties, {len(tally.unexplained)} unexplained."
    )
    return "\n\n".join((*parts, counts))


def _by_property(tally: Tally) -> list[list[str]]:
    counts = Counter(property_of(outcome.killed_by) or _NO_KERNEL for outcome in tally.outcomes if outcome.killed_by)
    return [[name, str(counts[name])] for name in (*PROPERTIES, _NO_KERNEL) if counts[name]]


def _reasons(tally: Tally) -> list[str]:
    """Return a paragraph a reason, with the mutations of which it is true."""
    of_reason: dict[str, list[str]] = {}
    for outcome in (*tally.equivalent, *tally.outside):
        of_reason.setdefault(outcome.why, []).append(outcome.mutation.id)
    return ["\n".join((bold(f"unnoticed: {why}"), *map(wrapped, names))) for why, names in of_reason.items()]
