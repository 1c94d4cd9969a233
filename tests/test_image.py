"""`fpstate.image`, one image: against the scalar engine, XRSTOR of the source and XSAVE or XSAVEC of the result."""

from __future__ import annotations

import struct

import pytest

pytest.importorskip("numpy", reason="the random images come from the tests of fpstate[batch]")
pytest.importorskip("numba", reason="the random images come from the tests of fpstate[batch]")

from batch.cases import MACHINES, image, machine, seeded
from fpstate.batch import Batch
from fpstate.cpu import by_name
from fpstate.errors import UnreadableInput, UsageError
from fpstate.image import Format, Image, add, convert, encode, init_fill, patch, read, register_differences, strip
from fpstate.isa import Capabilities, Memory, Processor, execute
from fpstate.isa.masks import ALL
from fpstate.xfeatures import COMPACTED, LEGACY, bits

BASE = 0x10000
NAMES = [name for name in MACHINES if name != "qemu"]  # QEMU's CPU has no compacted format


def differences(a: Image, b: Image) -> int:
    """Return the mask of the components in which two images differ."""
    mask = 0
    for register, first, second in register_differences(a, b):
        start = 0
        for part in register.parts:
            if first[start : start + part.size] != second[start : start + part.size]:
                mask |= 1 << part.bit
            start += part.size
    return mask


def good_images(batch: Batch, count: int, seed: str) -> list[Image]:
    """Sound images whose MXCSR XRSTORS accepts."""
    rng = seeded(f"{seed} {batch.caps.cpu.name}")
    width = max(batch.image_size(), batch.image_size(compacted=True))
    found: list[Image] = []
    while len(found) < count:
        data = bytes(image(rng, batch, width, supervisor=False))
        if batch.explain("xrstor", np_row(data), ALL & ~(1 << 18)) is None:
            found.append(read(data, batch.caps, batch.xcr0))
    return found


def np_row(data: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN201
    import numpy as np

    return np.frombuffer(data, np.uint8)


def restored(batch: Batch, data: bytes, mask: int) -> Processor:
    p = batch.processor()
    p.xfd = 0
    execute(p, "xrstor64", Memory(bytearray(data).ljust(16384, b"\0"), BASE), BASE, mask)
    return p


def registers(p: Processor) -> list[bytes]:
    return [bytes(p.legacy[:28] + p.legacy[32:]), *(bytes(section) for bit, section in p.sections.items() if bit > 1)]


@pytest.mark.parametrize("to", ["standard", "compacted"])
@pytest.mark.parametrize("name", NAMES)
def test_a_converted_image_restores_the_same_registers(name: str, to: Format) -> None:
    batch = machine(name)
    for source in good_images(batch, 60, "same"):
        made = convert(source, to)
        assert registers(restored(batch, made, ALL)) == registers(restored(batch, source.data, ALL))


@pytest.mark.parametrize("to", ["standard", "compacted"])
@pytest.mark.parametrize("name", NAMES)
def test_a_converted_image_is_what_saving_the_restored_state_to_a_zeroed_buffer_gives(name: str, to: Format) -> None:
    batch = machine(name)
    rng = seeded(f"exact {name}")
    for source in good_images(batch, 60, "exact"):
        kept = (rng.getrandbits(64) | 0b10) & batch.xcr0 if rng.random() < 0.7 else batch.xcr0
        made = convert(source, to, components=kept, software=False)
        p = restored(batch, source.data, kept)
        area = Memory(bytearray(batch.caps.standard(kept).end if to == "standard" else len(made)), BASE)
        execute(p, "xsave64" if to == "standard" else "xsavec64", area, BASE, kept)
        after = read(bytes(area.data), batch.caps)
        converted = read(made, batch.caps)
        assert len(area.data) == len(made)
        assert converted.components & kept == after.components & kept
        assert converted.mxcsr == after.mxcsr
        assert converted.xstate_bv & ~0b10 == source.xstate_bv & kept & ~0b10
        for bit in bits(kept & ~LEGACY):
            if bit not in {9, 17}:  # padding of PKRU; a tile configuration that is refused
                assert converted.component(bit) == after.component(bit)
        assert converted.component(1) == after.component(1)
        software_and_header = slice(416, 512)
        assert made[software_and_header] == area.data[software_and_header]


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_is_the_same_state(name: str) -> None:
    batch = machine(name)
    for source in good_images(batch, 60, "back"):
        there = read(convert(source, "compacted"), batch.caps)
        back = read(convert(there, "standard"), batch.caps)
        assert differences(source, there) == differences(there, back) == 0


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stripped_and_added_again_is_in_its_initial_state(name: str) -> None:
    batch = machine(name)
    rng = seeded(f"strip {name}")
    for source in good_images(batch, 60, "strip"):
        mask = rng.getrandbits(64) & source.components
        stripped = read(strip(source, mask), batch.caps)
        again = read(add(stripped, mask & batch.xcr0), batch.caps)
        assert not stripped.xstate_bv & mask
        if stripped.xcomp_bv:
            assert stripped.xcomp_bv == source.xcomp_bv & ~mask
        assert differences(stripped, again) == 0
        assert not differences(source, again) & ~mask
        for bit in bits(mask):
            assert again.component(bit) == Image(bytes(576), batch.caps, 0, 0).component(bit)
        assert again.mxcsr == (0x1F80 if mask & 2 else source.mxcsr)


@pytest.mark.parametrize("name", NAMES)
def test_filled_images_compare_as_bytes_and_keep_their_meaning(name: str) -> None:
    batch = machine(name)
    for source in good_images(batch, 60, "fill"):
        filled = init_fill(source)
        once = read(filled, batch.caps)
        assert init_fill(once) == filled
        assert differences(source, once) == 0
        assert len(filled) == len(source.data)
        other = bytearray(filled)
        other[420] = 1
        assert init_fill(read(bytes(other), batch.caps)) == filled


def test_a_compacted_image_says_an_unusual_mxcsr_by_having_sse() -> None:
    # SDM 13.8.1: the standard form loads MXCSR whatever XSTATE_BV says; 13.10: XSAVEC then sets XSTATE_BV[1]
    data = bytearray(832)
    data[24:28] = (0x1FA0).to_bytes(4, "little")
    source = read(bytes(data), by_name("zen4"))
    made = read(convert(source, "compacted", components=7), by_name("zen4"))
    assert (made.xstate_bv, made.xcomp_bv, made.mxcsr) == (2, COMPACTED | 7, 0x1FA0)


def test_a_standard_image_never_gets_an_mxcsr_of_zero() -> None:
    data = bytearray(576)
    data[512:528] = struct.pack("<QQ", 0, COMPACTED | 3)
    made = read(convert(read(bytes(data), by_name("zen4")), "standard"), by_name("zen4"))
    assert made.mxcsr == 0x1F80
    assert made.data[28:32] == (0x2FFFF).to_bytes(4, "little")


def test_software_bytes_are_kept_on_demand() -> None:
    data = bytearray(576)
    data[464:512] = b"s" * 48
    source = read(bytes(data), by_name("zen4"))
    assert strip(source, 1)[464:512] == b"s" * 48
    assert not any(strip(source, 1, software=False)[464:512])


def test_images_differ_where_an_absent_component_would_not_be_initial() -> None:
    data = bytearray(832)
    data[24:28] = (0x1F80).to_bytes(4, "little")
    empty = read(bytes(data), by_name("zen4"))
    data[512] = 4
    assert differences(empty, read(bytes(data), by_name("zen4"))) == 0
    data[600] = 1
    assert differences(empty, read(bytes(data), by_name("zen4"))) == 4
    data[24] = 0
    assert differences(empty, read(bytes(data), by_name("zen4"))) == 6


def header(xstate_bv: int, xcomp_bv: int, at: int = 0, size: int = 4096) -> bytes:
    data = bytearray(size)
    struct.pack_into("<QQ", data, 512, xstate_bv, xcomp_bv)
    if at:
        data[at] = 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "has 576 bytes or more, this one 0"),
        (header(0, 0)[:575], "has 576 bytes or more, this one 575"),
        (header(4, 0, size=700), r"truncated: component 2 \(AVX\) ends at 832, the bytes at 700"),
        (header(0x20, COMPACTED | 0x24, size=832), r"truncated: component 5 \(opmask\) ends at 896"),
        (header(1 << 17, 0), "at offset 514: XSTATE_BV sets bit 17.*standard-xstate-bv"),
        (header(1 << 11, 0), "XSTATE_BV sets bit 11.*standard-xstate-bv"),
        (header(0, 4), "at offset 520: XCOMP_BV sets bit 2.*standard-header"),
        (header(0, 0, at=530), "at offset 530: header byte 18.*zero the reserved bytes"),
        (header(4, COMPACTED | 3), "at offset 512: XSTATE_BV sets bit 2.*give the component a place"),
        (header(0, COMPACTED | 1 << 40), "at offset 525: XCOMP_BV sets bit 40.*strip it"),
        (header(0, COMPACTED | 3, at=575), "at offset 575: header byte 63"),
    ],
)
def test_a_damaged_image_is_refused_with_the_rule_the_place_and_the_cure(data: bytes, says: str) -> None:
    with pytest.raises(UnreadableInput, match=says):
        read(data, by_name("zen4"))


def test_state_is_not_lost_unless_it_is_named() -> None:
    data = bytearray(header(1 << 11, COMPACTED | 1 << 11))
    source = read(bytes(data), by_name("zen4"))
    with pytest.raises(UsageError, match=r"component 11 \(CET_U\) has no place in standard format.*; strip it"):
        convert(source, "standard")
    with pytest.raises(
        UsageError, match=r"component 11 \(CET_U\) is a supervisor component: standard format has no place"
    ):
        convert(source, "standard", components=0x803)
    with pytest.raises(UsageError, match=r"component 17 .XTILECFG. is none of zen4"):
        add(source, 1 << 17)
    with pytest.raises(UsageError, match="has no component 17"):
        source.component(17)
    assert read(convert(source, "standard", components=3), by_name("zen4")).xstate_bv == 0


def test_a_format_that_does_not_exist_is_refused() -> None:
    cpu = by_name("zen4")
    with pytest.raises(UsageError, match="no format 'foo'"):
        encode(cpu, {}, "foo")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no format 'Compacted'"):
        convert(read(encode(cpu, {}), cpu), "Compacted")  # type: ignore[arg-type]


def test_a_value_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match="xmm0 takes 16 bytes"):
        encode(by_name("zen4"), {"xmm0": b"x"})


def test_registers_are_read_by_name_and_images_converted_for_a_cpu() -> None:
    source = read(encode(by_name("zen4"), {"k1": b"\x07" + bytes(7)}), by_name("zen4"))
    assert source.register("k1") == b"\x07" + bytes(7)
    made = read(convert(source, "standard", caps=by_name("ice-lake")), by_name("ice-lake"))
    assert made.register("k1") == source.register("k1")


@pytest.mark.parametrize("to", ["standard", "compacted"])
def test_patch_changes_the_register_named_and_no_other_byte(to: Format) -> None:
    caps = Capabilities(by_name("zen4"))
    source = read(encode(caps, {"ymm1": bytes(range(32)), "k2": b"\xff" * 8}, to) + b"behind", caps)
    made = patch(source, {"xmm1": bytes(16)})
    assert made == source.data[:176] + bytes(16) + source.data[192:]


def test_patch_fills_a_component_that_was_not_in_use() -> None:
    caps = Capabilities(by_name("zen4"))
    stale = bytearray(encode(caps, {"st3": b"\x01" * 10, "xmm1": b"\x02" * 16}))
    stale[512] = 0  # XSAVEOPT leaves such bytes behind
    made = read(patch(read(bytes(stale), caps), {"st5": b"\x07" * 10}), caps)
    assert (made.xstate_bv, made.register("st3"), made.register("st5")) == (1, bytes(10), b"\x07" * 10)
    assert made.register("fctrl") == b"\x7f\x03"
