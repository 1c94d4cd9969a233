"""ELF cores of x86: Linux (64-bit, i386, x32; the kernel's and gdb's gcore), FreeBSD and NetBSD.

The walk over the notes is our own few lines of ``struct``: it copies nothing, looks at no memory segment, and takes the
notes of a run of threads that repeat each other in one call, which is what makes a thousand threads cost milliseconds.

Sources: Linux 6.18 ``fs/binfmt_elf.c`` (``fill_note_info()``, ``write_note_info()``), ``include/uapi/linux/elf.h``,
``arch/x86/kernel/fpu/xstate.c`` (``elf_coredump_extra_notes_write()``); FreeBSD 14 ``sys/sys/procfs.h`` and
``sys/kern/imgact_elf.c``; NetBSD 10 ``sys/kern/core_elf32.c`` and ``sys/sys/exec_elf.h``; the System V gABI, chapter 5.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, overload

from fpstate.cpu.model import Component
from fpstate.errors import UnreadableInput, printable
from fpstate.linux.notes import (
    NT_PRFPREG,
    NT_PRPSINFO,
    NT_PRSTATUS,
    NT_PRXFPREG,
    NT_X86_SHSTK,
    NT_X86_XSAVE_LAYOUT,
    NT_X86_XSTATE,
)
from fpstate.sources.capture import Abi, Capture, Damage, Form, Thread
from fpstate.sources.input import Input
from fpstate.xfeatures import CATALOGUE, FSAVE_SIZE, LAST, LEGACY, LEGACY_SIZE, MIN_SIZE, SOFTWARE

__all__ = [
    "FSAVE_SIZE",
    "NT_PRFPREG",
    "NT_PRPSINFO",
    "NT_PRSTATUS",
    "NT_PRXFPREG",
    "NT_X86_SHSTK",
    "NT_X86_XSAVE_LAYOUT",
    "NT_X86_XSTATE",
    "Segment",
    "Span",
    "Threads",
    "memory",
    "read",
    "sniff",
]

_FREEBSD_THRMISC: Final = 7
_NETBSD_PROCINFO: Final = 1
_NO_STATE: Final = frozenset({0x200, 0x201})
"""NT_386_TLS and NT_386_IOPERM: the latter is as long as an image."""
_STRAY: Final = -1
"""Stands for the type of a note that is like an image and has no type that is known."""
_NETBSD_GETFPREGS: Final = 35
"""PT_GETFPREGS, PT_FIRSTMACH + 3 on i386 and amd64."""

_ET_CORE, _EM_386, _EM_X86_64 = 4, 3, 62
_PT_LOAD, _PT_NOTE, _PN_XNUM = 1, 4, 0xFFFF
_MOST_SEGMENTS: Final = 1 << 22
"""Program headers looked at; vm.max_map_count is rarely above a million."""
_MOST_NOTES: Final = 1 << 18
"""Notes looked at that are not part of a run: 60,000 threads that all differ."""
_MOST_DAMAGE: Final = 1000
"""Findings that are listed: a damaged core can have one for every note and every segment."""
_LONGEST_NAME: Final = 64
"""Bytes of an owner's name; ``NetBSD-CORE@`` and a number have at most 23."""
_NOTE: Final = struct.Struct("<III")
_RECORD: Final = struct.Struct("<IIII")
_LARGEST_COMPONENT: Final = 1 << 16
_LARGEST_IMAGE: Final = 1 << 16


class _Class(NamedTuple):
    """What depends on ELFCLASS; *fields* is where a program header has p_offset, p_vaddr, p_filesz and p_flags."""

    header: struct.Struct
    segment: struct.Struct
    fields: tuple[int, int, int, int]
    section_info: int
    freebsd_tid: int


_CLASSES: Final = {
    1: _Class(struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<8I"), (1, 2, 4, 6), 28, 24),
    2: _Class(struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), (2, 3, 5, 1), 44, 40),
}
_LINUX_TID: Final[Mapping[tuple[int, int], int]] = {(2, 336): 32, (1, 144): 24, (1, 296): 24}
"""Where ``struct elf_prstatus`` has pr_pid, by class and size: 64-bit, i386, x32."""
_LINUX_NAME: Final[Mapping[int, int]] = {136: 40, 128: 32, 124: 28}
"""Where ``struct elf_prpsinfo`` has pr_fname, 16 bytes, by size: 64-bit, x32 (16- and 32-bit ids), i386."""


class Segment(NamedTuple):
    """A segment: where its contents lie in the file, its address, the bytes of its contents, and p_flags."""

    offset: int
    address: int
    size: int
    flags: int


class _Note(NamedTuple):
    """A note: where it begins, where its contents lie, how many bytes are there, and how many it says."""

    kind: int
    start: int
    at: int
    size: int
    said: int


class _Group:
    """The notes of one thread; *count* threads whose notes repeat them every *stride* bytes.

    Attributes:
        tids: one for each thread.
        notes: those of the first thread that are kept, by type.
        listed: every note of the first thread.
        stride: bytes from a thread to the next.
        name: of the thread, where a note of its own tells.
        damage: found in its notes.
    """

    __slots__ = ("damage", "listed", "name", "notes", "stride", "tids")

    def __init__(self, tid: int | None) -> None:
        self.tids: list[int | None] = [tid]
        self.notes: dict[int, _Note] = {}
        self.listed: list[_Note] = []
        self.stride = 0
        self.name = ""
        self.damage: list[Damage] = []


class Span(NamedTuple):
    """Images that lie equally spaced: where the first one begins, the bytes of one, how many, and the step."""

    offset: int
    size: int
    images: int
    stride: int


class Threads(Sequence[Thread]):
    """The threads of a core, each made when it is asked for."""

    def __init__(self, data: memoryview, groups: Sequence[_Group], abi: Abi, name: str) -> None:
        self.layout: dict[int, Component] | None = None
        self.data = data
        self._groups = groups
        self._abi = abi
        self._name = name
        self._ends: list[int] = []
        for group in groups:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(group.tids))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Thread: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Thread]: ...

    def __getitem__(self, index: int | slice) -> Thread | Sequence[Thread]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, place)
        group = self._groups[number]
        return self._thread(group, place - (self._ends[number - 1] if number else 0))

    def __iter__(self) -> Iterator[Thread]:
        for group in self._groups:
            for i in range(len(group.tids)):
                yield self._thread(group, i)

    @property
    def tids(self) -> list[int | None]:
        """Every thread's number, in the core's order."""
        return [tid for group in self._groups for tid in group.tids]

    @property
    def spans(self) -> list[tuple[Form, Span]]:
        """Where the images lie, and of what form they are, in the order of the threads."""
        found = []
        for group in self._groups:
            form, note = _state(group)
            if note is not None:
                size = min(note.size, len(self.data) - note.at)
                found.append((form, Span(note.at, size, len(group.tids), group.stride)))
        return found

    def _thread(self, group: _Group, i: int) -> Thread:
        step = i * group.stride
        form, note = _state(group)
        start = 0 if note is None else note.at + step
        image = self.data[start : start + (0 if note is None else note.size)]
        enabled = None
        if form == "xsave" and len(image) >= LEGACY_SIZE:
            enabled = int.from_bytes(image[SOFTWARE : SOFTWARE + 8], "little")  # struct user_xstateregs; FreeBSD too
            if enabled & LEGACY != LEGACY or enabled >> LAST + 1:
                enabled = None
        values = {}
        ssp = group.notes.get(NT_X86_SHSTK)
        if ssp is not None:
            values["ssp"] = int.from_bytes(self.data[ssp.at + step : ssp.at + step + ssp.size], "little")
        return Thread(
            tid=group.tids[i],
            image=image,
            form=form,
            name=group.name or self._name,
            abi=self._abi,
            offset=None if note is None else start,
            enabled=enabled,
            layout=self.layout if form == "xsave" else None,
            values=values,
            damage=tuple(group.damage),
            said=None if note is None or note.said == note.size else note.said,
        )


def _state(group: _Group) -> tuple[Form, _Note | None]:
    """Return the note that says most of a thread's state, and the form of its contents."""
    notes = group.notes
    if NT_X86_XSTATE in notes or _STRAY in notes:
        return "xsave", notes.get(NT_X86_XSTATE) or notes[_STRAY]
    if NT_PRXFPREG in notes:
        return "fxsave", notes[NT_PRXFPREG]
    note = notes.get(NT_PRFPREG)
    if note is None:
        return "none", None
    return ("fsave" if note.size == FSAVE_SIZE else "fxsave"), note


def sniff(source: Input) -> bool:
    """Tell whether *source* begins as an ELF file does."""
    return source.head.startswith(b"\x7fELF")


def read(source: Input) -> Capture:
    """Return the threads of the ELF core in *source*.

    Raises:
        UnreadableInput: it is no core, not of x86, or has no thread with state.
    """
    return _Core(source).capture()


def memory(source: Input) -> Iterator[Segment]:
    """Yield the segments of memory that the ELF core in *source* has contents of.

    Raises:
        UnreadableInput: it is no core, or not of x86.
    """
    if not sniff(source):
        cure = "frames are looked for in a core or a process; a frame by itself is known without --frames"
        raise UnreadableInput(f"{source.name} is no ELF core", cure=cure)
    return _Headers(source).segments(_PT_LOAD)


class _Headers:
    """A core's ELF header and program headers.

    Attributes:
        source: the core.
        damage: what is wrong with it.
        kind: ELFCLASS.
        header: the fields of the ELF header.
        shape: what depends on the class.
    """

    def __init__(self, source: Input) -> None:
        self.source = source
        self.damage: list[Damage] = []
        self.hurts = 0
        self.kind, self.header = self._header()
        self.shape = _CLASSES[self.kind]

    def hurt(self, rule: str, text: str, offset: int, cure: str = "", *, group: _Group | None = None) -> None:
        """Note what is wrong, with the core or with a thread of *group*; of a great deal only the first."""
        self.hurts += 1
        if self.hurts <= _MOST_DAMAGE:
            damage = self.damage if group is None else group.damage
            damage.append(Damage(f"elf.{rule}", text, offset, cure))

    def _header(self) -> tuple[int, tuple[int, ...]]:
        name = self.source.name
        data = self.source.upto(64)
        kind = data[4] if len(data) > 5 else 0
        if kind not in _CLASSES or len(data) < _CLASSES[kind].header.size:
            raise UnreadableInput(f"{name} is no whole ELF file: its header is damaged or truncated")
        if data[5] != 1:
            raise UnreadableInput(f"{name} is a big-endian ELF file: x86 is little-endian")
        header = _CLASSES[kind].header.unpack_from(data)
        if header[2] not in {_EM_386, _EM_X86_64}:
            raise UnreadableInput(f"{name} is an ELF file for machine {header[2]}, not for x86")
        if header[1] != _ET_CORE:
            raise UnreadableInput(f"{name} is an ELF file of type {header[1]}, not a core (4)", cure="give a core")
        return kind, header

    def segments(self, kind: int) -> Iterator[Segment]:
        """Yield the segments of p_type *kind*, as far as the source has their program headers."""
        start, size = self.header[5], self.header[9]
        shape = self.shape.segment
        if size < shape.size:
            raise UnreadableInput(
                f"{self.source.name} has program headers of {size} bytes, an ELF core of {shape.size}"
            )
        count = self._segment_count(start, size)
        data = self.source.upto(start + count * size)
        there = max(0, min(count, (len(data) - start) // size))
        if there < count:
            text = f"the core has {count} program headers, the file room for {there}"
            self.hurt("program-headers", text, start, "it was truncated: give all of it")
        table = data[start : start + there * size]
        offset, address, length, flags = self.shape.fields
        whole = struct.Struct(f"{shape.format}{size - shape.size}x")
        for segment in whole.iter_unpack(table):
            if segment[0] == kind and segment[length]:
                yield Segment(segment[offset], segment[address], segment[length], segment[flags])

    def _segment_count(self, start: int, size: int) -> int:
        """Return e_phnum, or what stands for it: sh_info of the first section header (gABI, extended numbering)."""
        count, sections = self.header[10], self.header[6]
        if count == _PN_XNUM:
            data = self.source.upto(start + size)
            if self.source.whole:
                at = sections + self.shape.section_info
                count = int.from_bytes(data[at : at + 4], "little") if sections else 0
            if not self.source.whole or not count:  # the first segment lies behind the headers: Linux, gdb
                first = self.shape.segment.unpack_from(data, start) if len(data) >= start + size else None
                room = 0 if first is None else first[self.shape.fields[0]] - start
                count = max(0, room // size)
        if count > _MOST_SEGMENTS:
            self.hurt("program-headers", f"the core says that it has {count} program headers", start)
            count = _MOST_SEGMENTS
        return count


class _Core(_Headers):
    """One core while it is read."""

    def __init__(self, source: Input) -> None:
        super().__init__(source)
        self.name = ""
        self.groups: list[_Group] = []
        self.layout: dict[int, Component] | None = None
        self.dumping: int | None = None
        self.notes = 0
        self.by_gdb = False
        segments = sorted((segment.offset, segment.size) for segment in self.segments(_PT_NOTE))
        self.data = source.upto(max((at + size for at, size in segments), default=0))
        end = 0
        for at, size in segments:
            if at < end:
                self.hurt("segment-overlap", f"a note segment begins at {at}, within one that ends at {end}", at)
                continue
            self._walk(at, size)
            end = at + size

    def capture(self) -> Capture:
        if not self.groups:
            why = f": {self.damage[0].text}" if self.damage else ""
            raise UnreadableInput(f"{self.source.name} is a core without the notes of any thread{why}")
        if self.dumping is not None:
            self.groups.sort(key=lambda group: self.dumping not in group.tids)
        if self.hurts > _MOST_DAMAGE:
            text = f"{self.hurts - _MOST_DAMAGE} more findings are not listed"
            self.damage.append(Damage("elf.damage-beyond", text, None, "take the core again, or copy it again"))
        machine = self.header[2]
        abi: Abi = "i386" if machine == _EM_386 else "x32" if self.kind == 1 else "x86-64"
        threads = Threads(self.data, self.groups, abi, self.name)
        threads.layout = self.layout
        return Capture(
            self.source.name, "elf-core", threads, damage=tuple(self.damage), maker="gdb" if self.by_gdb else ""
        )

    # -- notes ----------------------------------------------------------------------------------------------------

    def _walk(self, at: int, size: int) -> None:
        """Read the notes of the segment at *at*, *size* bytes."""
        data = self.data
        end = at + size
        if end > len(data):
            text = f"the note segment has {size} bytes from {at} on, the file ends at {len(data)}"
            self.hurt("segment-truncated", text, at, "the core was truncated: is there room on the disk?")
            end = len(data)
        while at + _NOTE.size <= end:
            name_size, length, kind = _NOTE.unpack_from(data, at)
            name_at = at + _NOTE.size
            contents = name_at + (name_size + 3 & ~3)
            if not name_size and not kind:
                self.hurt("note-empty", "there is a note without an owner and a type: what follows is no note", at)
                return
            self.notes += 1
            if self.notes > _MOST_NOTES:
                self.hurt("too-many-notes", f"the core has more than {_MOST_NOTES} notes: the rest is left aside", at)
                return
            owner = bytes(data[name_at : min(name_at + name_size, name_at + _LONGEST_NAME, end)]).rstrip(b"\0")
            if contents + length > end:
                text = f"{_called(owner, kind)} says that it has {length} bytes, "
                text += f"its segment has {max(0, end - contents)} more"
                self.hurt("note-truncated", text, at, "the core was truncated, or the note's length is damaged")
            there = max(0, min(length, end - contents))
            note = _Note(kind, at, contents, there, length)
            self._note(owner, note)
            if self.groups:
                self.groups[-1].listed.append(note)
            at = contents + (length + 3 & ~3)
            if kind != NT_PRSTATUS and self.groups:
                at = self._repeat(at, end)

    def _note(self, owner: bytes, note: _Note) -> None:
        if owner == b"CORE":
            self._core_note(note)
        elif owner == b"LINUX":
            self._linux_note(note)
        elif owner == b"FreeBSD":
            self._freebsd_note(note)
        elif owner.startswith(b"NetBSD-CORE"):
            self._netbsd_note(owner, note)

    def _core_note(self, note: _Note) -> None:
        if note.kind == NT_PRSTATUS:
            offset = _LINUX_TID.get((self.kind, note.size))
            if offset is None:
                self.hurt(
                    "note-size", f"NT_PRSTATUS has {note.size} bytes: its thread's number is not read", note.start
                )
            self._begin(None if offset is None else self._number(note.at + offset, 4))
        elif note.kind == NT_PRPSINFO:
            self.by_gdb |= not self.groups  # gcore starts with it, the kernel with the first thread
            offset = _LINUX_NAME.get(note.size)
            if offset is not None:
                self.name = self._text(note.at + offset, 16)
        elif note.kind == NT_PRFPREG:
            self._keep(note, "NT_PRFPREG", (LEGACY_SIZE, FSAVE_SIZE))

    def _linux_note(self, note: _Note) -> None:
        if note.kind == NT_X86_XSTATE:
            self._keep(note, "NT_X86_XSTATE", ())
        elif note.kind == NT_PRXFPREG:
            self._keep(note, "NT_PRXFPREG", (LEGACY_SIZE,))
        elif note.kind == NT_X86_SHSTK:
            self._keep(note, "NT_X86_SHSTK", (8,))
        elif note.kind == NT_X86_XSAVE_LAYOUT:
            self._layout(note)
        elif note.kind not in _NO_STATE and self._like_an_image(note):
            self._keep(note._replace(kind=_STRAY), f"note {note.kind:#x}", ())
            text = f"note {note.kind:#x} of LINUX has no type that is known, and {note.size} bytes like an XSAVE image"
            cure = f"NT_X86_XSTATE is {NT_X86_XSTATE:#x}: was it meant? It is shown if there is none"
            self.groups[-1].damage.append(Damage("elf.note-type", text, note.start, cure))

    def _like_an_image(self, note: _Note) -> bool:
        """Tell whether the contents can be an XSAVE image: an MXCSR, and nothing in the header's reserved bytes."""
        if not MIN_SIZE <= note.size <= _LARGEST_IMAGE:
            return False
        head = self.data[note.at : note.at + MIN_SIZE]
        return 0 < int.from_bytes(head[24:28], "little") <= 0xFFFF and not any(head[LEGACY_SIZE + 16 :])

    def _freebsd_note(self, note: _Note) -> None:
        if note.kind == NT_PRSTATUS:
            self._begin(self._number(note.at + self.shape.freebsd_tid, 4) if note.size >= 48 else None)
        elif note.kind == NT_PRFPREG and note.size in {LEGACY_SIZE, FSAVE_SIZE}:
            self._keep(note, "NT_FPREGSET", ())
        elif note.kind == NT_PRPSINFO:  # pr_version, pr_psinfosz, pr_fname[17]
            self.name = self._text(note.at + (16 if self.kind == 2 else 8), 17) if note.size >= 40 else ""
        elif note.kind == _FREEBSD_THRMISC and self.groups:
            self.groups[-1].name = self._text(note.at, min(20, note.size))
        elif note.kind == NT_X86_XSTATE:
            self._keep(note, "NT_X86_XSTATE", ())

    def _netbsd_note(self, owner: bytes, note: _Note) -> None:
        """Take a note of a light-weight process, or the one of the process: ``struct netbsd_elfcore_procinfo``."""
        number = owner.partition(b"@")[2]
        if not number.isdigit():
            if note.kind == _NETBSD_PROCINFO and note.size >= 160:
                self.name = self._text(note.at + 124, 32)
                self.dumping = self._number(note.at + 156, 4)  # cpi_siglwp
            return
        tid = int(number)
        if not self.groups or self.groups[-1].tids != [tid]:
            self.groups.append(_Group(tid))
        if note.kind == _NETBSD_GETFPREGS and note.size in {LEGACY_SIZE, FSAVE_SIZE}:
            self._keep(note._replace(kind=NT_PRFPREG), "PT_GETFPREGS", ())

    def _begin(self, tid: int | None) -> None:
        self.groups.append(_Group(tid))

    def _keep(self, note: _Note, name: str, sizes: tuple[int, ...]) -> None:
        """Keep a note of the thread that was begun last if its size is one of *sizes*, or *sizes* is empty."""
        if not self.groups:
            self.hurt("note-orphan", f"{name} stands before the first NT_PRSTATUS: its thread is unknown", note.start)
            self.groups.append(_Group(None))
        group = self.groups[-1]
        if note.kind in group.notes:
            text = f"thread {group.tids[-1]} has a second {name}: the first one counts"
            self.hurt("note-twice", text, note.start, group=group)
        elif sizes and note.size not in sizes:
            text = f"{name} ({note.kind:#x}) has {note.size} bytes, not {' or '.join(map(str, sizes))}"
            cure = ""
            if note.kind == NT_X86_SHSTK and note.size and not note.size % _RECORD.size:
                cure = f"if it was meant as NT_X86_XSAVE_LAYOUT: that is {NT_X86_XSAVE_LAYOUT:#x}"
            self.hurt("note-size", text, note.start, cure, group=group)
        else:
            group.notes[note.kind] = note

    def _layout(self, note: _Note) -> None:
        """Read NT_X86_XSAVE_LAYOUT: a record of type, size, offset and flags for each extended user component."""
        found: dict[int, Component] = {}
        if note.said % _RECORD.size:
            text = f"NT_X86_XSAVE_LAYOUT has {note.said} bytes, no multiple of {_RECORD.size}"
            self.hurt("layout-size", text, note.start)
        for at in range(note.at, note.at + note.size - _RECORD.size + 1, _RECORD.size):
            if len(found) > LAST:
                break
            bit, size, offset, _ = _RECORD.unpack_from(self.data, at)
            why = _odd_record(bit, size, offset, found)
            if why:
                text = f"NT_X86_XSAVE_LAYOUT gives component {bit} {size} bytes at {offset}: {why}"
                self.hurt("layout-record", text, at, "the component is left out; name the CPU with --cpu")
                continue
            row = CATALOGUE.get(bit)
            found[bit] = Component(bit, size, offset, aligned=row is not None and row.aligned)
        self.layout = found

    # -- runs of threads ------------------------------------------------------------------------------------------

    def _repeat(self, at: int, end: int) -> int:
        """Take the threads from *at* on whose notes repeat those of the last thread; return where they end.

        The last of them is left to the walk: notes of its own, or of the process, may follow it.
        """
        group = self.groups[-1]
        tid = self._tid_place(group)
        if tid is None or len(group.tids) != 1 or not self._begins_another(group.listed[0], at):
            return at
        first = group.listed[0].start
        stride = at - first
        if (end - at) // stride < 2:
            return at
        shape, wanted = self._pattern(group, tid - first)
        if shape.size != stride:
            return at
        block = self.data[at : at + (end - at) // stride * stride]
        more: list[int | None] = []
        for found in shape.iter_unpack(block):
            if found[0] != wanted[0] or found[2:] != wanted[2:]:
                break
            more.append(found[1])
        more = more[:-1]
        if more:
            group.tids += more
            group.stride = stride
        return at + len(more) * stride

    def _begins_another(self, first: _Note, at: int) -> bool:
        """Tell whether the note at *at* begins a thread as *first* does: only then the notes between are compared."""
        head = first.at - first.start
        found = self.data[at : at + head] if head <= _NOTE.size + _LONGEST_NAME else b""
        return found == self.data[first.start : first.at]

    def _tid_place(self, group: _Group) -> int | None:
        note = group.listed[0] if group.listed else None
        if note is None or note.kind != NT_PRSTATUS or group.damage:
            return None
        offset = _LINUX_TID.get((self.kind, note.size))
        return None if offset is None else note.at + offset

    def _pattern(self, group: _Group, tid: int) -> tuple[struct.Struct, tuple[bytes | int, ...]]:
        """Return how to take a thread's notes apart: their heads, and as second field the thread's number."""
        first = group.listed[0].start
        parts = []
        for note in group.listed:
            head = note.at - note.start
            size = note.size + 3 & ~3
            if note is group.listed[0]:
                before = tid - head
                parts.append(f"{head}s{before}xI{size - before - 4}x")
            else:
                parts.append(f"{head}s{size}x")
        shape = struct.Struct("<" + "".join(parts))
        return shape, shape.unpack_from(self.data, first)

    # -- fields ---------------------------------------------------------------------------------------------------

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self.data[at : at + size], "little")

    def _text(self, at: int, size: int) -> str:
        raw = bytes(self.data[at : at + size]).partition(b"\0")[0]
        return printable(raw.decode("utf-8", "replace"))


_NAMES: Final = {
    (b"CORE", NT_PRSTATUS): "NT_PRSTATUS",
    (b"CORE", NT_PRFPREG): "NT_PRFPREG",
    (b"CORE", NT_PRPSINFO): "NT_PRPSINFO",
    (b"LINUX", NT_PRXFPREG): "NT_PRXFPREG",
    (b"LINUX", NT_X86_XSTATE): "NT_X86_XSTATE",
    (b"LINUX", NT_X86_SHSTK): "NT_X86_SHSTK",
    (b"LINUX", NT_X86_XSAVE_LAYOUT): "NT_X86_XSAVE_LAYOUT",
    (b"FreeBSD", NT_X86_XSTATE): "NT_X86_XSTATE",
}


def _called(owner: bytes, kind: int) -> str:
    """Return what to call a note: by its type's name, where it has one, and number."""
    name = _NAMES.get((owner, kind))
    number = f"note {kind:#x} of {printable(owner.decode('ascii', 'replace'))}"
    return number if name is None else f"{number}, {name},"


def _odd_record(bit: int, size: int, offset: int, found: Mapping[int, Component]) -> str:
    """Return why a record of the layout cannot be meant, or ""."""
    if not 2 <= bit <= LAST:
        return f"extended components are 2 to {LAST}"
    if bit in found:
        return "it is given twice"
    if not 0 < size <= _LARGEST_COMPONENT:
        return f"a component has 1 to {_LARGEST_COMPONENT} bytes"
    if offset < MIN_SIZE:
        return f"the extended region begins at {MIN_SIZE}"
    for other in found.values():
        if other.offset is not None and offset < other.offset + other.size and other.offset < offset + size:
            return f"it overlaps component {other.bit}"
    return ""
