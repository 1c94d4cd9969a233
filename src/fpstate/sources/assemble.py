"""An XSAVE image put together for a source that keeps the components apart: CRIU, QEMU, a Windows CONTEXT.

The image is in standard format, each component where Intel CPUs have it, and comes with the layout that says so: it is
nobody's own, and must be read by that layout.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from fpstate.cpu.model import Component, standard_size
from fpstate.xfeatures import CATALOGUE, LEGACY, LEGACY_SIZE, mask_of

__all__ = ["LAYOUT", "NOTE", "assemble", "fxsave"]

LAYOUT: Final[Mapping[int, Component]] = {
    row.bit: Component(row.bit, row.size, place.offset, aligned=row.aligned, xfd=row.xfd, origin="catalogue")
    for row in CATALOGUE
    for place in row.placements
    if row.bit > 1 and place.layout in {"all", "intel"}
}
"""The user components where Intel has them.  MPX and APX share a place: no CPU has both."""

NOTE: Final = (
    "the source keeps components apart: the image is put together here, in standard format with Intel's offsets"
)


def fxsave(
    *,
    control: int = 0,
    status: int = 0,
    tags: int = 0,
    opcode: int = 0,
    ip: int = 0,
    dp: int = 0,
    mxcsr: int = 0,
    mxcsr_mask: int = 0,
    stack: bytes = b"",
    xmm: bytes = b"",
) -> bytearray:
    """Return 512 bytes as FXSAVE64 writes them (SDM volume 1, table 10-2).

    Args:
        control: FCW.
        status: FSW.
        tags: the abridged tag byte: a bit is 1 where the register is not empty.
        opcode: FOP.
        ip: FIP, 64 bits.
        dp: FDP, 64 bits.
        mxcsr: MXCSR.
        mxcsr_mask: MXCSR_MASK.
        stack: ST0 to ST7, 16 bytes each; what is missing is 0.
        xmm: XMM0 to XMM15, 16 bytes each; what is missing is 0.
    """
    image = bytearray(LEGACY_SIZE)
    struct.pack_into("<HHBxHQQII", image, 0, control, status, tags, opcode, ip, dp, mxcsr, mxcsr_mask)
    image[32 : 32 + len(stack)] = stack
    image[160 : 160 + len(xmm)] = xmm
    return image


def assemble(
    legacy: bytes | bytearray | memoryview, components: Mapping[int, bytes], xstate_bv: int
) -> tuple[memoryview, dict[int, Component]]:
    """Return the image, and the layout of what is in it.

    Args:
        legacy: the 512 bytes of the legacy region.
        components: bit to bytes, of user components in `LAYOUT`; a short one is filled up with zeros.
        xstate_bv: what the header says; bits without bytes are left out of it.
    """
    layout = {bit: LAYOUT[bit] for bit in sorted(components)}
    image = bytearray(standard_size(layout, mask_of(layout)))
    image[:LEGACY_SIZE] = legacy
    struct.pack_into("<Q", image, LEGACY_SIZE, xstate_bv & (mask_of(layout) | LEGACY))
    for bit, place in layout.items():
        piece, start = components[bit][: place.size], place.offset or 0
        image[start : start + len(piece)] = piece
    return memoryview(bytes(image)), layout
