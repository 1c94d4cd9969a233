"""Ring-buffer pages: each kind of record, times, losses, and pages that are not as they must be."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import pytest

np = pytest.importorskip("numpy", reason="NumPy is missing: pip install 'fpstate[trace]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from fpstate.errors import UnreadableInput  # noqa: E402
from fpstate.traces.columns import ABSENT, CODES, EVENTS, LOST, MISSING, Block  # noqa: E402
from fpstate.traces.decoder import Batch, Decoder  # noqa: E402
from fpstate.traces.formats import Format, read_fields, read_format  # noqa: E402
from fpstate.traces.ring import Layout  # noqa: E402
from fpstate.traces.trace import Trace  # noqa: E402
from ringfiles import (  # noqa: E402
    FORMATS,
    HEADER_PAGE,
    HEADER_PAGE_32,
    activated,
    discarded,
    event,
    extend,
    format_file,
    other,
    page,
    stamp,
    switched,
)

Texts = Mapping[str, Sequence[str]]


def formats_of(texts: Texts) -> list[Format]:
    found = [read_format(system, text) for system, some in texts.items() for text in some]
    return [each for each in found if each]


def rows(
    *pages: bytes, layout: Layout | None = None, texts: Texts = FORMATS, payloads: bool = False
) -> tuple[Trace, Block]:
    trace = Trace(source="pages", format="", streams=[])
    decoder = Decoder(trace, formats_of(texts), layout or Layout(), payloads=payloads)
    return trace, Block.join(list(decoder.stream([Batch(b"".join(pages), 0)], 5)))


def rules(trace: Trace) -> list[str]:
    return [damage.rule for damage in trace.damage]


FPU = activated(7, 0xFFFF888100001640, 1, 0xE7, 0x80000000000008E7)


def test_an_event_of_state_fills_its_columns() -> None:
    trace, block = rows(page(1000, [event(0, FPU)]))
    assert block.time.tolist() == [1000]
    assert (block.cpu.tolist(), block.pid.tolist()) == ([5], [7])
    assert block.code.tolist() == [CODES["x86_fpu_regs_activated"]]
    assert (block.flag.tolist(), block.a.tolist()) == ([1], [0xFFFF888100001640])
    assert (block.b.tolist(), block.c.tolist()) == ([0xE7], [0x80000000000008E7])
    assert not trace.damage


def test_a_negative_field_is_its_64_bits() -> None:
    _, block = rows(page(0, [event(0, switched((b"a", -1), (b"b", 3), state=-2))]))
    assert block.a.tolist() == [(1 << 64) - 1]
    assert block.c.tolist() == [(1 << 64) - 2]


def test_fields_lie_where_the_format_says() -> None:
    moved = (("u64 xcomp_bv", 8, 8, 0), ("u16 load_fpu", 17, 2, 0), ("u32 xfeatures", 23, 4, 0))
    texts = {"x86_fpu": (format_file("x86_fpu_dropped", 9, moved),)}
    payload = struct.pack("<HBBiQxHxxxxI", 9, 0, 0, 4, 0x123456789ABCDEF0, 1, 0xFEDCBA98) + b"\0\0\0"
    _, block = rows(page(0, [event(0, payload)]), texts=texts)
    assert block.a.tolist() == [MISSING]  # this kernel's event has no pointer
    assert (block.flag.tolist(), block.b.tolist(), block.c.tolist()) == ([1], [0xFEDCBA98], [0x123456789ABCDEF0])


def test_an_event_of_the_same_name_in_another_system_is_another_event() -> None:
    texts = {"mine": (format_file("kvm_fpu", 9, (("u32 load", 8, 4, 0),)),)}
    trace, block = rows(page(0, [event(0, struct.pack("<HBBiI", 9, 0, 0, 4, 1))]), texts=texts)
    assert [trace.names[code] for code in block.code] == ["mine:kvm_fpu"]
    assert block.flag.tolist() == [ABSENT]


def test_other_events_are_rows_with_their_payload_if_it_is_asked_for() -> None:
    trace, block = rows(page(0, [event(0, other(3, 0x11223344)), event(1, FPU)]), payloads=True)
    assert [trace.names[code] for code in block.code] == ["softirq_raise", "x86_fpu_regs_activated"]
    assert block.payload is not None
    assert block.payload.tolist() == [bytes.fromhex("44332211"), None]


def test_times_add_up_from_the_page() -> None:
    records = [event(0, FPU), event(5, FPU), extend((3 << 27) + 11), event(1, FPU), event(2, FPU)]
    _, block = rows(page(100, records))
    assert block.time.tolist() == [100, 105, 105 + (3 << 27) + 12, 105 + (3 << 27) + 14]


def test_an_absolute_stamp_keeps_the_upper_bits_of_the_page() -> None:
    start = (3 << 59) + 10
    _, block = rows(page(start, [event(0, FPU), stamp(5000), event(7, FPU)]))
    assert block.time.tolist() == [start, (3 << 59) + 5007]


def test_an_absolute_stamp_that_wrapped_counts_one_more() -> None:
    start = (4 << 59) - 10
    _, block = rows(page(start, [event(0, FPU), stamp(3), event(0, FPU)]))
    assert block.time.tolist() == [start, (4 << 59) + 3]


def test_a_record_taken_back_is_no_row_and_its_time_counts() -> None:
    # The record after it counts from it: ring_buffer_discard_commit() leaves the writer's stamp as it is.
    _, block = rows(page(100, [event(0, FPU), discarded(4, 24), event(5, FPU)]))
    assert block.time.tolist() == [100, 109]


def test_padding_without_delta_ends_a_page() -> None:
    records = [event(0, FPU), struct.pack("<I", 29), event(5, FPU)]
    trace, block = rows(page(100, records), page(200, [event(0, FPU)]))
    assert block.time.tolist() == [100, 200]
    assert not trace.damage


def test_a_large_event_tells_its_size_in_a_word() -> None:
    wide = FPU.ljust(400, b"\xff")
    _, block = rows(page(100, [event(1, wide), event(5, FPU)]))
    assert block.time.tolist() == [101, 106]
    assert block.c.tolist() == [0x80000000000008E7] * 2


def test_pages_differ_in_how_many_records_they_have() -> None:
    many = [page(1000 * n, [event(1, FPU) for _ in range(n % 7)]) for n in range(40)]
    _, block = rows(*many)
    assert block.time.tolist() == [1000 * n + k + 1 for n in range(40) for k in range(n % 7)]


def test_lost_events_are_a_row_at_the_start_of_their_page() -> None:
    pages = [page(100, [event(3, FPU)]), page(200, [event(4, FPU)], lost=17), page(300, [event(5, FPU)], flags=1 << 31)]
    _, block = rows(*pages)
    assert block.time.tolist() == [103, 200, 204, 300, 305]
    lost = block.take(block.code == LOST)
    assert lost.a.tolist() == [17, 0]
    assert lost.cpu.tolist() == [5, 5]


def test_a_page_of_a_32_bit_kernel_is_read() -> None:
    layout = Layout.of(read_fields(HEADER_PAGE_32))
    assert (layout.page, layout.data, layout.long) == (4096, 12, 4)
    _, block = rows(page(100, [event(3, FPU)], long=4, lost=2), layout=layout)
    assert block.time.tolist() == [100, 103]
    assert block.a.tolist() == [2, 0xFFFF888100001640]


def test_names_of_threads_are_the_last_ones() -> None:
    records = [event(0, switched((b"old", 3), (b"x", 4))), event(1, switched((b"x", 4), (b"new\0junk", 3)))]
    trace, _ = rows(page(0, records))
    assert trace.comms == {3: "new", 4: "x"}


def test_a_commit_beyond_the_page_loses_that_page_only() -> None:
    trace, block = rows(page(0, [event(1, FPU)]), page(10, [event(1, FPU)], commit=4084), page(20, [event(1, FPU)]))
    assert block.time.tolist() == [1, 21]
    assert [(damage.rule, damage.offset) for damage in trace.damage] == [("ring.commit-beyond-page", 4096 + 8)]


def test_a_record_beyond_the_commit_ends_its_page() -> None:
    trace, block = rows(page(0, [event(1, FPU), struct.pack("<I", 28)]), page(20, [event(1, FPU)]))
    assert block.time.tolist() == [1, 21]
    assert [(damage.rule, damage.offset) for damage in trace.damage] == [("ring.record-beyond-commit", 16 + 44)]


@pytest.mark.parametrize("length", [0, 1, 4096, 0xFFFFFFFF])
def test_a_large_record_of_a_length_that_cannot_be_is_damage(length: int) -> None:
    trace, block = rows(page(0, [event(1, FPU), struct.pack("<II", 0, length), event(1, FPU)]))
    assert block.time.tolist()[:1] == [1]
    assert trace.damage


def test_a_record_shorter_than_its_fields_is_told() -> None:
    trace, block = rows(page(0, [event(1, FPU[:20]), event(1, FPU[:4]), event(1, FPU)]))
    assert block.b.tolist() == [MISSING, 0xE7]
    assert rules(trace) == ["ring.record-too-short", "ring.record-too-short"]


def test_an_event_without_a_format_is_a_row_and_told() -> None:
    trace, block = rows(page(0, [event(1, struct.pack("<HBBi", 999, 0, 0, 1))]))
    assert [trace.names[code] for code in block.code] == ["(no format)"]
    assert rules(trace) == ["trace.event-without-format"]
    assert "999" in trace.damage[0].text


def test_time_that_goes_back_is_told_and_put_in_order() -> None:
    trace, block = rows(page(1000, [event(0, FPU)]), page(500, [event(0, FPU)]))
    assert block.time.tolist() == [500, 1000]
    assert rules(trace) == ["ring.time-backwards"]


def test_damage_without_end_is_told_in_part() -> None:
    trace, _ = rows(*[page(n, [event(1, FPU)], commit=4092) for n in range(2000)])
    assert 0 < len(trace.damage) <= 257


def test_formats_without_the_common_fields_are_refused() -> None:
    with pytest.raises(UnreadableInput, match="common_type"):
        Decoder(Trace(source="", format="", streams=[]), [], Layout())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("timestamp", "clock"),
        ("size:4080", "size:99999999"),
        ("offset:16", "offset:18"),
        ("offset:0;", "offset:6;"),
        ("offset:8;\tsize:8", "offset:14;\tsize:8"),
        ("offset:8;\tsize:8", "offset:8;\tsize:2"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(old: str, new: str) -> None:
    with pytest.raises(UnreadableInput):
        Layout.of(read_fields(HEADER_PAGE.replace(old, new)))


def slow(data: bytes) -> list[int]:
    """Times of the events of whole pages, read one by one."""
    times = []
    for at in range(0, len(data), 4096):
        now, commit = struct.unpack_from("<QQ", data, at)
        here, end = at + 16, at + 16 + (commit & 0x3FFFFFFF)
        while here < end:
            head, second = struct.unpack_from("<II", data, here)
            kind, delta = head & 31, head >> 5
            if kind == 29 and not delta:
                break
            now += delta + (second << 27 if kind == 30 else 0)
            here += {0: 4 + second, 29: 4 + second, 30: 8}.get(kind, 4 + 4 * kind)
            if kind < 29:
                times.append(now)
    return times


RECORDS = st.lists(
    st.one_of(
        st.builds(event, st.integers(0, 1 << 20), st.just(FPU)),
        st.builds(event, st.integers(0, 9), st.binary(min_size=8, max_size=200).map(lambda tail: FPU + tail)),
        st.builds(extend, st.integers(0, 1 << 40)),
        st.builds(discarded, st.integers(1, 99), st.sampled_from([8, 12, 48])),
    ),
    max_size=15,
)


@given(st.lists(RECORDS, max_size=9))
def test_many_pages_in_step_are_the_same_as_one_by_one(pages: Sequence[Sequence[bytes]]) -> None:
    data = b"".join(page((1 << 50) * n, records) for n, records in enumerate(pages))
    assert rows(data)[1].time.tolist() == slow(data)


@settings(max_examples=150)
@given(st.data())
def test_pages_with_any_words_are_read_or_told(data: st.DataObject) -> None:
    sound = page(5, [event(1, FPU), extend(9), event(1, switched((b"a", 1), (b"b", 2))), event(2, other(1, 2))], lost=1)
    image = bytearray(sound * 3)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.sampled_from([*range(0, 200, 4), 4096, 4104, 4112, 8192, 8200]))
        word = data.draw(st.one_of(st.integers(0, 40), st.integers(0, 0xFFFFFFFF)))
        image[at : at + 4] = word.to_bytes(4, "little")
    _, block = rows(bytes(image))
    assert (np.diff(block.time.astype(object)) >= 0).all() if len(block) > 1 else True
    assert (block.code[block.flag != ABSENT] < len(EVENTS)).all()
