"""A run of the model as a story: what each step is in the kernel's terms, and what it changed."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Final

from fpstate.linux.kernel import FREE, GUEST, KERNEL, USER
from fpstate.linux.steps import STEPS
from fpstate.verify.check import Finding, Report
from fpstate.verify.properties import PROPERTIES
from fpstate.verify.result import Run

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


def scenario(finding: Finding, report: Report) -> str:
    """Return the run of a broken property as a scenario that `fpstate simulate` replays over real bytes."""
    shape, run = finding.shape, finding.run
    if shape is None or run is None:
        raise ValueError("there is no run")
    lines = [
        f"title = {_quoted(f'{finding.claim or finding.id} under {report.policy.name}')}",
        f"text = {_quoted(PROPERTIES[finding.id].text)}",
        f"cpu = {_quoted(report.cpu.name)}",
        f"policy = {_quoted(report.policy.name)}",
        f"cpus = {shape.cpus}",
        f"tasks = {shape.tasks}",
        f"vcpus = {shape.vcpus}",
        "",
        "[assumptions]",
        *(f"{name} = {str(on).lower()}" for name, on in asdict(report.assumptions).items()),
    ]
    for taken in run.steps:
        arguments = dict(taken.arguments)
        if report.classes.keys() & {"user-dynamic"} and taken.step in _PERMISSIONS:
            lines += _step_lines(_PERMISSIONS[taken.step], {k: arguments[k] for k in ("cpu", "task")})
        lines += _step_lines(taken.step, arguments)
    return "\n".join(lines) + "\n"


def _step_lines(step: str, arguments: dict[str, int]) -> list[str]:
    return ["", "[[step]]", f'do = "{step}"', *(f"{name} = {number}" for name, number in arguments.items())]


def _quoted(text: str) -> str:
    """Return *text* as a TOML string: JSON's are ones."""
    return json.dumps(text)
