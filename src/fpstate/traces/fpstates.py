"""Whose fpstate each event shows, a task's or its guest's, and which masks occurred in which.

The tracepoints print the address of ``struct fpu``, which is the task's also while KVM_RUN has the guest's fpstate
plugged into it.  What tells them apart is the order of a thread's own events.  Only a swap changes the fpstate, and a
swap prints ``activated`` and then ``kvm_fpu``: so events from an ``activated`` on that is the thread's last one before
``kvm_fpu: load`` are the guest's, and those from the last one before ``unload`` on are the task's again.  A thread may
be switched out between the two (``fpu_swap_kvm_fpstate()`` and the tracepoint after it are not one critical section),
and what is saved then belongs to what comes.  Until 5.15 KVM swapped behind the event's back and guests had the
features of tasks, so there it makes no difference.

Parts of a recording that were counted apart are joined without loss: what a part cannot tell, for it hangs on the
thread's events before or behind it, is kept by thread until somebody can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from fpstate.traces.columns import ABSENT, CODES, MISSING, Block, codes

__all__ = ["DISTINCT", "Fpstates", "Owner", "Seen"]

Array = NDArray[Any]


class Owner(IntEnum):
    """Whose fpstate it is."""

    UNKNOWN = 0
    TASK = 1
    GUEST = 2
    CHILD = 3
    """A task's that is being forked: the event is its parent's."""


_NONE: Final = 0
_LEAD: Final = 4
"""Before the thread's first activated or kvm_fpu of this part."""
_OPEN: Final = 5
"""From the thread's last activated on, no kvm_fpu yet: it may have been a swap's."""

_ACTIVATED: Final = CODES["x86_fpu_regs_activated"]
_KVM: Final = CODES["kvm_fpu"]
_CHILD: Final = CODES["x86_fpu_copy_dst"]
_CODES: Final = np.array(
    codes(
        "x86_fpu_regs_activated",
        "x86_fpu_regs_deactivated",
        "x86_fpu_dropped",
        "x86_fpu_copy_src",
        "x86_fpu_copy_dst",
        "x86_fpu_before_save",
        "x86_fpu_after_save",
        "x86_fpu_before_restore",
        "x86_fpu_after_restore",
        "x86_fpu_init_state",
        "x86_fpu_xstate_check_failed",
    ),
    np.uint16,
)
DISTINCT: Final = 1 << 14
"""Kinds of rows that a table keeps; no kernel has so many masks, but stale bytes do: the rest is only counted."""


@dataclass(slots=True)
class Seen:
    """A table of what occurred: a row for each thread, owner, event and masks, with how often and where first.

    Attributes:
        pid, owner, code, xfeatures, xcomp_bv: what identifies a row.
        count: how often.
        time, cpu: of the first.
    """

    pid: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    owner: Array = field(default_factory=lambda: np.zeros(0, np.uint8))
    code: Array = field(default_factory=lambda: np.zeros(0, np.uint16))
    xfeatures: Array = field(default_factory=lambda: np.zeros(0, np.uint64))
    xcomp_bv: Array = field(default_factory=lambda: np.zeros(0, np.uint64))
    count: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    time: Array = field(default_factory=lambda: np.zeros(0, np.uint64))
    cpu: Array = field(default_factory=lambda: np.zeros(0, np.uint16))

    def __len__(self) -> int:
        return len(self.pid)

    def columns(self) -> tuple[Array, ...]:
        """Return the columns in their order."""
        return self.pid, self.owner, self.code, self.xfeatures, self.xcomp_bv, self.count, self.time, self.cpu

    def take(self, rows: Array) -> Self:
        """Return some rows."""
        return type(self)(*(column[rows] for column in self.columns()))

    def owned(self, owner: Array | int) -> Self:
        """Return the rows with other owners."""
        return type(self)(self.pid, np.broadcast_to(np.uint8(owner), len(self)).copy(), *self.columns()[2:])

    def plus(self, *others: Self) -> Self:
        """Return the sum of tables."""
        columns = [np.concatenate(c) for c in zip(self.columns(), *(o.columns() for o in others), strict=True)]
        return type(self)(*columns).summed()

    def summed(self) -> Self:
        """Return a table with each kind of row once, sorted by it; equal times are told apart by the CPU."""
        if len(self) < 2:
            return self
        order = np.lexsort((self.cpu, self.time, self.xcomp_bv, self.xfeatures, self.code, self.owner, self.pid))
        sorted_ = self.take(order)
        changes = [column[1:] != column[:-1] for column in sorted_.columns()[:5]]
        first = np.flatnonzero(np.concatenate([[True], np.logical_or.reduce(changes)]))
        table = sorted_.take(first)
        table.count = np.add.reduceat(sorted_.count, first)
        return table


@dataclass(slots=True)
class _Threads:
    """What each thread's events end with, and begin with.

    Attributes:
        pid: ascending.
        last: the owner by the last kvm_fpu, or 0.
        first: the owner by the first kvm_fpu, or 0.
        begins: the owner by the first row if it is a kvm_fpu, `_OPEN` if it is an activated, 0 if there is neither.
        is_open: whether the last of the two is an activated.
    """

    pid: Array
    last: Array
    first: Array
    begins: Array
    is_open: Array

    @classmethod
    def none(cls) -> Self:
        nobody = np.zeros(0, np.uint8)
        return cls(np.zeros(0, np.int32), nobody, nobody, nobody, np.zeros(0, np.bool_))

    def place(self, pid: Array) -> tuple[Array, Array]:
        """Return where *pid* are, and whether they are there."""
        if not len(self.pid):
            return np.zeros(len(pid), np.intp), np.zeros(len(pid), np.bool_)
        at = np.minimum(np.searchsorted(self.pid, pid), len(self.pid) - 1)
        return at, self.pid[at] == pid

    def get(self, column: Array, pid: Array) -> Array:
        """Return a column's values of *pid*, 0 for those that are not here."""
        if not len(self.pid):
            return np.zeros(len(pid), column.dtype)
        at, there = self.place(pid)
        return np.where(there, column[at], np.zeros(1, column.dtype))

    def then(self, later: _Threads) -> _Threads:
        """Return the threads after what followed."""
        pid = np.union1d(self.pid, later.pid)
        last, then_last = self.get(self.last, pid), later.get(later.last, pid)
        first, then_first = self.get(self.first, pid), later.get(later.first, pid)
        begins, then_begins = self.get(self.begins, pid), later.get(later.begins, pid)
        is_open, then_open = self.get(self.is_open, pid), later.get(later.is_open, pid)
        return _Threads(
            pid,
            np.where(then_last > 0, then_last, last),
            np.where(first > 0, first, then_first),
            np.where(begins > 0, begins, then_begins),
            np.where(then_begins > 0, then_open, is_open),
        )


class Fpstates:
    """Counts of the masks that occurred, by thread and by whose fpstate it was."""

    def __init__(self, table: Seen | None = None, threads: _Threads | None = None) -> None:
        table = table or Seen()
        settled = table.owner < _LEAD
        self.uncounted = 0
        self._known = table.take(settled)
        self._ends = table.take(~settled)
        """Rows whose owner is `_LEAD` or `_OPEN`."""
        self._threads = threads or _Threads.none()

    def feed(self, block: Block) -> None:
        """Take in a block."""
        self.join(_of(block))

    def join(self, later: Fpstates) -> None:
        """Take in what followed, fed elsewhere."""
        mine, theirs = self._threads, later._threads
        ends = self._ends.owned(self._end_owners(self._ends, theirs))
        lead = later._ends.owned(_lead_owners(later._ends, mine, theirs))
        known = later._known.owned(_inherited(later._known, mine))
        both = ends.plus(lead)
        settled = both.owner < _LEAD
        self._known = self._known.plus(known, both.take(settled))
        self._ends = both.take(~settled)
        self._threads = mine.then(theirs)
        self.uncounted += later.uncounted
        if len(self._known) > DISTINCT and len(np.unique(self._known.xfeatures ^ self._known.xcomp_bv)) > DISTINCT // 4:
            self._thin()

    def seen(self) -> Seen:
        """Return all that occurred; `Owner.UNKNOWN` where no kvm_fpu of its thread tells."""
        table = self._known.plus(self._ends)
        first = self._threads.get(self._threads.first, table.pid)
        before = np.where(first == Owner.TASK, Owner.GUEST, np.where(first == Owner.GUEST, Owner.TASK, Owner.UNKNOWN))
        owner = np.where((table.owner == _NONE) | (table.owner == _LEAD), before, table.owner)
        return table.owned(np.where(owner == _OPEN, Owner.UNKNOWN, owner)).summed()

    def _end_owners(self, rows: Seen, theirs: _Threads) -> Array:
        """Whose the rows at this part's ends are, now that *theirs* follows."""
        decided = theirs.get(theirs.begins, rows.pid)
        last = self._threads.get(self._threads.last, rows.pid)
        opened = np.where(decided == _NONE, _OPEN, np.where(decided == _OPEN, last, decided))
        return np.where(rows.owner == _OPEN, opened, rows.owner)

    def _thin(self) -> None:
        """Forget masks that only stale bytes make so many."""
        order = np.argsort(self._known.time, kind="stable")
        kept, rest = order[:DISTINCT], order[DISTINCT:]
        self.uncounted += int(self._known.count[rest].sum())
        self._known = self._known.take(np.sort(kept))


def _lead_owners(rows: Seen, mine: _Threads, theirs: _Threads) -> Array:
    """Whose the rows at a later part's ends are, now that it follows *mine*."""
    begun = mine.get(mine.begins, rows.pid) > 0
    last, is_open = mine.get(mine.last, rows.pid), mine.get(mine.is_open, rows.pid)
    decided = theirs.get(theirs.begins, rows.pid)
    of_open = np.where(decided == _NONE, _OPEN, np.where(decided == _OPEN, last, decided))
    lead = np.where(~begun, _LEAD, np.where(is_open, of_open, last))
    return np.where(rows.owner == _LEAD, lead, rows.owner)


def _inherited(rows: Seen, mine: _Threads) -> Array:
    """Whose the rows before a later part's first kvm_fpu are, now that it follows *mine*."""
    last = mine.get(mine.last, rows.pid)
    return np.where(rows.owner == _NONE, last, rows.owner)


def _of(block: Block) -> Fpstates:
    """Count one block by itself."""
    child = (block.code == _CHILD) & (block.b != MISSING)
    rows = np.isin(block.code, _CODES) & ~child
    swaps = (block.code == _KVM) & (block.flag != ABSENT)
    chosen = np.flatnonzero(rows | swaps)
    chosen = chosen[np.argsort(block.pid[chosen], kind="stable")]
    children = np.flatnonzero(child)
    table = _count(block, children, np.full(len(children), Owner.CHILD, np.uint8))
    if not len(chosen):
        return Fpstates(table)
    owner, threads = _owners(block.pid[chosen], block.code[chosen], block.flag[chosen])
    shown = (block.code[chosen] != _KVM) & (block.b[chosen] != MISSING)
    return Fpstates(table.plus(_count(block, chosen[shown], owner[shown])), threads)


def _owners(pid: Array, code: Array, flag: Array) -> tuple[Array, _Threads]:
    """Return whose fpstate each row shows, of one block's rows in order of threads; and the threads."""
    is_kvm = code == _KVM
    new = np.concatenate([[True], pid[1:] != pid[:-1]])
    head = np.flatnonzero(new | is_kvm | (code == _ACTIVATED))
    """The first row of each stretch: an activated, a kvm_fpu, or what a thread has before either."""
    kvm, opens = is_kvm[head], code[head] == _ACTIVATED
    by_kvm = np.where(kvm, np.where(flag[head] == 1, Owner.GUEST, Owner.TASK), _NONE).astype(np.uint8)
    number = np.arange(len(head))
    thread = np.maximum.accumulate(np.where(new[head], number, 0))
    told = np.maximum.accumulate(np.where(kvm, number, -1))
    inherited = np.where(told >= thread, by_kvm[told], _NONE)
    ends = np.concatenate([new[head][1:], [True]])
    next_kvm = np.where(ends, _NONE, np.concatenate([by_kvm[1:], by_kvm[:1]]))
    swapped = np.where(next_kvm > 0, next_kvm, np.where(ends, _OPEN, inherited))
    owner = np.where(kvm, by_kvm, np.where(opens, swapped, _LEAD)).astype(np.uint8)
    stretch = np.cumsum(new | is_kvm | (code == _ACTIVATED)) - 1
    return owner[stretch], _threads(pid[head], new[head], ends, kvm | opens, by_kvm)


def _threads(pid: Array, new: Array, ends: Array, decides: Array, by_kvm: Array) -> _Threads:
    """Return how each thread begins and ends, of its stretches."""
    begin, end = np.flatnonzero(new), np.flatnonzero(ends)
    number = np.arange(len(pid))
    thread = np.maximum.accumulate(np.where(new, number, 0))
    told = np.maximum.accumulate(np.where(by_kvm > 0, number, -1))[end]
    last = np.where(told >= thread[end], by_kvm[told], _NONE)
    back = np.minimum.accumulate(np.where(by_kvm > 0, number, len(pid))[::-1])[::-1][begin]
    first = np.where(back <= end, by_kvm[np.minimum(back, len(pid) - 1)], _NONE)
    # A stretch that decides nothing is a thread's lead, and what follows it decides.
    at = np.minimum(begin + ~decides[begin], len(pid) - 1)
    any_ = decides[begin] | (begin < end)
    begins = np.where(any_, np.where(by_kvm[at] > 0, by_kvm[at], _OPEN), _NONE)
    is_open = decides[end] & (by_kvm[end] == _NONE)
    return _Threads(pid[begin], last, first, begins.astype(np.uint8), is_open)


def _count(block: Block, rows: Array, owner: Array) -> Seen:
    """Count rows of a block; *owner* is of each of them."""
    if not len(rows):
        return Seen()
    pid, code, xfeatures, xcomp_bv = block.pid[rows], block.code[rows], block.b[rows], block.c[rows]
    # One key for each kind of row: sorting one column is much faster than sorting five.
    masks = _numbers(xcomp_bv) * np.uint64(1 << 24) + _numbers(xfeatures)
    kind = (_numbers(pid) << np.uint64(16)) + (code.astype(np.uint64) << np.uint64(8)) + owner
    _, first, inverse = np.unique(masks, return_index=True, return_inverse=True)
    key = (kind << np.uint64(24)) + inverse.astype(np.uint64)
    _, first, count = np.unique(key, return_index=True, return_counts=True)
    # Rows of one thread keep their order, so the first of a kind is the first in time.
    times, cpus = block.time[rows][first], block.cpu[rows][first]
    return Seen(pid[first], owner[first], code[first], xfeatures[first], xcomp_bv[first], count, times, cpus).summed()


def _numbers(values: Array) -> NDArray[np.uint64]:
    """Return small numbers in place of values, the same for equal ones."""
    return np.unique(values, return_inverse=True)[1].astype(np.uint64)
