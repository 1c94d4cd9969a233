"""``fpstate diff``: what differs between the states of two images."""

from __future__ import annotations

import argparse

from fpstate import image as images
from fpstate.cli.image import other_cpu, read_as
from fpstate.cli.source import add_output, add_source, emit, load
from fpstate.errors import UsageError
from fpstate.report import diff as report

__all__ = ["INTERMIXED", "configure", "run"]

INTERMIXED = True
"""The CPU's FILE may come after options."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("a", metavar="A", help="the bytes of an XSAVE area; - is standard input")
    parser.add_argument("b", metavar="B", help="another; its format may differ")
    add_source(parser)
    parser.add_argument("--b-cpu", metavar="NAME", help="the CPU of B, if it is another: a name, a file, or host")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the registers that differ: exit 1 if any does."""
    if args.a == args.b == "-":
        raise UsageError("A and B cannot both be standard input")
    cpu = load(args)
    other = other_cpu(args.b_cpu, cpu) if args.b_cpu else cpu
    a, b = read_as(args.a, cpu), read_as(args.b, other)
    found = images.register_differences(a, b)
    emit(args, report.document(a, b, found), report.text(a, b, found))
    return 1 if found else 0
