"""The model as a Promela text, so that Spin can visit its states and give a verdict of its own.

One process repeats one ``do``: an option for each command, and one for each claim, which is taken where the claim is
broken and fails its assertion.  An option is a ``d_step``, so Spin stores a state exactly where this program counts
one.  The process is nowhere but at its ``do``, before the first step and after each.  For the same number of states::

    spin -a model.pml
    gcc -O2 -DSAFETY -DNOFAIR -o pan pan.c
    ./pan -m1000000 -c0

``-c0`` goes on past what is broken, as the search here does.  A failed assertion changes no variable, so it adds no
state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from fpstate.verify.expr import Expr, const, negate, variables, where
from fpstate.verify.model import Command, Model, Variable

__all__ = ["promela"]

_SIGNS: Final = {"and": "&", "or": "|", "xor": "^", "eq": "==", "lt": "<"}
_KEPT: Final = "kept"
_TRUTHS: Final = {"and": "&&", "or": "||", "xor": "!="}


def promela(model: Model) -> str:
    """Return the text of *model*, which depends on nothing else."""
    return "\n".join(_lines(model)) + "\n"


def _lines(model: Model) -> Iterator[str]:
    shape = model.shape
    yield f"/* {model.subject.policy.name}: CPUs {shape.cpus}, tasks {shape.tasks}, vCPUs {shape.vcpus}."
    yield f"   The values that are told apart are those of {model.focus}. */"
    yield ""
    for variable in model.variables:
        yield _declaration(variable, model.initial[variable.name])
    yield from (f"byte {_KEPT}{i};" for i in range(max(map(_kept, model.commands), default=0)))
    yield ""
    yield "active proctype model()"
    yield "{"
    yield "end:\tdo"
    for command in model.commands:
        yield from _command(command)
    for name, broken in _claims(model).items():
        yield f"\t/* {name} */"
        yield f"\t:: d_step {{ {_text(broken)} -> assert(false) }}"
    yield "\tod"
    yield "}"


def _declaration(variable: Variable, initial: int) -> str:
    bits = max(variable.values).bit_length()
    name = _name(variable.name)
    return f"bit {name} = {initial};" if bits == 1 else f"unsigned {name} : {bits} = {initial};"


def _name(name: str) -> str:
    return name.replace(".", "_")


def _command(command: Command) -> Iterator[str]:
    guard = " && ".join(map(_text, command.guard)) or "true"
    arguments = ", ".join(f"{kind} {number}" for kind, number in command.arguments)
    yield f"\t/* {command.step}({arguments}) */"
    yield f"\t:: d_step {{ {' ; '.join([f'{guard} -> true', *_assignments(command.updates)])} }}"


def _assignments(updates: Mapping[str, Expr]) -> Iterator[str]:
    """Yield assignments that have the effect of doing all at once: each comes before those to what it reads.

    Of two that read each other one is kept in a variable beside, which is 0 between steps: Spin's breadth-first mode
    allows none that is hidden from it.
    """
    reads = {name: variables(value) & updates.keys() - {name} for name, value in updates.items()}
    kept: list[str] = []
    while reads:
        name = next((n for n in reads if not any(n in read for read in reads.values())), None)
        if name is None:
            name = next(n for n in reads if reads[n])
            yield f"{_KEPT}{len(kept)} = {_text(updates[name])}"
            kept.append(name)
            reads[name] = set()
            continue
        if name not in kept:
            yield f"{_name(name)} = {_text(updates[name])}"
        else:
            yield f"{_name(name)} = {_KEPT}{kept.index(name)}"
        del reads[name]
    yield from (f"{_KEPT}{i} = 0" for i in range(len(kept)))


def _kept(command: Command) -> int:
    """Return how many values *command* keeps beside."""
    return sum(text.startswith(_KEPT) and text.endswith(" = 0") for text in _assignments(command.updates))


def _claims(model: Model) -> dict[str, Expr]:
    """Return for each claim, by name, where it is broken."""
    broken: dict[str, Expr] = {}
    for check in model.checks:
        bad = negate(check.holds)
        for condition in reversed(check.guard):
            bad = where(condition, bad, 0)
        broken[check.property] = where(broken.get(check.property, const(0)), 1, bad)
    for name, holds in model.invariants:
        broken[name] = where(broken.get(name, const(0)), 1, negate(holds))
    return broken


def _text(e: Expr) -> str:
    """Return *e* in Promela."""
    if e.op == "const":
        return str(e.args[0])
    if e.op == "var":
        return _name(e.args[0])
    if e.op == "where":
        return _choice(*e.args)
    a, b = e.args
    if e.op == "eq" and b.op == "const" and not b.args[0] and a.boolean:
        if a.op == "eq":
            return f"({_text(a.args[0])} != {_text(a.args[1])})"
        return f"!{_text(a)}"
    signs = _TRUTHS if e.boolean and a.boolean and b.boolean else {}
    return f"({_text(a)} {signs.get(e.op, _SIGNS[e.op])} {_text(b)})"


def _choice(condition: Expr, yes: Expr, no: Expr) -> str:
    """Return a choice; with a constant on one side it is an ``&&`` or ``||``, which stops where the choice does."""
    if no.op == "const" and not no.args[0] and yes.boolean:
        return f"({_text(condition)} && {_text(yes)})"
    if yes.op == "const" and yes.args[0] == 1 and no.boolean:
        return f"({_text(condition)} || {_text(no)})"
    if yes.op == "const" and not yes.args[0] and no.boolean:
        return f"({_text(negate(condition))} && {_text(no)})"
    return f"({_text(condition)} -> {_text(yes)} : {_text(no)})"
