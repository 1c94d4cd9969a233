"""A verification as a document and as text; the text is made of the document, which may be one that was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fpstate.report import SCHEMA, Document
from fpstate.report.tables import bold, table, warn, wrapped
from fpstate.verify.check import Finding, Report
from fpstate.verify.properties import CLASSES, PROPERTIES
from fpstate.verify.question import Shape
from fpstate.verify.result import Failure
from fpstate.verify.story import context_name, tell

__all__ = ["document", "invariant_text", "text"]


def document(report: Report) -> Document:
    """Return the verdict on one policy."""
    names = report.cpu.catalogue
    return {
        "schema": SCHEMA,
        "policy": report.policy.name,
        "title": report.policy.title,
        "cpu": report.cpu.name,
        "verdict": report.verdict,
        "assumptions": asdict(report.assumptions),
        "needs": report.needs,
        "shape": _shape(report.shape),
        "components": {kind: names.name(bit) for kind, bit in report.classes.items()},
        "properties": [_property(finding) for finding in report.findings],
        "induction": [_failure(kind, f) for kind, failures in report.failures.items() for f in failures],
        "states": report.states,
        "memory": report.memory,
        "seconds": round(report.seconds, 3),
    }


def _shape(shape: Shape) -> Document:
    return {"cpus": shape.cpus, "tasks": shape.tasks, "vcpus": shape.vcpus}


def _property(finding: Finding) -> Document:
    known = PROPERTIES[finding.id]
    return {
        "id": finding.id,
        "text": known.text,
        "source": known.source,
        "verdict": finding.verdict,
        "method": _method(finding),
        "states": finding.states,
        "seconds": round(finding.seconds, 3),
        "needs": finding.needs,
        "component": finding.component or None,
        "claim": finding.claim or None,
        "reason": finding.reason or None,
        "counterexample": _counterexample(finding),
    }


def _method(finding: Finding) -> str:
    """Return what came to the verdict: where nothing was visited, no search did."""
    return "induction" if finding.verdict == "unknown" and not finding.states else finding.method


def _counterexample(finding: Finding) -> Document | None:
    if finding.run is None or finding.shape is None:
        return None
    return {
        "shape": _shape(finding.shape),
        "focus": context_name(finding.focus),
        "steps": [
            {"step": told.step, **told.arguments, "text": told.text, "changes": list(told.changes)}
            for told in tell(finding.run, finding.focus)
        ],
    }


def _failure(kind: str, failure: Failure) -> Document:
    return {
        "component": kind,
        "clause": failure.clause,
        "step": failure.step.step if failure.step else None,
        "arguments": dict(failure.step.arguments) if failure.step else {},
        "state": {name: value for name, value in failure.state.items() if value},
    }


def text(found: Document, *, stories: bool = True, induction: bool = False) -> str:
    """Return the verdict on one policy.

    Args:
        found: its document.
        stories: tell how each violated property is broken; properties that the same run breaks share it.
        induction: show the steps at which the induction does not go through.
    """
    rows = [_row(entry) for entry in found["properties"]]
    parts = [f"{bold(found['policy'])} on {found['cpu']}: {_coloured(found['verdict'])} ({found['title']})"]
    parts.append(table(("property", "verdict", "by", "what"), rows))
    if stories:
        parts += _stories(found["properties"])
    if induction:
        parts += [_failed(entry) for entry in found["induction"]]
    parts.append(_summary(found))
    return "\n\n".join(parts)


def _row(entry: Document) -> list[str]:
    what = entry["text"]
    if entry["verdict"] == "violated":
        what = entry["reason"] or f"{what}: not for {entry['component']}"
    needs = f" (needs {', '.join(entry['needs'])})" if entry["needs"] else ""
    return [entry["id"], _coloured(entry["verdict"]), entry["method"], f"{what}{needs}"]


def _coloured(verdict: str) -> str:
    return warn(verdict) if verdict in {"violated", "unknown"} else verdict


def _stories(properties: Sequence[Document]) -> list[str]:
    stories: dict[str, tuple[list[str], Document]] = {}
    for entry in properties:
        example = entry["counterexample"]
        if example is not None:
            told = repr([(step["step"], step.get("cpu"), step.get("task")) for step in example["steps"]])
            stories.setdefault(told, ([], example))[0].append(entry["claim"] or entry["id"])
    return [_story(claims, example) for claims, example in stories.values()]


def _story(claims: list[str], example: Document) -> str:
    shape = example["shape"]
    head = (
        f"how {', '.join(claims)} is broken, for {example['focus']} "
        f"({shape['cpus']} CPUs, {shape['tasks']} tasks, {shape['vcpus']} vCPUs):"
    )
    lines = [bold(head)]
    for i, step in enumerate(example["steps"], 1):
        lines.append(f"  {i:>2}. {step['text']}  [{step['step']}]")
        lines += [f"        {change}" for change in step["changes"]]
    return "\n".join(lines)


def _failed(entry: Document) -> str:
    where = f"step {entry['step']} {_arguments(entry['arguments'])}" if entry["step"] else "the initial state"
    state = ", ".join(f"{name}={value}" for name, value in entry["state"].items())
    head = f"the induction fails for {entry['component']} at clause {entry['clause']}, in {where}, from the state"
    return "\n".join((head, wrapped(state)))


def _arguments(arguments: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arguments.items())


def _summary(found: Document) -> str:
    shape = found["shape"]
    lines = [f"components: {', '.join(f'{kind} ({name})' for kind, name in found['components'].items())}"]
    taken = ", ".join(f"{name.replace('_', '-')} {'on' if on else 'off'}" for name, on in found["assumptions"].items())
    lines.append(f"assumed: {taken}")
    if found["needs"]:
        lines.append(f"of which the verdicts need: {', '.join(found['needs'])}")
    lines.append(
        f"visited: {found['states']:,} states of {shape['cpus']} CPUs, {shape['tasks']} tasks and {shape['vcpus']} "
        f"vCPUs, {found['memory'] / 2**20:.0f} MiB; {found['seconds']:.1f} s"
    )
    return "\n".join(lines)


def invariant_text(clauses: Sequence[tuple[str, str, Any]]) -> str:
    """Return the clauses of invariants: component class, name, condition."""
    lines: list[str] = []
    kind = ""
    for component, name, condition in clauses:
        if component != kind:
            kind = component
            text_of = next((c.text for c in CLASSES if component.startswith(c.name)), "")
            lines.append(("\n" if lines else "") + bold(f"{component}: {text_of}"))
        lines.append(f"  {name:<26} {condition}")
    return "\n".join(lines)
