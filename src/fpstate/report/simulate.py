"""What came of a scenario, as text and as a document."""

from __future__ import annotations

from dataclasses import asdict

from fpstate.linux.machine import CALLS, KNOWN, Event, Finding, Instruction, State
from fpstate.linux.machine.event import Buffer, CpuState, Holding, TaskState
from fpstate.linux.scenario import Outcome, Scenario
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.tables import bold, table, warn, wrapped
from fpstate.verify.properties import PROPERTIES
from fpstate.xfeatures import Catalogue

__all__ = ["document", "list_document", "list_text", "steps_document", "steps_text", "text"]


def list_document(scenarios: dict[str, Scenario]) -> Document:
    """Return what scenarios there are."""
    return {
        "schema": SCHEMA,
        "scenarios": [
            {"name": s.name, "title": s.title, "text": s.text, "cpu": s.cpu, "policy": s.policy, "steps": len(s.steps)}
            for s in scenarios.values()
        ],
    }


def list_text(scenarios: dict[str, Scenario]) -> str:
    """Return the same as a table."""
    rows = [[s.name, str(len(s.steps)), s.cpu or "this host", s.title] for s in scenarios.values()]
    return table(("scenario", "steps", "CPU", ""), rows, right=(1,))


def steps_document() -> Document:
    """Return what can happen, and of calls what they are told."""
    return {
        "schema": SCHEMA,
        "steps": [
            {"name": step.name, "parameters": list(step.parameters), "call": step.name in CALLS, "text": step.text}
            for step in KNOWN.values()
        ],
    }


def steps_text() -> str:
    """Return the same as a table."""
    rows = [[step.name, " ".join(step.parameters), step.text.replace("*", "")] for step in KNOWN.values()]
    return table(("step or call", "takes", ""), rows)


# -- the document -----------------------------------------------------------------------------------------------------


def document(outcome: Outcome) -> Document:
    """Return every step, what it did, and the machine after it."""
    scenario, machine = outcome.scenario, outcome.machine
    surprises = dict(outcome.surprises())
    names = machine.config.cpu.catalogue
    return {
        "schema": SCHEMA,
        "scenario": scenario.name,
        "title": scenario.title,
        "text": scenario.text,
        "cpu": machine.config.cpu.name,
        "source": machine.config.cpu.source,
        "policy": machine.policy.name,
        "assumptions": asdict(scenario.assumptions),
        "shape": {"cpus": scenario.cpus, "tasks": scenario.tasks, "vcpus": scenario.vcpus},
        "findings": len(outcome.findings),
        "steps": [
            {
                "step": event.step,
                "params": event.params,
                "answer": str(event.answer) if event.answer is not None else None,
                "note": planned.note if planned is not None else "",
                "instructions": [_instruction(each) for each in event.instructions],
                "tracepoints": [str(each) for each in event.traces],
                "findings": [_finding(each, names) for each in event.findings],
                "expected_instead": list(surprises[index]) if index in surprises else None,
                "state": _state(event.state),
            }
            for index, (event, planned) in enumerate(zip(outcome.events, outcome.planned, strict=True))
        ],
        "final": _state(machine.state()),
    }


def _instruction(each: Instruction) -> Document:
    return {
        "cpu": each.cpu,
        "name": each.name,
        "operand": each.operand,
        "rfbm": hexmask(each.rfbm),
        "before": hexmask(each.before),
        "after": hexmask(each.after),
        "loaded": hexmask(each.loaded),
        "initialised": hexmask(each.initialised),
        "bytes": each.moved,
    }


def _finding(finding: Finding, catalogue: Catalogue) -> Document:
    return {
        "property": finding.property,
        "text": finding.text,
        "meaning": _meaning(finding),
        "context": finding.context or None,
        "components": catalogue.names(finding.components) if finding.components else None,
    }


def _meaning(finding: Finding) -> str | None:
    known = PROPERTIES.get(finding.property)
    return known.text if known is not None else None


def _state(state: State | None) -> Document | None:
    if state is None:
        return None
    return {
        "cpus": [_cpu(cpu) for cpu in state.cpus],
        "tasks": [asdict(task) for task in state.tasks],
        "buffers": [_buffer(buffer) for buffer in state.buffers],
    }


def _cpu(cpu: CpuState) -> Document:
    return {
        **{name: getattr(cpu, name) for name in ("number", "current", "owner", "kernel_fpu", "guest_xstate")},
        "xfd": hexmask(cpu.xfd),
        "xfd_state": hexmask(cpu.xfd_state),
        "registers": _holding(cpu.registers),
    }


def _buffer(buffer: Buffer) -> Document:
    masks = {name: hexmask(getattr(buffer, name)) for name in ("xfeatures", "xstate_bv", "xcomp_bv", "xfd")}
    return {"name": buffer.name, "size": buffer.size, **masks, "holds": _holding(buffer.holds)}


def _holding(holding: Holding) -> Document:
    return {whose: hexmask(mask) for whose, mask in holding}


# -- the text ---------------------------------------------------------------------------------------------------------


def text(outcome: Outcome) -> str:
    """Return a story: each step, its instructions, whose values are where, and what must not be."""
    scenario, machine = outcome.scenario, outcome.machine
    catalogue = machine.config.cpu.catalogue
    counts = (("CPU", scenario.cpus), ("task", scenario.tasks), ("vCPU", scenario.vcpus))
    shape = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts)
    head = f"{bold(scenario.title or scenario.name)}\n{machine.policy.name} on {machine.config.cpu.name}: {shape}"
    parts = [head]
    if scenario.text:
        parts.append(wrapped(scenario.text))
    surprises = dict(outcome.surprises())
    before: State | None = None
    for index, (event, planned) in enumerate(zip(outcome.events, outcome.planned, strict=True)):
        lines = [_head_line(index, event, planned.note if planned is not None else "")]
        lines += [f"      {line}" for line in _body(event, before, catalogue)]
        lines += [f"      {warn(finding.property)}: {finding.text}" for finding in event.findings]
        if index in surprises:
            lines.append(f"      {warn('expected')}: {', '.join(surprises[index]) or 'nothing'}")
        parts.append("\n".join(lines))
        before = event.state
    parts.append(f"at the end\n{_final(machine.state(), catalogue)}")
    parts.append(_verdict(outcome))
    return "\n\n".join(parts)


def _head_line(index: int, event: Event, note: str) -> str:
    told = f" -> {event.answer}" if event.answer is not None else ""
    return f"{index + 1:>4}  {bold(event.step)} {event.arguments}{told}{f'  ({note})' if note else ''}"


def _body(event: Event, before: State | None, catalogue: Catalogue) -> list[str]:
    lines = [_instruction_line(each, catalogue) for each in event.instructions]
    lines += [str(trace) for trace in event.traces]
    if event.state is None:
        return lines
    old = {cpu.number: cpu.registers for cpu in before.cpus} if before is not None else {}
    for cpu in event.state.cpus:
        if cpu.registers != old.get(cpu.number, cpu.registers if before is None else None):
            lines.append(f"CPU {cpu.number} now has {_spelt(cpu.registers, catalogue)}")
    return lines


def _instruction_line(each: Instruction, catalogue: Catalogue) -> str:
    head = f"CPU {each.cpu} {each.name} {each.operand}".rstrip()
    if not each.rfbm:
        return f"{head} = {each.after:#x}" if "MSR" in each.name else head
    if "RSTOR" in each.name:
        names = f"loads {catalogue.names(each.loaded)}, initialises {catalogue.names(each.initialised)}"
        return f"{head}: RFBM {each.rfbm:#x}, XSTATE_BV {each.before:#x}: {names} ({each.moved} bytes)"
    return f"{head}: RFBM {each.rfbm:#x}, XSTATE_BV {each.before:#x} -> {each.after:#x} ({each.moved} bytes)"


def _spelt(holding: Holding, catalogue: Catalogue) -> str:
    return "; ".join(f"{whose}: {catalogue.names(mask)}" for whose, mask in holding if whose != "initial") or "nothing"


def _final(state: State, catalogue: Catalogue) -> str:
    cpus = table(
        ("CPU", "runs", "fpregs_owner_ctx", "XFD", "shadow", "in its registers"),
        [
            [
                str(cpu.number),
                _ref(cpu.current, "idle"),
                _ref(cpu.owner, "nobody"),
                f"{cpu.xfd:#x}",
                f"{cpu.xfd_state:#x}",
                _spelt(cpu.registers, catalogue),
            ]
            for cpu in state.cpus
        ],
    )
    tasks = table(("task", "mode", "on", "TIF", "last_cpu", "active fpstate"), [_task(task) for task in state.tasks])
    buffers = table(
        ("fpstate", "size", "XSTATE_BV", "XCOMP_BV", "XFD", "holds"),
        [
            [
                buffer.name,
                str(buffer.size),
                f"{buffer.xstate_bv:#x}",
                f"{buffer.xcomp_bv:#x}",
                f"{buffer.xfd:#x}",
                _spelt(buffer.holds, catalogue),
            ]
            for buffer in state.buffers
        ],
        right=(1,),
    )
    return f"{cpus}\n\n{tasks}\n\n{buffers}"


def _ref(number: int | None, nobody: str) -> str:
    return nobody if number is None else f"task {number}"


def _task(task: TaskState) -> list[str]:
    return [
        str(task.number),
        task.mode,
        "-" if task.cpu is None else f"CPU {task.cpu}",
        "set" if task.need_fpu_load else "clear",
        "-" if task.last_cpu is None else str(task.last_cpu),
        "guest" if task.plugged else "own",
    ]


def _verdict(outcome: Outcome) -> str:
    found: dict[str, int] = {}
    for finding in outcome.findings:
        found[finding.property] = found.get(finding.property, 0) + 1
    lines = ["findings:"] if found else ["no finding"]
    for name, count in found.items():
        known = PROPERTIES.get(name)
        lines.append(f"  {warn(name)} ({count}){f': {known.text}' if known else ''}")
    surprises = list(outcome.surprises())
    if surprises:
        lines.append("not as the scenario expects:")
        lines += [_surprise(outcome, index, expected) for index, expected in surprises]
    return "\n".join(lines)


def _surprise(outcome: Outcome, index: int, expected: tuple[str, ...]) -> str:
    event, planned = outcome.events[index], outcome.planned[index]
    if planned is not None and planned.answer not in {None, str(event.answer)}:
        came = f"was told {event.answer}"
    else:
        came = f"found {', '.join(sorted({f.property for f in event.findings})) or 'nothing'}"
    return f"  step {index + 1}, {warn(event.step)}: expected {', '.join(expected) or 'nothing'}, {came}"
