"""What the readers of XSAVE images say to each thread's, as a table and as a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fpstate.isa import Rule
from fpstate.isa.header import named
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.decode import finding_document, finding_lines, title
from fpstate.report.explain import broken, fault_text
from fpstate.report.tables import bold, table, warn, wrapped
from fpstate.sources.decoded import Decoded
from fpstate.sources.placement import Placed
from fpstate.sources.verdicts import Answer, Hearing
from fpstate.xfeatures import CATALOGUE

__all__ = ["Heard", "document", "text"]

Heard = tuple[Placed, Hearing]
"""A thread, and what was said to its image."""


class _Told(NamedTuple):
    """An answer in words: what happens, why, and the rule with its place where one is broken."""

    outcome: str
    effect: str
    why: str
    rule: Rule | None = None
    bit: int | None = None
    offset: int | None = None


def _told(answer: Answer, hearing: Hearing) -> _Told:
    if answer.refusal is not None:
        return _Told("cannot tell", "cannot tell", str(answer.refusal))
    if answer.finding is not None:
        found, catalogue = answer.finding, CATALOGUE if hearing.processor is None else hearing.processor.cpu.catalogue
        outcome = "fx-only" if found.effect == "fx-only" else "refused"
        why = named(found.detail, found.bit, found.offset, catalogue)
        return _Told(outcome, found.effect, why, found.rule, found.bit, found.offset)
    if answer.verdict is None:
        return _Told("accepted", "accepted", f"under {hearing.policy.name}")
    verdict = answer.verdict
    names = verdict.processor.cpu.catalogue.names
    if verdict.fault is None:
        return _Told("runs", "runs", f"loads {names(verdict.loaded)}, initialises {names(verdict.initialised)}")
    fault = verdict.fault
    vector, detail = fault_text(fault, verdict.processor)
    return _Told("faults", vector, detail, fault.rule, fault.bit, fault.offset)


def document(decoded: Decoded, heard: Iterable[Heard]) -> Document:
    """Return the answers of every reader to every thread in *heard*."""
    return {
        "schema": SCHEMA,
        "source": decoded.capture.source,
        "kind": decoded.capture.kind,
        "threads": [_thread(placed, hearing) for placed, hearing in heard],
        "findings": [finding_document(finding) for finding in decoded.findings],
    }


def _thread(placed: Placed, hearing: Hearing) -> Document:
    p = hearing.processor
    return {
        "tid": placed.thread.tid,
        "format": placed.format,
        "cpu": None if p is None else p.cpu.name,
        "xcr0": None if p is None else hexmask(p.xcr0),
        "xss": None if p is None else hexmask(p.xss),
        "policy": hearing.policy.name,
        "features": None if hearing.features is None else hexmask(hearing.features),
        "readers": [_reader(answer, hearing) for answer in hearing.answers],
    }


def _reader(answer: Answer, hearing: Hearing) -> Document:
    told = _told(answer, hearing)
    rule = None if told.rule is None else broken(told.rule, told.why, told.bit, told.offset)
    return {
        "reader": answer.reader,
        "outcome": told.outcome,
        "effect": None if told.rule is None else told.effect,
        "why": told.why,
        "broken": rule,
    }


def text(decoded: Decoded, heard: Sequence[Heard]) -> str:
    """Return a table of answers for each thread in *heard*, those with the same answers once."""
    groups: dict[str, list[Placed]] = {}
    for placed, hearing in heard:
        groups.setdefault(_answers(placed, hearing), []).append(placed)
    parts = [title(decoded, [placed for placed, _ in heard])]
    parts += [f"{bold(_whose(threads))}\n{answers}" for answers, threads in groups.items()]
    if decoded.findings:
        parts.append("\n".join(finding_lines(decoded)))
    return "\n\n".join(parts)


_MOST_TIDS = 12


def _whose(threads: Sequence[Placed]) -> str:
    if len(threads) == 1 and threads[0].thread.tid is None:
        return threads[0].thread.name or "state"
    tids = ["?" if placed.thread.tid is None else str(placed.thread.tid) for placed in threads]
    more = f" and {len(tids) - _MOST_TIDS} more" if len(tids) > _MOST_TIDS else ""
    return f"thread{'s' if len(tids) > 1 else ''} {', '.join(tids[:_MOST_TIDS])}{more}"


def _answers(placed: Placed, hearing: Hearing) -> str:
    """Return the machine that is asked, the table, and the rules that are broken."""
    if not hearing.answers:
        return f"{placed.format}: no instruction or request that fpstate models reads this form"
    rows, rules = [], {}
    for answer in hearing.answers:
        told = _told(answer, hearing)
        effect = told.effect if told.rule is None else warn(told.effect)
        where = "" if told.offset is None else str(told.offset)
        rows.append([answer.reader, effect, "" if told.rule is None else told.rule.id, where, told.why])
        if told.rule is not None:
            rules[told.rule.id] = told.rule
    found = table(("reader", "verdict", "rule", "byte", "why"), rows, right=(3,))
    listed = [wrapped(f"{rule.id}: {rule.text}{f'; {rule.cure}' if rule.cure else ''}") for rule in rules.values()]
    return "\n".join([_asked(placed, hearing), "", found, *(["", *listed] if listed else [])])


def _asked(placed: Placed, hearing: Hearing) -> str:
    p = hearing.processor
    size = f"{placed.format}, {len(placed.thread.image)} bytes"
    if p is None:
        return size
    asked = f"{size}; XCR0 {p.xcr0:#x}, {hearing.policy.name}"
    if hearing.features is None:
        return asked
    return f"{asked}, user features {hearing.features:#x} {p.cpu.catalogue.names(hearing.features)}"
