"""A recording written as trace.dat version 7, the file that trace-cmd and KernelShark open.

The header names the compression and the first section of options; each option of a section's id holds the section's
place.  Pages of events are packed in chunks.  Sources: trace-cmd 3.1 ``Documentation/trace-cmd/trace-cmd.dat.v7.5.txt``
and ``lib/trace-cmd/trace-output.c``; its numbers are `Section` here.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, Final

from fpstate import __version__
from fpstate.traces import machine
from fpstate.traces.packing import Packing

__all__ = ["CHUNK_PAGES", "MAGIC", "Recording", "Section", "write"]

MAGIC: Final = b"\x17\x08\x44tracing"
_VERSION: Final = b"7"
_LONG: Final = struct.calcsize("=q")
_COMPRESSED: Final = 1
CHUNK_PAGES: Final = 64
"""Pages of the ring buffer that are compressed together; trace-cmd takes 10, which packs worse."""


class Section(IntEnum):
    """Options, and the sections that some of them point to."""

    DONE = 0
    CPUSTAT = 2
    BUFFER = 3
    TRACECLOCK = 4
    UNAME = 5
    CPUCOUNT = 8
    VERSION = 9
    STRINGS = 15
    HEADER_INFO = 16
    FTRACE_EVENTS = 17
    EVENT_FORMATS = 18
    CMDLINES = 21


_TITLES: Final = {
    Section.HEADER_INFO: "headers",
    Section.FTRACE_EVENTS: "ftrace events",
    Section.EVENT_FORMATS: "events format",
    Section.CMDLINES: "command lines",
    Section.DONE: "options",
    Section.BUFFER: "buffer flyrecord",
    Section.STRINGS: "strings",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What there is to write.

    Attributes:
        pages: CPU number to the file of its raw ring-buffer pages, each of *page_size* bytes.
        page_size: bytes.
        header_page, header_event: tracefs' files of these names in ``events``.
        ftrace: the ``format`` files of the system ``ftrace``.
        formats: system to the ``format`` files of its events.
        comms: thread to its name.
        clocks: ``trace_clock``'s text, which marks the clock in brackets.
        clock: that one's name.
        uname: what ``uname -a`` would say.
        stats: CPU number to its ``stats`` file.
        facts: `fpstate.traces.machine.describe` of the machine.
    """

    pages: Mapping[int, Path]
    page_size: int
    header_page: bytes
    header_event: bytes
    ftrace: Sequence[bytes]
    formats: Mapping[str, Sequence[bytes]]
    comms: Mapping[int, str]
    clocks: str
    clock: str
    uname: str
    stats: Mapping[int, str]
    facts: bytes


def write(file: BinaryIO, recording: Recording, packing: Packing) -> None:
    """Write *recording* into *file*, which is empty and seekable.

    Raises:
        OSError: a page file cannot be read, or *file* not be written.
    """
    _Writer(file, packing).write(recording)


class _Writer:
    """The file, and the titles of its sections, which come last."""

    def __init__(self, file: BinaryIO, packing: Packing) -> None:
        self._file = file
        self._packing = packing
        self._pack = packing.new()
        self._titles = b""

    def write(self, recording: Recording) -> None:
        names = f"{self._packing.name}\0{self._packing.version}\0".encode()
        big_endian = sys.byteorder == "big"
        self._file.write(MAGIC + _VERSION + b"\0" + struct.pack("=BBI", big_endian, _LONG, recording.page_size) + names)
        place = self._file.tell()
        self._file.write(bytes(8))
        options = self._sections(recording)
        options.append((Section.BUFFER, self._buffer(recording)))
        first = self._options(options)
        self._section(Section.STRINGS, self._titles + _title(Section.STRINGS))
        self._file.seek(place)
        self._file.write(struct.pack("=Q", first))

    def _sections(self, recording: Recording) -> list[tuple[int, bytes]]:
        """Write the sections that explain the events, and return all options but the buffer's."""
        headers = _named(b"header_page", recording.header_page) + _named(b"header_event", recording.header_event)
        systems = b"".join(_text(name) + _formats(each) for name, each in sorted(recording.formats.items()))
        comms = "".join(f"{thread} {name}\n" for thread, name in sorted(recording.comms.items()))
        sections = {
            Section.HEADER_INFO: headers,
            Section.FTRACE_EVENTS: _formats(recording.ftrace),
            Section.EVENT_FORMATS: struct.pack("=I", len(recording.formats)) + systems,
            Section.CMDLINES: _sized(comms.encode(errors="replace")),
        }
        options: list[tuple[int, bytes]] = []
        for section, body in sections.items():
            options.append((section, struct.pack("=Q", self._section(section, body))))
        options += [
            (Section.TRACECLOCK, _text(recording.clocks)),
            (Section.UNAME, _text(recording.uname)),
            (Section.VERSION, _text(f"fpstate {__version__}")),
            *((Section.CPUSTAT, _text(f"CPU: {cpu}\n{said}")) for cpu, said in sorted(recording.stats.items())),
            (Section.CPUCOUNT, struct.pack("=I", len(recording.pages))),
            (machine.OPTION, recording.facts),
        ]
        return options

    def _section(self, section: Section, body: bytes) -> int:
        """Write a compressed section and return its place."""
        packed = self._pack(body)
        return self._plain(section, struct.pack("=II", len(packed), len(body)) + packed, _COMPRESSED)

    def _plain(self, section: Section, data: bytes, flags: int = 0) -> int:
        """Write a section of *data* as it is and return its place."""
        at = self._file.tell()
        self._file.write(self._head(section, len(data), flags) + data)
        return at

    def _head(self, section: Section, size: int, flags: int) -> bytes:
        title = len(self._titles)
        if section is not Section.STRINGS:
            self._titles += _title(section)
        return struct.pack("=HHIQ", section, flags, title, size)

    def _buffer(self, recording: Recording) -> bytes:
        """Write the section of all CPUs' pages; return the option that tells where each CPU's are."""
        at = self._file.tell()
        head = self._head(Section.BUFFER, 0, _COMPRESSED)
        self._file.write(head)
        places = b""
        for cpu, path in sorted(recording.pages.items()):
            start = self._file.tell()
            self._chunks(path, recording.page_size)
            places += struct.pack("=IQQ", cpu, start, self._file.tell() - start)
        end = self._file.tell()
        self._file.seek(at)
        self._file.write(head[:8] + struct.pack("=Q", end - at - len(head)))
        self._file.seek(end)
        pages = struct.pack("=II", recording.page_size, len(recording.pages))
        return struct.pack("=Q", at) + _text("") + _text(recording.clock) + pages + places

    def _chunks(self, path: Path, page_size: int) -> None:
        """Write the pages of one CPU: how many chunks, and each with its sizes."""
        size = CHUNK_PAGES * page_size
        count = -(-os.stat(path).st_size // size)  # noqa: PTH116 - its size is all
        self._file.write(struct.pack("=I", count))
        for plain, packed in self._packing.each(_pieces(path, size)):
            self._file.write(struct.pack("=II", len(packed), plain) + packed)

    def _options(self, options: Sequence[tuple[int, bytes]]) -> int:
        """Write the section of options and return its place; the last one says that no section follows."""
        ending = (Section.DONE, struct.pack("=Q", 0))
        data = b"".join(struct.pack("=HI", number, len(body)) + body for number, body in (*options, ending))
        return self._plain(Section.DONE, data)


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(size):
            yield piece


def _title(section: Section) -> bytes:
    return _text(_TITLES[section])


def _text(text: str) -> bytes:
    return text.encode(errors="replace") + b"\0"


def _sized(data: bytes) -> bytes:
    return struct.pack("=Q", len(data)) + data


def _named(name: bytes, data: bytes) -> bytes:
    return name + b"\0" + _sized(data)


def _formats(formats: Sequence[bytes]) -> bytes:
    return struct.pack("=I", len(formats)) + b"".join(_sized(each) for each in formats)
