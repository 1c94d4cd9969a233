"""Every boot of a real kernel in the corpus, predicted from its CPUID and command line alone."""

import json
import pathlib
import re
from typing import Any

import pytest

from corpus import corpus_files
from fpstate import cpu as cpus
from fpstate.linux.abi import UserAbi, permission_errno, user_abi
from fpstate.linux.boot import boot
from fpstate.linux.config import BootConfig
from fpstate.linux.policy import find

Boot = tuple[dict[str, Any], BootConfig, UserAbi]


@pytest.fixture(params=corpus_files("realkernel/*.json"))
def real(request: pytest.FixtureRequest) -> Boot:
    path: pathlib.Path = request.param
    record = json.loads(path.read_text())
    config = boot(cpus.load(str(path)), find("linux-6.18"), record["cmdline"])
    return record, config, user_abi(config)


def lines(record: dict[str, Any], key: str) -> list[str]:
    found: list[str] = record["userspace"].get(key, [])
    if not found:
        pytest.skip(f"this boot did not record {key}")
    return found


def test_boot_lines_are_predicted_character_for_character(real: Boot) -> None:
    record, config, _ = real
    wanted = ("x86/fpu", "max sigframe", "XSAVE consistency problem")
    seen = [line for line in record["boot_lines"] if any(word in line for word in wanted)]
    assert [line for line in config.boot_log if any(word in line for word in wanted)] == seen


def test_a_boot_that_died_is_predicted_to_panic(real: Boot) -> None:
    record, config, _ = real
    assert (config.fate == "panic") == (not record["reached_init"])


def test_arch_prctl_masks(real: Boot) -> None:
    record, _, abi = real
    values = [int(line.split("val=")[1], 16) for line in lines(record, "PRCTL")]
    assert values == [abi.xcomp_supp, abi.xcomp_perm, abi.xcomp_guest_perm]


@pytest.mark.parametrize("key", ["REQ_PERM", "REQ_GUEST_PERM"])
def test_permission_requests(real: Boot, key: str) -> None:
    record, config, _ = real
    for line in lines(record, key):
        match = re.fullmatch(r"(\d+) ret=-?\d errno=(\d+)", line)
        assert match
        assert permission_errno(config, int(match[1])) == int(match[2]), line


def test_at_minsigstksz(real: Boot) -> None:
    record, _, abi = real
    assert f"AT_MINSIGSTKSZ={abi.minsigstksz} " in lines(record, "AUXV")[0]


def test_signal_frames(real: Boot) -> None:
    record, _, abi = real
    frame = abi.frame
    words = f"extended_size={frame.extended_size} xfeatures={frame.xfeatures:x} xstate_size={frame.xstate_size} "
    assert words in lines(record, "SIGFRAME.initial")[0]


def test_signal_frames_with_a_tile_in_use(real: Boot) -> None:
    record, _, abi = real
    shown = lines(record, "AMX.SIGFRAME.tile")[0]
    frame = abi.frame_dynamic
    assert frame is not None
    assert (
        f"extended_size={frame.extended_size} xfeatures={frame.xfeatures:x} xstate_size={frame.xstate_size} " in shown
    )


def test_smallest_alternate_stacks(real: Boot) -> None:
    record, _, abi = real
    assert lines(record, "SAS") == [f"sigaltstack_min_accepted={abi.altstack_min}"]
    assert lines(record, "AMX.SAS.perm") == [f"sigaltstack_min_accepted={abi.altstack_min_permitted}"]


def test_the_ptrace_regset(real: Boot) -> None:
    record, _, abi = real
    shown = lines(record, "PTRACE.none")[1]
    if abi.regset_size is None:
        assert shown == "ret=-1 errno=19"
    else:
        assert f"size={abi.regset_size} sw_xfeatures={abi.regset_xfeatures:x} " in shown


def test_xcomp_bv_of_ordinary_tasks(real: Boot) -> None:
    record, config, _ = real
    seen = set(re.findall(r"xcomp_bv: (\w+)", " ".join(lines(record, "TRACE.all"))))
    assert seen == {f"{config.task_xcomp_bv:x}"}
