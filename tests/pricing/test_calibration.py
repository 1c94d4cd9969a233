"""A calibration: its arithmetic, its document, and that no other file is taken for one."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstate.cpu import by_name
from fpstate.errors import CannotTell, FpstateError, UnreadableInput
from fpstate.isa.capabilities import Capabilities
from fpstate.pricing import published
from fpstate.pricing.calibration import INSTRUCTIONS, Calibration, document, parse, read, shipped
from fpstate.pricing.measure import Plan, measure, plans, summary
from fpstate.pricing.tariff import Range, Tariff


def tree() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(document(shipped())))
    return found


# -- the plan and the arithmetic -------------------------------------------------------------------------------------


def masks(xcr0: int, instruction: str = "XSAVEC") -> set[tuple[int, int]]:
    return {(p.rfbm, p.in_use) for p in plans(xcr0, lambda _: True) if p.instruction == instruction}


def test_every_prefix_is_measured_with_nothing_and_with_all_in_use() -> None:
    # XCR0 with x87, SSE, AVX, AVX-512, PKRU and AMX
    for prefix in (0x3, 0x7, 0xE7, 0x2E7, 0x602E7):
        assert {(prefix, 0), (prefix, prefix)} <= masks(0x602E7)


def test_the_widest_mask_is_measured_with_growing_use() -> None:
    widest = {used for rfbm, used in masks(0xE7) if rfbm == 0xE7}
    assert widest == {0, 0x2, 0x3, 0x6, 0x7, 0xE6, 0xE7}


def test_pkru_and_amx_are_measured_alone() -> None:
    assert {(0x200, 0x200), (0x60000, 0x60000), (0xE0, 0xE0)} <= masks(0x602E7)


def test_no_instruction_is_planned_that_the_cpu_lacks() -> None:
    old = {p.instruction for p in plans(0x7, lambda flag: flag == "XSAVE")}
    assert old == {"XSAVE", "XRSTOR", "FXSAVE", "FXRSTOR"}


def test_a_point_is_what_a_sample_takes_less_the_overhead_by_repeats() -> None:
    # two runs of 4 samples, 10 executions each, 100 ticks of overhead:
    # (150-100)/10 = 5 at least; all medians: run 1 (170+190)/2 -> 8, run 2 (230+250)/2 -> 14; of all (190+210)/2 -> 10
    plan = Plan("XSAVE", 7, 3, 10, [(150, 170, 190, 210), (210, 230, 250, 1100)])
    point = summary(plan, overhead=100)
    assert (point.minimum, point.median, point.low, point.high) == (5, 11, 8, 14)
    # in order: 150 170 190 210 210 230 250 1100; a quarter is 2: 190 and 230
    assert (point.q1, point.q3) == (9, 13)


@pytest.mark.host
def test_this_cpu_can_be_calibrated() -> None:
    try:
        found = measure(samples=20, runs=3)
    except UnreadableInput as missing:
        pytest.skip(str(missing))
    instructions = {point.instruction for point in found.points}
    assert {"XSAVE", "XRSTOR", "FXSAVE", "FXRSTOR"} <= instructions <= set(INSTRUCTIONS)
    assert all(point.minimum <= point.q1 <= point.median <= point.q3 for point in found.points)
    assert all(point.low <= point.high for point in found.points)
    assert found.clock.granularity >= 1
    assert found.clock.samples == 60
    assert found.machine.xcr0 & 3 == 3
    assert any("XSAVES" in line for line in found.not_measured)
    assert any("WRMSRNS" in line for line in found.not_measured)
    assert document(parse(json.dumps(document(found)).encode(), "")) == document(found)


# -- the published figures -------------------------------------------------------------------------------------------


def test_every_published_figure_has_a_source_a_date_and_a_range_or_none() -> None:
    for figure in published.shipped().values():
        assert figure.source
        assert figure.date
        assert (figure.low is None) is (figure.high is None)
        if figure.low is not None and figure.high is not None:
            assert figure.low <= figure.high
    assert published.shipped()["wrmsrns"].low is None


# -- the document ----------------------------------------------------------------------------------------------------


def test_the_shipped_calibration_is_what_calibrate_writes_today() -> None:
    assert document(parse(json.dumps(tree()).encode(), "")) == tree()
    assert dict(shipped().published) == dict(published.shipped())


def _put(where: str, value: object) -> bytes:
    found: Any = tree()
    *path, last = [int(key) if key.isdecimal() else key for key in where.split(".")]
    at = found
    for key in path:
        at = at[key]
    at[last] = value
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        ("schema", 2, "schema must be 1"),
        ("schema", True, "schema must be 1"),
        ("points", [], "points must hold"),
        ("points.0.instruction", "XSAVES", r"points\[0\].instruction must be one of"),
        ("points.0.in_use", "0x8", r"points\[0\].in_use must be a subset of rfbm: it has 0x8 more"),
        ("points.0.rfbm", 7, r"points\[0\].rfbm must be text"),
        ("points.0.rfbm", "0x8000000000000007", r"points\[0\].rfbm must be a mask"),
        ("points.0.median", -1e9, r"points\[0\].median must be -64 to"),
        ("points.0.median", "12", r"points\[0\].median must be a number"),
        ("points.0.q1", 1e6, r"points\[0\] must ascend"),
        ("published.wrmsr.low", 400, "published.wrmsr must have low and high"),
        ("machine.sizes", {"1": 3}, "machine.sizes must be of components"),
        ("machine.sizes", {"9" * 50: 3}, "machine.sizes must be of components"),
        ("machine.xcr0", "e" * 4000, "machine.xcr0 must be a mask"),
        ("clock.runs", None, "clock.runs must be a number"),
        ("not_measured", [1], "not_measured must be text"),
    ],
)
def test_a_field_that_cannot_be_is_named(where: str, value: object, named: str) -> None:
    with pytest.raises(UnreadableInput, match=named):
        parse(_put(where, value), "file")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 100000, b'{"calibration": "of a scale"}'])
def test_another_file_is_not_taken_for_one(data: bytes) -> None:
    with pytest.raises(UnreadableInput, match="fpstate calibrate"):
        parse(data, "file")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = st.sampled_from(
    ["machine", "clock", "points", "published", "machine.sizes", "points.0", "points.5.low", "published.rdmsr",
     "clock.granularity", "machine.signature", "not_measured", "published.kvm_run.high"]
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PLACES, JSON)
def test_whatever_stands_in_a_field_it_is_read_or_refused(where: str, value: object) -> None:
    with contextlib.suppress(FpstateError):
        assert isinstance(parse(_put(where, value), "file"), Calibration)


def test_a_file_that_is_not_there_is_told_of(tmp_path: Any) -> None:
    with pytest.raises(UnreadableInput, match="cannot read"):
        read(str(tmp_path / "none.json"))


# -- the tariff ------------------------------------------------------------------------------------------------------


def tiny(*points: tuple[str, int, int, float]) -> Calibration:
    """Return a calibration in which a point's cost is from 10 below its median to 10 above."""
    found = tree()
    found["points"] = [
        {"instruction": name, "rfbm": hex(rfbm), "in_use": hex(used), "minimum": cost - 10, "q1": cost - 5}
        | {"median": cost, "q3": cost + 5, "low": cost - 10, "high": cost + 10}
        for name, rfbm, used, cost in points
    ]
    return parse(json.dumps(found).encode(), "tiny")


ZEN4 = by_name("zen4")
SAVES = (("XSAVEC", 0x7, 0, 100.0), ("XSAVEC", 0x7, 0x3, 120.0), ("XSAVEC", 0x7, 0x7, 140.0))
RESTORES = (("XRSTOR compacted", 0x7, 0, 250.0), ("XRSTOR compacted", 0x7, 0x7, 270.0))


def test_a_measured_point_is_taken_as_it_is() -> None:
    assert Tariff(tiny(*SAVES), ZEN4).save("XSAVES", 0x7, 0x3) == Range(110, 120, 130)


def test_what_lies_between_two_points_costs_what_lies_between_theirs() -> None:
    # AVX and SSE are 256 bytes each and x87 160 (by the catalogue): 0x6 is 512 of 0x7's 672; below lies (0x7, 0) with
    # 0 bytes in use, for (0x7, 0x3) uses x87, which 0x6 does not; RFBM is the same: 100 + 40 * 512/672
    found = Tariff(tiny(*SAVES), ZEN4).save("XSAVES", 0x7, 0x6)
    assert (found.low, found.high) == (90, 150)
    assert found.mid == pytest.approx(100 + 40 * 512 / 672)


def test_a_supervisor_component_in_use_costs_from_nothing_to_msr_reads() -> None:
    # CET_S is 24 bytes, 3 MSRs; RDMSR is 30 at least; the marginal byte is (140-100)/672 ticks
    found = Tariff(tiny(*SAVES), ZEN4).save("XSAVES", 0x1007, 0x1003)
    assert (found.low, found.high) == (110, 130 + 3 * 30)
    assert found.mid == pytest.approx(120 + 24 * 40 / 672)


def test_a_supervisor_component_not_in_use_costs_a_save_nothing() -> None:
    tariff = Tariff(tiny(*SAVES), ZEN4)
    assert tariff.save("XSAVES", 0x1007, 0x3) == tariff.save("XSAVES", 0x7, 0x3)


def test_a_supervisor_component_costs_a_restore_whether_it_is_in_use_or_not() -> None:
    tariff = Tariff(tiny(*RESTORES), ZEN4)
    for held in (0x7, 0x1007):  # WRMSR is 100 at least
        assert tariff.restore("XRSTORS", 0x1007, held).high == 280 + 3 * 100


def test_a_component_that_was_not_measured_costs_from_nothing_to_the_average_byte() -> None:
    # AVX-512's ZMM_Hi256 is 512 bytes; the dearest point has 672 bytes at 140 ticks
    found = Tariff(tiny(*SAVES), ZEN4).save("XSAVES", 0x47, 0x47)
    assert found.low == 130
    assert found.mid == pytest.approx(140 + 512 * 40 / 672)
    assert found.high == pytest.approx(150 + 512 * 140 / 672)


def test_msrs_cost_what_was_published() -> None:
    assert Tariff(shipped(), ZEN4).msr("rdmsr") == Range(30, 40, 50)
    with pytest.raises(CannotTell, match="wrmsrns"):
        Tariff(shipped(), ZEN4).msr("wrmsrns")


def test_an_instruction_without_a_point_is_told_of() -> None:
    with pytest.raises(CannotTell, match="no point of FXSAVE"):
        Tariff(tiny(*SAVES), ZEN4).save("FXSAVE", 0, 0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 0x1FFF), st.integers(0, 0x1FFF))
def test_a_range_is_in_order_whatever_is_moved(rfbm: int, in_use: int) -> None:
    enabled = 0x1800 | Capabilities(ZEN4).user
    tariff = Tariff(shipped(), ZEN4)
    for cost in (
        tariff.save("XSAVES", rfbm & enabled | 3, in_use & rfbm & enabled),
        tariff.restore("XRSTORS", rfbm & enabled | 3, in_use & rfbm & enabled),
    ):
        assert 0 < cost.low <= cost.mid <= cost.high
