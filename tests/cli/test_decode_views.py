"""``fpstate decode --explain`` and ``--diff``: what is printed, and the exit status."""

from __future__ import annotations

import pathlib
import re

import pytest

import elfcores as cores
from corpus import corpus_files
from decoding import document, run

ZMM3 = bytes(range(64))
STATE = cores.image({"zmm3": ZMM3})
CHANGED = cores.image({"zmm3": ZMM3[:40] + b"\xff" + ZMM3[41:]})


@pytest.fixture(autouse=True)
def _folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    write("a.core", STATE, STATE)
    write("b.core", STATE, CHANGED)


def write(name: str, *images: bytes) -> None:
    threads = [cores.thread(tid, image) for tid, image in enumerate(images, 1)]
    pathlib.Path(name).write_bytes(cores.core([*threads, cores.layout_of()]))


def damaged(at: int, value: int) -> bytes:
    image = bytearray(STATE)
    image[at] |= value
    return bytes(image)


# -- --explain -----------------------------------------------------------------------------------------------------


def test_a_refusal_by_one_reader_is_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("a.core --explain", capsys)
    assert status == 0
    assert "XRSTORS64              #GP(0)    xcomp-bv-format    527  XCOMP_BV[63] is 0\n" in out
    assert out.startswith("a.core: elf-core, 2 threads (all of them: --all-threads)\n\nthread 1\n")
    assert "PTRACE_SETREGSET       accepted                          under linux-6.18\n" in out
    assert "  xcomp-bv-format: XCOMP_BV[63] must be 1 for XRSTORS; set XCOMP_BV" in out


def test_damage_of_the_source_is_one_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write("bad.core", damaged(513, 2))
    status, out, _ = run("bad.core --explain", capsys)
    assert status == 1
    assert re.search(r"XRSTOR64 +#GP\(0\) +standard-xstate-bv +513  XSTATE_BV sets bit 9 \(PKRU\)\n", out)
    assert out.splitlines()[-1].startswith("header.standard-xstate-bv (byte ")


@pytest.mark.parametrize("reader", ["PTRACE_SETREGSET", "KVM_SET_XSAVE, padded"])
def test_the_component_of_a_bit_is_named_by_the_kernel_s_rules_too(
    reader: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("bad.core", damaged(513, 2))
    out = run("bad.core --explain", capsys)[1]
    assert re.search(rf"{reader} +EINVAL +[a-z0-9-]+ +513  XSTATE_BV sets bit 9 \(PKRU\)\n", out)


def test_threads_with_the_same_answers_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    out = run("b.core --explain --all-threads", capsys)[1]
    assert "threads 1, 2\nstandard, 2432 bytes; XCR0 0xe7, linux-6.18, user features 0xe7 " in out
    assert out.count("KVM_SET_XSAVE, padded") == 1


def test_the_document_has_every_thread_s_answers(capsys: pytest.CaptureFixture[str]) -> None:
    found = document("a.core --explain", capsys)
    assert [thread["tid"] for thread in found["threads"]] == [1, 2]
    readers = {reader["reader"]: reader for reader in found["threads"][0]["readers"]}
    assert readers["XRSTOR64"]["outcome"] == "runs"
    kvm = readers["KVM_SET_XSAVE"]
    assert (kvm["outcome"], kvm["effect"], kvm["broken"]["rule"]) == ("refused", "EFAULT", "kvm-size")
    assert readers["rt_sigreturn"]["broken"]["offset"] == 464


def test_the_kernel_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert document("a.core --explain --policy linux-6.7", capsys)["threads"][0]["policy"] == "linux-6.7"


@pytest.mark.parametrize("path", corpus_files("cores/*.core"))
def test_real_cores_can_be_handed_back(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for thread in document(f"{path} --explain", capsys)["threads"]:
        outcomes = {reader["reader"]: reader["outcome"] for reader in thread["readers"]}
        assert {outcomes.get("PTRACE_SETREGSET", "accepted"), outcomes.get("KVM_SET_XSAVE, padded", "accepted")} == {
            "accepted"
        }
        assert "runs" in outcomes.values()


# -- --diff --------------------------------------------------------------------------------------------------------


def test_a_difference_is_one_and_says_thread_register_and_place(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("a.core --diff b.core", capsys)
    assert status == 1
    assert "A a.core: elf-core, 2 threads\nB b.core: elf-core, 2 threads\n\nthread 2\n" in out
    assert "zmm3      ZMM_Hi256  byte 32: 202122232425262728292a2b2c2d2e2f...  byte 32: 2021222324252627ff" in out
    assert out.endswith("the same state: thread 1\n")


def test_equal_sources_are_zero(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("a.core --diff a.core", capsys)
    assert (status, out.splitlines()[-1]) == (0, "the same state: threads 1, 2")


def test_one_thread_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.core --diff b.core --thread 1", capsys)[0] == 0
    assert run("a.core --diff b.core --thread 2", capsys)[0] == 1


def test_two_threads_of_one_core_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("b.core --diff b.core --diff-thread 2", capsys)
    assert status == 1
    assert "\n\nthread 1 (B: 2)\n" in out
    assert run("b.core --thread 2 --diff b.core --diff-thread 2", capsys)[0] == 0


def test_a_thread_is_compared_with_an_image_alone(capsys: pytest.CaptureFixture[str]) -> None:
    pathlib.Path("image.bin").write_bytes(CHANGED)
    assert run("b.core --diff image.bin --thread 2", capsys)[0] == 0
    assert run("b.core --diff image.bin --thread 1", capsys)[0] == 1


def test_xstate_bv_alone_is_told_and_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    write("c.core", STATE, damaged(512, 1))
    status, out, _ = run("a.core --diff c.core", capsys)
    assert status == 0
    assert "thread 2\nopmask" not in out
    assert "thread 2\nx87: in use in B, initial in A, with the same values\nthe same values\n" in out


def test_the_document_has_both_values(capsys: pytest.CaptureFixture[str]) -> None:
    found = document("a.core --diff b.core", capsys, status=1)
    assert (found["same"], found["only_a"], found["only_b"]) == (False, [], [])
    assert [thread["same"] for thread in found["threads"]] == [True, False]
    assert found["threads"][1]["registers"] == {"zmm3": {"a": ZMM3.hex(), "b": CHANGED_HEX}}


CHANGED_HEX = (ZMM3[:40] + b"\xff" + ZMM3[41:]).hex()


def test_a_thread_that_one_source_lacks_is_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    write("short.core", STATE)
    status, out, _ = run("a.core --diff short.core", capsys)
    assert (status, out.splitlines()[-1]) == (1, "in A alone: thread 2")


def test_the_other_source_may_be_of_another_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    intel = cores.image({"zmm3": ZMM3}, cpu="sapphire-rapids")
    pathlib.Path("intel.core").write_bytes(cores.core([cores.thread(1, intel), cores.thread(2, intel)]))
    assert run("a.core --diff intel.core --diff-cpu sapphire-rapids", capsys)[0] == 0


def test_a_damaged_source_is_one_though_nothing_differs(capsys: pytest.CaptureFixture[str]) -> None:
    write("bad.core", STATE, damaged(560, 1))
    status, out, _ = run("a.core --diff bad.core", capsys)
    assert status == 1
    assert out.splitlines()[-1].startswith("B: header.reserved (byte ")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("a.core --policy 6.12", "--policy goes with --explain"),
        ("a.core --diff-cpu zen4", "--diff-cpu goes with --diff"),
        ("a.core --diff-thread 1", "--diff-thread goes with --diff"),
        ("a.core --diff b.core --diff-thread 9", "b.core has no thread 9; it has 1, 2"),
        ("a.core --diff-pid 4294967295", "there is no process or thread 4294967295"),
        ("a.core --diff-pid 1 --diff b.core", "not allowed with argument"),
        ("- --diff -", "standard input can be one of SOURCE, OTHER"),
        ("a.core --diff nofile", "nofile"),
        ("a.core --diff b.core --thread 9", "a.core has no thread 9; it has 1, 2"),
        ("a.core --explain --policy no-such", "'no-such' is not a policy"),
    ],
)
def test_what_cannot_be_meant_is_refused(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(command, capsys)
    assert (status, out) == (2, "")
    assert message in err
