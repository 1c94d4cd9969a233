"""What differs between two sources: by meaning, thread by thread."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elfcores as cores
from fpstate.cpu import by_name
from fpstate.image import convert, read
from fpstate.sources.capture import Capture, Thread
from fpstate.sources.decoded import Decoded, place
from fpstate.sources.differences import Compared, compare

ZEN4 = by_name("zen4")
YMM = bytes(range(32))
STATE = cores.image({"ymm3": YMM, "k1": bytes(range(8))})
OTHER = cores.image({"ymm3": YMM[:31] + b"\xff", "k1": bytes(range(8))})


def source(*threads: Thread, cpu: str | None = "zen4") -> Decoded:
    return place(Capture("source", "elf-core", threads), cpu=None if cpu is None else by_name(cpu))


def thread(tid: int | None, image: bytes = STATE, **more: object) -> Thread:
    return Thread(tid, memoryview(image), **more)  # type: ignore[arg-type]


def matched(found: Compared) -> list[tuple[int | None, int | None]]:
    return [(pair.a.thread.tid, pair.b.thread.tid) for pair in found.threads]


def differing(a: Thread, b: Thread) -> list[str]:
    (pair,) = compare(source(a), source(b)).threads
    return [difference.register.name for difference in pair.registers]


# -- which threads are compared ------------------------------------------------------------------------------------


def test_threads_are_matched_by_their_number() -> None:
    found = compare(source(thread(1), thread(2), thread(3)), source(thread(3), thread(1), thread(4)))
    assert matched(found) == [(1, 1), (3, 3)]
    assert [placed.thread.tid for placed in found.only_a] == [2]
    assert [placed.thread.tid for placed in found.only_b] == [4]
    assert not found.same


def test_threads_of_two_runs_are_matched_by_their_order() -> None:
    assert matched(compare(source(thread(1), thread(2)), source(thread(10), thread(20)))) == [(1, 10), (2, 20)]


def test_an_image_alone_is_compared_with_the_first_thread() -> None:
    found = compare(source(thread(None)), source(thread(1), thread(2)))
    assert (matched(found), [placed.thread.tid for placed in found.only_b]) == ([(None, 1)], [2])


def test_several_frames_of_one_thread_are_matched_in_their_order() -> None:
    found = compare(source(thread(1), thread(1, OTHER)), source(thread(1), thread(1, OTHER)))
    assert (matched(found), found.same) == ([(1, 1), (1, 1)], True)


def test_one_thread_can_be_compared() -> None:
    found = compare(source(thread(1), thread(2, OTHER)), source(thread(1), thread(2), thread(3)), tid=1)
    assert (matched(found), found.same) == ([(1, 1)], True)


# -- what counts as a difference -----------------------------------------------------------------------------------


def test_a_changed_byte_names_the_register_that_it_lies_in() -> None:
    assert differing(thread(1), thread(1, OTHER)) == ["zmm3"]


def test_format_does_not_count() -> None:
    assert differing(thread(1), thread(1, convert(read(STATE, ZEN4), "compacted"))) == []


def test_layout_does_not_count() -> None:
    intel = by_name("sapphire-rapids")
    image = convert(read(STATE, ZEN4), "standard", caps=intel, components=cores.XCR0)
    a, b = source(thread(1)), source(thread(1, image), cpu="sapphire-rapids")
    assert image != STATE
    assert compare(a, b).same


def test_bytes_of_an_initial_component_do_not_count() -> None:
    dirty = bytearray(STATE)
    dirty[896:1408] = b"\xee" * 512  # ZMM_Hi256, which XSTATE_BV has not
    assert differing(thread(1), thread(1, bytes(dirty))) == []


def test_an_explicit_initial_value_is_equal_and_told() -> None:
    explicit = bytearray(STATE)
    (used,) = struct.unpack_from("<Q", explicit, 512)
    struct.pack_into("<Q", explicit, 512, used | 0x40)  # ZMM_Hi256: zeros
    (pair,) = compare(source(thread(1)), source(thread(1, bytes(explicit)))).threads
    assert (pair.same, pair.in_use, pair.differing) == (True, (0, 0x40), 0)


def test_the_component_that_differs_is_the_one_of_the_byte() -> None:
    (pair,) = compare(source(thread(1)), source(thread(1, OTHER))).threads
    assert pair.differing == 0b100  # byte 31 of zmm3 is AVX's, SSE and ZMM_Hi256 are equal


def test_values_outside_the_image_count() -> None:
    found = compare(source(thread(1, values={"ssp": 0x1000})), source(thread(1, values={"ssp": 0x2000})))
    assert (found.same, found.threads[0].values) == (False, {"ssp": (0x1000, 0x2000)})


def test_where_a_signal_frame_lies_does_not_count() -> None:
    assert compare(source(thread(1, values={"address": 64})), source(thread(1, values={"address": 128}))).same


# -- what a source does not hold -----------------------------------------------------------------------------------


def test_fxsave_knows_nothing_of_avx() -> None:
    (pair,) = compare(source(thread(1)), source(thread(1, OTHER[:512], form="fxsave"))).threads
    assert (pair.same, pair.uncompared) == (True, 0xE4)
    assert pair.in_use == (0, 0)


def test_fsave_has_no_mxcsr() -> None:
    image = cores.image({"mxcsr": b"\xa0\x1f\0\0"})
    fsave = struct.pack("<HHHHHH", 0x37F, 0, 0, 0, 0xFFFF, 0).ljust(108, b"\0")
    assert differing(thread(1, image), thread(1, fsave, form="fsave")) == []


def test_a_component_that_was_cut_off_is_not_compared() -> None:
    full = cores.image({"zmm3": bytes(range(64))})
    other = cores.image({"zmm3": bytes(range(63)) + b"\0"})
    (pair,) = compare(source(thread(1, full)), source(thread(1, other[:900], said=len(other)))).threads
    assert (pair.registers, pair.uncompared & 0x40) == ((), 0x40)


def test_registers_out_of_the_mode_s_reach_are_not_compared() -> None:
    wide = cores.image({"xmm9": b"\1" * 16})
    assert differing(thread(1, wide), thread(1, cores.image(), abi="x86-64")) == ["zmm9"]
    assert differing(thread(1, wide, abi="i386"), thread(1, cores.image(), abi="i386")) == []


def test_a_thread_without_state_is_none_with_initial_state() -> None:
    assert not compare(source(thread(1, b"", form="none")), source(thread(1, cores.image()))).same


@settings(max_examples=100, deadline=None, derandomize=True)
@given(header=st.binary(min_size=16, max_size=64), size=st.integers(0, 3000), swap=st.booleans())
def test_any_bytes_are_compared(header: bytes, size: int, swap: bool) -> None:
    image = (STATE[:512] + header.ljust(64, b"\0") + STATE[576:])[:size]
    sides = [source(thread(1, image)), source(thread(1))]
    found = compare(*(sides[::-1] if swap else sides))
    assert len(found.threads) == 1


@pytest.mark.parametrize("image", [STATE, OTHER, STATE[:700]], ids=["one", "other", "truncated"])
def test_a_source_equals_itself(image: bytes) -> None:
    assert compare(source(thread(1, image)), source(thread(1, image))).same
