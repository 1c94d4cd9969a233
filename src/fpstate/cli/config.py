"""``fpstate config``: what Linux makes of a CPU."""

from __future__ import annotations

import argparse

from fpstate.cli.source import add_output, add_policy_files, add_source, emit, load
from fpstate.errors import UsageError
from fpstate.linux import policy as policies
from fpstate.linux.boot import boot
from fpstate.report import config as report

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_source(parser)
    parser.add_argument("--policy", metavar="NAME", help=f"the release or design (default: {policies.DEFAULT})")
    add_policy_files(parser)
    parser.add_argument(
        "--check", action="store_true", help="with --host: hold the prediction against this running kernel"
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the configuration; with --check, print what the running kernel shows of it: exit 1 if they differ."""
    if args.check:
        return _check(args)
    cpu = load(args)
    table = policies.table(args.policies, cpu.catalogue)
    policy = policies.find(policies.DEFAULT if args.policy is None else args.policy, table)
    outcome = boot(cpu, policy, args.cmdline, debug_fpu=not args.no_debug_fpu)
    emit(args, report.document(outcome), report.text(outcome))
    return 0


def _check(args: argparse.Namespace) -> int:
    if args.file is not None or args.cpu is not None:
        raise UsageError("--check looks at the running kernel: it goes with --host, not with another CPU")
    from fpstate.linux import check  # noqa: PLC0415  ptrace, KVM, tracefs
    from fpstate.report import check as check_report  # noqa: PLC0415

    cpu = load(args)
    table = policies.table(args.policies, cpu.catalogue)
    policy = policies.find(args.policy, table) if args.policy is not None else None
    result = check.check(cpu, policy, cmdline=args.cmdline or None, debug_fpu=not args.no_debug_fpu)
    emit(args, check_report.document(result), check_report.text(result))
    return 0 if result.agrees else 1
