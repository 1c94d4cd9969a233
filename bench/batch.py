"""Images a second of `fpstate.batch`, beside Unicorn, the CPU's own instructions, and a plain copy of the same bytes.

    python bench/batch.py [ROUNDS] [IMAGES]

Every round handles IMAGES images (a million if not given) in each way, in turn, in blocks: small ones that stay in the
cache, and large ones that do not.  All components are in use.  Two layouts are measured: Intel's with AVX-512 and PKRU,
2,696 bytes, against Unicorn; and this host's, against its own XSAVE, XSAVEC and XRSTOR in a loop of machine code.
Unicorn has no AVX and no XSAVEC: its promise is for x87 and SSE, "(3)", the same bytes on both sides.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fpstate import cpu as cpus
from fpstate.batch import Batch, aligned
from fpstate.batch.registers import Bytes
from fpstate.cpu.host import _executable
from fpstate.errors import FpstateError

NEAR, FAR = 1000, 100_000
"""Images of a block that stays in the third-level cache, and of one that does not."""
IN_CACHE_OVER_NATIVE, OVER_UNICORN, FAR_OF_COPY = 1.5, 30.0, 0.7
"""What was promised: at most so many times the instruction's time in the cache, at least so many times Unicorn's images
a second, and at least this part of a plain copy's rate beyond the cache."""
NEARBY = "in the cache"
NATIVE = 0xE7
"""Components that the native loop saves: PKRU, tiles and APX are left to the process that measures."""
BASE = 0x100000

Work = Callable[[int], object]
"""Handle the block of so many images once."""


def require(holds: bool, message: str) -> None:
    """Stop if what is measured is not what it should be."""
    if not holds:
        raise SystemExit(message)


class Block:
    """Register files and images with everything in use, for *batch*."""

    def __init__(self, batch: Batch, rows: int) -> None:
        self.batch, self.rows = batch, rows
        size = batch.image_size()
        self.registers = batch.registers(rows)
        noise = np.random.default_rng(1)
        for offset, length in [(32, 128), (160, 256), *batch.layout.sections.values()]:
            row = noise.integers(1, 256, length, np.uint8)
            if (offset, length) == (32, 128):
                row[np.arange(128) % 16 > 9] = 0
            self.registers[:, offset : offset + length] = row
        self.used = np.full(rows, batch.xcr0, np.uint64)
        self.standard, self.compacted, self.copy = (aligned(rows, (size + 63) & -64)[:, :size] for _ in range(3))
        self.save("xsave", self.standard, rows)
        self.save("xsavec", self.compacted, rows)
        require((self.standard[:, 512] == (batch.xcr0 & 0xFF)).all(), "some component is not in use")

    def save(self, op: str, out: Bytes, rows: int, mask: int = -1) -> None:
        """Execute a save for the first *rows*."""
        getattr(self.batch, op)(self.registers[:rows], self.batch.xcr0 & mask, out[:rows], used=self.used[:rows])

    def work(self) -> dict[str, Work]:
        """Return what is measured."""
        batch = self.batch

        def restore(images: Bytes, rows: int, mask: int = -1) -> None:
            batch.xrstor(images[:rows], batch.xcr0 & mask, self.registers[:rows], used=self.used[:rows])

        return {
            "copy": lambda rows: np.copyto(self.copy[:rows], self.standard[:rows]),
            "xsave": lambda rows: self.save("xsave", self.copy, rows),
            "xsavec": lambda rows: self.save("xsavec", self.copy, rows),
            "xrstor": lambda rows: restore(self.standard, rows),
            "xrstor (compacted)": lambda rows: restore(self.compacted, rows),
            "xsave (3)": lambda rows: self.save("xsave", self.copy, rows, 3),
            "xrstor (3)": lambda rows: restore(self.standard, rows, 3),
            "convert": lambda rows: batch.convert(self.compacted[:rows], "standard", out=self.copy[:rows]),
        }


# The CPU's own instructions

_HEAD = bytes.fromhex(
    "f30f1efa"  # endbr64
    "4989d1"  #   mov r9, rdx           the number of images
    "89c8"  #     mov eax, ecx          the mask
    "31d2"  #     xor edx, edx
    "490fae28"  # xrstor64 [r8]         everything is in use
)
_LOOP = bytes.fromhex(
    "4801f7"  #   add rdi, rsi          the next image
    "49ffc9"  #   dec r9
    "75f4"  #     jnz to the instruction
    "dbe3"  #     fninit                as the ABI wants it
    "c5f877"  #   vzeroupper
    "c3"  #       ret
)
_NATIVE = {"xsave": "480fae27", "xsavec": "480fc727", "xrstor": "480fae2f"}
"""The 64-bit forms with the image at RDI."""


@contextlib.contextmanager
def native(block: Block) -> Iterator[dict[str, Work]]:
    """Yield the instructions over the images of *block*, which must be 64 bytes aligned."""
    with contextlib.ExitStack() as pages:
        found: dict[str, Work] = {}
        start, stride = block.standard[:1].copy(), block.copy.strides[0]
        source = aligned(1, (start.shape[1] + 63) & -64)
        source[0, : start.shape[1]] = start[0]
        kind = ctypes.CFUNCTYPE(
            None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p
        )
        for op, code in _NATIVE.items():
            run = kind(pages.enter_context(_executable(_HEAD + bytes.fromhex(code) + _LOOP)))
            images = block.standard if op == "xrstor" else block.copy

            def work(rows: int, run: Callable[..., object] = run, images: Bytes = images) -> None:
                run(images.ctypes.data, stride, rows, block.batch.xcr0, source.ctypes.data)

            found[op] = work
        yield found


# Unicorn


def unicorn(batch: Batch, rows: int) -> dict[str, Work]:
    """Return XSAVE and XRSTOR in a loop that Unicorn executes; empty if it is not installed."""
    try:
        uc: Any = importlib.import_module("unicorn")  # a peer, not a need
        x86: Any = importlib.import_module("unicorn.x86_const")
    except ImportError:
        return {}
    size = (batch.image_size() + 63) & -64
    machine = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
    machine.mem_map(0, 0x10000)
    machine.mem_map(BASE, (rows * size + 0xFFFF) & -0x10000)
    machine.reg_write(x86.UC_X86_REG_CR4, 1 << 5 | 1 << 9 | 1 << 10 | 1 << 18)
    code, ends = {"xsave": 0x1000, "xrstor": 0x2000}, {}
    machine.mem_write(0, bytes.fromhex("31c9b80300000031d20f01d1"))  # XSETBV: XCR0 = 3
    machine.emu_start(0, 12)
    for register in range(16):
        machine.reg_write(x86.UC_X86_REG_XMM0 + register, (1 << 127) | register)
    for op, at in code.items():
        loop = bytes.fromhex(_NATIVE[op]) + _LOOP[:8]
        machine.mem_write(at, loop)
        ends[op] = at + len(loop)

    def work(op: str, count: int) -> None:
        for register, value in (("RDI", BASE), ("RSI", size), ("R9", count), ("RAX", 3), ("RDX", 0)):
            machine.reg_write(getattr(x86, f"UC_X86_REG_{register}"), value)
        machine.emu_start(code[op], ends[op])

    work("xsave", rows)
    last = bytes(machine.mem_read(BASE + (rows - 1) * size, size))
    require((last[175], last[512]) == (0x80, 3), "Unicorn does not save what it should")
    return {op: functools.partial(work, op) for op in code}


# Measuring


def measure(ways: dict[str, tuple[Work, int, int]], rounds: int) -> dict[str, list[float]]:
    """Return nanoseconds an image, one a round, of ways to handle (block, images in all)."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for work, rows, _ in ways.values():
        work(rows)
    for _ in range(rounds):
        for name, (work, rows, images) in ways.items():
            turns = max(1, images // rows)
            start = time.perf_counter()
            for _ in range(turns):
                work(rows)
            taken[name].append(1e9 * (time.perf_counter() - start) / (turns * rows))
    return taken


def shown(name: str, values: list[float], size: int, others: dict[str, float]) -> str:
    """Return a line: nanoseconds, images a second, bytes a second, and times the speed of others."""
    middle = statistics.median(values)
    rate = f"{1e3 / middle:6.2f} M images/s  {size / middle:5.1f} GB/s"
    ratios = "".join(f"  {other / middle:5.2f} x {word}" for word, other in others.items())
    return f"  {name:22} {middle:7.1f} ns ({min(values):.1f} to {max(values):.1f})  {rate}{ratios}"


def peers(name: str, middles: dict[str, float]) -> dict[str, float]:
    """Return what a way is compared with, and its nanoseconds an image."""
    op = name.split(" ", maxsplit=1)[0]
    words = {"copy": "copy", "native": f"native {op}", "unicorn": f"unicorn {op}"}
    if name.endswith("(3)"):
        del words["copy"], words["native"]
    return {word: middles[peer] for word, peer in words.items() if peer in middles and peer != name}


def broken_promises(place: str, middles: dict[str, float]) -> Iterator[str]:
    """Yield the promises that do not hold."""
    for name, middle in middles.items():
        others = peers(name, middles)
        if place == NEARBY:
            if others.get("native", middle) * IN_CACHE_OVER_NATIVE < middle:
                yield f"{place}: {name} takes more than {IN_CACHE_OVER_NATIVE} x the instruction"
            if name.endswith("(3)") and others.get("unicorn", 1e9) < middle * OVER_UNICORN:
                yield f"{place}: {name} is not {OVER_UNICORN:.0f} x Unicorn"
        elif not name.startswith(("native", "unicorn")) and others.get("copy", 1e9) < middle * FAR_OF_COPY:
            yield f"{place}: {name} has less than {FAR_OF_COPY} of a copy's bandwidth"


def table(title: str, batch: Batch, rounds: int, images: int, *, host: bool) -> list[str]:
    """Measure one layout, print it, and return the promises that were broken."""
    size, broken = batch.image_size(), []
    print(f"{title}: {size} bytes, XCR0 {batch.xcr0:#x}, profile {batch.profile.name}")
    for place, rows in ((NEARBY, NEAR), ("beyond the cache", FAR)):
        block = Block(batch, min(rows, images))
        with contextlib.ExitStack() as stack:
            ways = {name: (work, block.rows, images) for name, work in block.work().items()}
            if host:
                instructions = stack.enter_context(native(block))
                ways |= {f"native {op}": (work, block.rows, images) for op, work in instructions.items()}
            else:
                emulated = unicorn(batch, NEAR)
                ways |= {f"unicorn {op}": (work, NEAR, min(images, 20_000)) for op, work in emulated.items()}
            taken = measure(ways, rounds)
        middles = {name: statistics.median(values) for name, values in taken.items()}
        print(f" {place}, blocks of {block.rows} images")
        for name, values in taken.items():
            moved = 416 if name.startswith("unicorn") or name.endswith("(3)") else size
            print(shown(name, values, moved, peers(name, middles)))
        broken += [f"{title}, {promise}" for promise in broken_promises(place, middles)]
    return broken


def main() -> int:
    """Measure and print; exit 1 if a promise is broken."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    images = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    print(f"{platform.processor() or platform.machine()}, NumPy {np.__version__}; {rounds} rounds of {images} images")
    print("nanoseconds an image: median (minimum to maximum); times the speed of a copy, the CPU, Unicorn; one thread")
    broken = table("Intel's layout", Batch(cpus.by_name("ice-lake"), xcr0=0x2E7), rounds, images, host=False)
    try:
        cpu = cpus.this_host()
        batch = Batch(cpu, xcr0=(cpu.dump.xcr0 or cpu.xcr0_mask) & NATIVE)
        broken += table("this host's layout", batch, rounds, images, host=True)
    except (FpstateError, OSError) as refused:
        print(f"no native comparison: {refused}")
    for promise in broken:
        print(f"BROKEN: {promise}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
