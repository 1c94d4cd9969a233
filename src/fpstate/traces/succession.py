"""What may follow what: by CPU, by ``struct fpu``, by thread.

Rows that break a rule are kept with the row before them, as candidates: what the recording did not see can speak for
them.  Events are switched on and off one after the other, each CPU's buffer begins where it begins, and some are lost.
So a candidate that rests on no ``activated`` between two rows counts only where ``activated`` was recorded before and
after them, on a CPU that was already recorded, and nothing was lost across.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fpstate.traces.columns import CODES, MISSING, Block, codes
from fpstate.traces.losses import Losses
from fpstate.traces.neighbours import Neighbours, Pairs

__all__ = ["Broken", "Order"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_A: Final = CODES["x86_fpu_regs_activated"]
_D: Final = CODES["x86_fpu_regs_deactivated"]
_DROPPED: Final = CODES["x86_fpu_dropped"]
_COPY_DST: Final = CODES["x86_fpu_copy_dst"]
_BEFORE_SAVE, _AFTER_SAVE = codes("x86_fpu_before_save", "x86_fpu_after_save")
_KVM: Final = CODES["kvm_fpu"]
_BY_CPU: Final = ("x86_fpu_regs_activated", "x86_fpu_regs_deactivated", "x86_fpu_dropped")
_BY_FPU: Final = (*_BY_CPU, "x86_fpu_copy_src", "x86_fpu_copy_dst", "x86_fpu_before_save", "x86_fpu_after_save")
_KEPT: Final = 1 << 14
"""Candidates of a rule that are kept; the rest is only counted."""
_NEVER: Final = (1 << 64) - 1


@dataclass(slots=True)
class Broken:
    """Rows that break one rule.

    Attributes:
        before, after: the two rows, in order of `after`'s time.
        more: how many there are beyond those kept.
    """

    before: Block = field(default_factory=lambda: Block.join([]))
    after: Block = field(default_factory=lambda: Block.join([]))
    more: int = 0

    def add(self, pairs: Pairs, more: int = 0) -> None:
        """Take in more of them."""
        if not len(pairs.after) and not more:
            return
        before, after = Block.join([self.before, pairs.before]), Block.join([self.after, pairs.after])
        order = np.lexsort((after.cpu, after.time))
        self.more += more + max(0, len(order) - _KEPT)
        self.before, self.after = before.take(order[:_KEPT]), after.take(order[:_KEPT])

    def only(self, rows: Mask) -> Broken:
        """Return some of the rows."""
        return Broken(self.before.take(rows), self.after.take(rows), self.more)


@dataclass(slots=True)
class _Recorded:
    """Since when and until when an event was recorded, and how often."""

    first: int = _NEVER
    last: int = 0
    count: int = 0

    def join(self, later: _Recorded) -> None:
        self.first, self.last = min(self.first, later.first), max(self.last, later.last)
        self.count += later.count


class Order:
    """The rules about order over a recording.

    Attributes:
        skipped: how often a restore was skipped, for the CPU still held the registers.
        swaps: how often kvm_fpu followed an activated of its thread.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self.swaps = 0
        self._by_cpu, self._by_fpu, self._by_thread, self._of_kvm = (Neighbours() for _ in range(4))
        self._broken: dict[str, Broken] = {}
        self._recorded: dict[int, _Recorded] = {code: _Recorded() for code in _WATCHED}
        self._flagged_saves = self._kvm_rows = 0

    def feed(self, block: Block) -> None:
        """Take in a block."""
        for code, recorded in self._recorded.items():
            at = np.flatnonzero(block.code == code)
            if len(at):
                recorded.join(_Recorded(int(block.time[at[0]]), int(block.time[at[-1]]), len(at)))
        self._flagged_saves += int(np.count_nonzero((block.code == _D) & (block.flag == 1)))
        fpu = block.take(np.flatnonzero(block.of(*_BY_FPU) & (block.a != MISSING)))
        moved = fpu.take(np.flatnonzero(fpu.of(*_BY_CPU)))
        self._judge_cpus(self._by_cpu.feed(moved, moved.cpu))
        self._judge_fpus(self._by_fpu.feed(fpu, fpu.a))
        swaps = block.take(np.flatnonzero(block.of("x86_fpu_regs_activated", "kvm_fpu")))
        self._judge_threads(self._by_thread.feed(swaps, swaps.pid))
        kvm = swaps.take(swaps.code == _KVM)
        self._kvm_rows += len(kvm)
        self._judge_kvm(self._of_kvm.feed(kvm, kvm.pid))

    def join(self, later: Order) -> None:
        """Take in what followed, fed elsewhere."""
        self.skipped += later.skipped
        self.swaps += later.swaps
        self._flagged_saves += later._flagged_saves
        self._kvm_rows += later._kvm_rows
        for code, recorded in self._recorded.items():
            recorded.join(later._recorded[code])
        for name, broken in later._broken.items():
            self._broken.setdefault(name, Broken()).add(Pairs(broken.before, broken.after), broken.more)
        self._judge_cpus(self._by_cpu.join(later._by_cpu))
        self._judge_fpus(self._by_fpu.join(later._by_fpu))
        self._judge_threads(self._by_thread.join(later._by_thread))
        self._judge_kvm(self._of_kvm.join(later._of_kvm))

    def broken(self, losses: Losses) -> Iterator[tuple[str, Broken]]:
        """Give each rule that was broken, with the rows that the recording is complete enough to judge."""
        precise: set[tuple[int, int, int]] = set()
        for name in ("lazy-restore", "never-loaded", "after-dropped", "dropped-alone", *_REST):
            broken = self._broken.get(name)
            if broken is None:
                continue
            broken = broken.only(self._judged(name, broken, losses))
            if name in _REST:  # where a rule that knows more has spoken
                broken = broken.only(np.array([key not in precise for key in _keys(broken.after)], np.bool_))
            precise.update(_keys(broken.after))
            if len(broken.after) or broken.more:
                yield name, broken

    # -- the rules ---------------------------------------------------------------------------------------------------

    def _judge_cpus(self, pairs: Pairs) -> None:
        before, after = pairs
        saved, same = after.code == _D, before.a == after.a
        self.skipped += int(np.count_nonzero(saved & same & (before.code == _D)))
        self._break("not-owner", pairs, saved & ~same)

    def _judge_fpus(self, pairs: Pairs) -> None:
        before, after = pairs
        saved, dropped, moved = after.code == _D, after.code == _DROPPED, before.cpu != after.cpu
        forked, dead = before.code == _COPY_DST, before.code == _DROPPED
        self._break("never-loaded", pairs, saved & forked)
        self._break("lazy-restore", pairs, saved & moved & ~forked & ~dead)
        reused = (after.code == _COPY_DST) | (after.code == _A)
        self._break("after-dropped", pairs, dead & ~reused & (~saved | moved))
        given_up = (before.code == _D) & ~moved
        self._break("dropped-alone", pairs, dropped & ~given_up & ~forked & ~dead)
        opens, closes = before.code == _BEFORE_SAVE, after.code == _AFTER_SAVE
        self._break("sync-pair", pairs, (opens != closes) | (opens & moved))

    def _judge_threads(self, pairs: Pairs) -> None:
        before, after = pairs
        kvm = after.code == _KVM
        self.swaps += int(np.count_nonzero(kvm & (before.code == _A)))
        self._break("swap-activated", pairs, kvm & (before.code == _KVM) & (before.flag != after.flag))

    def _judge_kvm(self, pairs: Pairs) -> None:
        self._break("kvm-balance", pairs, pairs.before.flag == pairs.after.flag)

    def _break(self, name: str, pairs: Pairs, rows: Mask) -> None:
        at = np.flatnonzero(rows)
        if len(at):
            found = self._broken.setdefault(name, Broken())
            found.add(Pairs(pairs.before.take(at), pairs.after.take(at)))

    # -- what the recording did not see ------------------------------------------------------------------------------

    def _judged(self, name: str, broken: Broken, losses: Losses) -> Mask:
        before, after = broken.before, broken.after
        judged = ~losses.across(before.time, after.time)
        for code in _NEEDS.get(name, ()):
            recorded = self._recorded[code]
            judged &= (before.time >= np.uint64(recorded.first)) & (after.time <= np.uint64(recorded.last))
        if name in {"lazy-restore", "never-loaded", "dropped-alone"}:
            judged &= losses.recorded_since(after.cpu) <= before.time
        if name in {"not-owner", "lazy-restore"} and not self._marks_when_saving:
            judged &= after.flag != 1
        if name == "swap-activated" and 2 * self.swaps < self._kvm_rows:  # a kernel that swaps without the event
            judged &= False
        return np.asarray(judged)

    @property
    def _marks_when_saving(self) -> bool:
        """Whether switch_fpu() sets TIF_NEED_FPU_LOAD before its event, as since 6.16.

        Until 6.15 an event with the flag set is the one that fpu__drop() prints of an exiting task, whether or not
        the registers were its own; there are no more of these than ``dropped``.
        """
        return self._flagged_saves > self._recorded[_DROPPED].count


_NEEDS: Final = {
    "not-owner": (_A,),
    "lazy-restore": (_A,),
    "never-loaded": (_A,),
    "swap-activated": (_A,),
    "dropped-alone": (_D,),
    "sync-pair": (_BEFORE_SAVE, _AFTER_SAVE),
}
"""The events whose absence breaks the rule."""
_WATCHED: Final = (_A, _D, _DROPPED, _BEFORE_SAVE, _AFTER_SAVE)
_REST: Final = ("not-owner", "sync-pair", "kvm-balance", "swap-activated")


def _keys(block: Block) -> list[tuple[int, int, int]]:
    return list(zip(block.cpu.tolist(), block.time.tolist(), block.a.tolist(), strict=True))
