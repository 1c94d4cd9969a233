"""Lines of text into rows: how ftrace, trace-cmd and perf lay them out, and what mail does to them.

Sources: Linux 4.2 to 6.18 ``kernel/trace/trace.c`` and ``trace_output.c`` (``trace_print_context``,
``trace_print_lat_context``, ``lat_print_timestamp``), libtraceevent ``tep_print_event``, perf
``builtin-script.c`` (``perf_sample__fprintf_start``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from fpstate.cpu.formats.text import plain_lines
from fpstate.traces.textfields import LOST_NAME, is_known, is_whole

__all__ = ["STYLES", "Row", "Rows", "Style", "rows_of", "style_of"]

Row = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""comm, pid, cpu, time, event, what it prints; or, all of them empty, the line."""

_MOST_PIECES: Final = 4
"""Lines that mail wraps an event into."""
_LEAST_WRAPPED: Final = 60
"""Characters that a line has, with the first word of the next, if it was wrapped."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a tool lays a line out.

    Attributes:
        name: of the tool.
        head: matches in a line in which an event begins, up to its time.
        line: matches every line, and gives a `Row`.
        scale: nanoseconds of one unit of the time, which has no fraction; 0 for seconds that have one.
        clock: what its times count: see `fpstate.traces.trace.Trace.clock`.
    """

    name: str
    head: re.Pattern[bytes]
    line: re.Pattern[bytes]
    scale: int
    clock: str

    def time(self, text: bytes) -> int:
        """Return a time: nanoseconds, or ticks."""
        if self.scale:
            return int(text, 16 if self.name.endswith("verbose") else 10) * self.scale
        whole, _, fraction = text.partition(b".")
        return int(whole) * 1_000_000_000 + int(fraction.ljust(9, b"0"))


def _style(name: str, head: bytes, tail: bytes, scale: int = 0, clock: str = "local") -> Style:
    line = rb"^(?:" + head + tail + rb"|(.*))$"
    return Style(name, re.compile(rb"^" + head, re.MULTILINE), re.compile(line, re.MULTILINE), scale, clock)


_COMM_PID: Final = rb" *+(.{0,31}?)-(\d{1,9}) ++(?:\([ \d-]++\) ++)?"
_CPU: Final = rb"\[(\d{3,5})\] ++"
_FLAGS: Final = rb"(?:[.dDXbB][^ \n]{2,8} ++)?"
_SECONDS: Final = rb"(\d{1,10}\.\d{9}|\d{1,10}\.\d{6}):"
_EVENT: Final = rb"[ \t]*([A-Za-z_][\w.-]*+):[ \t]*(.*)"
_PERF_EVENT: Final = rb" ++(?:\d+ ++)?(?:[\w-]++:(?=[\w-]))?([A-Za-z_][\w.-]*+)(?:/[^ \n]*)?:(?:[a-zA-Z]++:)?[ \t]*(.*)"

STYLES: Final = (
    _style("ftrace", _COMM_PID + _CPU + _FLAGS + _SECONDS, _EVENT),
    _style("perf script", rb" *+(?:(.{0,31}?) ++)??(?:\d{1,9}/)?(-?\d{1,9}) ++" + _CPU + _SECONDS, _PERF_EVENT),
    _style("ftrace, ticks", _COMM_PID + _CPU + _FLAGS + rb"(\d{1,19}):", _EVENT, 1, "counter"),
    _style(
        "ftrace, latency",
        rb" *+(.{0,31}?)-(\d{1,9}) ++(\d{1,4})[.dDXbB][^ \n]{3,8} ++(\d{1,16})us[ !+#*@$]?:",
        _EVENT,
        1000,
    ),
    _style(
        "ftrace, latency, ticks",
        rb" *+(.{0,31}?)-(\d{1,9}) ++(\d{1,4})[.dDXbB][^ \n]{3,8} ++(\d{1,19}):",
        _EVENT,
        1,
        "counter",
    ),
    _style(
        "ftrace, latency, verbose",
        rb" *+(.{0,31}?) ++(\d{1,9}) ++(\d{1,4}) \d+ [0-9a-f]{8} \[([0-9a-f]{1,13})\] [\d.]++ms \(\+[\d.]++ms\):",
        _EVENT,
        1000,
    ),
)

_LOST: Final = re.compile(
    rb"\s*(?:CPU:(?P<cpu>\d{1,5}) \[(?:LOST )?(?P<count>\d{0,19}) ?EVENTS(?: DROPPED)?\]"
    rb"|#+ (?:buffer \d+: )?CPU (?P<started>\d{1,5}) (?:buffer started #+|lost(?: (?P<some>\d{1,19}) events)?))\s*"
)
"""``print_trace_line`` and ``test_cpu_buff_start`` of the kernel; ``tracecmd_read_data`` of trace-cmd.  A CPU's buffer
"started" is printed only where buffers were overrun."""
_PERF_LOST: Final = re.compile(rb"[ \t]*PERF_RECORD_LOST(?:_SAMPLES)?:? lost[: ]+(\d{1,19}).*")
_NOTHING: Final = re.compile(
    rb"\s*(?:#.*|=> .*|-{8,}|version = \d+|cpus=\d+|CPU \d+ is empty)?"
    rb"|[ \t]+[0-9a-f]{4,16} \S.*|[0-9a-f]{8,16} \S.*|[0-9a-f]{4,16} \S+ \(.*\)"
)
"""Comments, stacks (of the kernel and of perf), what trace-cmd begins with."""
_ODD: Final = re.compile(rb"[\r\0\x1b&]|\xc2\xa0|\xe2\x80|\xef\xbb\xbf|^[ \t]*[>|]", re.MULTILINE)
"""What `_plain` takes out."""
_ENTERED: Final = re.compile(rb"[ \t]*sys_(\w+)(\(.*)")
_EXITED: Final = re.compile(rb"[ \t]*sys_(\w+) -> (.*)")
_CALLED: Final = re.compile(rb"[ \t]*(\S+ <-\S+.*)")
_STACK: Final = re.compile(rb"[ \t]*(<(?:user )?stack trace>.*)")


class Rows(NamedTuple):
    """What lines gave.

    Attributes:
        rows: of events, in order; one of lost events has no time, and `LOST_NAME` as its event.
        unread: the numbers of lines that are nothing known, from 0.
    """

    rows: list[Row]
    unread: list[int]


def style_of(head: bytes) -> Style | None:
    """Return how the events in *head* are laid out, by most of its lines; None if there are none."""
    head = b"\n".join(map(_plain, head.splitlines()))
    counts = [len(style.head.findall(head)) for style in STYLES]
    return STYLES[counts.index(max(counts))] if any(counts) else None


def rows_of(text: bytes, style: Style) -> Rows:
    """Return the rows of some lines; events that were wrapped are joined again.

    Args:
        text: lines; the last event in it is whole.
        style: how they are laid out.
    """
    found = _read(text, style)
    if found.unread and _ODD.search(text):
        text = b"\n".join(map(_plain, text.split(b"\n")))
        found = _read(text, style)
    if not found.unread:
        return found
    numbers, lines = _rejoined(text.split(b"\n"), style)
    found = _read(b"\n".join(lines), style)
    return Rows(found.rows, [numbers[at] for at in found.unread])


def _read(text: bytes, style: Style) -> Rows:
    """Return the rows of lines that are not wrapped."""
    rows: list[Row] = style.line.findall(text)
    odd = [at for at, row in enumerate(rows) if not row[4]]
    if not odd:
        return Rows(rows, [])
    unread = []
    gone = set()
    for at in odd:
        line = rows[at][6]
        row = _special(line, style)
        if row is not None:
            rows[at] = row
            continue
        gone.add(at)
        if not _NOTHING.fullmatch(line):
            unread.append(at)
    return Rows([row for at, row in enumerate(rows) if at not in gone], unread)


def _special(line: bytes, style: Style) -> Row | None:
    """Return the row of a line that says no event's name: lost events, a system call, a function, a stack."""
    lost = _LOST.fullmatch(line)
    if lost:
        cpu, count = lost["cpu"] or lost["started"], lost["count"] or lost["some"] or b"0"
        return (b"", b"-1", cpu, b"", LOST_NAME, count, b"")
    head = style.head.match(line)
    if head is None:
        return None
    rest = line[head.end() :]
    comm, pid, cpu, time = (group or b"" for group in head.groups())
    for pattern, name in ((_EXITED, b"sys_exit_"), (_ENTERED, b"sys_enter_")):
        if call := pattern.fullmatch(rest):
            return (comm, pid, cpu, time, name + call[1], call[2], b"")
    for pattern, name in ((_CALLED, b"function"), (_STACK, b"kernel_stack")):
        if text := pattern.fullmatch(rest):
            return (comm, pid, cpu, time, name, text[1], b"")
    if lost := _PERF_LOST.fullmatch(rest):
        return (b"", b"-1", cpu, time, LOST_NAME, lost[1], b"")
    return None


def _plain(line: bytes) -> bytes:
    """Return a line without colours, entities, quote marks and odd blanks."""
    kept = plain_lines(line.decode("utf-8", "surrogateescape"))
    return b" ".join(part.encode("utf-8", "surrogateescape") for part in kept)


def _rejoined(lines: Sequence[bytes], style: Style) -> tuple[list[int], list[bytes]]:
    """Return the lines with wrapped events joined, and the number that each began at."""
    numbers: list[int] = []
    joined: list[bytes] = []
    pieces = 0
    for number, line in enumerate(lines):
        begins = style.head.match(line) is not None
        if not begins and 0 < pieces < _MOST_PIECES and _goes_on(joined[-1], line, style):
            joined[-1] += b" " + line.strip()
            pieces += 1
            continue
        numbers.append(number)
        joined.append(line)
        pieces = int(begins)
    return numbers, joined


def _goes_on(line: bytes, more: bytes, style: Style) -> bool:
    """Say whether *more* may be the rest of an event's *line*."""
    if not more.strip() or more.lstrip().startswith(b"#") or _LOST.fullmatch(more):
        return False
    row = next(iter(style.line.findall(line)), None)
    if row is None or not row[4]:
        return _special(line, style) is None
    if is_known(row[4]):
        return not is_whole(row[4], row[5])
    return not _NOTHING.fullmatch(more) and len(line) + 1 + len(more.split(b" ", 1)[0]) > _LEAST_WRAPPED
