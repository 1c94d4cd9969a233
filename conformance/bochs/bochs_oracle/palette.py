"""Register values for cases: few, distinct, and made of repeats so that the goldens compress well."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

from bochs_oracle.machine import Machine
from bochs_oracle.registers import TILES, State, show

__all__ = ["canonical_bits", "registers", "tile_config"]

_X87, _SSE, _AVX, _OPMASK, _ZMM_HI256, _HI16_ZMM, _PKRU = 0, 1, 2, 5, 6, 7, 9
_CET_U, _CET_S, _XTILECFG, _XTILEDATA = 11, 12, 17, 18

_FCTRL: Final = (0x37F, 0x27F, 0x7F, 0xF7F)
_FSTAT: Final = (0x0000, 0x3800, 0x2000, 0x4700, 0x0021, 0x1800)  # exceptions in it are masked by all of the above
_MXCSR: Final = (0x1F80, 0x1FA0, 0x3F80, 0x9FC0, 0xFFBF, 0x0000)
_U_CET: Final = (0x1, 0x5, 0x3F, 0x400, 0x800, 0x0000_1234_5678_9004, 0xFFFF_8000_0000_0004)
_SSP: Final = (0x1000, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_2008, 0xFFFF_FFFF_FFFF_FFFC, 0x4)

# the 16-byte chunks of a vector register: which component has which
_CHUNKS: Final = {_SSE: (0,), _AVX: (1,), _ZMM_HI256: (2, 3)}


def canonical_bits(machine: Machine) -> int:
    """Bits of a linear address, without the sign."""
    return machine.linear_bits - 1


def registers(machine: Machine, rng: random.Random, components: Iterable[int], *, full: bool = False) -> State:
    """Return registers of which those of *components* (where the machine has them) are in use, and no others.

    With *full* every vector register of such a component is in use, otherwise one to three.
    """
    tag = rng.randrange(1, 16) << 4
    named: State = {}
    wanted = set(components)
    if _X87 in wanted:
        named |= _x87(rng, tag)
    for component in sorted(wanted & _MAKERS.keys()):
        if machine.has(component):
            named |= _MAKERS[component](rng)
    named |= _vectors(machine, rng, wanted, tag, full=full)
    if _XTILECFG in wanted and machine.has(_XTILECFG):
        named["tilecfg"] = tile_config(rng.choice((16, 16, 3)))
    if _XTILEDATA in wanted and machine.has(_XTILEDATA):
        rows = 3 if named.get("tilecfg", "").endswith("03" + "00" * 8) else 16
        named |= {name: _tile(tag, n, rows) for n, name in enumerate(TILES) if full or rng.random() < 0.4 or n == 7}
    return named


def tile_config(rows: int, palette: int = 1) -> str:
    """Return a TILECFG of eight tiles of *rows* rows of 64 bytes."""
    return (bytes([palette]) + bytes(15) + b"\x40\x00" * 8 + bytes(16) + bytes([rows]) * 8 + bytes(8)).hex()


def _tile(tag: int, number: int, rows: int) -> str:
    """Return a tile, every row of which is different."""
    return b"".join(bytes([tag | number, row + 1]) * 32 for row in range(rows)).ljust(1024, b"\0").hex()


def _x87(rng: random.Random, tag: int) -> State:
    """Return an x87 unit in use."""
    named = {
        "fctrl": show(rng.choice(_FCTRL)),
        "fstat": show(rng.choice(_FSTAT)),
        "ftag": show(rng.choice((0x00, 0xFF, 0x80, 0x55, 0x01))),
    }
    if rng.random() < 0.5:
        named |= {"fop": show(rng.randrange(0x800)), "fioff": show(0x1234_5670 | tag), "fooff": show(0x7654_3210 | tag)}
    for n in rng.sample(range(8), rng.randrange(1, 4)):
        named[f"st{n}"] = (bytes([tag | n]) * 7 + bytes([0x80 | tag, 0x00, 0x40])).hex()
    return named


def _vectors(machine: Machine, rng: random.Random, wanted: set[int], tag: int, *, full: bool) -> State:
    """Return the vector registers."""
    widest = "zmm" if machine.has(_ZMM_HI256) else "ymm" if machine.has(_AVX) else "xmm"
    chunks = {"xmm": 1, "ymm": 2, "zmm": 4}[widest]
    held: dict[int, bytearray] = {}
    for component in sorted(wanted & _CHUNKS.keys()):
        if machine.has(component) or component == _SSE:
            for number in range(16) if full else rng.sample((0, 1, 7, 8, 14, 15), rng.randrange(1, 4)):
                value = held.setdefault(number, bytearray(16 * chunks))
                for chunk in _CHUNKS[component]:
                    value[16 * chunk : 16 * chunk + 16] = bytes([tag | chunk, number]) * 8
    if _HI16_ZMM in wanted and machine.has(_HI16_ZMM):
        for number in range(16, 32) if full else rng.sample((16, 23, 31), rng.randrange(1, 4)):
            held[number] = bytearray(bytes([tag | 4, number]) * 32)
    return {f"{widest}{number}": value.hex() for number, value in sorted(held.items())}


def _opmask(rng: random.Random) -> State:
    return {f"k{n}": show(0x0101_0101_0101_0101 * (n + 1)) for n in rng.sample(range(8), 3)}


def _pkru(rng: random.Random) -> State:
    return {"pkru": show(rng.choice((0x5555_5554, 0x4, 0xFFFF_FFFF)))}


def _cet_u(rng: random.Random) -> State:
    both = {"u_cet": show(rng.choice(_U_CET)), "pl3_ssp": show(rng.choice(_SSP))}
    return _some(rng, both)


def _cet_s(rng: random.Random) -> State:
    return _some(rng, {name: show(rng.choice(_SSP)) for name in ("pl0_ssp", "pl1_ssp", "pl2_ssp")})


def _some(rng: random.Random, named: State) -> State:
    """Return one or more of *named*: a component is in use if any of its parts is."""
    keep = rng.sample(sorted(named), rng.randrange(1, len(named) + 1))
    return {name: named[name] for name in sorted(keep)}


def _mxcsr(rng: random.Random) -> State:
    return {"mxcsr": show(rng.choice(_MXCSR))}


_MAKERS: Final[dict[int, Callable[[random.Random], State]]] = {
    _SSE: _mxcsr,
    _OPMASK: _opmask,
    _PKRU: _pkru,
    _CET_U: _cet_u,
    _CET_S: _cet_s,
}
