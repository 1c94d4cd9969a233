"""The kernel's ``format`` files: which fields an event has, and where each lies.

A recording carries these files with it, because identifiers and offsets change from kernel to kernel: nothing is read
at an offset that they do not give.  Sources: Linux ``kernel/trace/trace_events.c`` (``f_show``,
``ring_buffer_print_page_header``), ``Documentation/trace/events.rst``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

__all__ = ["MOST_SIZE", "Field", "Format", "read_fields", "read_format"]

MOST_SIZE: Final = 1 << 20
"""Bytes of an event's payload that a field may end at: a page of the ring buffer is never larger."""

_HEAD: Final = re.compile(r"\s*name:\s*(?P<name>[^\s]+)\s*\n\s*ID:\s*(?P<id>\d{1,6})\s*\n")
_FIELD: Final = re.compile(
    r"^\s*field:\s*(?P<declared>[^;\n]{1,4000});\s*offset:(?P<offset>\d{1,9});\s*size:(?P<size>\d{1,9});"
    r"(?:\s*signed:(?P<signed>[01]);)?",
    re.MULTILINE,
)
_NAME: Final = re.compile(r"(?P<name>\w+)\s*(?P<array>\[[^\]]*\])?\s*$")


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field lies: bytes from the start of the payload, and how wide it is.

    Attributes:
        offset: bytes.
        size: bytes; of an array, of the whole of it.
        signed: whether the kernel calls it signed.
        array: whether it is one.
    """

    offset: int
    size: int
    signed: bool = False
    array: bool = False

    @property
    def end(self) -> int:
        """Bytes from the start of the payload to the field's end."""
        return self.offset + self.size


@dataclass(frozen=True)
class Format:
    """An event's format.

    Attributes:
        system: the event's, as the recording files it.
        name: the event's.
        number: its identifier in this recording: what ``common_type`` holds.
        text: the file.
    """

    system: str
    name: str
    number: int
    text: str

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """All fields by name, the common ones among them; read when first asked for, as most never are."""
        return read_fields(self.text)


def read_format(system: str, text: str) -> Format | None:
    """Return what a ``format`` file says; None if it is none."""
    head = _HEAD.match(text)
    if head is None or int(head["id"]) > 0xFFFF:
        return None
    return Format(system, head["name"], int(head["id"]), text)


def read_fields(text: str) -> dict[str, Field]:
    """Return the fields of a ``format`` or ``header_page`` file by name; those that lie past `MOST_SIZE` are none."""
    return dict(_fields(text.partition("\nprint fmt:")[0]))


def _fields(text: str) -> Iterator[tuple[str, Field]]:
    for match in _FIELD.finditer(text):
        named = _NAME.search(match["declared"])
        if named is None:
            continue
        field = Field(int(match["offset"]), int(match["size"]), match["signed"] == "1", named["array"] is not None)
        if field.size and field.end <= MOST_SIZE:
            yield named["name"], field
