"""One thing read from the running machine, or the reason why it could not be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from fpstate.errors import FpstateError

__all__ = ["FAILURES", "Observation", "Probe", "Value", "why"]

Value = int | str | tuple[str, ...]

FAILURES: Final = (FpstateError, OSError, ImportError, MemoryError)
"""How reading fails on a machine that does not have, or does not allow, what is read.

ImportError and MemoryError come from ctypes: a Python may lack it, and a security module may deny it the executable
memory that its import asks for.
"""


@dataclass(frozen=True, slots=True)
class Observation:
    """One fact about the running machine.

    Attributes:
        fact: its stable name, e.g. ``"xcomp_supp"``.
        value: what was read; None if it could not be read.
        how: where it was read, e.g. ``"arch_prctl(ARCH_GET_XCOMP_SUPP)"``.
        why_not: the reason, with the cure where one is known, if *value* is None; else None.
    """

    fact: str
    value: Value | None
    how: str
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Probe:
    """The facts that are read together, and the function that reads them.

    Attributes:
        how: fact to the place where it is read, in the order in which the facts are reported.
        read: gives the observations within about the seconds that it is told; raises one of `FAILURES` where it can
            give none.
    """

    how: Mapping[str, str]
    read: Callable[[float], Iterable[Observation]]

    def observe(self, seconds: float) -> list[Observation]:
        """Return one observation of each fact; whatever keeps them from being read becomes their reason."""
        try:
            return list(self.read(seconds))
        except FAILURES as error:
            return self.missing(why(error, "reading it"))

    def missing(self, why_not: str) -> list[Observation]:
        """Return the observations of facts that all lack their value for the same reason."""
        return [Observation(fact, None, how, why_not) for fact, how in self.how.items()]


def why(error: BaseException, what: str) -> str:
    """Say in one line why *what* failed, and what may cure it; *error* is one of `FAILURES`."""
    if isinstance(error, (ImportError, MemoryError)):
        return f"this Python cannot call the system: {str(error) or 'its memory is refused'}"
    if not isinstance(error, OSError):
        return str(error)
    name = str(error.filename or what)
    text = error.strerror or str(error)
    if isinstance(error, PermissionError):
        if os.geteuid():
            return f"needs root: {name}: {text}"
        return f"{name}: {text}, to root too: a container, a security module or kernel lockdown forbids it"
    if isinstance(error, FileNotFoundError) and name.startswith("/"):
        return f"no {name}"
    return f"{name}: {text}"
