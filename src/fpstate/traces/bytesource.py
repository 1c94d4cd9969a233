"""Little-endian numbers and texts from bytes, none of them beyond the end."""

from __future__ import annotations

__all__ = ["Cursor", "Short"]


class Short(Exception):
    """Bytes are not as they must be; the message says which."""


class Cursor:
    """A place in some bytes.

    Args:
        data: the bytes.
        at: where to begin.
        end: where to stop; their end by default.
    """

    def __init__(self, data: memoryview, at: int, end: int | None = None) -> None:
        self._data = data
        self.at = at
        self.end = len(data) if end is None else end

    def take(self, size: int) -> memoryview:
        """Return the next *size* bytes.

        Raises:
            Short: there are fewer.
        """
        if size > self.end - self.at:
            raise Short(f"{size} bytes are said to be at byte {self.at}, and {max(0, self.end - self.at)} are there")
        self.at += size
        return self._data[self.at - size : self.at]

    def number(self, size: int) -> int:
        """Return the next number of *size* bytes."""
        return int.from_bytes(self.take(size), "little")

    def u8(self) -> int:
        """Return the next byte."""
        return self.number(1)

    def u16(self) -> int:
        """Return the next u16."""
        return self.number(2)

    def u32(self) -> int:
        """Return the next u32."""
        return self.number(4)

    def u64(self) -> int:
        """Return the next u64."""
        return self.number(8)

    def text(self, most: int) -> str:
        """Return the next text, which a zero ends.

        Raises:
            Short: it is longer than *most* bytes, or there is no zero.
        """
        head = bytes(self._data[self.at : min(self.at + most + 1, self.end)])
        text, zero, _ = head.partition(b"\0")
        if not zero:
            raise Short(f"a text at byte {self.at} has no end within {most} bytes")
        self.at += len(text) + 1
        return text.decode(errors="replace")
