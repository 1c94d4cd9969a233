"""``fpstate lint``: what is wrong with a CPU's leaf 0DH."""

from __future__ import annotations

import argparse

from fpstate import cpu as cpus
from fpstate.cli.source import add_output, add_policy_files, add_source, check_source, emit, load, refuse_guesses
from fpstate.linux import policy as policies
from fpstate.linux.lint import lint
from fpstate.report import lint as report

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_source(parser)
    parser.add_argument("--policy", metavar="NAME", default=policies.DEFAULT, help="which Linux to quote")
    add_policy_files(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the findings: exit 0 if there are none, 1 if there are, 3 if part of leaf 0DH is not shown."""
    check_source(args)
    # Every CPU of a file is judged, unless one is asked for.
    one = args.file is None or args.base or args.components or args.index is not None
    found = [load(args)] if one else cpus.load_all(args.file)
    for cpu in found:
        refuse_guesses(args, cpu)
    policy = policies.find(args.policy, policies.table(args.policies, found[0].catalogue))
    reports = [lint(cpu, policy, args.cmdline, debug_fpu=not args.no_debug_fpu) for cpu in found]
    emit(args, report.document(policy, found, reports), report.text(policy, found, reports))
    if any(r.findings for r in reports):
        return 1
    return 3 if any(r.unknown for r in reports) else 0
