"""``fpstate xfeatures``: the catalogue of components."""

from __future__ import annotations

import argparse

from fpstate.cli.source import add_output, emit
from fpstate.report import listing
from fpstate.xfeatures import CATALOGUE

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--components", metavar="TOML", help="components of your own, or changed ones")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    catalogue = CATALOGUE
    if args.components:
        from fpstate import components  # noqa: PLC0415  parses TOML

        catalogue, _ = components.load(args.components)
    emit(args, listing.xfeatures_document(catalogue), listing.xfeatures_text(catalogue))
    return 0
