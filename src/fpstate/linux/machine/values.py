"""Values for registers that say who wrote them and when: every write uses values that were never written before.

A value is made of the number of the write, so that any bytes of a component, found in a register or in a buffer, lead
back to it: `Ledger.origin`.  What a register does not accept is left at its initial value: of x87 the control words,
of TILECFG the widths, of LBR the depth.  MXCSR is never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fpstate import registers as regs
from fpstate.isa import Capabilities, Processor
from fpstate.isa.processor import X87_INIT
from fpstate.xfeatures import LBR, PKRU, XTILE, bits

__all__ = ["Ledger", "Origin", "Owner", "component", "put"]

PASID: Final = 10
CET_U: Final = 11
XTILECFG: Final = (XTILE & -XTILE).bit_length() - 1
HDC: Final = 13
PT: Final = 8
PKRU_BYTES: Final = 4
_X87: Final = (slice(24), slice(32, 160))
_XMM: Final = slice(160, 416)
_ALL: Final = (1 << 64) - 1

Encoder = Callable[[int], bytes]
Decoder = Callable[[bytes], int]


@dataclass(slots=True, eq=False)
class Owner:
    """A context that writes values: a task's program, a guest, the kernel.

    Attributes:
        name: for people.
        newest: component to the bytes that it must see.
        disowned: components in which it must put up with any value of its own.
        gone: it is no more; its values are nobody's.
    """

    name: str
    newest: dict[int, bytes] = field(default_factory=dict)
    disowned: int = 0
    gone: bool = False


class Origin(NamedTuple):
    """Where bytes come from.

    Attributes:
        kind: ``initial``, ``default`` (PKRU as programs start with it), ``written``, or ``torn``: of no one write.
        owner: who wrote them; None unless *kind* is ``written``.
        number: the number of the write; 0 likewise.
    """

    kind: str
    owner: Owner | None = None
    number: int = 0


_INITIAL: Final = Origin("initial")
_DEFAULT: Final = Origin("default")
_TORN: Final = Origin("torn")


def component(p: Processor, bit: int) -> bytes | bytearray:
    """Return the bytes of component *bit* in the registers; of the legacy region those that are its own."""
    if bit == 0:
        return p.legacy[_X87[0]] + p.legacy[_X87[1]]
    if bit == 1:
        return p.legacy[_XMM]
    section = p.sections[bit]
    return section[:PKRU_BYTES] if bit == PKRU else section


def put(p: Processor, bit: int, data: bytes) -> None:
    """Put the bytes of component *bit* into the registers; `Processor.touch` is the caller's."""
    if bit == 0:
        p.legacy[_X87[0]], p.legacy[_X87[1]] = data[:24], data[24:]
    elif bit == 1:
        p.legacy[_XMM] = data
    else:
        p.sections[bit][: len(data)] = data


class Ledger:
    """Every value ever written, by the number of its write.

    Attributes:
        caps: the CPU.
        initial: component to its bytes in the initial configuration.
        default_pkru: PKRU as the kernel starts programs with it.
    """

    def __init__(self, caps: Capabilities, default_pkru: bytes) -> None:
        self.caps = caps
        self.default_pkru = default_pkru
        p = Processor(caps)
        self.initial = {bit: bytes(component(p, bit)) for bit in p.sections}
        self._coders = {bit: coder for bit in self.initial if (coder := _coder(bit, caps)) is not None}
        self._writers: list[Owner] = [Owner("nobody")]
        self._masks = [0]
        self._bits: dict[int, tuple[int, ...]] = {}

    def bits(self, mask: int) -> tuple[int, ...]:
        """Return the components of *mask* that can be written."""
        found = self._bits.get(mask)
        if found is None:
            found = self._bits[mask] = tuple(bit for bit in bits(mask & _ALL) if bit in self._coders)
        return found

    def fresh(self, owner: Owner, mask: int) -> int:
        """Return the number of a new write of *mask* by *owner*."""
        self._writers.append(owner)
        self._masks.append(mask)
        return len(self._writers) - 1

    def value(self, bit: int, number: int) -> bytes:
        """Return what write *number* puts into component *bit*."""
        return self._coders[bit][0](number)

    def origin(self, bit: int, data: bytes | bytearray) -> Origin:
        """Return where the bytes *data* of component *bit* come from."""
        if data == self.initial[bit]:
            return _INITIAL
        if bit == PKRU and data == self.default_pkru:
            return _DEFAULT
        encode, decode = self._coders[bit]
        number = decode(bytes(data))
        written = 0 < number < len(self._writers) and self._masks[number] >> bit & 1
        if written and encode(number) == data:
            return Origin("written", self._writers[number], number)
        return _TORN


def _coder(bit: int, caps: Capabilities) -> tuple[Encoder, Decoder] | None:
    """Return how the number of a write becomes the bytes of component *bit* and back; None if they have no room."""
    special = _SPECIAL.get(bit)
    if special is not None:
        return special(caps)
    size = caps.sizes[bit]
    if bit in {PT, HDC}:
        return None
    if caps.supervisor >> bit & 1:
        return _words(size, 12, 0)
    claimed = size - sum(end - start for start, end in caps.padding.get(bit, ()))
    return _words(claimed, 0, (bit + 1) << 56, size - claimed)


def _words(size: int, shift: int, tag: int, padding: int = 0) -> tuple[Encoder, Decoder]:
    """Fill *size* bytes with one word; shifted by 12 it is a canonical, aligned address."""
    words, rest = size // 8, bytes(size % 8 + padding)

    def encode(number: int) -> bytes:
        return (number << shift | tag).to_bytes(8, "little") * words + rest

    return encode, lambda data: (int.from_bytes(data[:8], "little") & ~tag) >> shift


def _x87(_: Capabilities) -> tuple[Encoder, Decoder]:
    head = X87_INIT[:4] + b"\xff" + X87_INIT[5:]  # no register is empty
    tail = b"\xff\x3f" + bytes(6)

    def encode(number: int) -> bytes:
        return head + (((1 << 63 | number).to_bytes(8, "little") + tail) * 8)

    return encode, lambda data: int.from_bytes(data[24:32], "little") & ~(1 << 63)


def _sse(_: Capabilities) -> tuple[Encoder, Decoder]:
    return _words(256, 0, 2 << 56)


def _pkru(_: Capabilities) -> tuple[Encoder, Decoder]:
    """Key 0 stays open."""
    return lambda number: (number << 2 & 0xFFFFFFFF).to_bytes(4, "little"), lambda data: _int(data) >> 2


def _pasid(_: Capabilities) -> tuple[Encoder, Decoder]:
    valid = 1 << 31
    return lambda number: (valid | number & 0xFFFFF).to_bytes(8, "little"), lambda data: _int(data) & 0xFFFFF


def _cet_u(caps: Capabilities) -> tuple[Encoder, Decoder]:
    u_cet = int(caps.has("SHSTK")).to_bytes(8, "little")
    return lambda number: u_cet + (number << 12).to_bytes(8, "little"), lambda data: _int(data[8:]) >> 12


def _tilecfg(_: Capabilities) -> tuple[Encoder, Decoder]:
    """Palette 1; eight tiles, four bits of the number in the rows of each."""
    head = b"\x01" + bytes(15) + b"\x40\x00" * 8 + bytes(16)

    def encode(number: int) -> bytes:
        return head + bytes(1 + (number >> 4 * tile & 15) for tile in range(8)) + bytes(8)

    return encode, lambda data: sum(((data[48 + tile] - 1) & 15) << 4 * tile for tile in range(8))


def _lbr(caps: Capabilities) -> tuple[Encoder, Decoder]:
    size = caps.sizes[LBR]
    head = (1).to_bytes(8, "little") + regs.initial(LBR, size)[8:16]

    def encode(number: int) -> bytes:
        return head + (number << 12).to_bytes(8, "little") * ((size - 16) // 8)

    return encode, lambda data: _int(data[16:24]) >> 12


def _int(data: bytes) -> int:
    return int.from_bytes(data, "little")


_SPECIAL: Final[dict[int, Callable[[Capabilities], tuple[Encoder, Decoder]]]] = {
    0: _x87,
    1: _sse,
    PKRU: _pkru,
    PASID: _pasid,
    CET_U: _cet_u,
    LBR: _lbr,
    XTILECFG: _tilecfg,
}
