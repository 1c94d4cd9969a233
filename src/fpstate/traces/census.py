"""What a run did with extended state, counted: how often which fpstate was saved or restored with which XSTATE_BV.

The counts know nothing of order, so that a policy can be priced without the recording.  What they need of it is whose
fpstate a row speaks of.  KVM plugs the guest's fpstate into the task (``fpu_swap_kvm_fpstate()``): it saves what is
there unless it lies in memory already, restores the other, prints x86_fpu_regs_activated, and then comes kvm_fpu.  So
of a thread's rows between two kvm_fpu the last activation is the second one's swap: what lies before it is of the
fpstate that was plugged in, what follows of the next.

A swap's own save prints nothing.  That it happened is told by the flag of its activation (TIF_NEED_FPU_LOAD: clear,
and the registers were saved), and what it saved by the swap that loads that fpstate again: nothing writes it in
between but ioctls.

Sources: Linux 6.18 ``arch/x86/kernel/fpu/core.c``, ``arch/x86/kvm/x86.c``, ``arch/x86/include/asm/fpu/sched.h``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpstate.traces.columns import ABSENT, CODES, LOST, MISSING, Block
from fpstate.traces.neighbours import Neighbours, Pairs
from fpstate.xfeatures import COMPACTED

__all__ = ["OPS", "UNKNOWN", "Census", "Counts", "Move"]

UNKNOWN: Final = -1
"""A mask that the recording does not tell."""

OPS: Final[Mapping[str, str]] = {
    "save": "saved when switched out, or for a core dump",
    "restore": "restored on the way to user mode or into the guest",
    "swap save": "saved when KVM plugs the other fpstate in",
    "swap restore": "restored when KVM plugs it in",
    "fork": "saved into a child's fpstate",
    "drop": "dropped on exit: nothing moves",
    "set": "registers set by a signal's delivery or return: not priced, no policy differs in it",
}
"""What is counted."""

_KINDS: Final = {
    "x86_fpu_regs_activated": 0,
    "x86_fpu_regs_deactivated": 1,
    "x86_fpu_dropped": 2,
    "x86_fpu_copy_dst": 3,
    "x86_fpu_after_save": 4,
    "kvm_fpu": 5,
}
_ACTIVATED, _DEACTIVATED, _DROPPED, _FORK, _SAVED, _KVM = range(6)
_BY_CODE: Final = np.full(max(CODES.values()) + 1, 255, np.uint8)
_BY_CODE[[CODES[name] for name in _KINDS]] = list(_KINDS.values())
_STALE: Final = (UNKNOWN, UNKNOWN)
_NOT_TOLD: Final = 2
"""A flag that the recording does not have."""


class Move(NamedTuple):
    """What is counted: one kind of operation on one kind of fpstate.

    Attributes:
        op: one of `OPS`.
        guest: whether the fpstate is a vCPU's.
        in_use: XSTATE_BV, or `UNKNOWN`.
        buffer: the components that the fpstate has room for, 0 in standard format, or `UNKNOWN`.
    """

    op: str
    guest: bool
    in_use: int
    buffer: int


class _Row(NamedTuple):
    """What a row says, without time and place; `flag` is TIF_NEED_FPU_LOAD, or `_NOT_TOLD`."""

    kind: int
    flag: int
    in_use: int
    buffer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """A census that is closed.

    Attributes:
        moves: how often each happened.
        tasks: distinct ``struct fpu`` seen, one a task; by the components that its own fpstate had room for.
        vcpus: likewise of those in which KVM swapped, by the room of the guest's fpstate.
        events: rows of x86_fpu and kvm_fpu.
        lost: events that were lost; lost_rows: places where some were.
        stale: rows whose masks cannot be: no kernel with OSXSAVE printed them.
        has_kvm: whether a kvm_fpu was seen.
    """

    moves: Mapping[Move, int]
    tasks: Mapping[int, int]
    vcpus: Mapping[int, int]
    events: int
    lost: int
    lost_rows: int
    stale: int
    has_kvm: bool


_NO_ROW: Final = _Row(_ACTIVATED, _NOT_TOLD, *_STALE)
"""Stands for an activation that was not seen."""

# One thread's rows, as far as they are not resolved


@dataclass(slots=True)
class _Segment:
    """Rows of a thread with no kvm_fpu among them: those before the last activation, that, and those behind it."""

    body: Counter[_Row] = field(default_factory=Counter)
    last: _Row | None = None
    fpu: int = 0
    tail: Counter[_Row] = field(default_factory=Counter)

    def all(self) -> Counter[_Row]:
        """Return all of them."""
        rows = self.body + self.tail
        if self.last is not None:
            rows[self.last] += 1
        return rows

    def then(self, later: _Segment) -> _Segment:
        """Return these rows and those of *later*."""
        if later.last is None:
            return _Segment(self.body, self.last, self.fpu, self.tail + later.tail)
        return _Segment(self.all() + later.body, later.last, later.fpu, later.tail)


@dataclass(slots=True)
class _Thread:
    """A thread's rows: before its first kvm_fpu, and behind its last; what lies between was counted.

    Attributes:
        head: the rows before the first kvm_fpu; all of them if there is none.
        first: whether that loads the guest's; None if there is none.
        again: the second swap's activation: what it loads, the first swap has saved, if it did.
        last, flag: of the last kvm_fpu, and of its swap's activation; the flag of the first one lies in *head*.
        open: the rows behind it.
    """

    head: _Segment
    first: bool | None = None
    again: _Row | None = None
    last: bool = False
    flag: int | None = None
    open: _Segment = field(default_factory=_Segment)


class Census:
    """Counts blocks of a recording, in their order; parts counted apart and joined in order give the same counts."""

    def __init__(self) -> None:
        self._moves: Counter[Move] = Counter()
        self._threads: dict[int, _Thread] = {}
        self._neighbours = Neighbours()
        self._areas = np.zeros((0, 2), np.uint64)
        self._guests: set[tuple[int, int]] = set()
        self._events = self._lost = self._lost_rows = self._stale = 0
        self._has_kvm = False

    def feed(self, block: Block) -> None:
        """Count a block's rows."""
        lost = block.a[block.code == LOST]
        self._lost_rows += len(lost)
        self._lost += int(lost[lost != MISSING].sum())
        known = block.code < len(_BY_CODE)
        kinds = np.where(known, _BY_CODE[np.where(known, block.code, 0)], 255)
        block, kinds = block.take(kinds != 255), kinds[kinds != 255]
        if not len(block):
            return
        self._events += len(block)
        self._uncount(self._neighbours.feed(block, block.pid))
        coded = _Coded.of(block, kinds)
        self._stale += coded.stale
        self._has_kvm |= bool((kinds == _KVM).any())
        self._areas = np.unique(np.concatenate([self._areas, coded.areas]), axis=0)
        for pid, thread in _Threads(block.pid, coded, self._moves, self._guests):
            self._append(pid, thread)

    def join(self, later: Census) -> None:
        """Take in what followed, counted elsewhere."""
        self._uncount(self._neighbours.join(later._neighbours))
        self._moves.update(later._moves)
        self._areas = np.unique(np.concatenate([self._areas, later._areas]), axis=0)
        self._guests |= later._guests
        self._events += later._events
        self._lost += later._lost
        self._lost_rows += later._lost_rows
        self._stale += later._stale
        self._has_kvm |= later._has_kvm
        for pid, thread in later._threads.items():
            self._append(pid, thread)

    def result(self) -> Counts:
        """Return the counts; the census can go on afterwards."""
        moves, guests = self._moves.copy(), set(self._guests)
        for thread in self._threads.values():
            _close(thread, moves, guests)
        return Counts(
            moves={move: count for move, count in sorted(moves.items()) if count},
            tasks=_rooms(self._areas, guests),
            vcpus=_rooms(np.array(sorted(guests), np.uint64).reshape(-1, 2), set()),
            events=self._events,
            lost=self._lost,
            lost_rows=self._lost_rows,
            stale=self._stale,
            has_kvm=self._has_kvm,
        )

    def _uncount(self, pairs: Pairs) -> None:
        """Take back deactivations that fpu__drop() printed: no save belongs to them, and a drop follows at once."""
        dropped = (
            pairs.before.of("x86_fpu_regs_deactivated")
            & pairs.after.of("x86_fpu_dropped")
            & (pairs.before.a == pairs.after.a)
        )
        rows = pairs.before.take(dropped)
        for in_use, xcomp_bv in zip(rows.b.tolist(), rows.c.tolist(), strict=True):
            self._moves[Move("save", False, *_masks(in_use, xcomp_bv))] -= 1

    def _append(self, pid: int, later: _Thread) -> None:
        earlier = self._threads.get(pid)
        self._threads[pid] = later if earlier is None else _joined(earlier, later, self._moves, self._guests)


def _masks(in_use: int, xcomp_bv: int) -> tuple[int, int]:
    """Return XSTATE_BV and the room of an fpstate, or that no kernel printed these."""
    buffer = xcomp_bv & ~COMPACTED
    if in_use & COMPACTED or (not xcomp_bv & COMPACTED and buffer) or (buffer and in_use & ~buffer):
        return _STALE
    return in_use, buffer


def _rooms(areas: NDArray[np.uint64], other: set[tuple[int, int]]) -> dict[int, int]:
    """Return how many fpstates have room for what: of each ``struct fpu`` all but *other*'s together."""
    room: dict[int, int] = {}
    for fpu, buffer in areas.tolist():
        room[fpu] = room.get(fpu, 0) | (0 if (fpu, buffer) in other else buffer)
    return dict(sorted(Counter(room.values()).items()))


# Resolving


def _count(moves: Counter[Move], rows: Mapping[_Row, int], *, guest: bool) -> None:
    """Count *rows* of the guest's or the task's fpstate."""
    for row, count in rows.items():
        if row.kind == _ACTIVATED:
            moves[Move("set" if row.flag == 0 else "restore", guest, row.in_use, row.buffer)] += count
        elif row.kind == _DROPPED:
            moves[Move("drop", guest, row.in_use, row.buffer)] += count
        elif row.kind == _FORK:
            moves[Move("fork", False, row.in_use, row.buffer)] += count
        elif row.kind == _DEACTIVATED or row.flag != 1:  # after_save: only what was not in memory is saved
            moves[Move("save", guest, row.in_use, row.buffer)] += count


def _swap(moves: Counter[Move], guests: set[tuple[int, int]], rows: _Segment, load: bool, flag: int | None) -> None:
    """Count the swap behind *rows*: its restore, and the save that the swap before it did unless its *flag* is set."""
    found = rows.last
    masks = (found or _NO_ROW)[2:]
    moves[Move("swap restore", load, *masks)] += 1
    if flag != 1:
        moves[Move("swap save", load, *masks)] += 1
    if load and found is not None and found.buffer != UNKNOWN:
        guests.add((rows.fpu, found.buffer))


def _joined(earlier: _Thread, later: _Thread, moves: Counter[Move], guests: set[tuple[int, int]]) -> _Thread:
    """Return a thread's rows of two parts in order, and count what lies between."""
    if earlier.first is None:
        later.head = earlier.head.then(later.head)
        return later
    rows = earlier.open.then(later.head)
    if later.first is None:
        earlier.open = rows
        return earlier
    _count(moves, rows.body, guest=earlier.last)
    _count(moves, rows.tail, guest=later.first)
    second = earlier.again is None and earlier.flag is None
    _swap(moves, guests, rows, later.first, 1 if second else earlier.flag)
    flag = (rows.last or _NO_ROW).flag
    if later.again is not None and flag != 1:
        moves[Move("swap save", not later.first, later.again.in_use, later.again.buffer)] += 1
    return _Thread(
        head=earlier.head,
        first=earlier.first,
        again=(rows.last or _NO_ROW) if second else earlier.again,
        last=later.last,
        flag=flag if later.flag is None else later.flag,
        open=later.open,
    )


def _close(thread: _Thread, moves: Counter[Move], guests: set[tuple[int, int]]) -> None:
    """Count what the ends of the recording leave open: whose fpstate came first is what the first swap replaced."""
    if thread.first is None:
        _count(moves, thread.head.all(), guest=False)
        return
    _count(moves, thread.head.body, guest=not thread.first)
    _count(moves, thread.head.tail, guest=thread.first)
    _swap(moves, guests, thread.head, thread.first, 1)
    flag = (thread.head.last or _NO_ROW).flag
    if thread.again is not None and flag != 1:
        moves[Move("swap save", not thread.first, thread.again.in_use, thread.again.buffer)] += 1
    if (flag if thread.flag is None else thread.flag) != 1:  # nobody loads it again: what was in use is not told
        moves[Move("swap save", not thread.last, UNKNOWN, UNKNOWN)] += 1
    _count(moves, thread.open.all(), guest=thread.last)


# Vectors


@dataclass(slots=True)
class _Coded:
    """The rows of a block as small numbers.

    Attributes:
        kinds: of each row; loads: whether a kvm_fpu loads the guest's; fpus: of each row.
        symbols: of each row, the index of its `rows`.
        rows: every distinct one.
        areas: distinct pairs of ``struct fpu`` and room.
        stale: rows whose masks cannot be.
    """

    kinds: NDArray[np.uint8]
    loads: NDArray[np.bool_]
    fpus: NDArray[np.uint64]
    symbols: NDArray[np.intp]
    rows: list[_Row]
    areas: NDArray[np.uint64]
    stale: int

    @classmethod
    def of(cls, block: Block, kinds: NDArray[np.uint8]) -> _Coded:
        """Return the rows of *block*, all of them of *kinds*."""
        pairs, numbers = _distinct(block.b, block.c)
        masks = [_masks(*pair) for pair in pairs]
        flags = np.where(block.flag == ABSENT, _NOT_TOLD, np.minimum(block.flag, 1)).astype(np.intp)
        codes, symbols = np.unique(numbers * 18 + kinds.astype(np.intp) * 3 + flags, return_inverse=True)
        rows = [_Row(code // 3 % 6, code % 3, *masks[code // 18]) for code in codes.tolist()]
        fpu = kinds != _KVM
        told = np.array([row != _STALE for row in masks], np.bool_)[numbers] & fpu & (block.a != MISSING)
        rooms = np.array([max(buffer, 0) for _, buffer in masks], np.uint64)[numbers]
        areas = np.array(_distinct(block.a[told], rooms[told])[0], np.uint64).reshape(-1, 2)
        stale = int((fpu & ~np.array([row != _STALE for row in masks], np.bool_)[numbers]).sum())
        return cls(kinds, block.flag == 1, block.a, symbols, rows, areas, stale)

    def take(self, order: NDArray[np.intp]) -> _Coded:
        """Return the rows in another order."""
        return _Coded(
            self.kinds[order], self.loads[order], self.fpus[order], self.symbols[order], self.rows, self.areas, 0
        )


def _distinct(b: NDArray[np.uint64], c: NDArray[np.uint64]) -> tuple[list[tuple[int, int]], NDArray[np.intp]]:
    """Return every distinct pair, and which of them each row is: neighbouring rows are often of the same pair."""
    changes = np.concatenate([np.ones(min(1, len(b)), np.bool_), (b[1:] != b[:-1]) | (c[1:] != c[:-1])])
    heads = np.flatnonzero(changes)
    firsts, first = np.unique(b[heads], return_inverse=True)
    seconds, second = np.unique(c[heads], return_inverse=True)
    codes, numbers = np.unique(first * len(seconds) + second, return_inverse=True)
    pairs = [(int(firsts[code // len(seconds)]), int(seconds[code % len(seconds)])) for code in codes.tolist()]
    return pairs, numbers[np.cumsum(changes) - 1]


class _Threads:
    """Gives the threads of a block, and counts what lies between two kvm_fpu of one thread.

    Rows are sorted by thread and cut into segments, each of which begins with a kvm_fpu or with its thread.  Arrays
    over segments tell of each: where it starts; whether it begins its thread; whether it begins with a kvm_fpu, and
    whether that loads the guest's; where its last activation is, -1 without one; whether the next segment ends it with
    a kvm_fpu of the same thread.

    Args:
        pids: of each row.
        coded: the rows.
        moves, guests: where to count.
    """

    def __init__(
        self, pids: NDArray[np.int32], coded: _Coded, moves: Counter[Move], guests: set[tuple[int, int]]
    ) -> None:
        order = np.argsort(pids, kind="stable")
        self._pids, self._coded = pids[order], coded.take(order)
        self._moves, self._guests = moves, guests
        at = np.arange(len(order))
        kvm = self._coded.kinds == _KVM
        begins = np.concatenate([[True], self._pids[1:] != self._pids[:-1]])
        self._starts = np.flatnonzero(begins | kvm)
        self._segment = np.cumsum(begins | kvm) - 1
        self._begins = begins[self._starts]
        self._by_kvm = kvm[self._starts]
        self._loads = self._coded.loads[self._starts]
        self._last = np.maximum.reduceat(np.where(self._coded.kinds == _ACTIVATED, at, -1), self._starts)
        self._ended = self._by_kvm & np.append(~self._begins[1:], False)
        last = self._last[self._segment]
        self._body, self._tail = ~kvm & (at < last), ~kvm & (at > last)

    def __iter__(self) -> Iterator[tuple[int, _Thread]]:
        next_loads = np.append(self._loads[1:], False)
        ended = self._ended[self._segment]
        self._count(self._body & ended, self._loads[self._segment])
        self._count(self._tail & ended, next_loads[self._segment])
        self._count_swaps(next_loads)
        edges = self._edges(~ended)
        firsts = np.flatnonzero(self._begins)
        for first, end in zip(firsts.tolist(), [*firsts[1:].tolist(), len(self._starts)], strict=True):
            yield int(self._pids[self._starts[first]]), self._thread(first, end, edges)

    def _count(self, rows: NDArray[np.bool_], guest: NDArray[np.bool_]) -> None:
        counts = np.bincount(self._coded.symbols[rows] * 2 + guest[rows])
        for code in np.flatnonzero(counts).tolist():
            _count(self._moves, {self._coded.rows[code // 2]: int(counts[code])}, guest=bool(code & 1))

    def _count_swaps(self, guest: NDArray[np.bool_]) -> None:
        """Count the swaps that end a segment; a thread's first save is left to who knows the flag before it."""
        symbols = np.where(self._last >= 0, self._coded.symbols[self._last], len(self._coded.rows))
        flags = np.array([*(row.flag for row in self._coded.rows), _NOT_TOLD])[symbols]
        before = np.append(False, self._ended[:-1]) & ~self._begins
        saved = self._ended & before & (np.append(_NOT_TOLD, flags[:-1]) != 1)
        rows = [*self._coded.rows, _NO_ROW]
        for op, which in (("swap restore", self._ended), ("swap save", saved)):
            counts = np.bincount(symbols[which] * 2 + guest[which])
            for code in np.flatnonzero(counts).tolist():
                row = rows[code // 2]
                self._moves[Move(op, bool(code & 1), row.in_use, row.buffer)] += int(counts[code])
        loaded = self._ended & guest & (self._last >= 0)
        fpus = self._coded.fpus[self._last[loaded]].tolist()
        found = {(fpu, rows[symbol].buffer) for fpu, symbol in set(zip(fpus, symbols[loaded].tolist(), strict=True))}
        self._guests |= {(fpu, buffer) for fpu, buffer in found if buffer != UNKNOWN}

    def _edges(self, rows: NDArray[np.bool_]) -> dict[int, _Segment]:
        """Return the segments whose ends lie outside the block."""
        rows &= self._body | self._tail
        size = len(self._coded.rows)
        codes = (self._segment[rows] * 2 + self._tail[rows]) * size + self._coded.symbols[rows]
        found: dict[int, _Segment] = {}
        for code, count in zip(*(column.tolist() for column in np.unique(codes, return_counts=True)), strict=True):
            segment = found.setdefault(code // size // 2, _Segment())
            (segment.tail if code // size & 1 else segment.body)[self._coded.rows[code % size]] = count
        for at in np.flatnonzero(~self._ended & (self._last >= 0)).tolist():
            segment = found.setdefault(at, _Segment())
            segment.last, segment.fpu = self._row(at), int(self._coded.fpus[self._last[at]])
        return found

    def _row(self, segment: int) -> _Row:
        """Return a segment's last activation."""
        last = self._last[segment]
        return self._coded.rows[self._coded.symbols[last]] if last >= 0 else _NO_ROW

    def _thread(self, first: int, end: int, edges: dict[int, _Segment]) -> _Thread:
        """Return the thread of the segments from *first* up to *end*."""
        by_kvm = bool(self._by_kvm[first])
        head = _Segment() if by_kvm else edges.get(first, _Segment())
        swap = first if by_kvm else first + 1
        if swap == end:
            return _Thread(head)
        several = end - swap > 1
        return _Thread(
            head=head,
            first=bool(self._loads[swap]),
            again=self._row(swap) if several else None,
            last=bool(self._loads[end - 1]),
            flag=self._row(end - 2).flag if several else None,
            open=edges.get(end - 1, _Segment()),
        )
