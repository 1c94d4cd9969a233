"""The transition system: state variables, commands, and what must hold, read out of the kernel's own functions.

`build` makes a `World` whose fields are variables, takes every step of `fpstate.linux.steps` on every path, and
collects what came out.  Nothing here knows what the kernel does.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Final, TypeVar

from fpstate.isa.rules import Fault
from fpstate.linux.kernel import KERNEL, Cpu, Fpstate, Guest, Kernel, Sets, Task
from fpstate.linux.kernel.sets import GUEST_PERM_LOCKED
from fpstate.linux.policy import Policy
from fpstate.linux.steps import STEPS, Assumptions, Step, World
from fpstate.verify import paths
from fpstate.verify.expr import Expr, as_expr, const, negate, var, variables, where
from fpstate.verify.question import Shape
from fpstate.verify.tags import DEFAULT, DEFAULTED, INITIAL, KINDS, TAGS, TagHardware, TagSpecification

__all__ = ["Check", "Command", "Fixed", "Model", "Recall", "Shape", "Subject", "Taken", "Variable", "build"]


DATA: Final = frozenset({"regs", "image", "own", "pkru", "host_pkru", "lbr", "newest"})
"""Fields that hold tags."""


Invariants = Callable[[World], Iterator[tuple[str, Any]]]
Numbers = Callable[[tuple[str, ...]], Iterator[tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a model is about: one component under one kernel.

    Attributes:
        policy: its rules.
        sets: its masks, projected onto what is watched.
        assumptions: what is taken for granted.
        kernel: the class of the kernel; a bug of history is a class of its own.
    """

    policy: Policy
    sets: Sets
    watched: int
    assumptions: Assumptions
    kernel: type[Kernel] = Kernel


@dataclass(frozen=True, slots=True)
class Variable:
    """One state variable.

    Attributes:
        name: the CPU, task or guest, and the field.
        values: those that it can have, ascending.
    """

    name: str
    values: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many values it can have."""
        return len(self.values)

    @property
    def data(self) -> bool:
        """Whether it says whose value is where, not what the kernel thinks: a tag, or what is newest."""
        return self.name.rpartition(".")[2] in DATA


@dataclass(frozen=True, slots=True)
class Check:
    """What must hold when a command is taken this far.

    Attributes:
        property: the id.
        guard: where the command has got to.
        holds: the condition.
        step, arguments: of the command.
    """

    property: str
    guard: tuple[Expr, ...]
    holds: Expr
    step: str
    arguments: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Command:
    """One path through one step.

    Attributes:
        step: its name.
        arguments: numbers of the CPU and tasks, by parameter.
        guard: when it can be taken; each condition makes sense when those before it hold.
        updates: variable to its new value.
    """

    step: str
    arguments: tuple[tuple[str, int], ...]
    guard: tuple[Expr, ...]
    updates: dict[str, Expr]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A transition system.

    Attributes:
        shape, focus, subject: what it was built of.
        variables: in the order in which a state is written.
        initial: the value of each variable at the start.
        commands: the transitions.
        checks: what must hold while one is taken.
        stopped: the paths of steps that end on their way, for the checks on them.
        invariants: what must hold in every state, by property.
    """

    shape: Shape
    focus: str
    subject: Subject
    variables: tuple[Variable, ...]
    initial: dict[str, int]
    commands: tuple[Command, ...]
    checks: tuple[Check, ...]
    stopped: tuple[Command, ...]
    invariants: tuple[tuple[str, Expr], ...]


Taken = tuple[list[Command], list[Check], list[Command]]
"""What comes of a step on every path: commands, checks, and the paths that end on their way."""
Fixed = frozenset[tuple[str, int]]
Recall = Callable[[Step, tuple[int, ...], Fixed, Callable[[], Taken]], Taken]
"""Asked for what comes of a step with these CPUs and tasks, and these variables constant: known, or by the call."""


class _NotPossibleError(Exception):
    """The step cannot be taken in the states of this path."""


class SymbolicSpecification(TagSpecification):
    """Notes what the kernel and the steps claim, with the path on which they do."""

    path: paths.Path
    found: list[Check]
    step: str
    arguments: tuple[tuple[str, int], ...]

    def needs(self, condition: Any, why: str) -> None:  # noqa: ARG002  said to people only
        """End the path where *condition* does not hold."""
        if not condition:
            raise _NotPossibleError

    def warn(self, name: str, condition: Any, *, of: Task | None = None) -> bool:
        """Note that *condition* must not hold, and go on where it does not."""
        if of is not None and not self.is_focus(of):
            return False
        self._claim(f"WARN: {name}", negate(_truth(condition)))
        return False

    def require(self, name: str, condition: Any) -> None:
        """Note that *condition* must hold, and go on where it does."""
        self._claim(name, _truth(condition))

    def ensures(self, name: str, condition: Any) -> None:
        """Note that *condition* must hold, and go on where it does not, too: worse may come of it."""
        holds = _truth(condition)
        if self.path.implies(holds) is not True:
            self.found.append(Check(name, tuple(self.path.guard), holds, self.step, self.arguments))

    def _claim(self, name: str, holds: Expr) -> None:
        if self.path.implies(holds) is not True:
            self.found.append(Check(name, tuple(self.path.guard), holds, self.step, self.arguments))
            if holds.op == "const":
                raise _NotPossibleError
            self.path.assume(holds)

    def trace(self, event: str, cpu: Cpu, task: Task) -> None:
        """Nobody listens."""

    def runs(self, cpu: Cpu, who: Task | Guest) -> None:
        """See `fpstate.linux.steps.Spec`."""
        if self.is_focus(who):
            seen = self.watches(self.observable(who)) & (self.watches(cpu.xfd) ^ 1)
            self.require("ISO-RUN", where(seen, self.is_nobody_elses(cpu.regs), 1))
            self.require("INT-RUN", where(seen, self.is_newest(cpu.regs), 1))

    def copied(self, tag: Any) -> None:
        """See `TagSpecification`."""
        self.require("ISO-BUF", self.is_nobody_elses(tag))
        self.require("INT-BUF", self.is_newest(tag))

    def shows(self, image: Any, who: Task | Guest) -> None:
        """See `fpstate.linux.steps.Spec`."""
        if not self.is_focus(who):
            return
        fpstate = who.own if isinstance(who, Task) else who.fpstate
        features = fpstate.user_xfeatures if isinstance(who, Task) else fpstate.user_xfeatures & self.sets.kvm
        visible = self.watches(features)
        self.require("ISO-BUF", self.is_nobody_elses(image))
        self.require("INT-BUF", where(visible, self.is_newest(image), 1))
        self.require("P14", where(visible, 1, as_expr(image) == INITIAL))

    def observable(self, who: Task | Guest) -> Any:
        """Return the components that *who* can see in registers."""
        if isinstance(who, Guest):
            return self.sets.kvm & (who.fpstate.xfeatures | self.sets.kvm_own)
        return self.sets.user_writable | self.host_sss

    host_sss = 0

    def is_initial(self, who: Task | Guest, mask: int) -> Any:
        """See `fpstate.linux.steps.Spec`."""
        return where(self.watches(mask), self.newest == INITIAL, 1) if self.is_focus(who) else 1


def _truth(condition: Any) -> Expr:
    e = as_expr(condition)
    return e if e.boolean else e != 0


@dataclass(slots=True)
class Slot:
    """Where a variable lives in the world: how to put a value there, and how to read it back."""

    variable: Variable
    initial: int
    put: Callable[[World, Any], None]
    get: Callable[[World], Any]


def _holder(kind: str, number: int) -> Callable[[World], Any]:
    """Return the function from a world to what a variable is a field of."""

    def find(w: World) -> Any:
        if kind == "cpu":
            return w.cpus[number]
        task = w.tasks[number]
        if not kind.startswith("guest"):
            return task.own if kind == "own" else task
        guest = task.guest
        assert guest is not None  # noqa: S101  the shape gives it one
        return guest.fpstate if kind == "guest fpstate" else guest

    return find


def _field(path: str, holder: Callable[[World], Any], name: str, size: int, initial: int = 0) -> Slot:
    return Slot(
        Variable(path, tuple(range(size))),
        initial,
        lambda w, value: setattr(holder(w), name, value),
        lambda w: getattr(holder(w), name),
    )


def _bit(path: str, holder: Callable[[World], Any], name: str, bit: int, initial: int = 0) -> Slot:
    """One bit of a mask whose other bits are constants, or variables put before it."""

    def put(w: World, value: Any) -> None:
        mask = getattr(holder(w), name)
        setattr(holder(w), name, where(value, mask | bit, mask & ~bit))

    return Slot(Variable(path, (0, 1)), initial, put, lambda w: getattr(holder(w), name) & bit != 0)


class _Builder:
    """Makes worlds for one model."""

    def __init__(self, subject: Subject, shape: Shape, focus: str, recall: Recall | None = None) -> None:
        self.subject, self.shape, self.focus, self.recall = subject, shape, focus, recall
        self.sets = subject.sets
        self.hw = TagHardware(self.sets, subject.watched)
        self.tags = len(TAGS) if self.sets.pkru else DEFAULT
        self.slots = list(self._slots())
        self.fixed: dict[str, int] = {}
        self.template: World | None = None
        self.before: list[Expr] = []
        self.template_fixed: dict[str, int] = {}

    def is_focus(self, who: Task | Guest) -> bool:
        """Tell whether *who* is the focus."""
        return f"{'task' if isinstance(who, Task) else 'guest'}{who.number}" == self.focus

    def _slots(self) -> Iterator[Slot]:
        shape, sets = self.shape, self.sets
        for c in range(shape.cpus):
            yield from self._cpu_slots(c, _holder("cpu", c))
        for t in range(shape.tasks):
            yield from self._task_slots(t, _holder("task", t), _holder("own", t))
        for t in range(shape.vcpus):
            yield from self._guest_slots(t, _holder("guest", t), _holder("guest fpstate", t))
        initial = DEFAULTED if sets.pkru and self.focus.startswith("task") else INITIAL
        yield _field("newest", lambda w: w.spec, "newest", len(KINDS), initial)

    def _cpu_slots(self, c: int, cpu: Callable[[World], Any]) -> Iterator[Slot]:
        shape, sets = self.shape, self.sets
        yield _field(f"cpu{c}.curr", cpu, "curr", shape.tasks + 1 + shape.open)
        yield _field(f"cpu{c}.fpregs_owner_ctx", cpu, "fpregs_owner_ctx", shape.tasks + 1 + shape.open)
        yield _field(f"cpu{c}.in_kernel_fpu", cpu, "in_kernel_fpu", 2)
        yield _field(f"cpu{c}.guest_xstate", cpu, "guest_xstate", 2)
        yield _field(f"cpu{c}.regs", cpu, "regs", self.tags)
        if sets.dynamic:
            armed = 1 if sets.initial_xfd else 0
            yield _bit(f"cpu{c}.xfd", cpu, "xfd", sets.dynamic, armed)
            yield _bit(f"cpu{c}.xfd_state", cpu, "xfd_state", sets.dynamic, armed)

    def _task_slots(self, t: int, task: Callable[[World], Any], own: Callable[[World], Any]) -> Iterator[Slot]:
        shape, sets = self.shape, self.sets
        yield _field(f"task{t}.mode", task, "mode", 4 if t < shape.vcpus else 3, KERNEL)
        yield _field(f"task{t}.on_cpu", task, "on_cpu", 2)
        yield _field(f"task{t}.need_fpu_load", task, "need_fpu_load", 2, 1)
        yield _field(f"task{t}.last_cpu", task, "last_cpu", shape.cpus + 1 + shape.open)
        yield _field(f"task{t}.image", own, "image", self.tags)
        if sets.dynamic:
            yield _bit(f"task{t}.xfeatures", own, "xfeatures", sets.dynamic)
            yield _bit(f"task{t}.xfd", own, "xfd", sets.dynamic, 1 if sets.initial_xfd else 0)
            yield from self._size_slots(f"task{t}", own, ("size",))
            yield from self._size_slots(f"task{t}", task, ("state_perm", "guest_perm", "state_size", "guest_size"))
            if sets.supervisor:
                yield _bit(f"task{t}.guest_perm.locked", task, "guest_perm", GUEST_PERM_LOCKED)
        if sets.pkru:
            yield _field(f"task{t}.pkru", task, "pkru", self.tags, DEFAULT)
        if sets.independent & ~sets.kvm_own:
            yield _field(f"task{t}.lbr", task, "lbr", self.tags)
        if t < shape.vcpus:
            yield _field(f"task{t}.plugged", task, "plugged", 2)

    def _size_slots(self, owner: str, holder: Callable[[World], Any], names: Sequence[str]) -> Iterator[Slot]:
        """Permissions, and sizes calculated for sets: the dynamic component's bit, and one for supervisor components.

        Where no supervisor component is tracked they are not looked at: every task may have been permitted everything.
        """
        for name in names if self.sets.supervisor else ():
            yield _bit(f"{owner}.{name}.dynamic", holder, name, self.sets.dynamic)
            yield _bit(f"{owner}.{name}.supervisor", holder, name, self.sets.supervisor, 1)

    def _guest_slots(self, t: int, guest: Callable[[World], Any], fpstate: Callable[[World], Any]) -> Iterator[Slot]:
        sets = self.sets
        yield _field(f"guest{t}.exists", guest, "exists", 2)
        if sets.kvm_own or sets.pkru:
            yield _field(f"guest{t}.loaded", guest, "loaded", 2)
        yield _field(f"guest{t}.in_use", fpstate, "in_use", 2)
        yield _field(f"guest{t}.image", fpstate, "image", self.tags)
        if sets.dynamic:
            yield _bit(f"guest{t}.xfeatures", fpstate, "xfeatures", sets.dynamic)
            yield _bit(f"guest{t}.xfd", fpstate, "xfd", sets.dynamic)
            yield from self._size_slots(f"guest{t}", fpstate, ("size",))
            yield _field(f"guest{t}.xfd_intercepted", guest, "xfd_intercepted", 2, 1)
        if sets.kvm_own:
            yield _field(f"guest{t}.own", guest, "own", self.tags)
        if sets.pkru:
            yield _field(f"guest{t}.pkru", guest, "pkru", self.tags)
            yield _field(f"guest{t}.host_pkru", guest, "host_pkru", self.tags)

    def world(self) -> World:
        """Return a world at its defaults, every field a constant."""
        cpus = [Cpu(c, regs=INITIAL) for c in range(self.shape.cpus)]
        return self._assemble(cpus, [self._task(t) for t in range(self.shape.tasks)], INITIAL)

    def _assemble(self, cpus: list[Cpu], tasks: list[Task], newest: Any) -> World:
        sets = self.sets

        def places() -> Iterator[tuple[Any, str]]:
            yield from ((cpu, "regs") for cpu in cpus)
            for task in tasks:
                yield task.own, "image"
                if sets.pkru:
                    yield task, "pkru"
                if sets.independent & ~sets.kvm_own:
                    yield task, "lbr"
                if task.guest is not None:
                    yield task.guest.fpstate, "image"
                    if sets.kvm_own:
                        yield task.guest, "own"
                    if sets.pkru:
                        yield task.guest, "pkru"
                        yield task.guest, "host_pkru"

        spec = SymbolicSpecification(sets, self.hw, places, self.is_focus)
        spec.newest = newest
        assumptions = self.subject.assumptions
        spec.host_sss = sets.cet_kernel if assumptions.host_sss and assumptions.fred else 0
        kernel = self.subject.kernel(self.subject.policy, sets, self.hw, spec)
        return World(kernel=kernel, cpus=cpus, tasks=tasks, spec=spec, assumptions=assumptions)

    def _task(self, t: int) -> Task:
        sets = self.sets
        own = Fpstate(f"task{t}", xfeatures=sets.default, user_xfeatures=sets.user_default, image=INITIAL)
        own.size = own.allocated = own.xfeatures
        guest = None
        if t < self.shape.vcpus:
            fpstate = Fpstate(
                f"guest{t}", xfeatures=sets.guest_default, user_xfeatures=sets.user_default, image=INITIAL
            )
            fpstate.is_guest = 1
            fpstate.allocated, fpstate.size = sets.guest_allocated, sets.guest_default
            guest = Guest(t, fpstate, own=INITIAL)
        return Task(t, own, mode=KERNEL, lbr=INITIAL, guest=guest)

    def symbolic_world(self) -> World:
        """Return a world whose fields are variables, but for those that never change."""
        if self.template is None or self.template_fixed != self.fixed:
            w = self.world()
            for slot in self.slots:
                fixed = self.fixed.get(slot.variable.name)
                slot.put(w, var(slot.variable.name, slot.variable.size) if fixed is None else const(fixed))
            self._follow(w)
            self.template, self.template_fixed = w, dict(self.fixed)
            self.before = [as_expr(slot.get(w)) for slot in self.slots]
        return self._copy(self.template)

    def _copy(self, w: World) -> World:
        """Return a world of its own with the fields of *w*: a run changes it."""
        newest = w.spec.newest  # type: ignore[attr-defined]  # the specification is this module's
        return self._assemble([_copy(cpu) for cpu in w.cpus], [_copied(task) for task in w.tasks], newest)

    def _follow(self, w: World) -> None:
        """Set what depends on variables: user features follow the features, a larger buffer is as large as its size."""
        dynamic = self.sets.dynamic
        if not dynamic:
            return
        for task in w.tasks:
            if not self.sets.supervisor:
                task.state_perm = task.state_size = self.sets.default | dynamic
                task.guest_perm = task.guest_size = self.sets.guest_default | dynamic
        for fpstate in _fpstates(w):
            if not self.sets.supervisor:
                fpstate.size = fpstate.xfeatures
            fpstate.user_xfeatures |= fpstate.xfeatures & dynamic
            allocated: Any = where(fpstate.xfeatures & dynamic, fpstate.size, fpstate.allocated)
            fpstate.allocated = allocated

    # -- commands ------------------------------------------------------------------------------------------------------

    def take(self, step: Step, numbers: tuple[int, ...]) -> Taken:
        """Take *step* with these CPUs and tasks on every path."""
        arguments = tuple(zip(step.parameters, numbers, strict=True))
        commands: list[Command] = []
        checks: list[Check] = []
        stopped: list[Command] = []

        def run(path: paths.Path) -> None:
            w = self.symbolic_world()
            spec = w.spec
            assert isinstance(spec, SymbolicSpecification)  # noqa: S101  for the type checker
            spec.path, spec.found, spec.step, spec.arguments = path, [], step.name, arguments
            try:
                step.run(w, *(w.cpus[n] if kind == "cpu" else w.tasks[n] for kind, n in arguments))
            except _NotPossibleError:
                checks.extend(spec.found)
                stopped.append(Command(step.name, arguments, tuple(path.guard), {}))
                return
            except Fault as fault:
                spec.found.append(Check(f"FAULT: {fault.rule.id}", tuple(path.guard), const(0), step.name, arguments))
                checks.extend(spec.found)
                stopped.append(Command(step.name, arguments, tuple(path.guard), {}))
                return
            checks.extend(spec.found)
            updates = {}
            for slot, old in zip(self.slots, self.before, strict=True):
                new = as_expr(slot.get(w))
                if new is not old:
                    updates[slot.variable.name] = new
            commands.append(Command(step.name, arguments, tuple(path.guard), updates))

        for _ in paths.explore(run):
            pass
        return commands, _distinct(checks), stopped if checks else []

    def recalled(self, step: Step, numbers: tuple[int, ...]) -> Taken:
        """Take *step*, unless it is known what comes of it."""
        if self.recall is None:
            return self.take(step, numbers)
        return self.recall(step, numbers, frozenset(self.fixed.items()), lambda: self.take(step, numbers))

    def everything(self, numbers: Numbers | None) -> Taken:
        """Take every step with every CPU and task."""
        commands: list[Command] = []
        checks: list[Check] = []
        stopped: list[Command] = []
        for step in STEPS.values():
            for chosen in numbers(step.parameters) if numbers else self._numbers(step):
                taken, claimed, ended = self.recalled(step, chosen)
                commands += taken
                checks += claimed
                stopped += ended
        return commands, checks, stopped

    def _numbers(self, step: Step) -> Iterator[tuple[int, ...]]:
        ranges = [range(self.shape.cpus if kind == "cpu" else self.shape.tasks) for kind in step.parameters]
        for numbers in itertools.product(*ranges):
            tasks = [n for kind, n in zip(step.parameters, numbers, strict=True) if kind != "cpu"]
            if len(set(tasks)) == len(tasks):
                yield numbers

    def possible(self, commands: Sequence[Command]) -> dict[str, set[int]]:
        """Return the values that each variable may ever have, whatever the guards say."""
        possible: dict[str, set[int]] = {slot.variable.name: {slot.initial} for slot in self.slots}
        if self.shape.open:  # the steps of the others change them too
            return self._possible_for_any(commands, possible)
        changed = True
        while changed:
            changed = False
            for command in commands:
                for name, value in command.updates.items():
                    grown = possible[name] | _leaves(value, possible)
                    if grown != possible[name]:
                        possible[name], changed = grown, True
        return possible

    def _possible_for_any(self, commands: Sequence[Command], possible: dict[str, set[int]]) -> dict[str, set[int]]:
        """Return the values that the field has in any variable: the steps are taken with few CPUs and tasks."""
        of_field: dict[str, set[int]] = {}
        for slot in self.slots:
            of_field.setdefault(_kind(slot.variable.name), set()).add(slot.initial)
        changed = True
        while changed:
            changed = False
            by_name = {name: of_field[_kind(name)] for name in possible}
            for command in commands:
                for name, value in command.updates.items():
                    grown = of_field[_kind(name)] | _leaves(value, by_name)
                    if grown != of_field[_kind(name)]:
                        of_field[_kind(name)], changed = grown, True
        everything = {slot.variable.name: set(slot.variable.values) for slot in self.slots}
        references = {"curr", "fpregs_owner_ctx", "last_cpu"}
        return {
            name: everything[name] if name.rpartition(".")[2] in references else of_field[_kind(name)]
            for name in possible
        }


_Fields = TypeVar("_Fields", Cpu, Task, Fpstate, Guest)
_FIELDS: Final = {kind: attrgetter(*(f.name for f in fields(kind))) for kind in (Cpu, Task, Fpstate, Guest)}


def _copy(thing: _Fields) -> _Fields:
    """Return a shallow copy: copy.copy() takes five times as long, and a third of the time went there."""
    return type(thing)(*_FIELDS[type(thing)](thing))


def _copied(task: Task) -> Task:
    made = _copy(task)
    made.own = _copy(task.own)
    if task.guest is not None:
        made.guest = _copy(task.guest)
        made.guest.fpstate = _copy(task.guest.fpstate)
    return made


def _kind(name: str) -> str:
    """Return *name* without the number in it: a field of any CPU, task or guest."""
    return re.sub(r"\d+", "", name)


def _fpstates(w: World) -> Iterator[Fpstate]:
    for task in w.tasks:
        yield task.own
        if task.guest is not None:
            yield task.guest.fpstate


def _distinct(checks: list[Check]) -> list[Check]:
    """Paths that part later share their checks."""
    seen: dict[tuple[object, ...], Check] = {}
    for check in checks:
        seen.setdefault((check.property, *map(id, check.guard), id(check.holds)), check)
    return list(seen.values())


def _leaves(value: Expr, possible: dict[str, set[int]]) -> set[int]:
    """Return the values that *value* may have, by what its variables may have."""
    if value.op == "const":
        return {value.args[0]}
    if value.op == "var":
        return possible[value.args[0]]
    if value.op == "where":
        return _leaves(value.args[1], possible) | _leaves(value.args[2], possible)
    if value.op == "eq" and value.args[0].op == "var" and value.args[1].op == "const":
        return {int(v == value.args[1].args[0]) for v in possible[value.args[0].args[0]]}
    return {0, 1} if value.boolean else set(range(256))


def _relevant(commands: Sequence[Command], claims: Sequence[Expr]) -> set[str]:
    """Return the variables on which a guard or a claim depends, at once or later; the others are left out."""
    relevant: set[str] = set()
    for e in (*claims, *(condition for command in commands for condition in command.guard)):
        variables(e, relevant)
    while True:
        before = len(relevant)
        for command in commands:
            for name, value in command.updates.items():
                if name in relevant:
                    variables(value, relevant)
        if len(relevant) == before:
            return relevant


def build(
    subject: Subject,
    shape: Shape,
    focus: str,
    invariants: Invariants,
    numbers: Numbers | None = None,
    *,
    recall: Recall | None = None,
) -> Model:
    """Return the transition system of *subject* in *shape*.

    Args:
        subject: the component and the kernel.
        shape: how many of each.
        focus: the context whose values are told apart: ``task0``, ``guest0``.
        invariants: what must hold in every state of a world.
        numbers: for a step's parameters, the CPUs and tasks with which it is taken; None for all there are.
        recall: knows what comes of some steps; None knows nothing.
    """
    builder = _Builder(subject, shape, focus, recall)
    while True:
        commands, checks, stopped = builder.everything(numbers)
        possible = builder.possible(commands)
        constants = {name: next(iter(values)) for name, values in possible.items() if len(values) == 1}
        if constants.keys() <= builder.fixed.keys():
            break
        builder.fixed = constants
    claims = tuple((name, _truth(holds)) for name, holds in invariants(builder.symbolic_world()))
    claims = tuple((name, holds) for name, holds in claims if holds.op != "const" or not holds.args[0])
    relevant = _relevant(commands, [*(c.holds for c in checks), *(holds for _, holds in claims)])
    kept = [slot for slot in builder.slots if slot.variable.name in relevant]
    commands = [replace(c, updates={n: v for n, v in c.updates.items() if n in relevant}) for c in commands]
    return Model(
        shape=shape,
        focus=focus,
        subject=subject,
        variables=tuple(replace(slot.variable, values=tuple(sorted(possible[slot.variable.name]))) for slot in kept),
        initial={slot.variable.name: slot.initial for slot in kept},
        commands=tuple(commands),
        checks=tuple(checks),
        stopped=tuple(stopped),
        invariants=claims,
    )
