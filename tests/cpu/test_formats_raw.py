"""Raw records, as dd reads them from /dev/cpu/N/cpuid."""

from __future__ import annotations

import struct

import pytest

from fpstate.cpu.formats import read
from fpstate.errors import UnreadableInput


def pack(*records: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<4I", *record) for record in records)


INTEL = (0xD, 0x756E6547, 0x6C65746E, 0x49656E69)
AMD = (0xD, 0x68747541, 0x444D4163, 0x69746E65)


def test_records_after_a_vendor_are_leaves() -> None:
    (dump,) = read(pack(INTEL, (0x306C3, 1, 2, 3), *[(0, 0, 0, 0)] * 11, (7, 832, 832, 0)))
    assert list(dump.leaves) == [(leaf, 0) for leaf in range(14)]
    assert dump.leaves[0xD, 0] == (7, 832, 832, 0)
    assert dump.format == "raw"
    assert dump.guesses == ("raw records: taken as leaves 0, 1, 2, ..., sub-leaf 0 of each",)


@pytest.mark.parametrize(
    "vendor", [b"GenuineIntel", b"AuthenticAMD", b"HygonGenuine", b"CentaurHauls", b"  Shanghai  "]
)
def test_every_vendor_is_known(vendor: bytes) -> None:
    ebx, edx, ecx = struct.unpack("<3I", vendor)
    assert read(pack((0xD, ebx, ecx, edx)))[0].leaves == {(0, 0): (0xD, ebx, ecx, edx)}


def test_records_above_the_highest_leaf_are_dropped() -> None:
    (dump,) = read(pack(INTEL, *[(7, 832, 832, 0)] * 20))
    assert len(dump.leaves) == 14
    assert "dropped 7 leaves above 0xd" in dump.notes[0]


def test_a_vendor_coming_again_begins_a_logical_cpu() -> None:
    assert [len(dump.leaves) for dump in read(pack(INTEL, (1, 2, 3, 4), AMD))] == [2, 1]


def test_records_after_leaf_0xd_are_its_subleaves() -> None:
    (dump,) = read(pack((7, 832, 832, 0), (1, 0, 0, 0), (0x100, 0x240, 0, 0)))
    assert dump.leaves == {(0xD, 0): (7, 832, 832, 0), (0xD, 1): (1, 0, 0, 0), (0xD, 2): (0x100, 0x240, 0, 0)}
    assert dump.guesses == ("raw records: taken as sub-leaves 0, 1, 2, ... of leaf 0xd",)


def test_a_record_cut_off_is_refused() -> None:
    with pytest.raises(
        UnreadableInput, match=r"x.bin ends in the middle of a CPUID record: 31 bytes are no multiple of 16"
    ):
        read(pack(INTEL, INTEL)[:31], name="x.bin")


@pytest.mark.parametrize(
    "record", [(0, 0, 0, 0), (7, 575, 832, 0), (5, 832, 832, 0), (7, 832, 576, 0), (7, 832, 1 << 20, 0)]
)
def test_other_binary_data_is_refused(record: tuple[int, int, int, int]) -> None:
    with pytest.raises(
        UnreadableInput, match="no CPUID leaves, boot lines or template found in standard input: it is binary"
    ):
        read(pack(record))
