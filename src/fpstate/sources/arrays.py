"""The state of all threads of a source as NumPy arrays: one row a thread, views of the source where that can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fpstate import registers as regs
from fpstate.errors import CannotTell, UsageError
from fpstate.sources.capture import Capture, Thread
from fpstate.sources.elfcore import Threads
from fpstate.sources.placement import Layout, Placer
from fpstate.xfeatures import LEGACY_PLACES, LEGACY_SIZE, SOFTWARE, bits

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as missing:
    raise CannotTell("arrays need NumPy, which is not installed", cure="pip install 'fpstate[batch]'") from missing

__all__ = ["Arrays", "arrays"]

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Arrays:
    """The images of *n* threads that have one layout, standard format.

    Attributes:
        tids: the threads' numbers.
        images: (n, bytes of an image), uint8; a view of the source where `copied` is False.
        layout: where components lie.
        has: the components that have a place.
        copied: whether the images did not lie equally spaced.
    """

    tids: list[int | None]
    images: Bytes
    layout: Layout
    has: int
    copied: bool

    @property
    def xstate_bv(self) -> NDArray[np.uint64]:
        """XSTATE_BV of each thread: (n,), as the source has it."""
        return self._column(LEGACY_SIZE, 8).view("<u8")[:, 0]

    @property
    def mxcsr(self) -> NDArray[np.uint32]:
        """MXCSR of each thread: (n,)."""
        return self._column(24, 4).view("<u4")[:, 0]

    def in_use(self, component: str | int) -> NDArray[np.bool_]:
        """Return which threads have *component*, a name or a number, in use: (n,)."""
        return (self.xstate_bv >> np.uint64(self._bit(component)) & np.uint64(1)).astype(bool)

    def component(self, component: str | int) -> Bytes:
        """Return the bytes of a component: (n, size), initial ones where it is not in use.

        A view of `images`, unless a thread that does not use the component holds other bytes there.

        Raises:
            UsageError: it has no place.
        """
        bit = self._bit(component)
        offset, size = self._place(bit)
        found = self._column(offset, size)
        idle = ~self.in_use(bit)
        own = np.ones(size, bool)
        own[24:32] = bit != 0  # MXCSR lies between the bytes of x87
        initial = np.frombuffer(regs.initial(bit, offset + size if bit < 2 else size), np.uint8)[-size:]
        if (found[idle][:, own] != initial[own]).any():
            found = found.copy()
            found[np.ix_(idle, own)] = initial[own]
        return found

    def register(self, name: str) -> Bytes:
        """Return the bytes of a register, lowest first: (n, size).

        A view where it lies in one component, else a copy: zmm3 is XMM3, YMM3_H and ZMM3_H.

        Raises:
            UsageError: there is no such register, or its component has no place.
        """
        register = regs.find(name, self.layout.caps.sizes)
        if name == "mxcsr":
            return self._column(24, 4)
        parts = []
        for part in register.parts:
            start = LEGACY_PLACES[part.bit][0] if part.bit < 2 else 0
            parts.append(self.component(part.bit)[:, part.offset - start : part.offset - start + part.size])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _column(self, offset: int, size: int) -> Bytes:
        return self.images[:, offset : offset + size]

    def _bit(self, component: str | int) -> int:
        return component if isinstance(component, int) else self.layout.caps.cpu.catalogue.parse_bit(component)

    def _place(self, bit: int) -> tuple[int, int]:
        places = {b: (offset, size) for b, offset, size in self.layout.caps.standard(self.has).slots}
        place = {**LEGACY_PLACES, **places}.get(bit)
        if place is None or not self.has >> bit & 1:
            raise UsageError(f"component {bit} has no place in these images", cure=f"it has {list(bits(self.has))}")
        return place


def arrays(capture: Capture, placer: Placer) -> Arrays:
    """Return the images of *capture* as arrays.

    Raises:
        CannotTell: a thread has no XSAVE image of standard format, or their sizes or XCR0s differ.
    """
    threads = capture.threads
    first = placer.place(threads[0]) if threads else None
    if first is None or first.format != "standard":
        form = "no threads" if first is None else f"images of form {first.format}"
        raise CannotTell(f"{capture.source} has {form}: arrays need XSAVE images of standard format")
    images, copied = _images(capture.source, threads)
    tids = threads.tids if isinstance(threads, Threads) else [thread.tid for thread in threads]
    made = Arrays(tids, images, first.layout, first.has, copied)
    for what, offset in (("XCR0", SOFTWARE), ("XCOMP_BV", LEGACY_SIZE + 8)):
        column = images[:, offset : offset + 8]
        if (column != column[0]).any():
            raise CannotTell(f"the threads of {capture.source} differ in {what}", cure="take them one by one: .threads")
    return made


def _images(source: str, threads: Sequence[Thread]) -> tuple[Bytes, bool]:
    """Return all images, and whether they had to be copied."""
    if isinstance(threads, Threads):
        spans = [span for form, span in threads.spans if form == "xsave"]
        sizes = {span.size for span in spans}
        if sum(span.images for span in spans) == len(threads) and len(sizes) == 1:
            starts = np.concatenate([span.offset + span.stride * np.arange(span.images) for span in spans])
            return _at(threads.data, starts, sizes.pop())
    else:
        sizes = {len(thread.image) for thread in threads}
        if len(sizes) == 1 and all(thread.form == "xsave" for thread in threads):
            return np.stack([np.frombuffer(thread.image, np.uint8) for thread in threads]), True
    raise CannotTell(f"the threads of {source} have not all an XSAVE image of one size", cure="take them one by one")


def _at(data: memoryview, starts: NDArray[np.int64], size: int) -> tuple[Bytes, bool]:
    """Return the images that begin at *starts*: a strided view if the steps between them are equal."""
    whole = np.frombuffer(data, np.uint8)
    steps = np.unique(np.diff(starts))
    if len(steps) > 1 or (steps < size).any():
        return np.stack([whole[start : start + size] for start in starts]), True
    step = int(steps[0]) if len(steps) else size
    rows = np.lib.stride_tricks.as_strided(whole[starts[0] :], (len(starts), size), (step, 1), writeable=False)
    return rows, False
