"""XRSTOR and XRSTORS (SDM volume 1, 13.8 and 13.12; volume 2, the instructions)."""

from __future__ import annotations

from typing import Final, NamedTuple

from fpstate.isa import masks, values, x87
from fpstate.isa.access import check, reach_read, read_header
from fpstate.isa.capabilities import Places
from fpstate.isa.header import Header, check_compacted, check_standard
from fpstate.isa.memory import Memory
from fpstate.isa.mxcsr import check_mxcsr
from fpstate.isa.processor import (
    LEGACY_BYTES,
    MXCSR,
    MXCSR_INITIAL,
    REACH_OUTSIDE_64_BIT_MODE,
    X87_INIT,
    Processor,
    XrstorInfo,
)
from fpstate.isa.rules import Fault
from fpstate.xfeatures import AVX, COMPACTED, LBR, LEGACY, LEGACY_SIZE, PT, SSE, UINTR, XTILE, bits

__all__ = ["xrstor", "xrstors"]

_PARTLY_REACHED: Final = sum(1 << bit for bit in REACH_OUTSIDE_64_BIT_MODE)
"""Components with registers that only 64-bit mode reaches: outside it they are not restored whole."""
_XTILECFG: Final = (XTILE & -XTILE).bit_length() - 1


class _Image(NamedTuple):
    """An image in memory: its bytes begin at *start* of *data*, its extended components lie at *places*."""

    data: bytearray
    start: int
    places: Places


def xrstor(p: Processor, memory: Memory, address: int, mask: int, *, wide: bool) -> None:
    """Execute XRSTOR, or with *wide* XRSTOR64: the form that XCOMP_BV[63] selects (SDM 13.8).

    Args:
        p: the processor.
        memory: what it sees.
        address: linear address of the area.
        mask: EDX:EAX.
        wide: REX.W, the 64-bit form of the x87 pointers.

    Raises:
        Fault: nothing has changed but, after #NM by XFD, IA32_XFD_ERR.
    """
    check(p, "xrstor", address)
    rfbm = p.xcr0 & mask
    if p.profile.fault_order == "page-header-mxcsr":
        reach_read(p, memory, address, p.caps.standard(rfbm).end)
    header = read_header(p, memory, address)
    if header.xcomp_bv & COMPACTED:
        _compacted_form(p, memory, address, rfbm, header, wide=wide)
    else:
        _standard_form(p, memory, address, rfbm, header, wide=wide)


def _standard_form(p: Processor, memory: Memory, address: int, rfbm: int, header: Header, *, wide: bool) -> None:
    check_standard(header, p.xcr0)
    places = p.caps.standard(rfbm)
    _check_xfd(p, rfbm, header)
    reach_read(p, memory, address, places.end)
    image = _Image(memory.data, address - memory.base, places)
    if rfbm & (SSE | AVX):  # whatever XSTATE_BV says
        mxcsr = _mxcsr(image)
        check_mxcsr(int.from_bytes(mxcsr, "little"), p.profile.mxcsr_legal)
        p.legacy[MXCSR] = mxcsr
    _update(p, image, rfbm, header.xstate_bv, wide=wide)
    _track(p, address, rfbm, header)


def _compacted_form(p: Processor, memory: Memory, address: int, rfbm: int, header: Header, *, wide: bool) -> None:
    if not p.caps.has("XSAVEC"):
        raise Fault("compaction", "XCOMP_BV[63] is 1", bit=63, offset=527)
    check_compacted(header, p.xcr0)
    _load_compacted(p, memory, address, rfbm, header, wide=wide)


def xrstors(p: Processor, memory: Memory, address: int, mask: int, *, wide: bool) -> None:
    """Execute XRSTORS or XRSTORS64 (SDM 13.12); arguments and faults as `xrstor`."""
    check(p, "xrstors", address)
    rfbm = p.enabled & mask
    header = read_header(p, memory, address)
    if not header.xcomp_bv & COMPACTED:
        raise Fault("xcomp-bv-format", "XCOMP_BV[63] is 0", bit=63, offset=527)
    check_compacted(header, p.enabled)
    _load_compacted(p, memory, address, rfbm, header, wide=wide)


def _load_compacted(p: Processor, memory: Memory, address: int, rfbm: int, header: Header, *, wide: bool) -> None:
    places = p.caps.compacted(header.xcomp_bv & masks.complement(COMPACTED))
    loaded = masks.loaded(rfbm, header.xstate_bv)
    _check_xfd(p, rfbm, header)
    _reach_loaded(p, memory, address, places, loaded)
    image = _Image(memory.data, address - memory.base, places)
    mxcsr = MXCSR_INITIAL
    if loaded & SSE:
        mxcsr = _mxcsr(image)
        check_mxcsr(int.from_bytes(mxcsr, "little"), p.profile.mxcsr_legal)
    _check_supervisor(p, image, rfbm, loaded)
    if rfbm & SSE:
        p.legacy[MXCSR] = mxcsr
    untracked = _other_depth(p, image, loaded)
    _update(p, image, rfbm, header.xstate_bv, wide=wide)
    _track(p, address, rfbm, header, untracked=untracked)


def _mxcsr(image: _Image) -> bytes:
    return bytes(image.data[image.start + 24 : image.start + 28])


def _check_xfd(p: Processor, rfbm: int, header: Header) -> None:
    needed = masks.needed_but_disabled(rfbm, header.xstate_bv, p.xcr0, p.xfd)
    if needed:
        p.xfd_err = needed
        bit = next(bits(needed))
        name = p.cpu.catalogue.name(bit)
        raise Fault(
            "xfd", f"XSTATE_BV[{bit}] and IA32_XFD[{bit}] are 1 ({name})", bit=bit, offset=LEGACY_SIZE + bit // 8
        )


def _reach_loaded(p: Processor, memory: Memory, address: int, places: Places, loaded: int) -> None:
    """Check the pages of what is loaded, the last byte first; with ``probe_compacted`` those of the whole image."""
    if memory.fits(address, places.end):
        return
    if p.profile.probe_compacted:
        reach_read(p, memory, address, places.end)
    user = p.cpl == 3
    extended = [(offset, size) for bit, offset, size in places.slots if loaded >> bit & 1]
    if extended:
        memory.probe(address + sum(extended[-1]) - 1, write=False, user=user)
    if loaded & LEGACY:
        memory.first_fault(address, LEGACY_BYTES, write=False, user=user)
    for offset, size in extended:
        memory.first_fault(address + offset, size, write=False, user=user)


def _check_supervisor(p: Processor, image: _Image, rfbm: int, loaded: int) -> None:
    """Check what XRSTORS loads into MSRs, and what must hold before it touches PT and user interrupts."""
    if not rfbm & p.xss:
        return
    values.check_before(p, rfbm & p.xss)
    for bit, offset, size in image.places.slots:
        if (loaded & p.xss) >> bit & 1:
            at = image.start + offset
            values.check_component(p, bit, bytes(image.data[at : at + size]), offset)


def _update(p: Processor, image: _Image, rfbm: int, xstate_bv: int, *, wide: bool) -> None:
    """Initialise and load the components in *rfbm*; MXCSR is the caller's."""
    data, start, places = image
    loaded = masks.loaded(rfbm, xstate_bv)
    if loaded & 1:
        x87.load(p, data, start, wide=wide)
    if loaded & SSE:
        end = p.end_of_xmm
        p.legacy[160:end] = data[start + 160 : start + end]
    for bit, offset, size in places.slots:
        if loaded >> bit & 1:
            at = start + offset
            _load(p, bit, data[at : at + size], size)
    _initialise(p, masks.initialised(rfbm, xstate_bv))


def _initialise(p: Processor, components: int) -> None:
    """Put *components* into their initial configuration, as far as this mode reaches them; LBR keeps its depth."""
    if components & 1:
        p.legacy[:24] = X87_INIT
        p.legacy[32:160] = bytes(128)
        p.fcs = p.fds = 0
    if components & SSE:
        end = p.end_of_xmm
        p.legacy[160:end] = bytes(end - 160)
    for flag, section, initial in p.extended:
        if components & flag and section != initial:
            count = len(section)
            if p.mode != 64:
                count = REACH_OUTSIDE_64_BIT_MODE.get(flag.bit_length() - 1, count)
            section[:count] = initial[:count]
    if components >> LBR & 1 and LBR in p.sections:
        section = p.sections[LBR]
        section[:8], section[16:] = bytes(8), bytes(len(section) - 16)


def _load(p: Processor, bit: int, image: bytearray, size: int) -> None:
    """Load component *bit* from its bytes of the image, in place of all that this mode reaches."""
    section = p.sections[bit]
    if bit in _SPECIAL:
        image = _SPECIAL[bit](p, image)
    count = size if p.mode == 64 else min(size, REACH_OUTSIDE_64_BIT_MODE.get(bit, size))
    section[:count] = image[:count]
    for start, end in p.caps.padding.get(bit, ()):
        section[start:end] = bytes(end - start)


def _load_tilecfg(p: Processor, image: bytearray) -> bytearray:
    """An unsupported configuration does not fault: it initialises TILECFG (SDM 13.5.14)."""
    return image if values.tilecfg_supported(p.cpu, bytes(image)) else bytearray(len(image))


def _load_lbr(p: Processor, image: bytearray) -> bytearray:
    """Another depth than the current one leaves the triples 0; the depth itself stays (SDM 13.5.12)."""
    section = p.sections[LBR]
    depth = int.from_bytes(section[8:16], "little")
    kept = 40 + 24 * depth
    if image[8:16] != section[8:16]:
        return image[:8] + section[8:16] + image[16:40] + bytearray(len(image) - 40)
    return image[:kept] + section[kept:]


_SPECIAL: Final = {LBR: _load_lbr, _XTILECFG: _load_tilecfg}
"""Components whose registers are not simply the bytes of the image."""


def _other_depth(p: Processor, image: _Image, loaded: int) -> int:
    """Return LBR's bit if it is loaded with another depth than the current: XINUSE[15] then stays (SDM 13.5.12)."""
    if not loaded >> LBR & 1:
        return 0
    at = image.start + next(offset for bit, offset, _ in image.places.slots if bit == LBR)
    return 0 if image.data[at + 8 : at + 16] == p.sections[LBR][8:16] else 1 << LBR


_NEVER_UNMODIFIED: Final = 1 << PT | 1 << UINTR
"""PT and UINTR: XSAVES changes TraceEn and UINV behind it, which leaving it out would miss."""


def _track(p: Processor, address: int, rfbm: int, header: Header, *, untracked: int = 0) -> None:
    """Update the tracking for the init and the modified optimisation (SDM 13.8.3, 13.12)."""
    tracked = rfbm & masks.complement(untracked)
    p.restored(tracked, masks.loaded(tracked, header.xstate_bv))
    p.modified = masks.ALL
    if p.profile.modified:
        p.modified = masks.xmodified(rfbm) | _NEVER_UNMODIFIED | (_PARTLY_REACHED if p.mode != 64 else 0)
    p.info = XrstorInfo(p.cpl, p.non_root, address, header.xcomp_bv)
