"""Layouts against numbers that real CPUs report, and against the rules of SDM 13.4."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate import cpu as cpus
from fpstate.cpu.conclude import conclude
from fpstate.cpu.dump import Dump
from fpstate.cpu.model import Cpu
from fpstate.errors import CannotTell, UsageError
from fpstate.layout import Layout, compacted, difference, hidden_by_alignment, layouts, standard
from fpstate.xfeatures import COMPACTED, bits, mask_of

NAMES = ["sapphire-rapids", "genoa", "zen2", "skylake-server", "panther-lake", "bulldozer", "diamond-rapids"]


@pytest.mark.parametrize(
    ("name", "mask", "size"),
    # CPUID(0DH,1).EBX of public dumps, with the XCR0 and IA32_XSS they were taken under
    [
        ("alder-lake", 0x7 | 0x900, 0x3D0),
        ("tiger-lake", 0xE7 | 0x900, 0xA10),
        ("panther-lake", 0x207 | 0x9800, 0x698),
        ("sapphire-rapids", 0x602E7 | 0x100, 0x2A80),
        ("genoa", 0xE7 | 0x1800, 0x9A8),
        ("milan", 0x7 | 0x800, 0x350),
        ("skylake-x", 0xFF | 0x100, 0xA80),
    ],
)
def test_a_compacted_size_is_what_the_cpu_itself_reports(name: str, mask: int, size: int) -> None:
    assert compacted(cpus.by_name(name), mask).size == size


@pytest.mark.parametrize(
    ("name", "mask", "size"),
    # CPUID(0DH,0).ECX of public dumps
    [
        ("sapphire-rapids", 0x602E7, 0x2B00),
        ("genoa", 0x2E7, 0x988),
        ("milan", 0x207, 0x988),
        ("zen2", 0x207, 0x380),
        ("skylake-server", 0x2FF, 0xA88),
        ("sandy-bridge", 0x7, 0x340),
        ("bulldozer", 1 << 62 | 7, 0x3C0),
    ],
)
def test_a_standard_size_is_what_the_cpu_itself_reports(name: str, mask: int, size: int) -> None:
    assert standard(cpus.by_name(name), mask).size == size


def test_amd_places_avx512_where_intel_has_a_hole() -> None:
    intel, amd = standard(cpus.by_name("sapphire-rapids"), 0xE7), standard(cpus.by_name("genoa"), 0xE7)
    assert [(s.bit, s.offset) for s in intel.slots if s.bit > 2] == [(5, 1088), (6, 1152), (7, 1664)]
    assert [(s.bit, s.offset) for s in amd.slots if s.bit > 2] == [(5, 832), (6, 896), (7, 1408)]


def test_apx_lies_below_the_components_before_it() -> None:
    layout = standard(cpus.by_name("diamond-rapids"), 1 << 19 | 0xE7)
    assert [s.bit for s in layout.slots] == [0, 1, 2, 19, 5, 6, 7]
    assert layout.size == 2688, "the end of the highest place, not of the highest bit"


def test_xtilecfg_starts_on_64_bytes_and_what_that_costs_is_a_hole() -> None:
    layout = compacted(cpus.by_name("sapphire-rapids"), 0x61EE7)
    slot = layout.slot(17)
    assert slot is not None
    assert (slot.offset, slot.padding) == (2496, 8)
    assert [(h.offset, h.size, h.why) for h in layout.holes] == [(2488, 8, "alignment of XTILECFG to 64 bytes")]
    assert layout.size == 10752


def test_a_hole_names_the_components_that_own_it() -> None:
    layout = standard(cpus.by_name("skylake-server"), 0xE7)
    assert [(h.offset, h.size, h.why) for h in layout.holes] == [
        (832, 256, "place of BNDREGS, BNDCSR"),
    ]


def test_the_sum_that_makes_a_size_is_printed_in_order() -> None:
    assert compacted(cpus.by_name("genoa"), 0x1807).explain() == (
        "872 = 576 legacy region and header + 256 AVX + 16 CET_U + 24 CET_S"
    )


def test_supervisor_components_have_no_place_in_standard_format() -> None:
    assert [s.bit for s in standard(cpus.by_name("genoa"), 0x1807).slots] == [0, 1, 2]


def test_the_difference_of_two_layouts_is_a_sum_of_terms() -> None:
    cpu = cpus.by_name("sapphire-rapids")
    with_it, without = compacted(cpu, 0x21EE7), compacted(cpu, 0x20EE7)
    terms = {term.what: term.size for term in difference(without, with_it)}
    assert terms == {"CET_S": 24, "alignment of XTILECFG to 64 bytes": -24}


def test_alignment_hides_cet_s_below_amx_and_not_without_it() -> None:
    assert hidden_by_alignment(cpus.by_name("sapphire-rapids"), 0x20EE7, 12) == 24
    assert hidden_by_alignment(cpus.by_name("genoa"), 0x8E7, 12) == 0


@pytest.mark.parametrize("mask", [0xE0, 0x27, 0xE3, 0x08, 0x63])
def test_a_mask_that_xsetbv_would_refuse_is_refused(mask: int) -> None:
    with pytest.raises(UsageError, match="is impossible: "):
        layouts(cpus.by_name("skylake-server"), mask)


def test_linuxs_own_default_mask_with_xtilecfg_alone_is_a_layout() -> None:
    assert layouts(cpus.by_name("sapphire-rapids"), 0x20EE7)[1].size == 2560


def test_what_a_faulty_cpu_enumerates_is_shown_though_xsetbv_would_refuse_it() -> None:
    leaves = {(0xD, 0): (0xC7, 2432, 2432, 0), (0xD, 2): (256, 576, 0, 0)}
    leaves |= {(0xD, 6): (512, 896, 0, 0), (0xD, 7): (1024, 1408, 0, 0), (0xD, 1): (0xF, 2368, 0, 0)}
    cpu = conclude(Dump(format="test", leaves=leaves), name="x", source="x")
    assert layouts(cpu)[1].mask == 0xC7
    with pytest.raises(UsageError, match="is impossible: "):
        layouts(cpu, 0xC7)


def test_a_component_that_the_cpu_lacks_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"^zen2 does not enumerate CET_U\|CET_S \(mask 0x1800\); it enumerates "):
        layouts(cpus.by_name("zen2"), 0x1807)


def test_the_format_flag_is_no_component() -> None:
    with pytest.raises(UsageError, match="bit 63 is the format flag"):
        layouts(cpus.by_name("genoa"), COMPACTED | 7)


def masks(cpu: Cpu) -> st.SearchStrategy[int]:
    return st.sets(st.sampled_from(list(bits(cpu.mask)))).map(mask_of)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_terms_add_up_and_nothing_overlaps(name: str, data: st.DataObject) -> None:
    cpu = cpus.by_name(name)
    mask = data.draw(masks(cpu))
    for layout in (standard(cpu, mask), compacted(cpu, mask)):
        assert_sound(layout)


def assert_sound(layout: Layout) -> None:
    assert sum(term.size for term in layout.terms()) == layout.size
    extended = [slot for slot in layout.slots if slot.bit > 1]
    end = 576
    for slot in extended:
        assert slot.offset >= end, "slots ascend and do not overlap"
        end = slot.end
    assert layout.size == end


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_compacted_image_orders_by_number_and_aligns_as_cpuid_says(name: str, data: st.DataObject) -> None:
    cpu = cpus.by_name(name)
    layout = compacted(cpu, data.draw(masks(cpu)))
    extended = [slot for slot in layout.slots if slot.bit > 1]
    assert [slot.bit for slot in extended] == sorted(slot.bit for slot in extended)
    for slot in extended:
        if cpu.components[slot.bit].aligned:
            assert slot.offset % 64 == 0
        else:
            assert slot.padding == 0


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_adding_a_component_never_shrinks_a_size_and_always_grows_the_compacted_one(
    name: str, data: st.DataObject
) -> None:
    # Xen checks the same of real CPUs at boot (xstate_check_sizes).
    cpu = cpus.by_name(name)
    mask = data.draw(masks(cpu))
    bit = data.draw(st.sampled_from([b for b in bits(cpu.mask) if b > 1]))
    small, large = mask & ~(1 << bit), mask | 1 << bit
    assert standard(cpu, large).size >= standard(cpu, small).size
    grown = compacted(cpu, large).size - compacted(cpu, small).size
    assert grown >= 0
    assert grown > 0 or any(cpu.components[b].aligned for b in bits(mask & ~3) if b > bit)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_difference_adds_up(name: str, data: st.DataObject) -> None:
    cpu = cpus.by_name(name)
    first, second = compacted(cpu, data.draw(masks(cpu))), compacted(cpu, data.draw(masks(cpu)))
    assert sum(term.size for term in difference(first, second)) == second.size - first.size


def test_a_boot_log_without_standard_offsets_cannot_tell_them() -> None:
    log = (
        b"x86/fpu: xstate_offset[9]:  576, xstate_sizes[9]:    8\n"
        b"x86/fpu: Enabled xstate features 0x203, context size is 584 bytes, using 'compacted' format.\n"
    )
    cpu = cpus.load("-", stdin=BytesIO(log))
    first, second = layouts(cpu, 0x203)
    assert isinstance(first, CannotTell)
    assert second.size == 584
