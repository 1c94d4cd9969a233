"""Owners of the registers, and guests' FPUs, as a file that Perfetto and chrome://tracing open.

The form is the JSON trace-event format: complete events (``"ph": "X"``) with a time and a length in microseconds on a
track that is named by metadata events (``"ph": "M"``).  A CPU is a track of the process "registers", a vCPU thread one
of the process "guest FPU loaded".  Slices are written as they end: nothing is held but those that are open.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np

from fpstate.errors import UnreadableInput
from fpstate.traces.columns import CODES, LOST, Block
from fpstate.traces.report import ACTIVATED, DEACTIVATED, DROPPED
from fpstate.traces.trace import Trace

__all__ = ["Perfetto"]

_KVM_FPU: Final = CODES["kvm_fpu"]
_WANTED: Final = np.array([LOST, ACTIVATED, DEACTIVATED, DROPPED, _KVM_FPU], np.uint16)
_REGISTERS, _GUESTS = 1, 2
_PROCESSES: Final = {_REGISTERS: "registers", _GUESTS: "guest FPU loaded"}


class _Slice:
    """What is open on a track: whose it is, since when, and how often it was loaded and saved."""

    __slots__ = ("loads", "pid", "saves", "start")

    def __init__(self, pid: int, start: int) -> None:
        self.pid, self.start = pid, start
        self.loads = self.saves = 0


class Perfetto:
    """A file in the making: there only once the ``with`` block ended well.

    Args:
        path: of the file, gzip's if it ends in ``.gz``.
        trace: what is written down.

    Raises:
        UnreadableInput: it cannot be written.
    """

    def __init__(self, path: str, trace: Trace) -> None:
        self._path, self._trace = path, trace
        self._partial = f"{os.path.realpath(path)}.part{os.getpid()}"
        self._cpus: dict[int, _Slice] = {}
        self._guests: dict[int, _Slice] = {}
        self._tracks: dict[tuple[int, int], str] = {}
        self._last = 0
        self._file: IO[str]

    def __enter__(self) -> Self:
        try:
            self._file = gzip.open(self._partial, "wt") if self._path.endswith(".gz") else open(self._partial, "w")  # noqa: PTH123 - closed below; ASCII
            self._file.write('{"displayTimeUnit":"ns","traceEvents":[')
            self._file.write(",\n".join(_named("process_name", pid, 0, name) for pid, name in _PROCESSES.items()))
        except OSError as error:
            raise self._refusal(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._file:
                if kind is None:
                    self._finish()
            if kind is None:
                os.replace(self._partial, os.path.realpath(self._path))  # noqa: PTH105 - a name, as it was given
        except OSError as failed:
            raise self._refusal(failed) from failed
        finally:
            Path(self._partial).unlink(missing_ok=True)

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Give *blocks* on, each once its slices are written."""
        for block in blocks:
            self.feed(block)
            yield block

    def feed(self, block: Block) -> None:
        """Write the slices that end in the next rows."""
        if not len(block):
            return
        rows = block.take(np.isin(block.code, _WANTED))
        lines: list[str] = []
        columns = (rows.time, rows.cpu, rows.pid, rows.code, rows.flag)
        for time, cpu, pid, code, flag in zip(*(column.tolist() for column in columns), strict=True):
            if code == _KVM_FPU:
                self._guest(lines, pid, time, load=flag == 1)
            elif code == LOST:
                self._close_all(lines, time)
            else:
                self._own(lines, cpu, pid, time, code)
        self._last = int(block.time[-1])
        self._write(lines)

    def _own(self, lines: list[str], cpu: int, pid: int, time: int, code: int) -> None:
        held = self._cpus.get(cpu)
        if code == DROPPED or held is None or held.pid != pid:
            if held is not None:
                lines.append(self._slice(_REGISTERS, cpu, held, time))
            if code == DROPPED:
                self._cpus.pop(cpu, None)
                return
            held = self._cpus[cpu] = _Slice(pid, time)
        if code == ACTIVATED:
            held.loads += 1
        else:
            held.saves += 1

    def _guest(self, lines: list[str], pid: int, time: int, *, load: bool) -> None:
        held = self._guests.pop(pid, None)
        if held is not None:
            lines.append(self._slice(_GUESTS, pid, held, time))
        if load:
            self._guests[pid] = _Slice(pid, time)

    def _close_all(self, lines: list[str], time: int) -> None:
        """End every slice: where events were lost, nobody knows what went on."""
        lines += [self._slice(_REGISTERS, cpu, held, time) for cpu, held in self._cpus.items()]
        lines += [self._slice(_GUESTS, pid, held, time) for pid, held in self._guests.items()]
        self._cpus.clear()
        self._guests.clear()

    def _slice(self, process: int, track: int, held: _Slice, end: int) -> str:
        name = self._trace.comms.get(held.pid, "")
        if (process, track) not in self._tracks:
            self._tracks[process, track] = f"CPU {track}" if process == _REGISTERS else f"{name} ({track})"
        called = json.dumps(f"{name} ({held.pid})" if name else str(held.pid)) if process == _REGISTERS else '"loaded"'
        counts = f',"args":{{"loads":{held.loads},"saves":{held.saves}}}' if process == _REGISTERS else ""
        when = f'"ts":{_micro(held.start)},"dur":{_micro(max(end - held.start, 0))}'
        return f'{{"ph":"X","pid":{process},"tid":{track},{when},"name":{called}{counts}}}'

    def _finish(self) -> None:
        lines: list[str] = []
        self._close_all(lines, self._last)
        lines += [_named("thread_name", *track, name) for track, name in self._tracks.items()]
        lines += [
            f'{{"ph":"M","pid":{pid},"tid":{tid},"name":"thread_sort_index","args":{{"sort_index":{tid}}}}}'
            for pid, tid in self._tracks
        ]
        self._write(lines)
        trace = self._trace
        other = {"source": trace.source, "format": trace.format, "clock": trace.clock, "kernel": trace.facts.release}
        self._file.write(f'],"otherData":{json.dumps(other)}}}\n')

    def _write(self, lines: list[str]) -> None:
        try:
            self._file.writelines(f",\n{line}" for line in lines)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> UnreadableInput:
        return UnreadableInput(f"cannot write {self._path}: {error.strerror or error}")


def _named(what: str, pid: int, tid: int, name: str) -> str:
    args: dict[str, Any] = {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": {"name": name}}
    return json.dumps(args, separators=(",", ":"))


def _micro(time: int) -> str:
    """Return nanoseconds as microseconds, all digits kept."""
    return f"{time // 1000}.{time % 1000:03}"
