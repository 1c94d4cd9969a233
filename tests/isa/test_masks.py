"""The rules on masks are the same for an int and for a column of them, and hold for every value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate.isa import masks

u64 = st.integers(0, masks.ALL)
FUNCTIONS = [getattr(masks, name) for name in masks.__all__ if name not in {"ALL", "Bits"}]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@given(data=st.data())
def test_a_column_gives_what_each_int_gives(function: Callable[..., Any], data: st.DataObject) -> None:
    numpy = pytest.importorskip("numpy", reason="fpstate[batch] is not installed")
    arity = len(inspect.signature(function).parameters)
    rows = data.draw(st.lists(st.tuples(*[u64] * arity), min_size=1, max_size=8))
    columns = [numpy.array(column, dtype=numpy.uint64) for column in zip(*rows, strict=True)]
    assert function(*columns).tolist() == [function(*row) for row in rows]


@given(u64, u64)
def test_what_is_restored_is_loaded_or_initialised_and_not_both(rfbm: int, xstate_bv: int) -> None:
    loaded, initialised = masks.loaded(rfbm, xstate_bv), masks.initialised(rfbm, xstate_bv)
    assert loaded | initialised == rfbm
    assert loaded & initialised == 0


@given(u64, u64, u64)
def test_saving_changes_the_bits_of_rfbm_alone(old: int, rfbm: int, xinuse: int) -> None:
    new = masks.saved_standard(old, rfbm, xinuse)
    assert new & masks.complement(rfbm) == old & masks.complement(rfbm)
    assert new & rfbm == xinuse & rfbm


@given(u64, u64)
def test_a_saved_header_is_one_that_xrstors_accepts(rfbm: int, xinuse: int) -> None:
    rfbm &= masks.ALL >> 1
    xcomp_bv = masks.xcomp_bv(rfbm)
    assert masks.bad_xcomp_bv(xcomp_bv, rfbm) == 0
    assert masks.bad_xstate_bv(masks.saved_compacted(rfbm, xinuse, 0b10), xcomp_bv) == 0
