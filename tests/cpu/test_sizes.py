"""Explaining the sizes a dump shows, and predicting those that an operating system will read."""

import pytest

from fpstate.cpu.conclude import conclude
from fpstate.cpu.dump import Dump
from fpstate.cpu.model import Cpu
from fpstate.cpu.sizes import compacted_rule, explain_compacted, explain_standard, standard_rule

# CPUID leaf 0DH of a Sapphire Rapids model with CET_U, CET_S and UINTR (bochsx_spr_amx)
SPR = {
    2: (256, 576, 0, 0),
    5: (64, 1088, 0, 0),
    6: (512, 1152, 0, 0),
    7: (1024, 1664, 0, 0),
    9: (8, 2688, 0, 0),
    11: (16, 0, 1, 0),
    12: (24, 0, 1, 0),
    14: (48, 0, 1, 0),
    17: (64, 2752, 2, 0),
    18: (8192, 2816, 6, 0),
}
EVERYTHING = 0x602E7 | 0x5800


def spr(ebx0: int, ebx1: int, *, xcr0: int | None = None, xss: int | None = None, size2: int = 256) -> Cpu:
    leaves = {(0xD, i): r for i, r in SPR.items()}
    leaves[0xD, 2] = (size2, 576, 0, 0)
    leaves[0xD, 0] = (0x602E7, ebx0, 11008, 0)
    leaves[0xD, 1] = (0x1F, ebx1, 0x5800, 0)
    return conclude(Dump(format="test", leaves=leaves, xcr0=xcr0, xss=xss), name="spr", source="test")


@pytest.mark.parametrize(
    ("ebx0", "ebx1", "xcr0", "xss"),
    [
        (11008, 10816, 0x602E7, 0x5800),  # everything on: 2432 + 8 + 16 + 24 + 48, up to 2560, + 64 + 8192
        (576, 576, 1, 0),  # at reset
        (832, 848, 7, 0x800),  # Windows without AVX-512
    ],
)
def test_a_recorded_size_is_explained_by_the_registers_it_was_taken_under(
    ebx0: int, ebx1: int, xcr0: int, xss: int
) -> None:
    cpu = spr(ebx0, ebx1)
    compacted = explain_compacted(cpu)
    assert (explain_standard(cpu).rule, compacted.rule) == ("sum", "sum")
    assert (compacted.xcr0, compacted.xss) == (xcr0, xss)


def test_whatever_it_was_recorded_under_a_sum_is_predicted_for_other_registers() -> None:
    for cpu in (spr(576, 576), spr(11008, 10816), spr(832, 848)):
        assert compacted_rule(cpu)(0x602E7 | 0x1800) == 10752
        assert standard_rule(cpu)(0x602E7) == 11008


def test_a_size_that_ignores_alignment_is_recognised_and_predicted() -> None:
    # Bochs: 10784 for everything; Linux then read 10736 (bochsx_spr_amx_d1bug)
    cpu = spr(11008, 10784, xcr0=0x602E7, xss=0x5800)
    assert explain_compacted(cpu).rule == "no alignment"
    assert compacted_rule(cpu)(0x602E7 | 0x1800) == 10736


def test_a_size_that_ignores_a_sub_leaf_is_recognised_and_predicted() -> None:
    # sub-leaf 2 changed to 272 bytes, the sum left alone (neg_tgl_d2size)
    cpu = spr(11008, 10816, xcr0=0x602E7, xss=0x5800, size2=272)
    assert explain_compacted(cpu).rule == "architectural", "the plain sum is the same here, thanks to alignment"
    assert compacted_rule(cpu)(7) == 832


def test_a_size_that_nothing_explains_is_taken_to_stay() -> None:
    cpu = spr(11008, 12345)
    assert explain_compacted(cpu).rule == "fixed"
    assert compacted_rule(cpu)(7) == 12345


def test_a_standard_size_that_no_legal_xcr0_gives_is_taken_to_stay() -> None:
    cpu = spr(5000, 10816)
    assert explain_standard(cpu).rule == "fixed"
    assert standard_rule(cpu)(7) == 5000


def test_the_state_a_source_states_is_believed() -> None:
    cpu = spr(11008, 576, xcr0=0x602E7, xss=0)
    assert explain_compacted(cpu).rule == "fixed", "576 cannot be the size of everything"


def test_without_xsavec_the_number_means_nothing() -> None:
    # QEMU 7.2 TCG: EAX=5, EBX=0x3c8
    leaves = {(0xD, 0): (7, 832, 832, 0), (0xD, 1): (5, 0x3C8, 0, 0), (0xD, 2): (256, 576, 0, 0)}
    cpu = conclude(Dump(format="test", leaves=leaves), name="tcg", source="test")
    assert explain_compacted(cpu).rule == "unknown"


def test_a_size_that_a_linux_printed_is_not_explained_by_what_no_linux_enables() -> None:
    # 10880 is the sum with PT: no Linux puts it into IA32_XSS, so a kernel that read 10880 read a wrong number
    leaves = {(0xD, i): r for i, r in SPR.items()} | {(0xD, 8): (128, 0, 1, 0)}
    leaves[0xD, 0] = (0x602E7, 11008, 11008, 0)
    leaves[0xD, 1] = (0x1F, 10880, 0x100, 0)
    anyone = Dump(format="test", leaves=leaves)
    linux = Dump(format="test", leaves=leaves, os_linux=True)
    assert explain_compacted(conclude(anyone, name="x", source="test")).rule == "sum"
    assert explain_compacted(conclude(linux, name="x", source="test")).rule == "fixed"


def test_the_search_for_a_made_up_size_ends() -> None:
    """Twelve user and twelve supervisor components that all fit: 16 million states, of which none gives the size."""
    user, supervisor = range(20, 32), range(32, 44)
    leaves = {(0xD, 0): (3 | sum(1 << b for b in user), 576, 576, 0), (0xD, 1): (0xF, 12345, 0, 0xFFF)}
    leaves |= {(0xD, b): (0, 576, 0, 0) for b in user} | {(0xD, b): (3, 0, 1, 0) for b in supervisor}
    explanation = explain_compacted(conclude(Dump(format="test", leaves=leaves), name="x", source="x"))
    assert (explanation.rule, explanation.contradicts) == ("fixed", True)
