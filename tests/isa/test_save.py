"""XSAVE, XSAVEOPT, XSAVEC, XSAVES: SDM volume 1, 13.6, 13.7, 13.9 to 13.11; a Zen 4's recordings where named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from area import ADDRESS, ALL, Area
from fpstate.isa import Fault, Memory, Processor, execute

COMPACTED = 1 << 63
CET = (0x10).to_bytes(8, "little")
"""A shadow-stack pointer."""


def _fill(p: Processor) -> None:
    """Put something into every component."""
    for bit, section in p.sections.items():
        if bit > 1:
            section[:] = (CET if bit in {11, 12} else b"\x11" * 8) * (len(section) // 8)
    if 11 in p.sections:
        p.sections[11][:8] = (1).to_bytes(8, "little")
    p.legacy[32:416] = bytes([0x11]) * 384
    for i in range(8):
        p.legacy[32 + 16 * i + 10 : 48 + 16 * i] = bytes(6)
    p.mxcsr = 0x1FA0
    p.touch(ALL & (p.xcr0 | p.xss))


@pytest.mark.parametrize("op", ["xsave", "xsave64"])
def test_xsave_keeps_the_bits_of_xstate_bv_outside_rfbm(zen4: Processor, op: str) -> None:
    area = Area()
    area.put(512, 0xA5A5A5A5A5A5A5A5)
    area.run(zen4, op, 0b110)
    assert area.xstate_bv == 0xA5A5A5A5A5A5A5A1  # recording: XSAVE64 rfbm=6 init
    assert area.xcomp_bv == 0


def test_xsave_writes_components_in_their_initial_configuration(zen4: Processor) -> None:
    area = Area(fill=0xA5)
    area.run(zen4, "xsave64", 0b100)
    assert area.data[576:832] == bytes(256)
    assert area.data[832] == 0xA5


@pytest.mark.parametrize(("mask", "saved"), [(1, False), (2, True), (4, True), (0x20, False)])
def test_xsave_writes_mxcsr_for_sse_or_avx(zen4: Processor, mask: int, saved: bool) -> None:
    area = Area(fill=0xA5)
    area.run(zen4, "xsave64", mask)
    assert (area.field(24) == 0x0002FFFF_00001F80) is saved


def test_xstate_bv_of_xsave_is_0_for_sse_though_mxcsr_is_not_initial(zen4: Processor) -> None:
    zen4.mxcsr = 0x1FA0
    area = Area()
    area.run(zen4, "xsave64", 0b10)
    assert area.xstate_bv == 0
    assert area.field(24) & 0xFFFFFFFF == 0x1FA0


def test_xsavec_counts_sse_as_in_use_if_mxcsr_is_not_initial(zen4: Processor) -> None:
    zen4.mxcsr = 0x1FA0
    area = Area(fill=0xA5)
    area.run(zen4, "xsavec64", 0b110)
    assert area.xstate_bv == 0b10
    assert area.data[160:416] == bytes(256)


def test_xsavec_does_not_save_mxcsr_for_avx_alone(zen4: Processor) -> None:
    _fill(zen4)
    area = Area(fill=0xA5)
    area.run(zen4, "xsavec64", 0b100)
    assert area.data[24:32] == b"\xa5" * 8


def test_xsavec_with_an_empty_mask_writes_the_two_header_fields_alone(zen4: Processor) -> None:
    area = Area(fill=0xA5)
    area.run(zen4, "xsavec64", COMPACTED)
    assert (area.xstate_bv, area.xcomp_bv) == (0, COMPACTED)
    assert area.data[:512] == b"\xa5" * 512


def test_xsaves_places_supervisor_components_behind_user_ones(zen4: Processor) -> None:
    # Bochs 3.1, XCR0 = E7H, XSS = 1800H: CET_U at 980H, CET_S at 990H
    zen4.xcr0 = 0xE7
    _fill(zen4)
    area = Area()
    area.run(zen4, "xsaves64")
    assert (area.xstate_bv, area.xcomp_bv) == (0x18E7, COMPACTED | 0x18E7)
    assert area.data[0x980:0x9A8] == (1).to_bytes(8, "little") + CET * 4
    assert not any(area.data[0x9A8:])


@pytest.mark.parametrize(("mask", "places"), [(0x1800, (0x240, 0x250)), (0x1804, (0x340, 0x350))])
def test_the_compacted_places_follow_rfbm(zen4: Processor, mask: int, places: tuple[int, int]) -> None:
    zen4.sections[11][:] = b"\x22" * 16
    zen4.sections[12][:] = b"\x33" * 24
    area = Area()
    area.run(zen4, "xsaves64", mask)
    assert area.data[places[0] : places[0] + 16] == b"\x22" * 16
    assert area.data[places[1] : places[1] + 24] == b"\x33" * 24


def test_an_aligned_component_starts_on_64_bytes(exact: Processor) -> None:
    exact.sections[11][:] = b"\x22" * 16
    exact.sections[17][:] = b"\x33" * 64
    area = Area()
    area.run(exact, "xsaves64", 1 << 11 | 1 << 17 if exact.xss >> 11 & 1 else 1 << 17)
    assert area.data.index(b"\x33" * 64) == 640 if exact.xss >> 11 & 1 else 576


@pytest.mark.parametrize("op", ["xsaveopt64", "xsavec64", "xsaves64"])
def test_the_init_optimisation_leaves_absent_components_alone(zen4: Processor, op: str) -> None:
    zen4.sections[5][:] = b"\x11" * 64
    area = Area(fill=0xA5)
    area.run(zen4, op)
    assert area.xstate_bv & zen4.xcr0 == 1 << 5
    assert area.data[160:416] == b"\xa5" * 256


# The modified optimisation


def _restored(p: Processor, op: str = "xrstor64") -> Area:
    _fill(p)
    area = Area()
    area.run(p, "xsave64" if op == "xrstor64" else "xsaves64")
    area.run(p, op)
    area.data[576:] = b"\xa5" * len(area.data[576:])
    area.data[160:416] = b"\xa5" * 256
    return area


def test_xsaveopt_leaves_out_what_was_not_modified_since_xrstor(zen4: Processor) -> None:
    area = _restored(zen4)
    zen4.write("k3", 5)
    area.run(zen4, "xsaveopt64")
    assert area.xstate_bv == 0x2E7
    assert area.data[576:832] == b"\xa5" * 256
    assert area.data[832 + 24] == 5


def test_mxcsr_is_never_left_out_by_xsaveopt(zen4: Processor) -> None:
    area = _restored(zen4)
    area.put(24, 0)
    area.run(zen4, "xsaveopt64")
    assert area.field(24) == 0x0002FFFF_00001FA0


@pytest.mark.parametrize("change", ["address", "cpl", "non_root", "compacted"])
def test_the_optimisation_needs_the_same_area_and_mode(zen4: Processor, change: str) -> None:
    area = _restored(zen4)
    if change == "cpl":
        zen4.cpl = 3
    elif change == "non_root":
        zen4.non_root = True
    elif change == "compacted":
        other = Area()
        other.run(zen4, "xsavec64")
        other.run(zen4, "xrstor64")
    area.run(zen4, "xsaveopt64", at=64 if change == "address" else 0)
    at = 640 if change == "address" else 576
    assert area.data[at : at + 256] == b"\x11" * 256


def test_xsaves_needs_rfbm_to_be_the_xcomp_bv_that_was_restored(zen4: Processor) -> None:
    area = _restored(zen4, "xrstors64")
    area.run(zen4, "xsaves64", ALL)
    assert area.data[576:832] == b"\xa5" * 256
    area = _restored(zen4, "xrstors64")
    area.run(zen4, "xsaves64", 0b111)
    assert area.data[576:832] == b"\x11" * 256


def test_xsaves_writes_sse_again_if_mxcsr_is_not_initial(zen4: Processor) -> None:
    area = _restored(zen4, "xrstors64")
    area.run(zen4, "xsaves64")
    assert area.data[160:416] == b"\x11" * 256


def test_xsavec_has_no_modified_optimisation(zen4: Processor) -> None:
    area = _restored(zen4)
    area.run(zen4, "xsavec64")
    assert area.data[576:832] == b"\x11" * 256


# Special components


def test_xsaves_clears_trace_en_behind_it(intel: Processor) -> None:
    if not intel.xss >> 8 & 1:
        pytest.skip("this CPU has no PT in IA32_XSS")
    intel.write("rtit_ctl", 0x2005)
    area = Area()
    area.run(intel, "xsaves64", 1 << 8)
    assert area.field(576) == 0x2005
    assert int.from_bytes(intel.read("rtit_ctl"), "little") == 0x2004


def test_xsaves_clears_uinv_behind_it(intel: Processor) -> None:
    intel.write("uintr_misc", 0xEC_0000_0007)
    area = Area()
    area.run(intel, "xsaves64", 1 << 14)
    assert area.field(576 + 16) == 0xEC_0000_0007
    assert int.from_bytes(intel.read("uintr_misc"), "little") == 7


def test_lbr_entries_beyond_the_depth_are_not_saved(intel: Processor) -> None:
    for register, value in (("lbr_depth", 8), ("lbr_7_from_ip", 7), ("lbr_8_from_ip", 8)):
        intel.write(register, value)
    area = Area(fill=0xA5)
    area.run(intel, "xsaves64", 1 << 15)
    assert area.field(576 + 40 + 24 * 7) == 7
    assert area.field(576 + 40 + 24 * 8) == 0xA5A5A5A5A5A5A5A5


def test_a_component_that_xfd_disables_is_saved_as_absent(exact: Processor) -> None:
    exact.sections[18][:] = b"\x44" * 8192
    exact.xfd = 1 << 18
    area = Area(fill=0xA5)
    area.run(exact, "xsavec64")
    assert not area.xstate_bv >> 18 & 1
    assert area.xcomp_bv >> 18 & 1  # its place stays
    assert b"\x44" not in area.data
    area = Area(fill=0xA5)
    area.run(exact, "xsave64", 1 << 18)
    assert area.data[2816 : 2816 + 8192] == bytes(8192)  # XSAVE writes the initial configuration


@pytest.mark.parametrize("op", ["xsave", "xsavec", "xsaves"])
def test_registers_8_and_up_are_left_alone_outside_64_bit_mode(zen4: Processor, op: str) -> None:
    _fill(zen4)
    zen4.mode = 32
    area = Area(fill=0xA5)
    area.run(zen4, op, 0xE7)
    assert area.data[160:288] == b"\x11" * 128
    assert area.data[288:416] == b"\xa5" * 128
    assert area.data[576:704] == b"\x11" * 128
    assert area.data[704:832] == b"\xa5" * 128
    assert area.data[1408:2432] == b"\xa5" * 1024


# x87 pointers


def _pending(p: Processor) -> None:
    p.legacy[:4] = bytes.fromhex("7e038180")  # invalid operation, unmasked, pending
    for name, value in (("fop", 0x474), ("fioff", 0x1122_3344_5566), ("fooff", 0x7FFD_0001_0002), ("fiseg", 0x33)):
        p.write(name, value)


def test_the_64_bit_form_saves_whole_pointers(zen4: Processor) -> None:
    _pending(zen4)
    area = Area()
    area.run(zen4, "xsave64", 1)
    assert (area.field(8), area.field(16)) == (0x1122_3344_5566, 0x7FFD_0001_0002)


def test_the_32_bit_form_saves_offset_and_selector(zen4: Processor) -> None:
    _pending(zen4)
    area = Area()
    area.run(zen4, "xsave", 1)
    assert (area.field(8), area.field(16)) == (0x33_3344_5566, 0x0001_0002)


def test_amd_saves_no_pointers_without_a_pending_exception(zen4: Processor) -> None:
    _pending(zen4)
    zen4.legacy[:4] = bytes.fromhex("7f030100")
    area = Area(fill=0xA5)
    area.run(zen4, "xsave64", 1)
    assert area.data[6:24] == bytes(18)


def test_no_selectors_where_cpuid_says_so(intel: Processor) -> None:
    intel.write("fiseg", 0x33)
    area = Area()
    area.run(intel, "xsave", 1)
    assert (area.field(8) == 0) is intel.caps.no_fcs_fds


# Recordings


def _recordings(corpus: Path) -> list[re.Match[str]]:
    pattern = re.compile(
        r"(XSAVE\w*?)(32|64) rfbm=(\w+) init bv\(A5\)=(\w+) bv\(5A\)=(\w+) xcomp=(\w+) wr:(.*)", re.MULTILINE
    )
    return list(pattern.finditer((corpus / "zen4/hw.out").read_text()))


def test_written_bytes_are_those_that_a_zen4_wrote(corpus: Path, zen4: Processor) -> None:
    found = _recordings(corpus)
    assert len(found) == 56
    for match in found:
        op = match[1].lower() + ("64" if match[2] == "64" else "")
        assert _written_by(zen4, op, int(match[3], 16)) == (match[4], match[5], match[6], match[7].strip()), match[0]


def _written_by(p: Processor, op: str, mask: int) -> tuple[str, str, str, str]:
    changed: set[int] = set()
    fields = []
    p.xcr0 = 0xE7
    for fill in (0xA5, 0x5A):
        area = Area(fill=fill, size=2432)
        area.data[512:576] = bytes([fill]) * 64
        area.run(p, op, mask)
        changed |= {i for i, byte in enumerate(area.data) if byte != fill}
        fields += [f"{area.xstate_bv:016x}", f"{area.xcomp_bv:016x}"]
    starts = [i for i in sorted(changed) if i - 1 not in changed]
    ends = [i for i in sorted(changed) if i + 1 not in changed]
    runs = " ".join(f"[{a}..{b}]" for a, b in zip(starts, ends, strict=True))
    return fields[0], fields[2], fields[1], runs


def test_faults_leave_memory_alone(zen4: Processor) -> None:
    area = Area(fill=0xA5)
    with pytest.raises(Fault):
        area.run(zen4, "xsave64", at=8)
    assert set(area.data) == {0xA5, 0}


def test_a_changed_mxcsr_is_saved_again_under_the_modified_optimisation(zen4: Processor) -> None:
    zen4.write("mxcsr", 0x1F85)
    zen4.write("xmm3", b"\x11" * 16)
    area = Area()
    area.run(zen4, "xsaves64")
    area.run(zen4, "xrstors64")
    zen4.write("mxcsr", 0x1F80)
    area.run(zen4, "xsaves64")
    assert area.field(24) & 0xFFFFFFFF == 0x1F80


def test_what_xsaves_clears_behind_it_is_saved_again(intel: Processor) -> None:
    area = Area()
    intel.write("uintr_misc", 7)
    area.run(intel, "xsaves64")
    area.run(intel, "xrstors64")
    intel.sections[14][20] = 0xEC  # an interrupt notification vector, not written through the model
    area.run(intel, "xsaves64")
    assert not intel.sections[14][20]


def test_lbr_in_its_initial_configuration_is_not_accessed(intel: Processor) -> None:
    memory = Memory(bytearray(600), ADDRESS)
    execute(intel, "xsaves64", memory, ADDRESS, 1 << 15)
    assert int.from_bytes(memory.data[520:528], "little") == COMPACTED | 1 << 15
    intel.write("lbr_ctl", 1)
    with pytest.raises(Fault, match="not mapped"):
        execute(intel, "xsaves64", memory, ADDRESS, 1 << 15)
