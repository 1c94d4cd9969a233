"""Events as columns: what every reader of a recording gives, and all that is concluded from one reads.

A `Block` has one row for each event.  The events that the model knows (`EVENTS`) have codes of their own and their
fields in columns; every other event is a row too, its name among the trace's own and its payload untouched.

Sources: Linux 6.18 ``arch/x86/include/asm/trace/fpu.h``, ``arch/x86/kvm/trace.h``, ``include/trace/events/kvm.h``,
``include/trace/events/sched.h``; the ``format`` files of a running kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["ABSENT", "CODES", "COLUMNS", "DTYPES", "EVENTS", "LOST", "MISSING", "Block", "Event", "codes"]

Column: TypeAlias = NDArray[Any]

MISSING: Final = (1 << 64) - 1
"""In `Block.a`, `b` and `c`: the event does not have the field, or its text does not say it."""
ABSENT: Final = 255
"""In `Block.flag`: likewise."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event that the model knows.

    Attributes:
        name: the tracepoint's, without its system.
        system: of tracefs; "" for what no tracepoint says.
        fields: the format's fields that the columns ``a``, ``b`` and ``c`` hold, in their order.
        flag: the field that the column ``flag`` holds, or "".
    """

    name: str
    system: str
    fields: tuple[str, ...] = ()
    flag: str = ""


_FPU: Final = ("fpu", "xfeatures", "xcomp_bv")

EVENTS: Final = (
    Event("lost", "", ("count",)),
    Event("x86_fpu_regs_activated", "x86_fpu", _FPU, "load_fpu"),
    Event("x86_fpu_regs_deactivated", "x86_fpu", _FPU, "load_fpu"),
    Event("x86_fpu_dropped", "x86_fpu", _FPU, "load_fpu"),
    Event("x86_fpu_copy_src", "x86_fpu", _FPU, "load_fpu"),
    Event("x86_fpu_copy_dst", "x86_fpu", _FPU, "load_fpu"),
    Event("x86_fpu_before_save", "x86_fpu", _FPU, "load_fpu"),
    Event("x86_fpu_after_save", "x86_fpu", _FPU, "load_fpu"),
    Event("x86_fpu_before_restore", "x86_fpu", _FPU, "load_fpu"),
    Event("x86_fpu_after_restore", "x86_fpu", _FPU, "load_fpu"),
    Event("x86_fpu_init_state", "x86_fpu", _FPU, "load_fpu"),
    Event("x86_fpu_xstate_check_failed", "x86_fpu", _FPU, "load_fpu"),
    Event("kvm_fpu", "kvm", (), "load"),
    Event("kvm_entry", "kvm", ("vcpu_id",)),
    Event("kvm_exit", "kvm", ("exit_reason", "isa", "vcpu_id")),
    Event("kvm_userspace_exit", "kvm", ("reason", "errno")),
    Event("sched_switch", "sched", ("prev_pid", "next_pid", "prev_state")),
    Event("sched_migrate_task", "sched", ("pid", "orig_cpu", "dest_cpu")),
    Event("sched_process_fork", "sched", ("parent_pid", "child_pid")),
    Event("sched_process_exec", "sched", ("pid", "old_pid")),
    Event("sched_process_exit", "sched", ("pid",)),
    Event("sched_process_free", "sched", ("pid",)),
    Event("sched_process_wait", "sched", ("pid",)),
)
"""By code.  Codes from ``len(EVENTS)`` on are a trace's own: ``Trace.names`` has them."""

CODES: Final[Mapping[str, int]] = {event.name: code for code, event in enumerate(EVENTS)}
LOST: Final = 0
"""The code of a row that no tracepoint made: here ``a`` events of this row's CPU were lost, 0 if nobody counted."""


def codes(*names: str) -> tuple[int, ...]:
    """Return the codes of the named events."""
    return tuple(CODES[name] for name in names)


@dataclass(slots=True, eq=False)
class Block:
    """Rows of events, each column an array of the same length.

    Attributes:
        time: uint64, nanoseconds of the trace's clock (its own ticks where `Trace.clock` counts no nanoseconds).
        cpu: uint16.
        pid: int32, the thread that ran.
        code: uint16, of `EVENTS` or of the trace's own names.
        flag: uint8, the event's flag field, or `ABSENT`.
        a, b, c: uint64, the fields that `Event.fields` names (negative ones as their 64 bits), or `MISSING`.
        payload: objects, the bytes after the common fields (of text: after the name) of an event that the model does
            not know, and None for all others; no column at all unless the reader was asked to keep them.
    """

    time: NDArray[np.uint64]
    cpu: NDArray[np.uint16]
    pid: NDArray[np.int32]
    code: NDArray[np.uint16]
    flag: NDArray[np.uint8]
    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    c: NDArray[np.uint64]
    payload: NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.time)

    def columns(self) -> tuple[Column, ...]:
        """Return the columns in the order of the attributes, without `payload`."""
        return tuple(getattr(self, name) for name in COLUMNS)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Self:
        """Return the rows that an index, a mask or a slice picks."""
        payload = None if self.payload is None else self.payload[rows]
        return self.made([column[rows] for column in self.columns()], payload)

    def of(self, *names: str) -> NDArray[np.bool_]:
        """Return which rows are events of these names."""
        return np.isin(self.code, np.array(codes(*names), np.uint16))

    @classmethod
    def made(cls, columns: Sequence[Column], payload: NDArray[np.object_] | None = None) -> Self:
        """Return a block of its columns in the order of the attributes."""
        time, cpu, pid, code, flag, a, b, c = columns
        return cls(time, cpu, pid, code, flag, a, b, c, payload)

    @classmethod
    def join(cls, blocks: Sequence[Self]) -> Self:
        """Return all rows of *blocks*, in their order; all of them have payloads, or none has."""
        if len(blocks) == 1:
            return blocks[0]
        if not blocks:
            return cls.made([np.zeros(0, dtype) for dtype in DTYPES])
        columns = [np.concatenate(parts) for parts in zip(*(block.columns() for block in blocks), strict=True)]
        payloads = [block.payload for block in blocks if block.payload is not None]
        return cls.made(columns, np.concatenate(payloads) if payloads else None)

    @classmethod
    def of_rows(cls, rows: Iterable[Sequence[int]]) -> Self:
        """Return a block of tuples, their numbers in the order of the columns."""
        columns = list(zip(*rows, strict=True)) or [()] * len(DTYPES)
        return cls.made([np.array(column, dtype) for column, dtype in zip(columns, DTYPES, strict=True)])


COLUMNS: Final = ("time", "cpu", "pid", "code", "flag", "a", "b", "c")
DTYPES: Final = (np.uint64, np.uint16, np.int32, np.uint16, np.uint8, np.uint64, np.uint64, np.uint64)
"""Of the columns, in their order."""
