"""The arguments by which an action is told its recordings, how they are opened, and where they are analysed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from fpstate.cli.streams import complain

if TYPE_CHECKING:
    from fpstate.traces.analyse import About, Analysed, Analysis
    from fpstate.traces.trace import Trace

    A = TypeVar("A", bound=Analysis)

__all__ = ["add_cluster", "add_trace", "analysed", "open_from", "say_damage"]


def add_trace(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add FILE and --instance; with *several*, FILE is a list."""
    group = parser.add_argument_group("the recording")
    group.add_argument(
        "trace",
        metavar="FILE",
        nargs="+" if several else None,
        help="trace.dat, perf.data, a folder of raw pages, Parquet, or text of a trace, known by its content; "
        "- is standard input",
    )
    group.add_argument(
        "--instance",
        metavar="NAME",
        help="the tracing instance, where the recording has several buffers: top or its name (default: the one that "
        "has x86_fpu events)",
    )


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add --cluster."""
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="let the workers of the Dask scheduler at ADDRESS do it, part by part; FILE must be there under its path",
    )


def open_from(args: argparse.Namespace, *, payloads: bool = False) -> Trace:
    """Open the recording that the arguments name.

    Raises:
        CannotTell: NumPy is missing.
        UnreadableInput: it cannot be read.
        UsageError: it has no such instance.
    """
    from fpstate.traces.open import open_trace  # noqa: PLC0415 - NumPy: the help must not wait for it

    return open_trace(args.trace, payloads=payloads, instance=args.instance)


def analysed(args: argparse.Namespace, factory: Callable[[], A]) -> Iterator[Analysed[A]]:
    """Analyse each recording that the arguments name, here or on the cluster: both give the same.

    Args:
        args: of `add_trace` and `add_cluster`.
        factory: makes an analysis; can be pickled.

    Raises:
        FpstateError: a recording cannot be read, or the cluster cannot do it.
    """
    from fpstate.traces.analyse import analyse, parts_of  # noqa: PLC0415 - likewise
    from fpstate.traces.open import open_trace  # noqa: PLC0415 - likewise

    paths = args.trace if isinstance(args.trace, list) else [args.trace]
    if args.cluster is None:
        for path in paths:
            yield analyse(open_trace(path, instance=args.instance), factory())
        return
    from fpstate.traces.cluster import connected, run_parts  # noqa: PLC0415 - Dask

    with connected(args.cluster) as client:
        for path in paths:
            yield run_parts(path, parts_of(path, args.instance), factory, client)


def say_damage(about: About) -> None:
    """Say on standard error what of a recording could not be read."""
    for damage in about.damage:
        where = "" if damage.offset is None else f" at byte {damage.offset}"
        cure = f"; {damage.cure}" if damage.cure else ""
        complain(f"fpstate: {about.source}{where}: {damage.rule}: {damage.text}{cure}")
