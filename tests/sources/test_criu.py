"""CRIU core images.  The file was written by CRIU's own pycriu 3.17.1, with the values that stand below."""

from __future__ import annotations

import contextlib
import gzip
import pathlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstate.cpu.model import Cpu
from fpstate.errors import UnreadableInput
from fpstate.image import Image
from fpstate.image import read as read_image
from fpstate.sources import criu
from fpstate.sources.capture import Thread
from fpstate.sources.input import Input
from fpstate.sources.protobuf import message, numbers
from fpstate.sources.window import Broken

REAL = gzip.decompress((pathlib.Path(__file__).parent / "criu-3.17-core-4242.img.gz").read_bytes())


def image_of(thread: Thread) -> Image:
    assert thread.layout is not None
    mask = 3 | sum(1 << bit for bit in thread.layout)
    flags = frozenset({"XSAVE"})
    return read_image(
        bytes(thread.image), Cpu(name="CRIU's", source="", components=thread.layout, xcr0_mask=mask, flags=flags)
    )


def words(width: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(width, "little") for value in values)


# What the script that wrote the file put into the fields of core_entry.
WRITTEN = {
    "fctrl": words(2, 0x37F),
    "fstat": words(2, 0x3000),
    "ftag": words(1, 0xC0),
    "fop": words(2, 0x7FF),
    "fioff": words(8, 0x401000),
    "fooff": words(8, 0x7FFE00001000),
    "mxcsr": words(4, 0x1FA0),
    "st0": bytes.fromhex("35c26821a2da0fc90040"),
    "xmm3": words(4, *(0x01010101 * i for i in range(12, 16))),
    "ymm3h": words(4, *(0x02020202 * i for i in range(12, 16))),
    "bnd1": words(8, 3, 4),
    "bndcfgu": words(8, 0x11),
    "k5": words(8, 0x0101010101010101 * 5),
    "zmm2h": words(8, *(0x0303030303030303 + i for i in range(8, 12))),
    "zmm17": words(8, *(0xFEDCBA9876543210 - i for i in range(8, 16))),
    "pkru": words(4, 0x55555554),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_criu_wrote_is_read(name: str) -> None:
    (thread,) = criu.read(Input("dump/core-4242.img", memoryview(REAL))).threads
    assert image_of(thread).register(name) == WRITTEN[name]


def test_the_thread_has_its_number_its_command_and_its_xstate_bv() -> None:
    capture = criu.read(Input("dump/core-4242.img", memoryview(REAL)))
    (thread,) = capture.threads
    assert (thread.tid, thread.name, thread.abi) == (4242, "victim", "x86-64")
    assert image_of(thread).xstate_bv == 0x2FF
    assert capture.damage == () == thread.damage


def test_an_image_is_known_by_one_magic_number_or_two() -> None:
    assert criu.sniff(Input("it", memoryview(REAL)))
    assert criu.sniff(Input("it", memoryview(REAL[4:])))  # version 1.0
    assert not criu.sniff(Input("it", memoryview(REAL[:4] + b"\0\0\0\0")))


def varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(found) + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def core(fpregs: bytes, mtype: int = 1, mode: int = 1) -> memoryview:
    info = field(2, field(28, mode)) + (field(3, fpregs) if fpregs else b"")
    entry = field(1, mtype) + field(2, info)
    return memoryview(struct.pack("<III", 0x54564319, 0x55053847, len(entry)) + entry)


def test_without_xsave_it_is_an_fxsave_image() -> None:
    (thread,) = criu.read(Input("a file", core(field(1, 0x37F) + field(7, 0x1F80)))).threads
    assert (thread.form, len(thread.image), thread.tid) == ("fxsave", 512, None)


def test_an_old_image_ends_at_ymmh_space() -> None:
    xsave = field(1, 7) + b"".join(field(2, i) for i in range(64))
    (thread,) = criu.read(Input("a file", core(field(13, xsave)))).threads
    assert thread.layout is not None
    assert list(thread.layout) == [2]


def test_packed_numbers_are_read_as_well() -> None:
    xsave = field(1, 7) + field(2, b"".join(varint(i) for i in range(64)))
    (thread,) = criu.read(Input("a file", core(field(13, xsave)))).threads
    assert image_of(thread).register("ymm1h") == words(4, 4, 5, 6, 7)


def test_a_component_that_criu_does_not_keep_is_said_to_be_lost() -> None:
    """AMX: CRIU 3.17 has no field for it."""
    (thread,) = criu.read(Input("a file", core(field(13, field(1, 0x60003))))).threads
    assert [damage.rule for damage in thread.damage] == ["criu.component-lost"] * 2
    assert "component 18 (XTILEDATA)" in thread.damage[1].text


def test_an_array_of_another_length_is_damage() -> None:
    (thread,) = criu.read(Input("a file", core(field(13, field(1, 7) + field(2, 5))))).threads
    assert "has 1 numbers, not 64" in thread.damage[0].text


def test_a_32_bit_task_is_told_by_its_registers() -> None:
    (thread,) = criu.read(Input("a file", core(field(1, 0x37F), mode=2))).threads
    assert thread.abi == "i386"


def test_another_architecture_is_refused() -> None:
    with pytest.raises(UnreadableInput, match="another architecture"):
        criu.read(Input("a file", core(b"", mtype=3)))


@pytest.mark.parametrize("size", [0x7FFFFFFF, len(REAL)])
def test_a_size_beyond_the_file_is_refused(size: int) -> None:
    data = REAL[:8] + struct.pack("<I", size) + REAL[12:]
    with pytest.raises(UnreadableInput, match=r"byte (8|12)"):
        criu.read(Input("a file", memoryview(data)))


def test_fields_of_a_newer_criu_are_named() -> None:
    capture = criu.read(Input("a file", core(field(13, field(1, 3) + field(9, b"\x08\x01")))))
    assert "fields [9]" in capture.notes[1]


@given(st.dictionaries(st.integers(1, 1 << 28), st.lists(st.integers(0, (1 << 64) - 1), min_size=1)))
def test_numbers_come_back_as_they_were_written(values: dict[int, list[int]]) -> None:
    wire = b"".join(field(number, value) for number, row in values.items() for value in row)
    found = message(memoryview(wire), 0)
    assert {number: numbers(found, number) for number in found} == values


@given(st.binary(max_size=64))
def test_no_bytes_break_the_wire_format(data: bytes) -> None:
    with contextlib.suppress(Broken):
        message(memoryview(data), 0)


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(REAL) - 1), st.integers(0, 255)), max_size=5), st.integers(0, len(REAL)))
def test_no_file_breaks_the_reader(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(REAL)
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(UnreadableInput):
        assert len(criu.read(Input("a file", memoryview(bytes(data[: max(end, 12)])))).threads) == 1
