"""``fpstate cpus``: the built-in table."""

from __future__ import annotations

import argparse

from fpstate.cli.source import add_output, emit
from fpstate.cpu import table
from fpstate.report import listing

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("pattern", metavar="WORD", nargs="?", default="", help="only CPUs whose names or title have it")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the CPUs: exit 1 if none matches."""
    word = args.pattern.lower()
    rows = [r for r in table.rows() if word in " ".join((r.name, *r.aliases, r.title, r.vendor)).lower()]
    emit(args, listing.cpus_document(rows), listing.cpus_text(rows))
    return 0 if rows else 1
