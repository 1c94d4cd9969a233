"""ELF cores, written note by note, as Linux, FreeBSD and NetBSD write them.

Sources: Linux 6.18 ``fs/binfmt_elf.c`` and ``include/linux/elfcore.h``; FreeBSD 14 ``sys/sys/procfs.h``; NetBSD 10
``sys/sys/exec_elf.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import fpstate
from fpstate.sources import elfcore

CORE, LINUX, FREEBSD = b"CORE", b"LINUX", b"FreeBSD"
ZEN4 = "zen4"
XCR0 = 0xE7


def note(owner: bytes, kind: int, contents: bytes, *, size: int | None = None) -> bytes:
    """Return a note; *size* is what it says that its contents have."""
    said = len(contents) if size is None else size
    return struct.pack("<III", len(owner) + 1, said, kind) + _padded(owner + b"\0") + _padded(contents)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


@dataclass(frozen=True)
class Abi:
    """An ELF class and machine, and where ``struct elf_prstatus`` has pr_pid."""

    elf_class: int
    machine: int
    prstatus: int
    pid: int


X86_64, I386, X32 = Abi(2, 62, 336, 32), Abi(1, 3, 144, 24), Abi(1, 62, 296, 24)


def prstatus(tid: int, abi: Abi = X86_64) -> bytes:
    contents = bytearray(abi.prstatus)
    struct.pack_into("<I", contents, abi.pid, tid)
    return note(CORE, elfcore.NT_PRSTATUS, bytes(contents))


def prpsinfo(name: bytes, abi: Abi = X86_64) -> bytes:
    size, at = (136, 40) if abi.elf_class == 2 else (124, 28)
    return note(CORE, elfcore.NT_PRPSINFO, bytes(at) + name.ljust(size - at, b"\0"))


def xstate(image: bytes) -> bytes:
    return note(LINUX, elfcore.NT_X86_XSTATE, image)


def layout(places: Iterable[tuple[int, int, int]]) -> bytes:
    """Return NT_X86_XSAVE_LAYOUT of (component, size, offset)."""
    records = b"".join(struct.pack("<IIII", bit, size, offset, 0) for bit, size, offset in places)
    return note(LINUX, elfcore.NT_X86_XSAVE_LAYOUT, records)


def layout_of(cpu: str = ZEN4, xcr0: int = XCR0) -> bytes:
    components = fpstate.cpu_by_name(cpu).components
    return layout((c.bit, c.size, c.offset) for c in components.values() if xcr0 >> c.bit & 1 and c.offset is not None)


def image(values: dict[str, bytes] | None = None, cpu: str = ZEN4, xcr0: int = XCR0) -> bytes:
    """Return what NT_X86_XSTATE of a thread with *values* has on *cpu*."""
    made = bytearray(fpstate.encode_image(fpstate.cpu_by_name(cpu), values or {}, components=xcr0))
    made[464:472] = xcr0.to_bytes(8, "little")
    return bytes(made)


def thread(tid: int, state: bytes, abi: Abi = X86_64, extra: bytes = b"") -> bytes:
    """Return the notes of one thread, as fill_thread_core_info() orders them."""
    fpregs = note(CORE, elfcore.NT_PRFPREG, state[:512] if abi.machine == 62 else bytes(elfcore.FSAVE_SIZE))
    return prstatus(tid, abi) + fpregs + xstate(state) + extra


def core(
    notes: bytes | Sequence[bytes],
    abi: Abi = X86_64,
    *,
    said: int | None = None,
    memory: bytes = b"",
    extended: bool = False,
) -> bytes:
    """Return a core with a segment of *notes* and one of *memory*.

    Args:
        notes: the contents of PT_NOTE.
        abi: its class and machine.
        said: what p_filesz of PT_NOTE says, if not the truth.
        memory: the contents of PT_LOAD, behind the notes.
        extended: count the program headers in a section header, as for more than 65,534.
    """
    body = notes if isinstance(notes, bytes) else b"".join(notes)
    wide = abi.elf_class == 2
    head, entry, section = (64, 56, 64) if wide else (52, 32, 40)
    start = head + 2 * entry
    length = len(body) if said is None else said
    ident = b"\x7fELF" + bytes((abi.elf_class, 1, 1)) + bytes(9)
    end = start + len(body) + len(memory)
    shape = "<16sHHIQQQIHHHHHH" if wide else "<16sHHIIIIIHHHHHH"
    count = 0xFFFF if extended else 2
    sections = end if extended else 0
    made = struct.pack(shape, ident, 4, abi.machine, 1, 0, head, sections, 0, head, entry, count, section, 1, 0)
    loaded = start + len(body)
    if wide:
        made += struct.pack("<IIQQQQQQ", 4, 0, start, 0, 0, length, 0, 4)
        made += struct.pack("<IIQQQQQQ", 1, 6, loaded, 0x1000, 0, len(memory), len(memory), 4096)
    else:
        made += struct.pack("<8I", 4, start, 0, 0, length, 0, 0, 4)
        made += struct.pack("<8I", 1, loaded, 0x1000, 0, len(memory), len(memory), 6, 4096)
    made += body + memory
    if extended:
        info = 44 if wide else 28
        made += bytes(info) + struct.pack("<I", 2) + bytes(section - info - 4)
    return made


def many(count: int, state: bytes, extra: bytes = b"") -> bytes:
    """Return a Linux core of *count* threads, numbered from 1000, whose zmm0 starts with their number."""
    notes = []
    for tid in range(1000, 1000 + count):
        own = bytearray(state)
        struct.pack_into("<I", own, 160, tid)
        notes.append(thread(tid, bytes(own)))
    process = prpsinfo(b"many") + note(CORE, 0x46494C45, bytes(100))
    return core([notes[0][: len(prstatus(0))], process, notes[0][len(prstatus(0)) :], *notes[1:], extra])
