"""Recordings as text: ftrace's ``trace`` and ``trace_pipe``, ``trace-cmd report``, ``perf script``, mailed or not.

Text says less than the recording that it was made from: times may be of microseconds, pointers are hashed where the
kernel printed them itself, and an event's fields are what its print format shows.  What no line says is `MISSING`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fpstate.cpu.formats import text as mailed
from fpstate.errors import UnreadableInput, printable
from fpstate.sources.capture import Damage
from fpstate.traces.columns import ABSENT, CODES, EVENTS, LOST, MISSING, Block
from fpstate.traces.order import in_order
from fpstate.traces.recording import Request
from fpstate.traces.textfields import LOST_NAME, fields_of
from fpstate.traces.textlines import Row, Style, rows_of, style_of
from fpstate.traces.trace import Facts, Trace

__all__ = ["read", "sniff"]

_BLOCK: Final = 1 << 23
"""Bytes of text that are read at once: 60,000 events, 150 MB of Python's objects."""
_HEAD: Final = 1 << 18
"""Bytes that tell how the lines are laid out."""
_MOST_MAIL: Final = 64 << 20
"""Bytes of text in an encoding of mail, or UTF-16, which are decoded at once."""
_MOST_NAMES: Final = 4096
"""Names of events; a kernel has 2,500."""
_OTHER: Final = "(other)"
_LOOK_BACK: Final = 5
"""Lines at the end of a block that are left to the next one, if the last event begins in one of them."""

_TOLD: Final = (
    ("cpus", re.compile(rb"^(?:cpus=|# nrcpus online : |#.*#P:)(\d{1,5})", re.MULTILINE)),
    ("release", re.compile(rb"^# (?:os release : |\w+ latency trace v[\d.]+ on )(\S{1,200})", re.MULTILINE)),
    ("machine", re.compile(rb"^# cpudesc : (.{1,200})", re.MULTILINE)),
)
_WRITTEN: Final = re.compile(rb"^# entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18})", re.MULTILINE)
_HASHED: Final = re.compile(rb"x86/fpu: (?:00000000[0-9a-f]{8}|\(____ptrval____\)) ")


def sniff(head: bytes) -> bool:
    """Say whether a file's first bytes have lines of events."""
    return style_of(_decoded(head)) is not None


def read(request: Request) -> Trace:
    """Open a recording that is text.

    Raises:
        UnreadableInput: no line is an event, or it is too large for its encoding.
    """
    data = request.data
    head = bytes(data[:_HEAD])
    plain = _decoded(head)
    if plain != head:
        if len(data) > _MOST_MAIL:
            raise UnreadableInput(
                f"{request.name} has more than {_MOST_MAIL >> 20} MiB in an encoding of mail or UTF-16",
                cure="decode it first, with 'iconv' or a mail program",
            )
        data = memoryview(_decoded(bytes(data)))
    style = style_of(plain)
    if style is None:
        raise UnreadableInput(f"{request.name} has no line that is an event")
    trace = Trace(source=request.name, format=f"text ({style.name})", streams=[], clock=style.clock)
    trace.facts = _facts(plain)
    trace.streams.append(in_order(_Reader(trace, style, plain, payloads=request.payloads).blocks(data), trace, "text"))
    return trace


def _decoded(data: bytes) -> bytes:
    """Return text of a mail or of UTF-16 as UTF-8, and any other as it is."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"=3D" in data or b"=\n" in data or b"=\r\n" in data:
        return mailed.decode(data[: len(data) & ~1]).encode()
    return data


def _facts(head: bytes) -> Facts:
    """Return what the lines before the events say of the machine."""
    told = {name: found[1].decode(errors="replace") for name, pattern in _TOLD if (found := pattern.search(head))}
    release, machine = (printable(told.get(name, "").strip()) for name in ("release", "machine"))
    return Facts(release=release, machine=machine, cpus=int(told["cpus"]) if "cpus" in told else None)


class _Codes(dict[bytes, int]):
    """Codes of events by name; new names become the trace's own."""

    def __init__(self, names: list[str]) -> None:
        super().__init__({name.encode(): code for name, code in CODES.items() if code != LOST})
        self[LOST_NAME] = LOST
        self._names = names

    def __missing__(self, name: bytes) -> int:
        shown = printable(name.decode(errors="replace"))
        if len(self._names) >= _MOST_NAMES:
            shown = _OTHER
        if shown not in self._names[len(EVENTS) :]:
            self._names.append(shown)
        found = self._names.index(shown, len(EVENTS))
        if len(self._names) < _MOST_NAMES:
            self[name] = found
        return found


class _Reader:
    """Makes rows of lines.

    Args:
        trace: where names and damage go.
        style: how the lines are laid out.
        head: the first lines.
        payloads: keep the texts of events that the model does not know.
    """

    def __init__(self, trace: Trace, style: Style, head: bytes, *, payloads: bool) -> None:
        self._trace, self._style, self._payloads = trace, style, payloads
        self._codes = _Codes(trace.names)
        self._cpus: dict[bytes, int] = {}
        self._faults: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self._last_time = b""
        self._waiting: list[Row] = []
        self._hashed = False
        self._overwritten(head)

    def blocks(self, data: memoryview) -> Iterator[Block]:
        """Give the rows of *data*, in its order, and then tell what could not be read."""
        line = 1
        for text in _pieces(data, self._style):
            block = self._block(text, line)
            if block is not None:
                yield block
            line += text.count(b"\n")
        if self._waiting and self._last_time:
            yield self._rows([_at(row, self._last_time) for row in self._waiting], line)
        if bytes(data[-1:]) != b"\n":
            self._trace.notes.append("the last line has no end: if it was cut, its last number is wrong")
        self._tell()

    def _overwritten(self, head: bytes) -> None:
        """Have a row of lost events at the start, if the kernel says that the buffer overwrote some."""
        said = _WRITTEN.search(head)
        if said and int(said[2]) > int(said[1]):
            lost = int(said[2]) - int(said[1])
            self._trace.notes.append(f"{lost} events before the first had been overwritten in the buffer")
            self._waiting.append((b"", b"-1", b"0", b"", LOST_NAME, b"%d" % lost, b""))

    def _fault(self, rule: str, line: int, count: int = 1) -> None:
        self._faults[rule] += count
        self._first.setdefault(rule, line)

    def _tell(self) -> None:
        """Put what was counted among the recording's damage."""
        texts = {
            "text.unread": ("lines are no events, the first is line", "cut what is no trace off"),
            "text.fields": ("events print fields as no known kernel does, the first after line", ""),
        }
        for rule, (said, cure) in texts.items():
            if self._faults[rule]:
                text = f"{self._faults[rule]} {said} {self._first[rule]}"
                self._trace.damage.append(Damage(rule, text, None, cure))
        if self._hashed:
            self._trace.notes.append("addresses of struct fpu are hashed: they tell which is which, and no address")

    def _block(self, text: bytes, line: int) -> Block | None:
        """Return the rows of some lines, None if there are none."""
        found = rows_of(text, self._style)
        if found.unread:
            self._fault("text.unread", line + found.unread[0], len(found.unread))
        rows = self._timed([*self._waiting, *found.rows])
        if not self._hashed:
            self._hashed = _HASHED.search(text) is not None
        return self._rows(rows, line) if rows else None

    def _timed(self, rows: list[Row]) -> list[Row]:
        """Give lost events the time of the next event; those at the end wait for it."""
        time = b""
        waits = len(rows)
        for at in range(len(rows) - 1, -1, -1):
            row = rows[at]
            if row[3]:
                time = row[3]
            elif time:
                rows[at] = _at(row, time)
            else:
                waits = at
        self._waiting = rows[waits:]
        if waits:
            self._last_time = rows[waits - 1][3]
        return rows[:waits]

    def _rows(self, rows: Sequence[Row], line: int) -> Block:
        """Return rows as columns."""
        comms, pids, cpus, times, names, texts, _ = zip(*rows, strict=True)
        count = len(rows)
        cpu_of = {text: min(int(text), 0xFFFF) for text in set(cpus)}
        code = np.fromiter(map(self._codes.__getitem__, names), np.uint16, count)
        block = Block.made(
            [
                np.fromiter(map(self._style.time, times), np.uint64, count),
                np.fromiter(map(cpu_of.__getitem__, cpus), np.uint16, count),
                np.fromiter(map(int, pids), np.int32, count),
                code,
                np.full(count, ABSENT, np.uint8),
                *(np.full(count, MISSING, np.uint64) for _ in "abc"),
            ]
        )
        self._name(set(zip(pids, comms, strict=True)))
        for known in np.unique(code[code < len(EVENTS)]).tolist():
            self._fill(block, known, np.flatnonzero(code == known), texts, line)
        if self._payloads:
            block.payload = np.full(count, None, np.object_)
            for at in np.flatnonzero(code >= len(EVENTS)).tolist():
                block.payload[at] = texts[at]
        return block

    def _fill(self, block: Block, code: int, at: NDArray[np.intp], texts: Sequence[bytes], line: int) -> None:
        """Fill in the columns of one event's rows."""
        fields = fields_of(code, [texts[row] for row in at.tolist()])
        for column, values in fields.columns.items():
            if column == "flag":
                block.flag[at] = np.minimum(values, np.uint64(ABSENT)).astype(np.uint8)
            else:
                getattr(block, column)[at] = values
        if fields.unread.any():
            self._fault("text.fields", line, int(fields.unread.sum()))
        self._name(fields.comms)

    def _name(self, named: set[tuple[bytes, bytes]]) -> None:
        """Keep the names of threads."""
        for pid, comm in named:
            if comm and comm != b"<...>" and int(pid) > 0:
                self._trace.comms[int(pid)] = printable(comm.decode(errors="replace"))


def _at(row: Row, time: bytes) -> Row:
    """Return a row with another time."""
    return (row[0], row[1], row[2], time, row[4], row[5], row[6])


def _pieces(data: memoryview, style: Style) -> Iterator[bytes]:
    """Give *data* in pieces of whole lines, none of which ends within an event that is wrapped."""
    at = 0
    while at < len(data):
        piece = bytes(data[at : at + _BLOCK])
        if at + len(piece) < len(data):
            piece = piece[: _cut(piece, style) or len(piece)]
        yield piece
        at += len(piece)


def _cut(piece: bytes, style: Style) -> int:
    """Return where the last event in *piece* begins, or else its last line ends; 0 if it has no lines."""
    end = piece.rfind(b"\n") + 1
    start = end
    for _ in range(_LOOK_BACK):
        start = piece.rfind(b"\n", 0, max(start - 1, 0)) + 1
        if not start:
            break
        if style.head.match(piece, start):
            return start
    return end
