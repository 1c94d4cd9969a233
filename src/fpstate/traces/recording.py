"""What a reader of recordings is given: the bytes of a file however large, and what was asked for."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["Request", "mapped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A file to be read.

    Attributes:
        name: what to call it.
        path: where it is; gone if it was compressed or is standard input.  A folder has no `data`.
        data: its bytes, mapped: what is not looked at is not read.
        payloads: keep the payload of events that the model does not know.
        instance: which of its buffers; None for the one that fits best.
    """

    name: str
    path: Path
    data: memoryview
    payloads: bool = False
    instance: str | None = None


def mapped(file: IO[bytes]) -> memoryview:
    """Return a file's bytes; they stay when it is closed.

    Raises:
        OSError: it cannot be mapped.
    """
    file.seek(0, 2)
    if not file.tell():
        return memoryview(b"")
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
