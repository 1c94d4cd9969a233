"""What MXCSR may hold (SDM volume 1, 10.2.3 and 11.6.6)."""

from __future__ import annotations

import struct
from typing import Final

from fpstate.isa.rules import Fault
from fpstate.xfeatures import bits

__all__ = ["check_mxcsr", "check_plausible"]

_EVERYWHERE: Final = 0xFFBF
"""What MXCSR_MASK 0 stands for (SDM volume 1, 11.6.6)."""
_KNOWN: Final = 0x2FFFF
"""Every bit that some CPU's MXCSR_MASK has: the lower sixteen, and AMD's misaligned SSE mode."""


def check_mxcsr(mxcsr: int, mask: int) -> None:
    """Check a value for MXCSR.

    Raises:
        Fault: it sets a bit that this CPU's MXCSR has not.
    """
    bad = mxcsr & ~mask
    if bad:
        bit = next(bits(bad))
        raise Fault("mxcsr", f"MXCSR {mxcsr:#x} sets bit {bit}", bit=bit, offset=24 + bit // 8)


def check_plausible(image: bytes | memoryview) -> None:
    """Check MXCSR and MXCSR_MASK of an image, for a CPU that nobody names.

    Args:
        image: its first 32 bytes, or more.

    Raises:
        Fault: the mask has a bit that no CPU's has, or MXCSR one that the mask has not.
    """
    mxcsr, mask = struct.unpack_from("<II", image, 24)
    check_mxcsr(mask, _KNOWN)
    check_mxcsr(mxcsr, mask or _EVERYWHERE)
