"""What an event's text says, in columns: the kernel's own print formats, trace-cmd's, and those of old kernels.

Sources: the ``TP_printk`` of Linux 4.2 to 6.18 (``arch/x86/include/asm/trace/fpu.h``, ``include/trace/events/kvm.h``,
``arch/x86/kvm/trace.h``, ``include/trace/events/sched.h``), libtraceevent's ``plugin_sched_switch.c`` and
``plugin_kvm.c``, and ``name=value`` where a tool prints fields for want of a format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpstate.traces.columns import CODES, EVENTS, MISSING
from fpstate.traces.exits import EXITS

__all__ = ["LOST_NAME", "Fields", "fields_of", "is_known", "is_whole"]

LOST_NAME: Final = b"\0lost"
"""The name that rows of lost events go by among rows of text: no event has it."""

Row = tuple[bytes, ...]
"""What one text says, a group of its pattern each."""


class Fields(NamedTuple):
    """The columns of events of one kind, in the order of their texts.

    Attributes:
        columns: "a", "b", "c", "flag": those that the event has.
        unread: which texts are not as any kernel prints them.
        comms: (thread, name) of the threads that sched_switch switches to.
    """

    columns: dict[str, NDArray[np.uint64]]
    unread: NDArray[np.bool_]
    comms: set[tuple[bytes, bytes]]


class _Numbers(dict[bytes, int]):
    """Numbers of texts, each read once: masks, pointers and states are few."""

    def __init__(self, read: Callable[[bytes], int]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, text: bytes) -> int:
        self[text] = number = self._read(text)
        return number


def _hex(text: bytes) -> int:
    """Return a hexadecimal number, or `MISSING`: a pointer may be "(null)" or "(____ptrval____)"."""
    try:
        return int(text, 16) & MISSING
    except ValueError:
        return 0 if text == b"(null)" else MISSING


def _decimal(text: bytes) -> int:
    return int(text) & MISSING if text else MISSING


def _number(text: bytes) -> int:
    """Return a number as ``name=value`` has it: decimal, or hexadecimal with 0x."""
    if not text:
        return MISSING
    return int(text, 16 if text.startswith(b"0x") else 10) & MISSING


_STATES: Final = {b"S": 1, b"D": 2, b"T": 4, b"t": 8, b"X": 16, b"Z": 32, b"P": 64, b"I": 128, b"R": 0}
_PREEMPTED: Final = 256


def _state(text: bytes) -> int:
    """Return prev_state as Linux 4.14 and later number it; `MISSING` for letters that only older ones have."""
    letters = text.rstrip(b"+").replace(b"|", b"")
    found = _PREEMPTED if text.endswith(b"+") else 0
    for letter in letters:
        state = _STATES.get(bytes([letter]))
        if state is None:
            return MISSING
        found |= state
    return found if text else MISSING


def _reason(text: bytes) -> int:
    known = EXITS.get(text.decode("latin-1"))
    if known:
        return known[0]
    number = re.fullmatch(rb"0x([0-9a-f]{1,8})|UNKNOWN \((\d{1,10})\)", text)
    if number is None:
        return MISSING
    return int(number[1], 16) if number[1] else int(number[2])


def _isa(text: bytes) -> int:
    return EXITS.get(text.decode("latin-1"), (0, MISSING))[1]


def _load(text: bytes) -> int:
    return {b"load": 1, b"1": 1, b"unload": 0, b"0": 0}.get(text, MISSING)


class _Shape(NamedTuple):
    """How the texts of an event look: the pattern, and of each column its group and how to read it."""

    lines: re.Pattern[bytes]
    alone: re.Pattern[bytes]
    columns: tuple[tuple[str, int, Callable[[bytes], int]], ...]


def _shape(pattern: bytes, **columns: tuple[int, Callable[[bytes], int]]) -> _Shape:
    return _Shape(
        re.compile(rb"^(?:" + pattern + rb")$|^.*$", re.MULTILINE),
        re.compile(pattern),
        tuple((name, group, read) for name, (group, read) in columns.items()),
    )


_H16: Final = rb"([0-9a-f]{1,16})"
_PID: Final = rb"(-?\d{1,9})"

_FPU: Final = _shape(
    rb"x86/fpu: (?:0x)?([0-9a-f]{1,16}|\(\w+\)) "
    rb"(?:load: (\d{1,3})|initialized: \d+|fpregs_active: \d+ fpstate_active: \d+(?: counter: \d+)?) "
    rb"xfeatures: " + _H16 + rb" xcomp_bv: " + _H16 + rb"\s*",
    a=(0, _hex),
    flag=(1, _decimal),
    b=(2, _hex),
    c=(3, _hex),
)

_SHAPES: Final[dict[str, _Shape]] = {
    event.name: _FPU for event in EVENTS if event.system == "x86_fpu"
} | {
    "lost": _shape(rb"(\d{0,19})", a=(0, lambda text: int(text or b"0"))),
    "kvm_fpu": _shape(rb"(?:load=)?(load|unload|[01])\s*", flag=(0, _load)),
    "kvm_entry": _shape(rb"vcpu[ =](\d{1,9}).*", a=(0, _decimal)),
    "kvm_exit": _shape(
        rb"(?:vcpu (\d{1,9})[, ] ?)?reason ([A-Z][A-Z] excp|UNKNOWN \(\d+\)|\S+) .*",
        a=(1, _reason),
        b=(1, _isa),
        c=(0, _decimal),
    ),
    "kvm_userspace_exit": _shape(
        rb"reason (?:(?:restart|error) \((\d{1,9})\)|.* \((\d{1,9})\))\s*",
        a=(1, _decimal),
        b=(0, lambda text: -int(text) & MISSING if text else MISSING),
    ),
    "sched_switch": _shape(
        rb"prev_comm=(.{0,31}?) prev_pid=" + _PID + rb" prev_prio=-?\d+ prev_state=([A-Za-z|]+\+?)"
        rb" ==> next_comm=(.{0,31}?) next_pid=" + _PID + rb" next_prio=-?\d+\s*"
        rb"|(.{0,31}?):" + _PID + rb" \[-?\d+\] ([A-Za-z|]+\+?) ==> (.{0,31}?):" + _PID + rb" \[-?\d+\].*",
        a=(1, _decimal),
        b=(4, _decimal),
        c=(2, _state),
    ),
    "sched_migrate_task": _shape(
        rb"(?:comm=.*) pid=" + _PID + rb" prio=-?\d+ orig_cpu=(\d{1,5}) dest_cpu=(\d{1,5}).*",
        a=(0, _decimal),
        b=(1, _decimal),
        c=(2, _decimal),
    ),
    "sched_process_fork": _shape(
        rb"comm=.* pid=" + _PID + rb" child_comm=.* child_pid=" + _PID + rb"\s*", a=(0, _decimal), b=(1, _decimal)
    ),
    "sched_process_exec": _shape(
        rb"filename=.* pid=" + _PID + rb" old_pid=" + _PID + rb"\s*", a=(0, _decimal), b=(1, _decimal)
    ),
} | {
    name: _shape(rb"comm=.* pid=" + _PID + rb" prio=-?\d+.*", a=(0, _decimal))
    for name in ("sched_process_exit", "sched_process_free", "sched_process_wait")
}  # fmt: skip
"""By event; kvm_exit's arguments are numbers only in the binary forms."""

_SWITCH_FORMS: Final = 5
"""Groups of sched_switch's first form; its second has as many, in the same order."""


def _by_name(name: str) -> _Shape:
    """Return the shape of an event's fields printed by name, in whatever order they come."""
    event = EVENTS[CODES[name]]
    wanted = (*event.fields, *([event.flag] if event.flag else []))
    ahead = b"".join(rb"(?=(?:.*?\b" + field.encode() + rb"=(-?\d{1,20}|0x[0-9a-f]{1,16})\b)?)" for field in wanted)
    columns = dict(
        zip([*"abc"[: len(event.fields)], "flag"], ((at, _number) for at in range(len(wanted))), strict=False)
    )
    return _shape(rb"(?=.*\w=)" + ahead + rb".*", **columns)


def is_known(name: bytes) -> bool:
    """Say whether the model knows an event of this name."""
    return name.decode("latin-1") in _SHAPES


def is_whole(name: bytes, text: bytes) -> bool:
    """Say whether *text* is all that an event prints, one that the model knows."""
    return _SHAPES[name.decode("latin-1")].alone.fullmatch(text) is not None


def fields_of(code: int, texts: Sequence[bytes]) -> Fields:
    """Return what the texts of one event say.

    Args:
        code: of an event that the model knows.
        texts: without line breaks.
    """
    name = EVENTS[code].name
    shape = _SHAPES[name]
    rows = _matched(name, shape, texts)
    unread = np.fromiter((not any(row) for row in rows), np.bool_, len(rows))
    columns = _columns(shape, rows)
    if unread.any() and name != "lost":
        _fill(columns, unread, name, [text for text, bad in zip(texts, unread.tolist(), strict=True) if bad])
    comms = {(row[4], row[3]) for row in rows if row[4]} if name == "sched_switch" else set()
    return Fields(columns, unread & (name != "lost"), comms)


def _matched(name: str, shape: _Shape, texts: Sequence[bytes]) -> list[Row]:
    """Return the groups of each text, all of them empty where it does not match."""
    found = shape.lines.findall(b"\n".join(texts))
    rows: list[Row] = [(row,) for row in found] if shape.lines.groups == 1 else found
    if name == "sched_switch":
        rows = [row[:_SWITCH_FORMS] if row[1] else row[_SWITCH_FORMS:] for row in rows]
    return rows


def _columns(shape: _Shape, rows: Sequence[Row]) -> dict[str, NDArray[np.uint64]]:
    groups = list(zip(*rows, strict=True))
    found = {}
    for column, group, read in shape.columns:
        numbers = _Numbers(read)
        found[column] = np.fromiter(map(numbers.__getitem__, groups[group]), np.uint64, len(rows))
    return found


def _fill(columns: dict[str, NDArray[np.uint64]], unread: NDArray[np.bool_], name: str, texts: Sequence[bytes]) -> None:
    """Try the texts that were not read as ``name=value``; those that are, are read."""
    shape = _by_name(name)
    rows = _matched("", shape, texts)
    at = np.flatnonzero(unread)
    for column, values in _columns(shape, rows).items():
        columns[column][at] = values
    unread[at] = [not any(row) for row in rows]
