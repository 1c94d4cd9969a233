"""One register of a decoded thread in words: lanes, a tile as a matrix, PKRU as a table, CET's bits by name."""

from __future__ import annotations

from collections.abc import Mapping

from fpstate import registers as regs
from fpstate.registers import Register
from fpstate.report import registers_view as view
from fpstate.report.show import lines
from fpstate.sources.placement import Placed
from fpstate.xfeatures import CET, PKRU, XTILE, bits

__all__ = ["described", "described_values", "find", "lanes"]


def find(placed: Placed, name: str) -> Register | None:
    """Return the register *name*; None if the thread has none.

    Raises:
        UsageError: there is no such register on any CPU.
    """
    register = regs.find(name, placed.layout.caps.sizes)
    return register if placed.image is not None and placed.exists(register) else None


def described(placed: Placed, name: str, kind: str | None = None) -> str:
    """Return a register, or a value kept outside the image, as lines of text.

    Args:
        placed: whose.
        name: a register's, or a key of ``thread.values``.
        kind: of `fpstate.report.registers_view.TYPES`; None for what suits the register.

    Raises:
        UsageError: there is no such register, or *kind* does not fit its size.
    """
    outside = placed.thread.values
    if name in outside:
        return described_values({name: outside[name]})
    register = find(placed, name)
    if register is None:
        return f"{name:<9} {_why_not(placed, name)}"
    return _register(placed, register, kind)


def lanes(placed: Placed, register: Register, kind: str) -> list[str] | list[list[str]]:
    """Return a register's lanes, lane 0 first; of a tile its rows, as many and as long as TILECFG says.

    Raises:
        UsageError: there is no such *kind*, or it does not fit the register's size.
    """
    if not register.name.startswith("tmm"):
        return view.named_lanes(register.name, placed.value(register), kind)
    if XTILE & ~placed.has:
        return []
    return view.tile_matrix(*_tile_parts(placed, register.name), kind)


def _tile_parts(placed: Placed, name: str) -> tuple[view.TileConfig, bytes, int]:
    """Return TILECFG, the bytes of all tiles and the number of tile *name*."""
    config = view.tile_config(placed.value(regs.find("tilecfg")))
    data = b"".join(placed.value(regs.find(f"tmm{i}")) for i in range(8))
    return config, data, int(name[3:])


def _register(placed: Placed, register: Register, kind: str | None) -> str:
    data = placed.value(register)
    if register.name.startswith("tmm"):
        return _tile(placed, register.name, kind)
    if kind is not None:
        return view.lanes_text(register, data, kind)
    if register.components == 1 << PKRU:
        return view.pkru_text(int.from_bytes(data, "little"))
    if not register.components & ~CET:
        return view.cet_text({register.name: int.from_bytes(data, "little")})
    return lines(register.name, register.format(data))


def described_values(values: Mapping[str, int]) -> str:
    """Return what is kept outside an image, CET's registers in words."""
    cet = {"s_cet", "ssp", *(register.name for bit in bits(CET) for register in regs.of_component(bit))}
    width = max([9, *map(len, values)])
    plain = [f"{name:<{width}} {value:#x}" for name, value in values.items() if name not in cet]
    words = view.cet_text({name: value for name, value in values.items() if name in cet})
    return "\n".join([*plain, *([words] if words else [])])


def _why_not(placed: Placed, name: str) -> str:
    """Say why the thread has no such register: a component that has no place, or a mode that does not reach it."""
    register = regs.find(name, placed.layout.caps.sizes)
    missing = register.components & ~placed.has
    if missing:
        return f"not there: {placed.layout.caps.cpu.catalogue.names(missing)} absent"
    return f"not there: {placed.thread.abi} code does not reach it"


def _tile(placed: Placed, name: str, kind: str | None) -> str:
    """Return a tile; its elements are 32-bit integers, or bytes where a row is not that, unless somebody says."""
    if XTILE & ~placed.has:  # tiles without their configuration
        return f"{name:<9} {_why_not(placed, 'tilecfg')}"
    config, data, number = _tile_parts(placed, name)
    return view.tile_text(config, data, number, kind or ("i8" if config.colsb[number] % 4 else "i32"))
