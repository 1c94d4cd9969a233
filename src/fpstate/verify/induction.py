"""Proof for any number of CPUs, tasks and vCPUs: an invariant that holds at the start and that every step keeps.

The steps speak of one CPU and at most two tasks, the clauses of at most two CPUs and one task beside the focus.  Take a
state of any size that satisfies the invariant, a step from it, and a clause that fails afterwards: what they speak of
are at most three CPUs and four tasks, and leaving all others out changes nothing that the step or the clause looks at.
So it is enough to look at three CPUs and four tasks, where ``curr``, ``fpregs_owner_ctx`` and ``last_cpu`` may also
name one that was left out, and where every task may have a vCPU.  z3 does, for each step.
"""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import z3

from fpstate.verify.expr import Expr, evaluate, variables
from fpstate.verify.invariants import invariants
from fpstate.verify.model import Check, Command, Model, Subject, build
from fpstate.verify.question import Shape
from fpstate.verify.result import Failure, Taken

__all__ = ["GENERIC", "Induction", "prove"]

GENERIC: Final = Shape(3, 4, 4, open=True)
"""What stands for any shape."""
_TOGETHER: Final = 16
"""Properties in one question."""


@dataclass(slots=True)
class Induction:
    """What came of a proof.

    Attributes:
        proven: the invariant is inductive, and every property follows.
        clauses: names of the invariant's clauses.
        queries: questions that z3 answered.
        failures: those that it answered with a state, at most one a clause.
        unknown: questions that it could not answer in time.
        seconds: taken.
    """

    proven: bool = False
    clauses: tuple[str, ...] = ()
    queries: int = 0
    failures: list[Failure] = field(default_factory=list)
    unknown: int = 0
    seconds: float = 0.0


def numbers(step_parameters: tuple[str, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the CPUs and tasks that a step is taken with: any other choice differs in names only.

    CPU 0 is the step's, task 0 the focus; the step's tasks are the focus or not.
    """
    ranges = {"cpu": (0,), "task": (0, 1), "other": (0, 1, 2)}
    for chosen in itertools.product(*(ranges[kind] for kind in step_parameters)):
        tasks = [n for kind, n in zip(step_parameters, chosen, strict=True) if kind != "cpu"]
        if len(set(tasks)) == len(tasks) and tasks != [0, 2]:
            yield chosen


_OF_TRUTHS: Final = {"and": z3.And, "or": z3.Or, "xor": z3.Xor, "eq": operator.eq}
_OF_VECTORS: Final = {
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "eq": operator.eq,
    "lt": z3.ULT,
}


class _Translator:
    """From `Expr` to z3: truth values to Bool, the rest to 8-bit vectors."""

    def __init__(self, model: Model, prime: str = "") -> None:
        self.sizes = {v.name: v for v in model.variables}
        self.prime = prime
        self.cache: dict[int, Any] = {}
        self.made: dict[str, Any] = {}

    def variable(self, name: str) -> Any:
        if name not in self.made:
            primed, values = name + self.prime, self.sizes[name].values
            self.made[name] = z3.Bool(primed) if max(values) <= 1 else z3.BitVec(primed, 8)
        return self.made[name]

    def domain(self) -> Iterator[Any]:
        """Yield what makes a value one that the variable can have."""
        for name, v in self.sizes.items():
            if v.values != (0, 1):
                yield z3.Or([self._equal(self.variable(name), value) for value in v.values])

    @staticmethod
    def _equal(term: Any, value: int) -> Any:
        if z3.is_bool(term):
            return term if value == 1 else z3.Not(term) if value == 0 else z3.BoolVal(val=False)
        return term == z3.BitVecVal(value, 8)

    def truth(self, e: Expr) -> Any:
        """Return *e* as a Bool."""
        term = self.of(e)
        return term if z3.is_bool(term) else term != 0

    def of(self, e: Expr) -> Any:
        key = id(e)
        if key not in self.cache:
            self.cache[key] = self._make(e)
        return self.cache[key]

    def _make(self, e: Expr) -> Any:
        if e.op == "const":
            return z3.BoolVal(bool(e.args[0])) if e.args[0] < 2 else z3.BitVecVal(e.args[0], 8)
        if e.op == "var":
            return self.variable(e.args[0])
        if e.op == "where":
            return self._choice(*map(self.of, e.args))
        a, b = map(self.of, e.args)
        if e.op == "eq" and e.args[1].op == "const":
            return self._equal(a, e.args[1].args[0])
        if z3.is_bool(a) and z3.is_bool(b):
            return _OF_TRUTHS[e.op](a, b)
        return _OF_VECTORS[e.op](_vector(a), _vector(b))

    @staticmethod
    def _choice(condition: Any, yes: Any, no: Any) -> Any:
        if z3.is_bool(yes) and z3.is_bool(no):
            return z3.If(condition, yes, no)
        return z3.If(condition, _vector(yes), _vector(no))


def _any_of(terms: Sequence[Any]) -> Any:
    """Return z3.Or of Bools, which would first look at the sort of each."""
    return z3.BoolRef(z3.Z3_mk_or(z3.main_ctx().ref(), len(terms), _array(terms)))


def _all_of(terms: Sequence[Any]) -> Any:
    """Return z3.And of Bools, likewise."""
    return z3.BoolRef(z3.Z3_mk_and(z3.main_ctx().ref(), len(terms), _array(terms)))


def _array(terms: Sequence[Any]) -> Any:
    return (z3.Ast * len(terms))(*(term.ast for term in terms))


_ZERO: Final = z3.BitVecVal(0, 8)
_ONE: Final = z3.BitVecVal(1, 8)


def _vector(term: Any) -> Any:
    return z3.If(term, _ONE, _ZERO) if z3.is_bool(term) else term


class _Proof:
    def __init__(self, model: Model, timeout: int, *, thorough: bool) -> None:
        self.model, self.thorough = model, thorough
        self.translate = _Translator(model)
        self.solver = z3.SolverFor("QF_BV")
        self.solver.set("timeout", timeout)
        self.names: list[str] = []
        self.clauses: list[Any] = []
        for name, holds in model.invariants:
            self.names.append(name)
            self.clauses.append(self.translate.truth(holds))
        self.solver.add(*self.translate.domain(), *self.clauses)
        self.result = Induction(clauses=tuple(dict.fromkeys(self.names)))
        self.failed: set[str] = set()
        self.mentioned = [variables(holds) for _, holds in model.invariants]
        later = _Translator(model, "'")
        self.primed = {name: later.variable(name) for name in later.sizes}
        self.unchanged = {name: self.primed[name] == self.translate.variable(name) for name in later.sizes}
        self.wrong_after = [z3.Not(later.truth(holds)) for _, holds in model.invariants]

    def run(self) -> Induction:
        started = time.perf_counter()
        self._start()
        for start in range(0, len(self.model.checks), _TOGETHER):
            self._properties(self.model.checks[start : start + _TOGETHER])
        for command in self.model.commands:
            if self.failed and not self.thorough:
                break
            self._step(command)
        self.result.proven = not self.result.failures and not self.result.unknown
        self.result.seconds = time.perf_counter() - started
        return self.result

    def _start(self) -> None:
        """The initial state satisfies every clause."""
        for name, holds in self.model.invariants:
            if not evaluate(holds, self.model.initial):
                self._fail(name, None, dict(self.model.initial))

    def _broken(self, check: Check) -> Any:
        """Return when *check* fails."""
        truth = self.translate.truth
        return _all_of([*map(truth, check.guard), z3.Not(truth(check.holds))])

    def _properties(self, checks: Sequence[Check]) -> None:
        """Ask about many at once; about each if one of them fails."""
        self.solver.push()
        self.solver.add(_any_of([self._broken(check) for check in checks]))
        fails = self._ask()
        self.solver.pop()
        if fails:
            for check in checks:
                self._property(check)

    def _property(self, check: Check) -> None:
        """The invariant implies the property where the step has got to."""
        if check.property in self.failed:
            return
        self.solver.push()
        self.solver.add(self._broken(check))
        if self._ask():
            ids = tuple(map(id, check.guard))
            command = next(
                c
                for c in (*self.model.commands, *self.model.stopped)
                if (c.step, c.arguments) == (check.step, check.arguments) and tuple(map(id, c.guard[: len(ids)])) == ids
            )
            self._fail(check.property, command, self._state())
        self.solver.pop()

    def _step(self, command: Command) -> None:
        """A step keeps the invariant."""
        touched = [
            (name, wrong, names)
            for name, wrong, names in zip(self.names, self.wrong_after, self.mentioned, strict=True)
            if name not in self.failed and not names.isdisjoint(command.updates)
        ]
        if not touched:
            return
        self.solver.push()
        after = [
            self.primed[name] == self._as(name, command.updates[name])
            if name in command.updates
            else self.unchanged[name]
            for name in sorted(set[str]().union(*(names for _, _, names in touched)))
        ]
        wrong = _any_of([wrong for _, wrong, _ in touched])
        self.solver.add(_all_of([*map(self.translate.truth, command.guard), *after, wrong]))
        if self._ask():
            model = self.solver.model()
            name = next(n for n, wrong, _ in touched if z3.is_true(model.eval(wrong, model_completion=True)))
            self._fail(name, command, self._state())
        self.solver.pop()

    def _as(self, name: str, value: Expr) -> Any:
        term = self.translate.of(value)
        if z3.is_bool(self.translate.variable(name)):
            return term if z3.is_bool(term) else term != 0
        return _vector(term)

    def _ask(self) -> bool:
        self.result.queries += 1
        answer = self.solver.check()
        self.result.unknown += answer == z3.unknown
        return bool(answer == z3.sat)

    def _state(self) -> dict[str, int]:
        model = self.solver.model()
        state = {}
        for v in self.model.variables:
            value = model.eval(self.translate.variable(v.name), model_completion=True)
            state[v.name] = int(z3.is_true(value)) if z3.is_bool(value) else value.as_long()
        return state

    def _fail(self, clause: str, command: Command | None, state: dict[str, int]) -> None:
        self.failed.add(clause)
        taken = Taken(command.step, command.arguments) if command else None
        self.result.failures.append(Failure(clause, taken, state))


def prove(subject: Subject, focus: str, *, timeout: int = 20_000, thorough: bool = True) -> Induction:
    """Try to prove every property of *subject* for any number of CPUs, tasks and vCPUs.

    Args:
        subject: the component and the kernel.
        focus: ``task0`` or ``guest0``.
        timeout: milliseconds for one question.
        thorough: find every clause that fails; else the first is enough.
    """
    model = build(subject, GENERIC, focus, invariants, numbers)
    return _Proof(model, timeout, thorough=thorough).run()
