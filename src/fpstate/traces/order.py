"""Rows that should be in order of time and are not quite: put in order as far as blocks in memory allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from fpstate.sources.capture import Damage
from fpstate.traces.columns import Block
from fpstate.traces.trace import Trace

__all__ = ["in_order"]


def in_order(blocks: Iterable[Block], trace: Trace, form: str) -> Iterator[Block]:
    """Give the rows of *blocks* in order of time, holding one block back.

    Rows that are older than what was already given are left out, and *trace* is told how many, and how many were
    moved.

    Args:
        blocks: almost in order.
        trace: whose damage and notes grow.
        form: what its rules are called by.
    """
    held: Block | None = None
    given = np.uint64(0)
    moved = gone = 0
    for block in blocks:
        early = block.time < given
        gone += int(early.sum())
        fresh = block.take(~early) if early.any() else block
        joined = fresh if held is None else Block.join([held, fresh])
        back = int(np.count_nonzero(joined.time[1:] < joined.time[:-1]))
        if back:
            moved += back
            joined = joined.take(np.argsort(joined.time, kind="stable"))
        cut = 0 if held is None else len(held)
        if cut:
            yield joined.take(slice(0, cut))
            given = joined.time[cut - 1]
        held = joined.take(slice(cut, None))
    if held is not None and len(held):
        yield held
    if moved:
        trace.notes.append(f"time goes back {moved} times in the file: those events were put in order")
    if gone:
        text = f"{gone} events are out of order by more than can be put right: they are left out"
        trace.damage.append(Damage(f"{form}.order", text, None, "sort the lines by time"))
