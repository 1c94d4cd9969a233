"""What differs between two sources, thread by thread: by meaning, whatever their formats, layouts and CPUs are.

A register that is initial in one source and holds its initial value in the other has one value; that XSTATE_BV differs
is told beside it.  What a source does not hold is not compared: FXSAVE knows nothing of AVX, and of an image that was
cut off the last components are lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from fpstate.image import Difference, register_differences
from fpstate.sources.decoded import Decoded
from fpstate.sources.placement import Placed

__all__ = ["Compared", "Pair", "ThreadDifference", "compare"]

_ALL: Final = (1 << 63) - 1
_NO_STATE: Final = frozenset({"address", "rip", "rsp"})
"""Values of a signal frame that say where it lies and what it interrupted: no extended state."""


class Pair(NamedTuple):
    """A thread of each source that are the same one; None where a source lacks it."""

    a: Placed | None
    b: Placed | None


@dataclass(frozen=True)
class ThreadDifference:
    """What differs between the two sides of a pair.

    Attributes:
        a, b: the threads.
        registers: those with different values.
        values: those kept outside the image, name to both, where both sources have them and they differ.
        uncompared: components that one of the two does not hold.
    """

    a: Placed
    b: Placed
    registers: tuple[Difference, ...]
    values: dict[str, tuple[int, int]]
    uncompared: int

    @property
    def same(self) -> bool:
        """Whether nothing that both hold differs."""
        return not self.registers and not self.values and (self.a.image is None) == (self.b.image is None)

    @property
    def in_use(self) -> tuple[int, int]:
        """The components that XSTATE_BV has in A alone, and in B alone; none where one of them has no XSTATE_BV."""
        if self.a.xstate_bv is None or self.b.xstate_bv is None:
            return 0, 0
        a, b = self.a.in_use & ~self.uncompared, self.b.in_use & ~self.uncompared
        return a & ~b, b & ~a

    @property
    def differing(self) -> int:
        """The components that the registers which differ lie in, down to the byte."""
        mask = 0
        for difference in self.registers:
            mask |= difference.components
        return mask


@dataclass(frozen=True)
class Compared:
    """Two sources.

    Attributes:
        a, b: the sources.
        threads: those that both have, as A orders them.
        only_a, only_b: threads that the other source lacks.
    """

    a: Decoded
    b: Decoded
    threads: tuple[ThreadDifference, ...]
    only_a: tuple[Placed, ...]
    only_b: tuple[Placed, ...]

    @property
    def same(self) -> bool:
        """Whether both have the same threads, and each the same state."""
        return not self.only_a and not self.only_b and all(thread.same for thread in self.threads)


def compare(a: Decoded, b: Decoded, *, tid: int | None = None, other_tid: int | None = None) -> Compared:
    """Return what differs between two sources.

    Threads are matched by their number, or by their order if the sources have no number in common.  One thread of A is
    compared with the only state of B if that has no number.

    Args:
        a: a source.
        b: the other.
        tid: only this thread of A, and the one of B that matches it; None: all.
        other_tid: this thread of B, with *tid* of A, or A's first thread; None: the one that matches.

    Raises:
        UsageError: there is no thread *other_tid* in B, or with it no thread *tid* in A.
    """
    lone = [placed for placed in b.threads if placed.thread.tid is None] if len(b.threads) == 1 else []
    if other_tid is not None:
        pairs = [Pair(a.threads[0] if tid is None else a.thread(tid), b.thread(other_tid))]
    elif tid is not None and lone:
        pairs = [Pair(placed, lone[0]) for placed in a.threads if placed.thread.tid == tid]
    else:
        pairs = [pair for pair in _pairs(a.threads, b.threads) if tid is None or (pair.a and pair.a.thread.tid == tid)]
    return Compared(
        a,
        b,
        tuple(_difference(pair.a, pair.b) for pair in pairs if pair.a and pair.b),
        tuple(pair.a for pair in pairs if pair.a and not pair.b),
        tuple(pair.b for pair in pairs if pair.b and not pair.a),
    )


def _pairs(a: Iterable[Placed], b: Iterable[Placed]) -> Iterator[Pair]:
    """Match threads, those of A first, then those that B alone has."""
    ours, theirs = _by_number(a), _by_number(b)
    if not any(number is not None for number, _ in ours.keys() & theirs.keys()):  # another run, or an image alone
        ours, theirs = _by_order(a), _by_order(b)
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        yield Pair(ours.get(key), theirs.get(key))


_Threads = dict[tuple[int | None, int], Placed]


def _by_order(threads: Iterable[Placed]) -> _Threads:
    return {(None, place): placed for place, placed in enumerate(threads)}


def _by_number(threads: Iterable[Placed]) -> _Threads:
    """Return *threads* by (number, how many before it have it): a thread can have several signal frames."""
    seen: Counter[int | None] = Counter()
    found: _Threads = {}
    for placed in threads:
        tid = placed.thread.tid
        found[tid, seen[tid]] = placed
        seen[tid] += 1
    return found


def _difference(a: Placed, b: Placed) -> ThreadDifference:
    known = _known(a) & _known(b)
    registers: list[Difference] = []
    if a.image is not None and b.image is not None:
        narrow = a.thread.abi == b.thread.abi == "i386"
        found = register_differences(a.image, b.image, within=known)
        registers = [d for d in found if not (narrow and d.register.long_mode)]
    values = {
        name: (value, b.thread.values[name])
        for name, value in a.thread.values.items()
        if name not in _NO_STATE and b.thread.values.get(name, value) != value
    }
    return ThreadDifference(a, b, tuple(registers), values, (a.has | b.has) & ~known)


def _known(placed: Placed) -> int:
    """Return the components of which *placed* tells the state; in an XSAVE image, one without a place is initial."""
    if placed.image is None:
        return 0
    if placed.thread.form != "xsave":
        return placed.has
    return _ALL & ~((placed.xstate_bv or 0) & ~placed.has)
