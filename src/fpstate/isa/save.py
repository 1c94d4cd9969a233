"""XSAVE, XSAVEOPT, XSAVEC and XSAVES (SDM volume 1, 13.7, 13.9 to 13.11; volume 2, the instructions)."""

from __future__ import annotations

from typing import Final

from fpstate import registers as regs
from fpstate.isa import masks, x87
from fpstate.isa.access import check, reach
from fpstate.isa.capabilities import Places
from fpstate.isa.memory import Memory
from fpstate.isa.processor import REACH_OUTSIDE_64_BIT_MODE, Processor
from fpstate.xfeatures import AVX, LBR, LEGACY_SIZE, MIN_SIZE, PKRU, PT, SSE, UINTR

__all__ = ["xsave", "xsavec", "xsaveopt", "xsaves"]


def xsave(p: Processor, memory: Memory, address: int, mask: int, *, wide: bool) -> None:
    """Execute XSAVE, or with *wide* XSAVE64 (SDM 13.7).

    Args:
        p: the processor.
        memory: what it sees.
        address: linear address of the area.
        mask: EDX:EAX.
        wide: REX.W, the 64-bit form of the x87 pointers.

    Raises:
        Fault: nothing has changed.
    """
    check(p, "xsave", address)
    rfbm = p.xcr0 & mask
    places = p.caps.standard(rfbm)
    start = _reach(p, memory, address, places.end, rfbm)
    data = memory.data
    xinuse = _xinuse(p, rfbm)
    _write_xstate_bv(data, start, masks.saved_standard(_xstate_bv(data, start), rfbm, xinuse))
    _store(p, data, start, places, rfbm, wide=wide)
    if rfbm & (SSE | AVX):
        data[start + 24 : start + 32] = p.legacy[24:32]


def xsaveopt(p: Processor, memory: Memory, address: int, mask: int, *, wide: bool) -> None:
    """Execute XSAVEOPT or XSAVEOPT64 (SDM 13.9); arguments and faults as `xsave`."""
    check(p, "xsaveopt", address)
    rfbm = p.xcr0 & mask
    places = p.caps.standard(rfbm)
    start = _reach(p, memory, address, places.end, rfbm)
    data = memory.data
    xinuse = _xinuse(p, rfbm)
    _write_xstate_bv(data, start, masks.saved_standard(_xstate_bv(data, start), rfbm, xinuse))
    changed = p.modified if _same_area(p, address, 0) else masks.ALL
    _store(p, data, start, places, rfbm & xinuse & changed, wide=wide)
    if rfbm & (SSE | AVX):  # neither optimisation is for MXCSR
        data[start + 24 : start + 32] = p.legacy[24:32]


def xsavec(p: Processor, memory: Memory, address: int, mask: int, *, wide: bool) -> None:
    """Execute XSAVEC or XSAVEC64 (SDM 13.10); arguments and faults as `xsave`."""
    check(p, "xsavec", address)
    rfbm = p.xcr0 & mask
    places = p.caps.compacted(rfbm)
    start = _reach(p, memory, address, places.end, rfbm)
    data = memory.data
    xstate_bv = masks.saved_compacted(rfbm, _xinuse(p, rfbm), p.mxcsr_in_use)
    _write_xstate_bv(data, start, xstate_bv)
    _write_xcomp_bv(data, start, masks.xcomp_bv(rfbm))
    _store(p, data, start, places, xstate_bv, wide=wide)
    if xstate_bv & SSE:
        data[start + 24 : start + 32] = p.legacy[24:32]


def xsaves(p: Processor, memory: Memory, address: int, mask: int, *, wide: bool) -> None:
    """Execute XSAVES or XSAVES64 (SDM 13.11); arguments and faults as `xsave`.

    Saving PT clears TraceEn (SDM 13.5.6), saving user-interrupt state clears UINV (13.5.11).
    """
    check(p, "xsaves", address)
    rfbm = p.enabled & mask
    places = p.caps.compacted(rfbm)
    xcomp_bv = masks.xcomp_bv(rfbm)
    xstate_bv = masks.saved_compacted(rfbm, _xinuse(p, rfbm), p.mxcsr_in_use)
    accessed = rfbm & ~(1 << LBR) | xstate_bv  # LBR in its initial configuration is not accessed (SDM 13.5.12)
    start = _reach(p, memory, address, _end_of(places, accessed), rfbm)
    data = memory.data
    _write_xstate_bv(data, start, xstate_bv)
    _write_xcomp_bv(data, start, xcomp_bv)
    saved = xstate_bv
    if _same_area(p, address, xcomp_bv):
        saved &= p.modified | p.mxcsr_in_use
    _store(p, data, start, places, saved, wide=wide)
    if saved & SSE:
        data[start + 24 : start + 32] = p.legacy[24:32]
    if saved >> PT & 1:
        p.sections[PT][0] &= ~1
        p.modified |= 1 << PT
    if saved >> UINTR & 1:
        p.sections[UINTR][20] = 0
        p.modified |= 1 << UINTR


def _reach(p: Processor, memory: Memory, address: int, end: int, rfbm: int) -> int:
    """Check the pages of the area up to *end*, in use or not, and return where it starts in the bytes of *memory*."""
    if rfbm or p.profile.probe_empty:
        reach(p, memory, address, end)
    else:
        reach(p, memory, address + LEGACY_SIZE, 64)
    return address - memory.base


def _end_of(places: Places, accessed: int) -> int:
    """Return where the last of the *accessed* components ends."""
    return max((at + size for bit, at, size in places.slots if accessed >> bit & 1), default=MIN_SIZE)


def _xinuse(p: Processor, rfbm: int) -> int:
    """Return XINUSE as saves take it: a component that XFD disables is not in use (SDM 13.14)."""
    return p.xinuse(rfbm) & masks.complement(masks.disabled(p.xcr0, p.xfd))


def _same_area(p: Processor, address: int, xcomp_bv: int) -> bool:
    """Tell whether the modified optimisation applies (SDM 13.6, XRSTOR_INFO)."""
    return p.profile.modified and p.info == (p.cpl, p.non_root, address, xcomp_bv)


def _xstate_bv(data: bytearray, start: int) -> int:
    return int.from_bytes(data[start + 512 : start + 520], "little")


def _write_xstate_bv(data: bytearray, start: int, value: int) -> None:
    data[start + 512 : start + 520] = value.to_bytes(8, "little")


def _write_xcomp_bv(data: bytearray, start: int, value: int) -> None:
    data[start + 520 : start + 528] = value.to_bytes(8, "little")


def _store(p: Processor, data: bytearray, start: int, places: Places, which: int, *, wide: bool) -> None:
    """Write the components in *which*; MXCSR is the caller's."""
    if which & 1:
        x87.store(p, data, start, wide=wide)
    long_mode = p.mode == 64
    if which & SSE:
        end = p.end_of_xmm
        data[start + 160 : start + end] = p.legacy[160:end]
    disabled = masks.disabled(p.xcr0, p.xfd)
    for bit, offset, size in places.slots:
        if which >> bit & 1:
            section: bytes | bytearray = p.sections[bit]
            if disabled >> bit & 1:
                section = regs.initial(bit, size)
            count = size if long_mode and bit not in _PARTIAL else _written(p, bit, size)
            at = start + offset
            data[at : at + count] = section if count == size else section[:count]


_PARTIAL: Final = frozenset({PKRU, LBR})


def _written(p: Processor, bit: int, size: int) -> int:
    """Return how many bytes of component *bit* a save writes, from its start."""
    if bit == PKRU:
        return min(size, p.profile.pkru_bytes)
    if bit == LBR:
        return min(size, 40 + 24 * int.from_bytes(p.sections[bit][8:16], "little"))
    return min(size, REACH_OUTSIDE_64_BIT_MODE.get(bit, size))
