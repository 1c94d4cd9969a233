"""Scenarios: a machine and the steps to take on it, from a TOML file, a Python file, or the package's own.

A TOML file has ``title``, ``text``, ``cpus``, ``tasks``, ``vcpus``, ``cpu`` (a CPU of the built-in table), ``policy``,
a table ``assumptions``, and ``[[step]]`` tables: ``do`` names the step or call; ``cpu``, ``task`` and ``other`` are its
numbers, and a call has further ones; ``note`` says what it is there for; ``expect`` lists the properties that it breaks
(a table gives them by policy; under one that is not named nothing is expected); ``answer`` is what a call is told.  A
Python file defines ``scenario(machine)``, which calls ``machine.step``, and may set the same keys in capitals.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any, Final

from fpstate import toml
from fpstate.cpu.model import Cpu
from fpstate.errors import FpstateError, UnreadableInput, UsageError
from fpstate.isa import RULES
from fpstate.isa.masks import ALL
from fpstate.linux import copyin
from fpstate.linux.machine import CALLS, JUDGED, KNOWN, MOST, OBJECTS, Event, Finding, Machine, NotPossible
from fpstate.linux.policy import Policy
from fpstate.linux.steps import Assumptions
from fpstate.verify.properties import PROPERTIES

__all__ = ["Outcome", "Planned", "Scenario", "load", "play", "shipped"]

_TEXTS: Final = ("title", "text", "cpu", "policy")
_NUMBERS: Final = ("cpus", "tasks", "vcpus")
_KEYS: Final = (*_TEXTS, *_NUMBERS, "assumptions", "step")
_PARAMETERS: Final = tuple(dict.fromkeys(name for step in KNOWN.values() for name in step.parameters))
_OF_STEP: Final = ("do", *_PARAMETERS, "note", "expect", "answer")
_LIMIT: Final = 1 << 20
_TASKS: Final = 2
"""Tasks of a scenario that does not say how many."""

Expected = tuple[str, ...] | Mapping[str, tuple[str, ...]]
"""Property ids; or those under each policy that is named."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One step to take.

    Attributes:
        do: its name.
        params: its numbers.
        note: what it is there for.
        expect: the properties that it should break; None if that is left open.
        answer: what a call should be told; None if that is left open.
    """

    do: str
    params: dict[str, int]
    note: str = ""
    expect: Expected | None = None
    answer: str | None = None

    def expected(self, policy: str) -> tuple[str, ...] | None:
        """Return what is expected under *policy*."""
        if self.expect is None or isinstance(self.expect, tuple):
            return self.expect
        return self.expect.get(policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A machine and what happens on it.

    Attributes:
        name: of the file, or of the shipped scenario.
        title, text: what it shows.
        cpus, tasks, vcpus: how many; the first *vcpus* tasks may have a vCPU.
        cpu: a CPU of the built-in table, or None.
        policy: the policy that is meant if none is named, or None.
        assumptions: what is taken for granted.
        steps: what happens, in order; empty where a script says it.
        script: ``scenario`` of a Python file, or None.
        file: that Python file.
    """

    name: str
    title: str = ""
    text: str = ""
    cpus: int = 2
    tasks: int = _TASKS
    vcpus: int = 1
    cpu: str | None = None
    policy: str | None = None
    assumptions: Assumptions = field(default_factory=Assumptions)
    steps: tuple[Planned, ...] = ()
    script: Callable[[Machine], object] | None = None
    file: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scenario.

    Attributes:
        scenario: what was played.
        machine: as it is at the end.
        events: what each step did.
        planned: the step of the scenario behind each event; None where a script took it.
    """

    scenario: Scenario
    machine: Machine
    events: tuple[Event, ...]
    planned: tuple[Planned | None, ...]

    @property
    def findings(self) -> list[Finding]:
        """What must not be, of all steps."""
        return [finding for event in self.events for finding in event.findings]

    def surprises(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield the index of each step that did not break what it should, or was told something else, and what."""
        for index, (event, planned) in enumerate(zip(self.events, self.planned, strict=True)):
            if planned is not None and planned.answer not in {None, str(event.answer)}:
                yield index, (f"the answer {planned.answer}",)
                continue
            expected = planned.expected(self.machine.policy.name) if planned is not None else None
            if expected is not None and {f.property for f in event.findings} != set(expected):
                yield index, expected


def shipped() -> dict[str, Scenario]:
    """Return the package's scenarios by name."""
    folder = resources.files("fpstate").joinpath("data/scenarios")
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda e: e.name.partition(".")[0]):
        name, _, suffix = entry.name.rpartition(".")
        if suffix == "toml":
            found[name] = _from_toml(toml.parse(entry.read_bytes(), entry.name, "a scenario"), name, entry.name)
    return found


def load(source: str) -> Scenario:
    """Return the scenario called *source*: a file, ``-`` for standard input, or the name of a shipped one.

    Raises:
        UnreadableInput: it cannot be read.
        UsageError: there is none of that name, or it is no scenario; names the step and the key.
    """
    if source == "-":
        data = sys.stdin.buffer.read(_LIMIT) if sys.stdin is not None else b""
        return _from_toml(toml.parse(data, "standard input", "a scenario"), "standard input", "standard input")
    if not ("/" in source or "." in source or os.path.lexists(source)):
        known = shipped()
        if source not in known:
            cure = f"scenarios are {', '.join(known)}; a file has a / or a . in its name"
            raise UsageError(f"there is no scenario {source[:40]!r}", cure=cure)
        return known[source]
    name = Path(source).stem
    if source.endswith(".py"):
        return _from_python(source, name)
    return _from_toml(toml.load(source, "a scenario"), name, source)


def play(scenario: Scenario, cpu: Cpu, policy: Policy) -> Outcome:
    """Take the steps of *scenario*.

    Raises:
        UsageError: one of them cannot be taken as things are; says which and why.
    """
    machine = Machine(
        cpu,
        policy,
        cpus=scenario.cpus,
        tasks=scenario.tasks,
        vcpus=scenario.vcpus,
        assumptions=scenario.assumptions,
    )
    planned: list[Planned | None] = []
    for number, step in enumerate(scenario.steps, 1):
        try:
            machine.step(step.do, **step.params)
        except NotPossible as refusal:
            where = f"step {number} of {scenario.name} under {policy.name} on {cpu.name}"
            raise UsageError(f"{where}: {refusal}") from refusal
        except UsageError as refusal:
            raise UsageError(f"step {number} of {scenario.name}: {refusal}") from refusal
        planned.append(step)
    if scenario.script is not None:
        _run(scenario, machine)
        planned += [None] * (len(machine.events) - len(planned))
    return Outcome(scenario, machine, tuple(machine.events), tuple(planned))


def _run(scenario: Scenario, machine: Machine) -> None:
    if scenario.script is None:
        return
    before = len(machine.events)
    try:
        scenario.script(machine)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        where = _place(scenario.file, error)
        under = f"under {machine.policy.name} on {machine.config.cpu.name}"
        number = len(machine.events) - before + 1
        if isinstance(error, FpstateError) and any(f.f_code is Machine.step.__code__ for f, _ in _frames(error)):
            raise UsageError(f"{where}: machine.step call {number} {under}: {error}") from error
        after = f"scenario(machine) failed after {number - 1} steps {under}"
        raise UsageError(f"{where}: {after}: {_words(error)}") from error


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    return traceback.walk_tb(error.__traceback__)


def _place(file: str, error: BaseException) -> str:
    """Return the line of *file* on which *error* came up."""
    lines = [line for frame, line in _frames(error) if frame.f_code.co_filename == file]
    return f"{file}, line {lines[-1]}" if lines else file


def _words(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  of a class of the user's own
        text = ""
    return f"{type(error).__name__}: {text}".removesuffix(": ")


# -- reading ----------------------------------------------------------------------------------------------------------


def _from_toml(table: Mapping[str, Any], name: str, where: str) -> Scenario:
    _refuse_unknown(table, _KEYS, where, "a scenario")
    steps = table.get("step", [])
    if not isinstance(steps, list) or not steps:
        raise UsageError(f"{where} must have steps: [[step]] tables")
    planned = tuple(_planned(step, f"{where}: step {number}") for number, step in enumerate(steps, 1))
    return Scenario(name=name, steps=planned, **_head(table, where))


def _head(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what a scenario says of its machine."""
    head: dict[str, Any] = {}
    for key in _TEXTS:
        if key in table:
            head[key] = _text(table[key], f"{where}: {key}")
    for key in _NUMBERS:
        if key in table:
            head[key] = _number(table[key], f"{where}: {key}", least=int(key != "vcpus"))
    vcpus, tasks = head.get("vcpus", 0), head.get("tasks", _TASKS)
    if vcpus > tasks:
        raise UsageError(f"{where}: vcpus must be 0 to {tasks}, as there are tasks, not {vcpus}")
    if "assumptions" in table:
        head["assumptions"] = _assumptions(table["assumptions"], f"{where}: assumptions")
    return head


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str, what: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{where} has the unknown key {key!r}", cure=f"keys of {what} are {', '.join(known)}")


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} must be a text, not {value!r}")
    words = " ".join(value.split())
    if not words.isprintable():
        odd = next(c for c in words if not c.isprintable())
        raise UsageError(f"{where} has the character {odd!a}, which cannot be printed")
    return words


def _number(value: object, where: str, *, least: int = 0, most: int = MOST) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{where} must be a number, {least} to {most}, not {value!r}")
    return value


def _assumptions(value: object, where: str) -> Assumptions:
    if isinstance(value, Assumptions):
        return value
    if not isinstance(value, dict):
        raise UsageError(f"{where} must be a table, not {value!r}")
    _refuse_unknown(value, tuple(f.name for f in fields(Assumptions)), where, "it")
    for key, flag in value.items():
        if not isinstance(flag, bool):
            raise UsageError(f"{where}: {key} must be true or false, not {flag!r}")
    return Assumptions(**value)


def _planned(value: object, where: str) -> Planned:
    if not isinstance(value, dict):
        raise UsageError(f"{where} must be a table, not {value!r}")
    _refuse_unknown(value, _OF_STEP, where, "a step")
    name = value.get("do")
    if not isinstance(name, str) or name not in KNOWN:
        raise UsageError(f"{where}: do must name a step, not {name!r}", cure=f"steps are {', '.join(KNOWN)}")
    params = {key: _parameter(key, value[key], f"{where}: {key}") for key in _PARAMETERS if key in value}
    takes = KNOWN[name].parameters
    if set(params) != set(takes):
        odd = next(iter(sorted(set(params) ^ set(takes))))
        problem = f"lacks {odd!r}" if odd in takes else f"has the unknown parameter {odd!r}"
        raise UsageError(f"{where}: {name} {problem}", cure=f"it takes {', '.join(takes)}")
    note = _text(value.get("note", ""), f"{where}: note")
    answer = value.get("answer")
    if answer is not None and name not in CALLS:
        raise UsageError(f"{where}: {name} is no call and has no answer", cure=f"calls are {', '.join(CALLS)}")
    told = None if answer is None else _text(answer, f"{where}: answer")
    return Planned(name, params, note, _expected(value.get("expect"), f"{where}: expect"), told)


def _parameter(name: str, value: object, where: str) -> int:
    if name in OBJECTS:
        return _number(value, where, most=MOST - 1)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= ALL:
        raise UsageError(f"{where} must be a number of 64 bits, not {value!r}")
    return value


def _expected(value: object, where: str) -> Expected | None:
    if value is None:
        return None
    if isinstance(value, dict):
        return {policy: _properties(listed, f"{where}.{policy}") for policy, listed in value.items()}
    return _properties(value, where)


def _properties(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"{where} must be a list of properties, such as ['ISO-RUN'], not {value!r}")
    for item in value:
        _check_property(item, where)
    return tuple(value)


_RULES: Final[dict[str, Mapping[str, object] | None]] = {"FAULT": RULES, "REFUSED": copyin.RULES, "WARN": None}
"""What a finding may name behind a kind and a colon; None is anything."""


def _check_property(item: str, where: str) -> None:
    """Refuse the name of a property that no finding can have."""
    kind, _, name = item.partition(": ")
    if item in JUDGED or (name and kind in _RULES and name in (_RULES[kind] or {name: None})):
        return
    names = ", ".join((*JUDGED, *(f"{kind}: NAME" for kind in _RULES)))
    if item in PROPERTIES and item not in _RULES:
        problem = f"{item} is not looked at over bytes, so that no step breaks it"
    else:
        problem = f"there is no finding {item[:60]!r}"
    raise UsageError(f"{where}: {problem}", cure=f"findings are {names}")


def _from_python(path: str, name: str) -> Scenario:
    try:
        source = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise UnreadableInput(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    namespace: dict[str, Any] = {"__name__": name, "__file__": path}
    try:
        program = compile(source, path, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableInput(f"{path} is not a Python file: {error}") from error
    try:
        exec(program, namespace)  # noqa: S102  the user's own program, which they asked to run
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UsageError(f"{_place(path, error)}: it cannot be loaded: {_words(error)}") from error
    script = namespace.get("scenario")
    if not callable(script):
        raise UsageError(f"{path} must define a function scenario(machine)")
    head = {key: namespace[key.upper()] for key in (*_TEXTS, *_NUMBERS, "assumptions") if key.upper() in namespace}
    return Scenario(name=name, script=script, file=path, **_head(head, path))
