"""Findings as text and as a document."""

from __future__ import annotations

from fpstate.cpu.model import Cpu
from fpstate.linux.lint import Report
from fpstate.linux.policy import Policy
from fpstate.report import SCHEMA, Document
from fpstate.report.tables import bold, warn

__all__ = ["document", "text"]


def document(policy: Policy, cpus: list[Cpu], reports: list[Report]) -> Document:
    """Return the findings of every CPU of the source, each with the CPU's name; *policy* is the Linux quoted."""
    return {
        "schema": SCHEMA,
        "policy": policy.name,
        "cpus": [cpu.name for cpu in cpus],
        "findings": [
            {
                "cpu": cpu.name,
                "rule": finding.rule,
                "severity": finding.severity,
                "leaf": finding.leaf,
                "message": finding.message,
                "linux": finding.linux,
                "source": finding.source,
            }
            for cpu, report in zip(cpus, reports, strict=True)
            for finding in report.findings
        ],
        "unknown": [gap for report in reports for gap in report.unknown],
        "notes": [note for report in reports for note in report.notes] + [note for cpu in cpus for note in cpu.remarks],
    }


def text(policy: Policy, cpus: list[Cpu], reports: list[Report]) -> str:
    """Return the findings, one paragraph each, or one line that there are none."""
    parts = []
    for cpu, report in zip(cpus, reports, strict=True):
        lines = [
            f"{warn(f.severity)} {bold(f.leaf)}: {f.message} [{f.rule}]\n  Linux {f.linux}\n  ({f.source})"
            for f in report.findings
        ]
        if not lines:
            lines = ["leaf 0DH is consistent" if not report.unknown else "nothing wrong in what is shown"]
        lines += [f"not shown: {gap}" for gap in report.unknown]
        lines += [f"note: {note}" for note in (*report.notes, *cpu.remarks)]
        parts.append("\n".join([f"{bold(cpu.name)}, held against {policy.name}", *lines]))
    if len(cpus) > 1:
        wrong = [cpu.name for cpu, report in zip(cpus, reports, strict=True) if report.findings]
        parts.append(f"{len(cpus)} CPUs, findings on {len(wrong)}{': ' if wrong else ''}{', '.join(wrong)}")
    return "\n\n".join(parts)
