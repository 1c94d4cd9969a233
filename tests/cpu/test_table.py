"""The built-in table of CPUs: every row obeys the rules of leaf 0DH, is what its dump says, and is found by name."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate.cpu import table
from fpstate.cpu.dump import Registers
from fpstate.cpu.flags import FLAGS, decode
from fpstate.cpu.table import CONFIDENCES, TableRow, find, rows
from fpstate.errors import UnreadableInput, UsageError
from fpstate.xfeatures import CATALOGUE, LEGACY, MIN_SIZE, bits, mask_of

VENDORS = {"GenuineIntel", "AuthenticAMD", "HygonGenuine", "CentaurHauls", "  Shanghai  "}
XSAVEC, XSAVES, XFD = 1 << 1, 1 << 3, 1 << 4  # CPUID.0DH.1:EAX, SDM 13.2

with_xsave = [row for row in rows() if "XSAVE" in row.flags]
every_row = pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
every_xsave_row = pytest.mark.parametrize("row", with_xsave, ids=lambda row: row.name)


def user_mask(row: TableRow) -> int:
    eax, _, _, edx = row.leaf_d[0]
    return edx << 32 | eax


def supervisor_mask(row: TableRow) -> int:
    _, _, ecx, edx = row.leaf_d[1]
    return edx << 32 | ecx


def has_xsaves(row: TableRow) -> bool:
    return bool(row.leaf_d[1][0] & XSAVES)


# The table as a whole


def test_it_has_the_lines_of_every_vendor_from_before_xsave_to_apx() -> None:
    assert len(rows()) >= 40
    assert {row.vendor for row in rows()} >= {"GenuineIntel", "AuthenticAMD", "HygonGenuine", "CentaurHauls"}
    named = {row.name for row in rows()}
    assert named >= {"nehalem", "bulldozer", "granite-rapids", "panther-lake", "zen5", "dhyana", "kx-7000"}


def test_a_name_or_alias_means_one_row() -> None:
    spelt = Counter(table._fold(name) for row in rows() for name in (row.name, *row.aliases))
    assert [name for name, count in spelt.items() if count > 1] == []


@every_row
def test_names_are_lower_case_words_joined_by_dashes(row: TableRow) -> None:
    for name in (row.name, *row.aliases):
        assert re.fullmatch(r"[a-z0-9+]+(-[a-z0-9+]+)*", name)


@every_row
def test_signature_vendor_and_year_are_possible(row: TableRow) -> None:
    assert row.vendor in VENDORS
    assert 6 <= row.family <= 15 + 255
    assert 0 <= row.model <= 255
    assert 0 <= row.stepping <= 15
    assert 2006 <= row.year <= 2026


@every_row
def test_a_row_says_how_sure_it_is_and_why(row: TableRow) -> None:
    assert row.confidence in CONFIDENCES
    assert row.source
    # A row that no dump stands behind must not look as if one did.
    assert ("no public dump" in row.source) is (row.confidence in {"constructed", "announced"})


def test_the_cpu_with_apx_is_announced_and_its_leaf_is_said_to_be_constructed() -> None:
    assert [row.name for row in rows() if "APX" in row.flags] == ["diamond-rapids"]
    row = find("diamond-rapids")
    assert row.confidence == "announced"
    assert row.leaf_d[19][:2] == (128, 960)  # the place of MPX, Linux 6.16 and QEMU APX series


# Leaf 0DH of a row, SDM 13.2 and 13.4.3


@every_row
def test_x87_and_sse_are_there_exactly_if_xsave_is(row: TableRow) -> None:
    assert bool(row.leaf_d) is ("XSAVE" in row.flags)
    if row.leaf_d:
        assert user_mask(row) & LEGACY == LEGACY


@every_xsave_row
def test_every_enumerated_component_has_its_sub_leaf(row: TableRow) -> None:
    enumerated = user_mask(row) | supervisor_mask(row)
    assert enumerated & ~LEGACY & ~mask_of(row.leaf_d) == 0


@every_xsave_row
def test_user_and_supervisor_masks_share_no_bit(row: TableRow) -> None:
    assert user_mask(row) & supervisor_mask(row) == 0


@every_xsave_row
def test_the_greatest_end_of_a_user_component_is_the_size_of_the_standard_area(row: TableRow) -> None:
    ends = [sum(row.leaf_d[bit][:2]) for bit in bits(user_mask(row) & ~LEGACY)]
    assert max([MIN_SIZE, *ends]) == row.leaf_d[0][2]


@every_xsave_row
def test_user_components_do_not_overlap(row: TableRow) -> None:
    spans = sorted((row.leaf_d[bit][1], row.leaf_d[bit][0]) for bit in bits(user_mask(row) & ~LEGACY))
    end = MIN_SIZE
    for offset, size in spans:
        assert offset >= end
        end = offset + size


@every_xsave_row
def test_components_lie_where_the_catalogue_has_seen_them(row: TableRow) -> None:
    for bit in bits(user_mask(row) & ~LEGACY):
        size, offset, ecx, edx = row.leaf_d[bit]
        known = CATALOGUE.get(bit)
        assert known is not None
        assert (offset, size) in {(place.offset, place.size) for place in known.placements}
        assert (ecx, edx) == (known.aligned << 1 | known.xfd << 2, 0)


@every_xsave_row
def test_supervisor_components_have_the_catalogues_size_and_no_offset(row: TableRow) -> None:
    for bit in bits(mask_of(row.leaf_d) & ~user_mask(row) & ~LEGACY):
        known = CATALOGUE.get(bit)
        assert known is not None
        assert row.leaf_d[bit] == (known.size, 0, 1, 0)


def reachable_sizes(row: TableRow) -> set[tuple[int, int]]:
    """Every (D.0.EBX, D.1.EBX) that some XCR0 and IA32_XSS give, SDM 13.4.3."""
    sizes = {(MIN_SIZE, MIN_SIZE)}
    for bit in bits((user_mask(row) | supervisor_mask(row)) & ~LEGACY):
        size, offset, ecx, _ = row.leaf_d[bit]
        sizes |= {
            (standard if ecx & 1 else max(standard, offset + size), (-(-at // 64) * 64 if ecx & 2 else at) + size)
            for standard, at in sizes
        }
    return sizes


@every_xsave_row
def test_the_current_sizes_are_those_of_one_xcr0_and_ia32_xss(row: TableRow) -> None:
    now = (row.leaf_d[0][1], row.leaf_d[1][1])
    if row.leaf_d[1][0] & XSAVEC or now[1]:
        assert now in reachable_sizes(row)
    else:
        assert now[0] in {standard for standard, _ in reachable_sizes(row)}


# Flags against masks


@every_xsave_row
@pytest.mark.parametrize(
    ("flag", "components"),
    [("AVX", (2,)), ("MPX", (3, 4)), ("AVX512F", (5, 6, 7)), ("AMX_TILE", (17, 18)), ("APX", (19,))],
)
def test_a_user_component_is_enumerated_exactly_if_its_flag_is_set(
    row: TableRow, flag: str, components: tuple[int, ...]
) -> None:
    mask = mask_of(components)
    assert user_mask(row) & mask == (mask if flag in row.flags else 0)


@every_xsave_row
def test_pkru_is_enumerated_exactly_with_pku_except_by_zen_2(row: TableRow) -> None:
    # Every Zen 2 dump has bit 9 in D.0.EAX and CPUID.7.0:ECX.PKU clear.
    zen_2 = row.vendor == "AuthenticAMD" and row.family == 0x17 and row.model >= 0x30
    assert bool(user_mask(row) >> 9 & 1) is ("PKU" in row.flags or zen_2)


@every_xsave_row
@pytest.mark.parametrize(
    ("flags", "components"),
    [
        ({"INTEL_PT"}, (8,)),
        ({"ENQCMD"}, (10,)),
        ({"SHSTK", "IBT"}, (11, 12)),
        ({"UINTR"}, (14,)),
        ({"ARCH_LBR"}, (15,)),
    ],
)
def test_a_supervisor_component_is_enumerated_exactly_if_a_flag_of_it_is_set(
    row: TableRow, flags: set[str], components: tuple[int, ...]
) -> None:
    mask = mask_of(components)
    enumerated = has_xsaves(row) and not row.flags.isdisjoint(flags)
    assert supervisor_mask(row) & mask == (mask if enumerated else 0)


@every_row
def test_no_supervisor_component_and_no_xfd_without_xsaves(row: TableRow) -> None:
    if row.leaf_d and not has_xsaves(row):
        assert supervisor_mask(row) == 0
        assert not row.leaf_d[1][0] & XFD


@every_row
def test_amx_brings_xfd_and_a_palette_of_the_size_of_xtiledata(row: TableRow) -> None:
    assert bool(row.leaf_1d) is ("AMX_TILE" in row.flags)
    if row.leaf_1d:
        assert row.leaf_d[1][0] & XFD
        palette_1 = row.leaf_1d[1]
        assert palette_1[0] & 0xFFFF == row.leaf_d[18][0]  # total_tile_bytes, CPUID.1DH.1:EAX[15:0]


@every_row
def test_flags_come_with_what_they_need(row: TableRow) -> None:
    in_leaf_d = {"XSAVES", "XGETBV1", "XFD"}
    for name in row.flags:
        assert set(FLAGS[name].needs) - in_leaf_d <= row.flags


# Facts that the layouts of this table are known for: InstLatx64 dumps, retrieved 2026-08


def test_zen_2_has_a_pkru_of_64_bytes_and_zen_3_one_of_8_behind_a_hole() -> None:
    assert find("zen2").leaf_d[9] == (64, 832, 0, 0)
    assert find("zen3").leaf_d[9] == find("zen4").leaf_d[9] == (8, 2432, 0, 0)


def test_bulldozer_to_excavator_have_lwp_behind_ymm() -> None:
    for name in ("bulldozer", "piledriver", "steamroller", "excavator"):
        assert find(name).leaf_d[62] == (128, 832, 0, 0)


def test_sapphire_rapids_has_no_hwp_component_and_granite_rapids_has() -> None:
    assert supervisor_mask(find("sapphire-rapids")) == 0xDD00
    assert supervisor_mask(find("granite-rapids")) == 0x1DD00


def test_zen_has_shadow_stacks_but_no_ibt_no_pt_and_no_architectural_lbr() -> None:
    for name in ("zen3", "zen3-plus", "zen4", "genoa", "zen5", "turin"):
        assert find(name).flags & {"SHSTK", "IBT", "INTEL_PT", "ARCH_LBR"} == {"SHSTK"}
        assert supervisor_mask(find(name)) == 0x1800


def test_tiger_lake_has_both_parts_of_cet() -> None:
    assert find("tiger-lake").flags >= {"SHSTK", "IBT"}


def test_efficiency_cores_cost_alder_lake_its_avx_512() -> None:
    assert user_mask(find("alder-lake")) == 0x207
    assert user_mask(find("alder-lake-avx512")) == 0x2E7


def test_broadwell_has_pt_but_no_xsaves_to_save_it() -> None:
    row = find("broadwell")
    assert "INTEL_PT" in row.flags
    assert not has_xsaves(row)


# Finding


@every_row
def test_a_row_is_found_by_its_name_and_by_each_alias(row: TableRow) -> None:
    for name in (row.name, *row.aliases):
        assert find(name) is row


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("ZEN4", "zen4"),
        ("Zen 4", "zen4"),
        ("znver4", "zen4"),
        ("EPYC-Milan", "zen3"),
        ("EPYC", "zen"),
        ("SapphireRapids", "sapphire-rapids"),
        ("spr", "sapphire-rapids"),
        ("Icelake-Server", "ice-lake-server"),
        ("icelake_client", "ice-lake"),
        ("Skylake-Server", "skylake-server"),
        ("skylake-avx512", "skylake-server"),
        ("Cascadelake-Server", "cascade-lake"),
        ("Opteron_G5", "piledriver"),
        ("bdver2", "piledriver"),
        ("corei7-avx", "sandy-bridge"),
        ("arrowlake-s", "arrow-lake-s"),
        ("yongfeng", "kh-40000"),
        ("Zen+", "zen-plus"),
    ],
)
def test_case_dashes_underscores_and_spaces_do_not_count(asked: str, name: str) -> None:
    assert find(asked).name == name


@pytest.mark.parametrize(
    ("asked", "near"),
    [("Genao", "genoa"), ("zen6", "zen, zen5, zen4")],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(asked: str, near: str) -> None:
    with pytest.raises(UsageError) as refusal:
        find(asked)
    assert str(refusal.value) == (
        f"'{asked}' is not a CPU of the built-in table; did you mean {near}? 'fpstate cpus' lists all"
    )


def test_a_name_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(UsageError) as refusal:
        find("VAX-11/780")
    assert str(refusal.value) == "'VAX-11/780' is not a CPU of the built-in table; 'fpstate cpus' lists all"


def test_no_row_is_suggested_twice() -> None:
    # zx-c, zx-c+ and zhangjiang are one row; epyc, epyc-rome, epyc-milan, ... are one row each.
    with pytest.raises(UsageError) as refusal:
        find("epycmilano")
    suggested = re.findall(r"[a-z0-9+-]+(?=[,?])", str(refusal.value))
    assert len({find(name).name for name in suggested}) == len(suggested) >= 2


def test_a_refusal_stays_one_short_line_whatever_was_asked() -> None:
    with pytest.raises(UsageError) as refusal:
        find("zen4\n" * 1_000_000)
    assert len(str(refusal.value)) < 250
    assert "\n" not in str(refusal.value)


@given(st.text())
def test_any_text_is_a_row_or_a_usage_error(name: str) -> None:
    known = {table._fold(spelt) for row in rows() for spelt in (row.name, *row.aliases)}
    if table._fold(name) in known:
        assert find(name) in rows()
    else:
        with pytest.raises(UsageError) as refusal:
            find(name)
        assert str(refusal.value).isascii()


# Reading a row

GOOD = """\
name = 'some-cpu'
aliases = ['sc', 'somecpu2']
title = 'Some CPU'
vendor = 'GenuineIntel'
family = 6
model = 1
stepping = 2
year = 2020
flags = 'FPU XSAVE'
leaf_d = '''
0 00000003 00000240 00000240 00000000
1 00000001 00000000 00000000 00000000
'''
confidence = 'dump'
source = 'a dump'
"""


def test_a_row_is_read_as_written() -> None:
    row = table._read(GOOD)
    assert (row.name, row.aliases) == ("some-cpu", ("sc", "somecpu2"))
    assert row.flags == {"FPU", "XSAVE"}
    assert row.leaf_d == {0: (3, 576, 576, 0), 1: (1, 0, 0, 0)}
    assert row.leaf_1d == ()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("year = 2020\n", "", "year is missing"),
        ("year = 2020", "year = '2020'", "year must be a number, 0 or more"),
        ("year = 2020", "year = -1", "year must be a number, 0 or more"),
        ("year = 2020", "year = true", "year must be a number, 0 or more"),
        ("year = 2020", "year = 2020\nage = 1", "age is not a field of a row"),
        ("title = 'Some CPU'", "title = 5", "title must be a string"),
        ("'somecpu2'", "2", "aliases must be a list of strings"),
        ("['sc', 'somecpu2']", '["sc", "somecpu2"]', "name and aliases must be its first two lines, in single quotes"),
        ("'GenuineIntel'", "'Intel'", "vendor must be the 12 characters of leaf 0, not 'Intel'"),
        ("'dump'", "'rumour'", "confidence must be one of"),
        ("FPU XSAVE", "FPU FSRM", "flags must not name 'FSRM'"),
        ("FPU XSAVE", "FPU XSAVES", "flags must not name 'XSAVES'"),
        ("\n1 0", "\n64 0", "leaf_d: a line must start with a sub-leaf, 0 to 63, not '64'"),
        ("\n1 0", "\nx 0", "leaf_d: a line must start with a sub-leaf, 0 to 63, not 'x'"),
        ("\n1 0", "\n0 0", "leaf_d: sub-leaf 0 is given twice"),
        ("\n1 0", "\n1 ", "leaf_d: sub-leaf 1: must be EAX EBX ECX EDX of eight hex digits each"),
        ("00000001 0", "+0000001 0", "leaf_d: sub-leaf 1: must be EAX EBX ECX EDX of eight hex digits each"),
        ("00000001 0", "", "leaf_d: sub-leaf 1: must be EAX EBX ECX EDX of eight hex digits each"),
        ("source", "leaf_1d = ['1']\nsource", "leaf_1d: must be EAX EBX ECX EDX of eight hex digits each, not '1'"),
        ("'a dump'", "'a dump", "not TOML"),
    ],
)
def test_a_broken_row_is_refused_by_row_and_field(old: str, new: str, complaint: str) -> None:
    with pytest.raises(UnreadableInput) as refusal:
        table._read(GOOD.replace(old, new, 1))
    assert str(refusal.value).startswith(f"cpus.toml, row some-cpu: {complaint}")


def test_blank_lines_in_leaf_d_do_not_count() -> None:
    assert table._read(GOOD.replace("\n1 0", "\n\n  \n1 0")).leaf_d == table._read(GOOD).leaf_d


def test_an_installation_without_the_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_PATH", tmp_path / "cpus.toml")
    with pytest.raises(UnreadableInput, match=r"cpus\.toml cannot be read: .*; reinstall fpstate$"):
        table._texts.__wrapped__()


def test_a_row_without_a_name_is_refused() -> None:
    with pytest.raises(UnreadableInput, match=r"^cpus\.toml, row \?: aliases is missing"):
        table._read("")


@given(st.text())
def test_any_text_is_refused_as_a_row_without_a_traceback(text: str) -> None:
    with pytest.raises(UnreadableInput):
        table._read(text)


# Against the public dumps


@pytest.fixture(scope="module")
def corpus() -> Path:
    folder = os.environ.get("FPSTATE_CORPUS")
    if not folder:
        pytest.skip("FPSTATE_CORPUS is not set: no public dumps to compare the table with")
    return Path(folder) / "cpuid"


Setting = tuple[frozenset[str], dict[int, Registers]]
"""The dumps of one setting by path, and leaf 0DH as they have it."""


@pytest.fixture(scope="module")
def settings(corpus: Path) -> list[Setting]:
    entries = json.loads((corpus / "leaf_d_settings.json").read_text(encoding="utf-8"))
    return [
        (
            frozenset(dump for _, dump in entry["sources"].values()),
            {int(bit): registers(words) for bit, words in entry["leafD"].items()},
        )
        for entry in entries
    ]


def registers(words: Any) -> Registers:
    eax, ebx, ecx, edx = (int(word, 16) for word in words)
    return eax, ebx, ecx, edx


def test_a_row_equals_the_dump_that_it_names(settings: list[Setting]) -> None:
    compared = 0
    for dumps, leaf in settings:
        names = {dump.rpartition("/")[2] for dump in dumps}
        for row in rows():
            # The first dump that a source names is the one that leaf 0DH is from.
            if any(name in row.source.partition(";")[0] for name in names):
                shared = leaf.keys() & row.leaf_d.keys()
                assert {bit: row.leaf_d[bit] for bit in shared} == {bit: leaf[bit] for bit in shared}, row.name
                compared += 1
    assert compared >= 5


def test_no_row_contradicts_a_dump_of_the_same_vendor_mask_and_size(settings: list[Setting]) -> None:
    folders = {
        "GenuineIntel": r"(?i)intel",
        "AuthenticAMD": r"(?i)amd",
        "HygonGenuine": r"(?i)hygon",
        "CentaurHauls": r"(?i)centaur|zhaoxin",
    }
    for dumps, leaf in settings:
        for row in with_xsave:
            same_vendor = any(re.search(folders[row.vendor], dump) for dump in dumps)
            if same_vendor and (leaf[0][0], *leaf[0][2:]) == (row.leaf_d[0][0], *row.leaf_d[0][2:]):
                for bit in leaf.keys() & row.leaf_d.keys() - {0, 1}:
                    assert leaf[bit] == row.leaf_d[bit], (row.name, bit, dumps)


def whole_dump(path: Path) -> dict[tuple[int, int], Registers]:
    """The first logical CPU of an InstLatx64-like text or of a Firecracker fingerprint."""
    leaves: dict[tuple[int, int], Registers] = {}
    if path.suffix == ".json":
        config = json.loads(path.read_text(encoding="utf-8"))["guest_cpu_config"]
        for call in config["cpuid_modifiers"]:
            eax, ebx, ecx, edx = (int(each["bitmap"], 2) for each in call["modifiers"])
            leaves[int(call["leaf"], 16), int(call["subleaf"], 16)] = (eax, ebx, ecx, edx)
        return leaves
    line = re.compile(r"CPUID (\w{8}): (\w{8})-(\w{8})-(\w{8})-(\w{8})(?:.*\[SL (\w\w)\])?")
    with gzip.open(path, "rt", encoding="ascii", errors="replace") as text:
        for leaf, *words, subleaf in (match.groups() for match in map(line.match, text) if match):
            leaves.setdefault((int(leaf, 16), int(subleaf or "0", 16)), registers(words))
    return leaves


def test_a_row_equals_the_whole_dump_where_the_corpus_has_it(corpus: Path) -> None:
    compared = 0
    listed = {name for name, flag in FLAGS.items() if flag.leaf != 0xD and name != "OSPKE"}
    for path in (*corpus.glob("instlatx64/*.gz"), *corpus.glob("libcpuid/*.gz"), *corpus.glob("firecracker/*.json")):
        for row in rows():
            if row.source.split()[-1] != path.name.removesuffix(".gz"):
                continue
            leaves = whole_dump(path)
            leaf_d = {subleaf: words for (leaf, subleaf), words in leaves.items() if leaf == 0xD}
            assert row.leaf_d == {bit: words for bit, words in leaf_d.items() if bit < 2 or any(words)}
            assert list(row.leaf_1d) == [leaves[0x1D, subleaf] for subleaf in range(len(row.leaf_1d))]
            assert row.flags == decode(leaves)[0] & listed
            compared += 1
    assert compared >= 4
