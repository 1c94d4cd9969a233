"""A source's bytes, from its first one on, as far as somebody asks for them.

A regular file is mapped: nothing is copied, and only the pages that are looked at are read.  A pipe and a compressed
file are read on until what is asked for is there, and no further: of a core that is its head and its notes, which
stand before the memory.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
from collections.abc import Iterator
from typing import Final

from fpstate import compression
from fpstate.errors import UnreadableInput
from fpstate.sources.capture import Damage

__all__ = ["HEAD", "MOST_READ", "Input", "open_input"]

HEAD: Final = 4096
"""Bytes by which a source is recognised; a pipe gives as many if it has them."""
MOST_READ: Final = 256 << 20
"""Bytes that are read of a pipe or unpacked of a compressed file: the notes of 90,000 threads with AVX-512."""
_PIECE: Final = 1 << 20
_MAGIC_SIZE: Final = 6
"""Bytes that tell a compression."""


class Input:
    """Bytes from the start of a source.

    Attributes:
        name: what to call it.
        whole: True if all of it is at hand, as of a mapped file.
        damage: what went wrong while reading; what was read before stands.
        unpacked: True if these are not the source's bytes, but what they unpack to.
    """

    def __init__(
        self, name: str, data: memoryview | bytes, more: Iterator[bytes] | None = None, *, unpacked: bool = False
    ) -> None:
        self.name = name
        self.unpacked = unpacked
        self.damage: list[Damage] = []
        self._data = memoryview(data).toreadonly()
        self._more = more

    @property
    def whole(self) -> bool:
        """Whether there is nothing more to read."""
        return self._more is None

    @property
    def head(self) -> bytes:
        """The first bytes, at most `HEAD`."""
        return bytes(self.upto(HEAD)[:HEAD])

    def upto(self, size: int) -> memoryview:
        """Return the bytes at hand, from the start: at least *size* if the source has them.

        Raises:
            UnreadableInput: more than `MOST_READ` bytes of a source that is not mapped are asked for.
        """
        if self._more is None or size <= len(self._data):
            return self._data
        pieces = [bytes(self._data)]
        there = len(self._data)
        try:
            while there < size:
                if there > MOST_READ:
                    raise UnreadableInput(
                        f"{self.name} does not hold what is needed in its first {MOST_READ >> 20} MiB",
                        cure="give it as a file, not compressed: that is mapped, not read",
                    )
                piece = next(self._more, None)
                if piece is None:
                    self._more = None
                    break
                pieces.append(piece)
                there += len(piece)
        except _Broken as broken:
            self._more = None
            self.damage.append(Damage("source.unpack", str(broken), there, "unpack it again from the original"))
        self._data = memoryview(b"".join(pieces))
        return self._data

    def everything(self) -> memoryview:
        """Return all of the source; of a mapped file nothing is read by that.

        Raises:
            UnreadableInput: it is not mapped, and has more than `MOST_READ` bytes.
        """
        return self.upto(sys.maxsize)


class _Broken(Exception):
    """Compressed data that ends too early or is damaged."""


def open_input(path: str) -> Input:
    """Open a file, or standard input if *path* is ``-``; what is compressed is unpacked.

    Raises:
        UnreadableInput: it cannot be read, is empty, or is no file but a device or a folder.
    """
    name = "standard input" if path == "-" else path
    try:
        made = _opened(path, name)
    except (OSError, ValueError, OverflowError) as refused:  # ValueError: a path with a zero byte
        if isinstance(refused, UnreadableInput):
            raise
        raise UnreadableInput(f"cannot read {name!r}: {getattr(refused, 'strerror', None) or refused}") from refused
    if not len(made.upto(1)):
        why = made.damage[0].text if made.damage else f"{name} is empty"
        raise UnreadableInput(why)
    return made


def _opened(path: str, name: str) -> Input:
    if path != "-":
        kind = os.stat(path).st_mode  # noqa: PTH116  a path may name a pipe
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            raise UnreadableInput(f"cannot read {name!r}: it is a device", cure="give a file")
        return _of_descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC), name)
    if sys.stdin is None:
        raise UnreadableInput("standard input is closed", cure="give a file")
    try:
        descriptor = os.dup(sys.stdin.fileno())
    except (OSError, ValueError):  # a stand-in without a descriptor: a test's, or an embedding program's
        return _unpacked(name, memoryview(sys.stdin.buffer.read(MOST_READ)), None)
    return _of_descriptor(descriptor, name)


def _of_descriptor(descriptor: int, name: str) -> Input:
    """Return what *descriptor* has, and close it in the end."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        try:
            return _unpacked(name, memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)), None)
        finally:
            os.close(descriptor)
    rest = _pieces_of(descriptor, name)
    head = next(rest, b"")
    while len(head) < _MAGIC_SIZE and (piece := next(rest, b"")):
        head += piece
    return _unpacked(name, memoryview(head), rest)


def _pieces_of(descriptor: int, name: str) -> Iterator[bytes]:
    try:
        while piece := os.read(descriptor, _PIECE):
            yield piece
    except OSError as refused:
        raise UnreadableInput(f"cannot read {name!r}: {refused.strerror}") from refused
    finally:
        os.close(descriptor)


def _unpacked(name: str, data: memoryview, rest: Iterator[bytes] | None) -> Input:
    """Return *data* and the *rest* as they are, or what they hold if they are compressed."""
    kind = compression.kind_of(bytes(data[:_MAGIC_SIZE]))
    if kind is None:
        return Input(name, data, rest)
    packed = Input(name, data, rest).upto(MOST_READ) if rest is not None else data
    made = Input(name, b"", _guarded(compression.pieces(packed, kind, name)), unpacked=True)
    if inner := compression.kind_of(bytes(made.upto(_MAGIC_SIZE)[:_MAGIC_SIZE])):
        raise UnreadableInput(f"{name} is compressed twice", cure=f"unpack it first: {kind}, then {inner}")
    return made


def _guarded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield *pieces*; what they raise ends them, and what came before is kept."""
    try:
        yield from pieces
    except UnreadableInput as refusal:
        if refusal.cure:
            raise
        raise _Broken(str(refusal)) from refusal
