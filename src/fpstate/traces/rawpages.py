"""A folder of raw ring-buffer pages, as ``trace_pipe_raw`` gives them, beside the kernel's format files.

It is laid out as tracefs is, or flat, at any depth:

* pages of CPU N: ``per_cpu/cpuN/trace_pipe_raw``, ``cpuN``, ``cpuN.raw``, ``trace_pipe_raw.N``, ``NAME.cpuN`` (what an
  interrupted ``trace-cmd record`` leaves);
* formats: ``events/SYSTEM/EVENT/format``, or files ``SYSTEM.EVENT.format`` and ``EVENT.format``;
* if they are there: ``header_page``, ``trace_clock``, ``saved_cmdlines``; pages below ``instances/NAME`` are another
  buffer.

Sources: Linux ``Documentation/trace/ftrace.rst``, ``Documentation/trace/events.rst``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from fpstate.errors import UnreadableInput, printable
from fpstate.sources.capture import Damage
from fpstate.traces.buffers import MOST_CPUS, Buffer, Pages, batches_of_bytes, choose
from fpstate.traces.columns import CODES, EVENTS
from fpstate.traces.decoder import Batch, Tell
from fpstate.traces.formats import Format, read_fields, read_format
from fpstate.traces.recording import Request, mapped
from fpstate.traces.ring import Layout
from fpstate.traces.trace import Facts, Trace

__all__ = ["read", "sniff"]

_PER_CPU: Final = re.compile(r"(?P<folder>.*/)?per_cpu/cpu(?P<cpu>\d{1,5})/trace_pipe_raw")
_FLAT: Final = re.compile(
    r"(?P<folder>.*/)?(?:(?:[^/]*[._-])?cpu(?P<cpu>\d{1,5})(?:\.(?:raw|bin|pages))?|trace_pipe_raw[._-](?P<n>\d{1,5}))"
)
_INSTANCE: Final = re.compile(r"(?:.*/)?instances/(?P<name>[^/]+)/")
_MOST_FILES: Final = 100_000
_MOST_TEXT: Final = 1 << 20
"""Bytes of a format file, or of another text, that are read."""


def sniff(folder: Path) -> bool:
    """Say whether a folder has pages of a CPU."""
    return any(_pages_of(name) for name in _files(folder))


def read(request: Request) -> Trace:
    """Open a folder of pages.

    Raises:
        UnreadableInput: its ``header_page`` describes pages that cannot be walked.
        UsageError: it has no such instance.
    """
    return _Folder(request).trace()


def _files(folder: Path) -> Iterator[str]:
    """Give the files below *folder*, by their paths there; links to folders are not followed."""
    count = 0
    for root, _, names in os.walk(folder):
        inner = PurePosixPath(os.path.relpath(root, folder))
        for name in names:
            count += 1
            if count > _MOST_FILES:
                return
            yield str(inner / name)


def _pages_of(name: str) -> tuple[str, int] | None:
    """Return the buffer and the CPU whose pages a file has, None if it has none."""
    match = _PER_CPU.fullmatch(name) or _FLAT.fullmatch(name)
    if match is None:
        return None
    cpu = int(match["cpu"] or match["n"])
    instance = _INSTANCE.match(match["folder"] or "")
    return (instance["name"] if instance else "top", cpu) if cpu < MOST_CPUS else None


class _Folder:
    """What the folder holds."""

    def __init__(self, request: Request) -> None:
        self.request, self.path = request, request.path
        self.damage: list[Damage] = []
        self.notes: list[str] = []
        self.formats: list[Format] = []
        self.pages: dict[str, dict[int, Path]] = {}
        self.header = ""
        self.clocks: dict[str, str] = {}
        self.comms: dict[int, str] = {}

    def trace(self) -> Trace:
        """Look at every file, and return the recording."""
        for name in sorted(_files(self.path)):
            self._look_at(name)
        layout = Layout()
        if self.header:
            layout = Layout.of(read_fields(self.header))
        else:
            self.notes.append("no header_page: pages are taken to be of 4096 bytes, as a 64-bit x86 kernel has them")
        trace = Trace(
            source=self.request.name,
            format="raw pages",
            streams=[],
            facts=Facts(cpus=max((len(cpus) for cpus in self.pages.values()), default=None)),
            damage=self.damage,
            notes=self.notes,
        )
        trace.comms.update(self.comms)
        buffers = [
            Buffer(name, layout, self.clocks.get(name, ""), [self._cpu(cpu, cpus[cpu], layout) for cpu in sorted(cpus)])
            for name, cpus in sorted(self.pages.items(), key=lambda item: item[0] != "top")
        ]
        choose(buffers, self.formats, trace, wanted=self.request.instance, payloads=self.request.payloads)
        return trace

    def _look_at(self, name: str) -> None:
        last = name.rpartition("/")[2]
        found = _pages_of(name)
        if found:
            self._add_pages(name, *found)
        elif last == "format" or last.endswith(".format"):
            self._add_format(name)
        elif last == "header_page":
            self.header = self._text(name)
        elif last == "trace_clock":
            chosen = re.search(r"\[([\w-]+)\]|^([\w-]+)\s*$", self._text(name))
            instance = _INSTANCE.match(name)
            self.clocks[instance["name"] if instance else "top"] = (chosen[1] or chosen[2]) if chosen else ""
        elif last == "saved_cmdlines":
            for line in self._text(name).splitlines():
                pid, _, comm = line.strip().partition(" ")
                if pid.isdecimal() and len(pid) <= 9:
                    self.comms[int(pid)] = printable(comm)

    def _add_pages(self, name: str, buffer: str, cpu: int) -> None:
        cpus = self.pages.setdefault(buffer, {})
        if cpu in cpus:
            text = f"{printable(name)} has pages of CPU {cpu} of buffer {printable(buffer)}, as another file: not read"
            self.damage.append(Damage("rawpages.cpu-twice", text))
        else:
            cpus[cpu] = self.path / name

    def _add_format(self, name: str) -> None:
        found = read_format(_system(name), self._text(name))
        if found is None:
            self.damage.append(Damage("rawpages.format", f"{printable(name)} is no format file of an event"))
            return
        if not found.system and found.name in CODES:
            found = Format(EVENTS[CODES[found.name]].system, found.name, found.number, found.text)
        self.formats.append(found)

    def _text(self, name: str) -> str:
        try:
            with (self.path / name).open("rb") as file:
                return file.read(_MOST_TEXT).decode(errors="replace")
        except OSError as error:
            self.damage.append(Damage("rawpages.unreadable", f"{printable(name)}: {error.strerror}"))
            return ""

    def _cpu(self, cpu: int, path: Path, layout: Layout) -> Pages:
        try:
            size = path.stat().st_size if path.is_file() else 0
        except OSError:
            size = 0
        return Pages(cpu, size, partial(self._batches, path, layout.page))

    def _batches(self, path: Path, page: int, most: int, tell: Tell) -> Iterator[Batch]:
        try:
            with path.open("rb") as file:
                data = mapped(file)
        except OSError as error:
            tell("rawpages.unreadable", f"{printable(path.name)}: {error.strerror}", None)
            return
        name = printable(str(path.relative_to(self.path)))
        if len(data) % page:
            text = f"{name}: its last {len(data) % page} bytes are no whole page: they are not read"
            tell("rawpages.truncated", text, len(data) // page * page)
        yield from batches_of_bytes(data, 0, page, most)


def _system(name: str) -> str:
    """Return the system that a format file's path tells: its folder's folder, or the first word of its name."""
    parts = name.split("/")
    if parts[-1] == "format":
        return parts[-3] if len(parts) >= 3 else ""
    words = re.split(r"[.:]", parts[-1].removesuffix(".format"))
    return words[0] if len(words) > 1 else ""


def refusal(path: str) -> UnreadableInput:
    """Return the error about a folder that has no pages."""
    return UnreadableInput(
        f"{path} is a folder without pages of a CPU",
        cure="give a folder with per_cpu/cpuN/trace_pipe_raw or cpuN, and the events' format files",
    )
