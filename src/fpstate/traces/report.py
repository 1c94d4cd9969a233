"""What a recording tells, added up: who owned which CPU's registers when, what was loaded, saved and spared.

`Report` takes block after block and holds sums alone, whose number is bounded by the machine's tasks and CPUs, not by
the recording's length.  Parts that were fed apart and joined in order give what one pass gives.
"""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from fpstate.traces.bins import Bins
from fpstate.traces.columns import CODES, EVENTS, LOST, MISSING, Block
from fpstate.traces.neighbours import Neighbours, Pairs
from fpstate.traces.stale import impossible
from fpstate.traces.tally import Tally

__all__ = ["ACTIVATED", "AWAY", "BETWEEN_LOADS", "DEACTIVATED", "DROPPED", "EVERY", "LOADED", "Report", "middle"]

ACTIVATED: Final = CODES["x86_fpu_regs_activated"]
DEACTIVATED: Final = CODES["x86_fpu_regs_deactivated"]
DROPPED: Final = CODES["x86_fpu_dropped"]
_KVM_FPU: Final = CODES["kvm_fpu"]
_FPU: Final = np.array([code for code, event in enumerate(EVENTS) if event.system == "x86_fpu"], np.uint16)
_KVM: Final = np.array([code for code, event in enumerate(EVENTS) if event.system == "kvm"], np.uint16)
_OWNING: Final = np.array([LOST, ACTIVATED, DEACTIVATED, DROPPED], np.uint16)
_SWAPPING: Final = np.array([LOST, ACTIVATED, _KVM_FPU], np.uint16)

LOADED, AWAY, BETWEEN_LOADS = 0, 1, 2
"""Times of a vCPU thread: from kvm_fpu load to unload, from unload to load, from load to load."""

EVERY: Final = 64
"""In place of a component's number."""
_MASKS: Final = ("xfeatures", "xcomp_bv")
_MOST_MASKS: Final = 4096
_NAMELESS: Final = np.uint64(1 << 63)
"""Marks a thread's number as the key of its fpu where an event's text does not tell the address."""


class Report:
    """The sums.

    Attributes:
        events: rows by code, int64.
        lost: events that are known to be lost; `lost_uncounted` is the number of places where nobody counted.
        first, last: the time of the first and the last row; *first* is greater where there is none.
        masks: pid, code, xfeatures, xcomp_bv: their number, first and last time, of x86_fpu events.  Masks that no
            image has, and those beyond the 4096 lowest pairs, count as `MISSING`, `MISSING`.
        skipped: pid, xfeatures, xcomp_bv: restores that were spared, by the masks of the save before.
        held: cpu, pid, kept, bin: nanoseconds.  A task owns a CPU's registers from its activation on; *kept* is 1 from
            its save to the next event there, when nobody else has taken them.
        used: component, bin: saves with that bit of XSTATE_BV; as component `EVERY`, all saves.
        kvm: pid, code, flag: the number of kvm events.
        vcpus: pid: the number of kvm_entry events, the least and the greatest vcpu_id of them.
        swapped: pid, flag, xfeatures, xcomp_bv: what was activated last before a kvm_fpu load (flag 1: the guest's) or
            unload (0: the task's own), ``fpu_swap_kvm_fpstate``.
        waits: pid, kind, size: the number, sum, least and greatest of times of that kind; for *size* see `middle`.
    """

    def __init__(self) -> None:
        self.events: NDArray[np.int64] = np.zeros(len(EVENTS), np.int64)
        self.lost = self.lost_uncounted = 0
        self.first, self.last = MISSING, 0
        self.masks = Tally(("pid", "code", *_MASKS), ("n", "first", "last"))
        self.skipped = Tally(("pid", *_MASKS))
        self.held = Bins(("cpu", "pid", "kept"), "ns")
        self.used = Bins(("component",), "n")
        self.kvm = Tally(("pid", "code", "flag"))
        self.vcpus = Tally(("pid",), ("n", "first", "last"))
        self.swapped = Tally(("pid", "flag", *_MASKS))
        self.waits = Tally(("pid", "kind", "size"), ("n", "ns", "first", "last"))
        self._owners, self._fpus, self._swaps, self._turns, self._loads = (Neighbours() for _ in range(5))

    def feed(self, block: Block) -> None:
        """Take in the next rows of the recording."""
        if not len(block):
            return
        self._count(block)
        self.held.reach(block.time)
        self.used.reach(block.time)
        self._feed_masks(block.take(np.isin(block.code, _FPU)))
        owning = block.take(np.isin(block.code, _OWNING))
        self._own(self._owners.feed(owning, owning.cpu))
        self._skip(self._fpus.feed(owning, _fpu_key(owning)))
        if np.isin(block.code, _KVM).any():
            self._feed_kvm(block.take(np.isin(block.code, _KVM)))
        self._feed_swaps(block)

    def join(self, later: Self) -> None:
        """Take in what was made of the rows that follow in the same recording."""
        size = max(len(self.events), len(later.events))
        self.events = _padded(self.events, size) + _padded(later.events, size)
        self.lost += later.lost
        self.lost_uncounted += later.lost_uncounted
        self.first, self.last = min(self.first, later.first), max(self.last, later.last)
        for name in ("masks", "skipped", "held", "used", "kvm", "vcpus", "swapped", "waits"):
            getattr(self, name).join(getattr(later, name))
        self._own(self._owners.join(later._owners))
        self._skip(self._fpus.join(later._fpus))
        self._swap(self._swaps.join(later._swaps))
        self._wait(self._turns.join(later._turns))
        self._wait(self._loads.join(later._loads), BETWEEN_LOADS)
        self._bound_masks()

    def owners(self) -> Bins:
        """Return `held` with the spans that were open when the recording ended."""
        whole = Bins(("cpu", "pid", "kept"), "ns")
        whole.join(self.held)
        ends = self._owners.ends()
        _spend(whole, ends, np.full(len(ends), self.last, np.uint64))
        return whole

    # -- one block ----------------------------------------------------------------------------------------------------

    def _count(self, block: Block) -> None:
        counts = np.bincount(block.code)
        size = max(len(self.events), len(counts))
        self.events = _padded(self.events, size) + _padded(counts, size)
        lost = block.a[block.code == LOST]
        counted = lost[(lost != MISSING) & (lost != 0)]
        self.lost += sum(counted.tolist())  # in Python's numbers, which do not overflow
        self.lost_uncounted += len(lost) - len(counted)
        self.first, self.last = min(self.first, int(block.time[0])), max(self.last, int(block.time[-1]))

    def _feed_masks(self, rows: Block) -> None:
        masks = _masks(rows)
        self.masks.add({"pid": rows.pid, "code": rows.code, **masks, "first": rows.time, "last": rows.time})
        self._bound_masks()
        saves = rows.code == DEACTIVATED
        self._use(rows.time[saves], masks["xfeatures"][saves])

    def _use(self, times: NDArray[np.uint64], xfeatures: NDArray[np.uint64]) -> None:
        """Count saves by component: first by mask, of which there are few."""
        shift = np.uint64(self.used.width)
        few = Tally(("xfeatures", "time"))
        few.add({"xfeatures": xfeatures, "time": times >> shift << shift})
        rows = few.columns()
        known = rows["xfeatures"] != MISSING
        for component in range(EVERY + 1):
            has = known if component == EVERY else known & (rows["xfeatures"] >> np.uint64(component) & 1 == 1)
            if has.any():
                column = np.full(np.count_nonzero(has), component, np.uint8)
                self.used.count(rows["time"][has], {"component": column, "n": rows["n"][has]})

    def _bound_masks(self) -> None:
        """Keep the lowest pairs of masks: those that are none of them can never become one again."""
        if len(self.masks) <= _MOST_MASKS:
            return
        columns = self.masks.columns()
        pairs = np.unique(np.stack([columns["xcomp_bv"], columns["xfeatures"]]), axis=1)
        if pairs.shape[1] > _MOST_MASKS:
            high, low = pairs[:, _MOST_MASKS - 1]
            beyond = (columns["xcomp_bv"] > high) | (columns["xcomp_bv"] == high) & (columns["xfeatures"] > low)
            kept = {name: np.where(beyond, np.uint64(MISSING), columns[name]) for name in _MASKS}
            self.masks.replace({**columns, **kept})

    def _feed_kvm(self, rows: Block) -> None:
        self.kvm.add({"pid": rows.pid, "code": rows.code, "flag": rows.flag})
        entries = rows.code == CODES["kvm_entry"]
        self.vcpus.add({"pid": rows.pid[entries], "first": rows.a[entries], "last": rows.a[entries]})

    def _feed_swaps(self, block: Block) -> None:
        rows = block.take(np.isin(block.code, _SWAPPING))
        self._swap(self._swaps.feed(rows, rows.pid))
        turns = rows.take(rows.code != ACTIVATED)
        self._wait(self._turns.feed(turns, turns.pid))
        loads = turns.take((turns.code == LOST) | (turns.flag == 1))
        self._wait(self._loads.feed(loads, loads.pid), BETWEEN_LOADS)

    # -- pairs of rows ------------------------------------------------------------------------------------------------

    def _own(self, pairs: Pairs) -> None:
        _spend(self.held, pairs.before, pairs.after.time)

    def _skip(self, pairs: Pairs) -> None:
        """Two saves of the same fpu on the same CPU and no load between: the restore was skipped."""
        before, after = pairs
        same = (before.code == DEACTIVATED) & (after.code == DEACTIVATED) & (before.cpu == after.cpu)
        self.skipped.add({"pid": after.pid[same], **_masks(before.take(same))})

    def _swap(self, pairs: Pairs) -> None:
        before, after = pairs
        swaps = (before.code == ACTIVATED) & (after.code == _KVM_FPU)
        plugged = before.take(swaps)
        self.swapped.add({"pid": plugged.pid, "flag": after.flag[swaps], **_masks(plugged)})

    def _wait(self, pairs: Pairs, kind: int | None = None) -> None:
        before, after = pairs
        if kind is None:
            turned = before.flag != after.flag
            before, after = before.take(turned), after.take(turned)
        kinds = np.where(before.flag == 1, LOADED, AWAY) if kind is None else np.full(len(before), kind)
        time = after.time - np.minimum(before.time, after.time)
        columns: dict[str, NDArray[Any]] = {"pid": after.pid, "kind": kinds.astype(np.uint8), "size": _size(time)}
        self.waits.add({**columns, "ns": time, "first": time, "last": time})


def _padded(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.concatenate([counts, np.zeros(size - len(counts), np.int64)])


def _masks(rows: Block) -> dict[str, NDArray[Any]]:
    """Return the masks of x86_fpu rows, those that no image has as `MISSING`."""
    wrong = impossible(rows.b, rows.c)
    missing = np.uint64(MISSING)
    return {"xfeatures": np.where(wrong, missing, rows.b), "xcomp_bv": np.where(wrong, missing, rows.c)}


def _fpu_key(rows: Block) -> NDArray[np.uint64]:
    return np.where(rows.a == MISSING, rows.pid.astype(np.uint64) | _NAMELESS, rows.a)


def _spend(held: Bins, before: Block, until: NDArray[np.uint64]) -> None:
    """Give the time from each row until *until* to the owner that the row makes or leaves."""
    owned = before.code != DROPPED
    before, until = before.take(owned), until[owned]
    kept = (before.code == DEACTIVATED).astype(np.uint8)
    held.spend(before.time, until, {"cpu": before.cpu, "pid": before.pid, "kept": kept})


def _size(times: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return the size class of times: 16 classes for each power of two, so within 7%."""
    fraction, exponent = np.frexp(times.astype(np.float64))
    size: NDArray[np.uint16] = (exponent * 16 + np.floor(fraction * 32) - 16).clip(0).astype(np.uint16)
    return size


def middle(size: int) -> float:
    """Return the time in the middle of a size class."""
    exponent, sixteenth = divmod(size, 16)
    return float(np.ldexp((sixteenth + 16.5) / 32, exponent))
