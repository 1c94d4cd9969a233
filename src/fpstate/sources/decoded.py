"""A source, read and placed: what `fpstate decode` shows, as a library call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from fpstate.cpu.model import Cpu
from fpstate.errors import UnreadableInput, UsageError
from fpstate.sources.capture import Capture, Damage
from fpstate.sources.open import open_source
from fpstate.sources.placement import Placed, Placer

if TYPE_CHECKING:
    from fpstate.sources.arrays import Arrays

__all__ = ["MOST_PLACED", "Decoded", "Finding", "decode", "place"]

MOST_PLACED: Final = 1 << 30
"""Bytes of images that are placed at once: those of 400,000 threads with AVX-512."""


class Finding(NamedTuple):
    """Something wrong with a source.

    Attributes:
        tids: the threads that it was found in; empty if in none.
        damage: what it is.
    """

    tids: tuple[int | None, ...]
    damage: Damage


@dataclass(frozen=True)
class Decoded:
    """A source with each thread's state.

    Attributes:
        capture: what the source holds.
        placer: how its threads are placed.
    """

    capture: Capture
    placer: Placer

    @cached_property
    def threads(self) -> Sequence[Placed]:
        """Every thread, in the source's order.

        Raises:
            CannotTell: a layout would have to be guessed, and was not to be.
            UnreadableInput: the images have more than `MOST_PLACED` bytes together.
        """
        found, size = [], 0
        for thread in self.capture.threads:
            found.append(self.placer.place(thread))
            size += len(thread.image)
            if size > MOST_PLACED:
                text = f"{self.capture.source} has images of more than {MOST_PLACED >> 30} GiB"
                raise UnreadableInput(text, cure="take them one by one, .capture.threads, or as arrays")
        return found

    def thread(self, tid: int) -> Placed:
        """Return the thread with number *tid*.

        Raises:
            UsageError: there is none.
        """
        for thread in self.capture.threads:
            if thread.tid == tid:
                return self.placer.place(thread)
        known = [str(thread.tid) for thread in self.capture.threads if thread.tid is not None]
        shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
        cure = f"it has {shown}" if known else "what it has is without numbers: --all-threads shows it"
        raise UsageError(f"{self.capture.source} has no thread {tid}", cure=cure)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Everything wrong: the source's first, then the threads'; the same in several threads counts once."""
        found: dict[Damage, list[int | None]] = {damage: [] for damage in self.capture.damage}
        for placed in self.threads:
            for damage in placed.damage:
                found.setdefault(damage, []).append(placed.thread.tid)
        return tuple(Finding(tuple(tids), damage) for damage, tids in found.items())

    def as_arrays(self) -> Arrays:
        """Return the state of all threads as NumPy arrays, views of the source where its images are equally spaced.

        Raises:
            CannotTell: the threads have not all the same layout, or fpstate[batch] is not installed.
        """
        from fpstate.sources.arrays import arrays  # noqa: PLC0415  NumPy

        return arrays(self.capture, self.placer)


def decode(path: str | os.PathLike[str], *, cpu: Cpu | None = None, strict: bool = False) -> Decoded:
    """Return the state of every thread in a file.

    Args:
        path: a file of a kind in `fpstate.sources.open.READERS`, compressed or not; ``-`` is standard input.
        cpu: the CPU that made it, for a source that does not tell where components lie.
        strict: refuse a layout that is a guess among several.

    Raises:
        UnreadableInput: it cannot be read, or holds no state that fpstate recognises.
    """
    return place(open_source(os.fspath(path)), cpu=cpu, strict=strict)


def place(capture: Capture, *, cpu: Cpu | None = None, strict: bool = False) -> Decoded:
    """Return the state of every thread of *capture*; arguments as for `decode`."""
    return Decoded(capture, Placer(cpu or capture.cpu, strict=strict, by_gdb=capture.maker == "gdb"))
