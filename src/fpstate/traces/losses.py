"""When events of a recording were lost: what lies across is not judged.

A ``LOST`` row stands where its CPU's events go on, so they were lost since the row of that CPU before it, and events of
other CPUs in between may have been separated from what belongs to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fpstate.traces.columns import LOST, MISSING, Block

__all__ = ["Losses"]

_SPANS: Final = 1 << 17
"""More than these are merged, so that memory stays bounded: less is judged then."""
_NEVER: Final = np.iinfo(np.uint64).max
Times = NDArray[np.uint64]


@dataclass(slots=True)
class Losses:
    """The spans of time in which events were lost.

    Attributes:
        count: events lost, as far as somebody counted.
        rows: how often.
    """

    count: int = 0
    rows: int = 0
    _starts: Times = field(default_factory=lambda: np.zeros(0, np.uint64))
    _ends: Times = field(default_factory=lambda: np.zeros(0, np.uint64))
    _first_of_cpu: Times = field(default_factory=lambda: np.zeros(0, np.uint64))
    _last_of_cpu: Times = field(default_factory=lambda: np.zeros(0, np.uint64))
    _unbegun: list[tuple[int, int]] = field(default_factory=list)

    def feed(self, block: Block) -> None:
        """Take in a block."""
        self.join(_of(block))

    def join(self, later: Losses) -> None:
        """Take in what followed, fed elsewhere."""
        cpus = max(len(self._last_of_cpu), len(later._last_of_cpu))
        first, last = _padded(self._first_of_cpu, cpus, _NEVER), _padded(self._last_of_cpu, cpus, 0)
        begun = np.array([int(last[cpu]) for cpu, _ in later._unbegun], np.uint64)
        ends = np.array([end for _, end in later._unbegun], np.uint64)
        known = begun > 0
        self._unbegun += [lead for lead, is_known in zip(later._unbegun, known.tolist(), strict=True) if not is_known]
        self._starts = np.concatenate([self._starts, begun[known], later._starts])
        self._ends = np.concatenate([self._ends, ends[known], later._ends])
        self._first_of_cpu = np.minimum(first, _padded(later._first_of_cpu, cpus, _NEVER))
        self._last_of_cpu = np.maximum(last, _padded(later._last_of_cpu, cpus, 0))
        self.count += later.count
        self.rows += later.rows
        if len(self._starts) > _SPANS:
            self._starts, self._ends = self._starts.min(keepdims=True), self._ends.max(keepdims=True)

    def across(self, before: Times, after: Times) -> NDArray[np.bool_]:
        """Return which of the spans from *before* to *after* have a loss in them or touch one."""
        starts = np.concatenate([self._starts, np.zeros(len(self._unbegun), np.uint64)])
        ends = np.concatenate([self._ends, np.array([end for _, end in self._unbegun], np.uint64)])
        # A loss is apart if it ended before the span, or began after it; the others touch.
        ended = np.searchsorted(np.sort(ends), before, side="left")
        unbegun = len(starts) - np.searchsorted(np.sort(starts), after, side="right")
        return np.asarray(ended + unbegun < len(starts))

    def recorded_since(self, cpu: NDArray[np.integer[Any]]) -> Times:
        """Return when the first event of each CPU was recorded."""
        return np.asarray(self._first_of_cpu[cpu])


def _padded(times: Times, size: int, value: int) -> Times:
    return np.concatenate([times, np.full(size - len(times), value, np.uint64)])


def _of(block: Block) -> Losses:
    """Return the losses of one block by itself."""
    if not len(block):
        return Losses()
    cpus = int(block.cpu.max()) + 1
    first, last = np.full(cpus, _NEVER, np.uint64), np.zeros(cpus, np.uint64)
    first[block.cpu[::-1]] = block.time[::-1]  # of repeated indices the last one counts
    last[block.cpu] = block.time
    at = np.flatnonzero(block.code == LOST)
    if not len(at):
        return Losses(_first_of_cpu=first, _last_of_cpu=last)
    order = np.argsort(block.cpu, kind="stable")
    time, cpu = block.time[order], block.cpu[order]
    place = np.flatnonzero(block.code[order] == LOST)
    follows = (place > 0) & (cpu[place - 1] == cpu[place])
    begins = place[~follows]
    counted = block.a[at]
    return Losses(
        count=int(counted[counted != MISSING].sum()),
        rows=len(at),
        _starts=time[place[follows] - 1],
        _ends=time[place[follows]],
        _first_of_cpu=first,
        _last_of_cpu=last,
        _unbegun=list(zip(cpu[begins].tolist(), time[begins].tolist(), strict=True)),
    )
