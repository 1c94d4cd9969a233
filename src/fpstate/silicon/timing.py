"""The machine code that times an instruction: samples of the time stamp counter around a run of it.

A sample is RDTSC, the instruction *repeats* times with an LFENCE after each, and RDTSC: the latency of one instruction
that nothing overlaps, times *repeats*, and the same overhead whatever the instruction.  An LFENCE waits for all that
stands before it, and nothing behind it begins earlier (SDM volume 2, LFENCE and RDTSC; on AMD with
DE_CFG[LFENCE_SERIALIZE], which Linux sets).  Samples are 32 bits: the low half of the counter's difference.
"""

from __future__ import annotations

from typing import Final

from fpstate.silicon import context, encode
from fpstate.silicon.encode import R8, R9, RAX, RBX, RCX, RDI, RDX, RSI, Assembler, At
from fpstate.silicon.program import Program
from fpstate.silicon.steps import MEMORY_OPS

__all__ = ["CHAIN", "NOTHING", "SAMPLE_SIZE", "TIMED", "assemble_timing"]

NOTHING: Final = "nothing"
"""No instruction: what a sample costs by itself."""
CHAIN: Final = "chain"
"""`CHAIN_LENGTH` additions, each of which needs the one before it: one core clock each on every x86-64 CPU."""
CHAIN_LENGTH: Final = 512
SAMPLE_SIZE: Final = 4

TIMED: Final[dict[str, bytes]] = {
    NOTHING: b"",
    CHAIN: encode.add(RCX, RCX) * CHAIN_LENGTH,
    **{name: code for name, code in MEMORY_OPS.items() if name.endswith("64")},
}
"""What can be timed: the code of each by name."""

_AREA: Final = context.STEPS
_SAMPLES: Final = context.STEPS + context.STEP_SIZE


def assemble_timing(op: str, repeats: int, origin: int, epilogue: int) -> Program:
    """Return the program that times *op*, to lie at *origin* and to end in the jump to *epilogue*.

    It reads from the context, as two steps: EDX:EAX and the area; the number of samples and where they go.
    """
    code = Assembler(origin)
    code.label("epilogue", epilogue)
    code.emit(encode.mov(RDI, At(RBX, _AREA + 8)))
    code.emit(encode.mov(R8, At(RBX, _SAMPLES)), encode.mov(R9, At(RBX, _SAMPLES + 8)))
    code.label("sample")
    code.emit(encode.LFENCE, encode.RDTSC, encode.mov(RSI, RAX, wide=False))
    code.emit(encode.mov(RAX, At(RBX, _AREA), wide=False), encode.mov(RDX, At(RBX, _AREA + 4), wide=False))
    code.emit(encode.LFENCE, *((TIMED[op], encode.LFENCE) * repeats))
    code.emit(encode.RDTSC, encode.LFENCE)
    code.emit(encode.subtract(RAX, RSI, wide=False), encode.store(At(R9), RAX, wide=False))
    code.emit(encode.lea(R9, At(R9, SAMPLE_SIZE)), encode.lea(R8, At(R8, -1)), encode.compare(R8, 0))
    code.jump(Assembler.JUMP_ABOVE, "sample")
    code.jump(Assembler.JUMP, "epilogue")
    return Program(origin, code.finish(), (origin,), None)
