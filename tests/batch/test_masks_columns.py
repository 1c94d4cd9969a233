"""The rules on masks are the same functions for an int and for a NumPy column, and as compiled for kernels."""

from __future__ import annotations

import inspect
from types import FunctionType

import pytest

pytest.importorskip("numba", reason="fpstate[batch] is not installed")

import numpy as np

from batch.cases import seeded
from fpstate.batch.jit import _scope
from fpstate.isa import masks

FUNCTIONS = [function for function in vars(masks).values() if isinstance(function, FunctionType)]


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f.__name__ in masks.__all__], ids=lambda f: f.__name__)
def test_a_rule_on_masks_is_one_rule_for_ints_columns_and_kernels(function: FunctionType) -> None:
    rng = seeded(function.__name__)
    count = len(inspect.signature(function).parameters)
    rows = [[rng.choice([0, masks.ALL, 1 << 63, rng.getrandbits(64)]) for _ in range(count)] for _ in range(64)]
    columns = [np.array(column, np.uint64) for column in zip(*rows, strict=True)]
    expected = [function(*row) for row in rows]
    assert function(*columns).tolist() == expected
    compiled = _scope()[function.__name__]
    assert [compiled(*(np.uint64(value) for value in row)) for row in rows[:4]] == expected[:4]
