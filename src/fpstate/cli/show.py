"""``fpstate show``: the registers of an image, by name."""

from __future__ import annotations

import argparse

from fpstate import registers as regs
from fpstate.cli.image import read_as
from fpstate.cli.source import add_output, add_source, emit, load
from fpstate.report import show as report

__all__ = ["INTERMIXED", "configure", "run"]

INTERMIXED = True
"""The CPU's FILE may come after options."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("image", metavar="IMAGE", help="the bytes of an XSAVE area; - is standard input")
    parser.add_argument("--reg", metavar="NAME", action="append", help="only this register; may be given again")
    parser.add_argument("--all", action="store_true", help="registers with their initial values as well")
    add_source(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print header, components and registers."""
    image = read_as(args.image, load(args))
    wanted = [regs.find(name, image.caps.sizes) for name in args.reg or ()]
    values = report.values(image, wanted, everything=args.all)
    emit(args, report.document(image, values), report.text(image, values, brief=bool(wanted)))
    return 0
