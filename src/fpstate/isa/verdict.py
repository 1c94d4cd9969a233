"""What an instruction would make of an image: it runs, and does this, or it faults, and why."""

from __future__ import annotations

from dataclasses import dataclass

from fpstate.errors import UnreadableInput
from fpstate.isa import Fault, Memory, Processor, execute, masks
from fpstate.xfeatures import COMPACTED, MIN_SIZE

__all__ = ["RESTORES", "Verdict", "judge"]

RESTORES = ("xrstor", "xrstor64", "xrstors", "xrstors64", "fxrstor", "fxrstor64")
"""The instructions that read an image."""

_ADDRESS = 1 << 20
"""A page: the image may lie anywhere aligned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of an image.

    Attributes:
        op: the instruction.
        rfbm: the components that it was asked to restore.
        xstate_bv, xcomp_bv: the header; 0 for FXRSTOR, which has none.
        fault: what it raised, or None.
        loaded, initialised: the components that it would change, None after a fault.
        processor: the state afterwards.
    """

    op: str
    rfbm: int
    xstate_bv: int
    xcomp_bv: int
    fault: Fault | None
    loaded: int
    initialised: int
    processor: Processor

    @property
    def compacted(self) -> bool:
        """Whether XCOMP_BV[63] says compacted format."""
        return bool(self.xcomp_bv & COMPACTED)


def judge(p: Processor, op: str, image: bytes, mask: int = masks.ALL) -> Verdict:
    """Execute *op*, one of `RESTORES`, on *image*; what it reads beyond the end of *image* faults.

    Args:
        p: the processor, changed in place.
        op: the instruction.
        image: the bytes of the area, from its start.
        mask: EDX:EAX.

    Raises:
        UnreadableInput: *image* is too short for what every such image has.
    """
    fx = op.startswith("fx")
    least = 512 if fx else MIN_SIZE
    if len(image) < least:
        what = "an FXSAVE image" if fx else "legacy region and header of an XSAVE image"
        raise UnreadableInput(f"the image has {len(image)} bytes; {what} are {least}", cure="give the whole area")
    xstate_bv, xcomp_bv = (0, 0) if fx else _fields(image)
    rfbm = 0b11 if fx else mask & (p.enabled if op.startswith("xrstors") else p.xcr0)
    fault = None
    try:
        execute(p, op, Memory(bytearray(image), _ADDRESS), _ADDRESS, mask)
    except Fault as raised:
        fault = _beyond_the_end(raised, len(image)) if raised.vector == "#PF" else raised
    return Verdict(
        op=op,
        rfbm=rfbm,
        xstate_bv=xstate_bv,
        xcomp_bv=xcomp_bv,
        fault=fault,
        loaded=rfbm if fx else masks.loaded(rfbm, xstate_bv),
        initialised=0 if fx else masks.initialised(rfbm, xstate_bv),
        processor=p,
    )


def _fields(image: bytes) -> tuple[int, int]:
    return int.from_bytes(image[512:520], "little"), int.from_bytes(image[520:528], "little")


def _beyond_the_end(fault: Fault, size: int) -> Fault:
    at = (fault.address or _ADDRESS) - _ADDRESS
    return Fault(
        fault.rule.id,
        f"byte {at} may be read, and the image ends after {size} bytes",
        offset=at,
        address=fault.address,
        error_code=fault.error_code,
    )
