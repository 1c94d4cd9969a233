"""Raw pages of the ring buffer, moved from the kernel into files while events are recorded.

One thread a CPU sleeps until half of the buffer is full, then splices whole pages: the kernel moves them, the
interpreter's lock is not held, and the events that it costs are few.  Sources: Linux ``kernel/trace/trace.c``
(``tracing_buffers_splice_read``: whole pages only; ``tracing_buffers_poll``: ``buffer_percent``), splice(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import threading
from pathlib import Path
from typing import Final

from fpstate.linux.tracefs import Instance
from fpstate.traces.stop import Stop

__all__ = ["Drain", "page_size"]

_PIPE_PAGES: Final = 256
_PATIENCE_MS: Final = 1000
"""Wakes a thread whose buffer fills too slowly: kernels before 6.9 may miss the wakeup when the level is reached."""
_FULL: Final = 50
"""Percent of the buffer that must be full before a thread wakes."""


def page_size(instance: Instance) -> int:
    """Return the bytes of one page of the ring buffer, which kernels from 6.8 on let the user change."""
    with contextlib.suppress(OSError, ValueError):
        return int(instance.read("buffer_subbuf_size_kb")) << 10
    return mmap.PAGESIZE


class Drain(threading.Thread):
    """Moves one CPU's pages into a file until `Stop` is asked for; `finish` then moves what is left.

    Args:
        instance: whose buffer.
        cpu: which CPU's.
        path: the file, which must not exist.
        stop: the end; a failure asks for it.
    """

    def __init__(self, instance: Instance, cpu: int, path: Path, stop: Stop) -> None:
        super().__init__(name=f"drain-{cpu}", daemon=True)
        self._stop_asked = stop
        self._page = page_size(instance)
        self._held = contextlib.ExitStack()
        raw = instance.path / "per_cpu" / f"cpu{cpu}" / "trace_pipe_raw"
        try:
            self._raw = self._hold(os.open(raw, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            self._file = self._hold(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            out, into = os.pipe2(os.O_CLOEXEC)
            self._out, self._into = self._hold(out), self._hold(into)
            with contextlib.suppress(OSError):  # less at a time will do
                fcntl.fcntl(self._into, fcntl.F_SETPIPE_SZ, _PIPE_PAGES * self._page)
        except BaseException:
            self._held.close()
            raise

    @staticmethod
    def wake_at(instance: Instance) -> None:
        """Have the threads sleep until half of the buffer is full."""
        with contextlib.suppress(FileNotFoundError):  # Linux before 5.1
            instance.write("buffer_percent", str(_FULL))

    def run(self) -> None:
        """Move pages until the end is asked for."""
        waiting = select.poll()
        waiting.register(self._raw, select.POLLIN)
        waiting.register(self._stop_asked.fd, select.POLLIN)
        try:
            while not self._stop_asked:
                waiting.poll(_PATIENCE_MS)
                self._move()
        except OSError as error:
            self._stop_asked.ask("a failure", error)

    def finish(self) -> None:
        """Move what is left once recording is off and the thread has ended: whole pages, then the part of one.

        Raises:
            OSError: it cannot be read or written.
        """
        self._move()
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._raw, self._page):
                _write(self._file, part.ljust(self._page, b"\0"))

    def close(self) -> None:
        """Let go of the descriptors."""
        self._held.close()

    def _hold(self, descriptor: int) -> int:
        self._held.callback(os.close, descriptor)
        return descriptor

    def _move(self) -> None:
        """Move the pages that are there."""
        with contextlib.suppress(BlockingIOError):
            while moved := os.splice(self._raw, self._into, _PIPE_PAGES * self._page, flags=os.SPLICE_F_NONBLOCK):
                while moved:
                    moved -= os.splice(self._out, self._file, moved)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
