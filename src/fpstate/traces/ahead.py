"""Streams read ahead: while one block is merged, the next of each stream is made in another thread.

Decompression and NumPy let other threads run, so that CPUs of a recording are decoded beside each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from fpstate.traces.columns import Block

__all__ = ["read_ahead"]


def read_ahead(streams: Sequence[Iterator[Block]]) -> list[Iterable[Block]]:
    """Return streams that give the same blocks, each one block ahead of who reads it."""
    threads = min(len(streams), len(os.sched_getaffinity(0)))
    if threads < 2:
        return list(streams)
    together = _Together(threads)
    together.streams = [_Ahead(stream, together) for stream in streams]
    return list(together.streams)


class _Together:
    """Streams that one pool of threads reads; all of them begin when the first is asked."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.streams: list[_Ahead] = []
        self.pool: ThreadPoolExecutor | None = None

    def begin(self) -> ThreadPoolExecutor:
        """Return the pool; at first, make it and let all streams begin."""
        if self.pool is None:
            self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="fpstate-trace")
            for stream in self.streams:
                stream.submit(self.pool)
        return self.pool


class _Ahead:
    """A stream, and its next block in the making."""

    def __init__(self, stream: Iterator[Block], together: _Together) -> None:
        self._stream, self._together = stream, together
        self._future: Future[Block | None] | None = None

    def submit(self, pool: ThreadPoolExecutor) -> None:
        """Let the next block be made."""
        self._future = pool.submit(next, self._stream, None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Block:
        pool = self._together.begin()
        block = self._future.result() if self._future else None
        if block is None:
            self._future = None
            raise StopIteration
        self.submit(pool)
        return block
