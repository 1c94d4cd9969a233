"""Firecracker state files, built as bincode writes VcpuState: no real one was at hand."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstate.errors import UnreadableInput
from fpstate.sources import firecracker
from fpstate.sources.input import Input

MAGIC = 0x0710_1984_8664_0000


def image(xstate_bv: int, fill: int = 0) -> bytes:
    data = bytearray(4096)
    struct.pack_into("<H22xII", data, 0, 0x37F, 0x1F80, 0x2FFFF)
    struct.pack_into("<Q", data, 512, xstate_bv)
    data[576:832] = bytes([fill]) * 256
    return bytes(data)


def counted(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def xcrs(xcr0: int) -> bytes:
    return counted(struct.pack("<IIIIQ", 1, 0, 0, 0, xcr0).ljust(392, b"\0"))


def old_vcpu(xcr0: int, data: bytes) -> bytes:
    """Return the end of VcpuState to 1.11: xcrs, kvm_xsave, tsc_khz."""
    return bytes(1000) + xcrs(xcr0) + counted(data) + b"\1" + struct.pack("<I", 2_000_000)


def new_vcpu(xcr0: int, data: bytes, more: bytes) -> bytes:
    """Return it from 1.12: Xsave is a pair, kvm_xsave2 and the further words."""
    words = len(more) // 4
    pair = counted(struct.pack("<Q", words) + data) + struct.pack("<Q", words) + more
    return bytes(1000) + xcrs(xcr0) + pair + b"\0"


def state(*vcpus: bytes, version: str = "4.0.0", magic: int = MAGIC) -> bytes:
    body = struct.pack("<Q", magic) + counted(version.encode()) + bytes(500) + b"".join(vcpus) + bytes(300)
    return body + struct.pack("<Q", firecracker.crc64(body))


def test_every_vcpu_is_found_in_the_files_order() -> None:
    data = state(old_vcpu(7, image(7, 1)), old_vcpu(3, image(3)))
    capture = firecracker.read(Input("a state", memoryview(data)))
    assert [(t.tid, t.enabled, t.form) for t in capture.threads] == [(0, 7, "xsave"), (1, 3, "xsave")]
    assert [bytes(t.image) for t in capture.threads] == [image(7, 1), image(3)]
    assert capture.damage == ()
    assert capture.notes[0] == "Firecracker snapshot, format 4.0.0"


def test_an_image_of_an_old_release_is_where_it_lies_in_the_file() -> None:
    data = state(old_vcpu(7, image(7)))
    (thread,) = firecracker.read(Input("a state", memoryview(data))).threads
    assert thread.offset == data.index(image(7))


def test_amx_lies_in_the_words_behind_the_first_4096_bytes() -> None:
    more = bytes(range(256)) * 27
    data = state(new_vcpu(0x602E7, image(0x602E7), more), version="6.0.0")
    (thread,) = firecracker.read(Input("a state", memoryview(data))).threads
    assert bytes(thread.image) == image(0x602E7) + more
    assert thread.offset is None


def test_without_further_words_nothing_is_copied() -> None:
    data = state(new_vcpu(7, image(7), b""), version="6.0.0")
    (thread,) = firecracker.read(Input("a state", memoryview(data))).threads
    assert thread.offset == data.index(image(7))


@pytest.mark.parametrize(
    "vcpu",
    [
        old_vcpu(4, image(7)),  # XSETBV refuses AVX without SSE
        old_vcpu(7, image(1 << 40)),
        old_vcpu(7, image(7)[:2048]),
        new_vcpu(7, image(7), bytes(8))[: 1000 + 8 + 392 + 16 + 4096] + struct.pack("<Q", 77),
        b"",
    ],
    ids=["xcr0", "xstate-bv", "short", "two-counts-differ", "none"],
)
def test_what_is_no_vcpu_is_not_taken_for_one(vcpu: bytes) -> None:
    with pytest.raises(UnreadableInput, match="no vCPU's XCR0 and XSAVE area stand together"):
        firecracker.read(Input("a state", memoryview(state(vcpu))))


def test_an_arm_guests_snapshot_is_known_and_refused() -> None:
    data = memoryview(state(magic=0x0710_1984_AAAA_0000))
    assert firecracker.sniff(Input("it", data))
    with pytest.raises(UnreadableInput, match="no Firecracker snapshot of an x86-64 guest"):
        firecracker.read(Input("a state", data))


def test_a_changed_byte_breaks_the_crc_and_nothing_else() -> None:
    data = bytearray(state(old_vcpu(7, image(7))))
    data[40] ^= 1
    capture = firecracker.read(Input("a state", memoryview(bytes(data))))
    assert [(damage.rule, damage.offset) for damage in capture.damage] == [("firecracker.crc", len(data) - 8)]
    assert len(capture.threads) == 1


def test_the_crc_is_that_of_redis() -> None:
    """Redis, src/crc64.c: the check value of its own test."""
    assert firecracker.crc64(b"123456789") == 0xE9C6D914C4B8D9CA


WHOLE = state(old_vcpu(7, image(7)), new_vcpu(0x602E7, image(0x602E7), bytes(6912)))


@settings(max_examples=60, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 8), st.integers(0, (1 << 64) - 1)), max_size=4),
    st.integers(0, len(WHOLE)),
)
def test_no_file_breaks_the_reader(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        struct.pack_into("<Q", data, at, value)
    with contextlib.suppress(UnreadableInput):
        assert firecracker.read(Input("a state", memoryview(bytes(data[:end])))).threads
