r"""The machine code of a run: load the registers, execute the steps, read everything back.

    entry ---> loader ---> program (the steps) ---> epilogue ---> back to Python
                                 \--- fault ---> handler --/

Entry, loader and epilogue are written once.  A program is written once for each sequence of operations; what differs
between its runs, RFBM and address, it reads from the context.  Between the loader's last load and the first step, and
from step to step, only moves of general registers happen: nothing that an XSAVE could see.

The epilogue can be entered in any state of the general registers, which is how it is entered after a fault.  It reads
by FXSAVE64 and by ordinary stores: what it tells does not rest on the XSAVE instructions that are under test, but for
components that nothing else can read.

Sources: SDM volume 1, 13.4 for the image; the System V x86-64 ABI for the registers to keep; Linux
``arch/x86/include/asm/segment.h`` for the selectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fpstate.silicon import context, encode
from fpstate.silicon.context import Facts, Places
from fpstate.silicon.encode import R8, R9, RAX, RBP, RBX, RCX, RDI, RDX, RSP, Assembler, At
from fpstate.silicon.steps import MEMORY_OPS, TOUCH_OPS, Mode
from fpstate.xfeatures import PKRU

__all__ = ["Program", "assemble", "emit_entry", "emit_epilogue"]

USER_CS: Final = 0x33  # __USER_CS
USER32_CS: Final = 0x23  # __USER32_CS
USER_DS: Final = 0x2B  # __USER_DS
ALIGNMENT_CHECK: Final = 1 << 18  # EFLAGS.AC

_ALL: Final = 0xFFFF_FFFF
_KEPT: Final = (RBX, RBP, 12, 13, 14, 15)  # what a function must keep for its caller: RBX, RBP, R12 to R15

_X87, _SSE, _AVX, _OPMASK, _ZMM_HI256, _HI16_ZMM = 0, 1, 2, 5, 6, 7


def _field(offset: int) -> At:
    return At(RBX, offset)


# Entry and loader


def emit_entry(code: Assembler, base: int, places: Places, facts: Facts) -> None:
    """Append ``void entry(void)``: everything from the call to the first step, for the context at *base*."""
    code.emit(encode.ENDBR64, *(encode.push(register) for register in _KEPT), encode.set_number(RBX, base))
    _emit_keep_caller(code, facts)
    code.emit(encode.set_number(RAX, _ALL), encode.set_number(RDX, _ALL))
    code.emit(encode.xrstor(_field(places.init), wide=True))
    code.emit(encode.compare(_field(context.BY_XRSTOR), 0))
    code.jump(Assembler.JUMP_ZERO, "moves")
    code.emit(encode.xrstor(_field(places.load), wide=True))  # EDX:EAX is still all ones
    code.jump(Assembler.JUMP, "loaded")
    code.label("moves")
    _emit_moves(code, places, facts)
    code.label("loaded")
    if facts.has_xgetbv1:
        code.emit(encode.set_number(RCX, 1), encode.XGETBV)
        code.emit(encode.store(_field(context.XINUSE_BEFORE), RAX, wide=False))
        code.emit(encode.store(_field(context.XINUSE_BEFORE + 4), RDX, wide=False))
    code.emit(encode.jump_memory(_field(context.PROGRAM)))


def _emit_keep_caller(code: Assembler, facts: Facts) -> None:
    code.emit(
        encode.store(_field(context.CALLER_RSP), RSP),
        encode.stmxcsr(_field(context.CALLER_MXCSR)),
        encode.fnstcw(_field(context.CALLER_FCW)),
        encode.store_ds(_field(context.CALLER_DS)),
    )
    if facts.has_rdpkru:
        code.emit(encode.clear(RCX), encode.RDPKRU, encode.store(_field(context.CALLER_PKRU), RAX, wide=False))


def _emit_moves(code: Assembler, places: Places, facts: Facts) -> None:
    """Load by ordinary instructions those components that XSTATE_BV of the image has; the others stay initial."""
    present = _field(places.load + context.XSTATE_BV)
    for bit, loads in _loads(places.load, facts).items():
        skip = f"without component {bit}"
        code.emit(encode.test(present, 1 << bit))
        code.jump(Assembler.JUMP_ZERO, skip)
        code.emit(*loads)
        code.label(skip)
    _emit_initialise_others(code, places, present, facts)
    code.emit(encode.ldmxcsr(_field(places.load + context.MXCSR)))


def _emit_initialise_others(code: Assembler, places: Places, present: At, facts: Facts) -> None:
    """Initialise once more what the image does not have.

    FXRSTOR64 loads XMM beside x87, and a load into the upper part of a vector register writes the lower parts too:
    Zen 4 then tells them as in use, although they are zero.
    """
    code.emit(encode.mov(RAX, present, wide=False), encode.complement(RAX))
    code.emit(encode.mask(RAX, facts.xcr0 & context.MOVABLE))
    code.jump(Assembler.JUMP_ZERO, "all present")
    code.emit(encode.clear(RDX), encode.xrstor(_field(places.init), wide=True))
    code.label("all present")


def _loads(image: int, facts: Facts) -> dict[int, list[bytes]]:
    """Return what loads each component from the image: lowest parts of the registers first, each leaving them alone."""
    at, wide = facts.offsets, facts.has_avx512bw
    loads = {
        _X87: [encode.fxrstor(_field(image), wide=True)],
        _SSE: [encode.movdqu_load(n, _field(image + at[_SSE] + 16 * n)) for n in range(16)],
    }
    if facts.enables(_AVX):
        loads[_AVX] = [encode.vinsertf128_high(n, _field(image + at[_AVX] + 16 * n)) for n in range(16)]
    if facts.enables(_ZMM_HI256):
        loads[_ZMM_HI256] = [encode.vinserti64x4_high(n, _field(image + at[_ZMM_HI256] + 32 * n)) for n in range(16)]
        loads[_HI16_ZMM] = [encode.vmovdqu64_load(16 + n, _field(image + at[_HI16_ZMM] + 64 * n)) for n in range(16)]
        loads[_OPMASK] = [encode.kmov_load(n, _field(image + at[_OPMASK] + 8 * n), wide=wide) for n in range(8)]
    return loads


# Epilogue


def emit_epilogue(code: Assembler, base: int, places: Places, facts: Facts) -> None:
    """Append what reads everything back, restores the caller's state and returns to it.

    Until RBX is set and PKRU allows it, no memory is touched: after a fault, nothing is as it was.
    """
    if facts.has_xgetbv1:
        code.emit(encode.set_number(RCX, 1), encode.XGETBV, encode.mov(R8, RAX))
        code.emit(encode.shl(RDX, 32), encode.bitor(R8, RDX))
    if facts.has_rdpkru:
        code.emit(encode.clear(RCX), encode.RDPKRU, encode.mov(R9, RAX))
        code.emit(encode.clear(RAX), encode.clear(RDX), encode.WRPKRU)
    code.emit(encode.set_number(RBX, base), encode.mov(RSP, _field(context.CALLER_RSP)), encode.CLD)
    code.emit(encode.load_ds(_field(context.CALLER_DS)))
    if facts.has_xgetbv1:
        code.emit(encode.store(_field(context.XINUSE_AFTER), R8))
    code.emit(encode.fxsave(_field(places.out), wide=True), *_stores(places.out, facts))
    _emit_read_others(code, places, facts)
    code.emit(encode.set_number(RAX, facts.xcr0), encode.store(_field(places.out + context.XSTATE_BV), RAX))
    _emit_restore_caller(code, places, facts)


def _stores(image: int, facts: Facts) -> list[bytes]:
    """Return what stores the components behind the legacy region to the image."""
    at, wide = facts.offsets, facts.has_avx512bw
    stores: list[bytes] = []
    if facts.enables(_AVX):
        stores += [encode.vextractf128_high(_field(image + at[_AVX] + 16 * n), n) for n in range(16)]
    if facts.enables(_ZMM_HI256):
        stores += [encode.vextracti64x4_high(_field(image + at[_ZMM_HI256] + 32 * n), n) for n in range(16)]
        stores += [encode.vmovdqu64_store(_field(image + at[_HI16_ZMM] + 64 * n), 16 + n) for n in range(16)]
        stores += [encode.kmov_store(_field(image + at[_OPMASK] + 8 * n), n, wide=wide) for n in range(8)]
    return stores


def _emit_read_others(code: Assembler, places: Places, facts: Facts) -> None:
    """Append the reading of what no ordinary instruction reads, by XSAVE64; PKRU is in R9."""
    others = facts.xcr0 & ~(context.MOVABLE | (1 << PKRU if facts.has_rdpkru else 0))
    if others:
        code.emit(encode.set_number(RAX, others & _ALL), encode.set_number(RDX, others >> 32))
        code.emit(encode.xsave(_field(places.out), wide=True))
    if facts.has_rdpkru:
        code.emit(encode.store(_field(places.out + facts.offsets[PKRU]), R9, wide=False))


def _emit_restore_caller(code: Assembler, places: Places, facts: Facts) -> None:
    """Append the way back: all components initial (no x87 exception pending), then what the caller set."""
    code.emit(encode.set_number(RAX, _ALL), encode.set_number(RDX, _ALL))
    code.emit(encode.xrstor(_field(places.init), wide=True))
    code.emit(encode.fldcw(_field(context.CALLER_FCW)), encode.ldmxcsr(_field(context.CALLER_MXCSR)))
    if facts.has_rdpkru:
        code.emit(encode.mov(RAX, _field(context.CALLER_PKRU), wide=False))
        code.emit(encode.clear(RCX), encode.clear(RDX), encode.WRPKRU)
    code.emit(*(encode.pop(register) for register in reversed(_KEPT)), encode.RET)


# Programs


@dataclass(frozen=True, slots=True)
class Program:
    """The machine code of one sequence of operations.

    Attributes:
        address: of its first instruction.
        code: its bytes.
        starts: where the code of each step begins.
        first_xgetbv: the number of the first step that is an XGETBV; None without one.
    """

    address: int
    code: bytes
    starts: tuple[int, ...]
    first_xgetbv: int | None


def assemble(ops: Sequence[tuple[str, Mode]], origin: int, epilogue: int, *, ac: bool) -> Program:
    """Return the program of *ops*, to lie at *origin* and to end in the jump to *epilogue*."""
    code = Assembler(origin)
    code.label("epilogue", epilogue)
    starts = []
    for number, (op, mode) in enumerate(ops):
        starts.append(code.here)
        if mode == 32:
            _emit_step_32(code, op, number, ac=ac)
        else:
            _emit_step(code, op, number, ac=ac)
    code.jump(Assembler.JUMP, "epilogue")
    first = next((number for number, (op, _) in enumerate(ops) if op == "xgetbv"), None)
    return Program(origin, code.finish(), tuple(starts), first)


def _emit_step(code: Assembler, op: str, number: int, *, ac: bool) -> None:
    code.emit(*_parameters(op, number, wide=True), *_guarded(op, ac=ac))
    if op == "xgetbv":
        code.emit(*_keep_value())


def _emit_step_32(code: Assembler, op: str, number: int, *, ac: bool) -> None:
    """Append a step executed in compatibility mode, and the ways there and back.

    There, segments count: DS, null in a 64-bit process, gets the flat one.  The stack has to lie below 4 GiB.  Upper
    halves of registers are undefined after the way back, RBX's too.
    """
    code.emit(encode.set_number(RAX, USER_DS), encode.load_ds(RAX), encode.mov(RSP, _field(context.LOW_STACK)))
    far = len(encode.far_jump_to_32(USER32_CS, 0))
    code.emit(encode.far_jump_to_32(USER32_CS, code.here + far))
    code.emit(*_parameters(op, number, wide=False), *_guarded(op, ac=ac))
    far = len(encode.far_jump_from_32(USER_CS, 0))
    code.emit(encode.far_jump_from_32(USER_CS, code.here + far))
    code.emit(encode.mov(RBX, RBX, wide=False))  # clears the upper half
    code.emit(encode.mov(RSP, _field(context.CALLER_RSP)), encode.load_ds(_field(context.CALLER_DS)))
    if op == "xgetbv":
        code.emit(*_keep_value())


def _parameters(op: str, number: int, *, wide: bool) -> list[bytes]:
    """Return what sets EDX:EAX (or ECX) and RDI for step *number*; without REX.W it means the same in 32-bit mode."""
    mask = context.STEPS + context.STEP_SIZE * number
    if op == "xgetbv":
        return [encode.mov(RCX, _field(mask), wide=False)]
    if op not in MEMORY_OPS:
        return []
    return [
        encode.mov(RAX, _field(mask), wide=False),
        encode.mov(RDX, _field(mask + 4), wide=False),
        encode.mov(RDI, _field(mask + 8), wide=wide),
    ]


def _guarded(op: str, *, ac: bool) -> list[bytes]:
    """Return the instruction itself, with EFLAGS.AC set around it if *ac*."""
    instruction = encode.XGETBV if op == "xgetbv" else MEMORY_OPS.get(op) or TOUCH_OPS[op]
    if not ac:
        return [instruction]
    top = At(RSP)
    switch_on = [encode.PUSHF, encode.bits_or(top, ALIGNMENT_CHECK), encode.POPF]
    switch_off = [encode.PUSHF, encode.bits_and(top, ~ALIGNMENT_CHECK & 0xFFFF_FFFF), encode.POPF]
    return [*switch_on, instruction, *switch_off]


def _keep_value() -> list[bytes]:
    return [
        encode.store(_field(context.VALUE), RAX, wide=False),
        encode.store(_field(context.VALUE + 4), RDX, wide=False),
    ]
