"""Cases and results as JSON lines: the form is the project's own, the values SDM volume 1, chapter 13."""

from __future__ import annotations

import contextlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate.cpu import by_name
from fpstate.errors import FpstateError, UnreadableInput
from fpstate.isa import INSTRUCTIONS, Capabilities
from fpstate.isa.case import run
from fpstate.isa.generate import Generator
from fpstate.vectors import case, result
from fpstate.vectors.fields import Document, read_lines

CASE: Document = {
    "cpu": "zen4",
    "profile": "zen4",
    "cpl": 0,
    "xcr0": "0xe7",
    "xss": "0x1800",
    "xfd": "0",
    "registers": {"xmm3": "11" * 16, "pl0_ssp": "0x1000", "mxcsr": "1fa0"},
    "op": "xsaves64",
    "rfbm": "0x1806",
    "address": "0x10000",
    "memory": "a5" * 512 + "00" * 512,
}


def _with(**changes: object) -> Document:
    return {**CASE, **changes}


def test_a_case_gives_memory_registers_and_fault() -> None:
    found = result.run_document(CASE)
    memory = bytes.fromhex(found["memory"])
    assert int.from_bytes(memory[512:520], "little") == 0x1002
    assert memory[24:28] == (0x1FA0).to_bytes(4, "little")
    assert memory[160 + 48 : 160 + 64] == b"\x11" * 16
    assert int.from_bytes(memory[576 + 256 + 16 : 576 + 256 + 24], "little") == 0x1000
    assert found["registers"] == {}
    assert found["fault"] is None


def test_registers_that_changed_are_named_in_full() -> None:
    memory = bytearray(1024)
    memory[512] = 4
    memory[576 + 48 : 576 + 64] = b"\x22" * 16
    memory[24:28] = (0x1F80).to_bytes(4, "little")
    found = result.run_document(_with(op="xrstor64", rfbm="6", memory=memory.hex(), registers={"xmm1": "33" * 16}))
    assert found["registers"] == {
        "xmm1": "00" * 16,
        "ymm1": "00" * 32,
        "ymm3": "00" * 16 + "22" * 16,
        "zmm1": "00" * 64,
        "zmm3": "00" * 16 + "22" * 16 + "00" * 32,
    }


def test_views_need_their_components_enabled() -> None:
    memory = bytearray(1024)
    found = result.run_document(
        _with(op="xrstor", xcr0="3", rfbm="2", memory=memory.hex(), registers={"xmm1": "33" * 16})
    )
    assert sorted(found["registers"]) == ["mxcsr", "xmm1"]


def test_a_fault_names_vector_code_rule_and_place() -> None:
    found = result.run_document(_with(address="0x10008"))
    assert found["fault"] == {"vector": "#GP", "error_code": 0, "rule": "alignment"}
    assert found["memory"] == CASE["memory"]
    found = result.run_document(_with(memory="00" * 64))
    assert found["fault"]["vector"] == "#PF"
    assert int(found["fault"]["address"], 16) == 0x10000 + 872 - 1


def test_control_instructions_have_ecx_and_value() -> None:
    assert result.run_document({"cpu": "zen4", "op": "xgetbv", "ecx": "0", "xcr0": "7"})["value"] == "0x7"
    found = result.run_document({"cpu": "zen4", "op": "xsetbv", "ecx": "0", "value": "0xe7", "xcr0": "1"})
    assert found == {"registers": {"xcr0": "0xe7"}, "fault": None}
    found = result.run_document({"cpu": "zen4", "op": "wrmsr", "ecx": "0x6a4", "value": "0x1001"})
    assert found["fault"]["rule"] == "ssp-alignment"
    assert result.run_document({"cpu": "zen4", "op": "rdmsr", "ecx": "0xda0", "xss": "0x800"})["value"] == "0x800"


def test_a_cpu_can_be_given_by_its_leaf() -> None:
    leaf_d = {"0": ["7", "0x340", "0x340", "0"], "1": ["0xf", "0", "0", "0"], "2": ["0x100", "0x240", "0", "0"]}
    found = result.run_document(_with(cpu={"leaf_d": leaf_d}, xcr0="7", xss="0", registers={}, rfbm="7"))
    assert found["fault"] is None


def test_pages_can_be_missing_or_read_only() -> None:
    memory = "00" * 8192
    assert result.run_document(_with(memory=memory, unmapped=["0x10000"]))["fault"]["error_code"] == 2
    assert result.run_document(_with(memory=memory, readonly=["0x10000"]))["fault"]["error_code"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": "xsavex"}, "op must be an instruction"),
        ({"cpu": None}, "cpu must be a name"),
        ({"cpu": "no-such-cpu"}, "no-such-cpu"),
        ({"cpu": {"leaf_d": {"64": []}}}, "sub-leaf"),
        ({"cpu": {"leaf_d": {"0": [1, 2, 3]}}}, "eax, ebx"),
        ({"profile": "vax"}, "profile"),
        ({"xcr0": "xyz"}, "xcr0 must be hex"),
        ({"xcr0": "1" * 17}, "xcr0 must be hex"),
        ({"xcr0": True}, "xcr0 must be hex"),
        ({"cpl": 4}, "cpl must be one of"),
        ({"ts": 1}, "ts must be true or false"),
        ({"mode": 16}, "mode must be"),
        ({"registers": []}, "registers must be an object"),
        ({"registers": {"xmm3": "11"}}, "xmm3 must be 16 bytes"),
        ({"registers": {"xmm99": "11"}}, "no register"),
        ({"registers": {"mxcsr": "ffffffff"}}, "MXCSR_MASK"),
        ({"registers": {"tmm1": "00" * 1024}}, "component 18"),
        ({"registers": {"xmm1": "11" * 16, "ymm1": "22" * 32}}, "xmm1 has another value"),
        ({"memory": "0"}, "memory must be hex"),
        ({"memory": 5}, "memory must be a string"),
        ({"memory": "00" * ((1 << 20) + 1)}, "at most 1 MiB"),
        ({"unmapped": "0"}, "unmapped must be an array"),
        ({"colour": "red"}, "no field 'colour'"),
        ({"mode": 32}, "64-bit mode only"),
    ],
)
def test_what_is_no_case_is_refused_by_field(change: Document, message: str) -> None:
    with pytest.raises(FpstateError, match=message):
        result.run_document(_with(**change))


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": ' * 5000])
def test_lines_that_are_no_objects_are_refused_by_number(text: str) -> None:
    with pytest.raises(UnreadableInput, match="line 2"):
        list(read_lines(["{}\n", text]))


def test_empty_lines_are_skipped() -> None:
    assert list(read_lines(["\n", "{}\n", " \n"])) == [(2, {})]


# There and back


@pytest.mark.parametrize("cpu", ["zen4", "sapphire-rapids"])
def test_a_generated_case_is_the_same_after_a_trip_through_json(cpu: str) -> None:
    generator = Generator(Capabilities(by_name(cpu)), seed=3)
    for op in INSTRUCTIONS:
        for _ in range(10):
            original = generator.case(op)
            document = json.loads(json.dumps(case.encode(original, cpu)))
            again = case.decode(document)
            expected = result.encode(original, run(original))
            assert result.encode(again, run(again)) == expected
            assert result.check({"case": document, "result": expected}) == []


# Checking others


def test_differences_are_told_one_by_one() -> None:
    right = result.run_document(CASE)
    memory = bytearray.fromhex(right["memory"])
    memory[520] ^= 1
    wrong = {"memory": memory.hex(), "registers": {"xmm1": "00" * 16}, "fault": {"vector": "#GP"}}
    assert result.check({"case": CASE, "result": wrong}) == [
        "memory byte 520 is 0x07, must be 0x06",
        "xmm1 must not change",
        "fault #GP, must be none",
    ]


def test_what_another_implementation_cannot_tell_is_not_compared() -> None:
    document = _with(address="0x10008")
    assert result.check({"case": document, "result": {"fault": {"vector": "#GP", "rule": None}}}) == []
    assert result.check({"case": document, "result": {"fault": {"vector": "#AC"}}}) == [
        "fault vector is #AC, must be #GP"
    ]


def test_numbers_compare_by_value() -> None:
    document = {"cpu": "zen4", "op": "xsetbv", "ecx": "0", "value": "0xe7", "xcr0": "1"}
    assert result.check({"case": document, "result": {"registers": {"xcr0": "E7"}}}) == []


@pytest.mark.parametrize("document", [{}, {"case": CASE}, {"case": CASE, "result": {"memory": 1}}])
def test_what_cannot_be_checked_is_refused(document: Document) -> None:
    with pytest.raises(UnreadableInput):
        result.check(document)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(case._FIELDS)), _JSON)
def test_no_field_makes_anything_but_a_result_or_a_refusal(field: str, value: object) -> None:
    with contextlib.suppress(FpstateError):
        result.run_document(_with(**{field: value}))


@given(st.binary(max_size=1100), st.sampled_from(INSTRUCTIONS), st.integers(0, (1 << 64) - 1), st.integers())
def test_no_image_mask_or_address_makes_anything_else(memory: bytes, op: str, mask: int, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    number = f"{rng.getrandbits(64):#x}"
    document = _with(op=op, memory=memory.hex(), rfbm=f"{mask:#x}", ecx=number, value=number, registers={})
    for cpu in ("zen4", "sapphire-rapids"):
        for profile in ("zen4", "amd", "intel", "sdm", "bochs", "qemu"):
            found = result.run_document({**document, "cpu": cpu, "profile": profile})
            assert set(found) <= {"memory", "registers", "fault", "value"}


@pytest.mark.parametrize(
    "leaf_d",
    [
        {"0": ["0x7", "0x340", "0x340", "0"], "1": ["8", "0", "0x4000", "0"], "14": ["8", "0", "1", "0"]},
        {"0": ["0x7", "0x340", "0x340", "0"], "1": ["8", "0", "0x100", "0"], "8": ["0", "0", "1", "0"]},
        {"0": ["0x207", "0xa88", "0xa88", "0"], "9": ["2", "0xa80", "0", "0"]},
        {"0": ["0x7", "0x340", "0x340", "0"], "2": ["0xffffffff", "0x240", "0", "0"]},
    ],
)
def test_sizes_that_cannot_be_are_refused(leaf_d: Document) -> None:
    with pytest.raises(FpstateError, match="bytes"):
        result.run_document({"cpu": {"leaf_d": leaf_d}, "op": "xgetbv"})


def test_values_that_no_processor_holds_are_refused() -> None:
    for change in ({"xcr0": "0xff"}, {"xcr0": "5"}, {"xss": "0x100"}, {"xfd": "0x40000"}):
        with pytest.raises(FpstateError, match=r"xcr0|xss|xfd"):
            result.run_document(_with(**change))


def test_the_id_comes_back_as_it_was() -> None:
    assert result.run_document({"id": 7, "cpu": "zen4", "op": "xgetbv"})["id"] == 7


def test_numbers_of_registers_may_be_json_numbers() -> None:
    found = result.run_document(_with(op="xsave64", rfbm="2", registers={"mxcsr": 0x1FA0}))
    assert bytes.fromhex(found["memory"])[24:28] == (0x1FA0).to_bytes(4, "little")


def test_a_component_without_registers_is_one() -> None:
    lwp = "55" * 128
    memory = "00" * 512 + "0000000000000040" + "00" * 312 + lwp
    document = {"cpu": "bulldozer", "op": "xrstor", "xcr0": "0x4000000000000007", "rfbm": "0x4000000000000000"}
    found = result.run_document({**document, "address": "0x1000", "memory": memory})
    assert found["registers"] == {"bit62": lwp}
