"""Views of one register: lanes of a type, tiles, PKRU, CET, and every byte of an image by name."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate.cpu import by_name
from fpstate.errors import UsageError
from fpstate.image import Image, encode, read
from fpstate.isa import Capabilities
from fpstate.registers import find
from fpstate.report.registers_view import (
    TYPES,
    TileConfig,
    cet_text,
    fields,
    fields_text,
    lanes,
    lanes_text,
    pkru_text,
    tile_config,
    tile_matrix,
    tile_text,
)


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        ("ff01", "u8", ["255", "1"]),
        ("ff01", "i8", ["-1", "1"]),
        ("0080", "i16", ["-32768"]),
        ("ffffffff", "u32", ["4294967295"]),
        ("ffffffff", "i32", ["-1"]),
        ("ffffffffffffff7f", "i64", ["9223372036854775807"]),
        ("000102030405060708090a0b0c0d0e0f", "u128", ["0x0f0e0d0c0b0a09080706050403020100"]),
        ("0000803f", "f32", ["1"]),
        ("cdcccc3d", "f32", ["0.1"]),
        ("0000c07f", "f32", ["nan(0x7fc00000)"]),
        ("000080ff", "f32", ["-inf"]),
        ("01000000", "f32", ["1e-45"]),  # the least that is not zero
        ("182d4454fb210940", "f64", ["3.141592653589793"]),
        ("803f4940", "bf16", ["1", "3.14"]),
        ("c17f", "bf16", ["nan(0x7fc1)"]),
        ("7f7f", "bf16", ["3.39e+38"]),  # the greatest
        ("003c66b6", "f16", ["1", "-0.4"]),
        ("ff7b", "f16", ["6.55e+04"]),  # 65504
        ("0080", "f16", ["-0"]),
    ],
)
def test_bytes_are_lanes_of_the_type(data: str, kind: str, expected: list[str]) -> None:
    assert lanes(bytes.fromhex(data), kind) == expected


@pytest.mark.parametrize(("kind", "letter"), [("f16", "e"), ("f32", "f"), ("f64", "d")])
@given(data=st.binary(min_size=8, max_size=8))
def test_a_float_reads_back_as_the_same_bits(kind: str, letter: str, data: bytes) -> None:
    size = TYPES[kind].size
    for at, text in zip(range(0, 8, size), lanes(data, kind), strict=True):
        if not text.startswith("nan"):
            assert struct.pack(f"<{letter}", float(text)) == data[at : at + size]


@given(st.integers(0, 0xFFFF))
def test_a_bfloat16_reads_back_as_the_same_bits(bits: int) -> None:
    (text,) = lanes(bits.to_bytes(2, "little"), "bf16")
    if text.startswith("nan"):
        assert bits & 0x7FFF > 0x7F80
        return
    exact = struct.unpack("<f", (bits << 16).to_bytes(4, "little"))[0]
    neighbours = [struct.unpack("<f", ((bits + i & 0xFFFF) << 16).to_bytes(4, "little"))[0] for i in (-1, 1)]
    assert math.copysign(1, float(text)) == math.copysign(1, exact)
    for other in neighbours:
        if math.isfinite(exact) and math.isfinite(other):
            assert abs(float(text) - exact) <= abs(float(text) - other)


@pytest.mark.parametrize(("size", "kind"), [(10, "f64"), (0, "u8"), (3, "u16"), (8, "u128")])
def test_what_does_not_divide_is_refused(size: int, kind: str) -> None:
    with pytest.raises(UsageError, match="no whole number"):
        lanes(bytes(size), kind)


def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="bf16"):
        lanes(bytes(8), "f8")


def test_lines_of_lanes_have_the_number_of_their_first_lane() -> None:
    text = lanes_text(find("zmm3"), bytes(range(64)), "u8")
    assert text.splitlines()[0] == "zmm3 as u8, 64 lanes"
    assert text.splitlines()[2] == "  [16]  16  17  18  19  20  21  22  23  24  25  26  27  28  29  30  31"


def config(**tiles: tuple[int, int]) -> bytes:
    """Return TILECFG with palette 1 and (rows, colsb) of tiles t0 to t7."""
    data = bytearray(64)
    data[0] = 1
    for name, (rows, colsb) in tiles.items():
        number = int(name[1:])
        struct.pack_into("<H", data, 16 + 2 * number, colsb)
        data[48 + number] = rows
    return bytes(data)


def test_tilecfg_has_its_fields_where_ldtilecfg_has_them() -> None:
    assert tile_config(config(t0=(16, 64), t7=(2, 8))) == TileConfig(
        1, 0, (16, 0, 0, 0, 0, 0, 0, 2), (64,) + (0,) * 6 + (8,)
    )


def test_a_tile_is_as_large_as_its_configuration_says() -> None:
    data = bytearray(8192)
    for row in range(3):
        data[1024 + 64 * row : 1024 + 64 * row + 8] = struct.pack("<2f", row + 0.5, -row)
    found = tile_matrix(tile_config(config(t1=(3, 8))), bytes(data), 1, "f32")
    assert found == [["0.5", "0"], ["1.5", "-1"], ["2.5", "-2"]]


def test_a_tile_as_text_is_a_matrix_with_numbers() -> None:
    data = bytes([1, 0xFF, *bytes(62), 2, 0xFE]).ljust(8192, b"\0")
    text = tile_text(tile_config(config(t0=(2, 2))), data, 0, "i8")
    assert text == "tmm0 as i8, 2 x 2 (palette 1)\n  [ 0]   1 -1\n  [ 1]   2 -2"


def test_a_tile_without_rows_and_palette_0_are_said() -> None:
    assert tile_text(tile_config(config()), bytes(8192), 3, "i8") == "tmm3: TILECFG gives it no rows"
    assert "palette 0" in tile_text(tile_config(bytes(64)), bytes(8192), 3, "i8")


@given(st.binary(min_size=64, max_size=64), st.integers(0, 7))
def test_no_tilecfg_makes_a_tile_larger_than_16_rows_of_64_bytes(data: bytes, number: int) -> None:
    found = tile_matrix(tile_config(data), bytes(8192), number, "u8")
    assert len(found) <= 16
    assert all(len(row) <= 64 for row in found)


def test_there_are_eight_tiles() -> None:
    with pytest.raises(UsageError, match="no tile 8"):
        tile_matrix(tile_config(config()), bytes(8192), 8, "u8")


def test_pkru_is_a_table_of_sixteen_keys() -> None:
    """0x55555554 is what Linux starts a process with: every key but 0 denied."""
    lines = pkru_text(0x55555554).splitlines()
    assert lines[0] == "pkru 0x55555554"
    assert lines[3].split() == ["0", "0", "0", "read,", "write"]
    assert [line.split()[-1] for line in lines[4:]] == ["none"] * 15


def test_write_disable_alone_leaves_reading() -> None:
    assert pkru_text(0b10).splitlines()[3].split() == ["0", "0", "1", "read"]


def test_cet_is_told_by_bit() -> None:
    text = cet_text({"u_cet": 0x1000 | 1 << 11 | 0b101, "pl3_ssp": 0xCBC83FEFC8, "mxcsr": 1})
    assert "bit 0  SH_STK_EN" in text
    assert "bit 2  ENDBR_EN" in text
    assert "bit 11 TRACKER" in text
    assert "EB_LEG_BITMAP_BASE 0x1000" in text
    assert "pl3_ssp  0x000000cbc83fefc8" in text
    assert "mxcsr" not in text


def test_cets_reserved_bits_and_a_crooked_pointer_are_said() -> None:
    assert "0x3, which are reserved" in cet_text({"s_cet": 0b11 << 6})
    assert "not a multiple of 4" in cet_text({"ssp": 0x1002})


def image(cpu: str) -> Image:
    caps = Capabilities(by_name(cpu))
    return read(encode(caps, {"xmm3": bytes(range(16)), "pkru": struct.pack("<I", 0x55555554)}), caps)


@pytest.mark.parametrize("cpu", ["zen4", "sapphire-rapids"])
def test_every_byte_of_an_image_is_listed_once(cpu: str) -> None:
    held = image(cpu)
    end = 0
    for each in fields(held):
        assert each.offset == end
        assert bytes.fromhex(each.value) == held.data[end : end + each.size]
        end += each.size
    assert end == held.places.end


def test_a_field_has_its_offset_its_length_and_its_bytes() -> None:
    found = {each.name: each for each in fields(image("zen4"))}
    assert found["xmm3"][:3] == (208, 16, "xmm3")
    assert found["xmm3"].value == bytes(range(16)).hex()
    assert found["pkru"][:2] == (2432, 4)  # Zen 4's place
    assert found["XSTATE_BV"].value == (0b1000000010).to_bytes(8, "little").hex()


def test_fields_are_a_table() -> None:
    lines = fields_text(fields(image("zen4"))).splitlines()
    assert lines[0].split() == ["offset", "bytes", "field", "value"]
    assert any(line.split()[:3] == ["24", "4", "mxcsr"] for line in lines)
