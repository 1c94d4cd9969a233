"""Streams read ahead: while one block is merged, the next of each stream is made in another thread.

Decompression and NumPy let other threads run, so that CPUs of a recording are decoded beside each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from fpstate.traces.columns import Block

__all__ = ["read_ahead"]


def read_ahead(streams: list[Iterator[Block]]) -> list[Iterable[Block]]:
    """Return streams that give the same blocks, each one block ahead of who reads it."""
    threads = min(len(streams), len(os.sched_getaffinity(0)))
    if threads < 2:
        return list(streams)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fpstate-trace")
    return [_ahead(stream, pool) for stream in streams]


def _ahead(stream: Iterator[Block], pool: ThreadPoolExecutor) -> Iterator[Block]:
    future: Future[Block | None] = pool.submit(next, stream, None)
    while (block := future.result()) is not None:
        future = pool.submit(next, stream, None)
        yield block
