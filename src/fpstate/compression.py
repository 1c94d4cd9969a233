"""Compressed inputs: gzip, xz and zstd, known by their first bytes and never unpacked beyond a limit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from fpstate.errors import UnreadableInput

__all__ = ["expand", "kind_of", "pieces"]

_MAGIC: Final = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
_MOST_LAYERS: Final = 2
_MOST_MEMBERS: Final = 1024
_STEP: Final = 256
"""Bytes fed at a time.  One zstd block of 4 bytes grows to 128 KiB: so a bomb overshoots the limit by 8 MiB at most."""
_BLOCK: Final = 1 << 16
"""Bytes of padding looked at in one go."""
_MEMORY: Final = 1 << 27
"""Bytes that a decompressor may need for its window: twice what ``xz -9`` and ``zstd --ultra -22`` ask for."""


class _Machine(Protocol):
    """A decompressor of one member."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def kind_of(data: bytes) -> str | None:
    """Return how *data* is compressed: ``"gzip"``, ``"xz"``, ``"zstd"`` or None."""
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def expand(data: bytes, *, name: str, limit: int) -> bytes:
    """Return *data* uncompressed; one compressed file may lie within another.

    Raises:
        UnreadableInput: it is damaged, or larger than *limit* bytes, or compressed more than twice.
    """
    for _ in range(_MOST_LAYERS):
        kind = kind_of(data)
        if kind is None:
            return data
        data = _expand(data, kind, name, limit)
    if kind_of(data):
        raise UnreadableInput(f"{name} is compressed more than {_MOST_LAYERS} times")
    return data


def _expand(data: bytes, kind: str, name: str, limit: int) -> bytes:
    found = bytearray()
    for piece in pieces(data, kind, name):
        found += piece
        if len(found) > limit:
            raise UnreadableInput(f"{name} is larger than {limit >> 20} MiB uncompressed")
    return bytes(found)


def pieces(data: bytes | memoryview, kind: str, name: str) -> Iterator[bytes]:
    """Yield *data* uncompressed, piece by piece, as far as the caller goes on.

    Args:
        data: compressed; one or more members, with zeros between and behind them.
        kind: one of `kind_of`'s.
        name: what to call it.

    Raises:
        UnreadableInput: it is damaged or ends too early; what was yielded before stands.
    """
    new_machine, damage = _open(kind, name)
    at = members = 0
    machine: _Machine | None = None
    try:
        while at < len(data):
            if machine is None or machine.eof:
                machine, members = new_machine(), members + 1
                if members > _MOST_MEMBERS:
                    raise UnreadableInput(f"{name} has more than {_MOST_MEMBERS} {kind} members")
            piece = bytes(data[at : at + _STEP])
            yield machine.decompress(piece)
            at += len(piece)
            if machine.eof:
                at = _after_padding(data, at - len(machine.unused_data))
    except damage as error:
        raise UnreadableInput(f"{name} is damaged: {kind} says {error}") from error
    if machine is None or not machine.eof:
        raise UnreadableInput(f"{name} is damaged: the {kind} data ends too early")


def _after_padding(data: bytes | memoryview, at: int) -> int:
    """Return the position of the first byte from *at* on that is not zero: tapes and xz pad with zeros."""
    while at < len(data):
        block = bytes(data[at : at + _BLOCK])
        rest = block.lstrip(b"\0")
        at += len(block) - len(rest)
        if rest:
            break
    return at


# The modules below are imported where they are needed: most inputs are not compressed, and any may be missing.
def _open(kind: str, name: str) -> tuple[Callable[[], _Machine], tuple[type[Exception], ...]]:
    """Return what makes a decompressor, and the exceptions with which it reports damage."""
    try:
        if kind == "gzip":
            import zlib  # noqa: PLC0415

            return lambda: zlib.decompressobj(wbits=31), (zlib.error,)
        if kind == "xz":
            import lzma  # noqa: PLC0415

            return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY), (lzma.LZMAError, MemoryError)
        return _open_zstd()
    except ImportError as missing:
        cure = "pip install zstandard" if kind == "zstd" else f"unpack it first, with '{kind} -d'"
        raise UnreadableInput(
            f"{name} is compressed with {kind}, which this Python cannot read", cure=cure
        ) from missing


def _open_zstd() -> tuple[Callable[[], _Machine], tuple[type[Exception], ...]]:
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415

        options = {zstd.DecompressionParameter.window_log_max: _MEMORY.bit_length() - 1}
        return lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError,)
    import zstandard  # noqa: PLC0415

    context = zstandard.ZstdDecompressor(max_window_size=_MEMORY)
    return context.decompressobj, (zstandard.ZstdError,)
