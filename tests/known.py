"""Images with a value of its own in every register that any task may load."""

from __future__ import annotations

import hashlib

from fpstate.image import encode, registers
from fpstate.isa import Capabilities

__all__ = ["known"]

ORDINARY = 0xE7
"""x87, SSE, AVX and AVX-512: what needs no permission and opens no memory."""


def known(caps: Capabilities, seed: int) -> bytes:
    """Return an image of *caps*, whose values follow from *seed*."""

    def chosen(name: str, size: int) -> bytes:
        return hashlib.shake_128(f"{name} of {seed}".encode()).digest(size)

    enabled = (caps.cpu.dump.xcr0 or caps.user) & ORDINARY
    values = {
        register.name: chosen(register.name, register.size)
        for register in registers(enabled, caps.sizes)
        if register.name[0] in "zyxk"
    }
    values |= {f"st{i}": chosen(f"st{i}", 7) + b"\x80\x00\x40" for i in range(8)}
    values |= {"mxcsr": 0x1F80.to_bytes(4, "little"), "fctrl": 0x27F.to_bytes(2, "little")}
    values |= {"ftag": b"\xff", "fstat": (seed % 8 << 11).to_bytes(2, "little")}
    return encode(caps, values)
