"""Bugs of real kernels, put back: the verifier finds each, and nothing in the same place without it."""

from __future__ import annotations

import re
from functools import cache

import pytest

from fpstate.errors import UsageError
from fpstate.linux.kernel import Kernel
from fpstate.linux.steps import STEPS
from fpstate.verify.history import BEYOND, BUGS, OUTSIDE, Result, find, run_bug, run_history
from fpstate.verify.mistakes import KERNELS, NUMBERS, RULES
from fpstate.verify.properties import CLASSES, PROPERTIES


@cache
def result(name: str) -> Result:
    return run_bug(find(name))


@pytest.mark.parametrize("name", BUGS)
def test_the_bug_is_found(name: str) -> None:
    assert result(name).broken
    assert set(result(name).broken) <= set(find(name).expects)


@pytest.mark.parametrize("name", BUGS)
def test_nothing_is_found_in_the_same_place_without_it(name: str) -> None:
    assert run_bug(find(name), mended=True).broken == ()


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_shown_by_a_run_or_by_numbers(name: str) -> None:
    bug, found = find(name), result(name)
    if bug.numbers:
        assert found.reason
    else:
        assert found.run is not None
        assert {command.step for command in found.run.commands} <= STEPS.keys()


@pytest.mark.parametrize("name", BUGS)
def test_a_row_says_what_it_was_and_how_sure_that_is(name: str) -> None:
    bug = find(name)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", bug.id)
    for sentence in (bug.symptom, bug.fix):
        assert sentence.endswith(".")
    assert bug.title
    assert bug.function
    assert bug.fixed_in
    assert bug.sure == "confirmed" or bug.sure.startswith("unconfirmed part: ")
    assert re.fullmatch(r"(CVE-\d{4}-\d{4,})?", bug.cve)
    assert all(re.fullmatch(r"[0-9a-f]{12,40}", commit) for commit in bug.commits)
    assert bug.commits or bug.fixed_in.startswith(("never", "no release"))


@pytest.mark.parametrize("name", BUGS)
def test_a_row_names_what_there_is(name: str) -> None:
    bug = find(name)
    assert bug.component in {kind.name for kind in CLASSES} or (bug.numbers and not bug.component)
    assert bug.expects
    assert set(bug.expects) <= PROPERTIES.keys() | BEYOND.keys()
    assert bug.focus in {"", *bug.shape.foci()}


def test_every_mistake_has_a_row_and_every_row_a_mistake() -> None:
    assert KERNELS.keys() | NUMBERS.keys() | RULES.keys() == BUGS.keys()


@pytest.mark.parametrize("kernel", KERNELS.values())
def test_a_mistake_is_made_in_a_few_functions_of_the_kernel(kernel: type[Kernel]) -> None:
    made = {name for name, value in vars(kernel).items() if callable(value)}
    assert 1 <= len(made) <= 3
    assert all(hasattr(Kernel, name) for name in made)


def test_a_cve_is_found_by_the_registers_that_leak() -> None:
    run = result("failed-xrstor-foreign-regs").run
    assert run is not None
    steps = [command.step for command in run.commands]
    assert "sigreturn_faults" in steps
    assert steps[-1] == "exit_to_user_mode"


def test_the_step_that_breaks_a_property_ends_the_run() -> None:
    run = result("msr-access-fpu-unloaded").run
    assert run is not None
    assert run.commands[-1].step == "kvm_msrs_cet"


def test_sizes_are_those_of_a_cpu_on_which_the_buffer_is_too_small() -> None:
    assert find("guest-buffer-user-size").cpu == "genoa"


def test_a_bug_that_the_model_cannot_show_says_why() -> None:
    assert OUTSIDE.keys().isdisjoint(BUGS)
    for bug in OUTSIDE.values():
        assert bug.why.endswith(".")
        assert bug.commits


def test_progress_is_told_of_every_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpstate.verify.history.BUGS", {"altstack-overflow": find("altstack-overflow")})
    told: list[Result] = []
    assert run_history(told.append) == told
    assert told[0].reason == "a frame takes up to 3760 bytes, and sigaltstack(2) accepts 2048 on sapphire-rapids"


def test_a_name_that_is_no_bug_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="'heartbleed' is not a bug of history"):
        find("heartbleed")
