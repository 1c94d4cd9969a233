"""x86-64 machine code, written by name: the few instructions that the executor is made of.

Every function returns the bytes of one instruction.  `Assembler` strings them together and fills in jumps.

Sources: Intel SDM volume 2, chapter 2 (REX, VEX, EVEX, ModRM) and the instructions' own pages for opcodes.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = ["R8", "R9", "R10", "RAX", "RBP", "RBX", "RCX", "RDI", "RDX", "RSI", "RSP", "Assembler", "At"]

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10 = range(11)

_MAP_0F: Final = 1
_MAP_0F3A: Final = 3
_PREFIX_NONE: Final = 0
_PREFIX_66: Final = 1
_PREFIX_F3: Final = 2


class At(NamedTuple):
    """A memory operand: what lies *displacement* bytes after the address in register *base*."""

    base: int
    displacement: int = 0


def _modrm(reg: int, rm: At | int) -> bytes:
    """Return ModRM, with SIB and a 32-bit displacement where *rm* is memory."""
    if isinstance(rm, int):
        return bytes([0xC0 | (reg & 7) << 3 | rm & 7])
    sib = b"\x24" if rm.base & 7 == RSP else b""  # no index; base RSP or R12 can only be said in a SIB byte
    return bytes([0x80 | (reg & 7) << 3 | rm.base & 7]) + sib + struct.pack("<i", rm.displacement)


def _number(rm: At | int) -> int:
    return rm if isinstance(rm, int) else rm.base


def legacy(opcode: bytes, reg: int, rm: At | int, *, prefix: bytes = b"", wide: bool = False) -> bytes:
    """Return an instruction without VEX; *reg* is a register or the opcode's /digit, *wide* sets REX.W."""
    rex = 0x40 | wide << 3 | (reg >> 3) << 2 | _number(rm) >> 3
    return prefix + (bytes([rex]) if rex != 0x40 else b"") + opcode + _modrm(reg, rm)


def _vex(
    opcode: int, reg: int, vvvv: int, rm: At | int, *, pages: int, prefix: int, wide: bool = False, long: bool = False
) -> bytes:
    """Return an instruction with the three-byte VEX prefix; *pages* is the opcode map, *long* sets VEX.L."""
    inverted = (~reg >> 3 & 1) << 7 | 1 << 6 | (~_number(rm) >> 3 & 1) << 5
    head = bytes([0xC4, inverted | pages, wide << 7 | (~vvvv & 15) << 3 | long << 2 | prefix, opcode])
    return head + _modrm(reg, rm)


def _evex(opcode: int, reg: int, vvvv: int, rm: At | int, *, pages: int, prefix: int, wide: bool) -> bytes:
    """Return an instruction of 512 bits with the EVEX prefix, no mask; its displacement is of 32 bits, not scaled."""
    number = _number(rm)
    high = number >> 4 if isinstance(rm, int) else 0  # EVEX.X extends rm only where rm is a register
    first = (~reg >> 3 & 1) << 7 | (~high & 1) << 6 | (~number >> 3 & 1) << 5 | (~reg >> 4 & 1) << 4 | pages
    second = wide << 7 | (~vvvv & 15) << 3 | 1 << 2 | prefix
    third = 0b10 << 5 | (~vvvv >> 4 & 1) << 3
    return bytes([0x62, first, second, third, opcode]) + _modrm(reg, rm)


# General registers


def mov(register: int, source: At | int, *, wide: bool = True) -> bytes:
    """Mov register, source."""
    return legacy(b"\x8b", register, source, wide=wide)


def store(target: At, register: int, *, wide: bool = True) -> bytes:
    """Mov [target], register."""
    return legacy(b"\x89", register, target, wide=wide)


def store_word(target: At, value: int) -> bytes:
    """Mov word [target], value."""
    return legacy(b"\xc7", 0, target, prefix=b"\x66") + struct.pack("<H", value)


def store_number(target: At, value: int) -> bytes:
    """Mov qword [target], value (sign-extended from 32 bits)."""
    return legacy(b"\xc7", 0, target, wide=True) + struct.pack("<i", value)


def set_number(register: int, value: int) -> bytes:
    """Mov register, value: the 32-bit form, which clears the upper half, where that is enough."""
    if value >> 32:
        return bytes([0x48 | register >> 3, 0xB8 | register & 7]) + struct.pack("<Q", value)
    return (b"\x41" if register >> 3 else b"") + bytes([0xB8 | register & 7]) + struct.pack("<I", value)


def lea(register: int, source: At) -> bytes:
    """Lea register, [source]."""
    return legacy(b"\x8d", register, source, wide=True)


def add(register: int, other: int) -> bytes:
    """Add register, other."""
    return legacy(b"\x03", register, other, wide=True)


def subtract(register: int, other: int, *, wide: bool = True) -> bytes:
    """Sub register, other."""
    return legacy(b"\x2b", register, other, wide=wide)


def bitor(register: int, other: int) -> bytes:
    """Or register, other."""
    return legacy(b"\x0b", register, other, wide=True)


def complement(register: int) -> bytes:
    """Not register (32 bits)."""
    return legacy(b"\xf7", 2, register)


def mask(register: int, bits: int) -> bytes:
    """And register, bits (32 bits)."""
    return legacy(b"\x81", 4, register) + struct.pack("<I", bits)


def clear(register: int) -> bytes:
    """Xor register, register (32 bits)."""
    return legacy(b"\x33", register, register)


def shl(register: int, count: int) -> bytes:
    """Shl register, count."""
    return legacy(b"\xc1", 4, register, wide=True) + bytes([count])


def compare(left: At | int, value: int) -> bytes:
    """Cmp left, value (32 bits)."""
    return legacy(b"\x81", 7, left) + struct.pack("<i", value)


def compare_registers(left: int, right: int) -> bytes:
    """Cmp left, right."""
    return legacy(b"\x3b", left, right, wide=True)


def test(operand: At, mask: int) -> bytes:
    """Test dword [operand], mask."""
    return legacy(b"\xf7", 0, operand) + struct.pack("<I", mask)


def bits_or(operand: At, mask: int) -> bytes:
    """Or dword [operand], mask."""
    return legacy(b"\x81", 1, operand) + struct.pack("<I", mask)


def bits_and(operand: At, mask: int) -> bytes:
    """And dword [operand], mask."""
    return legacy(b"\x81", 4, operand) + struct.pack("<I", mask)


def push(register: int) -> bytes:
    """Push register."""
    return (b"\x41" if register >> 3 else b"") + bytes([0x50 | register & 7])


def pop(register: int) -> bytes:
    """Pop register."""
    return (b"\x41" if register >> 3 else b"") + bytes([0x58 | register & 7])


def load_ds(source: At | int) -> bytes:
    """Mov ds, source."""
    return legacy(b"\x8e", 3, source)


def store_ds(target: At) -> bytes:
    """Mov [target], ds (16 bits)."""
    return legacy(b"\x8c", 3, target)


def jump_memory(target: At) -> bytes:
    """Jmp [target]."""
    return legacy(b"\xff", 4, target)


def far_jump_to_32(selector: int, target: int) -> bytes:
    """Jmp far [rip+0], with the pointer behind it: from 64-bit mode to the code segment *selector*."""
    return b"\xff\x2d" + bytes(4) + struct.pack("<IH", target, selector)


def far_jump_from_32(selector: int, target: int) -> bytes:
    """Jmp selector:target, an instruction of 32-bit mode only."""
    return b"\xea" + struct.pack("<IH", target, selector)


PUSHF: Final = b"\x9c"  # pushfq; in 32-bit mode pushfd
POPF: Final = b"\x9d"  # popfq; in 32-bit mode popfd
CLD: Final = b"\xfc"  # cld
RET: Final = b"\xc3"  # ret
REP_STOSB: Final = b"\xf3\xaa"  # rep stosb
SYSCALL: Final = b"\x0f\x05"  # syscall
RDTSC: Final = b"\x0f\x31"  # rdtsc
LFENCE: Final = b"\x0f\xae\xe8"  # lfence
ENDBR64: Final = b"\xf3\x0f\x1e\xfa"  # endbr64

# x87, control and status registers

XGETBV: Final = b"\x0f\x01\xd0"  # xgetbv
RDPKRU: Final = b"\x0f\x01\xee"  # rdpkru
WRPKRU: Final = b"\x0f\x01\xef"  # wrpkru
FNINIT: Final = b"\xdb\xe3"  # fninit
FLD1: Final = b"\xd9\xe8"  # fld1
VZEROUPPER: Final = b"\xc5\xf8\x77"  # vzeroupper
VZEROALL: Final = b"\xc5\xfc\x77"  # vzeroall


def fldcw(source: At) -> bytes:
    """Fldcw [source]."""
    return legacy(b"\xd9", 5, source)


def fnstcw(target: At) -> bytes:
    """Fnstcw [target]."""
    return legacy(b"\xd9", 7, target)


def fxsave(target: At, *, wide: bool) -> bytes:
    """Fxsave [target], or fxsave64."""
    return legacy(b"\x0f\xae", 0, target, wide=wide)


def fxrstor(source: At, *, wide: bool) -> bytes:
    """Fxrstor [source], or fxrstor64."""
    return legacy(b"\x0f\xae", 1, source, wide=wide)


def ldmxcsr(source: At) -> bytes:
    """Ldmxcsr [source]."""
    return legacy(b"\x0f\xae", 2, source)


def stmxcsr(target: At) -> bytes:
    """Stmxcsr [target]."""
    return legacy(b"\x0f\xae", 3, target)


def xsave(target: At, *, wide: bool) -> bytes:
    """Xsave [target], or xsave64."""
    return legacy(b"\x0f\xae", 4, target, wide=wide)


def xrstor(source: At, *, wide: bool) -> bytes:
    """Xrstor [source], or xrstor64."""
    return legacy(b"\x0f\xae", 5, source, wide=wide)


def xsaveopt(target: At, *, wide: bool) -> bytes:
    """Xsaveopt [target], or xsaveopt64."""
    return legacy(b"\x0f\xae", 6, target, wide=wide)


def xsavec(target: At, *, wide: bool) -> bytes:
    """Xsavec [target], or xsavec64."""
    return legacy(b"\x0f\xc7", 4, target, wide=wide)


# Vector and mask registers


def movdqu_load(n: int, source: At) -> bytes:
    """Movdqu xmm, [source]: leaves the bits above 127 alone."""
    return legacy(b"\x0f\x6f", n, source, prefix=b"\xf3")


def vinsertf128_high(n: int, source: At) -> bytes:
    """Vinsertf128 ymm, ymm, [source], 1."""
    return _vex(0x18, n, n, source, pages=_MAP_0F3A, prefix=_PREFIX_66, long=True) + b"\x01"


def vextractf128_high(target: At, n: int) -> bytes:
    """Vextractf128 [target], ymm, 1."""
    return _vex(0x19, n, 0, target, pages=_MAP_0F3A, prefix=_PREFIX_66, long=True) + b"\x01"


def vinserti64x4_high(n: int, source: At) -> bytes:
    """Vinserti64x4 zmm, zmm, [source], 1."""
    return _evex(0x3A, n, n, source, pages=_MAP_0F3A, prefix=_PREFIX_66, wide=True) + b"\x01"


def vextracti64x4_high(target: At, n: int) -> bytes:
    """Vextracti64x4 [target], zmm, 1."""
    return _evex(0x3B, n, 0, target, pages=_MAP_0F3A, prefix=_PREFIX_66, wide=True) + b"\x01"


def vmovdqu64_load(n: int, source: At) -> bytes:
    """Vmovdqu64 zmm, [source]."""
    return _evex(0x6F, n, 0, source, pages=_MAP_0F, prefix=_PREFIX_F3, wide=True)


def vmovdqu64_store(target: At, n: int) -> bytes:
    """Vmovdqu64 [target], zmm."""
    return _evex(0x7F, n, 0, target, pages=_MAP_0F, prefix=_PREFIX_F3, wide=True)


def kmov_load(n: int, source: At, *, wide: bool) -> bytes:
    """Kmovq k, [source] (AVX512BW), or kmovw."""
    return _vex(0x90, n, 0, source, pages=_MAP_0F, prefix=_PREFIX_NONE, wide=wide)


def kmov_store(target: At, n: int, *, wide: bool) -> bytes:
    """Kmovq [target], k (AVX512BW), or kmovw."""
    return _vex(0x91, n, 0, target, pages=_MAP_0F, prefix=_PREFIX_NONE, wide=wide)


def paddd(n: int) -> bytes:
    """Paddd xmm, xmm: doubles it, leaves the bits above 127 alone."""
    return legacy(b"\x0f\xfe", n, n, prefix=b"\x66")


def vpaddd(n: int, *, long: bool) -> bytes:
    """Vpaddd xmm or ymm, three times the same: doubles it, clears the bits above."""
    return _vex(0xFE, n, n, n, pages=_MAP_0F, prefix=_PREFIX_66, long=long)


def vpaddd_zmm(n: int) -> bytes:
    """Vpaddd zmm, zmm, zmm: doubles it."""
    return _evex(0xFE, n, n, n, pages=_MAP_0F, prefix=_PREFIX_66, wide=False)


def kxnorw(n: int) -> bytes:
    """Kxnorw k, k, k: sets its lowest 16 bits, clears the others."""
    return _vex(0x46, n, n, n, pages=_MAP_0F, prefix=_PREFIX_NONE, long=True)


class Assembler:
    """Code under construction, for a known address.

    Args:
        origin: the address of its first byte.
    """

    JUMP: Final = b"\xe9"  # jmp
    JUMP_ZERO: Final = b"\x0f\x84"  # jz
    JUMP_BELOW: Final = b"\x0f\x82"  # jb
    JUMP_ABOVE: Final = b"\x0f\x87"  # ja
    JUMP_LESS_OR_EQUAL: Final = b"\x0f\x8e"  # jle, signed
    JUMP_GREATER: Final = b"\x0f\x8f"  # jg, signed

    def __init__(self, origin: int) -> None:
        self._origin = origin
        self._code = bytearray()
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    @property
    def here(self) -> int:
        """The address of the next instruction."""
        return self._origin + len(self._code)

    def emit(self, *instructions: bytes) -> None:
        """Append *instructions*."""
        for instruction in instructions:
            self._code += instruction

    def label(self, name: str, address: int | None = None) -> None:
        """Call the next instruction, or code elsewhere at *address*, by *name*."""
        self._labels[name] = self.here if address is None else address

    def jump(self, opcode: bytes, name: str) -> None:
        """Append a jump to the label *name*, which may come later."""
        self._code += opcode + bytes(4)
        self._jumps.append((len(self._code), name))

    def address(self, name: str) -> int:
        """Return the address of a label."""
        return self._labels[name]

    def finish(self) -> bytes:
        """Return the code, all jumps filled in."""
        for end, name in self._jumps:
            struct.pack_into("<i", self._code, end - 4, self._labels[name] - self._origin - end)
        return bytes(self._code)
