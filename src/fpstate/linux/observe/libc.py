"""The C library, for the system calls that Python has no function for; ctypes loads with the first of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ctypes

__all__ = ["demand", "end_with_parent", "libc"]

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


def libc() -> ctypes.CDLL:
    """Return the C library, with errno kept for `demand`.

    Raises:
        ImportError, MemoryError: this Python has no ctypes, or a security module denies it the memory it wants.
    """
    import ctypes  # noqa: PLC0415 - importing the package stays cheap

    return ctypes.CDLL(None, use_errno=True)


def demand(status: int, what: str) -> int:
    """Return *status*, what a function of `libc` returned, unless it is negative.

    Raises:
        OSError: it is; the error is errno's, its ``filename`` is *what*.
    """
    if status < 0:
        import ctypes  # noqa: PLC0415 - loaded already

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return status


def end_with_parent(signal: int) -> None:
    """Have the kernel send *signal* to this process when its parent ends: prctl(2), PR_SET_PDEATHSIG."""
    libc().prctl(_PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
