"""Masks that no image has: what the x86_fpu events of a machine without OSXSAVE carry.

There the tracepoints leave their two masks unset, and the record shows whatever the ring buffer's page held before
(Linux ``arch/x86/include/asm/trace/fpu.h``, ``TP_fast_assign``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpstate.isa.masks import bad_xstate_bv
from fpstate.xfeatures import CATALOGUE, COMPACTED, LEGACY, mask_of

__all__ = ["impossible"]

_PLAUSIBLE = mask_of(row.bit for row in CATALOGUE) | 0xFFFF_FFFF
"""The components that are known, and room for those to come."""


def impossible(xfeatures: NDArray[np.uint64], xcomp_bv: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which pairs of XSTATE_BV and XCOMP_BV stand in no image that Linux makes.

    In a compacted image XSTATE_BV is within XCOMP_BV (SDM 13.8.2), which has x87 and SSE in every fpstate
    (``fpstate_reset``, ``fpu_alloc_guest_fpstate``); in one of standard format XCOMP_BV is 0.
    """
    compacted, legacy, known = np.uint64(COMPACTED), np.uint64(LEGACY), np.uint64(_PLAUSIBLE)
    inside: NDArray[Any] = bad_xstate_bv(xfeatures, xcomp_bv)
    in_compacted = (xcomp_bv & compacted != 0) & (xcomp_bv & legacy == legacy) & (inside == 0)
    unknown = (xfeatures | xcomp_bv & ~compacted) & ~known
    possible: NDArray[np.bool_] = (in_compacted | (xcomp_bv == 0)) & (unknown == 0)
    return ~possible
