"""Memory as an instruction sees it: bytes at an address, pages that are missing or read-only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from fpstate.isa.masks import ALL
from fpstate.isa.rules import Fault

__all__ = ["PAGE", "Access", "Memory"]

PAGE: Final = 4096
"""Bytes of a page."""

Access = Literal["rw", "r", "none"]
"""What a page allows."""

_PRESENT, _WRITE, _USER = 1, 2, 4  # page-fault error code, SDM volume 3, 4.7


class Memory:
    """A run of bytes at a linear address; nothing is mapped around it.

    Attributes:
        data: the bytes, changed in place.
        base: the linear address of the first.
        pages: what the pages allow, by page number (address / 4096); those not named allow everything.
    """

    __slots__ = ("_plain", "base", "data", "pages")

    def __init__(self, data: bytearray, base: int, pages: Mapping[int, Access] | None = None) -> None:
        self.data = data
        self.base = base
        self.pages: dict[int, Access] = dict(pages or {})
        self._plain = not any(access != "rw" for access in self.pages.values())

    def fits(self, address: int, size: int) -> bool:
        """Tell whether *size* bytes at *address* are all there and allow everything: no need to `probe`."""
        start = address - self.base
        return self._plain and start >= 0 and start + size <= len(self.data)

    def probe(self, address: int, *, write: bool, user: bool) -> None:
        """Check one byte.

        Args:
            address: its linear address.
            write: whether it must be writable.
            user: CPL 3, for the error code.

        Raises:
            Fault: #PF.
        """
        address &= ALL  # the last addresses are followed by 0
        access = self.pages.get(address // PAGE, "rw")
        inside = 0 <= address - self.base < len(self.data)
        if inside and (access == "rw" or (access == "r" and not write)):
            return
        present = inside and access == "r"
        code = _PRESENT * present | _WRITE * write | _USER * user
        why = "is read-only" if present else "is not mapped"
        raise Fault(
            "page-write" if write else "page-read",
            f"address {address:#x} {why}",
            offset=None,
            address=address,
            error_code=code,
        )

    def first_fault(self, address: int, size: int, *, write: bool, user: bool) -> None:
        """Check *size* bytes from *address* on, ascending: the fault is at the first byte of a page.

        Raises:
            Fault: #PF.
        """
        if size <= 0 or self.fits(address, size):
            return
        at, end = address, address + size
        while at < end:
            self.probe(at, write=write, user=user)
            next_page = (at // PAGE + 1) * PAGE
            covered = self.base + len(self.data)
            at = covered if at < covered < next_page else next_page  # the bytes may end within a page
