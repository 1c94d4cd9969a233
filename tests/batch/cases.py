"""Random images, register files and machines for the tests of `fpstate.batch`."""

from __future__ import annotations

import random
import struct

import numpy as np

from fpstate import registers as regs
from fpstate.batch import Batch
from fpstate.batch.registers import Bytes
from fpstate.cpu import by_name
from fpstate.isa import Processor
from fpstate.isa.profile import find
from fpstate.isa.values import check_value
from fpstate.xfeatures import COMPACTED, bits

MACHINES = {
    # tracked, pointers while an error is pending
    "zen4": {"cpu": "zen4", "xcr0": 0x2E7, "xss": 0x1800},
    # tracked, pointers left alone in memory; no supervisor components
    "zen": {"cpu": "zen", "xcr0": 7},
    # sticky: AMX with XFD, and every supervisor component that an Intel CPU has
    "spr": {"cpu": "sapphire-rapids", "xcr0": 0x602E7, "xss": 0xDD00, "xfd": 1 << 18},
    # by value with padding of PKRU left alone, HDC, PT
    "bochs": {"cpu": "tiger-lake", "xcr0": 0x2E7, "xss": 0x3900, "profile": "bochs"},
    # always in use; no XSAVEC
    "qemu": {"cpu": "qemu-tcg-max", "xcr0": 0x21F, "profile": "qemu"},
}


def seeded(text: str) -> random.Random:
    return random.Random(text)  # noqa: S311 - a test must repeat


def machine(name: str) -> Batch:
    row = dict(MACHINES[name])
    profile = row.pop("profile", None)
    numbers = {key: value for key, value in row.items() if isinstance(value, int)}
    return Batch(by_name(str(row["cpu"])), profile=find(str(profile)) if profile else None, **numbers)


def enabled(batch: Batch) -> int:
    return batch.xcr0 | batch.xss


def some_bytes(rng: random.Random, size: int) -> bytes:
    """Zeros, noise, or zeros with one byte set."""
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(size)
    if kind == 1 and size:
        data = bytearray(size)
        data[rng.randrange(size)] = rng.randrange(1, 256)
        return bytes(data)
    return rng.randbytes(size)


def value_for(rng: random.Random, p: Processor, register: regs.Register) -> int:
    """A value, mostly one that the register accepts."""
    for _ in range(20):
        choices = [
            0,
            1 << rng.randrange(64),
            rng.getrandbits(47) & ~0x3F,
            0xFFFF800000000000 | rng.getrandbits(40) << 6,
        ]
        value = rng.choice([*choices, 8, 16, 32, 0x80010F01, register.initial]) & ((1 << 8 * register.size) - 1)
        if rng.random() < 0.03:
            return value
        try:
            check_value(p, register, value, by_xrstors=True)
        except Exception:  # noqa: BLE001, S112 - any refusal
            continue
        return value
    return 0


def component_bytes(rng: random.Random, p: Processor, bit: int) -> bytes:
    size = p.caps.sizes[bit]
    if bit == 17 and rng.random() < 0.7:  # a configuration that LDTILECFG accepts, or nearly
        tiles = [(rng.randrange(66), rng.randrange(18)) for _ in range(8)]
        data = bytearray(64)
        data[0] = 1
        for t, (columns, rows) in enumerate(tiles):
            if rng.random() < 0.9 and (columns > 64 or rows > 16 or not columns or not rows):
                continue
            struct.pack_into("<H", data, 16 + 2 * t, columns)
            data[48 + t] = rows
        return bytes(data)
    if not p.xss >> bit & 1 or rng.random() < 0.02:
        return some_bytes(rng, size)
    data = bytearray(size)
    for register in regs.of_component(bit):
        part = register.parts[0]
        if bit != 15 or register.name == "lbr_depth" or rng.random() < 0.5:
            data[part.offset : part.offset + part.size] = value_for(rng, p, register).to_bytes(part.size, "little")
    if rng.random() < 0.3:
        return regs.initial(bit, size)
    return bytes(data)


def legacy(rng: random.Random, mask: int) -> bytearray:
    data = bytearray(rng.randbytes(512))
    if rng.random() < 0.3:
        data[:24] = regs.initial(0, 24)
        data[32:160] = bytes(128)
    if rng.random() < 0.3:
        data[2:4] = bytes(2)
    if rng.random() < 0.3:
        data[160:416] = some_bytes(rng, 256)
    mxcsr = rng.choice([0x1F80, 0x1F80, 0x1FA0, 0, mask, rng.getrandbits(32) & mask])
    if rng.random() < 0.05:
        mxcsr |= 1 << rng.randrange(16, 32)
    struct.pack_into("<II", data, 24, mxcsr, rng.choice([mask, 0, 0xFFFF]))
    return data


def processor(rng: random.Random, batch: Batch) -> Processor:
    p = batch.processor()
    p.legacy[:] = legacy(rng, 0xFFFF)[:416]
    if rng.random() < 0.3:
        p.legacy[2] |= 0x80
    if rng.random() < 0.5:
        p.fcs, p.fds = rng.getrandbits(16), rng.getrandbits(16)
    for bit, section in p.sections.items():
        if bit > 1 and enabled(batch) >> bit & 1:
            section[:] = component_bytes(rng, p, bit)
    if 8 in p.sections and rng.random() < 0.9:
        p.sections[8][0] &= ~1
    if 14 in p.sections and rng.random() < 0.9:
        p.sections[14][20] = 0
    p.used = rng.getrandbits(64) & enabled(batch)
    return p


def image(rng: random.Random, batch: Batch, width: int, *, supervisor: bool) -> bytearray:
    """An image of either format, mostly a good one, in a buffer that held something else."""
    p = batch.processor()
    data = bytearray(rng.randbytes(width) if rng.random() < 0.5 else bytes(width))
    data[:512] = legacy(rng, batch.profile.mxcsr_mask)
    compacted = rng.random() < (0.9 if supervisor else 0.5)
    allowed = enabled(batch) if supervisor else batch.xcr0
    has = rng.getrandbits(64) & allowed if rng.random() < 0.8 else allowed
    xstate_bv = has & (rng.getrandbits(64) if rng.random() < 0.7 else (1 << 64) - 1)
    places = batch.caps.compacted(has) if compacted else batch.caps.standard(allowed & batch.xcr0)
    for bit, offset, size in places.slots:
        data[offset : offset + size] = component_bytes(rng, p, bit)
    xcomp_bv = has | COMPACTED if compacted else 0
    if rng.random() < 0.06:
        xstate_bv ^= 1 << rng.randrange(64)
    if rng.random() < 0.06:
        xcomp_bv ^= 1 << rng.randrange(64)
    struct.pack_into("<QQ48s", data, 512, xstate_bv, xcomp_bv, bytes(48))
    if rng.random() < 0.06:
        data[528 + rng.randrange(48)] = 1
    return data[:width]


def rows_of(images: list[bytearray], width: int, stride: int) -> Bytes:
    """Return *images* as rows that lie *stride* apart and begin nowhere in particular."""
    memory = np.zeros(len(images) * stride + 3, np.uint8)[3:].reshape(-1, stride)
    for row, data in zip(memory, images, strict=True):
        row[:width] = np.frombuffer(data, np.uint8)
    return memory[:, :width]


def registers_of(batch: Batch, processors: list[Processor]) -> Bytes:
    made = batch.registers(len(processors))
    for row, p in zip(made, processors, strict=True):
        batch.layout.pack(p, row)
    return made


def some_mask(rng: random.Random, batch: Batch) -> int:
    return rng.choice(
        [(1 << 64) - 1, enabled(batch), rng.getrandbits(64), 1 << rng.choice(list(bits(enabled(batch)))), 2, 4, 0]
    )
