"""A minidump, written field by field after minidumpapiset.h and winnt.h: what no file of the corpus shows."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass
class Context:
    """One CONTEXT for amd64 (winnt.h), with CONTEXT_EX and a chunk if *chunk* is given."""

    flags: int = 0x10_0008
    fxsave: bytes = bytes(512)
    chunk: bytes = b""
    xstate_offset: int = 48

    def record(self) -> bytes:
        made = bytearray(1232)
        struct.pack_into("<I", made, 0x30, self.flags)
        made[0x100:0x300] = self.fxsave
        if self.chunk:
            where = self.xstate_offset
            made += struct.pack("<iIiIiI", -1232, 1232 + where + len(self.chunk), -1232, 1232, where, len(self.chunk))
            made = made.ljust(1232 + where, b"\0") + self.chunk
        return bytes(made)


@dataclass
class Dump:
    """A file of streams: SystemInfo, ThreadList, and what is added."""

    architecture: int = 9
    threads: list[tuple[int, bytes]] = field(default_factory=list)
    crashed: tuple[int, bytes] | None = None
    features: dict[int, tuple[int, int]] | None = None
    enabled: int = 0

    def __bytes__(self) -> bytes:
        streams: list[tuple[int, int]] = [(7, 56), (3, 4 + 48 * len(self.threads))]
        streams += [(6, 168)] if self.crashed else []
        streams += [(15, 1364)] if self.features is not None else []
        at = 32 + 12 * len(streams)
        places = {}
        for kind, size in streams:
            places[kind], at = at, at + size
        made = bytearray(at)
        struct.pack_into("<4sIII", made, 0, b"MDMP", 42899, len(streams), 32)
        for i, (kind, size) in enumerate(streams):
            struct.pack_into("<III", made, 32 + 12 * i, kind, size, places[kind])
        struct.pack_into("<H", made, places[7], self.architecture)
        struct.pack_into("<I", made, places[3], len(self.threads))
        for i, (tid, record) in enumerate(self.threads):
            entry = places[3] + 4 + 48 * i
            struct.pack_into("<I", made, entry, tid)
            struct.pack_into("<II", made, entry + 40, len(record), len(made))
            made += record
        if self.crashed:
            struct.pack_into("<I156xII", made, places[6], self.crashed[0], len(self.crashed[1]), len(made))
            made += self.crashed[1]
        if self.features is not None:
            start = places[15] + 832
            struct.pack_into("<II", made, places[15], 1364, 0)
            struct.pack_into("<IIQ", made, start, 528, 0, self.enabled)
            for bit, (offset, size) in self.features.items():
                struct.pack_into("<II", made, start + 16 + 8 * bit, offset, size)
        return bytes(made)
