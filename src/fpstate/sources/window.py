"""Reading fields out of bytes that nobody vouches for: what lies outside is refused with its offset, never indexed."""

from __future__ import annotations

import struct
from typing import Any

from fpstate.errors import UnreadableInput
from fpstate.sources.capture import Damage

__all__ = ["Broken", "unpack", "view"]


class Broken(UnreadableInput):
    """A part of a source that cannot be read.

    Attributes:
        damage: the rule that it breaks, where and how.
    """

    def __init__(self, damage: Damage) -> None:
        where = "" if damage.offset is None else f" at byte {damage.offset}"
        super().__init__(f"{damage.text}{where} ({damage.rule})", cure=damage.cure or None)
        self.damage = damage


def view(data: memoryview, offset: int, size: int, *, rule: str, what: str) -> memoryview:
    """Return *size* bytes of *data* from *offset* on, without copying them.

    Args:
        data: the source.
        offset: of the first, in bytes from the start of *data*.
        size: how many.
        rule: the id of the rule that says that they must be there.
        what: what they are, for the message.

    Raises:
        Broken: *data* ends before them, or *offset* lies before it.
    """
    if offset < 0 or size < 0 or offset + size > len(data):
        end = offset + size
        raise Broken(Damage(rule, f"{what} ends at byte {end}, the source at {len(data)}", offset, "give all of it"))
    return data[offset : offset + size]


def unpack(layout: str, data: memoryview, offset: int, *, rule: str, what: str) -> tuple[Any, ...]:
    """Return the fields of a ``struct`` *layout* at *offset*; else as `view`."""
    return struct.unpack(layout, view(data, offset, struct.calcsize(layout), rule=rule, what=what))
