"""Bare images: the bytes of an XSAVE area or of FXSAVE, with nothing around them.

Nothing but its content tells what such a file is.  It is taken for an image if XRSTOR on some CPU could accept it: the
header breaks no rule, names only components that exist, and MXCSR is legal.  One whose XSTATE_BV or XCOMP_BV is damaged
is known by what stands around them: the MXCSR_MASK of a CPU, an MXCSR within it, and reserved bytes that are all 0.
"""

from __future__ import annotations

import struct
from typing import Final

from fpstate.errors import UnreadableInput
from fpstate.isa.header import Header, check_compacted, check_standard, named
from fpstate.isa.mxcsr import check_plausible
from fpstate.isa.rules import Fault
from fpstate.linux.abi import FP_XSTATE_MAGIC1
from fpstate.sources.capture import Capture, Form, Thread
from fpstate.sources.input import Input
from fpstate.xfeatures import CATALOGUE, COMPACTED, LEGACY, LEGACY_SIZE, MIN_SIZE, SOFTWARE, mask_of

__all__ = ["implausible", "read", "sniff", "thread", "unrecognisable"]

_LARGEST: Final = 1 << 20
_LARGEST_DAMAGED: Final = 1 << 16
_MASKS: Final = frozenset({0xFFBF, 0xFFFF, 0x2FFFF})
"""MXCSR_MASK of the CPUs with XSAVE: with and without AMD's misaligned SSE mode, and of emulators without DAZ."""
_KNOWN: Final = mask_of(row.bit for row in CATALOGUE)


def implausible(data: memoryview) -> str | None:
    """Return why *data* cannot be an image, by rule and offset; None if it can be one."""
    if len(data) != LEGACY_SIZE and not MIN_SIZE <= len(data) <= _LARGEST:
        return f"it has {_bytes(data)}: FXSAVE writes 512, an XSAVE area has 576 to {_LARGEST}"
    if not any(data[LEGACY_SIZE:MIN_SIZE]) and not any(data[24:28]):  # XSAVE writes MXCSR, in use or not
        return "its header and MXCSR are all 0: nothing says that it is an image"
    try:
        if len(data) == LEGACY_SIZE:
            check_plausible(data)
        else:
            _check_header(data)
    except Fault as fault:
        where = "" if fault.offset is None else f" at byte {fault.offset}"
        detail = named(fault.detail, fault.bit, fault.offset, CATALOGUE)
        return f"{detail}{where}: {fault.rule.text} ({fault.rule.id})"
    return None


def unrecognisable(data: memoryview) -> str | None:
    """Return why *data* is not taken for an image, as `implausible`; None for one with a damaged header as well."""
    reason = implausible(data)
    return None if reason is None or _around_a_damaged_header(data) else reason


def _around_a_damaged_header(data: memoryview) -> bool:
    if not MIN_SIZE <= len(data) <= _LARGEST_DAMAGED or any(data[LEGACY_SIZE + 16 : MIN_SIZE]):
        return False
    mxcsr, mask = struct.unpack_from("<II", data, 24)
    return mask in _MASKS and 0 < mxcsr <= mask


def _bytes(data: memoryview) -> str:
    """Say how many there are; more than an image can have are not counted."""
    return f"more than {_LARGEST} bytes" if len(data) > _LARGEST else f"{len(data)} bytes"


def _check_header(data: memoryview) -> None:
    header = Header(*struct.unpack_from("<QQ48s", data, LEGACY_SIZE))
    if header.xcomp_bv & COMPACTED:
        check_compacted(header, _KNOWN)
    else:
        check_standard(header, _KNOWN)
        if any(header.reserved):  # XRSTOR looks at eight of these bytes, Linux at all, and XSAVE writes none
            raise Fault("compacted-header", "the reserved bytes of the header are not 0", offset=LEGACY_SIZE + 16)
    if not header.xcomp_bv or header.xstate_bv & LEGACY:
        check_plausible(data)


def sniff(source: Input) -> bool:
    """Tell whether *source* can be an image."""
    return unrecognisable(source.upto(_LARGEST + 1)) is None


def read(source: Input) -> Capture:
    """Return the image in a file of nothing else.

    Raises:
        UnreadableInput: it cannot be one; says by which rule, at which byte.
    """
    name, data = source.name, source.upto(_LARGEST + 1)
    reason = unrecognisable(data)
    if reason is not None:
        raise UnreadableInput(f"{name} is no XSAVE or FXSAVE image: {reason}", cure="give the image from byte 0 on")
    found, notes = thread(data, 0)
    return Capture(name, "image", (found,), notes=notes)


def thread(data: memoryview, offset: int | None) -> tuple[Thread, tuple[str, ...]]:
    """Return an image that is plausible as a thread, and what its software bytes say.

    Args:
        data: the image.
        offset: where it begins in the source, in bytes; None if it has no place there.
    """
    form: Form = "fxsave" if len(data) == LEGACY_SIZE else "xsave"
    named = int.from_bytes(data[SOFTWARE : SOFTWARE + 8], "little")
    if named & 0xFFFF_FFFF == FP_XSTATE_MAGIC1:
        return Thread(None, data, form, offset=offset), ("its software bytes are a signal frame's",)
    # struct user_xstateregs: a ptrace or core image has XCR0 there
    enabled = named if form == "xsave" and named & LEGACY == LEGACY and not named & ~_KNOWN else None
    notes = () if enabled is None else (f"its software bytes name XCR0 {enabled:#x}",)
    return Thread(None, data, form, offset=offset, enabled=enabled), notes
