"""Records into rows: what each record's format file says of it, in columns.

One `Decoder` serves all CPUs of a recording, from several threads at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpstate.errors import UnreadableInput, printable
from fpstate.sources.capture import Damage
from fpstate.traces.columns import ABSENT, CODES, EVENTS, LOST, MISSING, Block
from fpstate.traces.formats import Field, Format
from fpstate.traces.ring import Indices, Layout, Records, Words, walk
from fpstate.traces.trace import Trace

__all__ = ["MOST_DAMAGE", "NOBODY", "Batch", "Decoder", "Tell"]

Tell = Callable[[str, str, int | None], None]
"""Notes damage: its rule, its words, its place in the source."""

NOBODY: Final = -1
"""`Block.pid` of a row that no thread made: lost events."""
MOST_DAMAGE: Final = 256
"""Damages of a recording that are told one by one."""

_UNSEEN: Final = 0xFFFF
_NO_FORMAT: Final = "(no format)"
_MOST_CODES: Final = 60_000
_COMMS: Final = (("prev_comm", "prev_pid"), ("next_comm", "next_pid"), ("parent_comm", "parent_pid"))
_MORE_COMMS: Final = (("child_comm", "child_pid"), ("comm", "pid"))
_PID_BITS: Final = (1 << 22) - 1
"""PID_MAX_LIMIT is 4194304 (Linux ``include/linux/threads.h``)."""


class Batch(NamedTuple):
    """Whole pages of one CPU, and where the first lies in the source (None: nowhere)."""

    data: Any
    offset: int | None


@dataclass(frozen=True, slots=True)
class _Shape:
    """Fields that events of one shape give: their columns, and the names of threads."""

    columns: tuple[tuple[str, Field], ...]
    comms: tuple[tuple[Field, Field], ...]
    end: int


class Decoder:
    """Makes rows of records.

    Args:
        trace: where names of events and threads and damage go.
        formats: of the recording's events.
        layout: of its pages.
        payloads: keep the payload of events that the model does not know.

    Raises:
        UnreadableInput: the formats do not say where an event's identifier is.
    """

    def __init__(self, trace: Trace, formats: Iterable[Format], layout: Layout, *, payloads: bool = False) -> None:
        self._trace, self._layout, self._payloads = trace, layout, payloads
        self._formats = {entry.number: entry for entry in formats}
        self._type, self._pid = _common(self._formats.values())
        self._codes = np.full(1 << 16, _UNSEEN, np.uint16)
        self._shapes: list[_Shape] = []
        self._shape_of = np.zeros(1 << 16, np.uint8)
        self._named: dict[str, int] = {}
        self._comm_times: dict[int, int] = {}
        self._lock = threading.Lock()

    def stream(self, batches: Iterable[Batch], cpu: int) -> Iterator[Block]:
        """Give the rows of one CPU's pages, in order of time."""
        last = 0
        for batch in batches:
            words = np.frombuffer(batch.data, "<u4")
            records = walk(words, self._layout)
            for rule, page, byte, text in records.faults:
                place = None if batch.offset is None else batch.offset + page * self._layout.page + byte
                self.tell(rule, f"CPU {cpu}: {text}", place)
            self._drop_headless(records, cpu)
            block = self._block(records, cpu)
            if len(block):
                yield self._in_order(block, last, cpu)
                last = max(last, int(block.time.max()))

    def has(self, batch: Batch, numbers: list[int]) -> bool:
        """Say whether some pages have an event of these identifiers."""
        records = walk(np.frombuffer(batch.data, "<u4"), self._layout)
        return bool(np.isin(_gather(records.words, records.start, self._type), np.array(numbers, np.uint64)).any())

    def tell(self, rule: str, text: str, offset: int | None) -> None:
        """Note damage, as long as there is not too much of it already."""
        with self._lock:
            damage = self._trace.damage
            if len(damage) < MOST_DAMAGE:
                damage.append(Damage(rule, text, offset))
            elif len(damage) == MOST_DAMAGE:
                damage.append(Damage("trace.more-damage", f"more than {MOST_DAMAGE} faults: the rest is not told"))

    def _drop_headless(self, records: Records, cpu: int) -> None:
        """Leave out records that have no room for the fields that every event has."""
        whole = (records.end - records.start) * 4 >= max(self._type.end, self._pid.end)
        if not whole.all():
            text = f"CPU {cpu}: {int((~whole).sum())} records are too short for any event: they are left out"
            self.tell("ring.record-too-short", text, None)
            for name in ("start", "end", "time", "page"):
                setattr(records, name, getattr(records, name)[whole])

    def _in_order(self, block: Block, last: int, cpu: int) -> Block:
        """Return the rows in order of time, none before *last*."""
        time = block.time
        backwards = int(np.count_nonzero(time[1:] < time[:-1])) + int(time[0] < last)
        if not backwards:
            return block
        self.tell(
            "ring.time-backwards",
            f"CPU {cpu}: time goes back {backwards} times near {time[0]}; those rows were sorted",
            None,
        )
        block = block.take(np.argsort(time, kind="stable"))
        block.time = np.maximum(block.time, np.uint64(last))
        return block

    def _block(self, records: Records, cpu: int) -> Block:
        """Return the rows of some pages."""
        words, start = records.words, records.start
        number = _gather(words, start, self._type).astype(np.uint16)
        pid = _gather(words, start, self._pid).astype(np.uint32).view(np.int32)
        code = self._codes[number]
        if (code == _UNSEEN).any():
            self._learn(np.unique(number[code == _UNSEEN]).tolist())
            code = self._codes[number]
        rows = len(start)
        flag = np.full(rows, ABSENT, np.uint8)
        values = {name: np.full(rows, MISSING, np.uint64) for name in "abc"}
        shape_of = self._shape_of[number]
        for at in np.flatnonzero(np.bincount(shape_of, minlength=1)).tolist():
            if at:
                picked = np.flatnonzero(shape_of == at)
                self._fill(self._shapes[at - 1], records, picked, values, flag)
        payload = self._kept(records, code) if self._payloads else None
        block = Block(
            records.time, np.full(rows, cpu, np.uint16), pid, code, flag, values["a"], values["b"], values["c"], payload
        )
        return _with_losses(block, records, cpu) if len(records.lost) else block

    def _fill(
        self,
        shape: _Shape,
        records: Records,
        rows: Indices,
        values: dict[str, NDArray[np.uint64]],
        flag: NDArray[np.uint8],
    ) -> None:
        """Fill in the columns of the events of one shape."""
        start = records.start[rows]
        short = (records.end[rows] - start) * 4 < shape.end
        if short.any():
            self.tell(
                "ring.record-too-short",
                f"{int(short.sum())} events end before their format's fields: those fields are not read",
                None,
            )
            rows, start = rows[~short], start[~short]
        for column, field in shape.columns:
            found = _gather(records.words, start, field)
            if column == "flag":
                flag[rows] = np.minimum(found, np.uint64(ABSENT - 1)).astype(np.uint8)
            else:
                values[column][rows] = found
        for comm, pid in shape.comms:
            self._learn_comms(records, rows, start, comm, pid)

    def _learn_comms(self, records: Records, rows: Indices, start: Indices, comm: Field, pid: Field) -> None:
        """Keep the last name of each thread."""
        pids = _gather(records.words, start, pid).astype(np.uint32).view(np.int32)
        slot = pids & _PID_BITS
        table = np.empty(_PID_BITS + 1, np.int32)
        order = np.arange(len(pids), dtype=np.int32)
        table[slot] = order
        last = np.flatnonzero(table[slot] == order)
        raw = records.words.view(np.uint8)
        with self._lock:
            for row in last.tolist():
                at = int(start[row]) * 4 + comm.offset
                self.name(int(pids[row]), raw[at : at + comm.size].tobytes(), int(records.time[rows[row]]))

    def name(self, pid: int, comm: bytes, time: int) -> None:
        """Keep a thread's name if nothing later is known."""
        if pid > 0 and self._comm_times.get(pid, 0) <= time:
            self._comm_times[pid] = time
            self._trace.comms[pid] = printable(comm.partition(b"\0")[0].decode(errors="replace"))

    def _learn(self, numbers: list[int]) -> None:
        """Give codes to events that occur for the first time."""
        with self._lock:
            for number in numbers:
                entry = self._formats.get(number)
                if entry is None:
                    self._codes[number] = self._code_of(_NO_FORMAT)
                    continue
                code = CODES.get(entry.name, _UNSEEN)
                if code != _UNSEEN and EVENTS[code].system == entry.system:
                    self._shape_of[number] = self._shape(entry, code)
                else:
                    code = self._code_of(entry.name if code == _UNSEEN else f"{entry.system}:{entry.name}")
                    self._shape_of[number] = self._shape(entry, None)
                self._codes[number] = code
        unknown = [number for number in numbers if number not in self._formats]
        if unknown:
            named = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
            self.tell("trace.event-without-format", f"events of type {named} have no format in this recording", None)

    def _code_of(self, name: str) -> int:
        """Return the trace's own code for a name."""
        name = printable(name)
        if name not in self._named:
            if len(self._trace.names) >= _MOST_CODES:
                name = _NO_FORMAT
            self._named.setdefault(name, len(self._trace.names))
            if self._named[name] == len(self._trace.names):
                self._trace.names.append(name)
        return self._named[name]

    def _shape(self, entry: Format, code: int | None) -> int:
        """Return which of the shapes an event has, 0 for none."""
        fields = entry.fields
        wanted: list[tuple[str, str]] = []
        if code is not None:
            event = EVENTS[code]
            wanted = [*zip("abc", event.fields, strict=False), ("flag", event.flag)]
        columns = tuple((column, fields[name]) for column, name in wanted if _is_number(fields.get(name)))
        comms = tuple(
            (fields[comm], fields[pid])
            for comm, pid in (*_COMMS, *_MORE_COMMS)
            if _is_number(fields.get(pid)) and comm in fields and fields[comm].array and fields[comm].size <= 64
        )
        if entry.system != "sched":
            comms = ()
        if not columns and not comms:
            return 0
        everything = [field for _, field in columns] + [field for pair in comms for field in pair]
        shape = _Shape(columns, comms, max(field.end for field in everything))
        if shape not in self._shapes:
            if len(self._shapes) == 255:
                return 0
            self._shapes.append(shape)
        return self._shapes.index(shape) + 1

    def _kept(self, records: Records, code: NDArray[np.uint16]) -> NDArray[np.object_]:
        """Return the bytes behind the common fields of the events that the model does not know."""
        payload = np.full(len(code), None, np.object_)
        raw = records.words.view(np.uint8)
        skip = max(self._type.end, self._pid.end)
        for row in np.flatnonzero(code >= len(EVENTS)).tolist():
            payload[row] = raw[int(records.start[row]) * 4 + skip : int(records.end[row]) * 4].tobytes()
        return payload


def _common(formats: Iterable[Format]) -> tuple[Field, Field]:
    """Return where every event has its identifier and the thread: all formats of a kernel agree about it."""
    for entry in formats:
        kind, pid = entry.fields.get("common_type"), entry.fields.get("common_pid")
        if kind and pid and kind.size == 2 and pid.size == 4 and max(kind.end, pid.end) <= 64:
            return kind, pid
    raise UnreadableInput("no event's format says where common_type and common_pid are")


def _is_number(field: Field | None) -> bool:
    return field is not None and field.size in {1, 2, 4, 8} and not field.array


def _gather(words: Words, start: Indices, field: Field) -> NDArray[np.uint64]:
    """Return a field of payloads, as 64 bits.  Payloads begin at words, so nothing wider is aligned."""
    pick = _PICK.get((field.size, field.offset % min(field.size, 4)), _bytewise)
    return pick(words, start, field)


def _words4(words: Words, start: Indices, field: Field) -> NDArray[np.uint64]:
    found = words.take(start + field.offset // 4, mode="clip")
    return found.view(np.int32).astype(np.int64).view(np.uint64) if field.signed else found.astype(np.uint64)


def _words8(words: Words, start: Indices, field: Field) -> NDArray[np.uint64]:
    low = start + field.offset // 4
    high = words.take(low + 1, mode="clip").astype(np.uint64)
    return words.take(low, mode="clip") | high << np.uint64(32)


def _bytewise(words: Words, start: Indices, field: Field) -> NDArray[np.uint64]:
    raw = words.view(np.uint8)
    at = start * 4 + field.offset
    found = np.zeros(len(start), np.uint64)
    for byte in range(field.size):
        found |= raw.take(at + byte, mode="clip").astype(np.uint64) << np.uint64(8 * byte)
    if field.signed:
        spare = np.uint64(64 - 8 * field.size)
        found = ((found << spare).view(np.int64) >> spare.astype(np.int64)).view(np.uint64)
    return found


_PICK: Final[dict[tuple[int, int], Callable[[Words, Indices, Field], NDArray[np.uint64]]]] = {
    (4, 0): _words4,
    (8, 0): _words8,
}


def _with_losses(block: Block, records: Records, cpu: int) -> Block:
    """Return the rows, and before those of a page that events were lost before it."""
    lost = len(records.lost)
    full = np.full(lost, MISSING, np.uint64)
    payload = None if block.payload is None else np.full(lost, None, np.object_)
    rows = Block(
        records.lost_time,
        np.full(lost, cpu, np.uint16),
        np.full(lost, NOBODY, np.int32),
        np.full(lost, LOST, np.uint16),
        np.full(lost, ABSENT, np.uint8),
        records.counts,
        full,
        full,
        payload,
    )
    order = np.argsort(np.concatenate([records.lost * 2, records.page * 2 + 1]), kind="stable")
    return Block.join([rows, block]).take(order)
