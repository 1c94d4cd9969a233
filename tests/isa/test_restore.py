"""XRSTOR and XRSTORS: SDM volume 1, 13.8, 13.12 and 13.14; recordings of a Zen 4 where one is named."""

from __future__ import annotations

import pytest

from area import ALL, Area
from fpstate import registers as regs
from fpstate.cpu import by_name
from fpstate.isa import Capabilities, Fault, Processor

COMPACTED = 1 << 63


def _image(xstate_bv: int, xcomp_bv: int = 0, fill: int = 0x11) -> Area:
    area = Area(fill=fill)
    area.put(24, 0x1FA0, 4)
    area.put(512, xstate_bv)
    area.put(520, xcomp_bv)
    return area


def _fault(p: Processor, area: Area, op: str = "xrstor64", mask: int = ALL) -> Fault:
    before = {bit: bytes(section) for bit, section in p.sections.items()}
    with pytest.raises(Fault) as caught:
        area.run(p, op, mask)
    assert {bit: bytes(section) for bit, section in p.sections.items()} == before
    return caught.value


# Standard form


def test_components_in_xstate_bv_are_loaded_and_the_others_initialised(zen4: Processor) -> None:
    zen4.write("k1", 7)
    zen4.write("zmm20", b"\x55" * 64)
    _image(0b100).run(zen4, "xrstor64", 0b100100)
    assert zen4.sections[2] == b"\x11" * 256
    assert zen4.read("k1") == bytes(8)
    assert zen4.read("zmm20") == b"\x55" * 64  # not in RFBM


@pytest.mark.parametrize(("mask", "mxcsr"), [(1, 0x1F80), (2, 0x1FA0), (4, 0x1FA0), (0x20, 0x1F80)])
def test_mxcsr_is_loaded_for_sse_or_avx_whatever_xstate_bv_says(zen4: Processor, mask: int, mxcsr: int) -> None:
    _image(0).run(zen4, "xrstor64", mask)
    assert zen4.mxcsr == mxcsr


@pytest.mark.parametrize("bit", [3, 11, 17, 62, 63])
def test_a_bit_outside_xcr0_faults_even_outside_rfbm(zen4: Processor, bit: int) -> None:
    fault = _fault(zen4, _image(1 << bit), mask=1)
    assert (fault.rule.id, fault.vector, fault.error_code) == ("standard-xstate-bv", "#GP", 0)
    assert (fault.bit, fault.offset) == (bit, 512 + bit // 8)


@pytest.mark.parametrize("offset", range(8, 64))
def test_reserved_header_bytes_of_the_standard_form(zen4: Processor, offset: int) -> None:
    area = _image(0b111)
    area.data[512 + offset] = 1
    if offset < 24:  # recording: exactly bytes 8 to 23 fault
        fault = _fault(zen4, area)
        assert (fault.rule.id, fault.offset) == ("standard-header", 512 + offset)
    else:
        area.run(zen4, "xrstor64")


# Compacted form


def test_places_follow_xcomp_bv_and_not_rfbm(zen4: Processor) -> None:
    area = _image(0x84, COMPACTED | 0x84)
    area.data[576:832] = b"\x21" * 256
    area.data[832:1856] = b"\x22" * 1024
    area.run(zen4, "xrstor64", 0x80)
    assert zen4.sections[7] == b"\x22" * 1024
    assert not any(zen4.sections[2])


def test_a_component_without_a_place_is_initialised_if_asked_for(zen4: Processor) -> None:
    zen4.write("k1", 7)
    _image(0b10, COMPACTED | 0b10).run(zen4, "xrstor64", 0x20)
    assert zen4.read("k1") == bytes(8)


@pytest.mark.parametrize(
    ("mask", "xstate_bv", "mxcsr"), [(2, 2, 0x1FA0), (2, 0, 0x1F80), (4, 4, 0x1FC0), (6, 4, 0x1F80)]
)
def test_mxcsr_of_the_compacted_form_is_part_of_sse(zen4: Processor, mask: int, xstate_bv: int, mxcsr: int) -> None:
    zen4.mxcsr = 0x1FC0
    _image(xstate_bv, COMPACTED | 6).run(zen4, "xrstor64", mask)
    assert zen4.mxcsr == mxcsr


@pytest.mark.parametrize("offset", range(16, 64))
def test_every_reserved_header_byte_of_the_compacted_form_faults(zen4: Processor, offset: int) -> None:
    area = _image(0, COMPACTED | 7)
    area.data[512 + offset] = 0x80
    fault = _fault(zen4, area)
    assert (fault.rule.id, fault.offset) == ("compacted-header", 512 + offset)


@pytest.mark.parametrize(
    ("xstate_bv", "xcomp_bv", "rule", "bit"),
    [
        (0, COMPACTED | 1 << 11, "xcomp-bv", 11),
        (0, COMPACTED | 1 << 62, "xcomp-bv", 62),
        (1 << 5, COMPACTED | 7, "xstate-bv", 5),
        (1 << 63, COMPACTED | 7, "xstate-bv", 63),  # recording: faults although XCOMP_BV[63] is set
    ],
)
def test_damaged_masks_of_the_compacted_form(
    zen4: Processor, xstate_bv: int, xcomp_bv: int, rule: str, bit: int
) -> None:
    fault = _fault(zen4, _image(xstate_bv, xcomp_bv))
    assert (fault.rule.id, fault.bit) == (rule, bit)


def test_without_compaction_bit_63_faults(capabilities: dict[str, Capabilities]) -> None:
    p = Processor(capabilities["haswell"])
    p.xcr0 = 7
    assert _fault(p, _image(0, COMPACTED | 7)).rule.id == "compaction"


# MXCSR


@pytest.mark.parametrize("bit", [16, *range(18, 32)])
def test_reserved_bits_of_mxcsr_fault(zen4: Processor, bit: int) -> None:
    area = _image(0)
    area.put(24, 1 << bit, 4)
    fault = _fault(zen4, area, mask=0b10)
    assert (fault.rule.id, fault.bit, fault.offset) == ("mxcsr", bit, 24 + bit // 8)


def test_a_bad_mxcsr_that_is_not_loaded_does_not_fault(zen4: Processor) -> None:
    for xstate_bv, xcomp_bv, mask in ((0, 0, 1), (0, COMPACTED | 6, 6), (4, COMPACTED | 6, 6), (2, COMPACTED | 6, 4)):
        area = _image(xstate_bv, xcomp_bv)
        area.put(24, 0xFFFFFFFF, 4)
        area.run(zen4, "xrstor64", mask)


# XFD


def test_loading_what_xfd_disables_raises_nm_and_names_it(intel: Processor) -> None:
    intel.xfd = 1 << 18
    fault = _fault(intel, _image(1 << 18), mask=1 << 18)
    assert (fault.rule.id, fault.vector, fault.error_code, fault.bit) == ("xfd", "#NM", None, 18)
    assert intel.xfd_err == 1 << 18


def test_initialising_what_xfd_disables_does_not_fault(intel: Processor) -> None:
    intel.write("tmm3", b"\x11" * 1024)
    intel.xfd = 1 << 18
    _image(0).run(intel, "xrstor64", 1 << 18)
    assert not any(intel.sections[18])


# x87 (recordings: what FCW and FSW become)


@pytest.mark.parametrize(("image", "register"), [(0, 0x40), (0xFFFF, 0x1F7F), (0xE080, 0x40), (0x37F, 0x37F)])
def test_fcw_takes_the_bits_that_exist(zen4: Processor, image: int, register: int) -> None:
    area = _image(1)
    area.put(0, image, 2)
    area.run(zen4, "xrstor64", 1)
    assert zen4.read("fctrl") == register.to_bytes(2, "little")


@pytest.mark.parametrize(
    ("fcw", "image", "register"),
    [
        (0x37F, 0xFFFF, 0x7F7F),
        (0x37F, 0x8080, 0),
        (0x37E, 0x0001, 0x8081),
        (0x37E, 0x003F, 0x80BF),
        (0x37E, 0x8080, 0),
        (0x37E, 0x0040, 0x0040),
    ],
)
def test_pending_exceptions_follow_from_fsw_and_fcw(zen4: Processor, fcw: int, image: int, register: int) -> None:
    area = _image(1)
    area.put(0, fcw | image << 16, 4)
    area.run(zen4, "xrstor64", 1)
    assert zen4.read("fstat") == register.to_bytes(2, "little")


def test_pointers_are_sign_extended_from_their_highest_bit(zen4: Processor) -> None:
    area = _image(1)
    area.put(0, 0x37E | 1 << 16, 4)
    area.put(8, 0x1122334455667788)
    area.run(zen4, "xrstor64", 1)
    assert zen4.read("fioff") == 0xFF22334455667788.to_bytes(8, "little")


def test_reserved_bytes_of_the_registers_are_ignored(zen4: Processor) -> None:
    _image(1).run(zen4, "xrstor64", 1)
    assert zen4.legacy[32:48] == b"\x11" * 10 + bytes(6)
    assert zen4.legacy[5] == 0


# XRSTORS


@pytest.mark.parametrize(
    ("component", "offset", "value", "broken"),
    [
        (12, 0, 0b01, ("ssp-alignment", 0)),
        (12, 8, 0b10, ("ssp-alignment", 1)),
        (12, 16, 1 << 62, ("ssp-canonical", None)),
        (11, 8, 3, ("ssp-alignment", 0)),
        (11, 0, 1 << 7, ("cet-reserved", 7)),
        (11, 0, 0b11 << 10, ("cet-tracker", 11)),
        (11, 0, 1 << 62, ("cet-canonical", None)),
        (10, 0, 1 << 20, ("pasid-reserved", 20)),
        (14, 24, 1, ("uintr-reserved", 0)),
        (14, 40, 2, ("uintr-reserved", 1)),
        (14, 0, 1 << 62, ("uintr-canonical", None)),
        (15, 8, 7, ("lbr-depth", 0)),
        (8, 72, 1, ("reserved", None)),
    ],
)
def test_a_value_that_its_msr_does_not_accept_faults(
    intel: Processor, component: int, offset: int, value: int, broken: tuple[str, int | None]
) -> None:
    if not intel.xss >> component & 1:
        pytest.skip(f"component {component} is not in this CPU's IA32_XSS")
    area = _image(1 << component, COMPACTED | 1 << component, fill=0)
    if component == 15:
        area.put(576 + 8, 8)
    area.put(576 + offset, value)
    fault = _fault(intel, area, "xrstors64")
    assert fault.rule.id == broken[0]
    assert fault.offset is not None
    assert 576 + offset <= fault.offset < 576 + offset + 8
    assert broken[1] is None or fault.bit == broken[1]


def test_a_value_ending_in_4_is_aligned_enough_for_a_shadow_stack_pointer(zen4: Processor) -> None:
    area = _image(1 << 12, COMPACTED | 1 << 12, fill=0)
    area.put(576, 0x1004)
    area.run(zen4, "xrstors64")
    assert zen4.read("pl0_ssp") == 0x1004.to_bytes(8, "little")


def test_a_bad_value_that_is_not_loaded_does_not_fault(zen4: Processor) -> None:
    area = _image(0, COMPACTED | 1 << 12)
    area.run(zen4, "xrstors64")
    area = _image(1 << 12, COMPACTED | 1 << 12)
    area.run(zen4, "xrstors64", 1)


def test_restoring_without_xstate_bv_12_zeroes_the_supervisor_stack_pointers(zen4: Processor) -> None:
    for name in ("pl0_ssp", "pl1_ssp", "pl2_ssp"):
        zen4.write(name, 0x1000)
    _image(0b11, COMPACTED | 0b11, fill=0).run(zen4, "xrstors64")  # Bochs 3.1: also without XCOMP_BV[12]
    assert not any(zen4.sections[12])


def test_xrstors_wants_the_compacted_format(zen4: Processor) -> None:
    fault = _fault(zen4, _image(0b111), "xrstors64")
    assert (fault.rule.id, fault.bit, fault.offset) == ("xcomp-bv-format", 63, 527)
    assert "set XCOMP_BV" in str(fault)


def test_tracing_must_be_off(intel: Processor) -> None:
    if not intel.xss >> 8 & 1:
        pytest.skip("this CPU has no PT in IA32_XSS")
    intel.write("rtit_ctl", 1)
    assert _fault(intel, _image(0, COMPACTED), "xrstors64", 1 << 8).rule.id == "pt-enabled"


def test_uinv_must_be_0(intel: Processor) -> None:
    intel.write("uintr_misc", 0xEC << 32)
    assert _fault(intel, _image(0, COMPACTED), "xrstors64", 1 << 14).rule.id == "uinv"


def test_uif_may_be_set_in_the_image(intel: Processor) -> None:
    area = _image(1 << 14, COMPACTED | 1 << 14, fill=0)
    area.put(576 + 16, 1 << 63)
    area.run(intel, "xrstors64")
    assert intel.sections[14][23] == 0x80


def test_another_lbr_depth_leaves_the_entries_0_and_xinuse_alone(intel: Processor) -> None:
    intel.write("lbr_depth", 16)
    area = _image(1 << 15, COMPACTED | 1 << 15, fill=0)
    area.put(576, 0b11)
    area.put(576 + 8, 8)
    area.put(576 + 40, 0x1234)
    area.run(intel, "xrstors64", 1 << 15)
    assert intel.read("lbr_ctl") == (0b11).to_bytes(8, "little")
    assert intel.read("lbr_depth") == (16).to_bytes(8, "little")
    assert not any(intel.sections[15][40:])
    assert not intel.used >> 15 & 1


def test_the_current_depth_is_always_legal(intel: Processor) -> None:
    intel.sections[15][8:16] = (24).to_bytes(8, "little")
    area = _image(1 << 15, COMPACTED | 1 << 15, fill=0)
    area.put(576 + 8, 24)
    area.run(intel, "xrstors64", 1 << 15)


def test_writing_the_depth_does_not_put_lbr_to_use(intel: Processor) -> None:
    intel.write("lbr_depth", 16)
    assert not intel.xinuse(intel.enabled) >> 15 & 1


def test_initialising_lbr_keeps_the_depth(intel: Processor) -> None:
    for name, value in (("lbr_depth", 16), ("lbr_ctl", 1)):
        intel.write(name, value)
    _image(0, COMPACTED).run(intel, "xrstors64", 1 << 15)
    assert intel.read("lbr_depth") == (16).to_bytes(8, "little")
    assert intel.read("lbr_ctl") == bytes(8)


def test_an_unsupported_tile_configuration_initialises_tilecfg(intel: Processor) -> None:
    intel.write("tilecfg", b"\x01" + bytes(63))
    area = _image(1 << 17)
    area.run(intel, "xrstor64", 1 << 17)
    assert not any(intel.sections[17])


def test_hwp_is_initialised_to_its_reset_value() -> None:
    p = Processor(by_name("arrow-lake"))
    if not p.caps.supervisor >> 16 & 1:
        pytest.skip("this CPU has no HWP in IA32_XSS")
    p.xcr0, p.xss = 3, 1 << 16
    p.write("hwp_request", 0x1234)
    _image(0, COMPACTED).run(p, "xrstors64", 1 << 16)
    assert p.read("hwp_request") == 0x8000FF01.to_bytes(8, "little")


# Tracking


def test_sticky_xinuse_counts_what_was_loaded_though_it_is_initial(intel: Processor) -> None:
    _image(0b100, fill=0).run(intel, "xrstor64", 0b100)
    assert intel.xinuse(ALL & intel.xcr0) & 0b100


def test_a_zen4_looks_at_what_xrstor_loads(zen4: Processor) -> None:
    _image(0b100, fill=0).run(zen4, "xrstor64", 0b100)
    assert not zen4.xinuse(zen4.xcr0) & 0b100  # recording: XRSTOR(bv=e7, init-valued data) then XSAVEC bv=0


def test_a_zen4_counts_zeros_that_were_written(zen4: Processor) -> None:
    zen4.write("k1", 0)
    assert zen4.xinuse(zen4.xcr0) & 0x20


def test_registers_8_and_up_keep_their_values_outside_64_bit_mode(zen4: Processor) -> None:
    for i in (7, 8, 20):
        zen4.write(f"zmm{i}", b"\x55" * 64)
    zen4.mode = 32
    _image(0).run(zen4, "xrstor", 0xE7)
    assert zen4.read("zmm7") == bytes(64)
    assert zen4.read("zmm8") == zen4.read("zmm20") == b"\x55" * 64


def test_initial_bytes_are_those_of_the_register_table(exact: Processor) -> None:
    for bit, section in exact.sections.items():
        if bit > 1:
            section[:] = b"\xff" * len(section)
    exact.sections[14][20] = 0
    exact.sections[8][0] = 0
    _image(0, COMPACTED).run(exact, "xrstors64")
    for bit, section in exact.sections.items():
        if bit > 1 and (exact.xcr0 | exact.xss) >> bit & 1 and bit != 15:
            assert section == regs.initial(bit, len(section)), bit


def test_sticky_xinuse_keeps_what_a_restore_outside_64_bit_mode_did_not_reach(intel: Processor) -> None:
    for register in ("xmm9", "zmm20", "ymm9"):
        intel.write(register, b"\x11" * {"x": 16, "y": 32, "z": 64}[register[0]])
    intel.mode = 32
    _image(0).run(intel, "xrstor")
    intel.mode = 64
    area = Area()
    area.run(intel, "xsavec64")
    assert area.xstate_bv == 0b10000110


def test_padding_of_a_component_is_not_a_register(capabilities: dict[str, Capabilities]) -> None:
    p = Processor(capabilities["skylake"])
    p.xcr0 = 0x1F
    _image(1 << 4, fill=0xFF).run(p, "xrstor64", 1 << 4)
    assert p.sections[4] == b"\xff" * 16 + bytes(48)  # BNDCFGU and BNDSTATUS: SDM 13.5.4


def test_an_enabled_component_that_cpuid_does_not_describe_does_not_crash(zen4: Processor) -> None:
    zen4.xcr0 |= 1 << 17
    _image(0).run(zen4, "xrstor64")
