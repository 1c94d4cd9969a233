"""XGETBV, XSETBV, RDMSR, WRMSR: SDM volume 1, 13.2, 13.3 and 13.14; runs of Bochs 3.1 and a Zen 4 where named."""

from __future__ import annotations

import pytest

from fpstate.cpu import by_name
from fpstate.isa import Capabilities, Fault, Processor, rdmsr, wrmsr, xgetbv, xsetbv
from fpstate.isa import profile as profiles


def _rule(act: object, *arguments: object) -> str:
    assert callable(act)
    with pytest.raises(Fault) as caught:
        act(*arguments)
    return caught.value.rule.id


@pytest.mark.parametrize("value", [1, 3, 7, 0xE7, 0x60007])
def test_legal_values_of_xcr0(intel: Processor, value: int) -> None:
    xsetbv(intel, 0, value)
    assert intel.xcr0 == value


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (0, "xcr0-x87"),
        (2, "xcr0-x87"),
        (5, "xcr0-avx"),
        (0x27, "xcr0-avx512"),
        (0xC7, "xcr0-avx512"),
        (0xE3, "xcr0-avx512"),
        (0x20007, "xcr0-xtile"),
        (0x40007, "xcr0-xtile"),
        (1 << 63 | 7, "xcr0-unsupported"),
        (1 << 11 | 7, "xcr0-unsupported"),
    ],
)
def test_illegal_values_of_xcr0(intel: Processor, value: int, rule: str) -> None:
    assert _rule(xsetbv, intel, 0, value) == rule
    assert intel.xcr0 == intel.caps.user


def test_one_half_of_mpx_is_illegal(capabilities: dict[str, Capabilities]) -> None:
    assert _rule(xsetbv, Processor(capabilities["skylake"]), 0, 0xF) == "xcr0-mpx"


def test_switching_a_component_off_keeps_its_registers(zen4: Processor) -> None:
    zen4.write("ymm1", b"\x11" * 32)
    xsetbv(zen4, 0, 3)
    assert zen4.read("ymm1") == b"\x11" * 32


def test_xsetbv_needs_cpl_0_and_ecx_0(zen4: Processor) -> None:
    assert _rule(xsetbv, zen4, 1, 3) == "xcr-index"
    zen4.cpl = 3
    assert _rule(xsetbv, zen4, 1, 0) == "cpl"
    xsetbv_high = 1 << 32  # RCX[63:32] is ignored
    zen4.cpl = 0
    xsetbv(zen4, xsetbv_high, 3)


def test_xgetbv_1_tells_what_is_in_use(zen4: Processor) -> None:
    assert xgetbv(zen4, 1) == 0
    zen4.write("k3", 1)
    assert xgetbv(zen4, 1) == 0x20
    zen4.mxcsr = 0x1FA0
    assert xgetbv(zen4, 1) == 0x22


@pytest.mark.parametrize("ecx", [2, 3])
def test_xgetbv_knows_two_registers(zen4: Processor, ecx: int) -> None:
    assert _rule(xgetbv, zen4, ecx) == "xcr-index"  # recording: XGETBV(2), XGETBV(3)


def test_without_osxsave_there_is_neither(zen4: Processor) -> None:
    zen4.osxsave = False
    assert _rule(xgetbv, zen4, 0) == _rule(xsetbv, zen4, 0, 1) == "osxsave"


@pytest.mark.parametrize("value", [0x800, 0x1000, 0x1800])
def test_xss_has_no_pair_rule(zen4: Processor, value: int) -> None:
    wrmsr(zen4, 0xDA0, value)
    assert rdmsr(zen4, 0xDA0) == value


@pytest.mark.parametrize("bit", [0, 9, 10, 63])
def test_bits_that_xss_has_not(zen4: Processor, bit: int) -> None:
    assert _rule(wrmsr, zen4, 0xDA0, 1 << bit) == "xss-unsupported"


def test_xss_needs_xsaves(capabilities: dict[str, Capabilities]) -> None:
    assert _rule(rdmsr, Processor(capabilities["haswell"]), 0xDA0) == "msr"


@pytest.mark.parametrize("msr", [0x1C4, 0x1C5])
def test_xfd_has_the_bits_that_sub_leaves_allow(intel: Processor, msr: int) -> None:
    wrmsr(intel, msr, 1 << 18)
    assert rdmsr(intel, msr) == 1 << 18
    assert _rule(wrmsr, intel, msr, 1 << 17) == "xfd-unsupported"


def test_a_zen4_has_no_xfd(zen4: Processor) -> None:
    assert _rule(wrmsr, zen4, 0x1C4, 0) == "msr"


@pytest.mark.parametrize(("msr", "name"), [(0x6A0, "u_cet"), (0x6A4, "pl0_ssp"), (0x6A7, "pl3_ssp")])
def test_cet_msrs_are_the_registers_of_their_components(zen4: Processor, msr: int, name: str) -> None:
    wrmsr(zen4, msr, 0)
    zen4.write(name, 0x10 if name != "u_cet" else 1)
    assert rdmsr(zen4, msr) == int.from_bytes(zen4.read(name), "little")


def test_s_cet_and_the_table_address_are_in_no_component(intel: Processor) -> None:
    before = {bit: bytes(section) for bit, section in intel.sections.items()}
    wrmsr(intel, 0x6A2, 1)
    wrmsr(intel, 0x6A8, 1)  # Bochs 3.1: canonical is all that is asked
    assert (rdmsr(intel, 0x6A2), rdmsr(intel, 0x6A8)) == (1, 1)
    assert {bit: bytes(section) for bit, section in intel.sections.items()} == before


@pytest.mark.parametrize(
    ("msr", "value", "rule"),
    [
        (0x6A4, 1, "ssp-alignment"),
        (0x6A7, 1 << 63, "ssp-canonical"),
        (0x6A2, 1 << 6, "cet-reserved"),
        (0x6A0, 0xC00, "cet-tracker"),
        (0x6A8, 1 << 62, "ssp-canonical"),
    ],
)
def test_values_that_cet_msrs_refuse(intel: Processor, msr: int, value: int, rule: str) -> None:
    assert _rule(wrmsr, intel, msr, value) == rule


def test_bits_of_indirect_branch_tracking_are_reserved_without_it(zen4: Processor) -> None:
    assert not zen4.caps.has("IBT")
    assert _rule(wrmsr, zen4, 0x6A0, 1 << 2) == "cet-reserved"


def test_rdmsr_hides_uif(intel: Processor) -> None:
    intel.write("uintr_misc", 1 << 63 | 5)
    assert rdmsr(intel, 0x988) == 5
    wrmsr(intel, 0x988, 6)
    assert intel.read("uintr_misc") == (1 << 63 | 6).to_bytes(8, "little")
    assert _rule(wrmsr, intel, 0x988, 1 << 63) == "uintr-reserved"


def test_an_msr_without_extended_state_is_unknown(zen4: Processor) -> None:
    assert _rule(rdmsr, zen4, 0x10) == "msr"


def test_msrs_need_cpl_0(zen4: Processor) -> None:
    zen4.cpl = 3
    assert _rule(rdmsr, zen4, 0xDA0) == _rule(wrmsr, zen4, 0xDA0, 0) == "cpl"


# Profiles


def test_a_cpu_gets_the_profile_of_its_vendor_and_model(capabilities: dict[str, Capabilities]) -> None:
    assert profiles.of_cpu(capabilities["zen4"].cpu).name == "zen4"
    assert profiles.of_cpu(capabilities["sapphire-rapids"].cpu).name == "intel"
    assert profiles.of_cpu(by_name("excavator")).name == "amd"


def test_every_profile_names_its_unconfirmed_keys() -> None:
    for profile in profiles.shipped().values():
        assert set(profile.unconfirmed) <= set(profile.__slots__)
        assert profile.source


@pytest.mark.parametrize(
    ("msr", "value", "rule"),
    [
        (0x570, 1 << 18, "pt-reserved"),
        (0x560, 1, "pt-reserved"),
        (0x571, 1 << 3, "pt-reserved"),
        (0x14CE, 1 << 4, "lbr-reserved"),
        (0x14CF, 24, "lbr-depth"),
    ],
)
def test_reserved_bits_of_other_msrs(intel: Processor, msr: int, value: int, rule: str) -> None:
    assert _rule(wrmsr, intel, msr, value) == rule


def test_tracing_msrs_are_locked_while_tracing(intel: Processor) -> None:
    wrmsr(intel, 0x570, 0x2005)
    assert _rule(wrmsr, intel, 0x560, 0) == "pt-enabled"
    wrmsr(intel, 0x570, 0x2004)
    wrmsr(intel, 0x560, 0)


@pytest.mark.parametrize(
    ("cpu", "zero"), [("haswell", True), ("sapphire-rapids", True), ("ivy-bridge", False), ("zen4", False)]
)
def test_selectors_are_deprecated_where_the_cpu_says_so(cpu: str, zero: bool) -> None:
    assert Capabilities(by_name(cpu)).no_fcs_fds is zero


@pytest.mark.parametrize(("cpu", "profile"), [("zen", "zen"), ("zen5", "zen"), ("genoa", "zen4"), ("jaguar", "amd")])
def test_profiles_of_amd(cpu: str, profile: str) -> None:
    assert profiles.of_cpu(by_name(cpu)).name == profile


def test_writing_the_lbr_depth_resets_the_entries(intel: Processor) -> None:
    intel.write("lbr_0_from_ip", 0x1234)
    intel.write("lbr_ctl", 1)
    wrmsr(intel, 0x14CF, 16)
    assert not any(intel.sections[15][40:])
    assert rdmsr(intel, 0x14CE) == 1
