"""Fields of JSON objects, read without trust."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from fpstate.errors import UnreadableInput

__all__ = ["LONGEST_LINE", "Document", "hex_bytes", "hex_number", "once", "quoted", "read_lines", "text"]

Document = dict[str, Any]

LONGEST_LINE: Final = 1 << 24
"""Characters of a line."""


def read_lines(lines: Iterable[str]) -> Iterator[tuple[int, Document]]:
    """Yield (line number, object) of JSON lines; empty ones are skipped.

    Raises:
        UnreadableInput: a line is too long, no JSON, or no object; names it.
    """
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE:
            raise UnreadableInput(f"line {number} is longer than {LONGEST_LINE >> 20} MiB")
        if not line.strip():
            continue
        try:
            found = json.loads(line, object_pairs_hook=once)
        except RecursionError as error:
            raise UnreadableInput(f"line {number} is nested too deeply") from error
        except UnreadableInput as refusal:
            raise UnreadableInput(f"line {number}: {refusal}") from refusal
        except ValueError as error:
            why = "a number is too long" if "int_max_str" in str(error) else str(error)
            raise UnreadableInput(f"line {number} is not JSON: {why}", cure="give one object a line") from error
        if not isinstance(found, dict):
            raise UnreadableInput(f"line {number} is not a JSON object")
        yield number, found


def once(pairs: list[tuple[str, Any]]) -> Document:
    """Return an object in which no name stands twice.

    Raises:
        UnreadableInput: one does.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise UnreadableInput(f"{quoted(next(n for n in names if names.count(n) > 1))} stands twice in an object")
    return found


def hex_number(value: object, what: str, *, width: int = 64) -> int:
    """Read a number of *width* bits: hex digits with or without ``0x``, or a JSON number.

    Raises:
        UnreadableInput: it is none; *what* names it.
    """
    number = -1
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and len(value) <= 20 and value.isascii() and "_" not in value:
        try:
            number = int(value, 16)
        except ValueError:
            number = -1
    if not 0 <= number < 1 << width:
        raise UnreadableInput(f"{what} must be hex of at most {width} bits, not {quoted(value)}")
    return number


def hex_bytes(value: object, what: str) -> bytes:
    """Read a string of hex digits, two a byte.

    Raises:
        UnreadableInput: it is none; *what* names it.
    """
    digits = text(value, what)
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise UnreadableInput(f"{what} must be hex digits, two a byte, not {quoted(value)}") from None


def text(value: object, what: str) -> str:
    """Return *value* if it is a string.

    Raises:
        UnreadableInput: it is none; *what* names it.
    """
    if not isinstance(value, str):
        raise UnreadableInput(f"{what} must be a string, not {quoted(value)}")
    return value


def quoted(value: object) -> str:
    """Return *value* as a message may quote it."""
    if isinstance(value, list | dict):
        return f"{'an array' if isinstance(value, list) else 'an object'} of {len(value)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    shown = repr(value) if not isinstance(value, int) or abs(value) < 1 << 80 else "a larger number"
    return shown if len(shown) <= 40 else f"{shown[:40]}..."
