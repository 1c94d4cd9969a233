"""An analysis of a recording: in this process block by block, or part by part and then joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Generic, NamedTuple, Protocol, Self, TypeVar

from fpstate.errors import FpstateError, UsageError
from fpstate.sources.capture import Damage
from fpstate.traces.columns import Block
from fpstate.traces.open import open_trace
from fpstate.traces.trace import Facts, Trace

__all__ = ["About", "Analysed", "Analysis", "Part", "about", "analyse", "joined", "parts_of", "work"]


class Analysis(Protocol):
    """What is concluded from blocks, and from parts of a recording joined in their order."""

    def feed(self, block: Block, /) -> None:
        """Take in the next rows."""

    def join(self, later: Self, /) -> None:
        """Take in what was made of the rows that follow."""


A = TypeVar("A", bound=Analysis)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a recording says of itself, once it was read; the attributes are those of `Trace`."""

    source: str
    format: str
    clock: str
    in_nanoseconds: bool
    facts: Facts
    names: tuple[str, ...]
    comms: Mapping[int, str]
    damage: tuple[Damage, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Analysed(Generic[A]):
    """An analysis, and the recording that it is of."""

    analysis: A
    about: About


class Part(NamedTuple):
    """A part of a recording that can be read by itself.

    Attributes:
        path: a file.
        groups: of Parquet, the first row group and the first that belongs to the next part; None is the whole file.
        instance: see `open_trace`.
    """

    path: str
    groups: tuple[int, int] | None = None
    instance: str | None = None


PART_ROWS: Final = 1 << 21
"""Rows that a part of a Parquet file has at least, unless it is the last."""


def about(trace: Trace) -> About:
    """Return what is known of a recording after all of its blocks were read."""
    return About(
        source=trace.source,
        format=trace.format,
        clock=trace.clock,
        in_nanoseconds=trace.in_nanoseconds,
        facts=trace.facts,
        names=tuple(trace.names),
        comms=dict(trace.comms),
        damage=tuple(trace.damage),
        notes=tuple(trace.notes),
    )


def analyse(trace: Trace, analysis: A, blocks: Iterable[Block] | None = None) -> Analysed[A]:
    """Feed the events of a recording to an analysis; *blocks* are they where somebody else looks at them too."""
    for block in trace.blocks() if blocks is None else blocks:
        analysis.feed(block)
    return Analysed(analysis, about(trace))


def parts_of(path: str, instance: str | None = None) -> list[Part]:
    """Cut a recording into parts: Parquet at its row groups, everything else not at all.

    Raises:
        UsageError: it is standard input.
        UnreadableInput: it cannot be read.
    """
    if path == "-":
        raise UsageError("standard input cannot be read by other processes", cure="name a file")
    if not _is_parquet(path):
        return [Part(path, instance=instance)]
    from fpstate.traces import parquet  # noqa: PLC0415 - PyArrow

    return [part for file in parquet.files_of(path) for part in _cut(file, parquet.group_sizes(file))]


def _is_parquet(path: str) -> bool:
    try:
        if Path(path).is_dir():
            return next(Path(path).glob("*.parquet"), None) is not None
        with Path(path).open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False  # who opens it says why


def _cut(file: str, sizes: list[int]) -> list[Part]:
    parts, start, rows = [], 0, 0
    for number, size in enumerate(sizes, 1):
        rows += size
        if rows >= PART_ROWS or number == len(sizes):
            parts.append(Part(file, (start, number)))
            start, rows = number, 0
    return parts


def work(part: Part, factory: Callable[[], A]) -> Analysed[A] | FpstateError:
    """Analyse one part: a function of its arguments and the file alone, for any process on any machine.

    What the file's reader refuses is returned, so that it arrives as it is.
    """
    try:
        if part.groups is None:
            return analyse(open_trace(part.path, instance=part.instance), factory())
        from fpstate.traces import parquet  # noqa: PLC0415 - PyArrow

        return analyse(parquet.read_groups(part.path, groups=part.groups), factory())
    except FpstateError as refusal:
        return refusal


def joined(path: str, results: Iterable[Analysed[A] | FpstateError]) -> Analysed[A]:
    """Join what was made of the parts of one recording, in their order.

    Raises:
        FpstateError: what refused a part.
    """
    whole: Analysed[A] | None = None
    for result in results:
        if isinstance(result, FpstateError):
            raise result
        if whole is None:
            whole = result
        else:
            whole.analysis.join(result.analysis)
            whole.about = _both(whole.about, result.about)
    if whole is None:
        raise UsageError(f"{path} has no part to be read")
    whole.about = replace(whole.about, source=path)
    return whole


def _both(first: About, later: About) -> About:
    """Return what two parts say: the later one's names are the first's and perhaps more."""
    return About(
        source=first.source,
        format=first.format,
        clock=later.clock,
        in_nanoseconds=later.in_nanoseconds,
        facts=later.facts,
        names=max(first.names, later.names, key=len),
        comms={**first.comms, **later.comms},
        damage=tuple(dict.fromkeys([*first.damage, *later.damage])),
        notes=tuple(dict.fromkeys([*first.notes, *later.notes])),
    )
