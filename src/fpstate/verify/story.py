"""A run of the model as a story: what each step is in the kernel's terms, and what it changed."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from fpstate.errors import FpstateError, printable
from fpstate.linux.kernel import FREE, GUEST, KERNEL, USER
from fpstate.linux.steps import STEPS
from fpstate.verify.check import Finding, Report
from fpstate.verify.properties import PROPERTIES, property_of
from fpstate.verify.result import Run

if TYPE_CHECKING:
    from fpstate.linux.scenario import Scenario

__all__ = ["Told", "context_name", "scenario", "tell"]

_MODES: Final = {FREE: "free", USER: "user mode", KERNEL: "kernel", GUEST: "its guest runs"}
_TAG_FIELDS: Final = frozenset({"regs", "image", "own", "pkru", "host_pkru", "lbr"})
_WORDS: Final = {
    "need_fpu_load": "TIF_NEED_FPU_LOAD",
    "xfd": "IA32_XFD of tile data",
    "xfd_state": "the XFD shadow of tile data",
    "xfeatures": "room for tile data",
    "guest_xstate": "the guest's XCR0 and IA32_XSS loaded",
}
_VARIABLE: Final = re.compile(r"(cpu|task|guest)(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Told:
    """One step of a story.

    Attributes:
        step: its name; `fpstate simulate` takes it.
        arguments: its CPU and tasks.
        text: the step in a sentence.
        changes: what it changed; nothing for the step on whose way a property is broken.
    """

    step: str
    arguments: dict[str, int]
    text: str
    changes: tuple[str, ...]


def context_name(focus: str) -> str:
    """Return ``task0`` and ``guest0`` in words."""
    kind, number = re.fullmatch(r"(task|guest)(\d+)", focus).groups()  # type: ignore[union-attr]
    return f"task {number}" if kind == "task" else f"the guest of task {number}"


def tell(run: Run, focus: str) -> list[Told]:
    """Return the story of *run*, whose values are told apart for *focus*."""
    story = []
    for i, taken in enumerate(run.steps):
        arguments = dict(taken.arguments)
        changes: tuple[str, ...] = ()
        if i + 1 < len(run.states):
            before, after = run.states[i], run.states[i + 1]
            changed = (name for name in after if after[name] != before[name] and name != "newest")
            changes = tuple(_change(name, before[name], after[name], focus) for name in changed)
        story.append(Told(taken.step, arguments, _sentence(taken.step, arguments), changes))
    return story


def _sentence(step: str, arguments: dict[str, int]) -> str:
    who = [f"CPU {arguments['cpu']}"] if "cpu" in arguments else []
    who += [f"task {arguments['task']}"] if "task" in arguments else []
    to = f" to task {arguments['other']}" if "other" in arguments else ""
    return f"{', '.join(who)}{to}: {STEPS[step].text}"


def _change(name: str, before: int, after: int, focus: str) -> str:
    match = _VARIABLE.fullmatch(name)
    if match is None:
        return f"{name}: {before} -> {after}"
    kind, number, field = match[1], match[2], match[3]
    owner = {"cpu": "CPU", "task": "task", "guest": "guest of task"}[kind]
    words = _WORDS.get(field, field)
    return f"{owner} {number}, {words}: {_value(field, before, focus)} -> {_value(field, after, focus)}"


def _value(field: str, value: int, focus: str) -> str:
    if field in _TAG_FIELDS:
        whose = context_name(focus)
        return ("initial", "another's", f"an older value of {whose}", f"the newest of {whose}", "default")[value]
    if field in {"curr", "fpregs_owner_ctx"}:
        return f"task {value - 1}" if value else "none"
    if field == "last_cpu":
        return f"CPU {value - 1}" if value else "none"
    if field == "mode":
        return _MODES[value]
    return ("no", "yes")[value] if value < 2 else str(value)


_PERMISSIONS: Final = {"handle_xfd_event": "request_perm", "kvm_create_vcpu": "request_guest_perm"}
"""Steps that take a permission for granted in the model, and the step that gets it."""


_GIVEN: Final = "not of the run: the model takes this permission for granted"


def scenario(finding: Finding, report: Report) -> str:
    """Return the run of a broken property as a scenario that `fpstate simulate` replays over real bytes."""
    from fpstate.linux.scenario import Planned, Scenario  # noqa: PLC0415  reports do without

    shape, run = finding.shape, finding.run
    if shape is None or run is None:
        raise ValueError("there is no run")
    steps: list[Planned] = []
    for taken in run.steps:
        arguments = dict(taken.arguments)
        if report.classes.keys() & {"user-dynamic"} and taken.step in _PERMISSIONS:
            steps.append(Planned(_PERMISSIONS[taken.step], {k: arguments[k] for k in ("cpu", "task")}, _GIVEN))
        steps.append(Planned(taken.step, arguments))
    replayed = Scenario(
        name=finding.id,
        cpus=shape.cpus,
        tasks=shape.tasks,
        vcpus=shape.vcpus,
        assumptions=report.assumptions,
        steps=tuple(steps),
    )
    lines = [
        f"title = {_quoted(f'{finding.claim or finding.id} under {report.policy.name}')}",
        f"text = {_quoted(f'{PROPERTIES[finding.id].text}{_over_bytes(finding, report, replayed)}')}",
        f"cpu = {_quoted(report.cpu.name)}",
        f"policy = {_quoted(report.policy.name)}",
        f"cpus = {shape.cpus}",
        f"tasks = {shape.tasks}",
        f"vcpus = {shape.vcpus}",
        "",
        "[assumptions]",
        *(f"{name} = {str(on).lower()}" for name, on in asdict(report.assumptions).items()),
    ]
    for step in steps:
        lines += ["", "[[step]]", f'do = "{step.do}"', *(f"{name} = {number}" for name, number in step.params.items())]
        if step.note:
            lines.append(f"note = {_quoted(step.note)}")
    return "\n".join(lines) + "\n"


def _over_bytes(finding: Finding, report: Report, replayed: Scenario) -> str:
    """Say what a replay does not show, if it does not show that the property is broken."""
    from fpstate.linux.machine import JUDGED  # noqa: PLC0415  see `scenario`
    from fpstate.linux.scenario import play  # noqa: PLC0415

    try:
        found = {property_of(each.property) for each in play(replayed, report.cpu, report.policy).findings}
    except FpstateError as refusal:
        return f"; over bytes the run cannot be replayed: {printable(str(refusal))}"
    if finding.id in found:
        return ""
    others = ", ".join(sorted(name for name in found if name)) or "no finding"
    if finding.id in JUDGED:
        return f"; over bytes what is broken here is not looked at: the replay shows the run, and {others}"
    return f"; {finding.id} is not looked at over bytes: the replay shows the run, and {others}"


def _quoted(text: str) -> str:
    """Return *text* as a TOML string: JSON's are ones."""
    return json.dumps(text)
