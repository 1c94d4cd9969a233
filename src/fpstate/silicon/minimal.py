"""The smallest case that still shows a difference: what can be left out is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from fpstate.isa.case import Case
from fpstate.isa.processor import MXCSR, MXCSR_INITIAL, X87_INIT
from fpstate.silicon.steps import Step
from fpstate.xfeatures import bits

__all__ = ["Trial", "minimal"]

Trial = tuple[Case, list[Step]]
"""A case and the instructions that it is about; the first one's mask is the case's."""

_BLOCK: Final = 64
_HEADER: Final = range(512, 576)


def minimal(trial: Trial, differs: Callable[[Trial], bool]) -> Trial:
    """Return a simpler trial that *differs* too, as simple as one change after the other makes it.

    Args:
        trial: a case in which two implementations differ.
        differs: executes a trial on both.
    """
    simpler = True
    while simpler:
        simpler = False
        for candidate in _simpler(trial):
            if candidate != trial and differs(candidate):
                trial, simpler = candidate, True
                break
    return trial


def _simpler(trial: Trial) -> Iterator[Trial]:
    """Yield trials with one thing less: all at once first, then bit by bit."""
    case, steps = trial
    for i in range(1, len(steps) - 1):
        yield case, [*steps[:i], *steps[i + 1 :]]
    if case.pages:
        yield replace(case, pages={}), steps
    for bit in case.state:
        yield replace(case, state={b: data for b, data in case.state.items() if b != bit}), steps
    for legacy in _plainer(case.state.get(0, b"")):
        yield replace(case, state={**case.state, 0: legacy}), steps
    for mask in _fewer(case.mask):
        yield replace(case, mask=mask), [steps[0]._replace(rfbm=mask), *steps[1:]]
    for memory in _emptier(case.memory):
        yield replace(case, memory=memory), steps


def _plainer(legacy: bytes) -> Iterator[bytes]:
    """Yield the legacy region with x87, the XMM registers, or MXCSR initial."""
    if legacy:
        yield X87_INIT + legacy[24:32] + bytes(128) + legacy[160:]
        yield legacy[:160] + bytes(len(legacy) - 160)
        yield legacy[: MXCSR.start] + MXCSR_INITIAL + legacy[MXCSR.stop :]


def _fewer(mask: int) -> Iterator[int]:
    if mask >> 20:
        yield mask & 0xFFFFF
    yield from (mask & ~(1 << bit) for bit in bits(mask & 0xFFFFF))


def _emptier(memory: bytes) -> Sequence[bytes]:
    """Return *memory* with zeros for all but the header, then for each block that has something."""
    blocks = [at for at in range(0, len(memory), _BLOCK) if at not in _HEADER and any(memory[at : at + _BLOCK])]
    if not blocks:
        return []
    header = memory[_HEADER.start : _HEADER.stop]
    empty = (bytes(_HEADER.start) + header).ljust(len(memory), b"\0")[: len(memory)]
    return [empty, *(memory[:at] + bytes(_BLOCK) + memory[at + _BLOCK :] for at in blocks)]
