"""A recording: what it says of itself, and its events in order of time.

A reader gives one stream of blocks for each CPU, or fewer, each in order of time.  `Trace.blocks` merges them and holds
one block of each stream, however long the recording is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fpstate.sources.capture import Damage
from fpstate.traces.columns import EVENTS, Block

__all__ = ["Facts", "Trace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of the machine that was traced; "" or None where the recording does not say it.

    Attributes:
        release: of its kernel, as uname(2) tells.
        machine: of its CPU, as ``/proc/cpuinfo`` names it.
        cmdline: of its kernel, as ``/proc/cmdline``.
        cpuid: its CPU's CPUID, in the project's own form (`fpstate.cpu.native`).
        cpus: its number of CPUs.
    """

    release: str = ""
    machine: str = ""
    cmdline: str = ""
    cpuid: str = ""
    cpus: int | None = None


@dataclass(eq=False, kw_only=True)
class Trace:
    """A recording that is open.  What grows is whole once all of `blocks` was read.

    Attributes:
        source: what to call it.
        format: what it is, with its version and compression: ``trace.dat v7 (zstd)``.
        streams: blocks, each stream in order of time, and read once.
        clock: what `Block.time` counts: ``local``, ``global``, ``mono``, ... are nanoseconds, ``x86-tsc`` and
            ``counter`` are not.
        facts: of the machine.
        names: of the events, by code: `EVENTS` and then the recording's own.  Grows.
        comms: the last known name of each thread.  Grows.
        damage: what could not be read.  Grows.
        notes: remarks that speak of no damage.
    """

    source: str
    format: str
    streams: list[Iterable[Block]]
    clock: str = "local"
    facts: Facts = field(default_factory=Facts)
    names: list[str] = field(default_factory=lambda: [event.name for event in EVENTS])
    comms: dict[int, str] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def in_nanoseconds(self) -> bool:
        """Whether times are nanoseconds."""
        return self.clock not in {"x86-tsc", "counter"}

    def blocks(self) -> Iterator[Block]:
        """Give all events, each block in order of time and none before the last of the block before it.

        Rows of one stream keep its order.
        """
        yield from merged(self.streams)


def merged(streams: Iterable[Iterable[Block]]) -> Iterator[Block]:
    """Merge streams of blocks, each in order of time, holding one block of each."""
    waiting = [iter(stream) for stream in streams]
    held: dict[int, Block] = {}
    while going := [at for at in range(len(waiting)) if _fill(waiting[at], held, at)]:
        until = min(held[at].time[-1] for at in going)
        ready = []
        for at in going:
            block = held[at]
            cut = int(np.searchsorted(block.time, until, side="right"))
            ready.append(block.take(slice(0, cut)))
            held[at] = block.take(slice(cut, None))
        block = Block.join(ready)
        yield block.take(np.argsort(block.time, kind="stable")) if len(going) > 1 else block


def _fill(stream: Iterator[Block], held: dict[int, Block], at: int) -> bool:
    """Hold a block of the stream that is not empty; False where there is none any more."""
    while at not in held or not len(held[at]):
        block = next(stream, None)
        if block is None:
            held.pop(at, None)
            return False
        held[at] = block
    return True
