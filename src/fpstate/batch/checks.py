"""What MSRs accept, as conditions of compiled code: `fpstate.isa.values`, whose checks are closures, in words.

The tests compare every condition with `fpstate.isa.values.check_value`, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fpstate import registers as regs
from fpstate.isa import Capabilities

__all__ = ["Condition", "conditions", "plan", "tilecfg_shapes"]

Condition = tuple[str, str]
"""A condition on the word ``v`` that is true where the value is refused, and the rule that it then breaks."""

_RESERVED: Final = {
    "pasid": ("pasid-reserved", 0x7FF << 20 | 0xFFFFFFFF << 32),
    "uintr_misc": ("uintr-reserved", 0x7FFFFF << 40),  # bit 63, UIF, may be set in an image
    "uintr_pd": ("uintr-reserved", 0x3F),
    "uintr_tt": ("uintr-reserved", 0b1110),
    "rtit_cr3_match": ("pt-reserved", 0x1F),
    **{f"pl{i}_ssp": ("ssp-alignment", 0b11) for i in range(4)},
}
_CANONICAL: Final = {
    **{f"pl{i}_ssp": "ssp-canonical" for i in range(4)},
    **dict.fromkeys(("uintr_handler", "uintr_stackadjust", "uintr_pd", "uintr_tt"), "uintr-canonical"),
    **dict.fromkeys(("rtit_addr0_a", "rtit_addr0_b", "rtit_addr1_a", "rtit_addr1_b"), "pt-reserved"),
    "u_cet": "cet-canonical",
}
_SHSTK, _RESERVED_CET, _TRACKING = 0b11, 0xF << 6, 0b11 << 10


def conditions(caps: Capabilities, name: str) -> Iterator[Condition]:
    """Yield what refuses a value for register *name*, in the order in which it is checked."""
    if name == "u_cet":
        mask = _RESERVED_CET | (0 if caps.has("SHSTK") else _SHSTK)
        mask |= 0 if caps.has("IBT") else ~(_SHSTK | _RESERVED_CET) & (1 << 64) - 1
        yield f"v & u64({mask:#x})", "cet-reserved"
        yield f"(v & u64({_TRACKING:#x})) == u64({_TRACKING:#x})", "cet-tracker"
    if name in _RESERVED:
        rule, mask = _RESERVED[name]
        yield f"v & u64({mask:#x})", rule
    if name in _CANONICAL:
        shift = caps.linear_bits - 1
        ones = (1 << (64 - shift)) - 1
        yield f"v >> u64({shift}) != u64(0) and v >> u64({shift}) != u64({ones:#x})", _CANONICAL[name]
    if name == "lbr_depth":
        yield " and ".join(["True", *(f"v != u64({depth})" for depth in _depths(caps))]), "lbr-depth"


def _depths(caps: Capabilities) -> list[int]:
    leaf = caps.cpu.register(0x1C, 0)
    allowed = 0xFF if leaf is None else leaf[0] & 0xFF
    return [8 * (i + 1) for i in range(8) if allowed >> i & 1]


def plan(caps: Capabilities, bit: int, size: int) -> tuple[list[tuple[int, list[Condition]]], list[tuple[int, int]]]:
    """Return what `fpstate.isa.values.check_component` checks of component *bit*.

    Returns:
        The offset and the conditions of each register that has some; the (start, end) of the reserved bytes.
    """
    spans = [(r.parts[0].offset, r.parts[0].offset + r.parts[0].size, r.name) for r in regs.of_component(bit)]
    checked = [(start, list(conditions(caps, name))) for start, _, name in spans]
    reserved, at = [], 0
    for start, end, _ in [*sorted(spans), (size, size, "")]:
        if at < start:
            reserved.append((at, start))
        at = max(at, end)
    return [each for each in checked if each[1]], reserved


def tilecfg_shapes(caps: Capabilities) -> dict[int, tuple[int, int, int]]:
    """Return palette to (tiles, bytes of a row, rows); the one palette that exists where leaf 1DH is not shown."""
    found = {each.number: (each.tiles, each.row, each.rows) for each in caps.cpu.palettes()}
    return found or {1: (8, 64, 16)}
