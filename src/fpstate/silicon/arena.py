"""The arena: the pages in which areas lie, mapped twice, so that Python reaches what the instructions may not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Literal

from fpstate.errors import UsageError
from fpstate.silicon.context import PAGE
from fpstate.silicon.memory import NONE, READ, READ_WRITE, address_of, map_shared, protect

__all__ = ["ARENA_PAGES", "ARENA_SIZE", "Arena", "Protection"]

ARENA_PAGES: Final = 8
"""Pages that an area and what lies around it may take."""
ARENA_SIZE: Final = ARENA_PAGES * PAGE

Protection = Literal["rw", "r", "none"]

_PROTECTIONS: Final[dict[str, int]] = {"rw": READ_WRITE, "r": READ, "none": NONE}
_OPEN: Final[tuple[Protection, ...]] = ("rw",) * ARENA_PAGES


class Arena:
    """`ARENA_PAGES` pages of one memory file in two views: one with protections, one without.

    Attributes:
        base: the address that instructions are given.
        view: the other view.

    Raises:
        OSError: the kernel refuses the memory.
    """

    def __init__(self) -> None:
        descriptor = os.memfd_create("fpstate-arena")
        try:
            os.ftruncate(descriptor, ARENA_SIZE)
            self._protected = map_shared(descriptor, ARENA_SIZE)
            self.view = map_shared(descriptor, ARENA_SIZE)
        finally:
            os.close(descriptor)
        self.base = address_of(self._protected)
        self._protection = _OPEN

    def protect(self, wanted: Sequence[Protection] | None) -> None:
        """Give every page its protection; only those that change cost a system call.

        Raises:
            UsageError: there are more or fewer protections than pages, or one is unknown.
        """
        target = _OPEN if wanted is None else tuple(wanted)
        if target == self._protection:
            return
        if len(target) != ARENA_PAGES or not _PROTECTIONS.keys() >= set(target):
            raise UsageError(
                f"the arena has {ARENA_PAGES} pages, each of protection {', '.join(_PROTECTIONS)}: not {target!r}"
            )
        page = 0
        while page < ARENA_PAGES:
            end = page + 1
            if target[page] != self._protection[page]:
                while end < ARENA_PAGES and target[end] == target[page]:
                    end += 1
                protect(self.base + page * PAGE, (end - page) * PAGE, _PROTECTIONS[target[page]])
            page = end
        self._protection = target

    def close(self) -> None:
        """Unmap it."""
        self._protected.close()
        self.view.close()
