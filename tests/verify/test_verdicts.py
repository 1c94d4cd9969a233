"""The verdicts: what is proven, what is broken, and by which run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from fpstate import cpu_by_name, policy
from fpstate.linux.boot import boot
from fpstate.linux.kernel import Cpu, Kernel, Task
from fpstate.linux.policy import shipped
from fpstate.linux.steps import STEPS, Assumptions
from fpstate.verify.check import Report, _key, subjects, verify
from fpstate.verify.induction import prove
from fpstate.verify.invariants import invariants
from fpstate.verify.model import Model, Subject, build
from fpstate.verify.properties import PROPERTIES, property_of
from fpstate.verify.question import Options, Shape
from fpstate.verify.search import Limits, search

SPR = cpu_by_name("sapphire-rapids")
SMALL = Shape(2, 2, 1)
CET_S = Options(shape=SMALL, method="induction", classes=("cet-kernel",))
DEBATE = ("cet-v8", "linux-6.18", "default-on", "independent", "raw-msr", "resident")


@cache
def report(name: str, component: str, *, host_sss: bool = False, msrs_first: bool = True) -> Report:
    assumptions = Assumptions(host_sss=host_sss, msrs_first=msrs_first)
    options = Options(shape=SMALL, assumptions=assumptions, method="induction", classes=(component,))
    return verify(SPR, policy(name), options, needs=False)


def subject(name: str, component: str, kernel: type[Kernel] = Kernel) -> Subject:
    found = subjects(boot(SPR, policy(name)), Assumptions(), kernel)
    return next(subject for kind, _, subject in found if kind.name == component)


def broken(result: Report) -> set[str]:
    return {finding.id for finding in result.findings if finding.verdict == "violated"}


@pytest.mark.parametrize("name", DEBATE)
def test_every_design_of_the_debate_keeps_cet_s_apart_while_the_host_does_not_use_it(name: str) -> None:
    result = report(name, "cet-kernel")
    assert {f.verdict for f in result.findings} == {"proven"}


@pytest.mark.parametrize("name", ["independent", "raw-msr", "resident", "linux-6.18"])
def test_a_host_with_supervisor_shadow_stacks_breaks_all_but_default_on(name: str) -> None:
    result = report(name, "cet-kernel", host_sss=True)
    assert "INT-RUN" in broken(result)


def test_default_on_alone_keeps_the_hosts_own_pl0_ssp() -> None:
    assert broken(report("default-on", "cet-kernel", host_sss=True)) == {"P19"}


@pytest.mark.parametrize("name", ["independent", "resident"])
def test_a_guests_pl0_ssp_reaches_a_host_that_uses_it_if_it_stays_in_the_registers(name: str) -> None:
    assert "ISO-RUN" in broken(report(name, "cet-kernel", host_sss=True))


def test_loading_a_task_leaves_nothing_of_a_guest_under_the_merged_design() -> None:
    assert "ISO-RUN" not in broken(report("linux-6.18", "cet-kernel", host_sss=True))


@pytest.mark.parametrize("component", ["user", "pkru", "cet-user", "cet-kernel", "independent", "user-dynamic"])
def test_the_repaired_kernel_is_proven_for_any_number(component: str) -> None:
    result = report("repaired", component)
    assert {f.verdict for f in result.findings} == {"proven"}
    assert result.states == 0


def test_the_verdict_names_the_assumptions_that_it_needs() -> None:
    result = verify(SPR, policy("independent"), CET_S)
    needing = {f.id: f.needs for f in result.findings if f.needs}
    assert needing["ISO-RUN"] == ["host-sss off"]
    assert result.needs == ["host-sss off"]


def test_restoring_xsave_before_msrs_makes_the_host_load_what_xfd_disables() -> None:
    assert "P9" in broken(report("repaired", "user-dynamic", msrs_first=False))


def test_linux_618_leaves_tile_data_in_the_registers_after_sigreturn() -> None:
    result = report("linux-6.18", "user-dynamic")
    finding = next(f for f in result.findings if f.id == "ISO-RUN")
    assert finding.run is not None
    steps = [taken.step for taken in finding.run.steps]
    assert steps[-2:] == ["handle_xfd_event", "exit_to_user_mode"]
    assert steps.count("sigreturn") >= 1


class _KeepsOwner(Kernel):
    def cpu_invalidate_fpregs_state(self, cpu: Cpu) -> None:
        pass


class _RestoresNothing(Kernel):
    def switch_fpu_return(self, cpu: Cpu, task: Task) -> None:  # noqa: ARG002
        task.need_fpu_load = 0


def test_a_kernel_that_forgets_to_give_up_the_registers_is_found_out() -> None:
    result = prove(subject("repaired", "user", _KeepsOwner), "task0")
    assert not result.proven
    assert any(failure.step and failure.step.step == "kernel_fpu_begin" for failure in result.failures)


def test_a_broken_induction_shows_a_state_and_a_step() -> None:
    failure = prove(subject("repaired", "user", _RestoresNothing), "task0").failures[0]
    assert failure.step is not None
    assert failure.step.step in STEPS
    assert "cpu0.curr" in failure.state


def claims(model_subject: Subject, shape: Shape, focus: str) -> Model:
    return build(model_subject, shape, focus, lambda w: (c for c in invariants(w) if property_of(c[0])))


def test_the_run_of_a_counterexample_is_a_run_of_the_model() -> None:
    model = claims(subject("repaired", "user", _KeepsOwner), SMALL, "task0")
    run = search(model, Limits(stop=True)).broken[0].run
    assert run.states[0] == {v.name: model.initial[v.name] for v in model.variables}
    assert len(run.commands) in {len(run.states), len(run.states) - 1}


@pytest.mark.parametrize("focus", SMALL.foci())
def test_reductions_change_no_verdict(focus: str) -> None:
    for kernel in (Kernel, _KeepsOwner):
        model = claims(subject("repaired", "user", kernel), SMALL, focus)
        verdicts = [
            {b.property for b in search(model, Limits(symmetry=symmetry, liveness=liveness)).broken}
            for symmetry in (False, True)
            for liveness in (False, True)
        ]
        assert all(verdict == verdicts[0] for verdict in verdicts)


def test_a_shortest_run_is_as_short_without_reductions() -> None:
    model = claims(subject("repaired", "user", _KeepsOwner), SMALL, "task0")
    plain = search(model, Limits(symmetry=False, liveness=False, stop=True)).broken[0]
    reduced = search(model, Limits(stop=True)).broken[0]
    assert len(plain.run.commands) == len(reduced.run.commands)


def test_visited_states_that_do_not_fit_the_memory_lie_in_a_file() -> None:
    model = claims(subject("repaired", "user"), SMALL, "guest0")
    assert search(model, Limits(memory=1 << 12)).states == search(model, Limits()).states


def test_every_property_has_a_sentence_and_a_source() -> None:
    for found in PROPERTIES.values():
        assert found.text
        assert found.source


def test_a_policy_of_ones_own_is_verified_like_the_shipped_ones() -> None:
    own = replace(policy("linux-6.18"), name="mine", restores_guest_only="guest")
    result = verify(SPR, own, CET_S)
    assert result.verdict == "proven"
    assert "host-sss off" in result.needs


def test_policies_share_an_outcome_only_where_their_models_are_the_same() -> None:
    models: dict[tuple[object, ...], tuple[str, object]] = {}
    for name, each in shipped().items():
        for kind, _, subject in subjects(boot(SPR, each), Assumptions()):
            for focus in ("task0", "guest0"):
                made = build(subject, Shape(1, 2, 1), focus, invariants)
                content = made.variables, made.initial, made.commands, made.checks, made.stopped, made.invariants
                other, known = models.setdefault(_key(subject, kind.name, focus), (name, content))
                assert content == known, f"{kind.name}, {focus}: {name} is not {other}"
    assert len(models) < 80  # of about 140
