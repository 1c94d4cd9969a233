"""Which registers differ between two states, by name."""

from __future__ import annotations

from typing import Final

from fpstate import registers as regs
from fpstate.registers import REGISTERS, Register

__all__ = ["SELECTORS", "changed"]

SELECTORS: Final = {"fcs": "fiseg", "fds": "foseg"}
"""Attributes of a processor that are registers by another name, which the 64-bit form of an image has no place for."""


def changed(before: regs.Sections, after: regs.Sections, enabled: int) -> dict[str, str]:
    """Return the registers whose bytes differ, in full: xmm3, and ymm3 and zmm3 where *enabled* has all their parts."""
    differs = {bit for bit in after if before[bit] != after[bit]}
    if 0 in differs:
        differs.add(1)
    found: dict[str, str] = {}
    for register in _SHOWN:
        if any(part.bit in differs for part in register.parts):
            now = regs.read(register, after)
            if now != regs.read(register, before) and not (register.view and register.components & ~enabled):
                found[register.name] = register.format(now)
    for bit in sorted(differs - {0, 1}):
        if not regs.of_component(bit):
            found[f"bit{bit}"] = bytes(after[bit]).hex()
    return found


def _is_shown(register: Register) -> bool:
    """Tell whether results name *register*: not the upper halves, which ymm and zmm show, and no selector."""
    upper_half = register.name[1:3] == "mm" and register.name.endswith("h")
    return not upper_half and register.name not in SELECTORS.values()


_SHOWN: Final = tuple(register for register in REGISTERS.values() if _is_shown(register))
