"""The conditions of compiled code against the checks of `fpstate.isa.values`, register by register and bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

pytest.importorskip("numba", reason="fpstate[batch] is not installed")

import numpy as np

from batch.cases import MACHINES, machine, seeded
from fpstate.batch.checks import conditions, plan
from fpstate.isa import Fault, values
from fpstate.registers import REGISTERS


def interesting(name: str) -> list[int]:
    rng = seeded(name)
    single = [1 << bit for bit in range(64)]
    pairs = [1 << rng.randrange(64) | 1 << rng.randrange(64) for _ in range(100)]
    edges = [value + step for value in (0, 1 << 47, 1 << 48, 1 << 56, 1 << 57, 1 << 63) for step in (-1, 0, 1)]
    high = [(1 << 64) - (1 << bit) for bit in range(1, 64)]
    return [value & (1 << 64) - 1 for value in (*single, *pairs, *edges, *high, *range(0, 600, 8))]


def refusal(check: Callable[[], None]) -> str | None:
    try:
        check()
    except Fault as fault:
        return fault.rule.id
    return None


@pytest.mark.parametrize("name", MACHINES)
def test_a_condition_refuses_what_the_scalar_check_refuses(name: str) -> None:
    p = machine(name).processor()
    for register in REGISTERS.values():
        if register.msr is None or (register.name.startswith("lbr_") and register.name[4].isdigit()):
            continue
        for value in interesting(register.name):
            names = {"u64": np.uint64, "v": np.uint64(value)}
            broken = [rule for text, rule in conditions(p.caps, register.name) if eval(text, names)]  # noqa: S307
            expected = refusal(partial(values.check_value, p, register, value, by_xrstors=True))
            assert next(iter(broken), None) == expected, (register.name, hex(value))


@pytest.mark.parametrize("name", MACHINES)
def test_every_byte_of_a_supervisor_component_is_checked_or_reserved_as_in_the_scalar_check(name: str) -> None:
    p = machine(name).processor()
    for bit, size in p.caps.sizes.items():
        if p.caps.supervisor >> bit & 1:
            _, reserved = plan(p.caps, bit, size)
            for at in range(size):
                data = bytearray(p.sections[bit])
                data[at] |= 1
                data[8:16] = (8).to_bytes(8, "little") if bit == 15 else data[8:16]
                refused = refusal(partial(values.check_component, p, bit, bytes(data), 0))
                inside = any(start <= at < end for start, end in reserved)
                assert inside == (refused == "reserved"), (bit, at)
