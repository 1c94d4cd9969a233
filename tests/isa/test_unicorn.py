"""Standard-format XSAVE, XSAVEOPT and XRSTOR against Unicorn, which has x87 and SSE alone.

Compared where it is right.  It is QEMU 5's TCG: XINUSE is always 1 (profile qemu), FOP and the pointers are not kept,
the reserved bytes behind each ST register are not written, FCW is not checked.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from fpstate.cpu import by_name
from fpstate.isa import Capabilities, Memory, Processor, execute
from fpstate.isa import profile as profiles

uc = pytest.importorskip("unicorn", reason="Unicorn is not installed")
x86 = pytest.importorskip("unicorn.x86_const", reason="Unicorn is not installed")

BASE, SIZE = 0x100000, 0x1000
CODE = {"xsave64": "480fae27", "xsaveopt64": "480fae37", "xrstor64": "480fae2f"}
KEPT = [
    *range(5),
    *range(24, 32),
    *(32 + 16 * i + j for i in range(8) for j in range(10)),
    *range(160, 416),
    *range(512, 576),
]


@pytest.fixture(scope="module")
def emulator() -> Any:
    machine = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
    machine.mem_map(0, 0x10000)
    machine.mem_map(BASE, SIZE)
    machine.reg_write(x86.UC_X86_REG_CR4, 1 << 5 | 1 << 9 | 1 << 10 | 1 << 18)
    machine.mem_write(0, bytes.fromhex("31c9b80300000031d20f01d1"))  # XSETBV: XCR0 = 3
    machine.emu_start(0, 12)
    for at, code in enumerate(CODE.values(), 1):
        machine.mem_write(0x1000 * at, bytes.fromhex(code))
    return machine


def _run(machine: Any, op: str, mask: int, memory: bytes) -> bytes:
    at = 0x1000 * (1 + list(CODE).index(op))
    machine.mem_write(BASE, memory)
    for register, value in (("RDI", BASE), ("RAX", mask), ("RDX", 0)):
        machine.reg_write(getattr(x86, f"UC_X86_REG_{register}"), value)
    machine.emu_start(at, at + 4)
    return bytes(machine.mem_read(BASE, len(memory)))


def _image(rng: random.Random) -> bytes:
    """Return an image that both sides load alike: FCW with the bits that exist, no pending exception."""
    image = bytearray(rng.randbytes(576))
    image[0:4] = (rng.choice((0x37F, 0x27F, 0xF7F)) | rng.getrandbits(3) << 27).to_bytes(4, "little")
    image[24:28] = (rng.getrandbits(16)).to_bytes(4, "little")
    image[512:576] = rng.choice((0, 1, 2, 3)).to_bytes(8, "little") + bytes(56)
    return bytes(image)


@pytest.mark.parametrize("seed", range(100))
def test_restoring_and_saving_give_what_unicorn_gives(emulator: Any, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    p = Processor(Capabilities(by_name("ice-lake")), profiles.find("qemu"))
    p.xcr0 = 3
    for _ in range(3):
        image, mask = _image(rng), rng.choice((1, 2, 3))
        _run(emulator, "xrstor64", 3, image)
        execute(p, "xrstor64", Memory(bytearray(image), BASE), BASE, 3)
        for op in ("xsave64", "xsaveopt64"):
            before = bytes(512) + rng.randbytes(8) + bytes(56)
            memory = Memory(bytearray(before), BASE)
            execute(p, op, memory, BASE, mask)
            emulated = _run(emulator, op, mask, before)
            assert [(i, emulated[i]) for i in KEPT] == [(i, memory.data[i]) for i in KEPT]
