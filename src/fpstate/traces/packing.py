"""Compression of a recording's chunks: zstd where this Python has it, else zlib; trace-cmd reads both.

Source: trace-cmd ``lib/trace-cmd/trace-compress.c``, ``trace-compress-zstd.c``, ``trace-compress-zlib.c``.
"""

from __future__ import annotations

import os
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

__all__ = ["Packing", "best"]

_ZSTD_LEVEL: Final = 3
_ZLIB_LEVEL: Final = 1
_MOST_THREADS: Final = 8

Pack = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Packing:
    """A way to compress.

    Attributes:
        name, version: as trace.dat's header has them.
        new: makes a function that compresses, for one thread.
    """

    name: str
    version: str
    new: Callable[[], Pack]

    def each(self, chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        """Yield each chunk's size and its compressed form, in order, several at a time; few are held at once."""
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        local = threading.local()

        def prepare() -> None:
            local.pack = self.new()

        def pack(chunk: bytes) -> bytes:
            packed: bytes = local.pack(chunk)
            return packed

        waiting: deque[tuple[int, Future[bytes]]] = deque()
        with ThreadPoolExecutor(threads, initializer=prepare) as pool:
            for chunk in chunks:
                waiting.append((len(chunk), pool.submit(pack, chunk)))
                if len(waiting) > 2 * threads:
                    size, done = waiting.popleft()
                    yield size, done.result()
            for size, done in waiting:
                yield size, done.result()


def best() -> Packing:
    """Return the best packing that this Python has."""
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415 - not every build has it

        version = ".".join(map(str, zstd.zstd_version_info))
        return Packing("zstd", version, lambda: lambda data: zstd.compress(data, _ZSTD_LEVEL))
    try:
        import zstandard  # noqa: PLC0415 - may be missing
    except ImportError:
        return Packing("zlib", zlib.ZLIB_VERSION, lambda: lambda data: zlib.compress(data, _ZLIB_LEVEL))
    version = ".".join(map(str, zstandard.ZSTD_VERSION))
    return Packing("zstd", version, lambda: zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress)
