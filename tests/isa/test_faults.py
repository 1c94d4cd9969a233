"""What is checked before the image, and in which order: SDM volume 1, 13.7 to 13.13; volume 2, each instruction."""

from __future__ import annotations

import pytest

from area import ADDRESS, Area
from fpstate.errors import UsageError
from fpstate.isa import AREA_INSTRUCTIONS, Capabilities, Fault, Memory, Processor, execute
from fpstate.isa.memory import PAGE, Access
from fpstate.isa.rules import RULES, Rule

PAGE_0 = ADDRESS // PAGE


def _fault(p: Processor, op: str, *, address: int = ADDRESS, pages: dict[int, Access] | None = None) -> Fault:
    memory = Memory(bytearray(3 * PAGE), ADDRESS, pages)
    with pytest.raises(Fault) as caught:
        execute(p, op, memory, address, 0xE7)
    return caught.value


@pytest.mark.parametrize("op", ["xsaveopt", "xsavec", "xsaves", "xrstors"])
def test_an_instruction_that_cpuid_does_not_enumerate(capabilities: dict[str, Capabilities], op: str) -> None:
    p = Processor(capabilities["haswell"])
    p.ts, p.cpl = True, 3
    if op == "xsaveopt":
        assert _fault(p, op).rule.id == "ts"  # Haswell has it
    else:
        fault = _fault(p, op)
        assert (fault.rule.id, fault.vector, fault.error_code) == ("cpuid", "#UD", None)


@pytest.mark.parametrize("op", AREA_INSTRUCTIONS)
def test_order_of_the_first_checks(zen4: Processor, op: str) -> None:
    fx = op.startswith("fx")
    order = []
    zen4.osxsave, zen4.ts, zen4.cpl = False, True, 3
    address = 1 << 62 | 8
    for rule, cure in (("osxsave", True), ("ts", False), ("cpl", 0)):
        if _fault(zen4, op, address=address).rule.id == rule:
            order.append(rule)
        setattr(zen4, rule, cure)
    order.append(_fault(zen4, op, address=address).rule.id)
    order.append(_fault(zen4, op, address=ADDRESS + 3 * PAGE + 8).rule.id)
    order.append(_fault(zen4, op, address=ADDRESS + 3 * PAGE).rule.id)
    page = "page-read" if "rstor" in op else "page-write"
    expected = ["osxsave", "ts", "cpl", "canonical", "alignment", page]
    if fx:
        expected.remove("osxsave")
    if "aves" not in op and "rstors" not in op:
        expected.remove("cpl")
    assert order == expected


def test_em_matters_to_fxsave_alone(zen4: Processor) -> None:
    zen4.em = True
    assert _fault(zen4, "fxsave").rule.id == "em"
    Area().run(zen4, "xsave")


@pytest.mark.parametrize("op", ["xsave", "xrstor", "xsavec"])
@pytest.mark.parametrize("offset", [1, 8, 16, 32, 63])
def test_areas_are_aligned_on_64(zen4: Processor, op: str, offset: int) -> None:
    assert _fault(zen4, op, address=ADDRESS + offset).rule.id == "alignment"


def test_fxsave_areas_are_aligned_on_16(zen4: Processor) -> None:
    assert _fault(zen4, "fxsave", address=ADDRESS + 8).rule.id == "alignment"
    Area().run(zen4, "fxsave", at=16)


@pytest.mark.parametrize(
    ("op", "offset", "vector"),
    [("fxsave", 1, "#AC"), ("fxsave", 2, "#AC"), ("fxsave", 4, "#GP"), ("fxsave", 8, "#GP"), ("xsave", 1, "#GP")],
)
def test_alignment_checking_on_a_zen4(zen4: Processor, op: str, offset: int, vector: str) -> None:
    zen4.cpl, zen4.am, zen4.ac = 3, True, True
    assert _fault(zen4, op, address=ADDRESS + offset).vector == vector  # recording: AC=1 misalign


def test_a_missing_last_page_faults_at_the_last_byte(zen4: Processor) -> None:
    # recording: XSAVE rfbm=e7, room 640: faults at the last byte of the area, though nothing is in use
    fault = _fault(zen4, "xsaveopt", address=ADDRESS + PAGE - 640, pages={PAGE_0 + 1: "none"})
    assert (fault.rule.id, fault.vector) == ("page-write", "#PF")
    assert fault.address == ADDRESS + PAGE - 640 + 2432 - 1
    assert fault.error_code == 0b010


def test_a_read_only_page_faults_even_if_nothing_would_be_written(zen4: Processor) -> None:
    memory = Memory(bytearray(PAGE), ADDRESS, {PAGE_0: "r"})
    zen4.cpl = 3
    with pytest.raises(Fault) as caught:
        execute(zen4, "xsave", memory, ADDRESS, 0)  # recording: RO page: XSAVE rfbm=0
    assert caught.value.error_code == 0b111
    assert caught.value.address == ADDRESS


def test_compacted_xrstor_does_not_reach_for_absent_components(zen4: Processor) -> None:
    memory = Memory(bytearray(2 * PAGE), ADDRESS, {PAGE_0 + 1: "none"})
    memory.data[PAGE - 640 + 520 : PAGE - 640 + 528] = (1 << 63 | 0xE7).to_bytes(8, "little")
    execute(zen4, "xrstor", memory, ADDRESS + PAGE - 640, 0xE7)  # recording: XRSTOR comp(xcomp=e7) bv=0


def test_the_header_is_checked_before_the_last_page(zen4: Processor) -> None:
    memory = Memory(bytearray(2 * PAGE), ADDRESS, {PAGE_0 + 1: "none"})
    memory.data[PAGE - 640 + 512 + 16] = 1
    with pytest.raises(Fault) as caught:
        execute(zen4, "xrstor", memory, ADDRESS + PAGE - 640, 0xE7)
    assert caught.value.rule.id == "standard-header"  # recording: bad hdr + tail unmapped: #GP


def test_the_last_page_is_checked_before_mxcsr(zen4: Processor) -> None:
    memory = Memory(bytearray(2 * PAGE), ADDRESS, {PAGE_0 + 1: "none"})
    memory.data[PAGE - 640 + 24 : PAGE - 640 + 28] = b"\xff" * 4
    with pytest.raises(Fault) as caught:
        execute(zen4, "xrstor", memory, ADDRESS + PAGE - 640, 0xE7)
    assert caught.value.rule.id == "page-read"  # recording: bad mxcsr + tail unmapped: #PF


def test_rex_w_does_not_exist_outside_64_bit_mode(zen4: Processor) -> None:
    zen4.mode = 32
    with pytest.raises(UsageError, match="use xsave"):
        Area().run(zen4, "xsave64")


def test_a_fault_tells_rule_source_and_cure(zen4: Processor) -> None:
    text = str(_fault(zen4, "xsave", address=ADDRESS + 8))
    assert text.startswith("#GP: 0x10008 is not aligned on 64 bytes")
    assert "(alignment; SDM vol. 1, 13.7" in text
    assert text.endswith("round the address up")


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_every_rule_has_words_and_a_source(rule: Rule) -> None:
    assert rule.text
    assert rule.source
    assert rule.vector in {"#UD", "#NM", "#GP", "#AC", "#PF"}


def test_an_area_must_end_at_a_canonical_address(zen4: Processor) -> None:
    fault = _fault(zen4, "xsave64", address=0x7FFF_FFFF_FFC0)
    assert fault.rule.id == "canonical"


def test_an_area_outside_64_bit_mode_must_end_below_4_gib(zen4: Processor) -> None:
    zen4.mode = 32
    assert _fault(zen4, "xsave", address=(1 << 32) - 64).rule.id == "canonical"


def test_the_last_addresses_are_followed_by_0(zen4: Processor) -> None:
    fault = _fault(zen4, "xsave64", address=(1 << 64) - 64)
    assert fault.vector == "#PF"
    assert fault.address is not None
    assert fault.address < 1 << 64


def test_linear_addresses_are_as_wide_as_the_cpu_has_them(intel: Processor, zen4: Processor) -> None:
    assert (intel.caps.linear_bits, zen4.caps.linear_bits) == (57, 48)
    assert _fault(intel, "xsave64", address=0x8000_0000_0000).vector == "#PF"
    assert _fault(zen4, "xsave64", address=0x8000_0000_0000).rule.id == "canonical"
