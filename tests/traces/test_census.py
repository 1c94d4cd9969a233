"""A run counted: whose fpstate each row speaks of, which saves print nothing, and parts that join exactly."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

np = pytest.importorskip("numpy", reason="NumPy is missing: pip install 'fpstate[trace]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from fpstate.traces.census import UNKNOWN, Census, Counts, Move  # noqa: E402
from fpstate.traces.columns import ABSENT, CODES, MISSING, Block  # noqa: E402

TASK, GUEST = 0x8E7, 0x18E7
"""Room of a task's and of a guest's fpstate of Linux 6.18 on a Zen 4."""
C = 1 << 63
SHORT = {
    "on": "x86_fpu_regs_activated",
    "off": "x86_fpu_regs_deactivated",
    "drop": "x86_fpu_dropped",
    "fork": "x86_fpu_copy_dst",
    "sync": "x86_fpu_after_save",
    "kvm": "kvm_fpu",
    "lost": "lost",
    "other": "sched_switch",
}
Event = tuple[str, int, int, int, int]
"""Name, thread, flag, XSTATE_BV, XCOMP_BV; of kvm the flag alone."""


def block(events: list[Event], start: int = 0) -> Block:
    return Block.of_rows(
        (start + at, 0, pid, CODES[SHORT[name]], flag, 0xF000 + pid, in_use, xcomp_bv)
        for at, (name, pid, flag, in_use, xcomp_bv) in enumerate(events)
    )


def counted(*events: Event) -> Counts:
    census = Census()
    census.feed(block(list(events)))
    return census.result()


def moves(*events: Event) -> dict[tuple[str, bool, int], int]:
    return {(m.op, m.guest, m.in_use): count for m, count in counted(*events).moves.items()}


def on(in_use: int, room: int = TASK, flag: int = 1, pid: int = 1) -> Event:
    return ("on", pid, flag, in_use, room | C)


def off(in_use: int, room: int = TASK, flag: int = 1, pid: int = 1) -> Event:
    return ("off", pid, flag, in_use, room | C)


def kvm(load: int, pid: int = 1) -> Event:
    return ("kvm", pid, load, MISSING, MISSING)


# -- one rule each ---------------------------------------------------------------------------------------------------


def test_a_switch_saves_and_the_way_to_user_mode_restores() -> None:
    assert moves(on(0x2), off(0x6), on(0x6)) == {
        ("restore", False, 0x2): 1,
        ("save", False, 0x6): 1,
        ("restore", False, 0x6): 1,
    }


def test_an_activation_with_the_flag_clear_was_a_signals() -> None:
    assert moves(on(0x2, flag=0)) == {("set", False, 0x2): 1}


def test_exit_deactivates_without_a_save() -> None:
    found = moves(on(0x2), off(0x2, flag=0), ("drop", 1, 0, 0x2, TASK | C))
    assert found == {("restore", False, 0x2): 1, ("drop", False, 0x2): 1}


def test_a_save_before_an_exit_elsewhere_still_counts() -> None:
    found = moves(off(0x2), on(0x2), off(0x2), ("drop", 2, 0, 0x2, TASK | C))
    assert found[("save", False, 0x2)] == 2


def test_a_fork_saves_into_the_child() -> None:
    assert moves(("fork", 1, 0, 0x202, 0x2E7 | C)) == {("fork", False, 0x202): 1}


def test_a_core_dump_saves_what_is_not_in_memory() -> None:
    assert moves(("sync", 1, 0, 0x2, TASK | C), ("sync", 1, 1, 0x6, TASK | C)) == {("save", False, 0x2): 1}


def test_a_swap_is_the_guests_before_load_and_the_tasks_before_unload() -> None:
    # in: the task's registers are saved (flag clear), the guest's restored; out: likewise.  What the way in saved is
    # told by the way out (0x6), what the way out saved by nobody.
    found = moves(on(0x1002, GUEST, flag=0), kvm(1), on(0x6, flag=0), kvm(0))
    assert found == {
        ("swap restore", True, 0x1002): 1,
        ("swap restore", False, 0x6): 1,
        ("swap save", False, 0x6): 1,
        ("swap save", True, UNKNOWN): 1,
    }


def test_what_lay_in_memory_is_not_saved_again() -> None:
    # switched out in the guest (0x1004), then out of it with TIF_NEED_FPU_LOAD set: no save; in again saves the task
    found = moves(
        on(0x1002, GUEST, flag=0),
        kvm(1),
        off(0x1004, GUEST),
        on(0x6, flag=1),
        kvm(0),
        on(0x1004, GUEST, flag=0),
        kvm(1),
    )
    assert found == {
        ("swap restore", True, 0x1002): 1,
        ("swap save", False, 0x6): 1,
        ("save", True, 0x1004): 1,
        ("swap restore", False, 0x6): 1,
        ("swap restore", True, 0x1004): 1,
        ("swap save", False, UNKNOWN): 1,
    }


def test_in_the_guest_rows_are_the_guests() -> None:
    found = moves(on(0, GUEST), kvm(1), off(0x1002, GUEST), on(0x1002, GUEST), off(0x3, GUEST), on(0), kvm(0), off(0x2))
    assert found[("save", True, 0x1002)] == found[("restore", True, 0x1002)] == found[("save", True, 0x3)] == 1
    assert found[("save", False, 0x2)] == 1


def test_a_switch_between_swap_and_kvm_fpu_is_of_the_new_one() -> None:
    assert moves(on(0, GUEST), off(0x5, GUEST), kvm(1))[("save", True, 0x5)] == 1


def test_a_recording_that_begins_in_a_guest_is_understood_by_the_unload() -> None:
    found = moves(off(0x1002, GUEST), on(0x1002, GUEST), on(0x6, flag=1), kvm(0))
    assert found[("save", True, 0x1002)] == found[("restore", True, 0x1002)] == 1


def test_threads_have_nothing_to_do_with_each_other() -> None:
    found = moves(on(0, GUEST), off(0x6, pid=2), kvm(1), on(0x6, pid=2), off(0x7, GUEST), on(0x2), kvm(0))
    assert found[("save", False, 0x6)] == found[("restore", False, 0x6)] == found[("save", True, 0x7)] == 1


def test_masks_that_cannot_be_are_told_of() -> None:
    for in_use, xcomp_bv in ((0x7, 0x3 | C), (C, 0), (0x2, 0x1234)):
        found = counted(("on", 1, 1, in_use, xcomp_bv))
        assert found.stale == 1
        assert found.moves == {Move("restore", False, UNKNOWN, UNKNOWN): 1}


def test_standard_format_has_no_room_of_its_own() -> None:
    assert counted(("off", 1, 1, 0x7, 0)).moves == {Move("save", False, 0x7, 0): 1}


def test_every_struct_fpu_is_a_task_and_those_that_kvm_swaps_in_a_vcpu() -> None:
    amx = 0x602E7
    found = counted(
        on(0, GUEST), kvm(1), on(0), kvm(0), off(0, pid=2), off(0, amx, pid=3), on(0x2, amx, pid=3), off(0, pid=3)
    )
    assert found.tasks == {TASK: 2, amx | TASK: 1}
    assert found.vcpus == {GUEST: 1}


def test_lost_events_are_counted_not_judged() -> None:
    found = counted(("lost", 0, 0, 0, 0), ("other", 1, ABSENT, 0, 0))
    assert (found.events, found.lost_rows, found.moves) == (0, 1, {})
    assert found.lost == 0xF000  # what stands in the column a


# -- however it is cut -----------------------------------------------------------------------------------------------


def told(events: list[Event]) -> dict[Move, int]:
    """Count row by row, as the kernel does it: each thread has a place where its registers' fpstate is plugged in."""
    found: Counter[Move] = Counter()
    for pid in {event[1] for event in events}:
        rows = [event for event in events if event[1] == pid and event[0] not in {"lost", "other"}]
        swaps = [at for at, event in enumerate(rows) if event[0] == "kvm"]
        owner = not rows[swaps[0]][2] if swaps else False
        saved: int | None = None  # the flag of the swap before; None before the first
        for begin, end in zip([-1, *swaps], [*swaps, len(rows)], strict=True):
            mine = rows[begin + 1 : end]
            last = max((at for at, row in enumerate(mine) if row[0] == "on"), default=-1)
            closing = end < len(rows)
            for at, row in enumerate(mine):
                if not (closing and at == last):
                    plain(found, row, bool(owner if at < last or not closing else rows[end][2]))
            if closing:
                owner = bool(rows[end][2])
                row = mine[last] if last >= 0 else ("on", pid, 2, UNKNOWN, UNKNOWN)
                masks = (row[3], row[4] & ~C) if last >= 0 else (UNKNOWN, UNKNOWN)
                found[Move("swap restore", owner, *masks)] += 1
                if saved is not None and saved != 1:
                    found[Move("swap save", owner, *masks)] += 1
                saved = row[2]
        if saved is not None and saved != 1:
            found[Move("swap save", not owner, UNKNOWN, UNKNOWN)] += 1
        for first, second in itertools.pairwise(rows):
            if (first[0], second[0]) == ("off", "drop"):
                found[Move("save", False, first[3], first[4] & ~C)] -= 1
    return {move: count for move, count in found.items() if count}


def plain(found: Counter[Move], row: Event, guest: bool) -> None:
    name, _, flag, in_use, xcomp_bv = row
    op = {"on": "set" if flag == 0 else "restore", "drop": "drop", "fork": "fork"}.get(name, "save")
    if name != "sync" or flag != 1:
        found[Move(op, guest and name != "fork", in_use, xcomp_bv & ~C)] += 1


ROW = st.tuples(
    st.sampled_from(["on", "on", "on", "off", "drop", "fork", "sync", "other"]),
    st.integers(1, 3),
    st.integers(0, 1),
    st.sampled_from([0, 0x2, 0x6]),
    st.sampled_from([TASK | C, GUEST | C]),
)
SWAP = st.tuples(st.just("kvm"), st.integers(1, 3), st.integers(0, 1), st.just(MISSING), st.just(MISSING))
RUNS = st.lists(st.lists(st.one_of(ROW, SWAP), max_size=8), max_size=6)


def alternating(runs: list[list[Event]]) -> list[list[Event]]:
    """Make loads and unloads of each thread alternate, and drops follow a thread's own rows, as the kernel does."""
    loaded: dict[int, int] = {}
    made = []
    for run in runs:
        rows = []
        for event in run:
            name, pid, flag, in_use, xcomp_bv = event
            if name == "kvm":
                flag = loaded[pid] = 1 - loaded.get(pid, flag)
            if name == "drop" and loaded.get(pid):
                continue  # no thread exits in KVM_RUN
            rows.append((name, pid, flag, in_use, xcomp_bv))
        made.append(rows)
    return made


@settings(max_examples=200, deadline=None, derandomize=True)
@given(RUNS)
def test_blocks_give_what_row_by_row_gives(runs: list[list[Event]]) -> None:
    made = alternating(runs)
    census = Census()
    for run in made:
        census.feed(block(run))
    assert census.result().moves == told([event for run in made for event in run])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(RUNS, st.integers(0, 6), st.integers(0, 6))
def test_parts_joined_give_the_same_as_one_pass(runs: list[list[Event]], one: int, two: int) -> None:
    made = [block(run) for run in alternating(runs)]
    one, two = sorted((min(one, len(made)), min(two, len(made))))
    whole, parts = Census(), [Census(), Census(), Census()]
    for part, blocks in zip(parts, (made[:one], made[one:two], made[two:]), strict=True):
        for rows in blocks:
            part.feed(rows)
            whole.feed(rows)
    right = parts[1]
    right.join(parts[2])
    parts[0].join(right)
    assert parts[0].result() == whole.result()
