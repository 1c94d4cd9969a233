"""A run priced: each policy's sums by hand for a tiny census, what must hold for any, and a real run with a guest."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

np = pytest.importorskip("numpy", reason="NumPy is missing: pip install 'fpstate[trace]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from fpstate import cli  # noqa: E402
from fpstate.cpu import by_name  # noqa: E402
from fpstate.errors import FpstateError  # noqa: E402
from fpstate.linux import policy as policies  # noqa: E402
from fpstate.linux.compare import DEBATE, compare  # noqa: E402
from fpstate.pricing.calibration import shipped  # noqa: E402
from fpstate.pricing.tariff import Range, Tariff  # noqa: E402
from fpstate.report.cost import document, text  # noqa: E402
from fpstate.report.cost_picture import svg  # noqa: E402
from fpstate.traces.census import UNKNOWN, Counts, Move  # noqa: E402
from fpstate.traces.cost import Costs, Price, price  # noqa: E402

ZEN4 = by_name("zen4")
SPR = by_name("sapphire-rapids")
TASK, GUEST = 0xAE7, 0x1AE7
"""Room of a task's and of a guest's fpstate on the table's Zen 4: PKRU and CET_U among it."""
TINY = {
    Move("save", False, 0x2, TASK): 10,
    Move("restore", False, 0x2, TASK): 10,
    Move("save", True, 0x2, GUEST): 1,
    Move("restore", True, 0x2, GUEST): 1,
    Move("swap save", False, 0x2, TASK): 5,
    Move("swap restore", True, 0x2, GUEST): 5,
    Move("swap save", True, 0x2, GUEST): 5,
    Move("swap restore", False, 0x2, TASK): 5,
    Move("fork", False, 0x2, TASK): 2,
    Move("drop", False, 0x2, TASK): 2,
}
# 23 saves: tasks' 10 + 5 + 2, guests' 1 + 5.  21 restores: tasks' 10 + 5, guests' 1 + 5.
# SSE in use: 16 bytes of header, 256 of XMM, 8 of MXCSR and its mask (SDM 13.11)
# SSE loaded: 64 bytes of header, 256 of XMM, 4 of MXCSR
SAVED, RESTORED = 16 + 256 + 8, 64 + 256 + 4


def counts(moves: dict[Move, int], **others: Any) -> Counts:
    values: dict[str, Any] = {
        "tasks": {TASK: 3},
        "vcpus": {GUEST: 1},
        "events": 0,
        "lost": 0,
        "lost_rows": 0,
        "stale": 0,
    }
    return Counts(moves=moves, **(values | {"has_kvm": True} | others))


def costs(moves: dict[Move, int], *names: str, cpu: Any = ZEN4, **others: Any) -> Costs:
    chosen = [policies.find(name) for name in names or DEBATE]
    return price(compare(cpu, chosen), counts(moves, **others), Tariff(shipped(), cpu))


@pytest.fixture(scope="module")
def tiny() -> Costs:
    return costs(TINY)


def the(found: Costs, name: str) -> Price:
    return found.prices[name]


# -- each policy by hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linux-6.7", "cet-v8", "linux-6.18", "default-on", "raw-msr", "resident"])
def test_what_is_not_in_use_moves_the_same_bytes_under_every_policy(tiny: Costs, name: str) -> None:
    row = the(tiny, name).never
    assert (row.bytes_saved, row.bytes_restored) == (23 * SAVED, 21 * RESTORED)


def test_guest_only_is_saved_with_guests_and_restored_with_all(tiny: Costs) -> None:
    for name in ("cet-v8", "linux-6.18"):
        row = the(tiny, name).never
        assert row.saves == {TASK: 17, GUEST: 6}
        assert row.restores == {0x18E7: 21}  # PKRU is in no restore of the core


def test_guest_only_always_in_use_moves_24_bytes_of_guests_alone(tiny: Costs) -> None:
    found = the(tiny, "linux-6.18")
    assert found.always.bytes_saved - found.never.bytes_saved == 6 * 24
    assert found.always.bytes_restored - found.never.bytes_restored == 6 * 24
    assert found.undetermined == {"guests": 0x1000}


def test_default_on_is_saved_and_restored_with_all(tiny: Costs) -> None:
    found = the(tiny, "default-on")
    assert found.never.saves == {GUEST: 23}
    assert found.never.restores == {0x18E7: 21}
    assert found.always.bytes_saved - found.never.bytes_saved == 23 * 24
    assert found.undetermined == {"tasks": 0x1000, "guests": 0x1000}


def test_resident_leaves_it_out_of_tasks_restores(tiny: Costs) -> None:
    assert the(tiny, "resident").never.restores == {0x8E7: 15, 0x18E7: 6}


def test_without_the_component_nothing_is_undetermined(tiny: Costs) -> None:
    found = the(tiny, "linux-6.7")
    assert found.undetermined == {}
    assert found.never == found.always
    assert found.never.saves == {TASK: 23}


def test_raw_msr_reads_when_a_guest_is_left_and_writes_when_it_is_entered(tiny: Costs) -> None:
    # 3 MSRs; left by 5 swaps and 1 switch in KVM_RUN, entered as often
    row = the(tiny, "raw-msr").never
    assert (row.msr_reads, row.msr_writes) == (18, 18)
    others = [found.never for name, found in tiny.prices.items() if name != "raw-msr"]
    assert all(other.msr_reads == other.msr_writes == 0 for other in others)


def test_independent_saves_and_restores_a_buffer_of_its_own(tiny: Costs) -> None:
    # 6 XSAVES and 6 XRSTORS with RFBM 0x1000: nothing in use, 16 bytes of header written, 64 read
    row = the(tiny, "independent").never
    assert row.saves == {TASK: 23, 0x1000: 6}
    assert row.restores == {0x8E7: 21, 0x1000: 6}
    assert row.bytes_saved == 23 * SAVED + 6 * 16
    assert row.bytes_restored == 21 * RESTORED + 6 * 64


def test_memory_is_tasks_in_cache_lines_and_vcpus_in_pages(tiny: Costs) -> None:
    # Zen 4 task: 576 + 256 + 64 + 512 + 1024 + 8 PKRU + 16 CET_U, each where its own alignment puts it; 3 tasks.
    # The image's size and its lines are `compare`'s columns; a guest's is 1 page.
    for name in ("linux-6.18", "default-on"):
        column = the(tiny, name).column
        assert the(tiny, name).memory.tasks == 3 * column.task_slab
        assert the(tiny, name).memory.vcpus == 4096
    # 576 + 24 rounded up to 64 is 640; 3 MSRs of 8 bytes
    assert the(tiny, "independent").memory.own == 640
    assert the(tiny, "raw-msr").memory.own == 24
    assert the(tiny, "linux-6.18").memory.own == 0


def test_raw_msr_is_dearer_by_the_published_figures_less_what_the_core_is_spared() -> None:
    found = costs(TINY, "linux-6.7", "raw-msr")
    # the same instructions but 18 RDMSR of 30 to 50 and 18 WRMSR of 100 to 300
    assert found.difference(the(found, "raw-msr"), the(found, "linux-6.7")) == Range(18 * 130, 18 * 240, 18 * 350)


def test_what_both_do_cancels(tiny: Costs) -> None:
    assert tiny.difference(the(tiny, "cet-v8"), the(tiny, "linux-6.18")) == Range(0, 0, 0)
    assert tiny.cycles(the(tiny, "cet-v8")).low < tiny.cycles(the(tiny, "cet-v8")).high


# -- what the run shows, and what not --------------------------------------------------------------------------------


def test_a_component_that_the_runs_guests_use_is_not_bounded() -> None:
    moves = TINY | {Move("restore", True, 0x1002, GUEST): 1}
    found = the(costs(moves, "linux-6.18"), "linux-6.18")
    assert found.undetermined == {}
    assert found.never.bytes_restored == 21 * RESTORED + RESTORED + 24


def test_an_fpstate_that_grew_grows_under_every_policy() -> None:
    tile = 0x40000
    room = SPR.mask & 0x608E7 | tile  # whatever of it a task has, and XTILEDATA
    moves = {Move("save", False, 0x2, room): 1, Move("restore", False, 0x2, room): 1}
    found = costs(moves, "linux-6.18", "default-on", cpu=SPR, tasks={room: 1}, vcpus={})
    for name in ("linux-6.18", "default-on"):
        config = the(found, name).column.config
        assert the(found, name).never.saves == {config.save_rfbm | tile: 1}
        # XTILEDATA is 8192 bytes: more than 2 pages beside the slab's share
        assert the(found, name).memory.tasks - the(found, name).column.task_slab == 3 * 4096


def test_a_fork_saves_the_default_set_alone() -> None:
    room = 0x602E7
    found = costs({Move("fork", False, 0x2, room): 1}, "linux-6.18", cpu=SPR)
    config = the(found, "linux-6.18").column.config
    assert the(found, "linux-6.18").never.saves == {config.save_rfbm: 1}


def test_a_mask_that_the_recording_does_not_tell_is_bounded_by_nothing_and_all() -> None:
    found = the(costs({Move("save", False, UNKNOWN, UNKNOWN): 1}, "linux-6.7"), "linux-6.7")
    # header; x87 152, SSE with MXCSR 264, AVX 256, AVX-512 1600, PKRU 4 of its 8 bytes at least, CET_U 16
    assert found.never.bytes_saved == 16
    assert found.always.bytes_saved in {16 + 152 + 264 + 256 + 1600 + pkru + 16 for pkru in (4, 8)}


def test_a_kernel_without_xsave_moves_the_legacy_image() -> None:
    chosen = [policies.find("linux-6.18")]
    table = compare(ZEN4, chosen, cmdline="noxsave")
    found = price(table, counts(TINY), Tariff(shipped(), ZEN4))
    # FXSAVE writes its 416 bytes of registers (SDM 10.5.1) whatever is in use
    assert the(found, "linux-6.18").never.bytes_saved == 23 * 416


def test_assumptions_say_what_was_bounded_and_what_was_lost() -> None:
    words = "\n".join(costs(TINY, lost=7, lost_rows=2, has_kvm=False).assumptions())
    assert "default-on: the run does not show CET_S in tasks' state" in words
    assert "7 events were lost at 2 places" in words
    assert "every fpstate is taken for a task's own" in words
    assert "modified optimisation" in words


# -- what must hold for any run --------------------------------------------------------------------------------------


def made(op: str, in_use: int, *, guest: bool) -> Move:
    room = GUEST if guest else TASK
    return Move(op, guest, in_use & room, room)


MOVES = st.dictionaries(
    st.builds(
        lambda op, guest, used: made(op, used, guest=guest and op != "fork"),
        st.sampled_from(["save", "restore", "swap save", "swap restore", "fork", "drop", "set"]),
        st.booleans(),
        st.sampled_from([0, 0x2, 0x3, 0x6, 0x7, 0xE7, 0x802, 0x1002, 0x1AE7]),
    ),
    st.integers(1, 1000),
    max_size=8,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(MOVES)
def test_for_tasks_guest_only_never_moves_more_than_default_on(moves: dict[Move, int]) -> None:
    tasks = {move: count for move, count in moves.items() if not move.guest}
    found = costs(tasks, "linux-6.7", "linux-6.18", "default-on")
    without, guest_only, default_on = (found.prices[name] for name in ("linux-6.7", "linux-6.18", "default-on"))
    for kind in ("never", "always"):
        rows = [getattr(one, kind) for one in (without, guest_only, default_on)]
        saved = [row.bytes_saved for row in rows]
        restored = [row.bytes_restored for row in rows]
        assert saved == sorted(saved)  # linux-6.7's set is in linux-6.18's, that in default-on's
        assert restored == sorted(restored)
    assert found.difference(default_on, guest_only).low >= 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(MOVES)
def test_bounds_are_in_order_and_a_policy_is_not_dearer_than_itself(moves: dict[Move, int]) -> None:
    found = costs(moves)
    for one in found.prices.values():
        cycles = found.cycles(one)
        assert 0 <= cycles.low <= cycles.mid <= cycles.high
        assert one.never.bytes_saved <= one.always.bytes_saved
        assert one.never.saves == one.always.saves
        assert found.difference(one, one) == Range(0, 0, 0)


# -- how it is shown -------------------------------------------------------------------------------------------------


def test_the_document_has_what_others_rely_on(tiny: Costs) -> None:
    found = json.loads(json.dumps(document(tiny, "run")))
    assert found["schema"] == 1
    for name in DEBATE:
        row = found["policies"][name]
        assert {"bytes_saved", "bytes_restored", "msr_reads", "msr_writes"} <= row.keys()
        assert row["cycles"]["low"] <= row["cycles"]["mid"] <= row["cycles"]["high"]
    assert found["policies"]["linux-6.7"]["difference"] is None
    assert found["policies"]["raw-msr"]["difference"]["to"] == "linux-6.7"


def test_a_policy_whose_kernel_does_not_boot_has_no_price() -> None:
    # cet-v8 enables CET_U by force where a CPU has SHSTK; without it in IA32_XSS the kernel dies (see test_boot)
    table = compare(ZEN4, [policies.find(name) for name in ("linux-6.7", "linux-6.18")])
    dead = replace(table.columns[0], config=replace(table.columns[0].config, fate="panic", panic="it dies"))
    found = price(replace(table, columns=(dead, table.columns[1])), counts(TINY), Tariff(shipped(), ZEN4))
    rows = document(found, "run")["policies"]
    assert rows["linux-6.7"] == {"refused": "it dies"}
    assert rows["linux-6.18"]["difference"] is None  # the first that has a price
    assert "it dies" in text(found, "run")


def test_the_picture_is_xml_with_a_bar_and_a_range_a_policy(tiny: Costs) -> None:
    root = ET.fromstring(svg(tiny, "a <run> & more"))  # noqa: S314 - it is our own
    space = "{http://www.w3.org/2000/svg}"
    bars = [shape for shape in root.iter(f"{space}rect") if shape.get("height") == "18"]
    ranges = [line for line in root.iter(f"{space}line") if line.get("stroke") == "#c00000"]
    assert len(bars) == 2 * len(DEBATE)
    assert len(ranges) == 3 * len(bars)
    assert "a <run> & more" in text(tiny, "a <run> & more")


# -- a real run --------------------------------------------------------------------------------------------------------

GUEST_CODE = """
import os
from fpstate.linux.observe import guest
from fpstate.linux.observe.kvm import open_kvm
for _ in range(5):
    if os.fork() == 0:
        os._exit(0)
    os.wait()
with open_kvm() as device:
    guest.run(device, 100)
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of a process that forks and runs a guest 100 times, by our own recorder."""
    import sys

    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm cannot be opened")
    record = pytest.importorskip("fpstate.traces.record", reason="the recorder is missing")
    path = tmp_path_factory.mktemp("run") / "run.dat"
    try:
        plan = record.Plan(path=path, events=[], command=[sys.executable, "-c", GUEST_CODE], seconds=None)
        done = record.record(plan)
    except FpstateError as refused:
        pytest.skip(f"nothing can be recorded here: {refused}")
    if done.lost:
        pytest.skip(f"{done.lost} events were lost")
    return path


@pytest.mark.host
def test_a_real_guest_is_swapped_as_often_as_it_ran(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["trace", "cost", str(recording), "--json", "--cpu", "zen4"])
    found = json.loads(capsys.readouterr().out)
    assert status == 0
    sums: dict[tuple[str, str], int] = {}
    for move in found["run"]["moves"]:
        key = (move["op"], move["whose"])
        sums[key] = sums.get(key, 0) + move["count"]
    assert sums["swap restore", "guest"] >= 100
    assert sums["swap restore", "task"] == sums["swap restore", "guest"]
    assert sums["fork", "task"] >= 5
    assert found["run"]["vcpus"] >= 1
    assert found["policies"]["raw-msr"]["msr_writes"] >= 300
    assert found["run"]["stale"] == 0


@pytest.mark.host
def test_compare_has_the_costs_of_a_real_run(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "--cpu", "zen4", "--no-verify", "--trace", str(recording)]
    assert cli.main(arguments) == 0
    assert "RDMSR in the run" in capsys.readouterr().out
    assert cli.main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["cost"]["policies"]
    assert rows["raw-msr"]["msr_reads"] >= 300
    assert rows["default-on"]["cycles"]["low"] > 0


@pytest.mark.host
def test_a_run_is_priced_for_the_cpu_that_the_recording_describes() -> None:
    from fpstate.cli.traces.cost import _cpu
    from fpstate.cpu import this_host
    from fpstate.traces.machine import describe, facts_of
    from fpstate.traces.trace import Trace

    try:
        host = this_host()
    except FpstateError as missing:
        pytest.skip(str(missing))
    found = _cpu(None, Trace(source="run", format="none", streams=[], facts=facts_of(describe())))
    assert (found.mask, found.components) == (host.mask, host.components)
    assert _cpu("zen4", Trace(source="run", format="none", streams=[])).name == "zen4"
