"""From bytes to state: who says where components lie, what is read of damaged bytes, and what is said of them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fpstate
from elfcores import image
from fpstate.cpu.model import Component
from fpstate.errors import CannotTell
from fpstate.sources.capture import Thread
from fpstate.sources.placement import Placed, Placer

ZMM3 = bytes(range(64))
VALUES = {"zmm3": ZMM3, "zmm17": ZMM3[::-1], "k1": b"\1" * 8}
STATE = image(VALUES)
ZEN4 = {
    bit: Component(bit, size, offset)
    for bit, size, offset in ((2, 256, 576), (5, 64, 832), (6, 512, 896), (7, 1024, 1408))
}
"""What the layout note of a Zen 4 says: users.md P27, and measured."""


def thread(data: bytes = STATE, **values: Any) -> Thread:
    return Thread(tid=1, image=memoryview(data), offset=1000, **{"enabled": 0xE7, **values})


def place(found: Thread, cpu: str | None = None, *, strict: bool = False) -> Placed:
    return Placer(None if cpu is None else fpstate.cpu_by_name(cpu), strict=strict).place(found)


def shown(placed: Placed) -> dict[str, str]:
    return placed.hexadecimal()


def states(placed: Placed) -> Mapping[str, str]:
    return {slot.name: slot.state for slot in placed.components}


# -- who says where they lie -----------------------------------------------------------------------------------------


def test_the_layout_note_decides() -> None:
    placed = place(thread(layout=ZEN4))
    assert (placed.layout.origin, placed.layout.confidence) == ("note", "certain")
    assert shown(placed)["zmm17"] == ZMM3[::-1].hex()
    assert not placed.damage


def test_the_layout_note_decides_against_a_cpu_that_is_named() -> None:
    placed = place(thread(layout=ZEN4), "sapphire-rapids")
    assert placed.layout.origin == "note"
    assert shown(placed)["zmm17"] == ZMM3[::-1].hex()
    assert {d.rule for d in placed.damage} == {"layout.cpu-differs"}


def test_without_a_note_the_named_cpu_decides() -> None:
    placed = place(thread(), "zen4")
    assert (placed.layout.origin, shown(placed)["zmm17"]) == ("cpu", ZMM3[::-1].hex())
    assert not placed.damage


def test_a_named_cpu_that_writes_another_size_is_doubted() -> None:
    assert "layout.cpu-size" in [d.rule for d in place(thread(), "sapphire-rapids").damage]


def test_a_named_cpu_that_lacks_a_component_is_doubted() -> None:
    assert "layout.cpu-lacks" in [d.rule for d in place(thread(), "zen3").damage]


@pytest.mark.parametrize("cpu", ["zen4", "ice-lake", "skylake-server", "zen5"])
def test_without_either_size_and_xcr0_tell_amd_from_intel(cpu: str) -> None:
    placed = place(thread(image(VALUES, cpu)))
    assert (placed.layout.origin, placed.layout.confidence) == ("deduced", "high")
    assert shown(placed)["zmm17"] == ZMM3[::-1].hex()
    assert placed.layout.candidates


def test_several_layouts_that_fit_are_all_named() -> None:
    """2696 bytes with XCR0 unknown: PKRU at 2688, with or without AVX-512 and MPX below it."""
    placed = place(thread(image({"pkru": b"\4\0\0\0"}, "ice-lake", 0x2E7), enabled=None))
    assert placed.layout.confidence == "low"
    assert len(placed.layout.candidates) > 1


def test_strict_refuses_to_guess_among_several() -> None:
    with pytest.raises(CannotTell, match=r"or as .*--cpu"):
        place(thread(image({}, "ice-lake", 0x2E7), enabled=None), strict=True)


def test_strict_takes_what_every_known_cpu_agrees_on() -> None:
    assert place(thread(), strict=True).layout.origin == "deduced"


def test_a_size_that_no_known_cpu_writes_leaves_what_all_have() -> None:
    state = bytearray(image({"ymm3": ZMM3[:32]}).ljust(3000, b"\0"))
    placed = place(thread(bytes(state)))
    assert [d.rule for d in placed.damage] == ["layout.unknown"]
    assert shown(placed)["ymm3"] == ZMM3[:32].hex()
    assert states(placed)["Hi16_ZMM"] == "absent"


def test_a_component_in_use_without_a_place_is_said_to_be_missing() -> None:
    placed = place(thread(STATE.ljust(3000, b"\0")))
    assert [d.rule for d in placed.damage] == ["layout.unknown", *["layout.no-place"] * 3]
    assert "zmm3" not in shown(placed)


def test_a_core_that_gdb_wrote_may_be_an_amd_s_with_intel_s_size() -> None:
    """Measured: gdb 13.1 on a Zen 4 writes 2688 bytes."""
    found = thread(image(VALUES, "ice-lake"))
    layout = Placer(by_gdb=True).place(found).layout
    assert layout.confidence == "low"
    assert "zen4" in layout.candidates[-1]
    assert Placer(by_gdb=True).place(thread(image({}, xcr0=7), enabled=7)).layout.confidence == "high"


def test_amx_lies_where_sapphire_rapids_has_it() -> None:
    tile = bytes(i % 251 for i in range(1024))
    state = image({"tmm2": tile, "tilecfg": b"\1" + bytes(63)}, "sapphire-rapids", 0x602E7)
    placed = place(thread(state, enabled=0x602E7))
    assert shown(placed)["tmm2"] == tile.hex()


def test_apx_lies_where_mpx_lay() -> None:
    state = image({"r16": b"\7" * 8}, "diamond-rapids", 0xE02E7)
    placed = place(thread(state, enabled=0xE02E7))
    assert shown(placed)["r16"] == "07" * 8
    assert next(slot.offset for slot in placed.components if slot.name == "APX") == 960


def test_what_a_damaged_note_lacks_comes_from_a_cpu_that_is_named() -> None:
    found = thread(layout={bit: place for bit, place in ZEN4.items() if bit != 5})
    assert [d.rule for d in place(found).damage] == ["layout.no-place"]
    mended = place(found, "zen4")
    assert shown(mended)["k1"] == "01" * 8
    assert not mended.damage


def test_nothing_is_put_where_the_note_has_something_else() -> None:
    moved = {**{bit: place for bit, place in ZEN4.items() if bit != 5}, 6: Component(6, 512, 840)}
    assert states(place(thread(layout=moved), "zen4"))["opmask"] == "absent"


def test_a_length_that_no_image_has_leaves_the_bytes_that_are_there() -> None:
    """A note that says 4 GiB, in a core with all of the image."""
    placed = place(thread(said=0xFFFF_FFF0))
    assert shown(placed)["zmm17"] == ZMM3[::-1].hex()
    assert not placed.damage


def test_of_xcr0_s_that_fit_the_one_with_more_components_comes_first() -> None:
    placed = place(thread(image({"tilecfg": b"\1" + bytes(63)}, "sapphire-rapids", 0x602E7), enabled=None))
    assert placed.layout.candidates[0].endswith("with XCR0 0x602e7")


# -- states ----------------------------------------------------------------------------------------------------------


def test_a_component_is_in_use_initial_or_absent() -> None:
    state = image({"k1": b"\1" * 8})
    found = states(place(thread(state, layout=ZEN4)))
    assert (found["opmask"], found["AVX"], found["PKRU"]) == ("in-use", "init", "absent")


def test_stale_bytes_of_an_initial_component_are_not_shown() -> None:
    """opendcdiag PR 360: a component whose XSTATE_BV bit is 0 may hold anything."""
    stale = bytearray(STATE)
    stale[512] &= ~0x60  # opmask and ZMM_Hi256
    placed = place(thread(bytes(stale), layout=ZEN4))
    assert shown(placed)["k1"] == "00" * 8
    assert shown(placed)["zmm3"] == ZMM3[:32].hex() + "00" * 32


def test_x87_in_its_initial_state_reads_so_whatever_its_bytes_are() -> None:
    stale = bytearray(STATE)
    stale[:2] = b"\xaa\xaa"
    assert shown(place(thread(bytes(stale))))["fctrl"] == "7f03"


def test_what_xcr0_has_not_is_absent_though_the_cpu_has_it() -> None:
    placed = place(thread(image({}, "skylake-server"), enabled=0xE7), "skylake-server")
    assert states(placed)["BNDREGS"] == "absent"


def test_an_i386_thread_has_eight_vector_registers() -> None:
    names = shown(place(thread(layout=ZEN4, abi="i386")))
    assert {"xmm7", "zmm7", "k7"} <= set(names)
    assert not {"xmm8", "ymm15", "zmm16"} & set(names)


def test_every_register_reads_like_the_image_it_is_in() -> None:
    placed = place(thread(layout=ZEN4))
    assert shown(placed) == {r.name: placed.value(r).hex() for r in placed.named}
    assert {"xmm0", "ymm0", "zmm0", "k0", "st0", "mxcsr", "fctrl"} <= set(shown(placed))


def test_a_compacted_image_is_placed_by_its_own_xcomp_bv() -> None:
    values = {"ymm1": ZMM3[:32], "pl0_ssp": b"\0\x10" + bytes(6)}
    data = fpstate.encode_image(fpstate.cpu_by_name("zen4"), values, "compacted")
    placed = place(thread(data, enabled=None))
    assert (placed.format, shown(placed)["pl0_ssp"]) == ("compacted", "0010" + "00" * 6)
    assert not placed.damage


def test_fxsave_has_x87_and_sse() -> None:
    placed = place(thread(STATE[:512], form="fxsave", enabled=None))
    assert (placed.format, placed.layout.origin) == ("fxsave", "given")
    assert shown(placed)["xmm3"] == ZMM3[:16].hex()
    assert placed.xstate_bv is None


def test_fsave_has_x87_in_its_own_places() -> None:
    """Offsets: SDM volume 1, figure 8-9; the tag word 3FFFH says that physical register 7 alone is valid."""
    st0 = bytes(range(1, 11))
    data = struct.pack("<HHHHHHIHHIHH", 0x27F, 0, 0x3800, 0, 0x3FFF, 0, 0x1234, 0x23, 0x5D9, 0x5678, 0x2B, 0) + st0
    placed = place(thread(data.ljust(108, b"\0"), form="fsave", abi="i386", enabled=None))
    found = shown(placed)
    assert {name: found[name] for name in ("fctrl", "fstat", "ftag", "fop", "fiseg", "foseg", "st0")} == {
        "fctrl": "7f02",
        "fstat": "0038",
        "ftag": "80",
        "fop": "d905",
        "fiseg": "2300",
        "foseg": "2b00",
        "st0": st0.hex(),
    }
    assert (found["fioff"][:8], found["fooff"][:8]) == ("34120000", "78560000")
    assert "mxcsr" not in found


# -- damage ----------------------------------------------------------------------------------------------------------


def damaged(at: int, value: bytes) -> Placed:
    data = bytearray(STATE)
    data[at : at + len(value)] = value
    return place(thread(bytes(data), layout=ZEN4))


@pytest.mark.parametrize(
    ("at", "value", "rule", "offset"),
    [
        (513, b"\x02", "header.standard-xstate-bv", 513),
        (519, b"\x80", "header.standard-xstate-bv", 519),
        (520, b"\x01", "header.standard-header", 520),
        (528, b"\x01", "header.standard-header", 528),
        (540, b"\x01", "header.reserved", 540),
        (575, b"\x01", "header.reserved", 575),
        (526, b"\x01\x80", "header.standard-header", 526),
    ],
)
def test_a_damaged_header_is_named_by_rule_and_byte(at: int, value: bytes, rule: str, offset: int) -> None:
    placed = damaged(at, value)
    damage = next(d for d in placed.damage if d.rule == rule)
    assert damage.offset == 1000 + offset
    assert placed.image is not None


@pytest.mark.parametrize("at", [513, 519, 520, 526, 527, 528, 575])
def test_what_a_damaged_header_does_not_concern_is_still_shown(at: int) -> None:
    assert shown(damaged(at, b"\x40"))["zmm3"] == ZMM3.hex()


@pytest.mark.parametrize(
    ("size", "there", "lost"),
    [(2000, "zmm3", "zmm17"), (860, "ymm3", "k1"), (600, "xmm3", "ymm3"), (400, "st0", "xmm3"), (100, "", "st0")],
)
def test_a_truncated_image_shows_the_components_that_are_whole(size: int, there: str, lost: str) -> None:
    placed = place(thread(STATE[:size], layout=ZEN4))
    assert lost not in shown(placed)
    assert not there or there in shown(placed)
    assert "image.truncated" in [d.rule for d in placed.damage]


def test_a_truncated_image_is_placed_by_the_size_that_it_had() -> None:
    placed = place(thread(STATE[:2000], said=len(STATE)), strict=True)
    assert shown(placed)["zmm3"] == ZMM3.hex()
    assert [d.rule for d in placed.damage] == ["image.truncated"]


def test_behind_a_component_that_the_cpu_has_not_nothing_of_a_compacted_image_has_a_place() -> None:
    values = {"k1": bytes(range(8)), "pkru": b"\1\2\3\4", "ymm3": bytes(range(32))}
    data = fpstate.encode_image(fpstate.cpu_by_name("ice-lake"), values, "compacted", components=0x2E7)
    placed = Placer(fpstate.cpu_by_name("zen3")).place(Thread(7, memoryview(data)))  # it has PKRU and no opmask
    assert shown(placed)["ymm3"] == values["ymm3"].hex()
    assert "pkru" not in shown(placed)
    assert [(found.rule, found.text.partition(",")[0]) for found in placed.damage] == [
        ("header.xcomp-bv", "thread 7"),
        ("layout.no-place", "XSTATE_BV has component 5 (opmask)"),
        ("layout.no-place", "XSTATE_BV has component 9 (PKRU)"),
    ]


def test_a_truncated_compacted_image_keeps_the_places_before_the_cut() -> None:
    data = fpstate.encode_image(fpstate.cpu_by_name("zen4"), VALUES, "compacted")
    placed = place(thread(data[:-100], enabled=None))
    assert shown(placed)["zmm3"] == ZMM3.hex()
    assert "zmm17" not in shown(placed)
    assert [d.rule for d in placed.damage] == ["image.truncated"]


def test_a_thread_without_an_image_says_so() -> None:
    placed = place(thread(b"", form="none"))
    assert [d.rule for d in placed.damage] == ["image.none"]
    assert not shown(placed)


def test_a_component_too_small_for_its_registers_is_left_out() -> None:
    placed = place(thread(layout={**ZEN4, 7: Component(7, 100, 1408)}))
    assert "layout.component" in [d.rule for d in placed.damage]
    assert shown(placed)["zmm3"] == ZMM3.hex()


def test_layouts_without_end_are_not_looked_for() -> None:
    placer = Placer()
    found = [placer.place(thread(STATE, enabled=3 | i << 2)) for i in range(100)]
    assert next(d.rule for d in found[-1].damage) == "layout.too-many"
    assert shown(found[-1])["xmm3"] == ZMM3[:16].hex()


# -- MXCSR, XCR0, FXSAVE ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["xsave", "fxsave"])
def test_an_mxcsr_that_no_cpu_takes_is_found(form: str) -> None:
    state = bytearray(STATE)
    state[27] = 1
    (damage,) = place(thread(bytes(state[: 512 if form == "fxsave" else None]), form=form)).damage
    assert (damage.rule, damage.offset) == ("image.mxcsr", 1027)
    assert "offset 27 of its image: MXCSR 0x1001f80 sets bit 24: MXCSR must set no bit outside" in damage.text


def test_mxcsr_of_a_compacted_image_without_sse_means_nothing() -> None:
    state = bytearray(fpstate.encode_image(fpstate.cpu_by_name("zen4"), {"k1": b"\1" * 8}, "compacted"))
    state[27] = 1
    assert not place(thread(bytes(state))).damage


def test_an_xcr0_that_no_cpu_takes_is_found() -> None:
    """AVX-512's three bits go together (SDM volume 1, 13.3)."""
    found = place(thread(image({"zmm3": ZMM3}), enabled=0x67, layout=ZEN4)).damage
    assert [d.rule for d in found] == ["image.xcr0"]
    assert found[0].offset == 1464
    assert "XCR0 0x67, which XSETBV refuses: AVX-512 (bits 5, 6 and 7) goes all together" in found[0].text


def test_what_a_header_s_bit_stands_for_is_named() -> None:
    state = bytearray(STATE)
    state[513] = 2
    (damage,) = place(thread(bytes(state), layout=ZEN4)).damage
    assert "XSTATE_BV sets bit 9 (PKRU): " in damage.text


def test_a_lost_component_is_found_at_its_bit() -> None:
    (damage,) = place(thread(STATE[:1500], layout=ZEN4)).damage
    assert (damage.rule, damage.offset) == ("image.truncated", 1512)


INITIAL = image({})[:512]


@pytest.mark.parametrize(
    ("at", "in_use"),
    [(None, set()), (0, {"x87"}), (40, {"x87"}), (47, set()), (170, {"SSE"}), (300, {"SSE"}), (24, set())],
    ids=["nothing", "fctrl", "st0", "padding", "xmm0", "xmm8", "mxcsr"],
)
def test_of_fxsave_the_values_tell_what_is_in_use(at: int | None, in_use: set[str]) -> None:
    """XINUSE of x87 and SSE, SDM volume 1, 13.6; MXCSR does not count, nor what follows a register."""
    state = bytearray(INITIAL)
    if at is not None:
        state[at] ^= 1
    found = states(place(thread(bytes(state), form="fxsave")))
    assert {name for name, state in found.items() if state == "in-use"} == in_use
    assert {found["x87"], found["SSE"]} <= {"in-use", "init"}


def test_of_a_32_bit_thread_s_fxsave_only_eight_xmm_count() -> None:
    state = bytearray(INITIAL)
    state[300] = 1
    assert states(place(thread(bytes(state), form="fxsave", abi="i386")))["SSE"] == "init"


def test_threads_that_each_tell_the_same_layout_have_one() -> None:
    placer = Placer()
    found = [placer.place(thread(layout=dict(ZEN4))) for _ in range(100)]
    assert not found[-1].damage
    assert found[-1].layout is found[0].layout


def test_a_layout_is_known_by_what_it_says() -> None:
    placer = Placer()
    for size in (256, 128) * 3:  # nobody keeps these dicts: a later one may lie where an earlier one was
        placed = placer.place(thread(layout={2: Component(2, 256, 576), 9: Component(9, size, 832)}))
        assert placed.layout.caps.sizes[9] == size


_forms = st.sampled_from(["xsave", "fxsave", "fsave", "none"])


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.binary(min_size=64, max_size=64),
    st.integers(0, 2700),
    _forms,
    st.one_of(st.none(), st.integers(0, (1 << 63) - 1)),
    st.one_of(st.none(), st.just(ZEN4)),
)
def test_any_header_gives_registers_that_read_like_its_image(
    header: bytes, size: int, form: Any, enabled: int | None, layout: dict[int, Component] | None
) -> None:
    data = (STATE[:512] + header + STATE[576:]).ljust(2700, b"\xaa")[:size]
    placed = place(thread(data, form=form, enabled=enabled, layout=layout))
    assert shown(placed) == {r.name: placed.value(r).hex() for r in placed.named}
    assert {slot.bit for slot in placed.components if slot.state != "absent"} == {
        bit for bit in range(63) if placed.has >> bit & 1
    }
