"""Windows minidumps.  The corpus has a real one (breakpad's, made by crashpad); the rest is built after the SDK."""

from __future__ import annotations

import contextlib
import pathlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import corpus_files
from fpstate.cpu.model import Cpu
from fpstate.errors import UnreadableInput
from fpstate.image import Image
from fpstate.image import read as read_image
from fpstate.sources import minidump
from fpstate.sources.capture import Capture, Thread
from fpstate.sources.input import Input
from sources.dumps import Context, Dump

AVX512 = {2: (576, 256), 5: (832, 64), 6: (896, 512), 7: (1408, 1024), 9: (2432, 8)}
"""Where a Zen 4 has them: Windows says so in MISC_INFO_5."""


def captured(dump: Dump) -> Capture:
    return minidump.read(Input("a dump", memoryview(bytes(dump))))


def chunk(xstate_bv: int, xcomp_bv: int, body: bytes) -> bytes:
    return struct.pack("<QQ48x", xstate_bv, xcomp_bv) + body


def read_by_its_layout(thread: Thread) -> Image:
    assert thread.layout is not None
    xcr0 = sum(1 << bit for bit, c in thread.layout.items() if not c.supervisor) | 3
    xss = sum(1 << bit for bit, c in thread.layout.items() if c.supervisor)
    flags = frozenset({"XSAVE", "XSAVEC", "XSAVES", "XGETBV1"})
    cpu = Cpu(name="the dump's", source="dump", xcr0_mask=xcr0, xss_mask=xss, components=thread.layout, flags=flags)
    return read_image(bytes(thread.image), cpu)


@pytest.mark.parametrize("file", corpus_files("minidump/*.dmp"))
def test_the_real_dump_says_what_its_own_readme_says(file: pathlib.Path) -> None:
    capture = minidump.read(Input(file.name, memoryview(file.read_bytes())))
    (thread,) = capture.threads
    assert capture.damage == () == thread.damage
    assert (thread.tid, thread.form, thread.abi) == (1468, "xsave", "x86-64")
    assert thread.values["chunk_xstate_bv"] == 0x800
    assert thread.values["chunk_xcomp_bv"] == 0x8000000000000800
    image = read_by_its_layout(thread)
    assert image.register("u_cet") == (1).to_bytes(8, "little")
    assert image.register("pl3_ssp") == (0xCBC83FEFC8).to_bytes(8, "little")


@pytest.mark.parametrize("file", corpus_files("minidump/*.dmp"))
def test_the_legacy_region_is_the_contexts_own(file: pathlib.Path) -> None:
    data = file.read_bytes()
    (thread,) = minidump.read(Input(file.name, memoryview(data))).threads
    context = 1616  # MINIDUMP_THREAD.ThreadContext.Rva of the only thread
    assert bytes(thread.image[:512]) == data[context + 0x100 : context + 0x300]
    assert int.from_bytes(thread.image[24:28], "little") == struct.unpack_from("<I", data, context + 0x34)[0]  # MxCsr


def test_a_dump_is_known_by_its_first_four_bytes() -> None:
    assert minidump.sniff(Input("it", memoryview(bytes(Dump()))))
    assert not minidump.sniff(Input("it", memoryview(b"MDM")))


def test_standard_format_lies_where_misc_info_5_says() -> None:
    body = bytearray(2440 - 576)
    body[832 - 576 : 840 - 576] = b"\x55" * 8  # k0, at Zen 4's place
    context = Context(flags=0x10_0048, chunk=chunk(1 << 5, 0, bytes(body)))
    dump = Dump(threads=[(7, context.record())], features=AVX512, enabled=0x2E7)
    (thread,) = captured(dump).threads
    assert read_by_its_layout(thread).register("k0") == b"\x55" * 8


def test_compacted_format_is_placed_by_the_header_and_the_sizes() -> None:
    body = bytes(64) + b"\x66" * 512  # opmask, then ZMM_Hi256
    context = Context(flags=0x10_0048, chunk=chunk(1 << 6, 1 << 63 | 0x60, body))
    dump = Dump(threads=[(7, context.record())], features=AVX512, enabled=1 << 63 | 0x2E7)
    (thread,) = captured(dump).threads
    assert read_by_its_layout(thread).register("zmm3h") == b"\x66" * 32


def test_a_context_without_extended_state_is_an_fxsave_image_in_place() -> None:
    record = Context(fxsave=bytes(range(256)) * 2).record()
    dump = bytes(Dump(threads=[(7, record)]))
    (thread,) = minidump.read(Input("a dump", memoryview(dump))).threads
    assert thread.form == "fxsave"
    assert thread.offset == dump.index(record) + 0x100
    assert bytes(thread.image) == bytes(range(256)) * 2


def test_a_context_without_floating_point_has_no_image() -> None:
    (thread,) = captured(Dump(threads=[(7, Context(flags=0x10_0001).record())])).threads
    assert (thread.form, len(thread.image)) == ("none", 0)


def test_an_x86_context_has_fxsave_in_its_extended_registers() -> None:
    record = bytearray(716)
    struct.pack_into("<I", record, 0, 0x1_0028)  # CONTEXT_FLOATING_POINT | CONTEXT_EXTENDED_REGISTERS
    record[204:716] = b"\x11" * 512
    (thread,) = captured(Dump(architecture=0, threads=[(7, bytes(record))])).threads
    assert (thread.abi, thread.form, bytes(thread.image)) == ("i386", "fxsave", b"\x11" * 512)


def test_an_old_x86_context_has_what_fnsave_writes() -> None:
    record = bytearray(716)
    struct.pack_into("<I", record, 0, 0x1_0008)
    record[28:136] = b"\x22" * 108
    (thread,) = captured(Dump(architecture=0, threads=[(7, bytes(record))])).threads
    assert (thread.form, bytes(thread.image)) == ("fsave", b"\x22" * 108)


def test_the_thread_that_crashed_comes_first_with_the_registers_it_crashed_with() -> None:
    listed, crashed = Context(fxsave=b"\1" * 512).record(), Context(fxsave=b"\2" * 512).record()
    dump = Dump(threads=[(7, listed), (8, listed), (9, listed)], crashed=(8, crashed))
    threads = captured(dump).threads
    assert [thread.tid for thread in threads] == [8, 7, 9]
    assert bytes(threads[0].image) == b"\2" * 512


def test_another_architecture_is_refused_by_its_number() -> None:
    with pytest.raises(UnreadableInput, match="architecture 12, which is not x86"):
        captured(Dump(architecture=12))


def test_more_threads_than_there_is_room_for_is_damage_and_the_rest_is_read() -> None:
    dump = bytearray(bytes(Dump(threads=[(7, Context().record())])))
    at = struct.unpack_from("<III", dump, 32 + 12)[2]
    struct.pack_into("<I", dump, at, 5000)
    capture = minidump.read(Input("a dump", memoryview(dump)))
    assert [damage.rule for damage in capture.damage] == ["minidump.thread-count"]
    assert capture.damage[0].offset == at
    assert [thread.tid for thread in capture.threads] == [7]


def test_a_chunk_that_leaves_its_record_is_damage_and_the_legacy_state_is_kept() -> None:
    record = bytearray(Context(flags=0x10_0048, chunk=chunk(4, 0, bytes(256))).record())
    struct.pack_into("<I", record, 1232 + 20, 4096)  # CONTEXT_EX.XState.Length
    (thread,) = captured(Dump(threads=[(7, bytes(record))])).threads
    assert thread.form == "fxsave"
    assert [damage.rule for damage in thread.damage] == ["minidump.xstate-length"]


def test_a_context_that_lies_beyond_the_end_is_damage_of_its_thread_alone() -> None:
    dump = bytearray(bytes(Dump(threads=[(7, Context().record()), (8, Context().record())])))
    at = struct.unpack_from("<III", dump, 32 + 12)[2]
    struct.pack_into("<I", dump, at + 4 + 44, 0x7FFFFFFF)
    first, second = minidump.read(Input("a dump", memoryview(dump))).threads
    assert first.damage[0].rule == "minidump.context"
    assert second.form == "fxsave"


def test_a_component_that_misc_info_5_does_not_place_is_named() -> None:
    context = Context(flags=0x10_0048, chunk=chunk(1 << 9, 0, bytes(2440 - 576)))
    (thread,) = captured(Dump(threads=[(7, context.record())], features={2: (576, 256)}, enabled=7)).threads
    assert "component 9 (PKRU)" in thread.damage[0].text


def test_records_over_each_other_do_not_cost_memory() -> None:
    big = Context(flags=0x10_0048, chunk=chunk(4, 0, bytes(60000))).record()
    dump = bytearray(bytes(Dump(threads=[(i, b"") for i in range(2000)])))
    at = struct.unpack_from("<III", dump, 32 + 12)[2]
    for i in range(2000):
        struct.pack_into("<II", dump, at + 4 + 48 * i + 40, len(big), len(dump))
    capture = minidump.read(Input("a dump", memoryview(bytes(dump) + big)))
    assert sum(len(thread.image) for thread in capture.threads) < 4 * len(dump) + 8 * len(big) + 512 * 2000
    assert capture.threads[-1].damage[0].rule == "minidump.contexts-overlap"


WHOLE = bytes(
    Dump(
        threads=[(7, Context().record()), (8, Context(flags=0x10_0048, chunk=chunk(4, 0, bytes(256))).record())],
        crashed=(8, Context().record()),
        features=AVX512,
        enabled=0x2E7,
    )
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 4), st.integers(0, 0xFFFFFFFF)), max_size=6),
    st.integers(0, len(WHOLE)),
)
def test_no_dump_breaks_the_reader(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        struct.pack_into("<I", data, at, value)
    with contextlib.suppress(UnreadableInput):
        capture = minidump.read(Input("a dump", memoryview(bytes(data[:end]))))
        assert all(isinstance(damage._asdict()["text"], str) for damage in capture.damage)
        assert sum(len(thread.image) for thread in capture.threads) <= 6 * len(WHOLE) + (1 << 17)
