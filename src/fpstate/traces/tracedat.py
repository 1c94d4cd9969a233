"""``trace.dat``, trace-cmd's file: versions 6 and 7, with what is compressed in it.

Sources: trace-cmd 3.x ``Documentation/trace-cmd/trace-cmd.dat.v6.5.txt`` and ``trace-cmd.dat.v7.5.txt``,
``lib/trace-cmd/trace-input.c``, ``lib/trace-cmd/trace-compress*.c``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from fpstate.errors import UnreadableInput, UsageError, printable
from fpstate.sources.capture import Damage
from fpstate.traces.ahead import read_ahead
from fpstate.traces.bytesource import Cursor, Short
from fpstate.traces.decoder import Batch, Decoder
from fpstate.traces.formats import Format, read_fields, read_format
from fpstate.traces.recording import Request
from fpstate.traces.ring import Layout
from fpstate.traces.trace import Facts, Trace
from fpstate.traces.unpack import MOST_CHUNK, unpacker

__all__ = ["MAGIC", "read", "sniff"]

MAGIC: Final = b"\x17\x08\x44tracing"

_MOST_SECTION: Final = 1 << 28
"""Bytes of a section unpacked: a kernel's formats are 2 MB, its symbols 10."""
_MOST_OPTIONS: Final = 4096
_MOST_CPUS: Final = 8192
"""NR_CPUS of x86 (Linux ``arch/x86/Kconfig``)."""
_BLOCK: Final = 4 << 20
_LEAST_BLOCK: Final = 1 << 20
"""Bytes of pages that are decoded at once: less of each where there are many CPUs."""
_PEEK: Final = 1 << 18
"""Bytes of each CPU's pages that are looked at to choose a buffer."""
_COMPRESSED: Final = 1

# Options, and sections of version 7 (trace-cmd ``enum tracecmd_option_id``).
_DONE, _CPUSTAT, _BUFFER, _CLOCK, _UNAME, _CPUCOUNT, _TSC2NSEC = 0, 2, 3, 4, 5, 8, 14
_HEADER_INFO, _FTRACE_FORMATS, _FORMATS, _CMDLINES, _BUFFER_TEXT = 16, 17, 18, 21, 22
_SECTIONS: Final = {_HEADER_INFO: "header", _FTRACE_FORMATS: "ftrace formats", _FORMATS: "formats", _CMDLINES: "comms"}

_OVERRUN: Final = re.compile(r"^(CPU: *\d+)|^(overrun|dropped events|commit overrun): *(\d+)", re.MULTILINE)


@dataclass(slots=True)
class _Buffer:
    """A ring buffer of the recording: the top one, or an instance.

    Attributes:
        name: "" for the top one.
        clock: of its times.
        page: bytes of a page.
        parts: (CPU, offset, bytes) in the file.
        packed: whether they are compressed.
    """

    name: str
    clock: str = ""
    page: int = 0
    parts: list[tuple[int, int, int]] = field(default_factory=list)
    packed: bool = False


def sniff(head: bytes) -> bool:
    """Say whether a file begins as trace.dat does."""
    return head.startswith(MAGIC)


def read(request: Request) -> Trace:
    """Open a ``trace.dat``.

    Raises:
        UnreadableInput: it is none that an x86 machine wrote, or of an unknown version or compression.
        UsageError: it has no such instance.
    """
    return _File(request).trace()


class _File:
    """What stands in the file before its pages."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.data = request.data
        self.damage: list[Damage] = []
        self.notes: list[str] = []
        self.formats: list[Format] = []
        self.buffers: list[_Buffer] = []
        self.header: dict[str, object] = {}
        self.layout: Layout | None = None
        self.comms: list[tuple[int, bytes]] = []
        self.facts = Facts()
        self.clock = ""
        self.cpus = 0
        self.compression = "none"
        self.unpack: Callable[[memoryview, int], bytes] = unpacker("none")

    def trace(self) -> Trace:
        """Read all that is no page, and return the recording."""
        cursor = Cursor(self.data, len(MAGIC))
        try:
            version = cursor.text(16)
            big, self.long, self.page = cursor.u8(), cursor.u8(), cursor.u32()
        except Short as short:
            raise UnreadableInput(f"{self.request.name}: the file ends within its first bytes") from short
        if version not in {"6", "7"}:
            raise UnreadableInput(
                f"{self.request.name}: trace.dat of version {printable(version)!r}, and 6 and 7 can be read",
                cure="trace-cmd convert --file-version 7",
            )
        if big:
            raise UnreadableInput(f"{self.request.name}: a big-endian machine wrote it, which has no x86 state")
        self.page_size = self.page
        with self._reading("header", cursor):
            (self._version6 if version == "6" else self._version7)(cursor)
        return self._opened(version)

    # --- what both versions have

    def _reading(self, what: str, cursor: Cursor) -> _Guard:
        return _Guard(self, what, cursor)

    def tell(self, rule: str, text: str, offset: int | None) -> None:
        """Note damage."""
        self.damage.append(Damage(f"tracedat.{rule}", text, offset))

    def _header_info(self, cursor: Cursor) -> None:
        for name in ("header_page", "header_event"):
            if cursor.text(32) != name:
                raise Short(f"{name} is not where it must be")
            text = cursor.take(cursor.u64())
            if name == "header_page":
                self.layout = Layout.of(read_fields(bytes(text).decode(errors="replace")), page=self.page or None)

    def _ftrace_formats(self, cursor: Cursor) -> None:
        self._some_formats("ftrace", cursor)

    def _all_formats(self, cursor: Cursor) -> None:
        for _ in range(cursor.u32()):
            self._some_formats(cursor.text(256), cursor)

    def _some_formats(self, system: str, cursor: Cursor) -> None:
        for _ in range(cursor.u32()):
            at = cursor.at
            found = read_format(system, bytes(cursor.take(cursor.u64())).decode(errors="replace"))
            if found is None:
                self.tell("format", f"an event of {printable(system)!r} whose format file cannot be read", at)
            else:
                self.formats.append(found)

    def _read_comms(self, cursor: Cursor) -> None:
        for line in bytes(cursor.take(cursor.u64())).splitlines():
            pid, _, comm = line.partition(b" ")
            if pid.isdigit() and len(pid) <= 9:
                self.comms.append((int(pid), comm))

    def _common_option(self, number: int, body: memoryview) -> None:
        """Take in an option that both versions have."""
        if number == _UNAME:
            words = _text(body).split()
            if len(words) >= 3:
                self.facts = replace(self.facts, release=printable(words[2]))
        elif number == _CLOCK:
            chosen = re.search(r"\[([\w-]+)\]", _text(body))
            self.clock = chosen[1] if chosen else ""
        elif number == _CPUCOUNT and len(body) >= 4:
            self.facts = replace(self.facts, cpus=int.from_bytes(body[:4], "little"))
        elif number == _CPUSTAT:
            self._overruns(_text(body))

    def _overruns(self, text: str) -> None:
        cpu = ""
        for match in _OVERRUN.finditer(text):
            cpu = match[1] or cpu
            if match[3] and int(match[3][:18]):
                self.notes.append(f"{cpu}: {match[2]} {match[3]}: events that the file does not have")

    # --- version 6

    def _version6(self, cursor: Cursor) -> None:
        self._header_info(cursor)
        self._ftrace_formats(cursor)
        self._all_formats(cursor)
        cursor.take(cursor.u32())  # kallsyms
        cursor.take(cursor.u32())  # printk formats
        self._read_comms(cursor)
        self.cpus = cursor.u32()
        top = _Buffer("", page=self.page)
        self.buffers.append(top)
        self._version6_buffer(cursor, top, options=True)

    def _version6_buffer(self, cursor: Cursor, buffer: _Buffer, *, options: bool) -> None:
        kind = bytes(cursor.take(10))
        if kind == b"options  \0":
            self._version6_options(cursor, follow=options)
            kind = bytes(cursor.take(10))
        if kind == b"latency  \0":
            self.notes.append("the recording is the text of a latency tracer, and has no events in binary form")
            return
        if kind != b"flyrecord\0":
            raise Short(f"neither options nor flyrecord, but {kind!r}")
        if self.cpus > _MOST_CPUS:
            raise Short(f"{self.cpus} CPUs, and Linux knows {_MOST_CPUS} at most")
        buffer.parts = [(cpu, cursor.u64(), cursor.u64()) for cpu in range(self.cpus)]

    def _version6_options(self, cursor: Cursor, *, follow: bool) -> None:
        for _ in range(_MOST_OPTIONS):
            number = cursor.u16()
            if number == _DONE:
                return
            body = cursor.take(cursor.u32())
            if number == _BUFFER and follow and len(body) >= 8:
                buffer = _Buffer(_text(body[8:]), page=self.page)
                at = Cursor(self.data, int.from_bytes(body[:8], "little"))
                self.buffers.append(buffer)
                with self._reading(f"instance {printable(buffer.name)}", at):
                    self._version6_buffer(at, buffer, options=False)
            else:
                self._common_option(number, body)
        raise Short(f"more than {_MOST_OPTIONS} options")

    # --- version 7

    def _version7(self, cursor: Cursor) -> None:
        self.compression = cursor.text(64)
        cursor.text(256)
        self.unpack = unpacker(self.compression)
        following = cursor.u64()
        sections: dict[int, int] = {}
        seen: set[int] = set()
        while following and following not in seen:
            seen.add(following)
            options = Cursor(self.data, following)
            following = 0
            with self._reading("options", options):
                following = self._version7_options(self._section(options, _DONE), sections)
        readers = {
            _HEADER_INFO: self._header_info,
            _FTRACE_FORMATS: self._ftrace_formats,
            _FORMATS: self._all_formats,
            _CMDLINES: self._read_comms,
        }
        for number, reader in readers.items():
            if number not in sections:
                if number in {_HEADER_INFO, _FORMATS}:
                    self.tell("section-missing", f"there is no section of the {_SECTIONS[number]}", None)
                continue
            at = Cursor(self.data, sections[number])
            with self._reading(_SECTIONS[number], at):
                reader(self._section(at, number))

    def _section(self, cursor: Cursor, expected: int) -> Cursor:
        """Return a section's content, unpacked."""
        at = cursor.at
        number, flags = cursor.u16(), cursor.u16()
        cursor.u32()  # its description among the strings
        size = cursor.u64()
        if number != expected:
            raise Short(f"a section with id {number} in place of {expected} at byte {at}")
        body = cursor.at
        if not flags & _COMPRESSED:
            return Cursor(self.data, body, min(body + size, len(self.data)))
        packed, plain = cursor.u32(), cursor.u32()
        if plain > _MOST_SECTION:
            raise Short(f"a section of {plain} bytes, over {_MOST_SECTION >> 20} MiB")
        return Cursor(memoryview(self.unpack(cursor.take(packed), plain)), 0)

    def _version7_options(self, cursor: Cursor, sections: dict[int, int]) -> int:
        """Take in options; return where more of them are, 0 for nowhere."""
        for _ in range(_MOST_OPTIONS):
            number = cursor.u16()
            body = cursor.take(cursor.u32())
            if number == _DONE:
                return int.from_bytes(body[:8], "little")
            if number in {_BUFFER, _BUFFER_TEXT}:
                inner = Cursor(body, 0)
                with self._reading("buffer", cursor):
                    self._version7_buffer(inner, number)
            elif number >= _HEADER_INFO and number in _SECTIONS and len(body) >= 8:
                sections[number] = int.from_bytes(body[:8], "little")
            else:
                self._common_option(number, body)
        raise Short(f"more than {_MOST_OPTIONS} options")

    def _version7_buffer(self, cursor: Cursor, number: int) -> None:
        offset = cursor.u64()
        buffer = _Buffer(cursor.text(256), cursor.text(64))
        if number == _BUFFER_TEXT:
            self.notes.append(f"buffer {printable(buffer.name) or 'top'} is the text of a latency tracer, not read")
            return
        buffer.page = cursor.u32()
        cpus = cursor.u32()
        if cpus > _MOST_CPUS:
            raise Short(f"{cpus} CPUs, and Linux knows {_MOST_CPUS} at most")
        buffer.parts = [(cursor.u32(), cursor.u64(), cursor.u64()) for _ in range(cpus)]
        self.buffers.append(buffer)
        head = Cursor(self.data, offset)
        head.u16()
        buffer.packed = bool(head.u16() & _COMPRESSED)

    # --- the pages

    def _opened(self, version: str) -> Trace:
        buffer = self._choose()
        form = f"trace.dat v{version}" + (f" ({self.compression})" if self.compression != "none" else "")
        trace = Trace(
            source=self.request.name,
            format=form,
            streams=[],
            clock=buffer.clock or self.clock or "local",
            facts=self.facts,
            damage=self.damage,
            notes=self.notes,
        )
        layout = self._layout_of(buffer)
        if layout is None or not buffer.parts:
            if not buffer.parts:
                self.tell("no-cpus", "the recording has no CPU's pages", None)
            return trace
        try:
            decoder = Decoder(trace, self.formats, layout, payloads=self.request.payloads)
        except UnreadableInput as error:
            self.tell("formats", str(error), None)
            return trace
        for pid, comm in self.comms:
            decoder.name(pid, comm, 0)
        pages = max(_LEAST_BLOCK, _BLOCK // max(1, len(buffer.parts) // 8)) // layout.page or 1
        trace.streams = read_ahead(
            [
                decoder.stream(self._batches(buffer, part, pages * layout.page, layout.page, decoder), part[0])
                for part in buffer.parts
                if part[2]
            ]
        )
        return trace

    def _layout_of(self, buffer: _Buffer, *, tell: bool = True) -> Layout | None:
        if self.layout is None:
            if tell:
                self.tell("layout", "nothing says how pages are laid out, so none is read", None)
            return None
        found = Layout(
            buffer.page or self.layout.page, self.layout.time, self.layout.commit, self.layout.data, self.layout.long
        )
        try:
            found.check()
        except UnreadableInput as error:
            if tell:
                self.tell("layout", str(error), None)
            return None
        return found

    def _choose(self) -> _Buffer:
        """Return the buffer that was asked for, or the one that has events of extended state."""
        wanted = self.request.instance
        names = [printable(buffer.name) or "top" for buffer in self.buffers]
        if wanted is not None:
            for buffer, name in zip(self.buffers, names, strict=True):
                if wanted == name:
                    return buffer
            raise UsageError(f"{self.request.name} has no instance {wanted!r}: it has {', '.join(names) or 'none'}")
        full = [buffer for buffer in self.buffers if any(size for _, _, size in buffer.parts)] or self.buffers
        chosen = next((buffer for buffer in full if self._has_states(buffer)), full[0] if full else _Buffer(""))
        others = [printable(buffer.name) or "top" for buffer in full if buffer is not chosen]
        if others:
            self.notes.append(
                f"read here: instance {printable(chosen.name) or 'top'}; the recording has also {', '.join(others)}"
            )
        return chosen

    def _has_states(self, buffer: _Buffer) -> bool:
        """Say whether the first pages of a buffer have events of extended state."""
        layout = self._layout_of(buffer, tell=False)
        numbers = [entry.number for entry in self.formats if entry.system == "x86_fpu"]
        if layout is None or not numbers:
            return False
        trial = Trace(source="", format="", streams=[])  # what it finds wrong is found again by who reads
        decoder = Decoder(trial, self.formats, layout)
        for part in buffer.parts:
            for batch in itertools.islice(
                self._batches(buffer, part, _PEEK // layout.page * layout.page, layout.page, decoder), 1
            ):
                if decoder.has(batch, numbers):
                    return True
        return False

    def _batches(
        self, buffer: _Buffer, part: tuple[int, int, int], most: int, page: int, decoder: Decoder
    ) -> Iterator[Batch]:
        """Give a CPU's pages, whole ones, up to *most* bytes at a time."""
        cpu, offset, size = part
        end = min(offset + size, len(self.data))
        if offset + size > len(self.data):
            decoder.tell(
                "tracedat.truncated",
                f"CPU {cpu}: {size} bytes of pages said, {max(0, end - offset)} there",
                min(offset, len(self.data)),
            )
        if offset >= end:
            return
        if buffer.packed:
            # trace-cmd 3.1.6 leaves the word that counts the chunks out of the size that it writes.
            pieces = self._chunks(Cursor(self.data, offset, min(end + 4, len(self.data))), cpu, decoder)
            yield from _whole_pages(pieces, most, page)
            return
        for at in range(offset, end - page + 1, most):
            whole = min(most, (end - at) // page * page)
            yield Batch(self.data[at : at + whole], at)

    def _chunks(self, cursor: Cursor, cpu: int, decoder: Decoder) -> Iterator[bytes]:
        """Give a CPU's compressed chunks, unpacked."""
        at = cursor.at
        try:
            for _ in range(cursor.u32()):
                at = cursor.at
                packed, plain = cursor.u32(), cursor.u32()
                yield self.unpack(cursor.take(packed), _bounded(plain))
        except (Short, UnreadableInput) as error:
            decoder.tell("tracedat.chunk", f"CPU {cpu}: {error}; its pages from here on are not read", at)


def _bounded(plain: int) -> int:
    if plain > MOST_CHUNK:
        raise Short(f"a chunk of {plain} bytes, over {MOST_CHUNK >> 20} MiB")
    return plain


def _whole_pages(pieces: Iterator[bytes], most: int, page: int) -> Iterator[Batch]:
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= most:
            data = b"".join(held)
            whole = size // page * page
            yield Batch(memoryview(data)[:whole], None)
            held, size = [data[whole:]], size - whole
    data = b"".join(held)
    if whole := len(data) // page * page:
        yield Batch(memoryview(data)[:whole], None)


class _Guard:
    """Turns an end that comes too early, and whatever else a part of the file may be, into damage."""

    def __init__(self, file: _File, what: str, cursor: Cursor) -> None:
        self.file, self.what, self.cursor = file, what, cursor

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, (Short, UnreadableInput)):
            self.file.tell("damaged", f"{self.what}: {error}", self.cursor.at)
            return True
        return False


def _text(body: memoryview) -> str:
    return bytes(body).partition(b"\0")[0].decode(errors="replace")
