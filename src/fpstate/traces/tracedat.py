"""``trace.dat``, trace-cmd's file: versions 6 and 7, with what is compressed in it.

Sources: trace-cmd 3.x ``Documentation/trace-cmd/trace-cmd.dat.v6.5.txt`` and ``trace-cmd.dat.v7.5.txt``,
``lib/trace-cmd/trace-input.c``, ``lib/trace-cmd/trace-compress*.c``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from fpstate.errors import UnreadableInput, printable
from fpstate.sources.capture import Damage
from fpstate.traces.buffers import MOST_CPUS, Buffer, Pages, batches_of_bytes, batches_of_pieces, choose
from fpstate.traces.bytesource import Cursor, Short
from fpstate.traces.decoder import Batch, Tell
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
_COMPRESSED: Final = 1

# Options, and sections of version 7 (trace-cmd ``enum tracecmd_option_id``).
_DONE, _CPUSTAT, _BUFFER, _CLOCK, _UNAME, _CPUCOUNT = 0, 2, 3, 4, 5, 8
_HEADER_INFO, _FTRACE_FORMATS, _FORMATS, _CMDLINES, _BUFFER_TEXT = 16, 17, 18, 21, 22
_FOREIGN: Final = 0x100
"""trace-cmd's own options are below."""
_SECTIONS: Final = {_HEADER_INFO: "header", _FTRACE_FORMATS: "ftrace formats", _FORMATS: "formats", _CMDLINES: "comms"}

_OVERRUN: Final = re.compile(r"^(CPU: *\d+)|^(overrun|dropped events|commit overrun): *(\d+)", re.MULTILINE)


class _Part(NamedTuple):
    """Where a CPU's pages are, in bytes of the file."""

    cpu: int
    offset: int
    size: int


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
        self.buffers: list[Buffer] = []
        self.instances: list[tuple[str, int]] = []
        self.buffer_options: list[tuple[int, memoryview]] = []
        self.layout: Layout | None = None
        self.comms: dict[int, str] = {}
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
        with self._reading("header", cursor):
            (self._version6 if version == "6" else self._version7)(cursor)
        return self._opened(version)

    # --- what both versions have

    def _reading(self, what: str, cursor: Cursor | None) -> _Guard:
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
                self.comms[int(pid)] = printable(comm.decode(errors="replace"))

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
        elif number >= _FOREIGN:
            self._machine(number, body)

    def _machine(self, number: int, body: memoryview) -> None:
        """Take in what `fpstate trace record` wrote of the machine, if it is that."""
        from fpstate.traces import machine  # noqa: PLC0415 - CPUs and their forms: only our own files need them

        if number != machine.OPTION:
            return
        try:
            said = machine.facts_of(bytes(body))
        except UnreadableInput as error:
            self.tell("facts", str(error), None)
        else:
            self.facts = replace(said, release=said.release or self.facts.release, cpus=said.cpus or self.facts.cpus)

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
        self._version6_buffer(cursor, "")
        for name, at in self.instances:
            instance = Cursor(self.data, at)
            with self._reading(f"instance {printable(name)}", instance):
                self._version6_buffer(instance, name)

    def _version6_buffer(self, cursor: Cursor, name: str) -> None:
        kind = bytes(cursor.take(10))
        if kind == b"options  \0":
            self._version6_options(cursor, follow=not name)
            kind = bytes(cursor.take(10))
        if kind == b"latency  \0":
            self.notes.append("the recording is the text of a latency tracer, and has no events in binary form")
            return
        if kind != b"flyrecord\0":
            raise Short(f"neither options nor flyrecord, but {kind!r}")
        parts = [_Part(cpu, cursor.u64(), cursor.u64()) for cpu in range(_cpus(self.cpus))]
        self._add_buffer(name, self.clock, self.page, parts, packed=False)

    def _version6_options(self, cursor: Cursor, *, follow: bool) -> None:
        for _ in range(_MOST_OPTIONS):
            number = cursor.u16()
            if number == _DONE:
                return
            body = cursor.take(cursor.u32())
            if number == _BUFFER and follow and len(body) >= 8:
                self.instances.append((_text(body[8:]), int.from_bytes(body[:8], "little")))
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
        self._version7_sections(sections)
        for body in self.buffer_options:
            inner = Cursor(body[1], 0)
            with self._reading("buffer", None):
                self._version7_buffer(inner, body[0])

    def _version7_sections(self, sections: Mapping[int, int]) -> None:
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
                self.buffer_options.append((number, body))
            elif number >= _HEADER_INFO and number in _SECTIONS and len(body) >= 8:
                sections[number] = int.from_bytes(body[:8], "little")
            else:
                self._common_option(number, body)
        raise Short(f"more than {_MOST_OPTIONS} options")

    def _version7_buffer(self, cursor: Cursor, number: int) -> None:
        offset, name, clock = cursor.u64(), cursor.text(256), cursor.text(64)
        if number == _BUFFER_TEXT:
            self.notes.append(f"buffer {printable(name) or 'top'} is the text of a latency tracer, not read")
            return
        page, cpus = cursor.u32(), _cpus(cursor.u32())
        parts = [_Part(cursor.u32(), cursor.u64(), cursor.u64()) for _ in range(cpus)]
        head = Cursor(self.data, offset)
        if head.u16() != _BUFFER:
            raise Short(f"there is no section of a buffer at byte {offset}")
        self._add_buffer(name, clock, page, parts, packed=bool(head.u16() & _COMPRESSED))

    # --- the pages

    def _opened(self, version: str) -> Trace:
        trace = Trace(
            source=self.request.name,
            format=f"trace.dat v{version}" + (f" ({self.compression})" if self.compression != "none" else ""),
            streams=[],
            clock=self.clock or "local",
            facts=self.facts,
            damage=self.damage,
            notes=self.notes,
        )
        trace.comms.update(self.comms)
        choose(self.buffers, self.formats, trace, wanted=self.request.instance, payloads=self.request.payloads)
        return trace

    def _add_buffer(self, name: str, clock: str, page: int, parts: Iterable[_Part], *, packed: bool) -> None:
        """Add a buffer, if its pages can be walked."""
        if self.layout is None:
            self.tell("layout", "nothing says how pages are laid out, so none is read", None)
            return
        layout = replace(self.layout, page=page)
        layout.check()
        pages = [Pages(part.cpu, part.size, partial(self._batches, part, page, packed)) for part in parts]
        self.buffers.append(Buffer(name or "top", layout, clock, pages))

    def _batches(self, part: _Part, page: int, packed: bool, most: int, tell: Tell) -> Iterator[Batch]:
        """Give a CPU's pages."""
        # trace-cmd 3.1.6 leaves the word that counts the chunks out of the size that it writes.
        size = part.size + 4 if packed else part.size
        start = min(part.offset, len(self.data))
        end = min(part.offset + size, len(self.data))
        there = end - start
        if there < part.size or (not packed and there % page):
            text = f"CPU {part.cpu}: {part.size} bytes of pages said, {there} there"
            tell("tracedat.pages-truncated", f"{text}: what is no whole page is not read", start)
        if packed:
            pieces = self._chunks(Cursor(self.data, start, end), part.cpu, tell)
            yield from batches_of_pieces(pieces, page, most)
        else:
            yield from batches_of_bytes(self.data[start:end], start, page, most)

    def _chunks(self, cursor: Cursor, cpu: int, tell: Tell) -> Iterator[bytes]:
        """Give a CPU's compressed chunks, unpacked."""
        at = cursor.at
        try:
            for _ in range(cursor.u32()):
                at = cursor.at
                packed, plain = cursor.u32(), cursor.u32()
                yield self.unpack(cursor.take(packed), _bounded(plain))
        except (Short, UnreadableInput) as error:
            tell("tracedat.chunk", f"CPU {cpu}: {error}; its pages from here on are not read", at)


def _cpus(count: int) -> int:
    if count > MOST_CPUS:
        raise Short(f"{count} CPUs, and Linux knows {MOST_CPUS} at most")
    return count


def _bounded(plain: int) -> int:
    if plain > MOST_CHUNK:
        raise Short(f"a chunk of {plain} bytes, over {MOST_CHUNK >> 20} MiB")
    return plain


class _Guard:
    """Turns an end that comes too early, and whatever else a part of the file may be, into damage."""

    def __init__(self, file: _File, what: str, cursor: Cursor | None) -> None:
        self.file, self.what, self.cursor = file, what, cursor

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, (Short, UnreadableInput)):
            self.file.tell("damaged", f"{self.what}: {error}", self.cursor.at if self.cursor else None)
            return True
        return False


def _text(body: memoryview) -> str:
    return bytes(body).partition(b"\0")[0].decode(errors="replace")
