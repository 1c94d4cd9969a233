"""The header of an XSAVE image, and what XRSTOR and XRSTORS check of it (SDM volume 1, 13.4.2, 13.8 and 13.12)."""

from __future__ import annotations

from typing import NamedTuple

from fpstate.isa import masks
from fpstate.isa.rules import Fault
from fpstate.xfeatures import LEGACY_SIZE, Catalogue, bits

__all__ = ["Header", "check_compacted", "check_standard", "component_of", "named"]


class Header(NamedTuple):
    """The XSAVE header of an image (SDM 13.4.2)."""

    xstate_bv: int
    xcomp_bv: int
    reserved: bytes


def component_of(bit: int | None, offset: int | None) -> int | None:
    """Return the component that a bit of XSTATE_BV or XCOMP_BV stands for; None if it is another field's, or bit 63.

    Args:
        bit: of the field.
        offset: of the byte that it lies in, from the start of the image.
    """
    if bit is None or offset is None or bit > 62 or not LEGACY_SIZE <= offset < LEGACY_SIZE + 16:
        return None
    return bit


def named(detail: str, bit: int | None, offset: int | None, catalogue: Catalogue) -> str:
    """Return what was found, *detail*, with the name of the component that `component_of` tells, once."""
    component = component_of(bit, offset)
    row = None if component is None else catalogue.get(component)
    return detail if row is None or row.name in detail else f"{detail} ({row.name})"


def check_standard(header: Header, xcr0: int) -> None:
    """Check the header of a standard-format image.

    Raises:
        Fault: names the bit or byte.
    """
    bad = masks.bad_standard_xstate_bv(header.xstate_bv, xcr0)
    if bad:
        raise _bad_field("standard-xstate-bv", "XSTATE_BV", LEGACY_SIZE, bad)
    if header.xcomp_bv:
        raise _bad_field("standard-header", "XCOMP_BV", LEGACY_SIZE + 8, header.xcomp_bv)
    _check_reserved("standard-header", header.reserved[:8])


def check_compacted(header: Header, enabled: int) -> None:
    """Check the header of a compacted image; *enabled* is XCR0 for XRSTOR, XCR0 | IA32_XSS for XRSTORS.

    Raises:
        Fault: names the bit or byte.
    """
    bad = masks.bad_xcomp_bv(header.xcomp_bv, enabled)
    if bad:
        raise _bad_field("xcomp-bv", "XCOMP_BV", LEGACY_SIZE + 8, bad)
    bad = masks.bad_xstate_bv(header.xstate_bv, header.xcomp_bv)
    if bad:
        raise _bad_field("xstate-bv", "XSTATE_BV", LEGACY_SIZE, bad)
    _check_reserved("compacted-header", header.reserved)


def _bad_field(rule: str, name: str, offset: int, bad: int) -> Fault:
    bit = next(bits(bad))
    return Fault(rule, f"{name} sets bit {bit}", bit=bit, offset=offset + bit // 8)


def _check_reserved(rule: str, reserved: bytes) -> None:
    if any(reserved):
        index = next(i for i, byte in enumerate(reserved) if byte)
        detail = f"header byte {16 + index} is {reserved[index]:#04x}"
        raise Fault(rule, detail, offset=LEGACY_SIZE + 16 + index)
