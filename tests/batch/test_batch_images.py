"""`Batch.convert`, `strip`, `add` and `init_fill` against `fpstate.image`, image by image."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("numba", reason="fpstate[batch] is not installed")

import numpy as np

from batch.cases import enabled, image, machine, rows_of, seeded
from fpstate import image as scalar
from fpstate.batch import Batch, rule
from fpstate.batch.registers import Bytes
from fpstate.errors import FpstateError, UsageError
from fpstate.isa.masks import ALL

NAMES = ["zen4", "spr", "bochs"]
ROWS = 80

Operation = tuple[Callable[[scalar.Image], bytes], Callable[[Bytes], tuple[Bytes, Bytes]]]


def broken(code: int) -> str:
    found = rule(code)
    assert found is not None
    return found.id


def operations(batch: Batch, mask: int, *, software: bool) -> dict[str, Operation]:
    """The scalar and the batch form of what is asked."""
    user = mask & batch.xcr0
    return {
        "standard": (
            lambda one: scalar.convert(one, "standard", components=user, software=software),
            lambda rows: batch.convert(rows, "standard", components=user, software=software),
        ),
        "compacted": (
            lambda one: scalar.convert(one, "compacted", components=mask, software=software),
            lambda rows: batch.convert(rows, "compacted", components=mask, software=software),
        ),
        "strip": (
            lambda one: scalar.strip(one, mask, software=software),
            lambda rows: batch.strip(rows, mask, software=software),
        ),
        "add": (
            lambda one: scalar.add(one, user, software=software),
            lambda rows: batch.add(rows, user, software=software),
        ),
        "init_fill": (
            lambda one: scalar.init_fill(one, software=software),
            lambda rows: batch.init_fill(rows, software=software),
        ),
    }


@pytest.mark.parametrize("what", ["standard", "compacted", "strip", "add", "init_fill"])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_builds_the_images_of_the_scalar_functions(name: str, what: str) -> None:
    batch = machine(name)
    rng = seeded(f"{name} {what}")
    width = max(batch.image_size(), batch.image_size(compacted=True))
    for turn in range(4):
        mask = rng.getrandbits(64) & enabled(batch) if turn else enabled(batch)
        one, many = operations(batch, mask, software=turn < 3)[what]
        images = [bytes(image(rng, batch, width, supervisor=True)) for _ in range(ROWS)]
        made, outcome = many(rows_of([bytearray(data) for data in images], width, width + 5))
        for data, row, code in zip(images, made, outcome, strict=True):
            try:
                expected = one(scalar.read(data, batch.caps, enabled(batch)))
            except FpstateError:
                assert code
                assert not row.any()
            else:
                assert not code
                assert row.tobytes() == expected.ljust(made.shape[1], b"\0")


def test_a_batch_refuses_what_would_be_lost_unless_components_are_named() -> None:
    batch = machine("zen4")
    images = batch.images(2)
    images[1, 512:528] = np.frombuffer(b"\0\x08\0\0\0\0\0\0\0\x08\0\0\0\0\0\x80", np.uint8)  # CET_U
    _, outcome = batch.convert(images, "standard")
    assert [code and broken(code) for code in outcome.tolist()] == [0, "standard-xstate-bv"]
    made, outcome = batch.convert(images, "standard", components=batch.xcr0)
    assert not outcome.any()
    assert not made[1, 512:528].any()


def test_images_can_be_converted_where_they_are() -> None:
    batch = machine("zen4")
    rng = seeded("in place")
    images = rows_of([image(rng, batch, 4096, supervisor=True) for _ in range(ROWS)], 4096, 4096)
    before = images.copy()
    made, outcome = batch.init_fill(images)
    same, again = batch.init_fill(images, out=images)
    assert same is images
    assert outcome.tolist() == again.tolist()
    good = outcome == 0
    assert (images[good] == made[good]).all()
    assert (images[~good] == before[~good]).all()


def test_a_result_that_has_no_room_is_refused() -> None:
    batch = machine("zen4")
    out = np.zeros((1, 831), np.uint8)
    _, outcome = batch.convert(batch.images(1), "standard", components=7, out=out)
    assert [broken(code) for code in outcome.tolist()] == ["page-write"]


def test_arrays_that_a_kernel_could_not_walk_are_refused() -> None:
    batch = machine("zen4")
    good, registers = batch.images(4), batch.registers(4)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: batch.xsave(registers, ALL, good.astype(np.int8)), "images must be a two-dimensional array of uint8"),
        (lambda: batch.xsave(registers, ALL, good[0]), "two-dimensional"),
        (lambda: batch.xsave(registers, ALL, good[:, :900]), "images have 900 bytes a row, 2440 are needed"),
        (lambda: batch.xsave(registers, ALL, good[:, ::2]), "contiguous rows|are needed"),
        (lambda: batch.xsave(registers, ALL, good[::-1]), "rows that do not overlap"),
        (lambda: batch.xsave(registers, ALL, np.broadcast_to(good[0], good.shape)), "do not overlap"),
        (lambda: batch.xsave(registers[:3], ALL, good), "4 images and 3 register files"),
        (lambda: batch.xsave(registers[:, :64], ALL, good), "registers have 64 bytes a row"),
        (lambda: batch.xrstor(good, ALL, good), "overlap"),
        (lambda: batch.xrstor(good, ALL, registers, used=np.zeros(3, np.uint64)), "used must be 4 writable uint64"),
        (lambda: batch.convert(good, "xml"), "there is no format 'xml'"),  # type: ignore[arg-type]
        (lambda: batch.convert(good, "standard", components=1 << 11), "component 11 is not enabled for standard"),
        (lambda: batch.convert(good, "standard", out=good[:, 64:]), "out overlap and are not the same|overlap"),
        (lambda: batch.validate(good, "qemu"), "cannot be validated against 'qemu'"),  # type: ignore[arg-type]
        (lambda: machine("spr").xsave(registers, ALL, good), "sticky with profile intel; give the column used"),
    ]
    read_only = batch.registers(4)
    read_only.flags.writeable = False
    cases.append((lambda: batch.xrstor(good, ALL, read_only), "registers are read-only"))
    for call, says in cases:
        with pytest.raises(UsageError, match=says):
            call()


def test_no_rows_are_no_work() -> None:
    batch = machine("zen4")
    assert batch.xsave(batch.registers(0), ALL, batch.images(0)).tolist() == []
    assert batch.convert(batch.images(0), "compacted")[1].tolist() == []
