"""The end of a recording: asked for by a signal, by a failure, or by nobody yet; everything that waits can poll it."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any, Final, Self

__all__ = ["Stop"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """While entered, SIGINT, SIGTERM and SIGHUP ask for the end once; a second one interrupts whatever runs.

    A signal that was ignored before, as nohup(1) arranges, stays ignored.

    Attributes:
        fd: a descriptor that can be read from as soon as the end was asked for.
        why: who asked, or "".
        error: the failure that asked, or None.
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.why = ""
        self.error: OSError | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.fd)

    def __bool__(self) -> bool:
        return bool(self.why)

    def ask(self, why: str, error: OSError | None = None) -> None:
        """Ask for the end; who asks first says why."""
        self.error = self.error or error
        self.why = self.why or why
        with contextlib.suppress(OSError):  # it is counted up already
            os.eventfd_write(self.fd, 1)

    def _signalled(self, number: int, _frame: object) -> None:
        if self:
            raise KeyboardInterrupt
        self.ask(signal.Signals(number).name)
