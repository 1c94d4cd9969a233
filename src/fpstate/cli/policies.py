"""``fpstate policies``: the designs and releases."""

from __future__ import annotations

import argparse

from fpstate.cli.source import add_output, emit
from fpstate.linux import policy as policies
from fpstate.report import listing
from fpstate.xfeatures import CATALOGUE

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--policies", metavar="TOML", help="policies of your own")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the policies."""
    found = list(policies.table(args.policies, CATALOGUE).values())
    emit(args, listing.policies_document(found, CATALOGUE), listing.policies_text(found, CATALOGUE))
    return 0
