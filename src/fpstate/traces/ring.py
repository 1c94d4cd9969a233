"""Pages of the kernel's ring buffer: where each record lies, and at what time it was written.

A record's place is known only once the one before it was looked at, but pages know nothing of each other: so many
pages are walked in step, the k-th record of all of them at once.  Times of a page add up from the one at its start.

Source: Linux 6.18 ``include/linux/ring_buffer.h`` (``enum ring_buffer_type``), ``kernel/trace/ring_buffer.c``
(``rb_event_length``, ``rb_update_read_stamp``, ``RB_MISSED_EVENTS``, ``RB_MISSED_STORED``); libtraceevent
``kbuffer-parse.c``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from fpstate.errors import UnreadableInput
from fpstate.traces.formats import Field

__all__ = ["MOST_PAGE", "Layout", "Records", "walk"]

MOST_PAGE: Final = 1 << 20
"""Bytes of the largest page that is believed: x86 has 4096, and ``buffer_subbuf_size_kb`` multiplies it."""

_LOST: Final = 1 << 31
_COUNTED: Final = 1 << 30
_USED: Final = _COUNTED - 1

_LARGE, _PADDING, _EXTEND, _STAMP = 0, 29, 30, 31
_SHIFT: Final = 27
_STAMP_BITS: Final = 59
"""Of the clock in an absolute stamp; the upper five stay as they were."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a page lie, in bytes.

    Attributes:
        page: size of a page.
        time: offset of the u64 time at its start.
        commit: offset of the word that says how much is used.
        data: offset of the first record.
        long: size of the kernel's ``long``: that of a count of lost events.
    """

    page: int = 4096
    time: int = 0
    commit: int = 8
    data: int = 16
    long: int = 8

    @classmethod
    def of(cls, fields: Mapping[str, Field], *, page: int | None = None) -> Self:
        """Return the layout that ``events/header_page`` tells.

        Raises:
            UnreadableInput: pages like that cannot be walked.
        """
        try:
            time, commit, data = fields["timestamp"], fields["commit"], fields["data"]
        except KeyError as missing:
            raise UnreadableInput(f"header_page names no field {missing}") from missing
        found = cls(page or data.end, time.offset, commit.offset, data.offset, commit.size)
        found.check()
        return found

    def check(self) -> None:
        """Refuse what cannot be walked.

        Raises:
            UnreadableInput: the page is larger than `MOST_PAGE`, or a part lies outside, or not at a whole word.
        """
        if self.page % 4 or not self.data < self.page <= MOST_PAGE:
            raise UnreadableInput(f"a ring-buffer page of {self.page} bytes, its records at {self.data}")
        parts = (self.time, self.time + 8, self.commit, self.commit + self.long, self.data)
        if any(part % 4 or part > self.data for part in parts) or self.long not in {4, 8}:
            raise UnreadableInput(
                f"a ring-buffer page with its time at {self.time}, commit ({self.long} bytes) at {self.commit} "
                f"and records at {self.data}"
            )


Indices = NDArray[np.intp]
Words = NDArray[np.uint32]


@dataclass(slots=True, eq=False)
class Records:
    """Records of some pages, in the pages' order.

    Attributes:
        words: the pages, as little-endian u32.
        start: word at which each record's payload begins.
        end: word behind it.
        time: of each record, uint64.
        page: to which page each belongs.
        lost: pages before which events were lost.
        counts: how many, 0 where nobody counted.
        lost_time: the time at the start of those pages.
        faults: (rule, page, byte in the page, in words) of what is wrong; the records before it stand.
    """

    words: Words
    start: Indices
    end: Indices
    time: NDArray[np.uint64]
    page: Indices
    lost: Indices
    counts: NDArray[np.uint64]
    lost_time: NDArray[np.uint64]
    faults: list[tuple[str, int, int, str]]


def walk(words: Words, layout: Layout) -> Records:
    """Find the records of whole pages; *words* holds nothing else."""
    per_page = layout.page // 4
    pages = words.reshape(-1, per_page)
    time = _u64(pages, layout.time // 4)
    commit = pages[:, layout.commit // 4]
    used = (commit & np.uint32(_USED)).astype(np.intp)
    faults: list[tuple[str, int, int, str]] = []
    room = layout.page - layout.data
    for page in np.flatnonzero(used > room)[:_MOST_FAULTS].tolist():
        text = f"the page says that {used[page]} bytes are used, and has {room}"
        faults.append(("ring.commit-beyond-page", page, layout.commit, text))
    used = np.where(used > room, 0, used)
    first = np.arange(len(pages), dtype=np.intp) * per_page + layout.data // 4
    steps = _Walk(words, (first, first + used // 4), time, layout, faults)
    steps.go()
    start, end, at, page_of = steps.result()
    lost, counts = _lost(pages, commit, used, layout)
    return Records(words, start, end, at, page_of, lost, counts, time[lost], faults)


_MOST_FAULTS: Final = 64
"""Faults of one kind that are told of one batch of pages: a file of noise has one a page."""


def _u64(pages: NDArray[np.uint32], word: int) -> NDArray[np.uint64]:
    return pages[:, word].astype(np.uint64) | pages[:, word + 1].astype(np.uint64) << np.uint64(32)


def _lost(
    pages: NDArray[np.uint32], commit: NDArray[np.uint32], used: Indices, layout: Layout
) -> tuple[Indices, NDArray[np.uint64]]:
    """Return the pages before which events were lost, and how many: the count stands behind the last record."""
    lost = np.flatnonzero(commit & np.uint32(_LOST))
    counts = np.zeros(len(lost), np.uint64)
    for row, page in enumerate(lost.tolist()):
        at = (layout.data + int(used[page]) + 3) // 4
        if int(commit[page]) & _COUNTED and (at * 4) + layout.long <= layout.page:
            counts[row] = int.from_bytes(pages[page, at : at + layout.long // 4].astype("<u4").tobytes(), "little")
    return lost, counts


class _Walk:
    """The walk in step: one cursor a page that is not at its end."""

    def __init__(
        self,
        words: Words,
        extent: tuple[Indices, Indices],
        time: NDArray[np.uint64],
        layout: Layout,
        faults: list[tuple[str, int, int, str]],
    ) -> None:
        first, end = extent
        self.words, self.faults, self.per_page = words, faults, layout.page // 4
        self.count = len(first)
        most = self.per_page - layout.data // 4
        # Rows that no step reaches are never touched, so they cost address space only.
        self.starts = np.zeros((most, self.count), np.intp)
        self.ends = np.empty((most, self.count), np.intp)
        self.times = np.empty((most, self.count), np.uint64)
        self.steps = 0
        self.who = np.flatnonzero(first < end)
        self.at, self.limit, self.now = first[self.who], end[self.who], time[self.who]

    def go(self) -> None:
        """Walk to the end of every page."""
        while len(self.who):
            head = self.words.take(self.at)
            kind = head & np.uint32(31)
            size = kind.astype(np.intp)
            size += 1
            self.now = self.now + (head >> np.uint32(5))
            start = self.at + 1
            odd = np.flatnonzero(kind - np.uint32(1) > np.uint32(27))
            if len(odd):
                self._odd(odd, kind, head, size, start)
            self._store(start, size)

    def _odd(self, odd: Indices, kind: Words, head: Words, size: Indices, start: Indices) -> None:
        """Correct what differs in a record that is no small event: its size, its time, whether it is one at all."""
        at, kinds = self.at[odd], kind[odd]
        second = self.words.take(at + 1, mode="clip")
        whole = at + 1 < self.limit[odd]
        length = (second.astype(np.intp) + 3) // 4
        large = kinds == _LARGE
        delta = (head[odd] >> np.uint32(5)).astype(np.uint64)
        wide = second.astype(np.uint64) << np.uint64(_SHIFT)
        before = self.now[odd] - delta
        stamp = wide | delta
        now = np.select(
            [kinds == _PADDING, kinds == _EXTEND, kinds == _STAMP],
            [before, before + stamp, _absolute(stamp, before)],
            self.now[odd],
        )
        at_end = (kinds == _PADDING) & (delta == 0)
        steps = np.where(large | (kinds == _PADDING), 1 + length, 2)
        # A large event counts the word that holds its length; one that does not is of no size, and cannot be.
        steps = np.where(whole & ~(large & (length < 1)), steps, self.per_page)
        size[odd] = np.where(at_end, self.limit[odd] - at, steps)
        start[odd] = np.where(large, at + 2, 0)
        self.now[odd] = now

    def _store(self, start: Indices, size: Indices) -> None:
        """Keep this step's records, and go to the next of each page."""
        following = self.at + size
        over = following > self.limit
        if over.any():
            self._tell(np.flatnonzero(over))
            start[over] = 0
        row = self.steps
        if len(self.who) == self.count:
            self.starts[row], self.ends[row], self.times[row] = start, following, self.now
        else:
            self.starts[row, self.who], self.ends[row, self.who] = start, following
            self.times[row, self.who] = self.now
        self.steps += 1
        self.at = following
        going = following < self.limit
        if not going.all():
            rest = np.flatnonzero(going)
            self.who, self.at = self.who[rest], following[rest]
            self.limit, self.now = self.limit[rest], self.now[rest]

    def _tell(self, over: Indices) -> None:
        room = max(0, _MOST_FAULTS - len(self.faults))
        for row in over[:room].tolist():
            page, word = divmod(int(self.at[row]), self.per_page)
            text = f"a record of type_len {int(self.words[self.at[row]]) & 31} ends behind what the page has in use"
            self.faults.append(("ring.record-beyond-commit", page, word * 4, text))

    def result(self) -> tuple[Indices, Indices, NDArray[np.uint64], Indices]:
        """Return starts, ends, times and pages of the records, page after page."""
        # Transposed, a row holds a page's records in their order; word 0 is in no record.
        starts = np.ascontiguousarray(self.starts[: self.steps].T).ravel()
        kept = np.flatnonzero(starts)
        ends = np.ascontiguousarray(self.ends[: self.steps].T).ravel()
        times = np.ascontiguousarray(self.times[: self.steps].T).ravel()
        page = kept // max(1, self.steps)
        return starts[kept], ends[kept], times[kept], page


def _absolute(stamp: NDArray[np.uint64], before: NDArray[np.uint64]) -> NDArray[Any]:
    """Return the time of an absolute stamp: its upper bits are those of the time before, or one more if it wrapped."""
    low = np.uint64((1 << _STAMP_BITS) - 1)
    full = (before & ~low) | (stamp & low)
    return np.where(full < before, full + (low + np.uint64(1)), full)
