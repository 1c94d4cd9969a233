"""What the readers of XSAVE images say to a thread's bytes; real kernels answered tests/linux/test_copyin.py."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elfcores as cores
from fpstate.cpu import by_name
from fpstate.cpu.model import Component
from fpstate.image import convert, encode, read
from fpstate.isa import Capabilities
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2
from fpstate.linux.policy import find
from fpstate.sources import sigframe
from fpstate.sources.capture import Thread
from fpstate.sources.input import Input
from fpstate.sources.placement import Placer
from fpstate.sources.verdicts import Answer, hear

LINUX = find("linux-6.18")
ZEN4, SPR = by_name("zen4"), by_name("sapphire-rapids")
SIZE = 2432  # of a Zen 4 with XCR0 E7H
STATE = cores.image({"zmm3": bytes(range(64)), "k1": bytes(range(8))})
NOTE: Mapping[int, Component] = {bit: c for bit, c in ZEN4.components.items() if cores.XCR0 >> bit & 1}


def asked(thread: Thread, placer: Placer | None = None) -> dict[str, Answer]:
    """Return the answers by reader."""
    return {answer.reader: answer for answer in hear((placer or Placer()).place(thread), LINUX).answers}


def outcome(answer: Answer) -> str:
    """Return the rule that is broken, or "" if the image is taken."""
    if answer.refusal is not None:
        return "cannot tell"
    if answer.finding is not None:
        return answer.finding.rule.id
    return answer.verdict.fault.rule.id if answer.verdict is not None and answer.verdict.fault is not None else ""


def rules(thread: Thread, placer: Placer | None = None) -> dict[str, str]:
    return {reader: outcome(answer) for reader, answer in asked(thread, placer).items()}


def core_thread(image: bytes, **more: object) -> Thread:
    return Thread(7, memoryview(image), enabled=cores.XCR0, layout=NOTE, **more)  # type: ignore[arg-type]


def changed(image: bytes, at: int, value: int) -> bytes:
    made = bytearray(image)
    made[at] |= value
    return bytes(made)


# -- images that a kernel wrote ------------------------------------------------------------------------------------


def test_a_core_s_image_is_one_for_xrstor_and_ptrace_and_for_kvm_once_it_is_padded() -> None:
    assert rules(core_thread(STATE)) == {
        "XRSTOR64": "",
        "XRSTORS64": "xcomp-bv-format",
        "PTRACE_SETREGSET": "",
        "KVM_SET_XSAVE": "kvm-size",
        "KVM_SET_XSAVE, padded": "",
        "rt_sigreturn": "sigreturn-magic1",
    }


@pytest.mark.parametrize("placer", [Placer(), Placer(ZEN4)], ids=["deduced", "named CPU"])
def test_the_layout_may_come_from_anywhere(placer: Placer) -> None:
    thread = Thread(7, memoryview(STATE), enabled=cores.XCR0)
    assert rules(thread, placer) == rules(core_thread(STATE))


def test_xrstor_tells_what_it_loads_and_initialises() -> None:
    verdict = asked(core_thread(STATE))["XRSTOR64"].verdict
    assert verdict is not None
    assert (verdict.loaded, verdict.initialised) == (0b110_0110, 0b1000_0001)


def test_a_compacted_image_is_xrstors_s_and_no_interface_s() -> None:
    image = convert(read(STATE, ZEN4), "compacted")
    assert rules(Thread(None, memoryview(image)), Placer(ZEN4)) == {
        "XRSTOR64": "",
        "XRSTORS64": "",
        "PTRACE_SETREGSET": "ptrace-size",
        "KVM_SET_XSAVE": "kvm-size",
        "KVM_SET_XSAVE, padded": "kvm-xcomp-bv",
        "rt_sigreturn": "sigreturn-magic1",
    }


def test_of_an_unknown_cpu_a_compacted_image_s_size_in_standard_format_cannot_be_told() -> None:
    image = convert(read(STATE, ZEN4), "compacted")
    found = rules(Thread(None, memoryview(image)))
    assert (found["XRSTORS64"], found["PTRACE_SETREGSET"]) == ("", "cannot tell")
    assert hear(Placer().place(Thread(None, memoryview(image))), LINUX).features is None


def test_supervisor_components_are_xrstors_s_alone() -> None:
    image = encode(ZEN4, {"pl0_ssp": (0x1000).to_bytes(8, "little")}, "compacted")
    found = rules(Thread(None, memoryview(image)), Placer(ZEN4))
    assert (found["XRSTORS64"], found["XRSTOR64"]) == ("", "xcomp-bv")


def test_a_task_that_uses_amx_had_the_permission() -> None:
    image = encode(SPR, {"tmm0": bytes(range(64)) * 16}, components=0x602E7)
    thread = Thread(7, memoryview(image), enabled=0x602E7)
    placed = Placer(SPR).place(thread)
    hearing = hear(placed, LINUX)
    assert hearing.features == 0x602E7
    assert rules(thread, Placer(SPR))["PTRACE_SETREGSET"] == rules(thread, Placer(SPR))["KVM_SET_XSAVE"] == ""
    idle = Thread(7, memoryview(encode(SPR, {}, components=0x602E7)), enabled=0x602E7)
    assert hear(Placer(SPR).place(idle), LINUX).features == 0x202E7


def test_a_32_bit_thread_is_asked_about_without_rex_w_and_its_frame_is_another_one() -> None:
    found = rules(core_thread(STATE, abi="i386"))
    assert (found["XRSTOR"], found["XRSTORS"], found["rt_sigreturn"]) == ("", "xcomp-bv-format", "cannot tell")


def test_fxsave_s_form_has_one_reader_and_fsave_s_none() -> None:
    assert rules(Thread(7, memoryview(STATE[:512]), form="fxsave")) == {"FXRSTOR64": ""}
    assert rules(Thread(7, memoryview(bytes(108)), form="fsave")) == {}
    assert rules(Thread(7, memoryview(b""), form="none")) == {}


def test_of_an_image_that_no_cpu_writes_nothing_is_said() -> None:
    found = asked(Thread(7, memoryview(STATE + bytes(8)), enabled=cores.XCR0))
    assert {outcome(answer) for answer in found.values()} == {"cannot tell"}
    assert "--cpu" in str(found["XRSTOR64"].refusal)


# -- damaged ones --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "value", "xrstor", "ptrace", "offset"),
    [
        (513, 2, "standard-xstate-bv", "ptrace-features", 513),  # PKRU, which XCR0 has not
        (520, 1, "standard-header", "ptrace-xcomp-bv", 520),
        (560, 1, "", "ptrace-reserved", 560),  # XRSTOR in standard format looks at bytes 8 to 23 alone
        (27, 0x80, "mxcsr", "ptrace-mxcsr", 27),
    ],
)
def test_damage_is_refused_by_rule_and_byte(at: int, value: int, xrstor: str, ptrace: str, offset: int) -> None:
    found = asked(core_thread(changed(STATE, at, value)))
    assert (outcome(found["XRSTOR64"]), outcome(found["PTRACE_SETREGSET"])) == (xrstor, ptrace)
    assert outcome(found["KVM_SET_XSAVE, padded"]).partition("-")[2] in {ptrace.partition("-")[2], "xcr0"}
    finding = found["PTRACE_SETREGSET"].finding
    assert finding is not None
    assert finding.offset == offset


def test_an_image_that_was_cut_off_faults_where_its_bytes_end() -> None:
    found = asked(core_thread(STATE[:1000], said=SIZE))
    verdict = found["XRSTOR64"].verdict
    assert verdict is not None
    assert verdict.fault is not None
    assert (verdict.fault.vector, outcome(found["PTRACE_SETREGSET"])) == ("#PF", "ptrace-size")


# -- signal frames -------------------------------------------------------------------------------------------------


def frame(magic2: int = FP_XSTATE_MAGIC2) -> Thread:
    made = bytearray(STATE) + struct.pack("<I", magic2)
    struct.pack_into("<IIQI", made, 464, FP_XSTATE_MAGIC1, SIZE + 4, cores.XCR0, SIZE)
    (thread,) = sigframe.read(Input("frame", bytes(made))).threads
    return thread


def test_sigreturn_accepts_a_frame_of_its_own() -> None:
    assert rules(frame())["rt_sigreturn"] == ""


def test_a_frame_without_magic2_restores_x87_and_sse_alone() -> None:
    answer = asked(frame(magic2=0))["rt_sigreturn"]
    assert answer.finding is not None
    assert (answer.finding.rule.id, answer.finding.effect, answer.finding.offset) == (
        "sigreturn-magic2",
        "fx-only",
        SIZE,
    )


# -- any bytes -----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    header=st.binary(min_size=24, max_size=64),
    size=st.integers(0, 5000),
    enabled=st.one_of(st.none(), st.integers(0, (1 << 64) - 1), st.sampled_from([0x3, 0x7, 0xE7, 0x2E7, 0x602E7])),
    known=st.sampled_from([Placer(), Placer(ZEN4), Placer(SPR)]),
)
def test_any_bytes_are_answered(header: bytes, size: int, enabled: int | None, known: Placer) -> None:
    image = bytes(512) + header.ljust(64, b"\0") + bytes(range(256)) * 20
    placed = known.place(Thread(1, memoryview(image[:size]), enabled=enabled))
    for answer in hear(placed, LINUX).answers:
        assert answer.refusal is None or answer.verdict is None


def test_the_named_cpu_s_places_count_for_the_real_image() -> None:
    assert Capabilities(ZEN4).standard(cores.XCR0).end == SIZE
