"""The set of visited states, for compiled searches: open addressing, probed for a batch of states at a time.

A key is a state's word with all bits turned, so that 0 stands for an empty place.  Before a batch is looked up its
places are read once: the processor fetches them from memory side by side.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["Numbers", "Visited", "Words", "least", "recently", "settle"]

Words = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
_BATCH: Final = 64
_RECENT: Final = 15
"""Places, a power of 2, for the states that came up last: most successors do so again soon."""
_RUN: Final = 1 << 18
_OF, _GROWS, _FULL, _SAFE = 4, 8, 10, 12
"""A table grows where so many sixteenths might be in use, and are; it is never fuller than the last."""
_ONE: Final = np.uint64(1)
_ZERO: Final = np.uint64(0)
_ALL: Final = np.uint64((1 << 64) - 1)
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_OTHER: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_HALF: Final = np.uint64(32)
_NEAR: Final = np.uint64(64 - _RECENT)


_SIGNATURE: Final = "int64(uint64[::1], int64, uint64[::1], int64, uint64[::1], uint64[::1], int64)"


@numba.njit("uint64(uint64)", cache=True, nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def _spread(word: Any) -> Any:
    word *= _FACTOR
    return (word ^ (word >> _HALF)) * _OTHER


@numba.njit(_SIGNATURE, cache=True, nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def _insert_1(  # noqa: PLR0917  compiled code has no keywords
    states: Words, count: int, table: Words, shift: int, recent: Words, new: Words, tail: int
) -> int:
    keys = np.empty(_BATCH, np.uint64)
    homes = np.empty(_BATCH, np.uint64)
    down, mask = np.uint64(shift), np.uint64(table.shape[0] - 1)
    touched = _ZERO
    at = 0
    while at < count:
        fill = 0
        while at < count and fill < _BATCH:
            key = states[at] ^ _ALL
            at += 1
            h = _spread(key)
            near = h >> _NEAR
            if recent[near] == key:
                continue
            recent[near] = key
            home = h >> down
            touched |= table[home]
            keys[fill], homes[fill] = key, home
            fill += 1
        for k in range(fill):
            key, home = keys[k], homes[k]
            while table[home] != key:
                if table[home] == _ZERO:
                    table[home] = key
                    new[tail] = key ^ _ALL
                    tail += 1
                    break
                home = (home + _ONE) & mask
    return -1 if touched == _ONE else tail  # no key is 1: this only keeps the reads


@numba.njit(_SIGNATURE, cache=True, nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def _insert_2(  # noqa: PLR0917  compiled code has no keywords
    states: Words, count: int, table: Words, shift: int, recent: Words, new: Words, tail: int
) -> int:
    keys = np.empty(_BATCH * 2, np.uint64)
    homes = np.empty(_BATCH, np.uint64)
    down, mask = np.uint64(shift), np.uint64(table.shape[0] // 2 - 1)
    touched = _ZERO
    at = 0
    while at < count:
        fill = 0
        while at < count and fill < _BATCH:
            key, more = states[2 * at] ^ _ALL, states[2 * at + 1]
            at += 1
            h = _spread(key + _spread(more))
            near = (h >> _NEAR) & ~_ONE
            if recent[near] == key and recent[near + _ONE] == more:
                continue
            recent[near], recent[near + _ONE] = key, more
            home = h >> down
            touched |= table[home + home]
            keys[2 * fill], keys[2 * fill + 1], homes[fill] = key, more, home
            fill += 1
        for k in range(fill):
            key, more, home = keys[2 * k], keys[2 * k + 1], homes[k]
            while table[home + home] != key or table[home + home + _ONE] != more:
                if table[home + home] == _ZERO:
                    table[home + home], table[home + home + _ONE] = key, more
                    new[2 * tail], new[2 * tail + 1] = key ^ _ALL, more
                    tail += 1
                    break
                home = (home + _ONE) & mask
    return -1 if touched == _ONE else tail


@numba.njit("void(uint64[::1], int64, uint64[::1], int64)", cache=True, nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def _again_1(states: Words, count: int, table: Words, shift: int) -> None:
    down, mask = np.uint64(shift), np.uint64(table.shape[0] - 1)
    for i in range(count):
        key = states[i] ^ _ALL
        home = _spread(key) >> down
        while table[home] != _ZERO:
            home = (home + _ONE) & mask
        table[home] = key


@numba.njit("void(uint64[::1], int64, uint64[::1], int64)", cache=True, nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def _again_2(states: Words, count: int, table: Words, shift: int) -> None:
    down, mask = np.uint64(shift), np.uint64(table.shape[0] // 2 - 1)
    for i in range(count):
        key, more = states[2 * i] ^ _ALL, states[2 * i + 1]
        home = _spread(key + _spread(more)) >> down
        while table[home + home] != _ZERO:
            home = (home + _ONE) & mask
        table[home + home], table[home + home + _ONE] = key, more


@numba.njit(  # type: ignore[untyped-decorator,unused-ignore]
    "int64(uint64[::1], int64, int64, int64[::1], int64[::1], int64[::1], int64[::1], int64[:,::1], int64[:,::1],"
    " uint64[:,::1], uint64[::1], int64[::1])",
    cache=True,
    nogil=True,
)
def settle(  # noqa: PLR0917  compiled code has no keywords
    states: Words,
    count: int,
    words: int,
    tags: Numbers,
    matters: Numbers,
    before: Numbers,
    kept: Numbers,
    written: Any,
    reads: Any,
    masks: Any,
    recent: Words,
    missing: Numbers,
) -> int:
    """Empty the places of *states* that do not matter, and leave out those that came up lately; return how many stay.

    Each came by the flow, and from the state, that its tag names.  Where something matters after it that did not
    *before*, the state's *missing* has it.
    """
    stay = 0
    for i in range(count):
        flow, origin, after = tags[i] & 4095, tags[i] >> 12, matters[i]
        needed = after & kept[flow]
        for k in range(written.shape[1]):
            if after & written[flow, k]:
                needed |= reads[flow, k]
        missing[origin] |= needed & ~before[origin]
        more = _ZERO
        for w in range(words):
            more = states[i * words + w] & masks[after, w]
            states[stay * words + w] = more
        key = states[stay * words] ^ _ALL
        near = (_spread(key + _spread(more)) >> _NEAR) & ~_ONE
        if recent[near] != key or recent[near + _ONE] != more:
            recent[near], recent[near + _ONE] = key, more
            stay += 1
    return stay


@numba.njit(  # type: ignore[untyped-decorator,unused-ignore]
    "void(uint64[::1], int64, int64, uint64[:,:,:,::1], int64[::1], int64[::1], int64[::1])", cache=True, nogil=True
)
def least(  # noqa: PLR0917  compiled code has no keywords
    states: Words, count: int, words: int, tables: Any, word_of: Numbers, shifts: Numbers, sizes: Numbers
) -> None:
    """Put the least of each state's renamings in its place."""
    groups = tables.shape[1]
    codes = np.empty(groups, np.int64)
    for i in range(count):
        best = first = states[i * words]
        other = second = states[i * words + words - 1]
        for g in range(groups):
            word = second if word_of[g] else first
            codes[g] = np.int64(word >> np.uint64(shifts[g])) & sizes[g]
        if words == 1:
            other = _ZERO
        for r in range(tables.shape[0]):
            a, b = _ZERO, _ZERO
            for g in range(groups):
                a |= tables[r, g, codes[g], 0]
                b |= tables[r, g, codes[g], 1]
            if a < best:
                best, other = a, b
            elif a == best and b < other:
                other = b
        states[i * words] = best
        if words == 2:
            states[i * words + 1] = other


def recently() -> Words:
    """Return room for states that came up lately."""
    return np.zeros(1 << _RECENT, np.uint64)


class Visited:
    """The states seen so far: in order, in runs of memory that stay where they are, and as a table.

    Attributes:
        runs: of states, in the order in which they were found.
        count: how many states there are.
    """

    def __init__(self, words: int) -> None:
        self.words = words
        self.runs: list[Words] = [np.empty(_RUN * words, np.uint64)]
        self.tail = self.count = 0
        self._bits = 14
        self._table = np.zeros(words << self._bits, np.uint64)
        self._recent = recently()
        self._insert, self._again = (_insert_1, _again_1) if words == 1 else (_insert_2, _again_2)

    def add(self, states: Words, count: int) -> None:
        """Add those of the first *count* of *states* that are new."""
        while self.count + count > _FULL << self._bits >> _OF and self.count > _GROWS << self._bits >> _OF:
            self._grow()
        if self.count + count > _SAFE << self._bits >> _OF:
            half = count // 2  # many come up again: look before there is no room
            self.add(states, half)
            self.add(states[half * self.words :], count - half)
            return
        if (self.tail + count) * self.words > len(self.runs[-1]):
            self.runs[-1] = self.runs[-1][: self.tail * self.words].copy()
            self.runs.append(np.empty(max(_RUN, count) * self.words, np.uint64))
            self.tail = 0
        tail = self._insert(states, count, self._table, 64 - self._bits, self._recent, self.runs[-1], self.tail)
        self.count += tail - self.tail
        self.tail = tail

    def run(self, number: int) -> Words:
        """Return the states of a run."""
        return self.runs[number] if number < len(self.runs) - 1 else self.runs[-1][: self.tail * self.words]

    def _grow(self) -> None:
        self._bits += 1
        self._table = np.zeros(0, np.uint64)  # let go of the old one first
        self._table = np.zeros(self.words << self._bits, np.uint64)
        for number in range(len(self.runs)):
            run = self.run(number)
            self._again(run, len(run) // self.words, self._table, 64 - self._bits)

    @property
    def memory(self) -> int:
        """Bytes of states and table."""
        return self._table.nbytes + self.count * self.words * 8
