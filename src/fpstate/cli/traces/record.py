"""``fpstate trace record``: a recording of what this kernel does with extended state."""

from __future__ import annotations

import argparse
import json

from fpstate.cli.source import add_output
from fpstate.cli.streams import complain, put
from fpstate.errors import UsageError

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser.add_argument("-o", "--output", metavar="FILE", default="trace.dat", help="the file (default: trace.dat)")
    parser.add_argument("--seconds", metavar="N", type=_seconds, help="stop after so long (default: at Ctrl-C)")
    parser.add_argument("--events", metavar="A,B,...", default="", help="system:name, system:*, or a name of the model")
    parser.add_argument("--buffer", metavar="KB", type=_kilobytes, help="KiB of ring buffer a CPU (default: 4096)")
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="run it, after --, and stop when it ends")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Record: exit 1 if events were lost."""
    from pathlib import Path  # noqa: PLC0415 - the help stays fast

    from fpstate.report import record as report  # noqa: PLC0415 - likewise
    from fpstate.traces.record import BUFFER_KB, Plan, record  # noqa: PLC0415 - likewise

    plan = Plan(
        path=Path(args.output),
        events=[word.strip() for word in args.events.split(",") if word.strip()],
        command=args.command,
        seconds=args.seconds,
        buffer_kb=args.buffer or BUFFER_KB,
    )
    done = record(plan)
    if args.json:
        put(json.dumps(report.document(plan, done), indent=2))
    else:
        complain(report.text(plan, done))
    return 1 if done.lost else 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 1e6:
        raise UsageError(f"--seconds takes a number above 0, at most a million, not {text!r}")
    return seconds


def _kilobytes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 22:
        raise UsageError(f"--buffer takes KiB, 1 to {1 << 22}, not {text!r}")
    return int(text)
