"""``fpstate poke``: write a register of a live thread."""

from __future__ import annotations

import argparse

from fpstate import cpu as cpus
from fpstate.cli.image import assignments
from fpstate.cli.source import add_output, emit
from fpstate.isa import Capabilities
from fpstate.linux.poke import poke
from fpstate.report import poke as report

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("registers", metavar="REG=VALUE", nargs="+", help="a register and what it is to hold, in hex")
    parser.add_argument("--tid", metavar="TID", type=int, required=True, help="the thread; a process is its first one")
    parser.add_argument("--dry-run", action="store_true", help="read and check, but write nothing")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was written: exit 1 if the kernel keeps something else."""
    caps = Capabilities(cpus.this_host())
    values = assignments(args.registers, caps.sizes, "")
    done = poke(args.tid, values, caps, dry_run=args.dry_run)
    emit(args, report.document(done), report.text(done))
    return 1 if done.differences else 0
