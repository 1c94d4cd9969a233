"""``fpstate decode``: the extended state that a core holds, thread by thread."""

from __future__ import annotations

import argparse

from fpstate.cli.source import add_output, add_source, load
from fpstate.cli.streams import put
from fpstate.cli.views import add_views, check_views, view
from fpstate.errors import UsageError
from fpstate.report import decode as report
from fpstate.sources.decoded import decode

__all__ = ["INTERMIXED", "configure", "run"]

INTERMIXED = True
"""The CPU's FILE may come after options."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("source", metavar="SOURCE", help="a core, compressed or not; - is standard input")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--thread", metavar="TID", type=_tid, help="only this thread")
    which.add_argument("--all-threads", action="store_true", help="every thread; those with the same state once")
    parser.add_argument("-v", "--verbose", action="store_true", help="initial registers and absent components as well")
    add_views(parser)
    add_source(parser, default="what SOURCE tells, else deduced,")
    add_output(parser)


def _tid(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 10:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} must be the number of a thread")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Print the state; exit 1 if something is wrong with the source."""
    named = args.file is not None or args.cpu is not None or args.host
    if args.source == "-" and args.file == "-":
        raise UsageError("standard input can be SOURCE or the CPU's FILE, not both")
    check_views(args)
    cpu = load(args) if named else None
    found = decode(args.source, cpu=cpu, strict=args.strict)
    if args.thread is not None:
        threads = [found.thread(args.thread)]
    else:
        threads = list(found.threads if args.json or args.all_threads else found.threads[:1])
    status = view(args, found, threads, cpu)
    if status is not None:
        return status
    if args.json:
        put(report.json_text(report.document(found, threads)))
    else:
        put(report.text(found, threads, everything=args.verbose))
    return 1 if found.findings else 0
