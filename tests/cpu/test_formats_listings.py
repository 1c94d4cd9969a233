"""Formats that list CPUID records in lines: InstLatx64, libcpuid, cpuid -r, kcpuid, Linux's own dump, libvirt."""

from __future__ import annotations

import textwrap

import pytest

from fpstate.cpu.dump import Dump
from fpstate.cpu.formats import read
from fpstate.errors import UnreadableInput


def parse(text: str) -> list[Dump]:
    return read(textwrap.dedent(text).encode())


def one(text: str) -> Dump:
    dumps = parse(text)
    assert len(dumps) == 1
    return dumps[0]


def leaf_d(dump: Dump) -> dict[int, tuple[int, int, int, int]]:
    return {subleaf: values for (leaf, subleaf), values in dump.leaves.items() if leaf == 0xD}


# An excerpt of what InstLatx64 has as GenuineIntel00806F8_SapphireRapids_05_CPUID.
SAPPHIRE_RAPIDS = """\
------[ CPUID Registers / Logical CPU #0 ]------

allcpu: Package 0 / Core 0 / Thread 0: Valid

CPUID 00000000: 00000020-756E6547-6C65746E-49656E69 [GenuineIntel]
CPUID 00000001: 000806F8-00800800-7FFEFBFF-BFEBFBFF
CPUID 0000000C: 00000000-00000000-00000000-00000000
CPUID 0000000D: 000602E7-00002B00-00002B00-00000000 [SL 00] [x87]
CPUID 0000000D: 0000001F-00002A80-0000DD00-00000000 [SL 01] [SSE]
CPUID 0000000D: 00000008-00000000-00000001-00000000 [SL 0A]
CPUID 0000000D: 00000040-00000AC0-00000002-00000000 [SL 11]
CPUID 0000000D: 00002000-00000B00-00000006-00000000 [SL 12]
CPUID 80000000: 80000008-00000000-00000000-00000000
CPUID 80000006: 00000000-00000000-08007040-00000000 [L2: 2048 KB] / L3: 0 KB]

L1    Data Cache:    48 KB, 12-way Associative, 64-byte Line

------[ MSR Registers / Logical CPU #0 ]------

MSR 0000001B: 0000-0000-FEE0-0C00
MSR 00000061: < FAILED >
"""


def test_subleaf_numbers_of_instlatx64_are_hex() -> None:
    assert leaf_d(one(SAPPHIRE_RAPIDS)) == {
        0: (0x602E7, 0x2B00, 0x2B00, 0),
        1: (0x1F, 0x2A80, 0xDD00, 0),
        10: (8, 0, 1, 0),
        17: (0x40, 0xAC0, 2, 0),
        18: (0x2000, 0xB00, 6, 0),
    }


def test_instlatx64_prints_zeros_for_what_it_did_not_read() -> None:
    dump = one(SAPPHIRE_RAPIDS)
    assert (dump.format, dump.zeros_unread) == ("instlatx64", True)
    assert (dump.xcr0, dump.xss, dump.os_linux) == (None, None, False)


@pytest.mark.parametrize(
    "headers",
    [
        ("CPUID Registers (CPU #0):", "CPUID Registers (CPU #1 Virtual):"),
        ("------[ Logical CPU #0 ]------", "------[ Logical CPU #1 ]------"),
        ("------[ CPUID Registers / Logical CPU #0 ]------", "------[ CPUID Registers / Logical CPU #1 ]------"),
        ("CPU#000 AffMask: 0x0000000000000001", "CPU#001 AffMask: 0x0000000000000002"),
        ("_________________ Logical CPU #0 _________________", "_________________ Logical CPU #1 _________________"),
    ],
)
def test_a_header_begins_a_logical_cpu_and_names_it(headers: tuple[str, str]) -> None:
    row = "CPUID 0000000B: 00000001-00000002-00000100-0000000{} [SL 00]\n"
    dumps = parse(f"{headers[0]}\n{row.format(0)}{headers[1]}\n{row.format(1)}")
    assert [(dump.index, dump.label) for dump in dumps] == [(0, "CPU #0"), (1, "CPU #1")]
    assert [dump.leaves[0xB, 0][3] for dump in dumps] == [0, 1]


def test_without_headers_leaf_0_begins_a_logical_cpu() -> None:
    # InstLatx64: AuthenticAMD0870F10_K17_Matisse_CPUID2.txt has blank lines and nothing else between its CPUs.
    dumps = parse("""
        CPUID 00000000: 00000010-68747541-444D4163-69746E65
        CPUID 0000000D: 00000207-00000340-00000380-00000000

        CPUID 00000000: 00000010-68747541-444D4163-69746E65
        CPUID 0000000D: 00000207-00000340-00000380-00000000
        """)
    assert [(dump.index, dump.label, len(dump.leaves)) for dump in dumps] == [(0, None, 2), (1, None, 2)]


def test_without_leaf_0_the_first_record_coming_again_begins_a_logical_cpu() -> None:
    dumps = parse("""
        CPUID 0000000D: 00000007-00000340-00000340-00000000 [SL 00]
        CPUID 0000000D: 0000000F-00000340-00000000-00000000 [SL 01]
        CPUID 0000000D: 00000007-00000340-00000340-00000000 [SL 00]
        CPUID 0000000D: 00000001-00000000-00000000-00000000 [SL 01]
        """)
    assert [dump.leaves[0xD, 1][0] for dump in dumps] == [0xF, 1]


def test_an_aida64_report_pads_with_blanks_in_place_of_the_colon() -> None:
    dump = one("""
        CPUID Registers (CPU #0):
          CPUID Manufacturer                                GenuineIntel
          CPUID Revision                                    000306C3h
          CPUID 0000000D                                    00000007-00000340-00000340-00000000 [SL 00]
          CPUID 0000000D                                    00000001-00000000-00000000-00000000 [SL 01]
          CPUID 0000000D                                    00000100-00000240-00000000-00000000 [SL 02]
        """)
    assert leaf_d(dump) == {0: (7, 0x340, 0x340, 0), 1: (1, 0, 0, 0), 2: (0x100, 0x240, 0, 0)}


def test_records_with_the_subleaf_after_the_leaf_are_read() -> None:
    dump = one("""
        CPUID 0000000d:00 = 00000207 00000340 00000988 00000000 | ....@...........
        CPUID 0000000d:01 = 0000000f 00000340 00001800 00000000 | ....@...........
        """)
    assert leaf_d(dump) == {0: (0x207, 0x340, 0x988, 0), 1: (0xF, 0x340, 0x1800, 0)}


def test_records_within_a_string_literal_are_read() -> None:
    dump = one(
        r'"CPUID 00000001: 00000001-00000002-00000003-00000004   \nCPUID 0000000D: 00000007-00000340-00000340-00000000"'
    )
    assert dump.leaves == {(1, 0): (1, 2, 3, 4), (0xD, 0): (7, 0x340, 0x340, 0)}


def test_unnumbered_rows_of_other_leaves_are_subleaves_in_order() -> None:
    # As InstLatx64 prints AuthenticAMD0870F10_K17_Matisse_CPUID2.
    dump = one("""
        CPUID 8000001D: 00004121-01C0003F-0000003F-00000000
        CPUID 8000001D: 00004122-01C0003F-0000003F-00000000
        CPUID 8000001D: 00004143-01C0003F-000003FF-00000002
        """)
    assert [subleaf for _, subleaf in dump.leaves] == [0, 1, 2]


@pytest.mark.parametrize(
    ("rows", "subleaves", "source"),
    [
        (["00000007-00000340-000003C0-40000000", "00000100-00000240-00000000-00000000"], [0, 2], "Bulldozer: no 1"),
        (["00000007-00000240-00000340-00000000", "00000100-00000240-00000000-00000000"], [0, 2], "Sandy Bridge: no 1"),
        (
            [
                "00000007-00000340-000003C0-40000000",
                "00000001-00000000-00000000-00000000",
                "00000100-00000240-00000000-00000000",
                "00000080-00000340-00000000-00000000",
            ],
            [0, 1, 2, 62],
            "BaldEagle: LWP is component 62",
        ),
        (["00000007-00000340-00000340-00000000", "00000001-00000000-00000000-00000000"], [0, 1], "Kabini: no 2"),
        (
            [
                "00000207-00000340-00000380-00000000",
                "0000000F-00000340-00000000-00000000",
                "00000100-00000240-00000000-00000000",
            ],
            [0, 1, 2],
            "Matisse: 9 is missing",
        ),
        (
            ["0000001B-00000440-00000440-00000000", "0000000F-000002C0-00000100-00000000"],
            [0, 1],
            "Whiskey Lake: no 3, 4",
        ),
        (
            [
                "000002E7-00000A80-00000A88-00000000",
                "0000000F-00000A00-00002100-00000000",
                "00000100-00000240-00000000-00000000",
                "00000040-00000440-00000000-00000000",
                "00000200-00000480-00000000-00000000",
                "00000400-00000680-00000000-00000000",
                "00000080-00000000-00000001-00000000",
                "00000008-00000A80-00000000-00000000",
                "00000008-00000000-00000001-00000000",
            ],
            [0, 1, 2, 5, 6, 7, 8, 9, 13],
            "Ice Lake: PT and HDC are supervisor",
        ),
        (
            [
                "00000207-00000340-00000988-00000000",
                "0000000F-00000350-00001800-00000000",
                "00000008-00000980-00000000-00000000",
                "00000018-00000000-00000001-00000000",
            ],
            [0, 1, 9, 12],
            "made up: AVX and CET_U left out",
        ),
        (
            ["00000203-00000A88-00000A88-00000000", "00000008-00000A80-00000000-00000000"],
            [0, 9],
            "made up: PKRU is not 1",
        ),
        (
            [
                "00000207-00000340-00000380-00000000",
                "0000000F-00000340-00000000-00000000",
                "00000100-00000240-00000000-00000000",
                *["00000000-00000000-00000000-00000000"] * 6,
                "00000040-00000340-00000000-00000000",
            ],
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
            "made up: absent sub-leaves are printed too",
        ),
        (["00000003-00000240-00000240-00000000", "00000000-00000000-00000000-00000000"], [0, 1], "made up: 1 is zeros"),
        (["00000007-00000340-00000340-00000000", "00000123-00000777-00000000-00000000"], [0, 2], "made up: odd place"),
        (
            [
                "00100007-00000380-00000380-00000000",
                "0000000F-00000380-00000000-00000000",
                "00000100-00000240-00000000-00000000",
                "00000040-00000340-00000000-00000000",
            ],
            [0, 1, 2, 20],
            "made up: a component that nobody knows",
        ),
        (
            [
                "000000E7-00000A80-00000A80-00000000",
                "0000000F-00000980-00000000-00000000",
                "00000100-00000240-00000000-00000000",
                "00000000-00000000-00000000-00000000",
                "00000200-00000480-00000000-00000000",
            ],
            [0, 1, 2, 5, 6],
            "made up: 5 is unread",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_unnumbered_rows_of_leaf_0xd_are_told_by_their_content(
    rows: list[str], subleaves: list[int], source: str
) -> None:
    del source
    dump = one("".join(f"CPUID 0000000D: {row}\n" for row in rows))
    assert list(leaf_d(dump)) == subleaves
    guess = subleaves != list(range(len(subleaves)))
    assert [note for note in dump.guesses if "sub-leaf numbers" in note] == (
        [f"the rows of leaf 0xd carry no sub-leaf numbers: read as {', '.join(map(str, subleaves))}, by their content"]
        if guess
        else []
    )


def test_more_than_64_unnumbered_rows_of_leaf_0xd_are_cut_off() -> None:
    dump = one("CPUID 0000000D: 00000007-00000340-00000340-00000000\n" * 100)
    assert max(leaf_d(dump)) <= 63


def test_leaves_above_the_highest_basic_leaf_are_echoes() -> None:
    # libcpuid: intel-core-i9-9820x-cpu.test (excerpt): 22 is the highest leaf, 23 and 24 repeat it.
    dump = one("""
        basic_cpuid[0]=00000016 756e6547 6c65746e 49656e69
        basic_cpuid[13]=000000ff 00000a80 00000a80 00000000
        basic_cpuid[22]=00000ce4 00001068 00000064 00000000
        basic_cpuid[23]=00000ce4 00001068 00000064 00000000
        basic_cpuid[24]=00000ce4 00001068 00000064 00000000
        ext_cpuid[0]=80000008 00000000 00000000 00000000
        ext_cpuid[8]=0000302e 00000000 00000000 00000000
        ext_cpuid[9]=00000ce4 00001068 00000064 00000000
        """)
    assert [leaf for leaf, _ in dump.leaves] == [0, 0xD, 0x16, 0x8000_0000, 0x8000_0008]
    assert dump.notes == (
        "dropped 2 leaves above 0x16, the highest basic leaf that the CPU states",
        "dropped 1 leaves above 0x80000008, the highest extended leaf that the CPU states",
    )


def test_an_echoed_leaf_0xd_of_a_small_cpu_is_no_leaf_0xd() -> None:
    # libcpuid: qemu-virtual-cpu-version.test (excerpt): the highest leaf is 4.
    dump = one("""
        basic_cpuid[0]=00000004 756e6547 6c65746e 49656e69
        basic_cpuid[4]=00000121 01c0003f 0000003f 00000001
        basic_cpuid[13]=00000121 01c0003f 0000003f 00000001
        """)
    assert leaf_d(dump) == {}


def test_leaves_outside_the_counted_ranges_are_kept() -> None:
    dump = one("""
        CPUID 00000000: 00000001-68747541-444D4163-69746E65
        CPUID 40000000: 40000001-4B4D564B-564B4D56-0000004D
        CPUID 80000000: 80000000-68747541-444D4163-69746E65
        CPUID 8FFFFFFF: 20544920-54495320-48414D4D-00000000
        """)
    assert [leaf for leaf, _ in dump.leaves] == [0, 0x4000_0000, 0x8000_0000, 0x8FFF_FFFF]


def test_libcpuid_arrays_hold_subleaf_0_and_a_few_lists() -> None:
    dump = one("""
        basic_cpuid[4]=3c004121 01c0003f 0000003f 00000000
        basic_cpuid[13]=000000ff 00000a80 00000a80 00000000
        ext_cpuid[1]=00000000 00000000 00000121 2c100800
        intel_fn4[0]=3c004121 01c0003f 0000003f 00000000
        intel_fn4[1]=3c004122 01c0003f 0000003f 00000000
        intel_fn11[1]=00000005 00000014 00000201 00000010
        intel_fn14h[1]=02490002 003f003f 00000000 00000000
        amd_fn8000001dh[3]=0002c163 03c0003f 00007fff 00000001
        """)
    assert list(dump.leaves) == [
        (4, 0),
        (4, 1),
        (0xD, 0),
        (0x8000_0001, 0),
        (0xB, 1),
        (0x14, 1),
        (0x8000_001D, 3),
    ]
    assert (dump.format, dump.zeros_unread) == ("libcpuid", True)


def test_libcpuid_rows_of_all_ones_hold_no_data() -> None:
    dump = one("""
        basic_cpuid[1]=000306c3 00100800 fffaf38b bfcbfbff
        basic_cpuid[13]=ffffffff ffffffff ffffffff ffffffff
        """)
    assert list(dump.leaves) == [(1, 0)]


def test_the_decode_that_libcpuid_expects_is_ignored() -> None:
    dump = one("""
        basic_cpuid[0]=00000016 756e6547 6c65746e 49656e69
        basic_cpuid[13]=000000ff 00000a80 00000a80 00000000
        --------------------------------------------------------------------------------
        x86
        general
        6
        128 (non-authoritative)
        Core i9 (Skylake-X)
        fpu vme de pse xsave osxsave avx
        """)
    assert list(dump.leaves) == [(0, 0), (0xD, 0)]


def test_cpuid_r_names_its_cpus() -> None:
    row = "   0x0000000d 0x01: eax=0x0000000f ebx=0x00000998 ecx=0x00003900 edx=0x00000000\n"
    assert [dump.label for dump in parse(f"CPU 0:\n{row}CPU 1:\n{row}")] == ["CPU #0", "CPU #1"]
    assert [dump.label for dump in parse(f"CPU:\n{row}")] == ["CPU"]
    assert one(row).leaves == {(0xD, 1): (0xF, 0x998, 0x3900, 0)}


def test_subleaves_of_cpuid_r_are_hex() -> None:
    dump = one("   0x0000000d 0x12: eax=0x00002000 ebx=0x00000b00 ecx=0x00000006 edx=0x00000000")
    assert dump.leaves == {(0xD, 18): (0x2000, 0xB00, 6, 0)}
    assert (dump.format, dump.zeros_unread) == ("cpuid-r", False)


def test_subleaves_of_kcpuid_are_decimal() -> None:
    dump = one("""
        0x00000006: EAX=0x00000077, EBX=0x00000002, ECX=0x00000009, EDX=0x00000000
        0x0000000d: subleafs:
          0: EAX=0x000602e7, EBX=0x00002b00, ECX=0x00002b00, EDX=0x00000000
          9: EAX=0x00000008, EBX=0x00000a80, ECX=0x00000000, EDX=0x00000000
         17: EAX=0x00000040, EBX=0x00000ac0, ECX=0x00000002, EDX=0x00000000
        0x00000015: EAX=0x00000002, EBX=0x000000d8, ECX=0x016e3600, EDX=0x00000000
        """)
    assert list(dump.leaves) == [(6, 0), (0xD, 0), (0xD, 9), (0xD, 17), (0x15, 0)]


def test_x86info_lines_are_read() -> None:
    dump = one("eax in: 0x0000000d, eax = 000002e7 ebx = 00000a88 ecx = 00000a88 edx = 00000000")
    assert dump.leaves == {(0xD, 0): (0x2E7, 0xA88, 0xA88, 0)}


def test_subleaves_of_the_linux_dump_are_hex_and_the_kernel_had_set_xcr0() -> None:
    dump = one("""
        [    0.123456] XFEATURE_XTILE_DATA: calculated size is 0 bytes, cpu state 8192 bytes
        [    0.123456] CPUID[0d, 00]: eax=000600e7 ebx=00002b00 ecx=00002b00 edx=00000000
        [    0.123456] CPUID[0d, 11]: eax=00000040 ebx=00000ac0 ecx=00000002 edx=00000000
        """)
    assert dump.leaves == {(0xD, 0): (0x600E7, 0x2B00, 0x2B00, 0), (0xD, 17): (0x40, 0xAC0, 2, 0)}
    assert (dump.format, dump.os_linux, dump.boot_log) == ("linux-dump", True, None)
    assert dump.complaints == ("XFEATURE_XTILE_DATA: calculated size is 0 bytes, cpu state 8192 bytes",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("XFEATURE_XTILE_DATA: calculated size is\n> 0 bytes, cpu state 8192 bytes",
         "XFEATURE_XTILE_DATA: calculated size is 0 bytes, cpu state 8192 bytes"),
        ("XFEATURE_XTILE_DATA: calculated size is 0\n> bytes, cpu state 8192 bytes",
         "XFEATURE_XTILE_DATA: calculated size is 0 bytes, cpu state 8192 bytes"),
        ("XSAVE consistency problem: size\n> 10752 != kernel_size 10704",
         "XSAVE consistency problem: size 10752 != kernel_size 10704"),
        ("XSAVE consistency problem, dumping leaves", "XSAVE consistency problem, dumping leaves"),
    ],
)  # fmt: skip
def test_a_complaint_survives_quoting_and_wrapping(text: str, complaint: str) -> None:
    dump = one(f"> Sep 25 kernel: {text}\n> kernel: CPUID[0d, 00]: eax=00000007 ebx=00000340 ecx=00000340 edx=00000000")
    assert dump.complaints == (complaint,)


def test_a_linux_dump_carries_the_boot_lines_around_it() -> None:
    dump = one("""
        CPUID[0d, 00]: eax=00000007 ebx=00000340 ecx=00000340 edx=00000000
        x86/fpu: Supporting XSAVE feature 0x004: 'AVX registers'
        x86/fpu: xstate_offset[2]:  576, xstate_sizes[2]:  256
        x86/fpu: Enabled xstate features 0x7, context size is 832 bytes, using 'standard' format.
        """)
    assert dump.boot_log is not None
    assert (dump.boot_log.features, dump.boot_log.components) == (7, {2: (576, 256)})


def test_each_dump_of_a_log_of_two_boots_gets_its_own_boot_lines() -> None:
    boot = """
        CPUID[0d, 00]: eax=0000000{0} ebx=00000340 ecx=00000340 edx=00000000
        x86/fpu: Enabled xstate features 0x{0}, context size is 832 bytes, using 'standard' format.
        """
    dumps = parse(boot.format(7) + boot.format(3))
    assert [dump.boot_log.features for dump in dumps if dump.boot_log] == [7, 3]


def test_boot_lines_that_belong_to_no_dump_are_left_aside_with_a_note() -> None:
    dump = one("""
        x86/fpu: Enabled xstate features 0x7, context size is 832 bytes, using 'standard' format.
        x86/fpu: Enabled xstate features 0x3, context size is 576 bytes, using 'standard' format.
        CPUID[0d, 00]: eax=00000007 ebx=00000340 ecx=00000340 edx=00000000
        """)
    assert dump.boot_log is None
    assert dump.notes == ("2 boots and 1 CPUs in one input: the boot lines are left aside",)


def test_libvirt_elements_need_no_root() -> None:
    # libvirt: tests/cputestdata/x86_64-cpuid-Xeon-Platinum-9242.xml (excerpt)
    dump = one("""
          <cpuid eax_in='0x0000000d' ecx_in='0x00' eax='0x000002ff' ebx='0x00000a88' ecx='0x00000a88' edx='0x00000000'/>
          <cpuid eax_in="0x0000000d" ecx_in="0x01" eax="0x0000000f" ebx="0x00000a08"
                 ecx="0x00000100" edx="0x00000000"/>
          <msr index='0x10a' edx='0x00000000' eax='0x000000ab'/>
        """)
    assert leaf_d(dump) == {0: (0x2FF, 0xA88, 0xA88, 0), 1: (0xF, 0xA08, 0x100, 0)}


def test_libvirt_labels_a_cpu_by_the_comment_before_it() -> None:
    cpu = "<cpudata arch='x86'>\n<cpuid eax_in='0x1' ecx_in='0x0' eax='0x1' ebx='0x2' ecx='0x3' edx='0x4'/></cpudata>\n"
    cpu = cpu.replace(
        "'0x1' ebx='0x2' ecx='0x3' edx='0x4'", "'0x00000001' ebx='0x00000002' ecx='0x00000003' edx='0x00000004'"
    )
    dumps = parse(f"<!-- Intel(R) Xeon(R) -->\n{cpu}<!--\n  AMD EPYC\n-->\n{cpu}{cpu}")
    assert [dump.label for dump in dumps] == ["Intel(R) Xeon(R)", "AMD EPYC", None]


def test_libvirt_elements_of_old_have_a_function_and_no_subleaf() -> None:
    dump = one("<cpuid function='0x00000001' eax='0x00000001' ebx='0x00000002' ecx='0x00000003' edx='0x00000004'/>")
    assert dump.leaves == {(1, 0): (1, 2, 3, 4)}


def test_libvirt_features_are_no_cpu() -> None:
    with pytest.raises(UnreadableInput, match="no CPUID leaves"):
        parse("<feature name='fma'><cpuid eax_in='0x01' ecx='0x00001000'/></feature>")


def test_libvirt_data_of_another_architecture_is_refused() -> None:
    with pytest.raises(UnreadableInput, match=r"^libvirt cputestdata of ppc64 has no CPUID leaves$"):
        parse("<cpudata arch='ppc64'><pvr value='0x004e1200'/></cpudata>")


def test_a_document_type_is_never_looked_at() -> None:
    dump = one("""
        <!DOCTYPE cpudata [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>
        <cpudata arch='x86'>
          <cpuid eax_in='0x00000001' ecx_in='0x00' eax='0x00000001' ebx='0x00000002' ecx='0x00000003' edx='0x00000004'/>
        </cpudata>
        """)
    assert dump.leaves == {(1, 0): (1, 2, 3, 4)}


def test_a_record_that_comes_again_with_other_values_is_noted() -> None:
    dump = one("""
        CPUID 00000001: 00000001-00000000-00000000-00000000
        CPUID 0000000D: 00000007-00000340-00000340-00000000 [SL 00]
        CPUID 0000000D: 0000000F-00000340-00000000-00000000 [SL 01]
        CPUID 0000000D: 00000001-00000340-00000000-00000000 [SL 01]
        """)
    assert dump.leaves[0xD, 1][0] == 0xF
    assert dump.guesses == ("leaf 0xd sub-leaf 0x1: there twice with other values, the first is taken",)


def test_more_cpus_than_any_machine_has_are_refused() -> None:
    with pytest.raises(UnreadableInput, match=r"^more than 8192 logical CPUs in one input$"):
        parse("CPUID 00000000: 00000010-68747541-444D4163-69746E65\n" * 8193)
