"""The model against this CPU: a slice of what ``make conformance`` runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from fpstate.cpu import this_host
from fpstate.isa import masks
from fpstate.isa import profile as profiles
from fpstate.silicon import Executor
from fpstate.silicon.conformance import Conformance
from fpstate.vectors import result

pytestmark = pytest.mark.host


@pytest.fixture
def measured() -> None:
    profile = profiles.of_cpu(this_host())
    if "xinuse" in profile.unconfirmed:
        pytest.skip(f"profile {profile.name} was not measured: 'make conformance' tells what is wrong with it here")


@pytest.fixture
def xsavec(measured: None) -> None:  # noqa: ARG001  asked first
    if "XSAVEC" not in this_host().flags:
        pytest.skip("this CPU has no XSAVEC")


SLICES = 10
CASES = 5000


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("part", range(SLICES))
def test_model_and_cpu_agree_in_every_byte_register_and_signal(executor: Executor, part: int) -> None:
    tally = Conformance(executor, seed=1000 + part).run(CASES)
    assert sum(tally.cases.values()) == CASES
    assert [dataclasses.asdict(mismatch) for mismatch in tally.mismatches] == []


def test_every_instruction_that_user_mode_has_comes_up(executor: Executor) -> None:
    tally = Conformance(executor, seed=1).run(2000)
    assert {name.split()[0] for name in tally.cases} >= {
        "xsave",
        "xsave64",
        "xrstor",
        "xrstor64",
        "fxsave",
        "fxrstor64",
    }
    assert tally.faults["no fault"] > sum(tally.faults.values()) / 2
    assert len(tally.faults) > 5


def forget_mxcsr(rfbm: int, xinuse: int, _mxcsr_in_use: int, right: Callable[..., int] = masks.saved_compacted) -> int:
    """A wrong rule of XSAVEC: MXCSR does not count."""
    return right(rfbm, xinuse, 0)


@pytest.mark.usefixtures("xsavec")
def test_a_wrong_model_is_found_out(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "saved_compacted", forget_mxcsr)
    tally = Conformance(executor, seed=1).run(1000)
    assert tally.wrong > 0
    assert "memory byte" in tally.mismatches[0].differences[0]


@pytest.mark.usefixtures("xsavec")
def test_a_mismatch_is_made_small_and_checks_as_a_vector(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(masks, "saved_compacted", forget_mxcsr)
        tally = Conformance(executor, seed=1).run(1000)
    single = next(mismatch for mismatch in tally.mismatches if len(mismatch.steps) == 1)
    case = single.line["case"]
    assert set(case["registers"]) == {"mxcsr"}
    assert int(case["rfbm"], 16) == 0b10
    assert set(bytes.fromhex(case["memory"])[576:]) <= {0}
    assert result.check(single.line) == []  # the model is right again


def test_what_was_not_exercised_is_said(executor: Executor) -> None:
    words = " ".join(Conformance(executor, seed=1).not_exercised)
    assert "XSAVES" in words
    assert "CPL 0" in words
