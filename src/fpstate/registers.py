"""The bytes inside each state component: which register lies where, and what it is initially.

One declarative table, `FAMILIES`.  A register is one or more parts, lowest bytes first: ``ymm3`` is XMM3, in SSE, and
YMM3_H, in AVX.  Offsets count from the start of the component; those of x87 and SSE, whose component is the legacy
region, from the start of the image.

Sources: Intel SDM volume 1, 13.5 (places) and 13.6 (initial configurations), volume 4 (MSR numbers); AMD APM volume 2,
11.5; Linux ``struct apx_state`` for r16 to r31.  Names are gdb's, and the SDM's in lower case for MSRs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from fpstate.errors import UsageError

__all__ = [
    "FAMILIES",
    "MXCSR_INIT",
    "MXCSR_MASK_DEFAULT",
    "REGISTERS",
    "Family",
    "Key",
    "Part",
    "Register",
    "Sections",
    "abridged_tags",
    "by_msr",
    "find",
    "full_tags",
    "initial",
    "of_component",
    "pkru_keys",
    "raw",
    "read",
    "tile",
    "unclaimed",
    "widest",
    "write",
]

MXCSR_INIT: Final = 0x1F80
"""MXCSR with every exception masked: its value at RESET, and what restoring an absent SSE component gives it."""

MXCSR_MASK_DEFAULT: Final = 0xFFBF
"""The bits that MXCSR has where MXCSR_MASK is 0: all of the lower sixteen but DAZ (SDM volume 1, 11.6.6)."""

Sections = Mapping[int, bytearray] | Mapping[int, bytes | bytearray | memoryview]
"""Component number to its bytes; x87 and SSE share the legacy region."""


class Part(NamedTuple):
    """A run of bytes of one component.

    Attributes:
        bit: the component.
        offset: bytes from the start of the component; of the image for x87 and SSE.
        size: bytes.
        stride: bytes from this part of one register of a family to that of the next.
    """

    bit: int
    offset: int
    size: int
    stride: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Registers that differ only in their number, or a single one.

    Attributes:
        name: with ``#`` where the number goes.
        parts: where its bytes lie, lowest first.
        count, first: how many, and the number of the first.
        number: True if the value is an integer (a control register, a mask, an MSR), False if it is a row of bytes.
        initial: its value in the component's initial configuration.
        view: True if other registers of the table hold the same bytes.
        long_mode: numbers from this one on exist only in 64-bit mode; None if all do.
        msr, msr_stride: the number of the MSR, of that of the first, and the step to the next.
    """

    name: str
    parts: tuple[Part, ...]
    count: int = 1
    first: int = 0
    number: bool = False
    initial: int = 0
    view: bool = False
    long_mode: int | None = None
    msr: int | None = None
    msr_stride: int = 1

    def registers(self) -> Iterator[Register]:
        """Yield the registers, ascending."""
        for i in range(self.count):
            yield Register(
                name=self.name.replace("#", str(self.first + i)),
                parts=tuple(Part(p.bit, p.offset + i * p.stride, p.size) for p in self.parts),
                number=self.number,
                initial=self.initial,
                view=self.view,
                long_mode=self.long_mode is not None and self.first + i >= self.long_mode,
                msr=None if self.msr is None else self.msr + i * self.msr_stride,
            )


class Register(NamedTuple):
    """One register; see `Family` for its attributes."""

    name: str
    parts: tuple[Part, ...]
    number: bool
    initial: int
    view: bool
    long_mode: bool
    msr: int | None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.size for part in self.parts)

    @property
    def components(self) -> int:
        """The mask of the components that it lies in."""
        mask = 0
        for part in self.parts:
            mask |= 1 << part.bit
        return mask

    def format(self, data: bytes) -> str:
        """Return its value *data* as text: a number as hex, a row of bytes as hex digits in memory order."""
        return f"{int.from_bytes(data, 'little'):#x}" if self.number else data.hex()

    def parse(self, text: str) -> bytes:
        """Read what `format` writes; a number may come without ``0x``, spaces between bytes are skipped.

        Raises:
            UsageError: *text* is no hex, or not of the register's size.
        """
        digits = "".join(text.split())
        value: bytes | None
        try:
            if self.number or digits[:2].lower() == "0x":
                value = int(digits, 16).to_bytes(self.size, "little")
            else:
                value = bytes.fromhex(digits)
        except (ValueError, OverflowError):
            value = None
        if value is None or len(value) != self.size or not digits.isascii() or not digits.isalnum():
            number = f"a hex number of at most {self.size} bytes"
            form = number if self.number else f"{self.size} bytes in hex, in memory order"
            shown = text if len(text) <= 40 else f"{text[:40]}..."
            raise UsageError(f"{self.name} must be {form}, not {shown!r}")
        return value


_XMM: Final = Part(1, 160, 16, 16)
_YMM_H: Final = Part(2, 0, 16, 16)
_ZMM_H: Final = Part(6, 0, 32, 32)


def _number(name: str, bit: int, offset: int, size: int, *, initial: int = 0, view: bool = False) -> Family:
    return Family(name=name, parts=(Part(bit, offset, size),), number=True, initial=initial, view=view)


def _msr(name: str, bit: int, offset: int, msr: int, *, initial: int = 0) -> Family:
    return Family(name=name, parts=(Part(bit, offset, 8),), number=True, initial=initial, msr=msr)


def _lbr(name: str, offset: int, msr: int) -> Family:
    return Family(name=name, parts=(Part(15, offset, 8, 24),), count=32, number=True, msr=msr)


FAMILIES: Final[tuple[Family, ...]] = (
    # x87 (SDM 10.5.1, 13.5.1).  fioff and fooff are FIP and FDP as REX.W = 1 writes them; the other form is a view.
    _number("fctrl", 0, 0, 2, initial=0x37F),
    _number("fstat", 0, 2, 2),
    _number("ftag", 0, 4, 1),
    _number("fop", 0, 6, 2),
    _number("fioff", 0, 8, 8),
    _number("fooff", 0, 16, 8),
    _number("fiseg", 0, 12, 2, view=True),
    _number("foseg", 0, 20, 2, view=True),
    Family(name="st#", count=8, parts=(Part(0, 32, 10, 16),)),
    # SSE, AVX, AVX-512 (13.5.2 to 13.5.5)
    _number("mxcsr", 1, 24, 4, initial=MXCSR_INIT),
    Family(name="xmm#", count=16, parts=(_XMM,), long_mode=8),
    Family(name="ymm#h", count=16, parts=(_YMM_H,), long_mode=8),
    Family(name="ymm#", count=16, parts=(_XMM, _YMM_H), view=True, long_mode=8),
    Family(name="k#", count=8, parts=(Part(5, 0, 8, 8),), number=True),
    Family(name="zmm#h", count=16, parts=(_ZMM_H,), long_mode=8),
    Family(name="zmm#", count=16, parts=(_XMM, _YMM_H, _ZMM_H), view=True, long_mode=8),
    Family(name="zmm#", count=16, first=16, parts=(Part(7, 0, 64, 64),), long_mode=16),
    Family(name="ymm#", count=16, first=16, parts=(Part(7, 0, 32, 64),), view=True, long_mode=16),
    Family(name="xmm#", count=16, first=16, parts=(Part(7, 0, 16, 64),), view=True, long_mode=16),
    # MPX (13.5.4)
    Family(name="bnd#", count=4, parts=(Part(3, 0, 16, 16),)),
    _number("bndcfgu", 4, 0, 8),
    _number("bndstatus", 4, 8, 8),
    # Intel PT (13.5.6)
    _msr("rtit_ctl", 8, 0, 0x570),
    _msr("rtit_output_base", 8, 8, 0x560),
    _msr("rtit_output_mask_ptrs", 8, 16, 0x561),
    _msr("rtit_status", 8, 24, 0x571),
    _msr("rtit_cr3_match", 8, 32, 0x572),
    _msr("rtit_addr0_a", 8, 40, 0x580),
    _msr("rtit_addr0_b", 8, 48, 0x581),
    _msr("rtit_addr1_a", 8, 56, 0x582),
    _msr("rtit_addr1_b", 8, 64, 0x583),
    # PKRU (13.5.7), PASID (13.5.8), CET (13.5.9), HDC (13.5.10)
    _number("pkru", 9, 0, 4),
    _msr("pasid", 10, 0, 0xD93),
    _msr("u_cet", 11, 0, 0x6A0),
    _msr("pl3_ssp", 11, 8, 0x6A7),
    _msr("pl0_ssp", 12, 0, 0x6A4),
    _msr("pl1_ssp", 12, 8, 0x6A5),
    _msr("pl2_ssp", 12, 16, 0x6A6),
    _msr("pm_ctl1", 13, 0, 0xDB1, initial=1),
    # User interrupts (13.5.11); bit 63 of uintr_misc is UIF
    _msr("uintr_handler", 14, 0, 0x986),
    _msr("uintr_stackadjust", 14, 8, 0x987),
    _msr("uintr_misc", 14, 16, 0x988),
    _msr("uintr_pd", 14, 24, 0x989),
    _msr("uintr_rr", 14, 32, 0x985),
    _msr("uintr_tt", 14, 40, 0x98A),
    # LBR (13.5.12); HWP (13.5.13)
    _msr("lbr_ctl", 15, 0, 0x14CE),
    _msr("lbr_depth", 15, 8, 0x14CF, initial=32),  # no initial configuration: XRSTORS leaves it
    _msr("ler_from_ip", 15, 16, 0x1DD),
    _msr("ler_to_ip", 15, 24, 0x1DE),
    _msr("ler_info", 15, 32, 0x1E0),
    _lbr("lbr_#_from_ip", 40, 0x1500),
    _lbr("lbr_#_to_ip", 48, 0x1600),
    _lbr("lbr_#_info", 56, 0x1200),
    _msr("hwp_request", 16, 0, 0x774, initial=0x8000FF01),
    # AMX (13.5.14; volume 2, LDTILECFG), APX
    Family(name="tilecfg", parts=(Part(17, 0, 64),)),
    Family(name="tmm#", count=8, parts=(Part(18, 0, 1024, 1024),)),
    Family(name="r#", count=16, first=16, parts=(Part(19, 0, 8, 8),), number=True, long_mode=16),
)
"""Every register of components 0 to 19.  A byte that no register which is not a view claims is reserved."""

REGISTERS: Final[Mapping[str, Register]] = {
    register.name: register for family in FAMILIES for register in family.registers()
}
"""Every register by name."""


def find(name: str, sizes: Mapping[int, int] | None = None) -> Register:
    """Return the register called *name*.

    Args:
        name: of the table; or ``bitN`` for a component that the table does not divide into registers.
        sizes: component to its bytes on the CPU that is meant.

    Raises:
        UsageError: there is none; the message suggests near misses.
    """
    register = REGISTERS.get(name.lower())
    if register is None and name[:3].lower() == "bit" and name[3:].isascii() and name[3:].isdecimal():
        bit = int(name[3:6])
        if sizes is not None and bit in sizes and not of_component(bit):
            return raw(bit, sizes[bit])
    if register is None:
        import difflib  # noqa: PLC0415  only a refusal needs it

        near = difflib.get_close_matches(name.lower(), REGISTERS, n=3)
        shown = name if len(name) <= 40 else f"{name[:40]}..."
        cure = f"did you mean {', '.join(near)}?" if near else "registers are st0, xmm3, zmm17, k1, mxcsr, pl0_ssp, ..."
        raise UsageError(f"there is no register {shown!r}", cure=cure)
    return register


def raw(bit: int, size: int) -> Register:
    """Return component *bit*, *size* bytes, as one register called ``bitN``: for one that the table does not divide."""
    part = Part(bit, 0, size)
    return Register(name=f"bit{bit}", parts=(part,), number=False, initial=0, view=False, long_mode=False, msr=None)


@cache
def by_msr(number: int) -> Register | None:
    """Return the register whose MSR has *number*, or None."""
    return next((register for register in REGISTERS.values() if register.msr == number), None)


@cache
def of_component(bit: int) -> tuple[Register, ...]:
    """Return the registers that lie in component *bit*, without the views, in the order of the table."""
    return tuple(r for r in REGISTERS.values() if not r.view and r.parts[0].bit == bit)


@cache
def unclaimed(bit: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return the runs (start, end) of the *size* bytes of component *bit* in which no register lies."""
    spans = sorted((r.parts[0].offset, r.parts[0].offset + r.parts[0].size) for r in of_component(bit))
    edges = [0, *(edge for span in spans for edge in span), size]
    return tuple((start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end)


@cache
def widest(components: int) -> tuple[Register, ...]:
    """Return the registers in *components*, each byte once: zmm3 for xmm3, ymm3h and zmm3h if all three are there.

    The selectors of the x87 pointers are left out: whether an image has them it does not tell.
    """
    there = [r for r in REGISTERS.values() if not r.components & ~components and r.name not in {"fiseg", "foseg"}]
    covered: set[tuple[int, int]] = set()
    chosen = set()
    for register in sorted(there, key=lambda r: -r.size):
        parts = {(part.bit, part.offset) for part in register.parts}
        if not parts & covered:
            covered |= parts
            chosen.add(register.name)
    return tuple(register for register in there if register.name in chosen)


def read(register: Register, sections: Sections) -> bytes:
    """Return the bytes of *register*; a component that *sections* has not, or that ends early, reads as zeros."""
    parts = (bytes(sections.get(p.bit, b"")[p.offset : p.offset + p.size]).ljust(p.size, b"\0") for p in register.parts)
    return b"".join(parts)


def write(register: Register, sections: Mapping[int, bytearray], value: bytes) -> None:
    """Put *value* into the bytes of *register*.

    Raises:
        UsageError: *sections* has not all of the components that it lies in, or one of them ends before it.
    """
    start = 0
    for part in register.parts:
        section = sections.get(part.bit)
        if section is None or len(section) < part.offset + part.size:
            raise UsageError(f"{register.name} lies in component {part.bit}, which is not there")
        section[part.offset : part.offset + part.size] = value[start : start + part.size]
        start += part.size


@cache
def initial(bit: int, size: int) -> bytes:
    """Return the *size* bytes of component *bit* in its initial configuration (SDM 13.6).

    For x87 and SSE, and only those, *size* counts from the start of the image; MXCSR is left 0 in that of x87.
    """
    data = bytearray(size)
    for register in of_component(bit):
        if register.initial:
            part = register.parts[0]
            data[part.offset : part.offset + part.size] = register.initial.to_bytes(part.size, "little")
    return bytes(data)


def tile(data: bytes | bytearray | memoryview, number: int) -> list[bytes]:
    """Return the 16 rows, 64 bytes each, of tile *number* out of the bytes of XTILEDATA (SDM 13.5.14)."""
    return [bytes(data[1024 * number + 64 * row : 1024 * number + 64 * row + 64]) for row in range(16)]


class Key(NamedTuple):
    """The rights of one protection key.

    Attributes:
        number: 0 to 15.
        access_disable, write_disable: AD and WD.
    """

    number: int
    access_disable: bool
    write_disable: bool


def pkru_keys(pkru: int) -> tuple[Key, ...]:
    """Return what PKRU says of the 16 protection keys (SDM volume 3, 4.6.2: two bits a key)."""
    return tuple(Key(i, bool(pkru >> 2 * i & 1), bool(pkru >> (2 * i + 1) & 1)) for i in range(16))


_VALID, _ZERO, _SPECIAL, _EMPTY = range(4)


def abridged_tags(full: int) -> int:
    """Return the abridged tag byte of the full x87 tag word: bit *j* is 1 if physical register *j* is not empty."""
    return sum(1 << j for j in range(8) if full >> 2 * j & 3 != _EMPTY)


def full_tags(abridged: int, fstat: int, stack: tuple[bytes, ...]) -> int:
    """Return the full x87 tag word (SDM volume 1, 8.1.7; volume 2, FXSAVE, "Recreating FSAVE format").

    Args:
        abridged: the tag byte of an image, by physical register.
        fstat: FSW, for TOP.
        stack: the 10 bytes of each of ST0 to ST7, by place on the stack.
    """
    top = fstat >> 11 & 7
    full = 0
    for j in range(8):
        tag = _tag(stack[(j - top) % 8]) if abridged >> j & 1 else _EMPTY
        full |= tag << 2 * j
    return full


def _tag(value: bytes) -> int:
    exponent = int.from_bytes(value[8:10], "little") & 0x7FFF
    significand = int.from_bytes(value[:8], "little")
    if exponent == 0 and significand == 0:
        return _ZERO
    if exponent in {0, 0x7FFF} or not significand >> 63:
        return _SPECIAL
    return _VALID
