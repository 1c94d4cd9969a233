"""The registers of the vectors format, and where a standard XSAVE64 image has them.

A state is a mapping from name to value, as in a case: hex numbers, and hex bytes for vectors, stack registers and
tiles.  It has each register under its widest name: zmm0 on a CPU with AVX-512, ymm0 with AVX, xmm0 otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Final

from bochs_oracle.errors import OracleError
from bochs_oracle.machine import Machine

__all__ = [
    "CET_MSRS",
    "TILES",
    "State",
    "changed",
    "initial",
    "load_image",
    "normalised",
    "read_image",
    "show",
    "shown",
]

State = dict[str, str]

CET_MSRS: Final = {
    "u_cet": 0x6A0,
    "s_cet": 0x6A2,
    "pl0_ssp": 0x6A4,
    "pl1_ssp": 0x6A5,
    "pl2_ssp": 0x6A6,
    "pl3_ssp": 0x6A7,
    "interrupt_ssp_table": 0x6A8,
}
"""The MSRs in the order of cet_msrs in guest.asm."""

TILES: Final = tuple(f"tmm{n}" for n in range(8))

_X87, _SSE, _AVX, _OPMASK, _ZMM_HI256, _HI16_ZMM, _PKRU, _XTILECFG = 0, 1, 2, 5, 6, 7, 9, 17
_XSTATE_BV: Final = slice(512, 520)
_INITIAL: Final = {"fctrl": 0x37F, "mxcsr": 0x1F80}
_WIDTHS: Final = {
    "xmm": (32, 0),
    "ymm": (64, 1 << _SSE | 1 << _AVX),
    "zmm": (128, 1 << _SSE | 1 << _AVX | 1 << _ZMM_HI256),
}
"""Hex digits of a vector register by name, and the components that must be enabled for 0 to 15 of it."""
_SELECTORS: Final = {"fiseg": slice(12, 14), "foseg": slice(20, 22)}


@dataclasses.dataclass(frozen=True)
class _Piece:
    """Bytes of a register in the image: those from *start* of the register on, *length* of them, at *at*."""

    component: int
    at: int
    start: int
    length: int


@dataclasses.dataclass(frozen=True)
class _Register:
    """A register in the image; *number* if its value is a number, not bytes."""

    number: bool
    pieces: tuple[_Piece, ...]

    @property
    def length(self) -> int:
        return max(piece.start + piece.length for piece in self.pieces)


def show(value: int) -> str:
    """Return a number as the vectors format has it."""
    return f"{value:#x}"


@functools.lru_cache
def _x87_and_sse() -> dict[str, _Register]:
    """The registers that every CPU has, without XMM."""
    places = {"fctrl": (0, 2), "fstat": (2, 2), "ftag": (4, 1), "fop": (6, 2), "fioff": (8, 8), "fooff": (16, 8)}
    found = {name: _Register(True, (_Piece(_X87, at, 0, length),)) for name, (at, length) in places.items()}
    found |= {f"st{n}": _Register(False, (_Piece(_X87, 32 + 16 * n, 0, 10),)) for n in range(8)}
    found["mxcsr"] = _Register(True, (_Piece(_SSE, 24, 0, 4),))
    return found


def _vector(machine: Machine, number: int) -> tuple[_Piece, ...]:
    """The pieces of a vector register, at its full width."""
    if number >= 16:
        return (_Piece(_HI16_ZMM, machine.offset(_HI16_ZMM) + 64 * (number - 16), 0, 64),)
    pieces = [_Piece(_SSE, 160 + 16 * number, 0, 16)]
    if machine.has(_AVX):
        pieces.append(_Piece(_AVX, machine.offset(_AVX) + 16 * number, 16, 16))
    if machine.has(_ZMM_HI256):
        pieces.append(_Piece(_ZMM_HI256, machine.offset(_ZMM_HI256) + 32 * number, 32, 32))
    return tuple(pieces)


def _registers(machine: Machine) -> dict[str, _Register]:
    """The registers that an image of *machine* holds, by their widest names."""
    found = dict(_x87_and_sse())
    widest = "zmm" if machine.has(_ZMM_HI256) else "ymm" if machine.has(_AVX) else "xmm"
    for number in range(32 if machine.has(_HI16_ZMM) else 16):
        found[f"{widest}{number}"] = _Register(False, _vector(machine, number))
    if machine.has(_OPMASK):
        at = machine.offset(_OPMASK)
        found |= {f"k{n}": _Register(True, (_Piece(_OPMASK, at + 8 * n, 0, 8),)) for n in range(8)}
    if machine.has(_PKRU):
        found["pkru"] = _Register(True, (_Piece(_PKRU, machine.offset(_PKRU), 0, 4),))
    if machine.has(_XTILECFG):
        found["tilecfg"] = _Register(False, (_Piece(_XTILECFG, machine.offset(_XTILECFG), 0, 64),))
    return found


def initial(machine: Machine) -> State:
    """Return every register of *machine* with its initial value."""
    state: State = {}
    for name, register in _registers(machine).items():
        state[name] = show(_INITIAL.get(name, 0)) if register.number else bytes(register.length).hex()
    state |= dict.fromkeys(_SELECTORS, "0x0")
    if machine.has_amx:
        state |= dict.fromkeys(TILES, bytes(1024).hex())
    if machine.has_cet:
        state |= dict.fromkeys(CET_MSRS, "0x0")
    return state


def normalised(machine: Machine, named: Mapping[str, str]) -> State:
    """Return every register, with the values *named* in a case.

    Raises:
        OracleError: a name that the machine does not have.
    """
    state = initial(machine)
    for name in sorted(named, key=lambda name: name[:3] not in {"xmm", "ymm"}):  # narrow names first
        value = named[name].lower()
        if name in state:
            state[name] = show(int(value, 0)) if state[name].startswith("0x") else value
            continue
        wider = next((prefix + name[3:] for prefix in ("ymm", "zmm") if prefix + name[3:] in state), None)
        if name[:3] not in {"xmm", "ymm"} or wider is None:
            raise OracleError(f"{machine.model} has no register {name}")
        state[wider] = value + state[wider][len(value) :]
    return state


def load_image(machine: Machine, state: State) -> tuple[bytes, bool]:
    """Return a standard image of *state*, and whether it is one for XRSTOR, not for XRSTOR64.

    Its XSTATE_BV has the components that are not in their initial state; tiles and MSRs are no part of it.

    Raises:
        OracleError: 64-bit pointers and selectors together: no one image holds both.
    """
    image = bytearray(machine.load_size)
    fresh = initial(machine)
    components = 0
    for name, register in _registers(machine).items():
        value, at_first = _bytes_of(state[name], register), _bytes_of(fresh[name], register)
        for piece in register.pieces:
            part = slice(piece.start, piece.start + piece.length)
            image[piece.at : piece.at + piece.length] = value[part]
            if value[part] != at_first[part]:
                components |= 1 << piece.component
    selectors = any(int(state[name], 0) for name in _SELECTORS)
    if selectors:
        if int(state["fioff"], 0) >> 32 or int(state["fooff"], 0) >> 32:
            raise OracleError("a case may name fiseg or foseg only with fioff and fooff below 2**32")
        for name, place in _SELECTORS.items():
            image[place] = int(state[name], 0).to_bytes(2, "little")
        components |= 1 << _X87
    image[_XSTATE_BV] = components.to_bytes(8, "little")
    return bytes(image), selectors


def read_image(machine: Machine, image: bytes, legacy: bytes) -> State:
    """Return the registers in a standard XSAVE64 *image*, selectors from bytes 8-23 of an FXSAVE image."""
    state: State = {}
    for name, register in _registers(machine).items():
        value = bytearray(register.length)
        for piece in register.pieces:
            value[piece.start : piece.start + piece.length] = image[piece.at : piece.at + piece.length]
        state[name] = show(int.from_bytes(value, "little")) if register.number else value.hex()
    for name, place in _SELECTORS.items():
        state[name] = show(int.from_bytes(legacy[place.start - 8 : place.stop - 8], "little"))
    return state


def changed(before: State, after: State) -> dict[str, tuple[str, str]]:
    """Return the registers that differ, with their values before and after."""
    return {name: (before[name], value) for name, value in after.items() if value != before[name]}


def shown(differing: Mapping[str, tuple[str, str]], enabled: int) -> State:
    """Return the new values of the registers in *differing*, a vector register under each of its names.

    These are xmm3, ymm3 and zmm3, as far as the bytes under that name have changed, and as far as *enabled* (XCR0) has
    the components that the name stands for.  The first and the widest change are never left out: xmm0 to xmm15 and
    zmm16 to zmm31 are named whatever XCR0 says, and so are wider names if nothing narrower shows the change.
    """
    found: State = {}
    for name, (before, after) in differing.items():
        number = int(name[3:]) if name[:3] in _WIDTHS else None
        if number is None:
            found[name] = after
            continue
        for prefix, (digits, components) in _WIDTHS.items():
            needed = 1 << _HI16_ZMM if number >= 16 else components
            always = prefix == ("zmm" if number >= 16 else "xmm")
            hidden = digits == len(after) and before[: digits // 2] == after[: digits // 2]
            if (
                before[:digits] != after[:digits]
                and digits <= len(after)
                and (always or not needed & ~enabled or hidden)
            ):
                found[f"{prefix}{number}"] = after[:digits]
    return found


def _bytes_of(value: str, register: _Register) -> bytes:
    """Return the bytes of a register's *value*."""
    if register.number:
        return int(value, 0).to_bytes(register.length, "little")
    held = bytes.fromhex(value)
    if len(held) != register.length:
        raise OracleError(f"{value}: {len(held)} bytes for a register of {register.length}")
    return held
