"""Small mistakes in the kernel's functions: most are noticed, and of the rest it is said why not."""

from __future__ import annotations

from functools import cache

import pytest

from fpstate.linux.kernel import Kernel
from fpstate.verify import mutate
from fpstate.verify.mutate import Mutation, Outcome, Tally, explanation, mutations, run_mutation, run_mutations


@cache
def table() -> dict[str, Mutation]:
    return {mutation.id: mutation for mutation in mutations()}


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("Core.switch_fpu: drop `self.save_fpregs_to_fpstate(cpu, prev)`", "INT-BUF"),
        ("Context.fpu_invalidate_state: drop `task.last_cpu = NULL`", "INT-BUF"),
        ("Kvm.vm_entry: negate `task.need_fpu_load`", "ISO-RUN"),
        ("Process.pkru_save: drop `prev.pkru = self.hw.rdpkru(cpu)`", "INT-BUF"),
        ("Sets.restore: flip user", "INT-BUF"),
    ],
)
def test_a_mistake_is_noticed(name: str, claim: str) -> None:
    assert run_mutation(table()[name]).killed_by == claim


def test_a_swap_of_statements_that_commute_changes_no_model() -> None:
    name = "Context.fpregs_mark_activate: swap `task.last_cpu = cpu.ref` and `task.need_fpu_load = 0`"
    outcome = run_mutation(table()[name])
    assert not outcome.killed_by
    assert not outcome.changes
    assert outcome.why == "equivalent because the two statements commute: no model changes"


def test_what_is_no_kernel_any_more_counts_as_noticed() -> None:
    outcome = run_mutation(table()["Context.save_fpregs_to_fpstate: drop `fpstate = task.fpstate`"])
    assert outcome.killed_by == "error: NameError"


def test_mutations_are_many_and_each_has_a_name_of_its_own() -> None:
    names = [mutation.id for mutation in mutations()]
    assert len(names) > 400
    assert len(set(names)) == len(names)
    assert names == list(table())


def test_every_layer_of_the_kernel_is_mutated() -> None:
    layers = {layer.__name__ for layer in Kernel.__mro__[1:-1]}
    assert {name.partition(".")[0] for name in table()} == layers | {"Sets"}


def test_what_the_kernel_claims_about_itself_is_left_alone() -> None:
    assert not [name for name in table() if "drop `self.spec." in name]


def test_every_explanation_is_of_a_mutation_that_there_is() -> None:
    assert mutate._explanations().keys() <= table().keys()


def test_an_explanation_says_that_nothing_changes_or_that_no_property_speaks_of_it() -> None:
    for why in mutate._explanations().values():
        assert why.startswith(("equivalent because ", "outside the properties because "))


def test_of_a_mutation_that_nobody_explained_nothing_is_said() -> None:
    assert explanation("Core.nothing: drop `it`") == ""


def test_the_tally_counts_what_was_noticed_and_what_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("Sets.restore: flip user", "Context.fpregs_deactivate: drop `cpu.fpregs_owner_ctx = NULL`")
    outcomes = (Outcome(table()[names[0]], "P12", "user"), Outcome(table()[names[1]], why="equivalent because"))
    monkeypatch.setattr(mutate, "mutations", lambda: iter(table()[name] for name in names))
    monkeypatch.setattr(mutate, "run_mutation", lambda m: next(o for o in outcomes if o.mutation is m))
    told: list[tuple[int, Outcome]] = []
    tally = run_mutations(lambda total, outcome: told.append((total, outcome)))
    assert tally == Tally(list(outcomes))
    assert (tally.killed, tally.survivors, tally.unexplained) == (1, [outcomes[1]], [])
    assert [total for total, _ in told] == [2, 2]
