"""The debate's table: what each design means, on CPUs where it costs and where it does not."""

import pytest

from fpstate import cpu as cpus
from fpstate.cpu.conclude import conclude
from fpstate.cpu.dump import BootLog, Dump
from fpstate.errors import UsageError
from fpstate.linux.compare import DEBATE, Column, compare
from fpstate.linux.policy import find


def columns(cpu: str, *names: str) -> dict[str, Column]:
    table = compare(cpus.by_name(cpu), [find(name) for name in names or DEBATE])
    return {column.policy.name: column for column in table.columns}


@pytest.mark.parametrize(
    ("policy", "home", "after"),
    # linux-fpu.md 2.4
    [
        ("linux-6.7", "nowhere", "untouched"),
        ("cet-v8", "guest fpstates", "initial"),
        ("linux-6.18", "guest fpstates", "initial"),
        ("default-on", "every fpstate", "the task's"),
        ("independent", "own buffer", "the guest's"),
        ("raw-msr", "MSRs", "as KVM leaves them"),
        ("resident", "guest fpstates", "the guest's"),
    ],
)
def test_where_cet_s_lives_and_what_is_left_in_the_registers(policy: str, home: str, after: str) -> None:
    column = columns("genoa")[policy]
    assert (column.home, column.after_load) == (home, after)


def test_default_on_costs_every_task_24_bytes_on_genoa() -> None:
    table = columns("genoa")
    assert table["default-on"].task_size - table["linux-6.18"].task_size == 24
    assert table["default-on"].task_cost == 24
    assert table["linux-6.18"].task_cost == 0


def test_on_sapphire_rapids_alignment_hides_all_of_it() -> None:
    column = columns("sapphire-rapids")["default-on"]
    assert (column.task_cost, column.task_hidden, column.guest_hidden) == (0, 24, 24)
    assert column.task_size == columns("sapphire-rapids")["linux-6.18"].task_size == 2560


def test_raw_msr_reads_and_writes_three_registers() -> None:
    table = columns("genoa")
    assert (table["raw-msr"].msr_reads, table["raw-msr"].msr_writes) == (3, 3)
    assert all(c.msr_reads == 0 for name, c in table.items() if name != "raw-msr")


def test_kvm_get_xsave_carries_it_under_no_design() -> None:
    assert not any(column.kvm_get_xsave for column in columns("genoa").values())


def test_only_before_the_debate_can_no_guest_have_it() -> None:
    assert [name for name, column in columns("genoa").items() if not column.guest_may_use] == ["linux-6.7"]


def test_independent_costs_no_fpstate_and_two_instructions() -> None:
    column = columns("genoa")["independent"]
    assert (column.task_cost, column.guest_cost, column.extra_xsaves) == (0, 0, 2)


def test_the_verdict_says_in_words_what_the_table_shows() -> None:
    verdict = compare(cpus.by_name("genoa"), [find("linux-6.18"), find("default-on")]).verdict()
    assert verdict == (
        "linux-6.18: CET_S is in guest fpstates alone: 0 bytes a task, 24 bytes a vCPU.",
        "linux-6.18: loading a task's fpstate puts CET_S into its initial state: nothing of a guest's is left.",
        "default-on: CET_S is in every fpstate: 24 bytes a task (0 in its slab object), 24 bytes a vCPU.",
    )


def test_a_cpu_without_the_component_makes_no_difference() -> None:
    table = compare(cpus.by_name("skylake"), [find(name) for name in DEBATE])
    assert table.verdict() == ("skylake does not enumerate CET_S (component 12): the designs do not differ on it.",)
    assert len({(c.task_size, c.guest_size) for c in table.columns}) == 1


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(UsageError, match="there must be at least one policy to compare"):
        compare(cpus.by_name("genoa"), [])


@pytest.mark.parametrize("component", [-1, 0, 1, 63])
def test_a_component_that_no_policy_can_move_is_refused(component: int) -> None:
    with pytest.raises(UsageError, match=f"^component {component} has no home to choose"):
        compare(cpus.by_name("zen4"), [find("linux-6.18")], component=component)


def test_a_policy_may_force_a_component_that_the_cpu_lacks() -> None:
    zen4 = cpus.by_name("zen4")
    leaves = {**zen4.leaves, (0xD, 1): (0xF, 2440, 0, 0)}
    dump = Dump(format="test", leaves={key: r for key, r in leaves.items() if key not in {(0xD, 11), (0xD, 12)}})
    table = compare(conclude(dump, name="x", source="x"), [find("cet-v8")], component=11)
    assert not table.present


def test_a_boot_log_does_not_deny_what_it_cannot_show() -> None:
    log = BootLog(0x7, 832, compacted=True)
    table = compare(conclude(Dump(format="boot-log", boot_log=log), name="x", source="x"), [find("linux-6.18")])
    assert table.verdict()[0].startswith("the boot log does not show CET_S (component 12), but it shows only what")
