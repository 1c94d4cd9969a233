"""What a report adds up: by hand-made recordings, and however a recording is cut."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="NumPy is missing: pip install 'fpstate[trace]'")
pytest.importorskip("pyarrow", reason="PyArrow is missing: pip install 'fpstate[trace]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from fpstate.traces import bins as bins_module  # noqa: E402
from fpstate.traces import report as report_module  # noqa: E402
from fpstate.traces.bins import MOST_BINS, Bins  # noqa: E402
from fpstate.traces.columns import CODES, MISSING, Block  # noqa: E402
from fpstate.traces.report import AWAY, BETWEEN_LOADS, LOADED, Report, middle  # noqa: E402
from fpstate.traces.stale import impossible  # noqa: E402
from handmade import GUEST, HOST, block  # noqa: E402

TALLIES = ("masks", "skipped", "kvm", "vcpus", "swapped", "waits", "used")


def rows(columns: dict[str, Any]) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in columns.values()), strict=True))


def state(report: Report) -> dict[str, object]:
    """Return everything that a report holds."""
    sums: dict[str, object] = {name: rows(getattr(report, name).columns()) for name in TALLIES}
    sums |= {name: getattr(report, name) for name in ("lost", "lost_uncounted", "first", "last")}
    owners = report.owners()
    return sums | {
        "events": report.events.tolist(),
        "owners": rows(owners.columns()),
        "widths": (owners.width, report.used.width, owners.span(), report.used.span()),
    }


def fed(*blocks: Block) -> Report:
    report = Report()
    for each in blocks:
        report.feed(each)
    return report


EVENTS = [
    "lost",
    "x86_fpu_regs_activated",
    "x86_fpu_regs_deactivated",
    "x86_fpu_dropped",
    "x86_fpu_copy_dst",
    "kvm_fpu",
    "kvm_entry",
    "kvm_userspace_exit",
    "sched_switch",
]
ROWS = st.lists(
    st.tuples(
        st.integers(0, 40) | st.integers(0, 1 << 62),
        st.integers(0, 1),
        st.integers(1, 3),
        st.sampled_from([CODES[name] for name in EVENTS]),
        st.integers(0, 1),
        st.sampled_from([0, 5, 0x1000, 0x2000, MISSING]),
        st.sampled_from([0, 2, 0xE7, 0x800, 1 << 50]),
        st.sampled_from([0, HOST, GUEST, 77]),
    ),
    max_size=30,
)


@given(ROWS, st.lists(st.integers(0, 30), max_size=4), st.data())
def test_any_cut_into_parts_gives_the_same_sums(
    made: list[tuple[int, ...]], cuts: list[int], data: st.DataObject
) -> None:
    ordered = sorted(made, key=lambda row: row[0])
    edges = [0, *sorted(min(cut, len(ordered)) for cut in cuts), len(ordered)]
    parts = [ordered[start:end] for start, end in itertools.pairwise(edges)]
    whole = Report()
    for part in parts:
        half = data.draw(st.integers(0, len(part)))
        whole.join(fed(Block.of_rows(part[:half]), Block.of_rows(part[half:])))
    assert state(whole) == state(fed(Block.of_rows(ordered)))


@settings(max_examples=50)
@given(ROWS, st.integers(0, 30))
def test_limits_that_are_reached_change_nothing_about_that(made: list[tuple[int, ...]], cut: int) -> None:
    ordered = sorted(made, key=lambda row: row[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bins_module, "_MOST_ROWS", 3)
        patch.setattr(bins_module, "MOST_BINS", 4)
        patch.setattr(report_module, "_MOST_MASKS", 2)
        patch.setattr(Bins.__init__, "__kwdefaults__", {"rows": 3})
        whole = fed(Block.of_rows(ordered[:cut]))
        whole.join(fed(Block.of_rows(ordered[cut:])))
        assert state(whole) == state(fed(Block.of_rows(ordered)))
        assert len({row[2:4] for row in rows(whole.masks.columns())}) <= 3
        assert len(whole.owners().span()) <= 4


# -- who owns the registers -------------------------------------------------------------------------------------------


def owned(report: Report) -> dict[tuple[int, int, int], int]:
    """Return the time by (cpu, pid, kept)."""
    times: dict[tuple[int, int, int], int] = {}
    for cpu, pid, kept, _, time in rows(report.owners().columns()):
        times[cpu, pid, kept] = times.get((cpu, pid, kept), 0) + time
    return times


def test_a_task_owns_the_registers_from_its_activation_until_another_s() -> None:
    report = fed(
        block(
            (100, 0, 1, "activated"), (130, 0, 1, "deactivated"), (150, 0, 2, "activated"), (160, 1, 9, "kvm_entry", 0)
        )
    )
    assert owned(report) == {(0, 1, 0): 30, (0, 1, 1): 20, (0, 2, 0): 10}


def test_nobody_owns_them_once_a_task_that_exits_dropped_them() -> None:
    exits = block(
        (100, 0, 1, "activated"), (130, 0, 1, "deactivated"), (131, 0, 1, "dropped"), (200, 0, 2, "activated")
    )
    assert owned(fed(exits)) == {(0, 1, 0): 30, (0, 1, 1): 1}


def test_who_owned_them_is_not_known_across_lost_events() -> None:
    report = fed(
        block((100, 0, 1, "activated"), (150, 1, 0, "lost", 7), (150, 0, 1, "deactivated"), (160, 0, 1, "dropped"))
    )
    assert owned(report) == {(0, 1, 1): 10}
    assert (report.lost, report.lost_uncounted) == (7, 0)


def test_a_place_where_nobody_counted_the_lost_is_counted() -> None:
    report = fed(block((100, 0, 0, "lost", 0), (150, 1, 0, "lost")))
    assert (report.lost, report.lost_uncounted) == (0, 2)


def test_bins_are_few_however_long_the_recording_is() -> None:
    times = [(at * 10**12, at % 2, 1 + at % 5, "activated") for at in range(2000)]
    owners = fed(*(block(*times[at : at + 100]) for at in range(0, 2000, 100))).owners()
    assert MOST_BINS // 2 < len(owners.span()) <= MOST_BINS
    assert sum(row[-1] for row in rows(owners.columns())) == (1999 + 1998) * 10**12


# -- loads, saves, and what was spared ------------------------------------------------------------------------------


def test_a_save_that_follows_a_save_on_the_same_cpu_skipped_the_restore() -> None:
    report = fed(
        block(
            (1, 0, 1, "activated"),
            (2, 0, 1, "deactivated", 0xE7),
            (3, 0, 1, "deactivated", 2),
            (4, 1, 1, "deactivated", 2),
        )
    )
    assert rows(report.skipped.columns()) == [(1, 0xE7, HOST, 1)]


def test_events_are_counted_by_task_and_masks_with_their_first_and_last_time() -> None:
    report = fed(block((1, 0, 1, "activated", 2), (5, 0, 1, "activated", 2), (7, 0, 1, "activated", 7)))
    code = CODES["x86_fpu_regs_activated"]
    assert rows(report.masks.columns()) == [(1, code, 2, HOST, 2, 1, 5), (1, code, 7, HOST, 1, 7, 7)]


def test_saves_are_counted_by_component_and_time() -> None:
    report = fed(block((1, 0, 1, "deactivated", 6), (5, 0, 1, "deactivated", 2), (7, 0, 1, "activated", 7)))
    assert rows(report.used.columns()) == [(1, 1, 1), (1, 5, 1), (2, 1, 1), (64, 1, 1), (64, 5, 1)]


# -- guests -----------------------------------------------------------------------------------------------------------

RUN = (
    (100, 0, 7, "activated", 0xE7, GUEST),
    (101, 0, 7, "kvm_fpu", 1),
    (102, 0, 7, "kvm_entry", 3),
    (110, 0, 7, "kvm_exit", 12, 1, 3),
    (120, 0, 7, "kvm_userspace_exit", 2, 0),
    (121, 0, 7, "activated", 2, HOST),
    (122, 0, 7, "kvm_fpu", 0),
    (150, 0, 7, "activated", 0xE7, GUEST),
    (151, 0, 7, "kvm_fpu", 1),
)


def test_what_was_activated_before_kvm_fpu_load_is_the_guest_s() -> None:
    assert rows(fed(block(*RUN)).swapped.columns()) == [(7, 0, 2, HOST, 1), (7, 1, 0xE7, GUEST, 2)]


def test_times_of_a_vcpu_thread_between_loads_and_unloads() -> None:
    waits = fed(block(*RUN)).waits.columns()
    times = {kind: (n, ns, first, last) for _, kind, _, n, ns, first, last in rows(waits)}
    assert times == {LOADED: (1, 21, 21, 21), AWAY: (1, 29, 29, 29), BETWEEN_LOADS: (1, 50, 50, 50)}


@given(st.integers(1, 1 << 63))
def test_a_size_class_is_within_seven_percent(time: int) -> None:
    middle_of = middle(int(report_module._size(np.array([time], np.uint64))[0]))
    assert abs(middle_of - time) <= 0.07 * time


# -- masks that no image has ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("xfeatures", "xcomp_bv", "wrong"),
    [
        (0xA2, HOST, False),
        (3, 0, False),  # standard format: text/rt_fiveflags_xcompbv0.trace.txt
        (0x203, 0x8000000000000207, False),  # host_report_full.txt.gz
        (0x1000, HOST, True),
        (2, 0x8E7, True),
        (0, 0x8000000000000800, True),
        (0xFFFF_8880_0000_1000, 0, True),
    ],
)
def test_masks_that_no_image_has_are_known(xfeatures: int, xcomp_bv: int, wrong: bool) -> None:
    assert impossible(np.array([xfeatures], np.uint64), np.array([xcomp_bv], np.uint64)).tolist() == [wrong]


def test_masks_that_no_image_has_count_as_missing() -> None:
    report = fed(block((1, 0, 1, "deactivated", 1 << 50, 12), (2, 0, 1, "deactivated", 99, 17)))
    assert [row[2:5] for row in rows(report.masks.columns())] == [(MISSING, MISSING, 2)]
