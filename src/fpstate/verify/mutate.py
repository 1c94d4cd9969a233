"""Every small mistake that can be made in the kernel's functions, and whether the verifier notices it.

A mutation drops a statement of a function of `fpstate.linux.kernel`, swaps it with the next, negates a condition, or
flips the bit of a class of components in a mask; what the kernel claims about itself is left alone.  A mutation that
no property notices has survived: either it changes nothing that matters, or the properties do not speak of it.
``data/survivors.toml`` says which, for each.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any, Final

from fpstate import toml
from fpstate.cpu import by_name as cpu_by_name
from fpstate.errors import FpstateError
from fpstate.linux import policy as policies
from fpstate.linux.boot import boot
from fpstate.linux.config import BootConfig
from fpstate.linux.kernel import Kernel
from fpstate.linux.steps import Assumptions, World
from fpstate.verify.check import subjects
from fpstate.verify.history import BASE, CPU
from fpstate.verify.invariants import invariants
from fpstate.verify.model import Command, Model, Subject, build
from fpstate.verify.properties import property_of
from fpstate.verify.question import Shape
from fpstate.verify.search import Limits, search

__all__ = ["MASKS", "Mutation", "Outcome", "Tally", "explanation", "mutations", "run_mutation", "run_mutations"]

MASKS: Final = ("restore", "guest_restore", "supervisor", "user_restore", "default", "guest_default")
"""The masks of saving and loading that are narrowed or widened."""
_SMALL: Final = Shape(1, 2, 1)
_LARGER: Final = Shape(2, 2, 1)
_SLOW: Final = frozenset({"user-dynamic", "permissions"})
"""Classes that are looked at last."""
_OTHERWISE: Final = "cet-kernel"
_DESIGNS: Final = ("independent", "raw-msr", "resident")
"""Policies that keep components of this class in other places than the merged one."""
_COMMUTE: Final = "equivalent because the two statements commute: no model changes"
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
            if "," not in name:
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
            if following is not None and _is_simple(following):
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
    """Return what to look at by its name: the classes, and CET_KERNEL under the designs that keep it elsewhere."""
    found = {kind.name: subject for kind, _, subject in subjects(_config(BASE), Assumptions(), kernel)}
    for design in _DESIGNS:
        of_design = subjects(_config(design), Assumptions(), kernel)
        found[f"{_OTHERWISE}, {design}"] = next(s for kind, _, s in of_design if kind.name == _OTHERWISE)
    return {name: found[name] for name in sorted(found, key=_SLOW.__contains__)}


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


@cache
def _unmutated(component: str, shape: Shape, focus: str) -> _Signature:
    return _signature(build(_subjects(Kernel)[component], shape, focus, _claims))


def _shapes(component: str) -> Iterator[tuple[Shape, tuple[str, ...]]]:
    """Yield the shapes and foci of a class, the quick ones first; in the first pair every step can be taken."""
    if component == "permissions":
        yield _SMALL, ("task0",)
        return
    yield _SMALL, _SMALL.foci()
    if component != "user-dynamic":
        yield _LARGER, _LARGER.foci()


def _differing(subject: Subject, component: str, shape: Shape, foci: tuple[str, ...]) -> Iterator[Model]:
    """Yield the models of *subject* that are not those of the kernel as it is."""
    for focus in foci:
        model = build(subject, shape, focus, _claims)
        if _signature(model) != _unmutated(component, shape, focus):
            yield model


def run_mutation(mutation: Mutation) -> Outcome:
    """Look for a property that *mutation* breaks, in one model after the other."""
    changes = False
    for component, whole in _subjects(mutation.kernel).items():
        subject = whole
        if mutation.mask:
            if component != mutation.component:
                continue
            mask = getattr(subject.sets, mutation.mask) ^ subject.watched
            subject = replace(subject, sets=replace(subject.sets, **{mutation.mask: mask}))
        try:
            for shape, foci in _shapes(component):
                same = True
                for model in _differing(subject, component, shape, foci):
                    same, changes = False, True
                    found = search(model, Limits(stop=True, states=_MOST_STATES))
                    if found.broken:
                        return Outcome(mutation, found.broken[0].property, component)
                if same:
                    break
        except _NO_KERNEL as error:
            return Outcome(mutation, f"error: {type(error).__name__}", component)
    commute = not changes and ": swap " in mutation.id
    return Outcome(mutation, changes=changes, why=_COMMUTE if commute else explanation(mutation.id))


def run_mutations(progress: Callable[[int, Outcome], None] | None = None) -> Tally:
    """Look at every mutation, for some minutes; *progress* is called after each, with how many there are."""
    tally, every = Tally(), list(mutations())
    for mutation in every:
        tally.outcomes.append(run_mutation(mutation))
        if progress is not None:
            progress(len(every), tally.outcomes[-1])
    return tally


# -- why some are not -------------------------------------------------------------------------------------------------


@cache
def _explanations() -> dict[str, str]:
    name = "data/survivors.toml"
    table = toml.parse(resources.files("fpstate").joinpath(name).read_bytes(), name, "survivors")
    return {mutation: row["because"] for row in table["reason"] for mutation in row["mutations"]}


def explanation(name: str) -> str:
    """Return why the mutation called *name* goes unnoticed, "" if nobody has said."""
    return _explanations().get(name, "")
