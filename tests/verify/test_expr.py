"""Symbolic numbers: they fold, they branch, and they mean what Python's numbers mean."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate.isa import masks
from fpstate.verify.expr import FALSE, TRUE, as_expr, const, evaluate, var, variables, where
from fpstate.verify.paths import Path, explore

X, Y, B = var("x", 10), var("y", 10), var("b", 2)
OPERATORS: list[Callable[[Any, Any], Any]] = [
    operator.and_,
    operator.or_,
    operator.xor,
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
]


def plain_where(condition: Any, yes: Any, no: Any) -> Any:
    return yes if condition else no


@st.composite
def pairs(draw: st.DrawFn, depth: int = 3) -> tuple[Any, Callable[[dict[str, int]], int]]:
    """Return a symbolic number and the function that computes it without symbols."""
    kind = draw(st.sampled_from(["const", "x", "y", "b"] if depth == 0 else ["const", "x", "y", "b", "op", "where"]))
    if kind == "const":
        number = draw(st.integers(0, 12))
        return number, lambda _: number
    if kind in {"x", "y", "b"}:
        return {"x": X, "y": Y, "b": B}[kind], lambda state: state[kind]
    first, plain_first = draw(pairs(depth=depth - 1))
    second, plain_second = draw(pairs(depth=depth - 1))
    if kind == "where":
        condition, plain_condition = draw(pairs(depth=depth - 1))
        return where(condition, first, second), lambda s: plain_where(
            plain_condition(s), plain_first(s), plain_second(s)
        )
    op = draw(st.sampled_from(OPERATORS))
    return op(as_expr(first), second), lambda s: int(op(plain_first(s), plain_second(s)))


@given(pairs(), st.integers(0, 9), st.integers(0, 9), st.integers(0, 1))
def test_simplification_never_changes_a_value(
    pair: tuple[Any, Callable[[dict[str, int]], int]], x: int, y: int, b: int
) -> None:
    symbolic, plain = pair
    state = {"x": x, "y": y, "b": b}
    assert evaluate(as_expr(symbolic), state) == plain(state)


def test_equal_expressions_are_the_same_object() -> None:
    assert (X == 3) is (X == 3)
    assert where(B, X, Y) is where(B, X, Y)


def test_a_comparison_outside_the_variables_range_is_false() -> None:
    assert (X == 10) is FALSE


def test_a_rule_about_masks_folds_to_a_question_about_the_variable() -> None:
    xstate_bv = where(X != 0, 1 << 12, 0)
    loaded = masks.loaded(0x1FFF, xstate_bv)
    assert (loaded & 1 << 12 != 0) is (X != 0)


def test_variables_names_what_an_expression_depends_on() -> None:
    assert variables(where(B, X, 3)) == {"b", "x"}


def test_every_path_through_plain_ifs_is_explored_once() -> None:
    taken = []

    def run(_: Path) -> None:
        if X == 1:
            taken.append("one")
        elif B:
            taken.append("b")
        else:
            taken.append("neither")

    guards = [path.guard for path in explore(run)]
    assert sorted(taken) == ["b", "neither", "one"]
    assert len(guards) == 3


def test_what_a_path_knows_is_not_asked_again() -> None:
    answers = []

    def run(_: Path) -> None:
        if X == 1:
            answers.append((bool(X == 1), bool(X == 2), bool(X != 1)))

    list(explore(run))
    assert answers == [(True, False, False)]


@pytest.mark.parametrize("number", [0, 1, 7, (1 << 64) - 1])
def test_constants_are_numbers(number: int) -> None:
    assert const(number).args == (number,)
    assert bool(const(number)) is bool(number)


def test_truth_values() -> None:
    same = X
    assert (same == X) is TRUE
