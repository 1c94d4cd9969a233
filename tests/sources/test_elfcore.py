"""ELF cores: whose notes are which thread's, and what is said of notes that lie."""

from __future__ import annotations

import pathlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elfcores as cores
from elfcores import CORE, FREEBSD, I386, LINUX, X32, X86_64, core, image, layout, layout_of, note, prstatus, thread
from fpstate.errors import FpstateError, UnreadableInput
from fpstate.sources import elfcore
from fpstate.sources.capture import Capture
from fpstate.sources.input import Input

ZMM3 = bytes(range(64))
STATE = image({"zmm3": ZMM3, "k1": b"\1" * 8})


def read(data: bytes) -> Capture:
    return elfcore.read(Input("a core", data))


def rules(capture: Capture) -> list[str]:
    return [d.rule for d in (*capture.damage, *(d for t in capture.threads for d in t.damage))]


# -- whose is what ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("abi", "name"), [(X86_64, "x86-64"), (I386, "i386"), (X32, "x32")], ids=str)
def test_every_thread_has_its_number_and_image(abi: cores.Abi, name: str) -> None:
    other = image({"k1": b"\2" * 8})
    capture = read(core([thread(7, STATE, abi), cores.prpsinfo(b"victim", abi), thread(9, other, abi)], abi))
    assert [(t.tid, t.abi, t.name, bytes(t.image)) for t in capture.threads] == [
        (7, name, "victim", STATE),
        (9, name, "victim", other),
    ]
    assert not rules(capture)


def test_the_image_is_a_view_of_the_file() -> None:
    data = core(thread(7, STATE))
    (found,) = read(data).threads
    assert found.image.obj is data
    assert found.offset == data.index(STATE)


def test_xcr0_comes_from_the_software_bytes() -> None:
    unset = STATE[:464] + bytes(8) + STATE[472:]
    capture = read(core([thread(1, STATE), thread(2, unset)]))
    assert [t.enabled for t in capture.threads] == [0xE7, None]


def test_the_layout_note_belongs_to_every_thread() -> None:
    capture = read(core([thread(1, STATE), thread(2, STATE), layout_of("zen4")]))
    for found in capture.threads:
        assert found.layout is not None
        # Zen 4, measured: the records of a 6.12 and later kernel
        assert [(c.bit, c.size, c.offset) for c in found.layout.values()] == [
            (2, 256, 576),
            (5, 64, 832),
            (6, 512, 896),
            (7, 1024, 1408),
        ]


def test_the_shadow_stack_pointer_is_the_thread_s_own() -> None:
    ssp = note(LINUX, elfcore.NT_X86_SHSTK, (0x7FFFF7BFE000).to_bytes(8, "little"))
    capture = read(core([thread(1, STATE), thread(2, STATE, extra=ssp), thread(3, STATE)]))
    assert [dict(t.values) for t in capture.threads] == [{}, {"ssp": 0x7FFFF7BFE000}, {}]


def test_a_thread_without_xstate_shows_its_fxsave_image() -> None:
    capture = read(core([prstatus(1), note(CORE, 2, STATE[:512])]))
    assert [(t.form, bytes(t.image)) for t in capture.threads] == [("fxsave", STATE[:512])]


def test_an_i386_thread_without_sse_shows_its_fsave_image() -> None:
    fsave = bytes(range(108))
    capture = read(core([prstatus(1, I386), note(CORE, 2, fsave)], I386))
    assert [(t.form, bytes(t.image)) for t in capture.threads] == [("fsave", fsave)]


def test_nt_prxfpreg_says_more_than_an_i386_fpregset() -> None:
    notes = [prstatus(1, I386), note(CORE, 2, bytes(108)), note(LINUX, 0x46E62B7F, STATE[:512])]
    capture = read(core(notes, I386))
    assert [(t.form, bytes(t.image)) for t in capture.threads] == [("fxsave", STATE[:512])]


def test_freebsd_threads_have_numbers_and_names_of_their_own() -> None:
    status = struct.pack("<I4xQQQiiI4x", 1, 224, 176, 512, 1_400_097, 11, 100_321) + bytes(176)  # struct prstatus
    notes = [
        note(FREEBSD, 3, struct.pack("<I4xQ", 1, 120) + b"proc".ljust(104, b"\0")),
        note(FREEBSD, 1, status),
        note(FREEBSD, 2, STATE[:512]),
        note(FREEBSD, 7, b"worker".ljust(24, b"\0")),
        note(FREEBSD, 0x202, STATE),
    ]
    (found,) = read(core(notes)).threads
    assert (found.tid, found.name, found.form, found.enabled) == (100_321, "worker", "xsave", 0xE7)


def test_netbsd_puts_the_process_that_got_the_signal_first() -> None:
    info = bytearray(160)
    info[124:132] = b"netbsd-p"
    struct.pack_into("<I", info, 156, 2)
    notes = [note(b"NetBSD-CORE", 1, bytes(info))]
    notes += [note(b"NetBSD-CORE@%d" % lwp, 35, bytes([lwp]) * 512) for lwp in (1, 2)]
    capture = read(core(notes))
    assert [(t.tid, t.name, t.form, t.image[0]) for t in capture.threads] == [
        (2, "netbsd-p", "fxsave", 2),
        (1, "netbsd-p", "fxsave", 1),
    ]


@pytest.mark.parametrize("abi", [X86_64, I386], ids=["64", "32"])
def test_more_than_65534_program_headers_are_counted_in_a_section_header(abi: cores.Abi) -> None:
    capture = read(core(thread(5, STATE, abi), abi, extended=True))
    assert [t.tid for t in capture.threads] == [5]


def test_a_truncated_core_with_many_program_headers_still_shows_its_notes() -> None:
    capture = read(core(thread(5, STATE), extended=True)[:-64])
    assert [t.tid for t in capture.threads] == [5]


def test_a_run_of_equal_threads_is_read_like_single_ones() -> None:
    ssp = note(LINUX, elfcore.NT_X86_SHSTK, bytes(8))
    data = cores.many(50, STATE, extra=ssp + layout_of())
    capture = read(data)
    assert [t.tid for t in capture.threads] == list(range(1000, 1050))
    assert [int.from_bytes(t.image[160:164], "little") for t in capture.threads] == list(range(1000, 1050))
    assert [i for i, t in enumerate(capture.threads) if t.values] == [49]
    assert all(t.layout for t in capture.threads)
    assert capture.threads[-1].tid == 1049
    assert [t.tid for t in capture.threads[3:5]] == [1003, 1004]


def test_a_run_ends_where_a_note_differs() -> None:
    notes = [thread(i, STATE) for i in range(5)]
    notes[3] = prstatus(3) + xstate_only()
    capture = read(core(notes))
    assert [t.tid for t in capture.threads] == [0, 1, 2, 3, 4]
    assert [len(t.image) for t in capture.threads] == [2432, 2432, 2432, 832, 2432]


def xstate_only() -> bytes:
    return cores.xstate(image(xcr0=7))


# -- what lies -------------------------------------------------------------------------------------------------------


def test_a_core_cut_within_an_image_shows_what_is_left() -> None:
    data = core([thread(1, STATE), thread(2, STATE)])
    capture = read(data[:-1000])
    assert [len(t.image) for t in capture.threads] == [2432, 1432]
    assert rules(capture) == ["elf.segment-truncated", "elf.note-truncated"]
    assert capture.damage[1].offset == data.rindex(b"LINUX") - 12


@pytest.mark.parametrize("size", [2433, 1 << 20, 0xFFFFFFFF])
def test_a_note_that_says_it_is_larger_than_its_segment_is_cut_there(size: int) -> None:
    capture = read(core([prstatus(1), note(LINUX, 0x202, STATE, size=size)]))
    assert [len(t.image) for t in capture.threads] == [2432]
    assert rules(capture) == ["elf.note-truncated"]


def test_a_note_segment_that_says_it_is_larger_than_the_file_ends_with_it() -> None:
    capture = read(core(thread(1, STATE), said=10 << 30))
    assert [t.tid for t in capture.threads] == [1]
    assert rules(capture) == ["elf.segment-truncated"]


def test_notes_that_two_segments_share_are_read_once() -> None:
    data = bytearray(core(thread(1, STATE)))
    data[64 + 56 : 64 + 112] = data[64 : 64 + 56]
    capture = read(bytes(data))
    assert [t.tid for t in capture.threads] == [1]
    assert rules(capture) == ["elf.segment-overlap"]


def test_zeros_where_a_note_should_be_end_the_walk() -> None:
    capture = read(core([thread(1, STATE), bytes(64), thread(2, STATE)]))
    assert [t.tid for t in capture.threads] == [1]
    assert rules(capture) == ["elf.note-empty"]


def test_the_layout_under_the_number_of_nt_x86_shstk_is_recognised() -> None:
    """A public table of note types has 0x203 and 0x204 for what Linux calls 0x204 and 0x205."""
    records = layout_of()[20:]
    capture = read(core([thread(1, STATE), note(LINUX, 0x204, records)]))
    (damage,) = capture.threads[0].damage
    assert damage.rule == "elf.note-size"
    assert "0x205" in damage.cure


def test_an_image_under_a_number_that_is_no_type_is_found_and_read() -> None:
    """users.md P34: note types copied wrong; 0x203 was CET's once."""
    notes = [cores.prstatus(7), cores.note(cores.LINUX, 0x203, STATE)]
    (thread,) = read(cores.core(notes)).threads
    assert bytes(thread.image) == STATE
    (damage,) = thread.damage
    assert damage.rule == "elf.note-type"
    assert "note 0x203 of LINUX" in damage.text
    assert damage.offset == 176 + len(notes[0])
    assert "NT_X86_XSTATE is 0x202" in damage.cure


def test_a_long_note_that_is_no_image_is_none() -> None:
    """NT_386_IOPERM, 0x201, has up to 8 KiB; one of a type to come may have anything."""
    for kind, contents in ((0x201, STATE), (0x2FF, b"\xff" * 4096), (0x2FF, bytes(4096))):
        (thread,) = read(cores.core(cores.thread(7, STATE) + cores.note(cores.LINUX, kind, contents))).threads
        assert not thread.damage


def test_a_second_image_does_not_replace_the_first() -> None:
    capture = read(core([thread(1, STATE), cores.xstate(image())]))
    assert bytes(capture.threads[0].image) == STATE
    assert rules(capture) == ["elf.note-twice"]


def test_an_image_before_any_thread_is_shown_without_a_number() -> None:
    capture = read(core([cores.xstate(STATE), thread(1, STATE)]))
    assert [t.tid for t in capture.threads] == [None, 1]
    assert rules(capture) == ["elf.note-orphan"]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ((1, 256, 576), "extended components are 2 to 62"),
        ((63, 256, 576), "extended components are 2 to 62"),
        ((9, 8, 512), "the extended region begins at 576"),
        ((9, 0, 2432), "a component has 1 to"),
        ((9, 1 << 31, 2432), "a component has 1 to"),
        ((9, 8, 600), "it overlaps component 2"),
        ((2, 256, 4096), "it is given twice"),
    ],
)
def test_a_record_of_the_layout_that_cannot_be_is_left_out(record: tuple[int, int, int], why: str) -> None:
    capture = read(core([thread(1, STATE), layout([(2, 256, 576), record, (5, 64, 832)])]))
    (damage,) = capture.damage
    assert damage.rule == "elf.layout-record"
    assert why in damage.text
    assert list(capture.threads[0].layout or {}) == [2, 5]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x7fELF", "damaged or truncated"),
        (core(b"")[:50], "damaged or truncated"),
        (core(b""), "without the notes of any thread"),
        (core(bytes(64)), "without the notes of any thread"),
        (core(thread(1, STATE))[:64], "without the notes of any thread"),
        (core(thread(1, STATE)).replace(b"\4\0\x3e\0", b"\2\0\x3e\0", 1), "not a core"),
        (core(thread(1, STATE)).replace(b"\4\0\x3e\0", b"\4\0\xb7\0", 1), "not for x86"),
        (core(thread(1, STATE)).replace(b"ELF\2\1", b"ELF\2\2", 1), "big-endian"),
    ],
)
def test_what_is_no_core_of_x86_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UnreadableInput, match=why):
        read(data)


def test_a_core_of_one_gigabyte_costs_its_notes(tmp_path: pathlib.Path) -> None:
    import resource
    import time

    from fpstate.sources.open import open_source

    path = tmp_path / "sparse.core"
    path.write_bytes(core(thread(1, STATE)))
    with path.open("r+b") as file:
        file.truncate(10 << 30)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    capture = open_source(str(path))
    assert bytes(capture.threads[0].image) == STATE
    assert time.process_time() - start < 0.3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_notes_that_almost_begin_a_thread_cost_their_number() -> None:
    import time

    like_a_thread = [note(CORE, 0x99, b""), note(b"ELSE", elfcore.NT_PRSTATUS, bytes(336))]
    data = core([prstatus(7), *like_a_thread * 30_000])
    start = time.process_time()
    assert [t.tid for t in read(data).threads] == [7]
    assert time.process_time() - start < 3


def test_of_a_great_deal_of_damage_the_first_is_listed() -> None:
    capture = read(core([thread(7, STATE), *[note(CORE, elfcore.NT_PRFPREG, b"")] * 5000]))
    assert rules(capture).count("elf.note-twice") == 1000
    assert [d.text for d in capture.damage] == ["4000 more findings are not listed"]
    assert bytes(capture.threads[0].image) == STATE


_WHOLE = core([thread(1, STATE), cores.prpsinfo(b"fuzz"), thread(2, STATE), thread(3, STATE), layout_of()])
_HEADS = [i for i in range(len(_WHOLE)) if i < 200 or _WHOLE[i : i + 5] in {b"CORE\0", b"LINUX"}]


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_a_damaged_core_is_read_or_refused_in_words(data: st.DataObject) -> None:
    damaged = bytearray(_WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = max(0, data.draw(st.sampled_from(_HEADS)) - data.draw(st.integers(0, 12)))
        value = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 4, bytes(8)])))
        damaged[at : at + len(value)] = value
    cut = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    try:
        capture = read(bytes(damaged[:cut]))
    except FpstateError:
        return
    for found in capture.threads:
        assert len(found.image) <= cut
        assert not found.image or found.offset is None or found.offset + len(found.image) <= cut
