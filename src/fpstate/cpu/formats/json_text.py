"""JSON inputs: loading them without trust, and the numbers in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fpstate.cpu.dump import Registers
from fpstate.errors import UnreadableInput

__all__ = ["REGISTERS", "load", "registers", "u32", "u64"]

REGISTERS: Final = ("eax", "ebx", "ecx", "edx")

# A dmesg line begins with '[' as well: an array of ours holds objects.
_LIKE_JSON: Final = re.compile(r'\s*(?:\{\s*"|\[\s*\{)')
_HEX: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,16})")


def load(text: str, lines: Sequence[str]) -> tuple[Any, str | None]:
    """Return the JSON value that an input is, or None and, if it looks like JSON, why it is not.

    Args:
        text: the input as it came.
        lines: the same without quote marks and entities, in case it came by mail.
    """
    complaint: str | None = None
    for candidate in (text, "\n".join(lines)):
        if _LIKE_JSON.match(candidate):
            try:
                return json.loads(candidate), None
            except RecursionError:
                complaint = "nested too deeply"
            except ValueError as error:
                complaint = str(error)
    return None, complaint


def u64(value: object, what: str) -> int:
    """Return *value*, a number or a string of hex digits with or without ``0x``.

    Raises:
        UnreadableInput: it is neither, or does not fit into 64 bits; *what* names it in the message.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return value
    if isinstance(value, str) and (match := _HEX.fullmatch(value.strip())):
        return int(match[1], 16)
    raise UnreadableInput(f"{what} must be a number or hex digits, not {_short(value)}")


def u32(value: object, what: str) -> int:
    """Return *value* like `u64`, but only if it fits into 32 bits."""
    number = u64(value, what)
    if number >> 32:
        raise UnreadableInput(f"{what} must fit into 32 bits, not {_short(value)}")
    return number


def registers(value: object, what: str) -> Registers:
    """Return *value*, ``[eax, ebx, ecx, edx]`` or an object with these names, as registers.

    Raises:
        UnreadableInput: it is neither; *what* names it in the message.
    """
    if isinstance(value, Mapping):
        value = [value.get(name) for name in REGISTERS]
    if not isinstance(value, list) or len(value) != 4:
        raise UnreadableInput(f"{what} must be [eax, ebx, ecx, edx], not {_short(value)}")
    eax, ebx, ecx, edx = (u32(each, f"{what}, {name}") for each, name in zip(value, REGISTERS, strict=True))
    return eax, ebx, ecx, edx


def _short(value: object) -> str:
    """Return *value* as a message may quote it."""
    if isinstance(value, list | dict):
        return f"{'an array' if isinstance(value, list) else 'an object'} of {len(value)}"
    shown = repr(value) if not isinstance(value, int) or -(1 << 64) < value < 1 << 80 else "a larger number"
    return shown if len(shown) <= 40 else f"{shown[:40]}..."
