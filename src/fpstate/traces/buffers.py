"""Ring buffers of a recording: its top one and those of tracing instances, each with pages of every CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from fpstate.errors import UnreadableInput, UsageError, printable
from fpstate.sources.capture import Damage
from fpstate.traces.ahead import read_ahead
from fpstate.traces.decoder import Batch, Decoder, Tell
from fpstate.traces.formats import Format
from fpstate.traces.ring import Layout
from fpstate.traces.trace import Trace

__all__ = ["MOST_CPUS", "Buffer", "Pages", "batches_of_bytes", "batches_of_pieces", "choose", "fill"]

MOST_CPUS: Final = 8192
"""NR_CPUS of x86 (Linux ``arch/x86/Kconfig``)."""

_BLOCK: Final = 4 << 20
_LEAST_BLOCK: Final = 1 << 20
"""Bytes of pages that are decoded at once: less of each CPU's where there are many."""
_PEEK: Final = 1 << 18
"""Bytes of each CPU's pages that are looked at to choose a buffer."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of a CPU.

    Attributes:
        cpu: its number.
        size: bytes that they take in the source; 0 for none.
        batches: gives whole pages, up to that many bytes at a time, and tells what is wrong.
    """

    cpu: int
    size: int
    batches: Callable[[int, Tell], Iterator[Batch]]


@dataclass(slots=True)
class Buffer:
    """A ring buffer.

    Attributes:
        name: of its instance, ``top`` for the top one.
        layout: of its pages.
        clock: of its times, or "".
        pages: of its CPUs.
    """

    name: str
    layout: Layout
    clock: str = ""
    pages: list[Pages] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether it has pages."""
        return any(each.size for each in self.pages)


def choose(
    buffers: Sequence[Buffer], formats: Iterable[Format], trace: Trace, *, wanted: str | None, payloads: bool
) -> None:
    """Open the instance that is *wanted*, or else the first that has events of extended state, or else any.

    Args:
        buffers: of the recording.
        formats: of its events.
        trace: what is opened: its streams and clock are set.
        wanted: an instance's name, or None.
        payloads: as for `Decoder`.

    Raises:
        UsageError: there is no such instance.
    """
    names = ", ".join(printable(buffer.name) for buffer in buffers) or "none"
    full = [buffer for buffer in buffers if buffer.full]
    formats = list(formats)
    if wanted is not None:
        chosen = next((buffer for buffer in buffers if printable(buffer.name) == wanted), None)
        if chosen is None:
            raise UsageError(f"{trace.source} has no instance {wanted!r}: it has {names}")
    else:
        chosen = next((each for each in full if _has_states(each, formats)), full[0] if full else None)
    if chosen is None or not chosen.pages:
        said = "no CPU's pages" if not buffers or not any(each.pages for each in buffers) else "no events"
        trace.damage.append(Damage("trace.no-pages", f"the recording has {said}"))
        return
    others = [printable(buffer.name) for buffer in full if buffer is not chosen]
    if others:
        trace.notes.append(f"read here: {printable(chosen.name)}; the recording has also {', '.join(others)}")
    trace.clock = printable(chosen.clock) or trace.clock
    try:
        fill(trace, chosen, Decoder(trace, formats, chosen.layout, payloads=payloads))
    except UnreadableInput as error:
        trace.damage.append(Damage("trace.formats", str(error)))


def fill(trace: Trace, buffer: Buffer, decoder: Decoder) -> None:
    """Set the streams of *trace*: one for each CPU that has pages."""
    page = buffer.layout.page
    full = [each for each in buffer.pages if each.size]
    most = max(_LEAST_BLOCK, _BLOCK * 8 // max(8, len(full))) // page * page
    trace.streams = read_ahead([decoder.stream(each.batches(most, decoder.tell), each.cpu) for each in full])


def _has_states(buffer: Buffer, formats: Sequence[Format]) -> bool:
    """Say whether the first pages of a buffer have events of extended state."""
    numbers = [entry.number for entry in formats if entry.system == "x86_fpu"]
    if not numbers:
        return False
    trial = Trace(source="", format="", streams=[])  # what it finds wrong is found again by who reads
    try:
        decoder = Decoder(trial, formats, buffer.layout)
    except UnreadableInput:
        return False
    most = _PEEK // buffer.layout.page * buffer.layout.page or buffer.layout.page
    firsts = (next(each.batches(most, decoder.tell), None) for each in buffer.pages if each.size)
    return any(decoder.has(first, numbers) for first in firsts if first is not None)


def batches_of_bytes(data: memoryview, offset: int, page: int, most: int) -> Iterator[Batch]:
    """Give whole pages of *data*, which lies at *offset* in the source."""
    end = len(data) // page * page
    for at in range(0, end, most):
        yield Batch(data[at : min(at + most, end)], offset + at)


def batches_of_pieces(pieces: Iterable[bytes], page: int, most: int) -> Iterator[Batch]:
    """Give whole pages of *pieces*, each of any size, which have no place in the source."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= most:
            data = b"".join(held)
            whole = size // page * page
            yield Batch(memoryview(data)[:whole], None)
            held, size = [data[whole:]], size - whole
    data = b"".join(held)
    if whole := len(data) // page * page:
        yield Batch(memoryview(data)[:whole], None)
