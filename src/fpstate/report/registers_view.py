"""One register as a person wants it: lanes of a type, tiles as matrices, PKRU as a table, CET's bits by name.

Everything here is a pure function of bytes.  Sources: Intel SDM volume 1, 4.2 (number formats), 18.2 (tiles); volume 2,
LDTILECFG (TILECFG); volume 3, 4.6.2 (PKRU); volume 4, IA32_U_CET; bfloat16 is the upper half of binary32.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from fpstate.errors import UsageError
from fpstate.image import Image
from fpstate.isa.values import CET_RESERVED
from fpstate.registers import Register, of_component, pkru_keys, raw, tile
from fpstate.report.tables import table
from fpstate.xfeatures import HEADER_SIZE, LEGACY_SIZE, SOFTWARE

__all__ = [
    "TYPES",
    "Field",
    "TileConfig",
    "cet_text",
    "fields",
    "fields_text",
    "lanes",
    "lanes_text",
    "named_lanes",
    "pkru_text",
    "tile_config",
    "tile_matrix",
    "tile_text",
]


class _Type(NamedTuple):
    """A type of lane: its bytes, and the ``struct`` letter; the letter is empty where there is none."""

    size: int
    letter: str


TYPES: Final[dict[str, _Type]] = {
    "u8": _Type(1, "B"),
    "i8": _Type(1, "b"),
    "u16": _Type(2, "H"),
    "i16": _Type(2, "h"),
    "u32": _Type(4, "I"),
    "i32": _Type(4, "i"),
    "u64": _Type(8, "Q"),
    "i64": _Type(8, "q"),
    "f16": _Type(2, "e"),
    "bf16": _Type(2, ""),
    "f32": _Type(4, "f"),
    "f64": _Type(8, "d"),
    "f80": _Type(10, ""),
    "u128": _Type(16, ""),
}
"""What ``--as`` accepts."""

_DIGITS: Final = {"f16": 5, "bf16": 4, "f32": 9, "f64": 17}
"""Significant decimal digits that tell every two values of a format apart."""


def lanes(data: bytes, kind: str) -> list[str]:
    """Return *data* as lanes of a type, lane 0 first.

    Integers are decimal, but ``u128`` hex.  A float is the shortest decimal that reads back as the same value; NaNs
    have their bits behind them: ``nan(0x7fc1)``.

    Args:
        data: the bytes of a register or a row, in memory order.
        kind: of `TYPES`.

    Raises:
        UsageError: there is no such type, or *data* is no whole number of lanes.
    """
    if kind not in TYPES:
        raise UsageError(f"there is no type {kind!r}", cure=f"types are {', '.join(TYPES)}")
    size, letter = TYPES[kind]
    if len(data) % size or not data:
        raise UsageError(f"{len(data)} bytes are no whole number of {kind} lanes, {size} bytes each")
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    if kind == "u128":
        return [f"{int.from_bytes(piece, 'little'):#034x}" for piece in pieces]
    if kind == "f80":
        from fpstate.report import extended  # noqa: PLC0415  decimals cost decode's start 2 ms

        return [extended.decimal_of(piece) for piece in pieces]
    if kind in _DIGITS:
        return [_float(piece, kind) for piece in pieces]
    return [str(struct.unpack(f"<{letter}", piece)[0]) for piece in pieces]


def _float(piece: bytes, kind: str) -> str:
    value = _value(piece, kind)
    if value != value:  # noqa: PLR0124  a NaN is what does not equal itself
        return f"nan({int.from_bytes(piece, 'little'):#0{2 * len(piece) + 2}x})"
    for digits in range(1, _DIGITS[kind]):
        text = f"{value:.{digits}g}"
        if _reads_back(text, piece, kind):
            return text
    return f"{value:.{_DIGITS[kind]}g}"


def _value(piece: bytes, kind: str) -> float:
    if kind == "bf16":
        piece, kind = b"\0\0" + piece, "f32"
    value: float = struct.unpack(f"<{TYPES[kind].letter}", piece)[0]
    return value


def _reads_back(text: str, piece: bytes, kind: str) -> bool:
    """Tell whether the nearest value of the format to *text* is *piece*."""
    try:
        if kind == "bf16":
            return _nearest_bf16(float(text)) == piece
        return struct.pack(f"<{TYPES[kind].letter}", float(text)) == piece
    except OverflowError:  # rounded up beyond the largest finite value
        return False


def _nearest_bf16(value: float) -> bytes:
    """Return the bfloat16 nearest to *value*, ties to even: its binary32 cut, or one more."""
    bits = int.from_bytes(struct.pack("<f", value), "little")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF).to_bytes(2, "little")


def named_lanes(name: str, data: bytes, kind: str) -> list[str]:
    """Return *data* of the register *name* as `lanes` does; a refusal names the register and the types that fit it."""
    try:
        return lanes(data, kind)
    except UsageError as refusal:
        if kind not in TYPES:
            raise
        fits = ", ".join(name for name, (size, _) in TYPES.items() if not len(data) % size)
        raise UsageError(f"{name}: {refusal}", cure=f"types that fit are {fits}") from refusal


def lanes_text(register: Register, data: bytes, kind: str) -> str:
    """Return a register as lines of lanes, each with the number of its first lane.

    Args:
        register: which.
        data: its bytes.
        kind: of `TYPES`.

    Raises:
        UsageError: as `lanes`; names the register.
    """
    cells = named_lanes(register.name, data, kind)
    width = max(len(cell) for cell in cells)
    a_line = max(1, min(16, 96 // (width + 2)))
    a_line = 1 << (a_line.bit_length() - 1)  # a power of two, so that lines of two registers compare
    lines = [f"{register.name} as {kind}, {len(cells)} lanes"]
    for at in range(0, len(cells), a_line):
        row = "  ".join(cell.rjust(width) for cell in cells[at : at + a_line])
        lines.append(f"  [{at:>2}]  {row}")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class TileConfig:
    """TILECFG, 64 bytes (SDM volume 2, LDTILECFG).

    Attributes:
        palette: 0 for tiles in their initial state.
        start_row: where an interrupted load or store goes on.
        rows: of each of 8 tiles.
        colsb: bytes of a row of each.
    """

    palette: int
    start_row: int
    rows: tuple[int, ...]
    colsb: tuple[int, ...]


def tile_config(data: bytes) -> TileConfig:
    """Return the fields of TILECFG: palette, start_row, colsb at 16, two bytes each, rows at 48, one byte each.

    Raises:
        UsageError: *data* has not 64 bytes.
    """
    if len(data) != 64:
        raise UsageError(f"TILECFG has 64 bytes, not {len(data)}")
    return TileConfig(data[0], data[1], tuple(data[48:56]), struct.unpack_from("<8H", data, 16))


_TILE_ROWS: Final = 16
_TILE_ROW: Final = 64


def tile_matrix(config: TileConfig, tiledata: bytes, number: int, kind: str) -> list[list[str]]:
    """Return a tile as rows of elements, as large as TILECFG says; empty where it says 0.

    Args:
        config: the configuration; numbers beyond palette 1 (16 rows of 64 bytes) are cut to it.
        tiledata: the bytes of XTILEDATA.
        number: 0 to 7.
        kind: of `TYPES`: ``i8``, ``u8``, ``bf16``, ``f16``, ``f32`` or ``i32`` are what the instructions multiply.

    Raises:
        UsageError: there is no such tile or type, or a row is no whole number of elements.
    """
    if not 0 <= number < 8:
        raise UsageError(f"there is no tile {number}", cure="tiles are tmm0 to tmm7")
    rows, colsb = min(config.rows[number], _TILE_ROWS), min(config.colsb[number], _TILE_ROW)
    if not config.palette or not rows or not colsb:
        return []
    return [named_lanes(f"tmm{number}", row[:colsb], kind) for row in tile(tiledata, number)[:rows]]


def tile_text(config: TileConfig, tiledata: bytes, number: int, kind: str) -> str:
    """Return a tile as a matrix with its row numbers; errors as `tile_matrix`."""
    matrix = tile_matrix(config, tiledata, number, kind)
    if not matrix:
        why = "palette 0: tiles are in their initial state" if not config.palette else "TILECFG gives it no rows"
        return f"tmm{number}: {why}"
    width = max(len(cell) for row in matrix for cell in row)
    head = f"tmm{number} as {kind}, {len(matrix)} x {len(matrix[0])} (palette {config.palette})"
    lines = [f"  [{i:>2}]  " + " ".join(cell.rjust(width) for cell in row) for i, row in enumerate(matrix)]
    return "\n".join([head, *lines])


def pkru_text(pkru: int) -> str:
    """Return PKRU as a table of the 16 keys and what each lets a user-mode access do."""
    rows = []
    for key in pkru_keys(pkru):
        allowed = "none" if key.access_disable else "read" if key.write_disable else "read, write"
        rows.append([str(key.number), str(int(key.access_disable)), str(int(key.write_disable)), allowed])
    return f"pkru {pkru:#010x}\n" + table(("key", "AD", "WD", "data access"), rows, right=(0, 1, 2))


_CET_BITS: Final = (
    (0, "SH_STK_EN", "shadow stacks"),
    (1, "WR_SHSTK_EN", "WRSS"),
    (2, "ENDBR_EN", "indirect branch tracking"),
    (3, "LEG_IW_EN", "legacy interworking"),
    (4, "NO_TRACK_EN", "no-track prefix"),
    (5, "SUPPRESS_DIS", "suppression disabled"),
    (10, "SUPPRESS", "tracking suppressed"),
    (11, "TRACKER", "waiting for ENDBRANCH"),
)
"""Bits of IA32_U_CET and IA32_S_CET (SDM volume 4); 63:12 are the page of the legacy code bitmap."""


def cet_text(values: dict[str, int]) -> str:
    """Return CET registers in words: the bits of ``u_cet`` and ``s_cet``, shadow-stack pointers as addresses.

    Args:
        values: register name to value; others than CET's are left out.
    """
    lines = []
    for name in ("u_cet", "s_cet"):
        if name in values:
            lines += _cet_bits(name, values[name])
    for name in ("pl0_ssp", "pl1_ssp", "pl2_ssp", "pl3_ssp", "ssp"):
        if name in values:
            odd = "" if values[name] % 4 == 0 else ", not a multiple of 4"
            lines.append(f"{name:<8} {values[name]:#018x}{odd}")
    return "\n".join(lines)


def _cet_bits(name: str, value: int) -> list[str]:
    lines = [f"{name:<8} {value:#x}"]
    lines += [f"  bit {bit:<2} {flag:<13} {words}" for bit, flag, words in _CET_BITS if value >> bit & 1]
    if value & CET_RESERVED:
        lines.append(f"  bits 9:6 {value >> 6 & 15:#x}, which are reserved")
    if value >> 12:
        lines.append(f"  bits 63:12 EB_LEG_BITMAP_BASE {value >> 12 << 12:#x}")
    return lines


class Field(NamedTuple):
    """A run of bytes of an image.

    Attributes:
        offset: bytes from the start of the image.
        size: bytes.
        name: a register, or what the bytes are; ``-`` for nobody's.
        value: hex digits in memory order.
    """

    offset: int
    size: int
    name: str
    value: str


def fields(image: Image) -> list[Field]:
    """Return every byte of the image once: registers, the header's fields, and what is nobody's, by offset.

    What XSTATE_BV leaves out is shown as the bytes stand there: they are stale, not initial.
    """
    found = [
        _field(image, 28, 4, "MXCSR_MASK"),
        _field(image, SOFTWARE, LEGACY_SIZE - SOFTWARE, "software"),
        _field(image, LEGACY_SIZE, 8, "XSTATE_BV"),
        _field(image, LEGACY_SIZE + 8, 8, "XCOMP_BV"),
        _field(image, LEGACY_SIZE + 16, HEADER_SIZE - 16, "header, reserved"),
    ]
    for bit, start, size in ((0, 0, 0), (1, 0, 0), *image.places.slots):
        for register in of_component(bit) or (raw(bit, size),):
            part = register.parts[0]
            if bit < 2 or part.offset + part.size <= size:  # a CPU's LBR may have fewer records
                found.append(_field(image, start + part.offset, part.size, register.name))
    return _with_gaps(image, sorted(found))


def _with_gaps(image: Image, found: list[Field]) -> list[Field]:
    """Return *found* with a field for each run of bytes between."""
    whole: list[Field] = []
    end = 0
    for each in found:
        if each.offset > end:
            whole.append(_field(image, end, each.offset - end, "-"))
        whole.append(each)
        end = max(end, each.offset + each.size)
    if end < image.places.end:
        whole.append(_field(image, end, image.places.end - end, "-"))
    return whole


def _field(image: Image, offset: int, size: int, name: str) -> Field:
    return Field(offset, size, name, image.data[offset : offset + size].hex())


def fields_text(found: list[Field]) -> str:
    """Return `fields` as a table; a value of more than 32 bytes is cut there."""
    rows = [[str(f.offset), str(f.size), f.name, f.value if f.size <= 32 else f"{f.value[:64]}..."] for f in found]
    return table(("offset", "bytes", "field", "value"), rows, right=(0, 1))
