"""What somebody does to an image or a frame before the kernel gets it: the recorder's tables, and the rows' names."""

from __future__ import annotations

import struct
from collections.abc import Callable

from fpstate.linux.abi import MAGIC2_SIZE
from fpstate.xfeatures import SSE

__all__ = ["FRAMES", "TAMPERED", "Change", "bv", "u64"]

Change = Callable[[bytes], bytes]
"""What somebody does to an image before the kernel gets it."""

MAGIC1, EXTENDED_SIZE, SW_XFEATURES, XSTATE_SIZE = 464, 468, 472, 480


def u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def changed(image: bytes, *changes: tuple[int, str, int]) -> bytes:
    data = bytearray(image)
    for at, kind, value in changes:
        struct.pack_into(f"<{kind}", data, at, value)
    return bytes(data)


def bv(value: Callable[[int], int]) -> Change:
    return lambda image: changed(image, (512, "Q", value(u64(image, 512))))


def sw(at: int, kind: str, value: Callable[[int], int]) -> Change:
    def change(frame: bytes) -> bytes:
        old = int.from_bytes(frame[at : at + struct.calcsize(kind)], "little")
        return changed(frame, (at, kind, value(old)))

    return change


TAMPERED: dict[str, Change] = {
    "same": lambda image: image,
    "xstate_bv_bit40": bv(lambda old: old | 1 << 40),
    "xcomp_bv_bit63": lambda image: changed(image, (520, "Q", 1 << 63)),
    "xcomp_bv_1": lambda image: changed(image, (520, "Q", 1)),
    "header_rsvd_528": lambda image: changed(image, (528, "B", 1)),
    "header_rsvd_575": lambda image: changed(image, (575, "B", 1)),
    "mxcsr_rsvd_bit16": lambda image: changed(image, (24, "I", 0x1F80 | 1 << 16)),
    "xstate_bv_0": bv(lambda _: 0),
    "short_minus8": lambda image: image[:-8],
    "short_576": lambda image: image[:576],
    "long_plus8": lambda image: image + bytes(8),
    "xstate_bv_all_user": lambda image: changed(image, (512, "Q", u64(image, 464))),
    "xstate_bv_bit11_cet": bv(lambda old: old | 1 << 11),
    "xstate_bv_bit8_pt": bv(lambda old: old | 1 << 8),
    "xstate_bv_bit18": bv(lambda old: old | 1 << 18),
    "xstate_bv_bit10_pasid": bv(lambda old: old | 1 << 10),
    "xstate_bv_bit5_only": bv(lambda _: 1 << 5),
    "xstate_bv_bit17_only": bv(lambda _: 1 << 17),
    "xstate_bv_bit9_only": bv(lambda _: 1 << 9),
    "sw_xfeatures_zero": lambda image: changed(image, (464, "Q", 0)),
    "xstate_bv_bit19": bv(lambda old: old | 1 << 19),
    "mxcsr_rsvd_sse_bv_clear": lambda image: changed(
        image, (24, "I", 0x1F80 | 1 << 16), (512, "Q", u64(image, 512) & ~SSE)
    ),
    "xstate_bv_bit4_only": bv(lambda _: 1 << 4),
}
"""What the recorder did to an image of state ``all`` before it handed it in, by the name that it printed."""
FRAMES: dict[str, Change] = {
    "none": lambda frame: frame,
    "xstate_bv_clear_avx": bv(lambda old: old & ~4),
    "magic1_zero": sw(MAGIC1, "I", lambda _: 0),
    "magic2_zero": lambda frame: frame[:-MAGIC2_SIZE] + bytes(MAGIC2_SIZE),
    "sw_xfeatures_no_avx": sw(SW_XFEATURES, "Q", lambda old: old & ~4),
    "xstate_bv_clear_sse": bv(lambda old: old & ~2),
    "xstate_bv_bit40": bv(lambda old: old | 1 << 40),
    "xcomp_bv_bit63": lambda frame: changed(frame, (520, "Q", 1 << 63)),
    "header_rsvd_536": lambda frame: changed(frame, (536, "B", 1)),
    "mxcsr_rsvd_bit31": sw(24, "I", lambda old: old | 1 << 31),
    "sw_xstate_size_m8": sw(XSTATE_SIZE, "I", lambda old: old - 8),
    "sw_extended_size_m8": sw(EXTENDED_SIZE, "I", lambda old: old - 8),
    "sw_xfeatures_bit40": sw(SW_XFEATURES, "Q", lambda old: old | 1 << 40),
    "sw_xfeatures_3": sw(SW_XFEATURES, "Q", lambda _: 3),
    "xstate_bv_0": bv(lambda _: 0),
    "xstate_bv_clear_x87": bv(lambda old: old & ~1),
}
"""What the recorder's handler did to its frame before it returned, by the name that it printed."""
