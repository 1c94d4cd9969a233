"""Each rule fires on the one event that breaks it, on no event of a clean run, and the same however the run is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="NumPy is missing: pip install 'fpstate[trace]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from fpstate import cpu  # noqa: E402
from fpstate.linux import policy  # noqa: E402
from fpstate.linux.boot import boot  # noqa: E402
from fpstate.traces.check import SHOWN, Check, Checked  # noqa: E402
from fpstate.traces.columns import CODES, EVENTS, MISSING, Block  # noqa: E402
from fpstate.traces.expected import Expected  # noqa: E402
from fpstate.traces.fpstates import Fpstates, Owner  # noqa: E402
from fpstate.traces.rules import RULES  # noqa: E402

Row = tuple[int, ...]

COMPACTED = 1 << 63
AMX = Expected.of(boot(cpu.by_name("sapphire-rapids"), policy.find("linux-6.18")))
"""A CPU with a dynamic component (AMX) and one for guests alone (CET_S)."""
TASK, GUEST = AMX.task, AMX.guest
GROWN = 1 << 18
NAMES = [event.name for event in EVENTS]
F1, F2, F3, F4 = (0xFFFF8880_00000000 + 0x1000 * n for n in range(4))
P1, P2, VCPU, CHILD = 11, 12, 13, 14

Line = tuple[str, int, int, int, int, int]


def fpu(event: str, on: int, pid: int, address: int, xcomp_bv: int = TASK, *, flag: int = 1) -> Line:
    return (f"x86_fpu_{event}", on, pid, flag, address, xcomp_bv)


def activated(on: int, pid: int, address: int, xcomp_bv: int = TASK) -> Line:
    return fpu("regs_activated", on, pid, address, xcomp_bv)


def saved(on: int, pid: int, address: int, xcomp_bv: int = TASK) -> Line:
    return fpu("regs_deactivated", on, pid, address, xcomp_bv)


def kvm(load: bool) -> Line:
    return ("kvm_fpu", 1, VCPU, int(load), MISSING, MISSING)


def clean() -> dict[str, Line]:
    """A run that Linux 6.18 could have made: switches, a skipped restore, a fork, an exit, a core dump, a guest."""
    return {
        "p1 runs": activated(0, P1, F1),
        "v runs": activated(1, VCPU, F3),
        "a core begins": fpu("before_save", 0, P1, F1, flag=0),
        "a core ends": fpu("after_save", 0, P1, F1, flag=0),
        "p1 leaves": saved(0, P1, F1),
        "p2 runs": activated(0, P2, F2),
        "p2 leaves": saved(0, P2, F2),
        "p2 leaves again": saved(0, P2, F2),
        "v swaps in": activated(1, VCPU, F3, GUEST),
        "v loaded": kvm(True),
        "v is preempted": saved(1, VCPU, F3, GUEST),
        "p1 is back": activated(1, P1, F1, TASK | GROWN),
        "p1 forks": fpu("copy_dst", 1, P1, F4, flag=0),
        "p1 leaves back": saved(1, P1, F1, TASK | GROWN),
        "v enters": activated(1, VCPU, F3, GUEST),
        "v swaps out": activated(1, VCPU, F3),
        "v is out": saved(1, VCPU, F3),
        "v unloaded": kvm(False),
        "child runs": activated(0, CHILD, F4),
        "child exits": fpu("regs_deactivated", 0, CHILD, F4, flag=0),
        "child drops": fpu("dropped", 0, CHILD, F4, flag=0),
        "child is gone": saved(0, CHILD, F4),
        "v signals": activated(1, VCPU, F3),
        "v leaves": saved(1, VCPU, F3),
        "p1 again": activated(0, P1, F1),
        "the memory is p2's child's": fpu("copy_dst", 0, P1, F4, flag=0),
        "a second core begins": fpu("before_save", 0, P1, F1, flag=0),
        "a second core ends": fpu("after_save", 0, P1, F1, flag=0),
        "a third core begins": fpu("before_save", 0, P1, F1, flag=0),
        "a third core ends": fpu("after_save", 0, P1, F1, flag=0),
        "p1 leaves at last": saved(0, P1, F1),
        "end": activated(0, P2, F2),
    }


def rows(story: dict[str, Line]) -> list[Row]:
    """Make rows of lines, one microsecond apart."""
    return [
        (1000 * (n + 1), on, pid, CODES[name], flag, address, 3 if address != MISSING else MISSING, xcomp_bv)
        for n, (name, on, pid, flag, address, xcomp_bv) in enumerate(story.values())
    ]


def judge(found: Sequence[Row], expected: Expected | None = AMX) -> Checked:
    check = Check(expected)
    check.feed(Block.of_rows(found))
    return check.result(NAMES, {P1: "one", P2: "two", VCPU: "vcpu"})


def test_a_clean_run_has_no_finding() -> None:
    result = judge(rows(clean()))
    assert result.findings == ()
    assert result.skipped_restores == 1
    assert result.swaps == 2
    assert not result.untold


def test_events_are_told_apart_by_whose_fpstate_they_show() -> None:
    result = judge(rows(clean()))
    assert result.fpstates["guest"] == {GUEST: 3}
    assert result.fpstates["child"] == {TASK: 2}
    assert set(result.fpstates["task"]) | set(result.fpstates["unknown"]) == {TASK, TASK | GROWN}


def put(at: str, line: Line) -> Callable[[dict[str, Line]], dict[str, Line]]:
    """Put another line in the place of one."""
    return lambda story: {**story, at: line}


def without(*at: str) -> Callable[[dict[str, Line]], dict[str, Line]]:
    return lambda story: {name: line for name, line in story.items() if name not in at}


def after(at: str, line: Line) -> Callable[[dict[str, Line]], dict[str, Line]]:
    """Put one more line behind one."""

    def edit(story: dict[str, Line]) -> dict[str, Line]:
        found: dict[str, Line] = {}
        for name, kept in story.items():
            found[name] = kept
            if name == at:
                found["new"] = line
        return found

    return edit


MUTATIONS = [
    ("xcomp-format", put("p2 leaves", saved(0, P2, F2, 0))),
    ("xcomp-format", put("p2 leaves", saved(0, P2, F2, TASK & ~COMPACTED))),
    ("unknown-component", put("p2 leaves", saved(0, P2, F2, TASK | 1 << 15))),
    ("guest-only", put("v signals", activated(1, VCPU, F3, GUEST))),
    ("guest-only", put("p2 leaves", saved(0, P2, F2, GUEST))),
    ("guest-only", put("p1 forks", fpu("copy_dst", 1, P1, F4, GUEST, flag=0))),
    ("task-xcomp", put("p2 leaves", saved(0, P2, F2, TASK & ~4))),
    ("guest-xcomp", put("v is preempted", saved(1, VCPU, F3, TASK))),
    ("guest-xcomp", put("v swaps in", activated(1, VCPU, F3, GUEST & ~4))),
    ("child-xcomp", put("p1 forks", fpu("copy_dst", 1, P1, F4, TASK | GROWN, flag=0))),
    ("not-owner", without("p1 again")),
    ("not-owner", after("p2 leaves again", saved(0, P1, F1))),
    ("lazy-restore", after("p2 leaves again", saved(1, P2, F2))),
    ("never-loaded", without("child runs")),
    ("dropped-alone", without("child exits")),
    ("after-dropped", put("child is gone", fpu("dropped", 0, CHILD, F4))),
    ("after-dropped", put("child is gone", saved(1, CHILD, F4))),
    ("sync-pair", without("a second core ends")),
    ("sync-pair", without("a second core begins")),
    ("kvm-balance", after("v loaded", kvm(True))),
    ("swap-activated", after("v unloaded", kvm(True))),
]


@pytest.mark.parametrize(("rule", "edit"), MUTATIONS, ids=[f"{n}-{m[0]}" for n, m in enumerate(MUTATIONS)])
def test_one_wrong_event_breaks_one_rule(rule: str, edit: Callable[[dict[str, Line]], dict[str, Line]]) -> None:
    result = judge(rows(edit(clean())))
    assert {finding.rule for finding in result.findings} == {rule}
    assert result.totals[rule] == sum(f.count for f in result.findings)


def test_every_rule_is_shown_to_fire() -> None:
    assert {rule for rule, _ in MUTATIONS} | {"xstate-subset"} == set(RULES)


def test_a_component_in_use_needs_a_place() -> None:
    found = rows(clean())
    found[6] = (*found[6][:6], 3 | 1 << 9 | GROWN, found[6][7])
    (finding,) = judge(found).findings
    assert (finding.rule, finding.event, finding.cpu, finding.task) == (
        "xstate-subset",
        "x86_fpu_regs_deactivated",
        0,
        "two",
    )
    assert finding.time == found[6][0]


def test_an_order_finding_tells_both_events() -> None:
    (finding,) = judge(rows(after("p2 leaves again", saved(1, P2, F2))(clean()))).findings
    assert finding.message == f"deactivated of {F2:#x}, after deactivated of {F2:#x} on CPU 0"
    assert (finding.cpu, finding.pid, finding.task) == (1, P2, "two")


def test_findings_of_a_rule_are_all_counted_and_the_first_are_told() -> None:
    found = rows(clean())
    extra = [(100_000 + n, 3, 100 + n, *found[6][3:7], TASK & ~4) for n in range(3 * SHOWN)]
    result = judge([*found, *extra])
    assert result.totals["task-xcomp"] == 3 * SHOWN
    told = [f for f in result.findings if f.rule == "task-xcomp"]
    assert [f.time for f in told] == list(range(100_000, 100_000 + SHOWN))


def test_a_policy_that_is_not_this_kernels_is_found_out() -> None:
    for name, rule in (("default-on", "task-xcomp"), ("linux-6.7", "unknown-component")):
        wrong = Expected.of(boot(cpu.by_name("sapphire-rapids"), policy.find(name)))
        assert rule in judge(rows(clean()), wrong).totals, name


def test_without_a_cpu_the_rules_that_need_none_are_judged() -> None:
    result = judge(rows(clean()), None)
    assert result.findings == ()
    assert result.untold
    assert any("cannot tell which masks" in note for note in result.notes)
    wrong = judge(rows(put("p2 leaves", saved(0, P2, F2, 0))(clean())), None)
    assert [f.rule for f in wrong.findings] == ["xcomp-format"]


LOST_ROW = (CODES["lost"], 255, 7, MISSING, MISSING)


@pytest.mark.parametrize("rule", ["not-owner", "lazy-restore", "kvm-balance", "swap-activated", "dropped-alone"])
def test_what_lies_across_lost_events_is_not_judged(rule: str) -> None:
    """The loss of each CPU is told where its events go on, so the row before it is where it may have begun."""
    edit = next(edit for name, edit in MUTATIONS if name == rule)
    found = rows(edit(clean()))
    (wrong,) = judge(found).findings
    place = [row[0] for row in found].index(wrong.time)
    lost = (found[place][0] - 1, found[place][1], 0, *LOST_ROW)
    result = judge([*found[:place], lost, *found[place:]])
    assert result.findings == ()
    assert result.lost == 7
    assert any("lost" in note for note in result.notes)


def test_events_of_other_cpus_since_before_the_loss_are_not_judged_either() -> None:
    """CPU 1's events are lost from 15 us on, and its buffer says so at 40 us; F2 was there in between."""
    found = [
        (10, 1, VCPU, CODES["x86_fpu_regs_activated"], 1, F3, 3, TASK),
        (11, 0, P2, CODES["x86_fpu_regs_activated"], 1, F2, 3, TASK),
        (12, 0, P2, CODES["x86_fpu_regs_deactivated"], 1, F2, 3, TASK),
        (13, 1, VCPU, CODES["x86_fpu_regs_deactivated"], 1, F3, 3, TASK),
        (20, 2, P2, CODES["x86_fpu_regs_deactivated"], 1, F2, 3, TASK),
        (40, 1, 0, *LOST_ROW),
        (41, 1, VCPU, CODES["x86_fpu_regs_activated"], 1, F3, 3, TASK),
    ]
    begun = (5, 2, P1, CODES["x86_fpu_regs_activated"], 1, F1, 3, TASK)
    assert judge([begun, *found]).findings == ()
    assert [f.rule for f in judge([begun, *found[:5], found[6]]).findings] == ["lazy-restore"]


def test_a_cpu_whose_buffer_begins_later_is_not_judged_by_what_came_before() -> None:
    """A buffer that was overwritten begins anew on each CPU at another time."""
    found = [
        (10, 0, P1, CODES["x86_fpu_regs_activated"], 1, F1, 3, TASK),
        (11, 0, P1, CODES["x86_fpu_regs_deactivated"], 1, F1, 3, TASK),
        (20, 1, P1, CODES["x86_fpu_regs_deactivated"], 1, F1, 3, TASK),
        (21, 1, P2, CODES["x86_fpu_regs_activated"], 1, F2, 3, TASK),
    ]
    assert judge(found).findings == ()
    early = (9, 1, P2, CODES["sched_switch"], 255, P2, 0, 0)
    assert [f.rule for f in judge([early, *found]).findings] == ["lazy-restore"]


def test_events_that_are_switched_on_one_by_one_prove_nothing_by_their_absence() -> None:
    story = clean()
    begun_late = {name: line for n, (name, line) in enumerate(story.items()) if n > 5 or "activ" not in line[0]}
    assert judge(rows({"p1": saved(0, P1, F1), "p2": saved(0, P2, F2), **begun_late})).findings == ()


def test_an_older_kernel_gives_up_registers_that_are_anothers() -> None:
    """Until 6.15 fpu__drop() printed deactivated (load: 1) also if the task's state was in memory long since."""
    found = [
        (9, 1, P2, CODES["sched_switch"], 255, P2, 0, 0),
        (10, 0, P1, CODES["x86_fpu_regs_activated"], 1, F1, 3, TASK),
        (11, 0, P1, CODES["x86_fpu_regs_deactivated"], 0, F1, 3, TASK),
        (12, 0, P2, CODES["x86_fpu_regs_activated"], 1, F2, 3, TASK),
        (13, 0, P1, CODES["x86_fpu_regs_deactivated"], 1, F1, 3, TASK),
        (14, 0, P1, CODES["x86_fpu_dropped"], 1, F1, 3, TASK),
        (15, 0, P2, CODES["x86_fpu_regs_activated"], 1, F2, 3, TASK),
    ]
    assert judge(found).findings == ()
    assert [f.rule for f in judge([*found[:5], found[6]]).findings] == ["not-owner"]


def test_stale_bytes_in_the_place_of_masks_are_recognised() -> None:
    """Text and pointers, as traces of guests without OSXSAVE have them (data/traces/expected.json)."""
    garbage = [(0x6D632D6563617274, 0x64), (0x323A302F72656B, 0x4F00000000), (0xFFFF908343D49EA8, 0xFFFFFFFF8231D8C0)]
    found = rows(clean())
    stale = [row if row[3] == CODES["kvm_fpu"] else (*row[:6], *garbage[n % 3]) for n, row in enumerate(found)]
    result = judge(stale)
    assert result.findings == ()
    assert result.masks == {}
    assert any("stale bytes" in note for note in result.notes)
    broken = rows(after("p2 leaves again", saved(0, P1, F1))(clean()))
    stale = [row if row[3] == CODES["kvm_fpu"] else (*row[:6], *garbage[n % 3]) for n, row in enumerate(broken)]
    assert [f.rule for f in judge(stale).findings] == ["not-owner"]


def test_a_kernel_without_xsave_has_no_masks() -> None:
    none = Expected.of(boot(cpu.by_name("sapphire-rapids"), policy.find("linux-6.18"), "noxsave"))
    result = judge(rows(clean()), none)
    assert (result.findings, result.masks) == ((), {})


def test_the_standard_format_has_no_xcomp_bv() -> None:
    standard = Expected.of(boot(cpu.by_name("haswell"), policy.find("linux-6.18")))
    assert standard.task == 0
    found = [(*row[:7], 0) if row[7] != MISSING else row for row in rows(clean())]
    assert judge(found, standard).findings == ()
    found[6] = (*found[6][:6], 3 | 1 << 9, 0)
    assert [f.rule for f in judge(found, standard).findings] == ["unknown-component"]


# -- parts worked on apart ---------------------------------------------------------------------------------------------

KINDS = ["x86_fpu_regs_activated", "x86_fpu_regs_deactivated", "x86_fpu_dropped", "x86_fpu_copy_dst", "kvm_fpu", "lost"]
ROW = st.tuples(
    st.integers(0, 2), st.integers(1, 3), st.sampled_from(KINDS), st.integers(0, 1), st.sampled_from([TASK, GUEST])
)
PARTS = st.lists(st.lists(ROW, max_size=7), max_size=6)


def parts(drawn: list[list[tuple[int, int, str, int, int]]], *, lossless: bool = False) -> list[Block]:
    """Make blocks; each thread has a struct fpu of its own."""
    found, time = [], 0
    for part in drawn:
        made = []
        for on, pid, name, flag, xcomp_bv in part:
            time += 1
            if name == "lost":
                if not lossless:
                    made.append((time, on, 0, *LOST_ROW))
            elif name == "kvm_fpu":
                made.append((time, on, pid, CODES[name], flag, MISSING, MISSING, MISSING))
            else:
                made.append((time, on, pid, CODES[name], flag, 0x1000 * pid, 3, xcomp_bv))
        found.append(Block.of_rows(made))
    return found


@given(PARTS, st.integers(0, 6))
@settings(max_examples=150)
def test_parts_that_were_checked_apart_give_the_same_result(drawn: list[Any], cut: int) -> None:
    blocks = parts(drawn)
    whole, first, second = Check(AMX), Check(AMX), Check(AMX)
    whole.feed(Block.join(blocks))
    for number, block in enumerate(blocks):
        (first if number < cut else second).feed(block)
    first.join(second)
    assert first.result(NAMES, {}) == whole.result(NAMES, {})


def owners(rows_: list[Row]) -> dict[tuple[int, int], int]:
    """Say row by row whose fpstate each shows: the definition, for comparison."""
    counts: dict[tuple[int, int], int] = {}
    for row in rows_:
        name = EVENTS[row[3]].name
        if not name.startswith("x86_fpu"):
            continue
        mine = [other for other in rows_ if other[2] == row[2] and EVENTS[other[3]].name in {KINDS[0], KINDS[4]}]
        back = [other for other in mine if other[0] <= row[0]]
        ahead = [other for other in mine if other[0] > row[0]]
        loads = [Owner.GUEST if other[4] else Owner.TASK for other in mine if other[3] == CODES["kvm_fpu"]]
        told = [Owner.GUEST if other[4] else Owner.TASK for other in back if other[3] == CODES["kvm_fpu"]]
        if name == KINDS[3]:
            owner = Owner.CHILD
        elif back and back[-1][3] == CODES[KINDS[0]] and not ahead:
            owner = Owner.UNKNOWN
        elif back and back[-1][3] == CODES[KINDS[0]] and ahead[0][3] == CODES["kvm_fpu"]:
            owner = Owner.GUEST if ahead[0][4] else Owner.TASK
        elif told:
            owner = told[-1]
        elif loads:
            owner = Owner.TASK if loads[0] == Owner.GUEST else Owner.GUEST
        else:
            owner = Owner.UNKNOWN
        counts[row[2], owner] = counts.get((row[2], owner), 0) + 1
    return counts


@given(PARTS)
@settings(max_examples=200)
def test_whose_fpstate_it_is_follows_from_the_threads_own_events(drawn: list[Any]) -> None:
    blocks = parts(drawn, lossless=True)
    fpstates = Fpstates()
    for block in blocks:
        fpstates.feed(block)
    seen = fpstates.seen()
    found: dict[tuple[int, int], int] = {}
    for pid, owner, count in zip(seen.pid.tolist(), seen.owner.tolist(), seen.count.tolist(), strict=True):
        found[pid, owner] = found.get((pid, owner), 0) + count
    every = [tuple(row) for row in zip(*(c.tolist() for c in Block.join(blocks).columns()), strict=True)]
    assert found == owners(every)
