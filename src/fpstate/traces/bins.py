"""What happened when, in a bounded number of bins of time, however long a recording is.

A bin is 2^k units wide and starts at a multiple of that, so that two of them make one of the next k.  k is the least
for which the bins and the rows are few enough.  It can only grow, whatever the order in which rows come, and two bins
that become one lose nothing of their sum: so the outcome does not depend on how a recording was cut.
"""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from fpstate.traces.tally import Columns, Tally

__all__ = ["MOST_BINS", "Bins"]

Times = NDArray[np.uint64]

MOST_BINS: Final = 512
_MOST_ROWS: Final = 1 << 17
_WIDEST: Final = 60


class Bins:
    """Sums by key and bin.

    Args:
        keys: the names of the key columns, without the bin's.
        value: ``ns`` for durations, ``n`` for counts.
        rows: how many are kept at most, unless there are more keys than that.
    """

    def __init__(self, keys: tuple[str, ...], value: str, *, rows: int = _MOST_ROWS) -> None:
        self.width = 0
        """k; final once `columns` was asked for."""
        self._rows = rows
        self._tally = Tally((*keys, "bin"), (value,))
        self._first, self._last = np.iinfo(np.uint64).max, 0

    def reach(self, times: Times) -> None:
        """Widen the bins as far as the range of these times, in ascending order, asks for it."""
        if len(times):
            self._reach(int(times[0]), int(times[-1]))

    def count(self, times: Times, keys: Columns) -> None:
        """Take in what happened at *times*, which `reach` was told of."""
        self._tally.add({**keys, "bin": times >> np.uint64(self.width)})
        self._narrow(2 * self._rows)

    def spend(self, start: Times, end: Times, keys: Columns) -> None:
        """Take in spans, each from *start* to before *end*: each bin gets its share of their lengths."""
        some = end > start
        start, final = start[some], end[some] - np.uint64(1)
        shift = np.uint64(self.width)
        low = start >> shift
        bins = ((final >> shift) - low + np.uint64(1)).astype(np.intp)
        which = np.repeat(np.arange(len(bins)), bins)
        step = np.arange(len(which)) - np.repeat(np.cumsum(bins) - bins, bins)
        at = low[which] + step.astype(np.uint64)
        begins = np.maximum(start[which], at << shift)
        ends = np.minimum(final[which], (at << shift) | np.uint64((1 << self.width) - 1))
        spread = {name: column[some][which] for name, column in keys.items()}
        self._tally.add({**spread, "bin": at, "ns": ends - begins + np.uint64(1)})
        self._narrow(2 * self._rows)

    def join(self, other: Self) -> None:
        """Take in the sums of another part."""
        if other._first <= other._last:
            self._reach(other._first, other._last)
        columns = other.columns()
        self._widen(other.width)
        self._tally.add({**columns, "bin": columns["bin"] >> np.uint64(self.width - other.width)})
        self._narrow(2 * self._rows)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name; ``bin`` times 2^width is its start."""
        self._narrow(self._rows)
        return self._tally.columns()

    def span(self) -> range:
        """Return the numbers of all bins, from that of the first time to that of the last."""
        self._narrow(self._rows)
        if self._first > self._last:
            return range(0)
        return range(self._first >> self.width, (self._last >> self.width) + 1)

    def _reach(self, first: int, last: int) -> None:
        self._first, self._last = min(self._first, first), max(self._last, last)
        width = self.width
        while (self._last >> width) - (self._first >> width) >= MOST_BINS:
            width += 1
        self._widen(width)

    def _narrow(self, worth: int) -> None:
        """Widen the bins until the rows are few enough; only if there may be more of them than *worth*."""
        if self._tally.bound > worth:
            while len(self._tally) > self._rows and self.width < _WIDEST:
                self._widen(self.width + 1)

    def _widen(self, width: int) -> None:
        if width <= self.width:
            return
        columns = self._tally.columns()
        self._tally.replace({**columns, "bin": columns["bin"] >> np.uint64(width - self.width)})
        self.width = width
