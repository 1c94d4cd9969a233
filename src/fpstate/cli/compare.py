"""``fpstate compare``: the designs of the guest-CET debate side by side."""

from __future__ import annotations

import argparse

from fpstate.cli.source import add_output, add_policy_files, add_source, emit, load
from fpstate.linux import policy as policies
from fpstate.linux.compare import DEBATE, compare
from fpstate.report import compare as report

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_source(parser)
    parser.add_argument(
        "--policy", metavar="A,B,...", help=f"the policies to compare, or all (default: {','.join(DEBATE)})"
    )
    parser.add_argument(
        "--component", metavar="NAME", default="CET_S", help="the component that the table is about (default: CET_S)"
    )
    add_policy_files(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    cpu = load(args)
    table = policies.table(args.policies, cpu.catalogue)
    default = [*DEBATE, *policies.own(args.policies, cpu.catalogue)]
    wanted = default if args.policy is None else args.policy.split(",")
    chosen = table.values() if wanted == ["all"] else [policies.find(name.strip(), table) for name in wanted]
    result = compare(
        cpu,
        list({policy.name: policy for policy in chosen}.values()),
        component=cpu.catalogue.parse_bit(args.component),
        cmdline=args.cmdline,
        debug_fpu=not args.no_debug_fpu,
    )
    emit(args, report.document(result), report.text(result))
    return 0
