"""Memory of a case: the area before a save, the image before a restore."""

from __future__ import annotations

from bochs_oracle.machine import HEADER_END, Machine
from bochs_oracle.registers import TILES, State, load_image

__all__ = ["COMPACTED", "compacted_image", "fxsave_image", "header", "standard_image"]

COMPACTED = 1 << 63
"""XCOMP_BV[63]."""

_MXCSR_MASK = bytes.fromhex("ffff0000")
_CET_U, _CET_S, _XTILEDATA = 11, 12, 18
_SUPERVISOR_PARTS = {_CET_U: ("u_cet", "pl3_ssp"), _CET_S: ("pl0_ssp", "pl1_ssp", "pl2_ssp")}


def header(xstate_bv: int, xcomp_bv: int) -> bytes:
    """Return the 64 bytes of a header."""
    return xstate_bv.to_bytes(8, "little") + xcomp_bv.to_bytes(8, "little") + bytes(48)


def standard_image(machine: Machine, state: State, xstate_bv: int, mask: int) -> bytes:
    """Return a standard image of *state*, as long as the components of *mask* need, holding data for all of them."""
    held = bytearray(_standard(machine, state).ljust(machine.standard_size(machine.user), b"\0"))
    held[512:576] = header(xstate_bv, 0)
    if machine.has(_XTILEDATA):
        place = machine.offset(_XTILEDATA)
        held[place : place + machine.size(_XTILEDATA)] = _component(machine, state, _XTILEDATA)
    return bytes(held[: machine.standard_size(mask)])


def compacted_image(machine: Machine, state: State, xstate_bv: int, mask: int) -> bytes:
    """Return a compacted image of *state* for the components of *mask*, holding data for all of them.

    The data of a component outside *xstate_bv* is there to be ignored.
    """
    places, size = machine.compacted(mask)
    held = bytearray(size)
    held[:512] = _standard(machine, state)[:512]
    held[512:576] = header(xstate_bv, mask | COMPACTED)
    for component, place in places.items():
        part = _component(machine, state, component)
        held[place : place + len(part)] = part
    return bytes(held)


def fxsave_image(machine: Machine, state: State) -> bytes:
    """Return an FXSAVE image."""
    return _standard(machine, state)[:512]


def _standard(machine: Machine, state: State) -> bytes:
    """Return a standard image without tiles, its header left as it comes."""
    held = bytearray(load_image(machine, state)[0])
    held[28:32] = _MXCSR_MASK
    held[HEADER_END - 64 : HEADER_END] = bytes(64)
    return bytes(held)


def _component(machine: Machine, state: State, component: int) -> bytes:
    """Return the data of a component from 2 on."""
    if component in _SUPERVISOR_PARTS:
        return b"".join(int(state[name], 0).to_bytes(8, "little") for name in _SUPERVISOR_PARTS[component])
    if component == _XTILEDATA:
        return b"".join(bytes.fromhex(state[name]) for name in TILES)
    if machine.supervisor >> component & 1:
        return bytes(machine.size(component))
    at = machine.offset(component)
    return _standard(machine, state)[at : at + machine.size(component)]
