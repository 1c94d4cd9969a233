"""An area in memory, and its fields."""

from __future__ import annotations

from fpstate.isa import Memory, Processor, execute

ADDRESS = 0x10000
ALL = (1 << 64) - 1


class Area:
    """A few pages at `ADDRESS`."""

    def __init__(self, fill: int = 0, size: int = 16384) -> None:
        self.memory = Memory(bytearray([fill]) * size, ADDRESS)
        if fill:
            self.memory.data[512:576] = bytes(64)

    @property
    def data(self) -> bytearray:
        return self.memory.data

    def run(self, p: Processor, op: str, mask: int = ALL, at: int = 0) -> None:
        execute(p, op, self.memory, ADDRESS + at, mask)

    def field(self, offset: int) -> int:
        return int.from_bytes(self.data[offset : offset + 8], "little")

    def put(self, offset: int, value: int, size: int = 8) -> None:
        self.data[offset : offset + size] = value.to_bytes(size, "little")

    @property
    def xstate_bv(self) -> int:
        return self.field(512)

    @property
    def xcomp_bv(self) -> int:
        return self.field(520)
