"""Every small mistake that can be made in the kernel's functions, and whether the verifier notices it.

A mutation drops a statement of a function of `fpstate.linux.kernel`, swaps it with the next, negates a condition, or
flips the bit of a class of components in a mask; what the kernel claims about itself is left alone.  A mutation that
no property notices has survived: either it changes nothing that matters, or the properties do not speak of it.
``data/survivors.toml`` says which, for each.
"""

from __future__ import annotations

import ast
import inspect
import multiprocessing
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any, Final

from fpstate import toml
from fpstate.cpu import by_name as cpu_by_name
from fpstate.errors import FpstateError, UsageError
from fpstate.linux import policy as policies
from fpstate.linux.boot import boot
from fpstate.linux.config import BootConfig
from fpstate.linux.kernel import Kernel, Sets
from fpstate.linux.steps import Assumptions, Step, World
from fpstate.verify.check import subjects
from fpstate.verify.history import BASE, CPU
from fpstate.verify.invariants import invariants
from fpstate.verify.model import Command, Fixed, Model, Recall, Subject, Taken, build
from fpstate.verify.properties import property_of, static_verdicts
from fpstate.verify.question import Shape
from fpstate.verify.search import Limits, search

__all__ = [
    "MASKS",
    "Mutation",
    "Outcome",
    "Tally",
    "choose",
    "explanation",
    "mutations",
    "run_mutation",
    "run_mutations",
]

MASKS: Final = ("restore", "guest_restore", "supervisor", "user_restore", "default", "guest_default")
"""The masks of saving and loading that are narrowed or widened."""
_SMALL: Final = Shape(1, 2, 1)
_LARGER: Final = Shape(2, 2, 1)
_SLOW: Final = frozenset({"user-dynamic", "permissions"})
"""Classes that are looked at last."""
_DESIGNS: Final = (
    ("cet-kernel", "independent", False),
    ("cet-kernel", "raw-msr", False),
    ("cet-kernel", "resident", False),
    ("cet-kernel", "default-on", True),
    ("permissions", "linux-6.12", False),
)
"""Classes that other policies treat otherwise, and whether the host uses supervisor shadow stacks itself."""
_FLIPPED_TOO: Final = {"cet-kernel": "cet-kernel, default-on, host-sss"}
"""A class of which no task has values, and where tasks do."""
EQUIVALENT: Final = "equivalent because "
OUTSIDE: Final = "outside the properties because "
"""How an explanation begins."""
_COMMUTE: Final = EQUIVALENT + "the two statements commute: no model changes"
_UNCALLED: Final = (
    OUTSIDE + "no step calls the function: calls and other regsets do, which tests hold to what kernels do"
)
_MOST_STATES: Final = 300_000
_NO_KERNEL: Final = (FpstateError, AttributeError, TypeError, KeyError, RecursionError, NameError)
"""What running a function raises that makes no sense any more."""
_COMPOUND: Final = ast.If | ast.For | ast.While | ast.Try | ast.With


@dataclass(frozen=True, slots=True)
class Mutation:
    """One mutation.

    Attributes:
        id: the function or mask, and what is done to it.
        kernel: the mutated kernel.
        mask, component: the mask in which the bit of that class is flipped; "" if it is the kernel that is mutated.
    """

    id: str
    kernel: type[Kernel] = Kernel
    mask: str = ""
    component: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutation.

    Attributes:
        mutation: the mutation.
        killed_by: the claim that it breaks, ``error: ...`` if it is no kernel at all; "" if it has survived.
        component: the class in which it does.
        changes: whether it changes any model; if not, it is the same kernel to the verifier.
        why: of a survivor, the explanation; "" if there is none.
    """

    mutation: Mutation
    killed_by: str = ""
    component: str = ""
    changes: bool = True
    why: str = ""


@dataclass(slots=True)
class Tally:
    """What became of them all.

    Attributes:
        outcomes: one a mutation.
    """

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def killed(self) -> int:
        """How many were noticed."""
        return sum(bool(outcome.killed_by) for outcome in self.outcomes)

    @property
    def survivors(self) -> list[Outcome]:
        """Those that were not."""
        return [outcome for outcome in self.outcomes if not outcome.killed_by]

    @property
    def equivalent(self) -> list[Outcome]:
        """Those of them that change nothing that matters."""
        return [outcome for outcome in self.survivors if outcome.why.startswith(EQUIVALENT)]

    @property
    def outside(self) -> list[Outcome]:
        """Those of them that do, of which no property speaks."""
        return [outcome for outcome in self.survivors if outcome.why.startswith(OUTSIDE)]

    @property
    def unexplained(self) -> list[Outcome]:
        """Those of them of which nobody has said why."""
        return [outcome for outcome in self.survivors if not outcome.why]


# -- the mutations ----------------------------------------------------------------------------------------------------


def mutations() -> Iterator[Mutation]:
    """Yield every mutation, in the order of the kernel's layers."""
    for layer in reversed(Kernel.__mro__[1:-1]):
        yield from _of_layer(layer)
    for mask in MASKS:
        for name in _subjects(Kernel):
            if "," not in name and name != "permissions":  # its component is that of user-dynamic
                yield Mutation(f"Sets.{mask}: flip {name}", mask=mask, component=name)


def _of_layer(layer: type) -> Iterator[Mutation]:
    tree = ast.parse(inspect.getsource(sys.modules[layer.__module__]))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == layer.__name__)
    seen: dict[str, int] = {}
    for function in body:
        if not isinstance(function, ast.FunctionDef) or function.name == "__init__":
            continue
        for what, mutant in _of_function(function):
            name = f"{layer.__name__}.{function.name}: {what}"
            seen[name] = seen.get(name, 0) + 1
            again = f" ({seen[name]})" if seen[name] > 1 else ""
            yield Mutation(name + again, _kernel(layer, mutant))


def _of_function(function: ast.FunctionDef) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield what is done, and the function to which it is done."""
    for number, block in enumerate(_blocks(function)):
        for i, statement in enumerate(block):
            if not _is_simple(statement):
                continue
            yield f"drop {_text(statement)}", _with_block(function, number, [*block[:i], *block[i + 1 :]])
            following = block[i + 1] if i + 1 < len(block) else None
            if following is not None and _is_simple(following) and not isinstance(following, ast.Return | ast.Raise):
                swapped = [*block[:i], following, statement, *block[i + 2 :]]
                yield f"swap {_text(statement)} and {_text(following)}", _with_block(function, number, swapped)
    for number, node in enumerate(_conditions(function)):
        copy = _copied(function)
        condition = list(_conditions(copy))[number]
        condition.test = ast.UnaryOp(ast.Not(), condition.test)
        yield f"negate {_text(node.test)}", copy


def _blocks(function: ast.FunctionDef) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(function):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block:
                yield block


def _conditions(function: ast.FunctionDef) -> Iterator[ast.If | ast.IfExp]:
    return (node for node in ast.walk(function) if isinstance(node, ast.If | ast.IfExp))


def _with_block(function: ast.FunctionDef, number: int, block: list[ast.stmt]) -> ast.FunctionDef:
    """Return a copy of *function* with *block* as its block *number*."""
    copy = _copied(function)
    list(_blocks(copy))[number][:] = block or [ast.Pass()]
    return copy


def _copied(function: ast.FunctionDef) -> ast.FunctionDef:
    copy = ast.parse(ast.unparse(function)).body[0]
    assert isinstance(copy, ast.FunctionDef)  # noqa: S101  for the type checker
    return copy


def _is_simple(statement: ast.stmt) -> bool:
    """Tell whether *statement* is a simple one that does something: no docstring, nothing told to the specification."""
    if isinstance(statement, _COMPOUND | ast.Pass):
        return False
    value = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(value, ast.Constant):
        return False
    return not (isinstance(value, ast.Call) and ast.unparse(value.func).startswith("self.spec."))


def _text(node: ast.AST) -> str:
    return f"`{ast.unparse(node)}`"


def _kernel(layer: type, function: ast.FunctionDef) -> type[Kernel]:
    """Return the kernel whose *layer* has *function* in place of its own.

    It is compiled within a class of the layer's name, by which Python mangles names that begin with two underscores.
    """
    holder = ast.ClassDef(layer.__name__, bases=[], keywords=[], body=[function], decorator_list=[])
    module = ast.fix_missing_locations(ast.Module([holder], []))
    names = dict(vars(sys.modules[layer.__module__]))
    exec(compile(module, layer.__module__, "exec"), names)  # noqa: S102  it is this package's own source
    made = {name: value for name, value in vars(names[layer.__name__]).items() if inspect.isfunction(value)}
    return type("Mutant", (Kernel,), made)


# -- whether they are noticed -----------------------------------------------------------------------------------------


@cache
def _config(policy: str) -> BootConfig:
    return boot(cpu_by_name(CPU), policies.find(policy))


def _subjects(kernel: type[Kernel]) -> dict[str, Subject]:
    """Return what to look at by its name: the classes, and some under other policies."""
    found = {kind.name: subject for kind, _, subject in subjects(_config(BASE), Assumptions(), kernel)}
    for component, policy, host_sss in _DESIGNS:
        of_design = subjects(_config(policy), Assumptions(host_sss=host_sss), kernel)
        name = f"{component}, {policy}{', host-sss' if host_sss else ''}"
        found[name] = next(s for kind, _, s in of_design if kind.name == component)
    return {name: found[name] for name in sorted(found, key=lambda name: _class(name) in _SLOW)}


def _class(name: str) -> str:
    return name.partition(",")[0]


def _claims(w: World) -> Iterator[tuple[str, Any]]:
    return ((name, holds) for name, holds in invariants(w) if property_of(name))


_Signature = tuple[object, ...]


def _signature(model: Model) -> _Signature:
    """Return what two models that are the same have in common: expressions are shared, so their identities will do."""

    def of(command: Command) -> _Signature:
        updates = tuple((name, id(value)) for name, value in sorted(command.updates.items()))
        return (command.step, command.arguments, tuple(map(id, command.guard)), updates)

    checks = frozenset((c.property, c.step, c.arguments, tuple(map(id, c.guard)), id(c.holds)) for c in model.checks)
    claims = frozenset((name, id(holds)) for name, holds in model.invariants)
    return (frozenset(map(of, model.commands)), checks, claims, model.variables)


class _Unmutated:
    """A model of the kernel as it is: what comes of each step there, and the functions that the step calls.

    A step that calls no function that a mutation changes is the same step: it is not taken again.  What is broken
    without a mutation, under a policy that is no good, says nothing about one.
    """

    def __init__(self, subject: Subject, shape: Shape, focus: str) -> None:
        self.known: dict[tuple[str, tuple[int, ...], Fixed], Taken] = {}
        self.calls: dict[str, set[str]] = {}
        self.called: set[str] = set()
        listening = replace(subject, kernel=_listening(self.called))
        model = build(listening, shape, focus, _claims, recall=self._listen)
        self.signature = _signature(model)
        found = search(model, Limits(states=_MOST_STATES)) if _is_design(subject) else None
        self.broken = {broken.property for broken in found.broken} if found else set()

    def _listen(self, step: Step, numbers: tuple[int, ...], fixed: Fixed, take: Callable[[], Taken]) -> Taken:
        self.called.clear()
        taken = self.known[step.name, numbers, fixed] = take()
        self.calls.setdefault(step.name, set()).update(self.called)
        return taken

    def recall(self, changed: Collection[str]) -> Recall:
        """Return what knows the steps that call nothing that is *changed*."""

        def known(step: Step, numbers: tuple[int, ...], fixed: Fixed, take: Callable[[], Taken]) -> Taken:
            if not self.calls[step.name].isdisjoint(changed):
                return take()
            key = (step.name, numbers, fixed)
            if key not in self.known:
                self.known[key] = take()
            return self.known[key]

        return known


def _listening(called: set[str]) -> type[Kernel]:
    """Return the kernel as it is; what is called of it is added to *called*."""

    def look_up(kernel: Kernel, name: str) -> Any:
        called.add(name)
        return object.__getattribute__(kernel, name)

    return type("Listening", (Kernel,), {"__getattribute__": look_up})


def _is_design(subject: Subject) -> bool:
    return subject.policy.name != BASE or subject.assumptions != Assumptions()


def _speaking(model: Model, broken: Collection[str]) -> Model:
    """Return *model* without the claims that are *broken* anyway."""
    checks = tuple(check for check in model.checks if check.property not in broken)
    return replace(model, checks=checks, invariants=tuple(i for i in model.invariants if i[0] not in broken))


@cache
def _unmutated(component: str, shape: Shape, focus: str) -> _Unmutated:
    return _Unmutated(_subjects(Kernel)[component], shape, focus)


_SHAPES: Final = (_SMALL, _LARGER)
"""The quick one first; every step can be taken in it."""


def _foci(component: str, shape: Shape) -> tuple[str, ...]:
    """Return whose values are looked at in a class: none where the shape is too large for it."""
    if _class(component) in _SLOW and shape is not _SMALL:
        return ()
    return ("task0",) if _class(component) == "permissions" else shape.foci()


def _of_mutation(mutation: Mutation) -> dict[str, Subject]:
    """Return what to look at by its name."""
    found = _subjects(mutation.kernel)
    if not mutation.mask:
        return found
    flipped = {}
    for name in (mutation.component, _FLIPPED_TOO.get(mutation.component, mutation.component)):
        subject = found[name]
        mask = getattr(subject.sets, mutation.mask) ^ subject.watched
        flipped[name] = replace(subject, sets=replace(subject.sets, **{mutation.mask: mask}))
    return flipped


def _differing(mutation: Mutation, subject: Subject, component: str, shape: Shape) -> Iterator[Model]:
    """Yield the models of *subject* that are not those of the kernel as it is."""
    changed = _changed(mutation) if not mutation.mask else None
    for focus in _foci(component, shape):
        base = _unmutated(component, shape, focus)
        model = build(subject, shape, focus, _claims, recall=None if changed is None else base.recall(changed))
        if _signature(model) != base.signature:
            yield _speaking(model, base.broken)


def _changed(mutation: Mutation) -> set[str]:
    """Return the names of the functions that a mutation changes."""
    return {name for name in vars(mutation.kernel) if not name.startswith("__")}


def _is_called(mutation: Mutation) -> bool:
    """Tell whether any step calls what a mutation changes."""
    if mutation.mask:
        return True
    changed = _changed(mutation)
    bases = (
        _unmutated(component, _SMALL, focus) for component in _subjects(Kernel) for focus in _foci(component, _SMALL)
    )
    return any(not called.isdisjoint(changed) for base in bases for called in base.calls.values())


def _killed_by_numbers(mutation: Mutation) -> str:
    """Return the property that a boot alone shows to be broken by a mutated mask, "" if none is."""
    if not mutation.mask:
        return ""
    config = _config(BASE)
    sets = Sets.of(config)
    bit = _subjects(Kernel)[mutation.component].watched
    flipped = replace(sets, **{mutation.mask: getattr(sets, mutation.mask) ^ bit})
    found = static_verdicts(config, flipped, Assumptions())
    return next((name for name, (verdict, _, _) in found.items() if verdict == "violated"), "")


def run_mutation(mutation: Mutation) -> Outcome:
    """Look for a property that *mutation* breaks, in one model after the other."""
    broken = _killed_by_numbers(mutation)
    if broken:
        return Outcome(mutation, broken, mutation.component)
    changed: set[str] = set()
    for shape in _SHAPES:
        for component, subject in _of_mutation(mutation).items():
            if shape is not _SMALL and component not in changed:
                continue
            try:
                for model in _differing(mutation, subject, component, shape):
                    changed.add(component)
                    found = search(model, Limits(stop=True, states=_MOST_STATES))
                    if found.broken:
                        return Outcome(mutation, found.broken[0].property, component)
            except _NO_KERNEL as error:
                return Outcome(mutation, f"error: {type(error).__name__}", component)
    commute = not changed and ": swap " in mutation.id
    why = explanation(mutation.id) or (_COMMUTE if commute else "")
    if not why and not changed and not _is_called(mutation):
        why = _UNCALLED
    return Outcome(mutation, changes=bool(changed), why=why)


@cache
def _table() -> dict[str, Mutation]:
    return {mutation.id: mutation for mutation in mutations()}


def choose(text: str) -> list[Mutation]:
    """Return the mutations whose id contains *text*.

    Raises:
        UsageError: none does.
    """
    chosen = [mutation for name, mutation in _table().items() if text in name]
    if not chosen:
        raise UsageError(f"no mutation has {text!r} in its name", cure="fpstate verify --mutations --json names them")
    return chosen


def _run_named(name: str) -> tuple[str, str, bool, str]:
    """Return the outcome without the mutation, whose kernel only this process and its parent have."""
    outcome = run_mutation(_table()[name])
    return outcome.killed_by, outcome.component, outcome.changes, outcome.why


def run_mutations(
    chosen: Sequence[Mutation], jobs: int = 1, progress: Callable[[int, int], None] | None = None
) -> Tally:
    """Look at the *chosen* mutations, in several processes: all take some minutes of one.

    *progress* is called after each, with how many are done, of how many.
    """
    tally = Tally()
    for mutation, outcome in zip(chosen, _outcomes(chosen, jobs), strict=True):
        tally.outcomes.append(Outcome(mutation, *outcome))
        if progress is not None:
            progress(len(tally.outcomes), len(chosen))
    return tally


def _outcomes(chosen: Sequence[Mutation], jobs: int) -> Iterator[tuple[str, str, bool, str]]:
    names = [mutation.id for mutation in chosen]
    if jobs < 2 or len(names) < 2:
        yield from map(_run_named, names)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        yield from pool.map(_run_named, names)


# -- why some are not -------------------------------------------------------------------------------------------------


@cache
def _explanations() -> dict[str, str]:
    name = "data/survivors.toml"
    table = toml.parse(resources.files("fpstate").joinpath(name).read_bytes(), name, "survivors")
    return {mutation: row["because"] for row in table["reason"] for mutation in row["mutations"]}


def explanation(name: str) -> str:
    """Return why the mutation called *name* goes unnoticed, "" if nobody has said."""
    return _explanations().get(name, "")
