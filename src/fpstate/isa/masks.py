"""The rules about whole masks: which bits an instruction saves, restores, initialises, or faults on.

Each takes and returns plain bit-sets and has no branch, so that the same function serves a Python ``int``, a NumPy
column of a million ``uint64``, a compiled search and a z3 bit-vector of 64 bits.  A result that is not 0 is, for those
called ``bad_``, the set of the bits that break the rule.

Source: Intel SDM volume 1, 13.6 to 13.14; the names are the manual's.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, TypeVar

from fpstate.xfeatures import COMPACTED

__all__ = [
    "ALL",
    "Bits",
    "bad_standard_xstate_bv",
    "bad_xcomp_bv",
    "bad_xstate_bv",
    "complement",
    "disabled",
    "initialised",
    "loaded",
    "needed_but_disabled",
    "saved_compacted",
    "saved_standard",
    "xcomp_bv",
    "xmodified",
]


class Bits(Protocol):
    """A set of 64 bits: an int, an array of them, or a symbolic value."""

    def __and__(self, other: Any, /) -> Any: ...
    def __or__(self, other: Any, /) -> Any: ...
    def __xor__(self, other: Any, /) -> Any: ...


T = TypeVar("T", bound=Bits)

ALL: Final = (1 << 64) - 1
"""Every bit of a 64-bit field."""


def complement(mask: T) -> T:
    """Return the 64-bit complement of *mask*, which is never negative."""
    return mask ^ ALL


def xcomp_bv(rfbm: T) -> T:
    """Return what XSAVEC and XSAVES write to XCOMP_BV (SDM 13.10, 13.11)."""
    return rfbm | COMPACTED


def disabled(xcr0: T, xfd: T) -> T:
    """Return the components that XFD disables: IA32_XFD means nothing for one that XCR0 does not enable (SDM 13.14)."""
    return xcr0 & xfd


def saved_standard(old: T, rfbm: T, xinuse: T) -> T:
    """Return the XSTATE_BV that XSAVE and XSAVEOPT leave in memory (SDM 13.7, 13.9).

    Args:
        old: the field before.
        rfbm: XCR0 and the instruction mask.
        xinuse: the components in use, without those that XFD disables.
    """
    return (old & complement(rfbm)) | (xinuse & rfbm)


def saved_compacted(rfbm: T, xinuse: T, mxcsr_in_use: T) -> T:
    """Return the XSTATE_BV that XSAVEC and XSAVES write (SDM 13.10, 13.11).

    Args:
        rfbm: the enabled components in the instruction mask.
        xinuse: the components in use, without those that XFD disables.
        mxcsr_in_use: bit 1 where MXCSR is not 1F80H, else 0: it makes SSE count as in use.
    """
    return rfbm & (xinuse | mxcsr_in_use)


def bad_standard_xstate_bv(xstate_bv: T, xcr0: T) -> T:
    """Return the bits of XSTATE_BV for which the standard form of XRSTOR faults (SDM 13.8.1)."""
    return xstate_bv & complement(xcr0)


def bad_xcomp_bv(xcomp_bv: T, enabled: T) -> T:
    """Return the bits of XCOMP_BV for which compacted XRSTOR and XRSTORS fault (SDM 13.8.2, 13.12).

    Args:
        xcomp_bv: the field; its bit 63 is the format and never bad.
        enabled: XCR0 for XRSTOR, XCR0 | IA32_XSS for XRSTORS.
    """
    return xcomp_bv & complement(enabled | COMPACTED)


def bad_xstate_bv(xstate_bv: T, xcomp_bv: T) -> T:
    """Return the bits of XSTATE_BV for which compacted XRSTOR and XRSTORS fault (SDM 13.8.2, 13.12).

    Bit 63 always is one.  The manual can be read as allowing it where XCOMP_BV[63] is set; Zen 4 faults.
    """
    return xstate_bv & complement(xcomp_bv & complement(COMPACTED))


def loaded(rfbm: T, xstate_bv: T) -> T:
    """Return the components that XRSTOR and XRSTORS load from the image."""
    return rfbm & xstate_bv


def initialised(rfbm: T, xstate_bv: T) -> T:
    """Return the components that XRSTOR and XRSTORS initialise, even where XCOMP_BV[i] is 0."""
    return rfbm & complement(xstate_bv)


def needed_but_disabled(rfbm: T, xstate_bv: T, xcr0: T, xfd: T) -> T:
    """Return the components for which XRSTOR and XRSTORS raise #NM: loaded, and disabled by XFD (SDM 13.14)."""
    return loaded(rfbm, xstate_bv) & disabled(xcr0, xfd)


def xmodified(rfbm: T) -> T:
    """Return XMODIFIED after XRSTOR or XRSTORS, on a CPU that tracks every component (SDM 13.8.3)."""
    return complement(rfbm)
