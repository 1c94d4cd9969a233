"""FXSAVE and FXRSTOR (SDM volume 1, 10.5; volume 2, the instructions): the legacy region alone, whatever XCR0 says."""

from __future__ import annotations

from fpstate.isa import x87
from fpstate.isa.access import check, reach, reach_read
from fpstate.isa.memory import Memory
from fpstate.isa.mxcsr import check_mxcsr
from fpstate.isa.processor import MXCSR, Processor
from fpstate.xfeatures import LEGACY, LEGACY_SIZE

__all__ = ["fxrstor", "fxsave"]


def fxsave(p: Processor, memory: Memory, address: int, *, wide: bool) -> None:
    """Execute FXSAVE, or with *wide* FXSAVE64: 512 bytes, of which 416 and up are left alone.

    With CR4.OSFXSR = 0 an implementation may leave out XMM and MXCSR; here it does not.

    Raises:
        Fault: nothing has changed.
    """
    check(p, "fxsave", address)
    reach(p, memory, address, LEGACY_SIZE, last_first=True)
    start = address - memory.base
    x87.store(p, memory.data, start, wide=wide)
    memory.data[start + 24 : start + 32] = p.legacy[24:32]
    end = p.end_of_xmm
    memory.data[start + 160 : start + end] = p.legacy[160:end]


def fxrstor(p: Processor, memory: Memory, address: int, *, wide: bool) -> None:
    """Execute FXRSTOR, or with *wide* FXRSTOR64.

    Raises:
        Fault: nothing has changed.
    """
    check(p, "fxrstor", address)
    reach_read(p, memory, address, LEGACY_SIZE)
    start = address - memory.base
    mxcsr = bytes(memory.data[start + 24 : start + 28])
    check_mxcsr(int.from_bytes(mxcsr, "little"), p.profile.mxcsr_legal)
    x87.load(p, memory.data, start, wide=wide)
    p.legacy[MXCSR] = mxcsr
    end = p.end_of_xmm
    p.legacy[160:end] = memory.data[start + 160 : start + end]
    p.restored(LEGACY, LEGACY)
    p.modified |= LEGACY
