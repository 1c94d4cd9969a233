"""What lint finds: each rule on a CPU with just that fault, and nothing on real CPUs."""

import pytest

from fpstate import cpu as cpus
from fpstate.cpu.conclude import conclude
from fpstate.cpu.dump import BootLog, Dump, Leaves, Registers
from fpstate.cpu.table import rows
from fpstate.linux.lint import Finding, Report, lint
from fpstate.linux.policy import find

SPR = cpus.by_name("sapphire-rapids")


def lint_leaves(
    changes: dict[tuple[int, int], Registers], *, base: Leaves = SPR.leaves, zeros_unread: bool = False
) -> Report:
    dump = Dump(format="test", leaves={**base, **changes}, zeros_unread=zeros_unread)
    cpu = conclude(dump, name="test", source="test")
    return lint(cpu, find("linux-6.18"))


def finding(rule: str, changes: dict[tuple[int, int], Registers], *, zeros_unread: bool = False) -> Finding:
    found = lint_leaves(changes, zeros_unread=zeros_unread).findings
    matching = [f for f in found if f.rule == rule]
    assert matching, f"no {rule} among {[f.rule for f in found]}"
    return matching[0]


def changed(subleaf: int, *, leaf: int = 0xD, **registers: int) -> dict[tuple[int, int], Registers]:
    """Return Sapphire Rapids' sub-leaf with some registers changed."""
    values = dict(zip(("eax", "ebx", "ecx", "edx"), SPR.leaves.get((leaf, subleaf), (0, 0, 0, 0)), strict=True))
    values |= registers
    return {(leaf, subleaf): (values["eax"], values["ebx"], values["ecx"], values["edx"])}


KNOWN_ODDITIES = {"centaur-cns", "qemu-tcg-max"}


@pytest.mark.parametrize("name", [row.name for row in rows() if row.name not in KNOWN_ODDITIES])
def test_a_real_cpu_is_clean(name: str) -> None:
    assert lint(cpus.by_name(name), find("linux-6.18")).findings == ()


def test_centaur_fills_in_sub_leaves_that_it_does_not_enumerate() -> None:
    found = lint(cpus.by_name("centaur-cns"), find("linux-6.18")).findings
    assert [(f.rule, f.leaf) for f in found] == [("not-enumerated", "0DH.11"), ("not-enumerated", "0DH.12")]


@pytest.mark.parametrize(
    ("rule", "changes", "leaf", "linux"),
    [
        ("max-leaf", changed(0, leaf=0, eax=0xB), "0:EAX", "drops XSAVE"),
        ("legacy-bits", changed(0, eax=0x602E5), "0DH.0:EAX", "FP/SSE not present amongst"),
        ("xcr0-avx512", changed(0, eax=0x60267), "0DH.0:EAX", "panics: general protection fault at XSETBV"),
        ("xcr0-xtile", changed(0, eax=0x202E7), "0DH.0:EAX", "panics: general protection fault at XSETBV"),
        ("both-masks", changed(1, ecx=0xDD00 | 4), "0DH.1:ECX", "accepts it without a word"),
        ("bit-63", changed(0, edx=1 << 31), "0DH.0:EDX", "accepts it without a word"),
        ("unknown-component", changed(0, eax=0x1602E7), "0DH.0:EAX", "ignores the bit"),
        ("standard-total", changed(0, ecx=0x2AFF), "0DH.0:ECX", "accepts it without a word"),
        ("standard-current", changed(0, ebx=0x2AFF), "0DH.0:EBX", "ptrace regset"),
        ("xsaves-without-xsavec", changed(1, eax=0x1D), "0DH.1:EAX", "accepts it without a word"),
        ("xss-without-xsaves", changed(1, eax=0x17), "0DH.1:ECX", "drops them"),
        ("compacted-current", changed(1, ebx=0x2A81), "0DH.1:EBX", "size 10752 != kernel_size 10881"),
        # that PKRU's 8 bytes are missing is hidden by the alignment of XTILECFG
        ("zero-size", changed(9, eax=0, ebx=0), "0DH.9:EAX", "struct is 8 bytes, cpu state 0 bytes', then goes on"),
        ("size", changed(2, eax=272), "0DH.2:EAX", "size 10816 != kernel_size 10752"),
        ("user-or-supervisor", changed(9, ecx=1), "0DH.9:ECX", "takes ECX[0]'s word"),
        ("supervisor-offset", changed(11, ebx=600), "0DH.11:EBX", "ignores it"),
        ("reserved", changed(11, edx=1), "0DH.11:ECX", "ignores them"),
        ("alignment", changed(18, ecx=4), "0DH.18:ECX", ""),
        ("xfd", changed(18, ecx=2), "0DH.18:ECX", "accepts it without a word"),
        ("offset", changed(5, ebx=512), "0DH.5:EBX", ""),
        ("offset-moved", changed(9, ebx=2696), "0DH.9:EBX", "accepts it without a word"),
        ("overlap", changed(6, ebx=1100), "0DH.6:EBX", ""),
        ("not-enumerated", {(0xD, 13): (8, 0, 1, 0)}, "0DH.13", "ignores the sub-leaf"),
        ("flag-without-component", changed(0, eax=0x600E7), "0DH.9", "leaves the flag set"),
        ("shstk-without-cet", changed(1, ecx=0xC500), "0DH.11", "the first user of one dies"),
        ("amx-without-xfd", changed(1, eax=0xF), "0DH.1:EAX", "panics: general protection fault at XSETBV"),
        ("wrong-mask", {**changed(0, eax=0x600E7), **changed(1, ecx=0xDF00)}, "0DH.9", "does not enumerate 0x200"),
        ("tile-palette", {(0x1D, 1): (0x04001000, 0x00080040, 16, 0)}, "1DH.1", "accepts it without a word"),
        ("tiles", {(0x1D, 1): (0x04001000, 0x00040040, 16, 0)}, "1DH", "calculated size is 4096 bytes"),
        ("tiles", changed(0, leaf=0x1D, eax=0), "1DH.0:EAX", "calculated size is 0 bytes, cpu state 8192 bytes"),
        ("lbr-size", {**changed(15, eax=816), (0x1C, 0): (0x4000000B, 7, 0, 0)}, "0DH.15:EAX", "uses MSRs"),
    ],
)
def test_a_fault_is_found_where_it_is_and_with_what_linux_does(
    rule: str, changes: dict[tuple[int, int], Registers], leaf: str, linux: str
) -> None:
    found = finding(rule, changes)
    assert found.leaf == leaf
    assert linux in found.linux
    assert found.message
    assert found.source


def test_a_size_without_alignment_says_so() -> None:
    # microsoft/openvmm issue 708: 10704 in place of 10752 for XCR0=0x600e7 with CET
    found = finding("compacted-current", {**changed(1, ebx=0x2A80 - 48)})
    assert "without the 64-byte alignment" in found.message


def test_a_host_size_that_leaks_into_a_guest_is_found() -> None:
    # cpuid -r of an AVX-only guest: EAX=7, ECX=0xa88, D.1: EAX=1, EBX=0xa08
    leaves = {(0xD, 0): (7, 0x340, 0xA88, 0), (0xD, 1): (1, 0xA08, 0, 0), (0xD, 2): (256, 576, 0, 0)}
    report = lint_leaves({}, base=leaves)
    assert [f.rule for f in report.findings] == ["standard-total", "compacted-without-xsavec"]


def test_zeros_that_were_not_read_are_not_laid_at_the_cpus_door() -> None:
    found = finding("zero-size", changed(7, eax=0, ebx=0), zeros_unread=True)
    assert "the tool that took this dump leaves sub-leaves out" in found.message
    assert found.linux.startswith("was not shown this")


def test_what_a_source_does_not_show_is_unknown_and_no_finding() -> None:
    leaves = {(0xD, 0): (0x207, 0x340, 0xA88, 0), (0xD, 1): (0xF, 0x340, 0, 0), (0xD, 2): (256, 576, 0, 0)}
    report = lint_leaves({}, base=leaves)
    assert report.findings == ()
    assert report.unknown == ("sub-leaf 9 (PKRU)",)
    assert report.notes[-1].startswith("leaves 1 and 7 are not all in the source")


def test_a_boot_log_can_be_judged_only_by_its_own_sum() -> None:
    log = BootLog(0x1A07, 880, compacted=True, components={2: (576, 256), 9: (832, 8), 11: (840, 16), 12: (856, 24)})
    good = conclude(Dump(format="log", boot_log=log), name="log", source="test")
    bad = conclude(Dump(format="log", boot_log=log._replace(context_size=888)), name="log", source="test")
    assert lint(good, find("linux-6.18")).findings == ()
    assert lint(good, find("linux-6.18")).unknown
    assert [f.rule for f in lint(bad, find("linux-6.18")).findings] == ["log-total"]


def test_a_component_without_its_flag_is_a_note_for_zen_2_is_real() -> None:
    report = lint(cpus.by_name("zen2"), find("linux-6.18"))
    assert report.notes[0] == "PKRU is enumerated, but the CPU has no PKU: Linux drops the component"


def test_what_the_kernel_itself_said_is_a_finding() -> None:
    dump = Dump(format="test", leaves=SPR.leaves, complaints=("XSAVE consistency problem: size 8 != kernel_size 9",))
    found = lint(conclude(dump, name="paste", source="test"), find("linux-6.18")).findings
    assert [(f.rule, f.leaf, f.linux) for f in found] == [("kernel-complaint", "0DH", "gave up XSAVE")]


def test_when_linux_fails_and_no_rule_says_why_that_is_a_finding() -> None:
    # AVX is cleared in leaf 1, AVX-512 is left in leaf 7: XSETBV of 0x602e3
    eax, ebx, ecx, edx = SPR.leaves[1, 0]
    found = lint_leaves({(1, 0): (eax, ebx, ecx & ~(1 << 28), edx)}).findings
    assert [f.rule for f in found] == ["linux-fails"]
    assert "XSETBV of 0x602e3" in found[0].linux


def test_palettes_are_judged_by_the_largest() -> None:
    more = {(0x1D, 0): (2, 0, 0, 0), (0x1D, 2): (0x04001000, 0x00040040, 16, 0)}
    assert lint_leaves(more).findings == ()


def test_without_xsavec_a_wrong_current_size_is_what_linux_gives_up_on() -> None:
    found = lint_leaves({(0xD, 0): (7, 900, 832, 0)}, base=cpus.by_name("haswell").leaves).findings
    assert [f.rule for f in found] == ["standard-current"]
    assert "size 832 != kernel_size 900" in found[0].linux


def test_sub_leaves_of_supervisor_components_are_not_judged_without_sub_leaf_1() -> None:
    leaves = {key: registers for key, registers in SPR.leaves.items() if key != (0xD, 1)}
    assert lint_leaves({}, base=leaves).findings == ()


def test_the_kernels_warning_is_quoted_in_the_policys_own_words() -> None:
    leaves = {**SPR.leaves, (0xD, 12): (32, 0, 1, 0)}
    cpu = conclude(Dump(format="test", leaves=leaves), name="test", source="test")
    (found,) = [f for f in lint(cpu, find("cet-v8")).findings if f.rule == "size"]
    assert "[Control-flow Kernel registers]: struct is 24 bytes, cpu state 32 bytes" in found.linux


def test_a_boot_log_with_pkru_is_not_said_to_lack_its_flag() -> None:
    dump = Dump(format="boot-log", boot_log=BootLog(0x207, 840, compacted=True))
    report = lint(conclude(dump, name="x", source="x"), find("linux-6.18"))
    assert not [note for note in report.notes if "drops the component" in note]
