"""The catalogue and the masks that people write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate.errors import UsageError
from fpstate.xfeatures import CATALOGUE, COMPACTED, Catalogue, Placement, Xfeature, bits, mask_of

COMPONENT_BITS = [*range(20), 62]


def test_the_catalogue_holds_components_0_to_19_and_62() -> None:
    assert [row.bit for row in CATALOGUE] == COMPONENT_BITS


@pytest.mark.parametrize(
    ("bit", "size", "supervisor", "aligned", "xfd"),
    # xsave-arch: CPUID(0DH, i) of 318 dumps
    [
        (2, 256, False, False, False),
        (9, 8, False, False, False),
        (11, 16, True, False, False),
        (12, 24, True, False, False),
        (14, 48, True, False, False),
        (15, 808, True, False, False),
        (17, 64, False, True, False),
        (18, 8192, False, True, True),
        (19, 128, False, False, False),
    ],
)
def test_a_component_is_as_every_dump_shows_it(
    bit: int, size: int, *, supervisor: bool, aligned: bool, xfd: bool
) -> None:
    row = CATALOGUE.get(bit)
    assert row is not None
    assert (row.size, row.supervisor, row.aligned, row.xfd) == (size, supervisor, aligned, xfd)


def test_only_user_components_have_a_standard_place() -> None:
    for row in CATALOGUE:
        assert bool(row.placements) == (not row.supervisor)


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("0x2e7", 0x2E7),
        ("2e7h", 0x2E7),
        ("743", 0x2E7),
        ("0b111", 7),
        ("AVX|PKRU", 1 << 2 | 1 << 9),
        ("avx512", 0xE0),
        ("amx", 0x60000),
        ("CET_KERNEL", 1 << 12),
        ("cet_s", 1 << 12),
        ("YMM,ZMM_Hi256+Hi16_ZMM", 1 << 2 | 3 << 6),
        ("all", 0x1AE7),
        ("all|~PKRU", 0x18E7),
        ("all,-cet", 0x2E7),
        ("none", 0),
        ("0", 0),
        ("AVX|bit40", 1 << 40 | 1 << 2),
    ],
)
def test_a_mask_is_read_as_number_as_names_or_as_all(text: str, mask: int) -> None:
    assert CATALOGUE.parse_mask(text, everything=0x1AE7) == mask


@pytest.mark.parametrize("text", ["", "|", "AVY", "0xg", "avx 512 x", "-", "0x_1", "1" * 70, "\u0663"])
def test_what_is_no_mask_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        CATALOGUE.parse_mask(text, everything=7)


@pytest.mark.parametrize(("text", "bit"), [("12", 12), ("cet_s", 12), ("0x1000", 12), ("0b100", 2), ("40", 40)])
def test_one_component_is_read_as_its_number_or_its_name(text: str, bit: int) -> None:
    assert CATALOGUE.parse_bit(text) == bit


@pytest.mark.parametrize("text", ["", "cet", "AVX|PKRU", "63", "64", "99", "0x3", "none", "all", "\u0663", "-1"])
def test_what_is_not_one_component_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        CATALOGUE.parse_bit(text)


def test_a_negative_mask_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a mask is never negative: -1$"):
        list(bits(-1))


def test_bit_63_is_refused_as_a_component() -> None:
    with pytest.raises(UsageError, match=r"^mask 0x8000000000000001 sets bit 63 or more; components are bits 0 to 62$"):
        CATALOGUE.parse_mask("0x8000000000000001", everything=7)


def test_unknown_bits_are_spelt_and_never_dropped() -> None:
    assert CATALOGUE.names(1 << 40 | 1 << 2) == "AVX|bit40"


def test_the_format_flag_is_spelt_compacted() -> None:
    assert CATALOGUE.names(COMPACTED | 3) == "x87|SSE|compacted"


def test_no_component_is_spelt_none() -> None:
    assert CATALOGUE.names(0) == "none"


@given(st.sets(st.integers(0, 62)))
def test_names_read_back_to_the_mask_they_spell(numbers: set[int]) -> None:
    mask = mask_of(numbers)
    assert CATALOGUE.parse_mask(CATALOGUE.names(mask), everything=0) == mask


@given(st.integers(0, (1 << 63) - 1))
def test_bits_yields_what_mask_of_joins(mask: int) -> None:
    assert mask_of(bits(mask)) == mask
    assert list(bits(mask)) == sorted(bits(mask))


@given(st.text(max_size=40))
def test_any_text_is_a_mask_or_a_usage_error(text: str) -> None:
    try:
        mask = CATALOGUE.parse_mask(text, everything=7)
    except UsageError:
        return
    assert 0 <= mask < 1 << 63


def row(bit: int, size: int = 8, *, supervisor: bool = False, places: tuple[Placement, ...] = ()) -> Xfeature:
    return Xfeature(
        bit=bit,
        name=f"X{bit}",
        kernel_name=f"X{bit}",
        boot_string=None,
        size=size,
        supervisor=supervisor,
        placements=places,
        source="test",
    )


@pytest.mark.parametrize("bit", [-1, 63, 64])
def test_a_component_bit_outside_0_to_62_is_refused(bit: int) -> None:
    with pytest.raises(UsageError, match="component bit must be 0 to 62"):
        row(bit)


@pytest.mark.parametrize("size", [0, -8, (1 << 20) + 1])
def test_a_component_size_must_be_sane(size: int) -> None:
    with pytest.raises(UsageError, match="must be 1 to 1048576 bytes"):
        row(20, size)


def test_a_supervisor_component_cannot_have_a_standard_place() -> None:
    with pytest.raises(UsageError, match="it has no place in the standard format"):
        row(20, supervisor=True, places=(Placement(600, 8, "all", "test"),))


def test_a_place_inside_the_legacy_region_is_refused() -> None:
    with pytest.raises(UsageError, match="standard offset of component 20 must be 576 or more, not 100"):
        row(20, places=(Placement(100, 8, "all", "test"),))


def test_the_same_bit_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^component 20 is given twice: X20 and X20$"):
        Catalogue([row(20), row(20)])


def test_an_extended_catalogue_replaces_rows_and_leaves_the_old_one_alone() -> None:
    bigger = CATALOGUE.extended([row(12, 64, supervisor=True)])
    changed, old = bigger.get(12), CATALOGUE.get(12)
    assert changed is not None
    assert old is not None
    assert (changed.size, old.size) == (64, 24)
