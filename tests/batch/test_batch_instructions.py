"""`fpstate.batch` against `fpstate.isa`, image by image: every byte of memory, every register, every fault."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba", reason="fpstate[batch] is not installed")

from batch.cases import MACHINES, image, machine, processor, registers_of, rows_of, seeded, some_bytes, some_mask
from fpstate.batch import Against, Batch, rule
from fpstate.batch.registers import Bytes
from fpstate.isa import RULES, Fault, Memory, Processor, execute
from fpstate.isa.masks import ALL
from fpstate.isa.processor import XrstorInfo

BASE = 0x10000
ROWS = 60
SAVES = ("xsave", "xsaveopt", "xsavec", "xsaves")
RESTORES = ("xrstor", "xrstors")
FORMS = [*((name, True) for name in MACHINES), ("zen4", False), ("qemu", False)]
"""Machines, with REX.W; without it one that keeps the pointers while an error is pending, and one that has FCS."""


def scalar(batch: Batch, op: str, p: Processor, data: bytearray, mask: int, *, wide: bool) -> int:
    """Execute by the scalar engine and return the outcome's code."""
    assert p.caps is batch.caps
    try:
        execute(p, f"{op}64" if wide else op, Memory(data, BASE), BASE, mask)
    except Fault as fault:
        return 1 + list(RULES).index(fault.rule.id)
    return 0


def assert_same_registers(batch: Batch, rows: Bytes, processors: list[Processor]) -> None:
    expected = registers_of(batch, processors)
    for i in np.flatnonzero((rows != expected).any(axis=1)):
        first = int(np.flatnonzero(rows[i] != expected[i])[0])
        pytest.fail(f"row {i} differs from byte {first} of the register file on")


@pytest.mark.parametrize(("name", "wide"), FORMS)
@pytest.mark.parametrize("op", SAVES)
def test_saving_is_the_scalar_engines(name: str, op: str, wide: bool) -> None:
    batch = machine(name)
    rng = seeded(f"{name} {op} {wide}")
    width = batch.image_size() if op in {"xsave", "xsaveopt"} else batch.image_size(compacted=True)
    for _ in range(6):
        mask = some_mask(rng, batch)
        processors = [processor(rng, batch) for _ in range(ROWS)]
        areas = [bytearray(some_bytes(rng, width)) for _ in range(ROWS)]
        out, rows = rows_of(areas, width, width + rng.randrange(100)), registers_of(batch, processors)
        used = np.array([p.used for p in processors], np.uint64)
        outcome = getattr(batch, op)(rows, mask, out, wide=wide, used=used)
        expected = [scalar(batch, op, p, data, mask, wide=wide) for p, data in zip(processors, areas, strict=True)]
        assert outcome.tolist() == expected
        for row, data in zip(out, areas, strict=True):
            assert row.tobytes() == data
        assert_same_registers(batch, rows, processors)


@pytest.mark.parametrize(("name", "wide"), FORMS)
@pytest.mark.parametrize("op", RESTORES)
def test_restoring_is_the_scalar_engines(name: str, op: str, wide: bool) -> None:
    batch = machine(name)
    rng = seeded(f"{name} {op} {wide}")
    seen: set[int] = set()
    for _ in range(6):
        mask = some_mask(rng, batch)
        size = max(batch.image_size(), batch.image_size(compacted=True))
        width = rng.choice([size, size, 576, rng.randrange(576, size + 1)])
        processors = [processor(rng, batch) for _ in range(ROWS)]
        images = [image(rng, batch, max(width, size), supervisor=op == "xrstors")[:width] for _ in range(ROWS)]
        rows = registers_of(batch, processors)
        used = np.array([p.used for p in processors], np.uint64)
        outcome = getattr(batch, op)(rows_of(images, width, width + 7), mask, rows, wide=wide, used=used)
        expected = [scalar(batch, op, p, data, mask, wide=wide) for p, data in zip(processors, images, strict=True)]
        assert outcome.tolist() == expected
        assert used.tolist() == [p.used for p in processors]
        assert_same_registers(batch, rows, processors)
        seen |= set(expected)
    assert seen


@pytest.mark.parametrize("op", RESTORES)
@pytest.mark.parametrize("name", MACHINES)
def test_validating_is_restoring_from_the_initial_configuration(name: str, op: Against) -> None:
    batch = machine(name)
    rng = seeded(f"validate {name} {op}")
    width = max(batch.image_size(), batch.image_size(compacted=True))
    images = [image(rng, batch, width, supervisor=op == "xrstors") for _ in range(200)]
    outcome = batch.validate(rows_of(images, width, width), op, rfbm=ALL)
    expected = [scalar(batch, op, batch.processor(), data, ALL, wide=True) for data in images]
    assert outcome.tolist() == expected


@pytest.mark.parametrize("name", MACHINES)
def test_a_batch_explains_a_row_by_the_scalar_engine(name: str) -> None:
    batch = machine(name)
    rng = seeded(f"explain {name}")
    width = max(batch.image_size(), batch.image_size(compacted=True))
    images = rows_of([image(rng, batch, width, supervisor=False) for _ in range(100)], width, width)
    outcome = batch.xrstor(images, ALL, batch.registers(len(images)))
    assert outcome.any()
    assert not outcome.all()
    for code, row in zip(outcome, images, strict=True):
        fault = batch.explain("xrstor", row, ALL)
        assert rule(int(code)) == (None if fault is None else fault.rule)


def test_the_modified_optimisation_leaves_out_what_was_not_modified() -> None:
    batch = machine("spr")
    rng = seeded("modified")
    processors = [processor(rng, batch) for _ in range(ROWS)]
    rows = registers_of(batch, processors)
    used = np.full(ROWS, ALL, np.uint64)
    modified = np.array([rng.getrandbits(64) for _ in range(ROWS)], np.uint64)
    for p, bits in zip(processors, modified, strict=True):
        p.used = ALL
        p.modified = int(bits)
        p.info = XrstorInfo(0, False, BASE, 0)
    areas = [bytearray(batch.image_size()) for _ in range(ROWS)]
    out = rows_of(areas, len(areas[0]), len(areas[0]))
    batch.xsaveopt(rows, ALL, out, used=used, modified=modified)
    for p, data, row in zip(processors, areas, out, strict=True):
        execute(p, "xsaveopt64", Memory(data, BASE), BASE, ALL)
        assert row.tobytes() == data
