"""Small mistakes in the kernel's functions: most are noticed, and of the rest it is said why not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from fpstate.errors import UsageError
from fpstate.linux.kernel import Kernel
from fpstate.linux.steps import Step
from fpstate.verify import mutate
from fpstate.verify.model import Fixed, Taken, build
from fpstate.verify.mutate import (
    Mutation,
    Outcome,
    Tally,
    choose,
    explanation,
    mutations,
    run_mutation,
    run_mutations,
)


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
        ("Sets.restore: flip user", "P5"),
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


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("Process.switch_to: drop `cpu.curr = succ.ref`", "user"),
        ("Process.exit_to_user_mode: drop `task.mode = USER`", "user"),
        ("Core.kernel_fpu_begin: drop `cpu.in_kernel_fpu = 1`", "user"),
        ("Xstate.fpstate_realloc: drop `return 0`", "user-dynamic"),
        ("Core.fpu_clone: drop `self.fpu_inherit_perms(parent, child)`", "user-dynamic"),
        ("Kvm.kvm_create_vcpu: drop `guest.exists = 1`", "user"),
    ],
)
def test_a_kernel_that_does_less_is_noticed_by_what_the_step_is_for(name: str, component: str) -> None:
    outcome = run_mutation(table()[name])
    assert (outcome.killed_by, outcome.component) == ("STEP", component)


def test_sizes_that_are_not_those_of_the_components_are_noticed() -> None:
    outcome = run_mutation(table()["Core.fpstate_reset: drop `own.user_size = self.hw.user_size(sets.user_default)`"])
    assert outcome.killed_by == "P4"


def test_a_mask_that_a_boot_alone_shows_to_be_wrong_is_noticed() -> None:
    outcome = run_mutation(table()["Sets.guest_default: flip cet-kernel"])
    assert (outcome.killed_by, outcome.component) == ("P6", "cet-kernel")


@pytest.mark.parametrize("mask", ["restore", "supervisor", "user_restore"])
def test_a_mask_that_matters_to_a_host_with_supervisor_shadow_stacks_is_noticed_there(mask: str) -> None:
    outcome = run_mutation(table()[f"Sets.{mask}: flip cet-kernel"])
    assert (outcome.killed_by, outcome.component) == ("INT-RUN", "cet-kernel, default-on, host-sss")


def test_a_rule_of_an_older_kernel_is_looked_at_under_its_policy() -> None:
    outcome = run_mutation(table()["Xstate.__xstate_request_perm: drop `stored = mask & self.policy.user`"])
    assert outcome.component == "permissions, linux-6.12"


def test_what_a_policy_breaks_anyway_speaks_of_no_mutation() -> None:
    base = mutate._unmutated("permissions, linux-6.12", mutate._SMALL, "task0")
    subject = mutate._subjects(Kernel)["permissions, linux-6.12"]
    model = mutate._speaking(build(subject, mutate._SMALL, "task0", mutate._claims), base.broken)
    assert "PERM" in base.broken
    assert base.broken.isdisjoint({check.property for check in model.checks} | {name for name, _ in model.invariants})


def test_no_statement_is_swapped_with_one_that_ends_the_function() -> None:
    assert not [name for name in table() if ": swap " in name and ("and `return" in name or "and `raise" in name)]


def test_what_a_step_is_for_follows_from_the_step_alone_but_for_some_permissions() -> None:
    for component, subject in mutate._subjects(Kernel).items():
        for focus in mutate._foci(component, mutate._SMALL):
            model = build(subject, mutate._SMALL, focus, mutate._claims)
            left = {check.step for check in model.checks if check.property == "STEP"}
            assert left == (
                {"request_guest_perm", "kvm_set_cpuid"} if mutate._class(component) == "permissions" else set()
            )


@pytest.mark.parametrize("component", ["user", "permissions", "cet-kernel, raw-msr"])
def test_steps_that_call_nothing_that_is_changed_come_out_the_same_without_being_taken(component: str) -> None:
    kernel = table()["Core.switch_fpu: drop `prev.last_cpu = cpu.ref`"].kernel
    subject = mutate._subjects(kernel)[component]
    base = mutate._unmutated(component, mutate._SMALL, "task0")
    taken: list[str] = []

    def recall(step: Step, numbers: tuple[int, ...], fixed: Fixed, take: Callable[[], Taken]) -> Taken:
        def noted() -> Taken:
            taken.append(step.name)
            return take()

        return base.recall({"switch_fpu"})(step, numbers, fixed, noted)

    quick = build(subject, mutate._SMALL, "task0", mutate._claims, recall=recall)
    assert mutate._signature(quick) == mutate._signature(build(subject, mutate._SMALL, "task0", mutate._claims))
    assert set(taken) == {"context_switch", "switch_to_idle"}


def tally_of(monkeypatch: pytest.MonkeyPatch, jobs: int) -> tuple[Tally, list[Outcome], list[tuple[int, int]]]:
    names = (
        "Sets.restore: flip user",
        "Core.switch_fpu: drop `prev.last_cpu = cpu.ref`",
        "Core.fpu_init_cpu: drop `cpu.in_kernel_fpu = 0`",
    )
    why = ("", "equivalent because it is", "outside the properties because it is")
    outcomes = [
        Outcome(table()[names[0]], "P12", "user"),
        *(Outcome(table()[n], why=w) for n, w in zip(names[1:], why[1:], strict=True)),
    ]
    monkeypatch.setattr(mutate, "run_mutation", lambda m: next(o for o in outcomes if o.mutation.id == m.id))
    told: list[tuple[int, int]] = []
    chosen = [table()[name] for name in names]
    return run_mutations(chosen, jobs, lambda done, total: told.append((done, total))), outcomes, told


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_tally_counts_what_was_noticed_and_what_was_not(monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    tally, outcomes, told = tally_of(monkeypatch, jobs)
    assert tally == Tally(outcomes)
    assert (tally.killed, tally.survivors, tally.unexplained) == (1, outcomes[1:], [])
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_what_is_not_explained_is_neither_equivalent_nor_outside() -> None:
    mutation = next(mutations())
    tally = Tally(
        [Outcome(mutation), Outcome(mutation, why="equivalent because it is"), Outcome(mutation, killed_by="P1")]
    )
    assert tally.unexplained == [tally.outcomes[0]]


def test_a_text_chooses_mutations_by_name() -> None:
    assert {mutation.id.partition(":")[0] for mutation in choose("kernel_fpu_end")} == {"Core.kernel_fpu_end"}
    with pytest.raises(UsageError, match="no mutation has 'frobnicate'"):
        choose("frobnicate")
