"""The compiled search finds what the one with NumPy finds."""

from __future__ import annotations

from functools import cache

import pytest

pytest.importorskip("numba", reason="Numba is missing: pip install fpstate[verify]")

import numpy as np

from fpstate import cpu_by_name, policy
from fpstate.linux.boot import boot
from fpstate.linux.kernel import Cpu, Kernel
from fpstate.linux.steps import Assumptions
from fpstate.verify.check import subjects
from fpstate.verify.expr import evaluate
from fpstate.verify.invariants import invariants
from fpstate.verify.model import Model, Shape, build
from fpstate.verify.properties import property_of
from fpstate.verify.search import Engine, Found, Limits, search
from fpstate.verify.source import layout
from fpstate.verify.views import learned

ENGINES: tuple[Engine, Engine] = ("compiled", "numpy")
SPR = cpu_by_name("sapphire-rapids")


class KeepsOwner(Kernel):
    def cpu_invalidate_fpregs_state(self, cpu: Cpu) -> None:
        pass


@cache
def model(component: str, shape: Shape, focus: str, kernel: type[Kernel] = Kernel, name: str = "repaired") -> Model:
    found = subjects(boot(SPR, policy(name)), Assumptions(), kernel)
    subject = next(subject for kind, _, subject in found if kind.name == component)
    return build(subject, shape, focus, lambda w: (c for c in invariants(w) if property_of(c[0])))


def unreduced(made: Model, engine: Engine, *, stop: bool = False) -> Found:
    return search(made, Limits(symmetry=False, liveness=False, stop=stop), engine=engine)


def numbers(found: Found) -> tuple[object, ...]:
    return found.states, found.edges, found.depth, found.complete, [b.property for b in found.broken]


@pytest.mark.parametrize("component", ["user", "user-dynamic", "pkru", "cet-user", "cet-kernel", "independent"])
@pytest.mark.parametrize("shape", [Shape(1, 1, 1), Shape(1, 2, 1), Shape(2, 2, 1)])
def test_both_engines_visit_the_same_states(component: str, shape: Shape) -> None:
    if component in {"user-dynamic", "pkru"} and shape == Shape(2, 2, 1):
        pytest.skip("its states are many")
    for focus in shape.foci():
        made = model(component, shape, focus)
        assert numbers(unreduced(made, "compiled")) == numbers(unreduced(made, "numpy"))


@pytest.mark.parametrize("stop", [False, True])
def test_both_engines_find_as_short_a_run(stop: bool) -> None:
    made = model("user", Shape(2, 2, 1), "task0", KeepsOwner)
    ours, other = (unreduced(made, engine, stop=stop) for engine in ("compiled", "numpy"))
    assert [b.property for b in ours.broken] == [b.property for b in other.broken] != []
    for mine, its in zip(ours.broken, other.broken, strict=True):
        assert len(mine.run.commands) == len(its.run.commands)
        assert len(mine.run.states) == len(its.run.states)
        assert mine.run.states[0] == made.initial


@pytest.mark.parametrize("component", ["user", "pkru", "cet-kernel", "independent"])
@pytest.mark.parametrize("shape", [Shape(2, 2, 1), Shape(2, 2, 2), Shape(1, 3, 1)])
def test_reductions_leave_the_same_states_in_both_engines(component: str, shape: Shape) -> None:
    for focus in shape.foci():
        made = model(component, shape, focus)
        assert numbers(search(made, Limits(), engine="compiled")) == numbers(search(made, Limits(), engine="numpy"))


def test_what_is_guessed_to_be_dead_and_is_not_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(small: Model, large: Model) -> dict[str, object]:
        return {kind: np.zeros_like(table) for kind, table in learned(small, large).items()}

    made = model("user", Shape(2, 2, 1), "guest0")
    monkeypatch.setattr("fpstate.verify.compiled.learned", nothing)
    assert numbers(search(made, Limits(), engine="compiled")) == numbers(search(made, Limits(), engine="numpy"))


def test_reductions_leave_as_short_a_run() -> None:
    for focus in ("task0", "task1"):
        made = model("user", Shape(2, 2, 1), focus, KeepsOwner)
        ours, other = (search(made, Limits(stop=True), engine=engine) for engine in ENGINES)
        assert [b.property for b in ours.broken] == [b.property for b in other.broken] != []
        for mine, its in zip(ours.broken, other.broken, strict=True):
            assert len(mine.run.commands) == len(its.run.commands)


@pytest.mark.parametrize("component", ["user-dynamic", "permissions"])
def test_a_property_of_a_design_is_broken_by_either_engine(component: str) -> None:
    made = model(component, Shape(1, 1, 1), "task0", Kernel, "linux-6.18")
    assert numbers(unreduced(made, "compiled")) == numbers(unreduced(made, "numpy"))


def test_a_state_of_two_words_is_found_again() -> None:
    made = model("user", Shape(3, 4, 2), "guest0")
    place = layout(made.variables)
    assert place.words == 2
    assert place.unpack(place.pack(made.initial)) == made.initial
    assert unreduced_part(made, "compiled") == unreduced_part(made, "numpy")


def unreduced_part(made: Model, engine: Engine) -> tuple[object, ...]:
    if engine == "numpy":  # its control states are too many for this shape: Python's own
        return _plain(made, 6)
    found = search(made, Limits(symmetry=False, liveness=False, states=300), engine=engine)
    return found.states, found.depth


def _plain(made: Model, depth: int) -> tuple[object, ...]:
    seen = frontier = {tuple(made.initial.items())}
    for level in range(1, depth + 1):
        reached = set()
        for state in frontier:
            now = dict(state)
            for command in made.commands:
                if all(evaluate(condition, now) for condition in command.guard):
                    after = now | {name: evaluate(value, now) for name, value in command.updates.items()}
                    reached.add(tuple(after.items()))
        frontier = reached - seen
        seen = seen | frontier
        if len(seen) > 300:
            return len(seen), level
    raise AssertionError("too few states")
