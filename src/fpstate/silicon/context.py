"""The context: the memory through which Python and the machine code talk, and what code and host agree on.

The machine code finds it in RBX.  Its first page has the fields below; the images lie behind that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from fpstate.cpu import this_host
from fpstate.cpu.host import OSXSAVE, why_not_x86_64
from fpstate.cpu.model import Cpu
from fpstate.errors import UnreadableInput
from fpstate.layout import Layout, compacted, standard
from fpstate.xfeatures import PKRU

__all__ = ["Facts", "Places", "host_facts"]

PAGE: Final = 4096

# Fields: offsets from the context's start, 8 bytes each where no other size is said.
CALLER_RSP: Final = 0x00
PROGRAM: Final = 0x08
BY_XRSTOR: Final = 0x10
SIGNAL: Final = 0x18
XINUSE_BEFORE: Final = 0x20
XINUSE_AFTER: Final = 0x28
VALUE: Final = 0x30
PASSED_ON: Final = 0x38
CODE: Final = 0x40
ADDRESS: Final = 0x48
TRAPNO: Final = 0x50
ERROR_CODE: Final = 0x58
CR2: Final = 0x60
RIP: Final = 0x68
LOW_STACK: Final = 0x70
CALLER_MXCSR: Final = 0x80  # 4 bytes
CALLER_FCW: Final = 0x84  # 2 bytes
CALLER_DS: Final = 0x86  # 2 bytes
CALLER_PKRU: Final = 0x88  # 4 bytes

PREVIOUS_ACTIONS: Final = 0x400
"""The kernel's struct sigaction of each signal, as it was before ours; 32 bytes each."""
STEPS: Final = 0x800
"""The parameters of each step: RFBM (for XGETBV, ECX), then the address of the memory operand."""
STEP_SIZE: Final = 16
MOST_STEPS: Final = (PAGE - STEPS) // STEP_SIZE

ORDER: Final = struct.Struct("<QQQ")
"""What Python writes before a run, from PROGRAM on: PROGRAM, BY_XRSTOR, SIGNAL."""
RESULT: Final = struct.Struct("<QQQQQ")
"""What Python reads after a run, from SIGNAL on: SIGNAL, XINUSE_BEFORE, XINUSE_AFTER, VALUE, PASSED_ON."""
FAULT: Final = struct.Struct("<QQQQQQ")
"""What Python reads after a fault, from CODE on: CODE, ADDRESS, TRAPNO, ERROR_CODE, CR2, RIP."""

# Bytes of a standard-format image.
MXCSR: Final = 24
XSTATE_BV: Final = 512

MOVABLE: Final = 0b1110_0111
"""Components that ordinary instructions load and store: x87, SSE, AVX, opmask, ZMM_Hi256, Hi16_ZMM."""

_AVX512BW: Final = 1 << 30  # CPUID.7.0:EBX
_OSPKE: Final = 1 << 4  # CPUID.7.0:ECX


@dataclass(frozen=True, slots=True)
class Facts:
    """What the machine code must know of the CPU.

    Attributes:
        xcr0: the enabled components.
        layout: the standard format of all of them.
        offsets: where each begins in it.
        reach: how far from its operand an instruction can write, in either format.
        has_xgetbv1: whether XGETBV with ECX 1 exists, which tells XINUSE.
        has_rdpkru: whether PKRU is enabled with protection keys on (CR4.PKE), so that RDPKRU and WRPKRU exist.
        has_avx512bw: whether mask registers have 64 bits.
    """

    xcr0: int
    layout: Layout
    offsets: dict[int, int]
    reach: int
    has_xgetbv1: bool
    has_rdpkru: bool
    has_avx512bw: bool

    def enables(self, bit: int) -> bool:
        """Whether XCR0 has component *bit*."""
        return bool(self.xcr0 >> bit & 1)


@dataclass(frozen=True, slots=True)
class Places:
    """Where in the context the images lie, as offsets from its start.

    Attributes:
        init: an image whose components are all in their initial state.
        load: the registers to load.
        out: the registers as they were read.
        size: of the whole context.
    """

    init: int
    load: int
    out: int
    size: int

    @classmethod
    def of(cls, image: int) -> Places:
        """Return the places for images of *image* bytes."""
        step = -(-image // PAGE) * PAGE
        return cls(init=PAGE, load=PAGE + step, out=PAGE + 2 * step, size=PAGE + 3 * step)


def host_facts() -> Facts:
    """Return what this CPU has.

    Raises:
        UnreadableInput: this machine is not x86-64 Linux, its XSAVE is missing or switched off, or the kernel refuses
            executable memory.
    """
    refusal = why_not_x86_64()
    if refusal:
        raise UnreadableInput(refusal, cure="instructions can only be run on x86-64 Linux")
    cpu = this_host()
    if not (cpu.register(1, 0) or (0, 0, 0, 0))[2] & OSXSAVE:
        raise UnreadableInput("XSAVE is not switched on here (CPUID.1:ECX[27] OSXSAVE is 0)")
    if cpu.dump.xcr0 is None:
        raise UnreadableInput("instructions cannot be run here: the kernel refuses executable memory")
    return _facts(cpu, cpu.dump.xcr0)


def _facts(cpu: Cpu, xcr0: int) -> Facts:
    layout = standard(cpu, xcr0)
    _, leaf7_ebx, leaf7_ecx, _ = cpu.register(7, 0) or (0, 0, 0, 0)
    return Facts(
        xcr0=xcr0,
        layout=layout,
        offsets={slot.bit: slot.offset for slot in layout.slots},
        reach=max(layout.size, compacted(cpu, xcr0).size),
        has_xgetbv1="XGETBV1" in cpu.flags,
        has_rdpkru=bool(xcr0 >> PKRU & 1 and leaf7_ecx & _OSPKE),
        has_avx512bw=bool(leaf7_ebx & _AVX512BW),
    )
