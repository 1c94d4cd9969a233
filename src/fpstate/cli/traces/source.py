"""The arguments by which an action is told its recording, and how it is opened."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fpstate.traces.trace import Trace

__all__ = ["add_trace", "open_from"]


def add_trace(parser: argparse.ArgumentParser) -> None:
    """Add FILE and --instance."""
    group = parser.add_argument_group("the recording")
    group.add_argument(
        "trace",
        metavar="FILE",
        help="trace.dat, perf.data, a folder of raw pages, Parquet, or text of a trace, known by its content; "
        "- is standard input",
    )
    group.add_argument(
        "--instance",
        metavar="NAME",
        help="the tracing instance, where the recording has several buffers: top or its name (default: the one that "
        "has x86_fpu events)",
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
