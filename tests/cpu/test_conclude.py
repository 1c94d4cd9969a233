"""From leaves to a CPU: what is known, what is deduced, and what stays unknown."""

import pytest

from fpstate.cpu.conclude import conclude
from fpstate.cpu.dump import BootLog, Dump, Modifier, Registers
from fpstate.cpu.model import Cpu
from fpstate.errors import CannotTell

Subleaves = dict[int, tuple[int, int, int, int]]

# InstLatx64 GenuineIntel00A0671_RocketLake_CPUID4: sub-leaf 7 is printed as zeros.
ROCKET_LAKE: Subleaves = {
    0: (0xFF, 0xA80, 0xA80, 0),
    1: (0xF, 0xA00, 0, 0),
    2: (0x100, 0x240, 0, 0),
    3: (0x40, 0x3C0, 0, 0),
    4: (0x40, 0x400, 0, 0),
    5: (0x40, 0x440, 0, 0),
    6: (0x200, 0x480, 0, 0),
    7: (0, 0, 0, 0),
}


def cpu(subleaves: Subleaves, *, zeros_unread: bool = False, **others: Registers) -> Cpu:
    leaves = {(0xD, i): registers for i, registers in subleaves.items()}
    leaves |= {(int(k[1:], 16), 0): v for k, v in others.items()}
    return conclude(Dump(format="test", leaves=leaves, zeros_unread=zeros_unread), name="x", source="test")


def test_what_cpuid_shows_is_taken_as_it_is() -> None:
    component = cpu(ROCKET_LAKE).components[6]
    assert (component.size, component.offset, component.origin) == (0x200, 0x480, "cpuid")


def test_zeros_that_the_tool_did_not_read_are_deduced_from_the_total() -> None:
    found = cpu(ROCKET_LAKE, zeros_unread=True)
    component = found.components[7]
    assert (component.size, component.offset, component.origin) == (1024, 1664, "deduced")
    assert found.unread == 1 << 7
    assert found.guesses == ("component 7 (Hi16_ZMM): not in the input; 1024 bytes at 1664 as on Intel",)


def test_zeros_of_a_tool_that_reads_every_sub_leaf_are_the_cpus_own() -> None:
    found = cpu(ROCKET_LAKE)
    assert (found.components[7].size, found.components[7].origin, found.guesses) == (0, "cpuid", ())


@pytest.mark.parametrize(
    ("total", "size", "offset", "who"),
    # PKRU with mask 0x207 in its three layouts
    [
        (0xA88, 8, 2688, "Intel, Zhaoxin, Centaur"),
        (0x988, 8, 2432, "AMD Zen 3 and later"),
        (0x380, 64, 832, "AMD Zen 2"),
    ],
)
def test_a_missing_pkru_is_placed_by_the_total(total: int, size: int, offset: int, who: str) -> None:
    found = cpu({0: (0x207, 0x340, total, 0), 2: (0x100, 0x240, 0, 0)})
    component = found.components[9]
    assert (component.size, component.offset) == (size, offset)
    assert found.guesses[-1].endswith(f"as on {who}")


def test_a_dump_of_sub_leaf_0_alone_is_placed_by_one_family_of_layouts() -> None:
    # libcpuid intel-core-i9-9820x: basic_cpuid[13]=000000ff 00000a80 00000a80 00000000
    offsets = {bit: c.offset for bit, c in cpu({0: (0xFF, 0xA80, 0xA80, 0)}).components.items()}
    assert offsets == {2: 576, 3: 960, 4: 1024, 5: 1088, 6: 1152, 7: 1664}


def test_a_total_that_no_known_place_fits_leaves_the_offset_unknown() -> None:
    found = cpu({0: (0x207, 0x340, 0x5000, 0), 2: (0x100, 0x240, 0, 0)})
    assert found.components[9].offset is None
    with pytest.raises(CannotTell, match="standard-format offset of component 9 is not known"):
        found.standard_size(0x207)


def test_without_sub_leaf_1_the_supervisor_components_are_not_known() -> None:
    found = cpu({0: (7, 0x340, 0x340, 0), 2: (0x100, 0x240, 0, 0)})
    assert found.xss_mask is None
    assert found.guesses == ("supervisor components are not known: sub-leaf 1 is not in the input",)


def test_a_missing_supervisor_component_has_the_catalogues_size() -> None:
    found = cpu({0: (7, 0x340, 0x340, 0), 1: (0xF, 0x340, 0x1800, 0), 2: (0x100, 0x240, 0, 0)})
    assert {bit: (c.size, c.origin) for bit, c in found.components.items() if bit > 2} == {
        11: (16, "catalogue"),
        12: (24, "catalogue"),
    }


def test_high_components_come_from_edx() -> None:
    # Bulldozer: D.0 EDX bit 30 is component 62, LWP
    found = cpu({0: (7, 0x340, 0x3C0, 0x40000000), 2: (0x100, 0x240, 0, 0), 62: (0x80, 0x340, 0, 0)})
    assert found.xcr0_mask == 1 << 62 | 7
    assert found.components[62].offset == 0x340


def test_a_cpu_without_xsave_needs_no_leaf_0dh() -> None:
    nehalem = conclude(
        Dump(format="test", leaves={(0, 0): (11, 0, 0, 0), (1, 0): (0x106A3, 0, 0x80982201, 0x78BFBFD)}),
        name="nehalem",
        source="test",
    )
    assert not nehalem.has_xsave
    assert nehalem.mask == 0


def test_xsave_without_leaf_0dh_cannot_be_told() -> None:
    with pytest.raises(CannotTell, match="x shows no CPUID leaf 0DH"):
        cpu({}, l1=(0, 0, 1 << 26, 0))


def test_a_template_is_not_a_cpu() -> None:
    dump = Dump(format="firecracker", modifiers=(Modifier(0xD, 0, 0, 0xE0, 0),))
    with pytest.raises(CannotTell, match="it changes a CPU, it is not one; name the CPU"):
        conclude(dump, name="T2", source="test")


def test_a_boot_log_tells_the_enabled_components_and_says_that_there_may_be_more() -> None:
    # AMD EPYC 7713 under 6.17-rc
    log = BootLog(0x1A07, 880, compacted=True, components={2: (576, 256), 9: (832, 8), 11: (840, 16), 12: (856, 24)})
    found = conclude(Dump(format="log", boot_log=log), name="milan", source="dmesg")
    assert (found.xcr0_mask, found.xss_mask) == (0x207, 0x1800)
    assert found.compacted_size(0x1A07) == 880
    assert found.components[2].offset == 576, "AVX lies there on every CPU"
    assert found.components[9].offset is None
    assert "XSAVES" in found.flags
    assert found.notes[-1].startswith("a boot log shows only what the kernel enabled")


def test_a_standard_format_log_without_offsets_is_placed_by_its_size() -> None:
    # Xen: xstate: size: 0x440 and states: 0x1f
    found = conclude(Dump(format="log", boot_log=BootLog(0x1F, 0x440, compacted=False)), name="xen", source="log")
    assert found.standard_size(0x1F) == 0x440


@pytest.mark.parametrize(
    ("features", "components", "offset"),
    [
        (0x60EE7, {5: (832, 64), 17: (2496, 64)}, 1088),  # AMX is Intel's: so is the layout
        (0x1B, {3: (576, 64), 4: (640, 64)}, None),  # no opmask here
        (0xAE7, {5: (832, 64)}, None),  # Zen 4 or Tiger Lake
    ],
)
def test_a_compacted_log_gives_standard_offsets_only_where_one_layout_has_them(
    features: int, components: dict[int, tuple[int, int]], offset: int | None
) -> None:
    log = BootLog(features, 0, compacted=True, components=components)
    found = conclude(Dump(format="log", boot_log=log), name="log", source="dmesg")
    opmask = found.components.get(5)
    assert (opmask.offset if opmask else None) == offset
    if features == 0x1B:
        assert found.components[4].offset == 1024, "MPX lies at one place only"


@pytest.mark.parametrize(
    ("label", "opmask"),
    [("AMD EPYC", 832), ("Intel(R) Xeon(R) Platinum 8488C", 1088), ("QEMU Virtual CPU", None), (None, None)],
)
def test_the_vendor_in_a_boot_log_tells_where_components_lie(label: str | None, opmask: int | None) -> None:
    """Without the components' lines AVX-512 and PKRU fit both vendors; 'smpboot: CPU0: AMD EPYC' decides."""
    log = BootLog(0x2E7, 2440, compacted=True)
    cpu = conclude(Dump(format="boot-log", label=label, boot_log=log), name="x", source="x")
    assert cpu.components[5].offset == opmask
