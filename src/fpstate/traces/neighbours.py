"""Of rows with keys: which row of the same key stands before each, across blocks and across parts of a recording.

A rule about what may follow what, a time between two events, and a count of what was skipped all look at two rows that
share a key (a ``struct fpu``, a thread, a CPU) with no row of that key between them.  Who feeds block after block gets
every such pair once, and who feeds parts of a recording apart from each other and then joins them in order gets the
same pairs: so a part can be worked on anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fpstate.traces.columns import LOST, Block

__all__ = ["Neighbours", "Pairs"]

Keys = NDArray[np.integer[Any]]


class Pairs(NamedTuple):
    """Rows, and the row that stands before each."""

    before: Block
    after: Block


@dataclass(slots=True)
class _Rows:
    """One row a key: the keys in ascending order, each once."""

    keys: Keys
    rows: Block

    def among(self, others: Self) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Return which keys *others* has too, and where it has them."""
        if not len(others.keys):
            return np.zeros(len(self.keys), np.bool_), np.zeros(0, np.intp)
        at = np.minimum(np.searchsorted(others.keys, self.keys), len(others.keys) - 1)
        there = others.keys[at] == self.keys
        return there, at[there]

    def with_missing(self, others: Self) -> Self:
        """Return these rows, and those of *others* whose keys are not here."""
        there, _ = others.among(self)
        keys = np.concatenate([self.keys, others.keys[~there]])
        order = np.argsort(keys, kind="stable")
        return type(self)(keys[order], Block.join([self.rows, others.rows.take(~there)]).take(order))


class Neighbours:
    """Pairs of neighbouring rows, each given once, as soon as both were fed.

    A row of lost events (`LOST`) has no key and stands before every key's next row: what lies on both sides of it are
    no neighbours.  What is kept is two rows a key: its first, for what a part before this one ended with, and its last.
    """

    def __init__(self) -> None:
        self._first: _Rows | None = None
        self._last: _Rows | None = None
        self._lost = False
        """Whether events were lost: then no row that follows is the first of its key."""

    def feed(self, block: Block, keys: Keys) -> Pairs:
        """Return the pairs whose later row is in *block*; *keys* has each row's key, always of one integer type."""
        lost = block.code == LOST
        stretch = np.cumsum(lost)
        if lost.any():
            block, keys, stretch = block.take(~lost), keys[~lost], stretch[~lost]
        order = np.argsort(keys, kind="stable")
        keys, stretch = keys[order], stretch[order]
        other = keys[1:] != keys[:-1]
        end = np.ones(min(1, len(keys)), np.bool_)
        within = np.flatnonzero(~other & (stretch[1:] == stretch[:-1]))
        head = np.flatnonzero(np.concatenate([end, other]) & (stretch == 0))
        tail = np.flatnonzero(np.concatenate([other, end]) & (stretch == np.count_nonzero(lost)))
        first, last = (_Rows(keys[at], block.take(order[at])) for at in (head, tail))
        across = self._follow(first, last, lost=bool(lost.any()))
        before, after = block.take(order[within]), block.take(order[within + 1])
        return Pairs(Block.join([across.before, before]), Block.join([across.after, after]))

    def join(self, later: Neighbours) -> Pairs:
        """Take in what followed, fed elsewhere, and return the pairs that lie across."""
        if later._first is None or later._last is None:
            return Pairs(Block.join([]), Block.join([]))
        return self._follow(later._first, later._last, lost=later._lost)

    def ends(self) -> Block:
        """Return the last row of each key, as far as no event was lost since."""
        return Block.join([] if self._last is None else [self._last.rows])

    def _follow(self, first: _Rows, last: _Rows, *, lost: bool) -> Pairs:
        """Take in rows that follow, by the first and the last of each key; return the pairs that lie across."""
        if self._first is None or self._last is None:
            self._first, self._last, self._lost = first, last, lost
            return Pairs(Block.join([]), Block.join([]))
        there, at = first.among(self._last)
        across = Pairs(self._last.rows.take(at), first.rows.take(there))
        if not self._lost:
            self._first = self._first.with_missing(first)
        self._last = last if lost else last.with_missing(self._last)
        self._lost |= lost
        return across
