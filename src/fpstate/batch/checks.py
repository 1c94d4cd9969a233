"""What MSRs accept, as conditions of compiled code: the rows of `fpstate.isa.values` in words."""

from __future__ import annotations

from collections.abc import Iterator

from fpstate.isa import Capabilities, values

__all__ = ["Condition", "conditions", "plan", "tilecfg_shapes"]

Condition = tuple[str, str]
"""A condition on the word ``v`` that is true where the value is refused, and the rule that it then breaks."""


def conditions(caps: Capabilities, name: str) -> Iterator[Condition]:
    """Yield what refuses a value for register *name* in an image, in the order in which it is checked."""
    for rule, kind, mask in values.conditions(caps, name):
        if kind == "clear":
            yield f"v & u64({mask & ~values.UIF if name == 'uintr_misc' else mask:#x})", rule
        elif kind == "not-all":
            yield f"(v & u64({mask:#x})) == u64({mask:#x})", rule
        elif kind == "canonical":
            shift = caps.linear_bits - 1
            ones = (1 << (64 - shift)) - 1
            yield f"v >> u64({shift}) != u64(0) and v >> u64({shift}) != u64({ones:#x})", rule
        else:
            depths = [8 * (i + 1) for i in range(8) if mask >> i & 1]
            yield " and ".join(["True", *(f"v != u64({depth})" for depth in depths)]), rule


def plan(
    caps: Capabilities, bit: int, size: int
) -> tuple[list[tuple[int, list[Condition]]], tuple[tuple[int, int], ...]]:
    """Return what `fpstate.isa.values.check_component` checks of component *bit*.

    Returns:
        The offset and the conditions of each register that has some; the (start, end) of the reserved bytes.
    """
    checked, reserved = values.plan(bit, size)
    return [(start, list(conditions(caps, register.name))) for register, start, _ in checked], reserved


def tilecfg_shapes(caps: Capabilities) -> dict[int, tuple[int, int, int]]:
    """Return palette to (tiles, bytes of a row, rows); the one palette that exists where leaf 1DH is not shown."""
    found = {each.number: (each.tiles, each.row, each.rows) for each in caps.cpu.palettes()}
    return found or {1: (8, 64, 16)}
