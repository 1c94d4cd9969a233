"""Compressed sections and chunks of trace.dat, each unpacked to the size that the file says, and never beyond it.

trace-cmd leaves the magic number of zstd out (``ZSTD_f_zstd1_magicless``, ``lib/trace-cmd/trace-compress-zstd.c``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from fpstate.errors import UnreadableInput, printable

__all__ = ["MOST_CHUNK", "unpacker"]

MOST_CHUNK: Final = 64 << 20
"""Bytes of a chunk of pages, unpacked: trace-cmd makes them of some pages each."""

Unpack = Callable[[memoryview, int], bytes]

_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def unpacker(name: str) -> Unpack:
    """Return what unpacks bytes that the named compression made, given them and their size unpacked.

    It raises UnreadableInput where they are damaged or of another size.

    Raises:
        UnreadableInput: there is no compression of this name, or this Python has none.
    """
    if name == "none":
        return lambda data, size: _of_size(bytes(data), size)
    if name == "zlib":
        return _zlib()
    if name == "zstd":
        return _zstd()
    raise UnreadableInput(
        f"the compression {printable(name)!r} is not known: zlib and zstd are",
        cure="trace-cmd convert --compression none",
    )


def _of_size(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise UnreadableInput(f"{len(data)} bytes where {size} are said")
    return data


def _zlib() -> Unpack:
    import zlib  # noqa: PLC0415 - most recordings need no zlib

    def unpack(data: memoryview, size: int) -> bytes:
        try:
            return _of_size(zlib.decompressobj().decompress(data, size + 1), size)
        except zlib.error as error:
            raise UnreadableInput(f"zlib says {error}") from error

    return unpack


def _zstd() -> Unpack:
    make, broken = _zstd_machine()

    def unpack(data: memoryview, size: int) -> bytes:
        # A frame's first byte has bit 3 clear (RFC 8878, 3.1.1.1.1), so that no frame begins like the magic number.
        head = b"" if bytes(data[:4]) == _ZSTD else _ZSTD
        frame = head + data
        try:
            return _of_size(make(frame, size), size)
        except broken as error:
            raise UnreadableInput(f"zstd says {error}") from error

    return unpack


def _zstd_machine() -> tuple[Callable[[bytes, int], bytes], type[Exception]]:
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415

        return lambda frame, size: zstd.ZstdDecompressor().decompress(frame, size + 1), zstd.ZstdError
    import zstandard  # noqa: PLC0415

    def decompress(frame: bytes, size: int) -> bytes:
        said = zstandard.frame_content_size(frame)
        if said not in {-1, size}:  # what the frame says is allocated
            raise zstandard.ZstdError(f"a frame of {said} bytes where {size} are said")
        return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(frame, max_output_size=size)

    return decompress, zstandard.ZstdError
