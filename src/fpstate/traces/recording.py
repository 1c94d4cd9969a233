"""What a reader of recordings is given: the bytes of a file however large, and what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A file to be read.

    Attributes:
        name: what to call it.
        path: where its bytes are, uncompressed: a temporary file's if it was compressed, or standard input.
        data: its bytes, mapped: what is not looked at is not read.
        payloads: keep the payload of events that the model does not know.
        instance: which of its buffers; None for the one that fits best.
    """

    name: str
    path: Path
    data: memoryview
    payloads: bool = False
    instance: str | None = None
