"""The protobuf wire format, as far as reading numbers out of messages needs it.

Forty lines in place of a library: the base install has none, and importing one takes longer than reading an image.
Source: "Encoding", the reference of Protocol Buffers.
"""

from __future__ import annotations

from typing import Final

from fpstate.sources.capture import Damage
from fpstate.sources.window import Broken

__all__ = ["Message", "message", "numbers"]

Message = dict[int, list["int | memoryview"]]
"""Field number to its values in order: a number, or the bytes of what has a length."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT: Final = 10


def _broken(text: str, at: int) -> Broken:
    return Broken(Damage("protobuf.wire", text, at, "the file is cut short or damaged"))


def _varint(data: memoryview, at: int, base: int) -> tuple[int, int]:
    """Return the number at *at*, cut to 64 bits, and where it ends."""
    value = shift = 0
    for end in range(at, min(at + _LONGEST_VARINT, len(data))):
        byte = data[end]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, end + 1
        shift += 7
    raise _broken("a number does not end", base + at)


def message(data: memoryview, base: int) -> Message:
    """Return the fields of one message.

    Args:
        data: its bytes.
        base: where they begin in the source, for messages.

    Raises:
        Broken: it is no message.
    """
    found: Message = {}
    at = 0
    while at < len(data):
        tag, start = _varint(data, at, base)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, start, base)
            found.setdefault(tag >> 3, []).append(value)
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
        if kind == _LENGTH:
            size, start = _varint(data, start, base)
        if size < 0:
            raise _broken(f"field {tag >> 3} has the wire type {kind}, which is none", base + at)
        if start + size > len(data):
            raise _broken(f"field {tag >> 3} has {size} bytes, and {len(data) - start} are there", base + at)
        piece = data[start : start + size]
        at = start + size
        number = piece if kind == _LENGTH else int.from_bytes(piece, "little")
        found.setdefault(tag >> 3, []).append(number)
    return found


def numbers(found: Message, field: int) -> list[int]:
    """Return the numbers of a repeated field, packed or not."""
    values: list[int] = []
    for value in found.get(field, ()):
        if isinstance(value, int):
            values.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at, 0)
            values.append(number)
    return values
