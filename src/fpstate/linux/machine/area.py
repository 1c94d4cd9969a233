"""XSAVE areas in memory: the kernel's images and the users' ones."""

from __future__ import annotations

from typing import Final

from fpstate.isa import Capabilities, Memory
from fpstate.isa.capabilities import Places
from fpstate.isa.processor import MXCSR, MXCSR_INITIAL, X87_INIT
from fpstate.linux.machine.values import PKRU_BYTES
from fpstate.xfeatures import COMPACTED, LEGACY, MIN_SIZE, PKRU, bits

__all__ = ["Area", "Areas"]

_XSTATE_BV: Final = slice(512, 520)
_XCOMP_BV: Final = slice(520, 528)
_STEP: Final = 1 << 14
_KERNEL: Final = 0xFFFF_8881_0000_0000
_USER: Final = 0x0000_7000_0000_0000
_PAGE: Final = 4096


class Area:
    """One area: its bytes, its address, and where its components lie by its own header.

    Attributes:
        memory: what instructions reach of it.
        address: of its first byte; aligned on 64.
        caps: the CPU.
    """

    __slots__ = ("address", "caps", "memory")

    def __init__(self, data: bytearray, address: int, caps: Capabilities) -> None:
        self.memory = Memory(data, address)
        self.address = address
        self.caps = caps

    @property
    def data(self) -> bytearray:
        """Its bytes."""
        return self.memory.data

    @property
    def xstate_bv(self) -> int:
        """XSTATE_BV."""
        return int.from_bytes(self.memory.data[_XSTATE_BV], "little")

    @xstate_bv.setter
    def xstate_bv(self, value: int) -> None:
        self.memory.data[_XSTATE_BV] = value.to_bytes(8, "little")

    @property
    def xcomp_bv(self) -> int:
        """XCOMP_BV."""
        return int.from_bytes(self.memory.data[_XCOMP_BV], "little")

    @property
    def places(self) -> Places:
        """Where the extended components lie."""
        xcomp_bv = self.xcomp_bv
        if xcomp_bv & COMPACTED:
            return self.caps.compacted(xcomp_bv & ~COMPACTED)
        return self.caps.standard(self.caps.user)

    def component(self, bit: int) -> bytes | bytearray | None:
        """Return the bytes of component *bit* as `values.component` does; None if XSTATE_BV has it not."""
        if not self.xstate_bv >> bit & 1:
            return None
        data = self.memory.data
        if bit == 0:
            return data[:24] + data[32:160]
        if bit == 1:
            return data[160:416]
        start, size = self._place(bit)
        return data[start : start + (PKRU_BYTES if bit == PKRU else size)]

    def put(self, bit: int, value: bytes | bytearray) -> None:
        """Write the bytes of component *bit*; XSTATE_BV is the caller's."""
        data = self.memory.data
        if bit == 0:
            data[:24], data[32:160] = value[:24], value[24:]
        elif bit == 1:
            data[160:416] = value
        else:
            start, _ = self._place(bit)
            data[start : start + len(value)] = value

    def zero(self, mask: int) -> None:
        """Write zeros over the extended components of *mask* that XSTATE_BV has."""
        present = self.xstate_bv & mask & ~LEGACY
        for bit in bits(present):
            start, size = self._place(bit)
            self.memory.data[start : start + size] = bytes(size)

    def _place(self, bit: int) -> tuple[int, int]:
        for found, start, size in self.places.slots:
            if found == bit:
                return start, size
        raise KeyError(bit)


class Areas:
    """Allocates areas: each at an address of its own.

    Attributes:
        compacted: the kernel's are in compacted format.
    """

    def __init__(self, caps: Capabilities, mxcsr_mask: int, *, compacted: bool) -> None:
        self.caps = caps
        self.compacted = compacted
        self._mxcsr_mask = mxcsr_mask.to_bytes(4, "little")
        self._blank: dict[tuple[int, int], bytes] = {}
        self._kernel, self._user = _KERNEL, _USER

    def blank(self, mask: int, size: int) -> bytes:
        """Return *size* bytes, 576 at least: initial x87 and MXCSR, and XCOMP_BV for *mask*, or 0 for *mask* 0."""
        made = self._blank.get((mask, size))
        if made is None:
            data = bytearray(max(size, MIN_SIZE))
            data[:24] = X87_INIT
            data[MXCSR] = MXCSR_INITIAL
            data[28:32] = self._mxcsr_mask
            if mask:
                data[_XCOMP_BV] = (mask | COMPACTED).to_bytes(8, "little")
            made = self._blank[mask, size] = bytes(data)
        return made

    def kernel(self, xfeatures: int, size: int, *, pages: bool) -> Area:
        """Return a kernel's image of *xfeatures*; with *pages* its memory is vzalloc()'s, behind a 64-byte header."""
        if pages:
            size = -(-(size + 64) // _PAGE) * _PAGE - 64
        self._kernel += _STEP
        xcomp_bv = xfeatures if self.compacted else 0
        return Area(bytearray(self.blank(xcomp_bv, size)), self._kernel, self.caps)

    def independent(self, size: int) -> Area:
        """Return a zeroed buffer for xsaves() and xrstors()."""
        self._kernel += _STEP
        return Area(bytearray(self.blank(COMPACTED, size)), self._kernel, self.caps)

    def user(self, size: int) -> Area:
        """Return a user's image in standard format."""
        self._user += _STEP
        return Area(bytearray(self.blank(0, size)), self._user, self.caps)
