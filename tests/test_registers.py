"""Places and initial values: SDM volume 1, 13.5 and 13.6; names are gdb's."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate import registers
from fpstate.errors import UsageError
from fpstate.registers import REGISTERS
from fpstate.xfeatures import CATALOGUE, bits

COMPONENTS = range(20)


def test_every_component_has_registers() -> None:
    assert [bit for bit in COMPONENTS if not registers.of_component(bit)] == []


@pytest.mark.parametrize("bit", COMPONENTS)
def test_no_two_registers_of_a_component_share_a_byte(bit: int) -> None:
    spans = sorted((r.parts[0].offset, r.parts[0].offset + r.parts[0].size) for r in registers.of_component(bit))
    assert all(first[1] <= second[0] for first, second in pairwise(spans))


@pytest.mark.parametrize("bit", COMPONENTS)
def test_registers_fit_into_their_component(bit: int) -> None:
    row = CATALOGUE.get(bit)
    assert row is not None
    end = 416 if bit < 2 else row.size
    assert max(r.parts[0].offset + r.parts[0].size for r in registers.of_component(bit)) <= end


def test_a_vector_register_is_composed_of_its_parts() -> None:
    sections = {1: bytearray(416), 2: bytearray(256), 6: bytearray(512)}
    value = bytes(range(64))
    registers.write(registers.find("zmm3"), sections, value)
    assert sections[1][160 + 48 : 160 + 64] == value[:16]  # XMM3
    assert sections[2][48:64] == value[16:32]  # YMM3_H
    assert sections[6][96:128] == value[32:]  # ZMM3_H
    assert registers.read(registers.find("ymm3"), sections) == value[:32]


@pytest.mark.parametrize(
    ("name", "bit", "offset", "size"),
    [
        ("st7", 0, 144, 10),
        ("mxcsr", 1, 24, 4),
        ("xmm15", 1, 400, 16),
        ("ymm15h", 2, 240, 16),
        ("k7", 5, 56, 8),
        ("zmm15h", 6, 480, 32),
        ("zmm31", 7, 960, 64),
        ("rtit_addr1_b", 8, 64, 8),
        ("pl3_ssp", 11, 8, 8),
        ("pl2_ssp", 12, 16, 8),
        ("uintr_tt", 14, 40, 8),
        ("lbr_31_info", 15, 800, 8),
        ("tmm7", 18, 7168, 1024),
        ("r31", 19, 120, 8),
    ],
)
def test_place(name: str, bit: int, offset: int, size: int) -> None:
    (part,) = registers.find(name).parts
    assert (part.bit, part.offset, part.size) == (bit, offset, size)


@pytest.mark.parametrize(
    ("name", "msr"), [("u_cet", 0x6A0), ("pl0_ssp", 0x6A4), ("lbr_31_to_ip", 0x161F), ("hwp_request", 0x774)]
)
def test_msr_numbers(name: str, msr: int) -> None:
    assert registers.by_msr(msr) is registers.find(name)


@pytest.mark.parametrize(
    ("bit", "size", "expected"),
    [(13, 8, 1), (16, 8, 0x8000FF01), (0, 24, 0x37F), (9, 8, 0)],  # SDM 13.6: HDC, HWP, x87, PKRU
)
def test_initial_configuration(bit: int, size: int, expected: int) -> None:
    assert int.from_bytes(registers.initial(bit, size), "little") == expected


@given(st.sampled_from(sorted(REGISTERS)), st.data())
def test_a_value_reads_back_as_it_was_written(name: str, data: st.DataObject) -> None:
    register = REGISTERS[name]
    sections = {bit: bytearray(8192) for bit in bits(register.components)}
    value = data.draw(st.binary(min_size=register.size, max_size=register.size))
    registers.write(register, sections, value)
    assert registers.read(register, sections) == value
    assert register.parse(register.format(value)) == value


@pytest.mark.parametrize(
    ("name", "text"), [("xmm3", "00"), ("xmm3", "zz" * 16), ("mxcsr", "100000000"), ("mxcsr", "-1"), ("k1", "")]
)
def test_a_value_that_does_not_fit_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=name):
        registers.find(name).parse(text)


def test_an_unknown_name_is_refused_with_near_misses() -> None:
    with pytest.raises(UsageError, match="did you mean xmm3"):
        registers.find("xmmm3")


def test_a_register_of_an_absent_component_cannot_be_written() -> None:
    with pytest.raises(UsageError, match="component 2"):
        registers.write(registers.find("ymm0"), {1: bytearray(416)}, bytes(32))


def test_tile_rows() -> None:
    data = bytes(t for t in range(8) for _ in range(1024))
    assert registers.tile(data, 5) == [b"\x05" * 64] * 16


def test_protection_keys() -> None:
    keys = registers.pkru_keys(0b10_01_11)
    assert [(k.access_disable, k.write_disable) for k in keys[:4]] == [
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    ]
    assert len(keys) == 16


_ZERO, _ONE, _NAN = bytes(10), bytes.fromhex("0000000000000080ff3f"), bytes.fromhex("00000000000000c0ff7f")


def test_full_tag_word_follows_the_values_and_top() -> None:
    # TOP = 6: ST0 is R6, ST1 is R7, ST2 is R0; tags: 0 valid, 1 zero, 2 special, 3 empty (SDM volume 1, figure 8-7)
    stack = (_ONE, _ZERO, _NAN, *[_ZERO] * 5)
    full = registers.full_tags(0b1100_0001, 6 << 11, stack)
    assert full == 0b01_00_11_11_11_11_11_10
    assert registers.abridged_tags(full) == 0b1100_0001


@given(
    st.integers(0, 255), st.integers(0, 0xFFFF), st.lists(st.binary(min_size=10, max_size=10), min_size=8, max_size=8)
)
def test_abridging_the_full_tag_word_gives_the_abridged_one_back(tags: int, fstat: int, stack: list[bytes]) -> None:
    assert registers.abridged_tags(registers.full_tags(tags, fstat, tuple(stack))) == tags
