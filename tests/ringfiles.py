"""Ring-buffer pages and trace.dat files written by hand, from the kernel's and trace-cmd's descriptions.

Nothing here is shared with the reader: Linux include/linux/ring_buffer.h, trace-cmd.dat.v6(5), trace-cmd.dat.v7(5).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

PAGE = 4096
MAGIC = b"\x17\x08\x44tracing"

HEADER_PAGE = """\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
"""
"""As Linux 6.18 on x86-64 prints it."""

HEADER_PAGE_32 = HEADER_PAGE.replace("offset:8;\tsize:8;", "offset:8;\tsize:4;").replace(
    "offset:16;\tsize:4080;", "offset:12;\tsize:4084;"
)

_COMMON = """\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

"""


def format_file(name: str, number: int, fields: Sequence[tuple[str, int, int, int]]) -> str:
    """Return a format file of (declaration, offset, size, signed)."""
    lines = "".join(
        f"\tfield:{declared};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n"
        for declared, offset, size, signed in fields
    )
    return f'name: {name}\nID: {number}\nformat:\n{_COMMON}{lines}\nprint fmt: "field:int lie; offset:0; size:8;", 0\n'


FPU_FIELDS = (
    ("struct fpu * fpu", 8, 8, 0),
    ("bool load_fpu", 16, 1, 0),
    ("u64 xfeatures", 24, 8, 0),
    ("u64 xcomp_bv", 32, 8, 0),
)
SWITCH_FIELDS = (
    ("char prev_comm[16]", 8, 16, 0),
    ("pid_t prev_pid", 24, 4, 1),
    ("int prev_prio", 28, 4, 1),
    ("long prev_state", 32, 8, 1),
    ("char next_comm[16]", 40, 16, 0),
    ("pid_t next_pid", 56, 4, 1),
    ("int next_prio", 60, 4, 1),
)
ACTIVATED, SWITCH, OTHER = 100, 200, 300
FORMATS = {
    "x86_fpu": (format_file("x86_fpu_regs_activated", ACTIVATED, FPU_FIELDS),),
    "sched": (format_file("sched_switch", SWITCH, SWITCH_FIELDS),),
    "irq": (format_file("softirq_raise", OTHER, (("unsigned int vec", 8, 4, 0),)),),
}


def activated(pid: int, fpu: int, load: int, xfeatures: int, xcomp_bv: int) -> bytes:
    return struct.pack("<HBBiQB7xQQ", ACTIVATED, 0, 0, pid, fpu, load, xfeatures, xcomp_bv)


def switched(before: tuple[bytes, int], after: tuple[bytes, int], state: int = 0) -> bytes:
    return struct.pack(
        "<HBBi16siiq16sii", SWITCH, 0, 0, before[1], before[0], before[1], 120, state, after[0], after[1], 120
    )


def other(pid: int, vec: int) -> bytes:
    return struct.pack("<HBBiI", OTHER, 0, 0, pid, vec)


def event(delta: int, payload: bytes) -> bytes:
    """A record as the kernel packs it: small ones tell their size in type_len."""
    payload += bytes(-len(payload) % 4)
    if len(payload) <= 28 * 4:
        return struct.pack("<I", len(payload) // 4 | delta << 5) + payload
    return struct.pack("<II", delta << 5, len(payload) + 4) + payload


def extend(delta: int) -> bytes:
    return struct.pack("<II", 30 | (delta & (1 << 27) - 1) << 5, delta >> 27)


def stamp(time: int) -> bytes:
    time &= (1 << 59) - 1
    return struct.pack("<II", 31 | (time & (1 << 27) - 1) << 5, time >> 27)


def discarded(delta: int, size: int) -> bytes:
    """A record of *size* bytes in all that was taken back."""
    return struct.pack("<II", 29 | delta << 5, size - 4) + bytes(size - 8)


def page(time: int, records: Sequence[bytes], *, lost: int | None = None, flags: int = 0, commit: int | None = None,
         size: int = PAGE, long: int = 8) -> bytes:  # fmt: skip
    """A page; *lost* counts the events lost before it."""
    data = b"".join(records)
    used = len(data) if commit is None else commit
    if lost is not None:
        used |= 3 << 30
        data += lost.to_bytes(long, "little")
    head = struct.pack("<Q", time) + (used | flags).to_bytes(long, "little")
    return (head + data).ljust(size, b"\0")


def magicless_zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(data)[4:]


PACK: Mapping[str, Callable[[bytes], bytes]] = {"zlib": zlib.compress, "zstd": magicless_zstd}


@dataclass
class File:
    """What goes into a trace.dat; an instance is one more buffer."""

    cpus: Sequence[bytes]
    instances: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    compression: str = "none"
    formats: Mapping[str, Sequence[str]] = field(default_factory=lambda: FORMATS)
    header_page: str = HEADER_PAGE
    comms: str = "7 seven\n8 eight\n"
    clock: str = "local"
    page_size: int = PAGE
    chunk: int = 2 * PAGE
    options: Sequence[tuple[int, bytes]] = ((5, b"Linux host 6.18.0 #1 x86_64\0"),)

    def v6(self) -> bytes:
        out = MAGIC + b"6\0" + struct.pack("<BBI", 0, 8, self.page_size)
        out += self._header() + self._ftrace() + self._formats() + bytes(8) + self._comms()
        out += struct.pack("<I", len(self.cpus)) + b"options  \0"
        options = [(4, f"[{self.clock}] global".encode() + b"\0"), *self.options]
        size = len(out) + sum(6 + len(body) for _, body in options) + 2
        size += sum(6 + 8 + len(name) + 1 for name in self.instances)
        at = size + 10 + 16 * len(self.cpus)
        tables: list[bytes] = []
        data = b""
        places = [at + sum(10 + 16 * len(self.cpus) for _ in range(n)) for n in range(len(self.instances))]
        start = -(-(at + len(self.instances) * (10 + 16 * len(self.cpus))) // PAGE) * PAGE
        for cpus in (self.cpus, *self.instances.values()):
            table = b"flyrecord\0"
            for pages in cpus:
                table += struct.pack("<QQ", start + len(data), len(pages))
                data += pages
            tables.append(table)
        options += [(3, struct.pack("<Q", place) + name.encode() + b"\0")
                    for name, place in zip(self.instances, places, strict=True)]  # fmt: skip
        out += b"".join(struct.pack("<HI", number, len(body)) + body for number, body in options) + b"\0\0"
        return (out + b"".join(tables)).ljust(start, b"\0") + data

    def v7(self) -> bytes:
        pack = PACK.get(self.compression)
        out = bytearray(MAGIC + b"7\0" + struct.pack("<BBI", 0, 8, self.page_size))
        out += self.compression.encode() + b"\0001.0\0"
        first = len(out)
        out += bytes(8)
        options = [(4, f"[{self.clock}] global".encode() + b"\0"), *self.options]
        for number, body in ((16, self._header()), (17, self._ftrace()), (18, self._formats()), (21, self._comms())):
            options.append((number, struct.pack("<Q", len(out))))
            content = _packed(pack, body) if pack else body
            out += struct.pack("<HHIQ", number, int(pack is not None), 0, len(content)) + content
        for name, cpus in (("", self.cpus), *self.instances.items()):
            place = len(out)
            out += struct.pack("<HHIQ", 3, int(pack is not None), 0, 0)
            table = b""
            for cpu, pages in enumerate(cpus):
                out += bytes(0 if pack else -len(out) % PAGE)
                start = len(out)
                out += self._chunks(pages, pack) if pack else pages
                table += struct.pack("<IQQ", cpu, start, len(out) - start)
            body = struct.pack("<Q", place) + name.encode() + b"\0" + self.clock.encode() + b"\0"
            options.append((3, body + struct.pack("<II", self.page_size, len(cpus)) + table))
        out[first : first + 8] = struct.pack("<Q", len(out))
        options.append((0, bytes(8)))
        body = b"".join(struct.pack("<HI", number, len(body)) + body for number, body in options)
        out += struct.pack("<HHIQ", 0, 0, 0, len(body)) + body
        return bytes(out)

    def _chunks(self, pages: bytes, pack: Callable[[bytes], bytes]) -> bytes:
        pieces = [pages[at : at + self.chunk] for at in range(0, len(pages), self.chunk)]
        return struct.pack("<I", len(pieces)) + b"".join(_packed(pack, piece) for piece in pieces)

    def _header(self) -> bytes:
        text = self.header_page.encode()
        return b"header_page\0" + _sized(text) + b"header_event\0" + _sized(b"# compressed entry header\n")

    def _ftrace(self) -> bytes:
        return struct.pack("<I", 0)

    def _formats(self) -> bytes:
        out = struct.pack("<I", len(self.formats))
        for system, texts in self.formats.items():
            out += system.encode() + b"\0" + struct.pack("<I", len(texts))
            out += b"".join(_sized(text.encode()) for text in texts)
        return out

    def _comms(self) -> bytes:
        return _sized(self.comms.encode())


def _sized(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def _packed(pack: Callable[[bytes], bytes], data: bytes) -> bytes:
    packed = pack(data)
    return struct.pack("<II", len(packed), len(data)) + packed
