"""What every instruction checks before it looks at an image, in the architectural order, and how it reaches memory."""

from __future__ import annotations

from typing import Final

from fpstate.isa.header import Header
from fpstate.isa.masks import ALL
from fpstate.isa.memory import Memory
from fpstate.isa.processor import Processor
from fpstate.isa.rules import Fault
from fpstate.xfeatures import LEGACY_SIZE, MIN_SIZE

__all__ = ["AREA_ALIGNMENT", "FX_ALIGNMENT", "NEEDS", "check", "reach", "reach_read", "read_header"]

AREA_ALIGNMENT: Final = 64
FX_ALIGNMENT: Final = 16

NEEDS: Final = {
    "fxsave": "FXSR",
    "fxrstor": "FXSR",
    "xsave": "XSAVE",
    "xrstor": "XSAVE",
    "xsaveopt": "XSAVEOPT",
    "xsavec": "XSAVEC",
    "xsaves": "XSAVES",
    "xrstors": "XSAVES",
}
"""The CPUID flag of each instruction."""


def check(p: Processor, op: str, address: int) -> None:
    """Check what does not depend on the image (SDM 13.7 to 13.12; volume 2, each instruction, "Exceptions").

    Raises:
        Fault: the first of #UD, #NM, #GP for CPL, address and alignment.
    """
    fx = op[0] == "f"
    if not p.caps.has(NEEDS[op]):
        raise Fault("cpuid", f"{p.cpu.name} has no {op.upper()} ({NEEDS[op]})")
    if not fx and not p.osxsave:
        raise Fault("osxsave", "CR4.OSXSAVE is 0", bit=18)
    if p.ts:
        raise Fault("ts", "CR0.TS is 1", bit=3)
    if fx and p.em:
        raise Fault("em", "CR0.EM is 1", bit=2)
    if p.cpl and op in {"xsaves", "xrstors"}:
        raise Fault("cpl", f"CPL is {p.cpl}")
    if p.mode == 64 and not p.caps.canonical(address):
        raise Fault("canonical", f"{address:#x} is not canonical with {p.caps.linear_bits} bits")
    alignment = FX_ALIGNMENT if fx else AREA_ALIGNMENT
    if address % alignment:
        _misaligned(p, address, alignment, fx=fx)


def _misaligned(p: Processor, address: int, alignment: int, *, fx: bool) -> None:
    checking = p.am and p.ac and p.cpl == 3
    how = p.profile.alignment_check
    detail = f"{address:#x} is not aligned on {alignment} bytes"
    if checking and address % 4 and (how == "always" or (how == "fxsave" and fx)):
        raise Fault("alignment-check", detail)
    raise Fault("alignment", detail)


def reach(p: Processor, memory: Memory, address: int, size: int, *, last_first: bool = False) -> None:
    """Check that *size* bytes can be written: the first byte, the last, then what lies between.

    Args:
        p: the processor.
        memory: what it sees.
        address: where the area begins.
        size: its bytes.
        last_first: the last byte before the first.

    Raises:
        Fault: #PF.  Nothing has been written by then.
    """
    if memory.fits(address, size):
        return
    _check_end(p, address + size - 1)
    user = p.cpl == 3
    ends = (address, address + size - 1)
    for end in reversed(ends) if last_first else ends:
        memory.probe(end, write=True, user=user)
    memory.first_fault(address, size, write=True, user=user)


def reach_read(p: Processor, memory: Memory, address: int, size: int) -> None:
    """Check that *size* bytes can be read: the last byte, then ascending.

    Raises:
        Fault: #PF.
    """
    if memory.fits(address, size):
        return
    _check_end(p, address + size - 1)
    user = p.cpl == 3
    memory.probe(address + size - 1, write=False, user=user)
    memory.first_fault(address, size, write=False, user=user)


def _check_end(p: Processor, last: int) -> None:
    """Check that the last byte has an address: that it is canonical, outside 64-bit mode that it lies below 4 GiB."""
    if p.mode != 64 and last >> 32:
        raise Fault("canonical", f"the area reaches to {last:#x}, beyond 4 GiB")
    if p.mode == 64 and last <= ALL and not p.caps.canonical(last):
        raise Fault("canonical", f"the area reaches to {last:#x}, which is not canonical")


def read_header(p: Processor, memory: Memory, address: int) -> Header:
    """Read the header of the area at *address*.

    Raises:
        Fault: #PF.
    """
    at = address + LEGACY_SIZE
    if not memory.fits(address, MIN_SIZE):
        _check_end(p, address + MIN_SIZE - 1)
        user = p.cpl == 3
        memory.probe(address, write=False, user=user)
        memory.first_fault(at, MIN_SIZE - LEGACY_SIZE, write=False, user=user)
    start = at - memory.base
    header = memory.data[start : start + 64]
    fields = int.from_bytes(header[:8], "little"), int.from_bytes(header[8:16], "little")
    return Header(*fields, bytes(header[16:]))
