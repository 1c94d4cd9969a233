"""Every real input is read, and says what its CPU said."""

from __future__ import annotations

import gzip
import json
import lzma
import pathlib

import pytest
import zstandard

import cpuid_text
from corpus import corpus_files
from fpstate.cpu.dump import Dump
from fpstate.cpu.formats import open_source, read
from fpstate.xfeatures import bits

Registers = tuple[int, int, int, int]

CPUS = corpus_files(
    "cpuid/instlatx64/*.gz",
    "cpuid/libcpuid/*.gz",
    "cpuid/firecracker/fingerprint_*.json",
    "cpuid/samples/*",
    "cpuid/leaf_d_settings.json",
    "realkernel/*.json",
)
TEMPLATES = corpus_files("cpuid/firecracker/[!f]*.json")
LISTINGS = corpus_files("cpuid/instlatx64/*.gz", "cpuid/libcpuid/*.gz", "cpuid/samples/*")


def leaf_d(dump: Dump) -> dict[int, Registers]:
    return {subleaf: values for (leaf, subleaf), values in dump.leaves.items() if leaf == 0xD}


@pytest.mark.parametrize("file", CPUS)
def test_every_cpu_is_read(file: pathlib.Path) -> None:
    dumps = open_source(str(file))
    assert [dump.index for dump in dumps] == list(range(len(dumps)))
    for dump in dumps:
        assert dump.leaves
        assert not dump.modifiers
        for leaf, subleaf in dump.leaves:
            assert 0 <= leaf < 1 << 32
            assert 0 <= subleaf < 1 << 32


@pytest.mark.parametrize("file", CPUS)
def test_subleaves_of_leaf_0xd_are_enumerated_or_zeros(file: pathlib.Path) -> None:
    for dump in open_source(str(file)):
        subleaves = leaf_d(dump)
        if not subleaves:
            continue
        eax, _, _, edx = subleaves[0]
        _, _, low, high = subleaves.get(1, (0, 0, 0, 0))
        enumerated = set(bits(eax | edx << 32 | low | high << 32))
        # CentaurHauls0040672_CNS_04 shows two supervisor components that its sub-leaf 1 does not enumerate.
        odd = [
            n for n, values in subleaves.items() if n > 1 and any(values) and n not in enumerated and not values[2] & 1
        ]
        assert not odd


@pytest.mark.parametrize("file", TEMPLATES)
def test_every_template_is_read(file: pathlib.Path) -> None:
    (dump,) = open_source(str(file))
    assert dump.format == "firecracker-template"
    assert dump.leaves == {}
    for modifier in dump.modifiers:
        assert modifier.value & ~modifier.mask == 0
        assert modifier.mask < 1 << 32
    # All three hide PKRU (bit 9) and all AVX-512 and MPX components.
    (d0,) = (m for m in dump.modifiers if (m.leaf, m.subleaf, m.register) == (0xD, 0, 0))
    assert d0.mask & 0x2F8 == 0x2F8
    assert d0.value == 0


@pytest.mark.parametrize("file", LISTINGS)
def test_mail_does_not_change_what_a_dump_says(file: pathlib.Path) -> None:
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    clean = [(dump.leaves, dump.boot_log) for dump in read(data)]
    text = data.decode()
    for mailed in (
        cpuid_text.quoted(text),
        cpuid_text.quoted(cpuid_text.wrapped(text, 72)),
        text.replace("\n", "\r\n"),
    ):
        assert [(dump.leaves, dump.boot_log) for dump in read(mailed.encode())] == clean


@pytest.mark.parametrize("file", LISTINGS)
def test_compression_does_not_change_what_a_dump_says(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    clean = open_source(str(file))
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    for compress in (gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress):
        (tmp_path / "dump").write_bytes(compress(data))
        assert open_source(str(tmp_path / "dump")) == clean


def test_core_files_and_traces_are_refused(corpus: pathlib.Path) -> None:
    from fpstate.errors import UnreadableInput

    for file in [
        *(corpus / "cores").glob("*.core"),
        *(corpus / "minidump").glob("*.dmp"),
        *(corpus / "traces").glob("*.dat"),
    ]:
        with pytest.raises(UnreadableInput, match="no CPUID leaves"):
            open_source(str(file))


# The numbers below are what the named file prints; they are facts about that CPU.


def test_bulldozer_prints_no_subleaf_1(corpus: pathlib.Path) -> None:
    dumps = open_source(str(corpus / "cpuid/instlatx64/AuthenticAMD0600F01_K15_Bulldozer_CPUID.txt.gz"))
    assert [dump.label for dump in dumps] == ["CPU #1", "CPU #2", "CPU #3", "CPU #4"]
    for dump in dumps:
        assert leaf_d(dump) == {0: (7, 0x340, 0x3C0, 0x4000_0000), 2: (0x100, 0x240, 0, 0)}


def test_matisse_has_12_cpus_without_headers(corpus: pathlib.Path) -> None:
    dumps = open_source(str(corpus / "cpuid/instlatx64/AuthenticAMD0870F10_K17_Matisse_CPUID2.txt.gz"))
    assert len(dumps) == 12
    for dump in dumps:
        assert leaf_d(dump) == {0: (0x207, 0x340, 0x380, 0), 1: (0xF, 0x340, 0, 0), 2: (0x100, 0x240, 0, 0)}


def test_vermeer_prints_zeros_for_an_unread_subleaf(corpus: pathlib.Path) -> None:
    dumps = open_source(str(corpus / "cpuid/instlatx64/AuthenticAMD0A20F10_K19_Vermeer_CPUID1.txt.gz"))
    assert len(dumps) == 32
    assert leaf_d(dumps[31]) == {
        0: (0x207, 0x340, 0x988, 0),
        1: (0xF, 0x340, 0x1800, 0),
        2: (0x100, 0x240, 0, 0),
        9: (0, 0, 0, 0),
    }


def test_sapphire_rapids_has_amx_at_0xac0(corpus: pathlib.Path) -> None:
    dumps = open_source(str(corpus / "cpuid/instlatx64/GenuineIntel00806F8_SapphireRapids_05_CPUID.txt.gz"))
    assert len(dumps) == 40
    assert leaf_d(dumps[0]) == {
        0: (0x602E7, 0x2B00, 0x2B00, 0),
        1: (0x1F, 0x2A80, 0xDD00, 0),
        2: (0x100, 0x240, 0, 0),
        5: (0x40, 0x440, 0, 0),
        6: (0x200, 0x480, 0, 0),
        7: (0x400, 0x680, 0, 0),
        8: (0x80, 0, 1, 0),
        9: (8, 0xA80, 0, 0),
        10: (8, 0, 1, 0),
        11: (0x10, 0, 1, 0),
        12: (0x18, 0, 1, 0),
        14: (0x30, 0, 1, 0),
        15: (0x328, 0, 1, 0),
        17: (0x40, 0xAC0, 2, 0),
        18: (0x2000, 0xB00, 6, 0),
    }
    assert dumps[0].leaves[0x1D, 1] == (0x0400_2000, 0x0008_0040, 0x10, 0)


def test_the_amx_guest_log_has_leaves_and_boot_lines(corpus: pathlib.Path) -> None:
    (dump,) = open_source(str(corpus / "cpuid/samples/linux_dmesg_xsave_consistency_dump_amx_guest.log"))
    assert leaf_d(dump)[17] == (0x40, 0xAC0, 2, 0)
    assert leaf_d(dump)[0x1D] == (0, 0, 0, 0)
    assert dump.boot_log is not None
    assert (dump.boot_log.features, dump.boot_log.context_size, dump.boot_log.compacted) == (0x600E7, 10688, True)
    assert dump.boot_log.components[18] == (2496, 8192)
    assert dump.os_linux


def test_the_leaky_hypervisor_shows_the_size_of_its_host(corpus: pathlib.Path) -> None:
    (dump,) = open_source(str(corpus / "cpuid/samples/cpuid_r_vm_intel_avx_only_leaky_sizes.txt"))
    assert leaf_d(dump) == {0: (7, 0x340, 0xA88, 0), 1: (1, 0xA08, 0, 0), 2: (0x100, 0x240, 0, 0)}


def test_libvirt_labels_its_xeon(corpus: pathlib.Path) -> None:
    (file,) = (corpus / "cpuid/samples").glob("libvirt_*.xml")
    (dump,) = open_source(str(file))
    assert dump.label == "Intel(R) Xeon(R) Platinum 9242 CPU @ 2.30GHz"
    assert leaf_d(dump)[1] == (0xF, 0xA08, 0x100, 0)


def test_a_genoa_guest_gets_cet_from_a_newer_host(corpus: pathlib.Path) -> None:
    older, newer = (
        open_source(str(corpus / f"cpuid/firecracker/fingerprint_AMD_GENOA_{host}host.json"))[0]
        for host in ("6.1", "6.18")
    )
    assert leaf_d(older)[1] == (0xF, 0x240, 0, 0)
    assert leaf_d(newer)[1] == (0xF, 0x240, 0x1800, 0)
    assert leaf_d(newer)[12] == (0x18, 0, 1, 0)


def test_settings_are_read_as_written(corpus: pathlib.Path) -> None:
    file = corpus / "cpuid/leaf_d_settings.json"
    settings = json.loads(file.read_text())
    dumps = open_source(str(file))
    assert len(dumps) == len(settings) == 41
    for dump, setting in zip(dumps, settings, strict=True):
        assert leaf_d(dump) == {int(n): tuple(int(each, 16) for each in row) for n, row in setting["leafD"].items()}


def test_settings_written_without_numbers_get_them_back(corpus: pathlib.Path) -> None:
    # Every distinct leaf 0DH of real CPUs, as an old tool would have printed it.
    for dump in open_source(str(corpus / "cpuid/leaf_d_settings.json")):
        rows = "".join("CPUID 0000000D: {:08X}-{:08X}-{:08X}-{:08X}\n".format(*row) for row in leaf_d(dump).values())
        (again,) = read(rows.encode())
        assert leaf_d(again) == leaf_d(dump), dump.label


def test_a_real_kernel_is_read_with_its_states(corpus: pathlib.Path) -> None:
    (dump,) = open_source(str(corpus / "realkernel/bochsx_spr_amx.json"))
    assert (dump.os_linux, dump.xcr0, dump.xss) == (True, None, None)
    assert {state: leaves[0xD, 1][1] for state, leaves in dump.other_states.items()}.keys() == {
        (1, 0),
        (0x602E7, 0),
        (0x602E7, 0x5800),
    }
    assert dump.boot_log is not None
    assert dump.boot_log.features == 0x61AE7


@pytest.mark.parametrize("name", ["neg_tgl_d2size", "bochsx_spr_amx_d1bug"])
def test_a_kernel_that_died_left_the_reset_state(corpus: pathlib.Path, name: str) -> None:
    (dump,) = open_source(str(corpus / f"realkernel/{name}.json"))
    assert (dump.os_linux, dump.xcr0, dump.xss, dump.boot_log) == (False, 1, 0, None)
