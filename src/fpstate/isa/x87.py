"""The x87 bytes of the legacy region, as saves write and restores read them (SDM 10.5.1, 13.5.1)."""

from __future__ import annotations

from typing import Final

from fpstate.isa.processor import Processor

__all__ = ["load", "store"]

_ES, _ES_AND_B = 1 << 7, 1 << 7 | 1 << 15
_EXCEPTIONS: Final = 0x3F
_FOP_MASK: Final = 0x7FF
_ST: Final = slice(32, 160)
_ST_USED: Final = int.from_bytes((b"\xff" * 10 + bytes(6)) * 8, "little")
"""The ten bytes of each register; the six after it are reserved."""
_NO_POINTERS: Final = bytes(16)


def store(p: Processor, data: bytearray, start: int, *, wide: bool) -> None:
    """Write bytes 0 to 23 and 32 to 159 of the area at *start* of *data*.

    With REX.W (*wide*) FIP and FDP are 64 bits; without it 32 bits and a selector each, which is 0 where
    CPUID.7.0:EBX[13] says so.  AMD keeps the pointers only while an exception is pending.
    """
    legacy = p.legacy
    data[start + 32 : start + 160] = legacy[_ST]
    if p.profile.x87_pointers != "always" and not legacy[2] & _ES:
        if p.profile.x87_pointers == "unwritten":
            data[start : start + 6] = legacy[:6]
        else:
            data[start : start + 24] = legacy[:6] + b"\0\0" + _NO_POINTERS
    elif wide:
        data[start : start + 24] = legacy[:24]
    else:
        data[start : start + 24] = legacy[:8] + _narrow(p)


def _narrow(p: Processor) -> bytes:
    legacy = p.legacy
    fcs, fds = (0, 0) if p.caps.no_fcs_fds else (p.fcs, p.fds)
    return b"".join(
        (legacy[8:12], fcs.to_bytes(2, "little"), b"\0\0", legacy[16:20], fds.to_bytes(2, "little"), b"\0\0")
    )


def load(p: Processor, data: bytes | bytearray, start: int, *, wide: bool) -> None:
    """Load x87 state from the area at *start* of *data*.

    FCW takes the bits that exist; FSW.ES and FSW.B follow from the exceptions pending and unmasked, whatever the image
    says; reserved bytes are ignored.
    """
    legacy, profile = p.legacy, p.profile
    fcw = int.from_bytes(data[start : start + 2], "little") & profile.fcw_keep | profile.fcw_set
    fsw = int.from_bytes(data[start + 2 : start + 4], "little") & ~_ES_AND_B
    pending = fsw & ~fcw & _EXCEPTIONS
    if pending:
        fsw |= _ES_AND_B
    legacy[0:4] = (fcw | fsw << 16).to_bytes(4, "little")
    legacy[4:6] = bytes((data[start + 4], 0))
    registers = int.from_bytes(data[start + 32 : start + 160], "little") & _ST_USED
    legacy[_ST] = registers.to_bytes(128, "little")
    if pending or profile.x87_pointers == "always":
        _load_pointers(p, data, start, wide=wide)
    elif profile.x87_pointers == "pending":
        legacy[6:24] = bytes(18)
        p.fcs = p.fds = 0


def _load_pointers(p: Processor, data: bytes | bytearray, start: int, *, wide: bool) -> None:
    legacy = p.legacy
    fop = int.from_bytes(data[start + 6 : start + 8], "little") & _FOP_MASK
    legacy[6:8] = fop.to_bytes(2, "little")
    for offset in (8, 16):
        if wide:
            pointer = _sign_extended(int.from_bytes(data[start + offset : start + offset + 8], "little"), p)
        else:
            pointer = int.from_bytes(data[start + offset : start + offset + 4], "little")
        legacy[offset : offset + 8] = pointer.to_bytes(8, "little")
    if wide or p.caps.no_fcs_fds:
        p.fcs = p.fds = 0
    else:
        p.fcs = int.from_bytes(data[start + 12 : start + 14], "little")
        p.fds = int.from_bytes(data[start + 20 : start + 22], "little")


def _sign_extended(pointer: int, p: Processor) -> int:
    bits = p.profile.pointer_bits
    low = pointer & ((1 << bits) - 1)
    return low | (((1 << 64) - (1 << bits)) if low >> (bits - 1) else 0)
