"""One instruction by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fpstate.errors import UsageError
from fpstate.isa.legacy import fxrstor, fxsave
from fpstate.isa.memory import Memory
from fpstate.isa.processor import Processor
from fpstate.isa.restore import xrstor, xrstors
from fpstate.isa.save import xsave, xsavec, xsaveopt, xsaves

__all__ = ["AREA_INSTRUCTIONS", "CONTROL_INSTRUCTIONS", "INSTRUCTIONS", "execute"]

_MASKED: Final[dict[str, Callable[..., None]]] = {
    "xsave": xsave,
    "xsaveopt": xsaveopt,
    "xsavec": xsavec,
    "xsaves": xsaves,
    "xrstor": xrstor,
    "xrstors": xrstors,
}
_LEGACY: Final[dict[str, Callable[..., None]]] = {"fxsave": fxsave, "fxrstor": fxrstor}

AREA_INSTRUCTIONS: Final = tuple(f"{name}{form}" for name in (*_MASKED, *_LEGACY) for form in ("", "64"))
"""The instructions with a memory operand; "64" is the form with REX.W."""
CONTROL_INSTRUCTIONS: Final = ("xgetbv", "xsetbv", "rdmsr", "wrmsr")
"""The instructions with ECX."""
INSTRUCTIONS: Final = AREA_INSTRUCTIONS + CONTROL_INSTRUCTIONS


def execute(p: Processor, op: str, memory: Memory, address: int, mask: int = 0) -> None:
    """Execute the instruction *op*, one of `AREA_INSTRUCTIONS`.

    Args:
        p: the processor, changed in place.
        op: its mnemonic in lower case.
        memory: what it sees, changed in place.
        address: linear address of the memory operand.
        mask: EDX:EAX; FXSAVE and FXRSTOR take none.

    Raises:
        Fault: what the CPU raises.
        UsageError: *op* is no such instruction, or has REX.W outside 64-bit mode.
    """
    wide = op.endswith("64")
    name = op[:-2] if wide else op
    if wide and p.mode != 64:
        raise UsageError(f"{op} exists in 64-bit mode only", cure=f"use {name}")
    if name in _MASKED:
        _MASKED[name](p, memory, address, mask, wide=wide)
    elif name in _LEGACY:
        _LEGACY[name](p, memory, address, wide=wide)
    else:
        raise UsageError(f"{op[:40]!r} is no instruction with a memory operand", cure=", ".join(AREA_INSTRUCTIONS))
