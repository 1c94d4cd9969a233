"""A recording by its path: whatever it is, known by its content."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, NamedTuple

from fpstate import compression
from fpstate.errors import UnreadableInput
from fpstate.traces import rawpages, textform, tracedat
from fpstate.traces.recording import Request, mapped
from fpstate.traces.trace import Trace

__all__ = ["READERS", "Reader", "open_trace"]


class Reader(NamedTuple):
    """A form of recordings.

    Attributes:
        name: what to call it.
        sniff: says by the first `HEAD` bytes whether a file is one.
        read: opens it.
    """

    name: str
    sniff: Callable[[bytes], bool]
    read: Callable[[Request], Trace]


def _read_parquet(request: Request) -> Trace:
    from fpstate.traces import parquet  # noqa: PLC0415 - PyArrow, which other forms do without

    return parquet.read(request)


def _read_parts(request: Request) -> Trace:
    from fpstate.traces import parquet  # noqa: PLC0415 - PyArrow, which other forms do without

    return parquet.read_groups(str(request.path), payloads=request.payloads)


HEAD: Final = 1 << 16
"""Bytes by which a file is recognised."""

READERS: Final[list[Reader]] = [
    Reader("trace.dat", tracedat.sniff, tracedat.read),
    Reader("Parquet", lambda head: head.startswith(b"PAR1"), _read_parquet),
    Reader("text", textform.sniff, textform.read),
]
"""In the order in which they are asked."""

FOLDERS: Final[list[tuple[Callable[[Path], bool], Callable[[Request], Trace]]]] = [
    (rawpages.sniff, rawpages.read),
    (lambda path: next(path.glob("*.parquet"), None) is not None, _read_parts),
]
"""What knows a folder, and what opens it, in the order in which they are asked."""

_MOST: Final = 1 << 36
"""Bytes that a compressed recording, or standard input, may have."""


def open_trace(path: str, *, payloads: bool = False, instance: str | None = None) -> Trace:
    """Open a recording; its events are read as its blocks are.

    Args:
        path: a file, compressed (gzip, xz, zstd) or not; ``-`` is standard input; or a folder (see `FOLDERS`).
        payloads: keep the payload of events that the model does not know.
        instance: the tracing instance, where a recording has several buffers: ``top`` or its name.

    Raises:
        UnreadableInput: it cannot be opened, or is of no known form.
        UsageError: it has no such instance.
    """
    name = "standard input" if path == "-" else path
    if path != "-" and Path(path).is_dir():
        request = Request(name=name, path=Path(path), data=memoryview(b""), payloads=payloads, instance=instance)
        return _of_folder(request)
    try:
        file = _plain(path, name)
    except OSError as error:
        raise UnreadableInput(f"{name} cannot be read: {error.strerror or error}") from error
    with file:
        data = mapped(file)
        request = Request(name=name, path=Path(file.name), data=data, payloads=payloads, instance=instance)
    head = bytes(data[:HEAD])
    for reader in READERS:
        if reader.sniff(head):
            return reader.read(request)
    forms = ", ".join(reader.name for reader in READERS)
    raise UnreadableInput(f"{name} is no recording of a known form: {forms}" if head else f"{name} is empty")


def _of_folder(request: Request) -> Trace:
    for sniff, read in FOLDERS:
        if sniff(request.path):
            return read(request)
    raise rawpages.refusal(request.name)


def _plain(path: str, name: str) -> IO[bytes]:
    """Return a file of the recording's bytes, that can be mapped and is not compressed."""
    file: IO[bytes] = sys.stdin.buffer if path == "-" else Path(path).open("rb")  # noqa: SIM115 - the caller closes it
    if path == "-" or not file.seekable():
        copy = tempfile.NamedTemporaryFile(prefix="fpstate-")  # noqa: SIM115 - the caller closes it
        shutil.copyfileobj(file, copy)
        file = copy
    file.seek(0)
    kind = compression.kind_of(file.read(16))
    file.seek(0)
    if kind is None:
        return file
    unpacked = tempfile.NamedTemporaryFile(prefix="fpstate-")  # noqa: SIM115 - the caller closes it
    size = 0
    for piece in compression.pieces(mapped(file), kind, name):
        size += len(piece)
        if size > _MOST:
            raise UnreadableInput(f"{name} is larger than {_MOST >> 30} GiB uncompressed")
        unpacked.write(piece)
    unpacked.flush()
    return unpacked
