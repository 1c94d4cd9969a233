"""The register file of a million processors: one row of bytes each, every component at a fixed place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fpstate.isa import Capabilities, Processor
from fpstate.isa.processor import LEGACY_BYTES
from fpstate.xfeatures import bits

__all__ = ["FCS", "FDS", "Bytes", "RegisterLayout", "aligned", "register_layout"]

Bytes = NDArray[np.uint8]
"""Rows of bytes: images, or register files."""

FCS: Final = LEGACY_BYTES
"""Where the selector of the x87 instruction pointer lies in a row: two bytes after the legacy region."""
FDS: Final = FCS + 2
"""Where that of the operand pointer lies."""
_LINE: Final = 64


@dataclass(frozen=True, slots=True)
class RegisterLayout:
    """The places in a row of a register file.

    Bytes 0 to 415 are `Processor.legacy`: x87, SSE with MXCSR at 24.  FCS and FDS follow at 416 and 418.  From 448 on
    come the sections of the components, ascending, each on the next 64 bytes.  Bytes between them mean nothing.

    Attributes:
        sections: component, 2 and up, to its (offset, size).
        size: bytes of a row, a multiple of 64.
    """

    sections: Mapping[int, tuple[int, int]]
    size: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The row as a structure: legacy, mxcsr, fcs, fds, and c2, c5, ... for the sections."""
        fields: dict[str, tuple[str, int]] = {
            "legacy": (f"V{LEGACY_BYTES}", 0),
            "mxcsr": ("<u4", 24),
            "fcs": ("<u2", FCS),
            "fds": ("<u2", FDS),
        }
        fields |= {f"c{bit}": (f"V{size}", offset) for bit, (offset, size) in self.sections.items()}
        names = list(fields)
        formats, offsets = zip(*fields.values(), strict=True)
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": self.size})

    def pack(self, p: Processor, row: Bytes) -> None:
        """Put the registers of *p* into *row*."""
        row[:LEGACY_BYTES] = np.frombuffer(p.legacy, np.uint8)
        selectors = p.fcs.to_bytes(2, "little") + p.fds.to_bytes(2, "little")
        row[FCS : FDS + 2] = np.frombuffer(selectors, np.uint8)
        for bit, (offset, size) in self.sections.items():
            row[offset : offset + size] = np.frombuffer(p.sections[bit], np.uint8)

    def unpack(self, row: Bytes, p: Processor) -> None:
        """Put *row* into the registers of *p*; what counts as used is not in a row and stays."""
        data = row.tobytes()
        p.legacy[:] = data[:LEGACY_BYTES]
        p.fcs = int.from_bytes(data[FCS:FDS], "little")
        p.fds = int.from_bytes(data[FDS : FDS + 2], "little")
        for bit, (offset, size) in self.sections.items():
            p.sections[bit][:] = data[offset : offset + size]


def register_layout(caps: Capabilities, components: int) -> RegisterLayout:
    """Return the layout with the extended *components* of a CPU, and with no other."""
    sections: dict[int, tuple[int, int]] = {}
    end = (FDS + 2 + _LINE - 1) & -_LINE
    for bit in bits(components):
        if bit in caps.sizes:
            sections[bit] = (end, caps.sizes[bit])
            end = (end + caps.sizes[bit] + _LINE - 1) & -_LINE
    return RegisterLayout(sections, end)


def aligned(rows: int, width: int) -> Bytes:
    """Return zeroed rows of *width* bytes that begin on 64 bytes if *width* is a multiple of 64."""
    memory = np.zeros(rows * width + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + rows * width].reshape(rows, width)
