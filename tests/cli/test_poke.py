"""``fpstate poke``: one register of a real thread changes and nothing else; what the kernel would refuse is refused."""

from __future__ import annotations

import json
import os

import pytest

from fpstate import cli
from fpstate.cpu.host import why_not_x86_64
from fpstate.image import read, register_differences
from fpstate.isa import Capabilities
from fpstate.registers import find
from fpstate.sources.process import capture_thread
from fpstate.xfeatures import CATALOGUE
from known import known
from tracees import Program

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(why_not_x86_64() is not None, reason=str(why_not_x86_64())),
]


def poke(tid: int, *words: str) -> int:
    return cli.main(["poke", "--tid", str(tid), *words])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("xmm3", b"sixteen new bytes"[:16]),
        ("ymm9", bytes(range(32))),
        ("zmm20", bytes(range(100, 164))),
        ("k5", b"\x12\x34\x56\x78\0\0\0\0"),
        ("st2", bytes(7) + b"\x80\xff\x3f"),
        ("mxcsr", (0x1FA0).to_bytes(4, "little")),
        ("fctrl", (0x37F).to_bytes(2, "little")),
    ],
)
def test_the_thread_goes_on_with_the_new_value_and_all_else_unchanged(
    program: Program, caps: Capabilities, name: str, value: bytes
) -> None:
    if find(name).components & ~(caps.cpu.dump.xcr0 or caps.user):
        pytest.skip(f"this machine has no {name}")
    before = read(known(caps, 2), caps)
    assert before.register(name) != value
    text = value.hex() if name[0] in "xyzs" else f"{int.from_bytes(value, 'little'):x}"
    assert poke(program.answer[1], f"{name}={text}") == 0
    first, second = (read(saved, caps) for saved in program.saved())
    assert register_differences(first, read(known(caps, 1), caps)) == []
    assert second.register(name) == value
    changed = {name, f"z{name[1:]}"} if name[0] in "xyz" else {name}
    assert {difference.register.name for difference in register_differences(second, before)} <= changed


def test_it_says_what_it_changed(program: Program, caps: Capabilities, capsys: pytest.CaptureFixture[str]) -> None:
    assert poke(program.answer[0], "xmm3=" + "ab" * 16, "mxcsr=0x1fa0", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["tid"], document["written"], document["differences"]) == (program.answer[0], True, [])
    assert document["changes"] == [
        {"register": "xmm3", "old": read(known(caps, 1), caps).register("xmm3").hex(), "new": "ab" * 16},
        {"register": "mxcsr", "old": "0x1f80", "new": "0x1fa0"},
    ]


def test_a_rehearsal_changes_nothing(program: Program, caps: Capabilities, capsys: pytest.CaptureFixture[str]) -> None:
    assert poke(program.answer[0], "xmm3=" + "ab" * 16, "--dry-run") == 0
    assert "not written: a rehearsal" in capsys.readouterr().out
    first, _ = (read(saved, caps) for saved in program.saved())
    assert register_differences(first, read(known(caps, 1), caps)) == []


def test_a_component_in_its_initial_configuration_becomes_used(
    caps: Capabilities, capsys: pytest.CaptureFixture[str]
) -> None:
    with Program("registers", [bytes(576)]) as program:
        assert poke(program.answer[0], "st1=00000000000000800040") == 0
        said = capsys.readouterr().out
        assert "x87 was in its initial configuration and is in use now" in said
        assert "st1 is marked empty in ftag" in said
        image = read(bytes(capture_thread(program.answer[0]).threads[0].image), caps)
    assert image.register("st1").hex() == "00000000000000800040"
    assert image.register("fctrl") == b"\x7f\x03"
    assert image.mxcsr in {0, 0x1F80}  # as XRSTOR loaded it from bytes 24 to 27


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("u_cet=1", "u_cet lies in CET_U, a supervisor component, and NT_X86_XSTATE has user components alone: EINVAL"),
        ("mxcsr=80001f80", "EINVAL: MXCSR 0x80001f80 sets bit 31"),
        ("xmm3=00", "xmm3 must be 16 bytes in hex"),
        ("xmm3", "'xmm3' must be REG=VALUE"),
        ("xmm99=0", "there is no register 'xmm99'"),
    ],
)
def test_what_the_kernel_would_refuse_is_refused_by_rule(
    program: Program, caps: Capabilities, capsys: pytest.CaptureFixture[str], assignment: str, message: str
) -> None:
    assert poke(program.answer[0], assignment) == 2
    assert message in capsys.readouterr().err
    first, _ = (read(saved, caps) for saved in program.saved())
    assert register_differences(first, read(known(caps, 1), caps)) == []


def test_a_component_that_this_host_lacks_is_refused_by_rule(
    program: Program, caps: Capabilities, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = {"pkru": 9, "bnd0": 3, "r16": 19, "tmm0": 18}
    missing = next((name for name, bit in lacking.items() if not caps.user >> bit & 1), None)
    if missing is None:
        pytest.skip("this CPU has every component")
    sizes = {"pkru": 4, "bnd0": 16, "r16": 8, "tmm0": 1024}
    value = "1" if missing in {"pkru", "r16"} else "00" * sizes[missing]
    assert poke(program.answer[0], f"{missing}={value}") == 2
    said = capsys.readouterr().err
    assert f"{missing} lies in {CATALOGUE.name(lacking[missing])}, which this host has not" in said
    assert "ptrace-features" in said


def test_contradicting_names_are_refused(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert poke(program.answer[0], "ymm1=" + "11" * 32, "xmm1=" + "22" * 16) == 2
    assert "ymm1 has another value under another name" in capsys.readouterr().err


def test_a_thread_that_cannot_be_traced_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert poke(os.getpid(), "xmm1=" + "22" * 16) == 2
    assert "is one of fpstate's own process" in capsys.readouterr().err
