"""Verdicts on an image as text and as a document."""

from __future__ import annotations

from typing import NamedTuple

from fpstate.isa import Fault, Processor, Rule
from fpstate.isa.header import component_of, named
from fpstate.isa.verdict import Verdict
from fpstate.linux.copyin import Finding
from fpstate.linux.policy import Policy
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.tables import bold, table, warn

__all__ = ["broken", "document", "fault_text", "finding_document", "finding_text", "text"]


def document(verdict: Verdict) -> Document:
    """Return what the instruction does, or why it faults."""
    p = verdict.processor
    names = p.cpu.catalogue.names
    return {
        "schema": SCHEMA,
        "op": verdict.op,
        **_machine(p),
        "rfbm": hexmask(verdict.rfbm),
        "xstate_bv": hexmask(verdict.xstate_bv),
        "xcomp_bv": hexmask(verdict.xcomp_bv),
        "format": "compacted" if verdict.compacted else "standard",
        "outcome": "faults" if verdict.fault else "runs",
        "loaded": None if verdict.fault else names(verdict.loaded),
        "initialised": None if verdict.fault else names(verdict.initialised),
        "fault": None if verdict.fault is None else _fault(verdict.fault, p),
    }


def _machine(p: Processor) -> Document:
    return {
        "cpu": p.cpu.name,
        "source": p.cpu.source,
        "profile": p.profile.name,
        "xcr0": hexmask(p.xcr0),
        "xss": hexmask(p.xss),
        "xfd": hexmask(p.xfd),
    }


def _fault(fault: Fault, p: Processor) -> Document:
    return {
        "vector": fault.vector,
        "error_code": fault.error_code,
        **broken(fault.rule, fault.detail, fault.bit, fault.offset),
        "component": _component(fault, p),
    }


def _component(fault: Fault, p: Processor) -> str | None:
    """Return the name of the component that a bit of a mask stands for."""
    bit = component_of(fault.bit, fault.offset)
    return None if bit is None else p.cpu.catalogue.name(bit)


def broken(rule: Rule, detail: str, bit: int | None, offset: int | None) -> Document:
    """Return a rule, what was found, and where: *bit* of a field, *offset* bytes from the start of the image."""
    return {
        "rule": rule.id,
        "text": rule.text,
        "detail": detail,
        "bit": bit,
        "offset": offset,
        "source": rule.source,
        "cure": rule.cure or None,
    }


def text(verdict: Verdict) -> str:
    """Return the verdict as a short table."""
    p = verdict.processor
    names = p.cpu.catalogue.names
    head = f"{bold(verdict.op.upper())} on {p.cpu.name}, XCR0 {p.xcr0:#x}, IA32_XSS {p.xss:#x}, RFBM {verdict.rfbm:#x}"
    if verdict.fault is None:
        rows = [["loads", names(verdict.loaded)], ["initialises", names(verdict.initialised)]]
        return f"{head}\nruns\n{_indented(rows)}"
    fault = verdict.fault
    vector, detail = fault_text(fault, p)
    return f"{head}\n{warn(f'faults: {vector}')}\n{_indented(_rows(fault.rule, detail, fault.bit, fault.offset))}"


def fault_text(fault: Fault, p: Processor) -> tuple[str, str]:
    """Return the vector with its error code, and what was found, with the component that a bit stands for."""
    code = "" if fault.error_code is None else f"({fault.error_code})"
    return f"{fault.vector}{code}", named(fault.detail, fault.bit, fault.offset, p.cpu.catalogue)


def _rows(rule: Rule, detail: str, bit: int | None, offset: int | None) -> list[list[str]]:
    rows = [["found", detail], ["rule", f"{rule.text} ({rule.id})"]]
    if bit is not None:
        rows.append(["bit", str(bit)])
    if offset is not None:
        rows.append(["byte", f"{offset} of the image"])
    rows.append(["source", rule.source])
    if rule.cure:
        rows.append(["cure", rule.cure])
    return rows


def _indented(rows: list[list[str]]) -> str:
    return "\n".join(f"  {line}" for line in table((), rows).splitlines())


class Question(NamedTuple):
    """What the kernel was asked: a *way* in, for a task or vCPU with the user *features*."""

    processor: Processor
    way: str
    policy: Policy
    features: int
    image: bytes

    @property
    def fields(self) -> tuple[int, int]:
        """XSTATE_BV and XCOMP_BV, 0 where the image ends before them."""
        return int.from_bytes(self.image[512:520], "little"), int.from_bytes(self.image[520:528], "little")


def finding_document(question: Question, finding: Finding | None) -> Document:
    """Return what the kernel does with the image."""
    xstate_bv, xcomp_bv = question.fields
    return {
        "schema": SCHEMA,
        "op": question.way,
        **_machine(question.processor),
        "policy": question.policy.name,
        "features": hexmask(question.features),
        "size": len(question.image),
        "xstate_bv": hexmask(xstate_bv),
        "xcomp_bv": hexmask(xcomp_bv),
        "outcome": "accepted" if finding is None else "fx-only" if finding.effect == "fx-only" else "refused",
        "effect": None if finding is None else finding.effect,
        "finding": None if finding is None else broken(finding.rule, finding.detail, finding.bit, finding.offset),
    }


def finding_text(question: Question, finding: Finding | None) -> str:
    """Return the same as a short table."""
    cpu = question.processor.cpu
    head = (
        f"{bold(question.way)} under {question.policy.name} on {cpu.name}, "
        f"user features {question.features:#x} {cpu.catalogue.names(question.features)}"
    )
    if finding is None:
        return f"{head}\naccepted: XSTATE_BV {question.fields[0]:#x} {cpu.catalogue.names(question.fields[0])}"
    detail = named(finding.detail, finding.bit, finding.offset, cpu.catalogue)
    rows = _rows(finding.rule, detail, finding.bit, finding.offset)
    rows = [[name, f"Linux, {cell}" if name == "source" else cell] for name, cell in rows]
    return f"{head}\n{warn(finding.effect)}\n{_indented(rows)}"
