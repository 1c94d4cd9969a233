"""``fpstate trace convert``: a recording as Parquet."""

from __future__ import annotations

import argparse

from fpstate.cli.streams import complain
from fpstate.cli.traces.source import add_trace, open_from, say_damage
from fpstate.errors import UsageError

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    add_trace(parser)
    parser.add_argument("-o", "--output", metavar="PARQUET", required=True, help="the file, or with --rows the folder")
    parser.add_argument("--rows", metavar="N", type=_rows, help="write a folder of parts, each of at most N events")


def run(args: argparse.Namespace) -> int:
    """Write it: exit 1 if part of the recording could not be read."""
    from fpstate.traces import parquet  # noqa: PLC0415 - PyArrow: the help must not wait for it
    from fpstate.traces.analyse import about  # noqa: PLC0415 - likewise

    if args.output == "-":
        raise UsageError("Parquet needs a file to be put in whole", cure="name one")
    trace = open_from(args, payloads=True)
    written = parquet.write(trace, args.output, rows=args.rows)
    complain(f"fpstate: {written:,} events written to {args.output}")
    say_damage(about(trace))
    return 1 if trace.damage else 0


def _rows(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 40:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of events, 1 or more")
    return int(text)
