"""``fpstate compare``: the designs of the guest-CET debate side by side."""

from __future__ import annotations

import argparse
from typing import Any

from fpstate.cli.source import add_output, add_policy_files, add_source, emit, load
from fpstate.cli.streams import complain
from fpstate.cli.traces.cost import add_calibration, costs_of, status_of
from fpstate.errors import UsageError
from fpstate.linux import policy as policies
from fpstate.linux.compare import DEBATE, Comparison, compare
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
    parser.add_argument(
        "--no-verify", action="store_true", help="leave out whether each policy keeps the component's state apart"
    )
    parser.add_argument("--trace", metavar="FILE", help="add what a recorded run would have cost under each policy")
    parser.add_argument("--instance", metavar="NAME", help="the tracing instance of the recording: top or its name")
    add_calibration(parser)
    add_policy_files(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    if args.trace is None and (args.calibration, args.instance) != (None, None):
        raise UsageError("--calibration and --instance go with --trace")
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
    verified = {} if args.no_verify else _verified(result)
    if args.trace is None:
        emit(args, report.document(result, verified), report.text(result, verified))
        return 0
    return _with_costs(args, result, verified)


def _with_costs(args: argparse.Namespace, result: Comparison, verified: dict[str, dict[str, Any]]) -> int:
    """Print the comparison with the costs of the recorded run; exit 1 if the recording is not whole."""
    from fpstate.cli.traces.source import open_from  # noqa: PLC0415  see fpstate.cli
    from fpstate.report import cost  # noqa: PLC0415  NumPy

    trace = open_from(args)
    costs = costs_of(trace, result, args.calibration)
    run = report.Run(
        document=cost.document(costs, trace.source), rows=cost.rows(costs), assumptions=costs.assumptions()
    )
    emit(args, report.document(result, verified, run), report.text(result, verified, run))
    return status_of(trace, costs)


def _verified(result: Comparison) -> dict[str, dict[str, Any]]:
    """Return the verdict on each policy that manages the component."""
    from fpstate.cli.verify import missing_extra, verify_all  # noqa: PLC0415  see fpstate.cli

    missing = missing_extra()
    managed = [column.policy for column in result.columns if column.home != "nowhere" and column.config.fate == "xsave"]
    if missing or not managed or not result.present:
        if missing:
            complain(f'fpstate: not verified, for {" and ".join(missing)} is missing: pip install "fpstate[verify]"')
        return {}
    from fpstate.report.verify import document  # noqa: PLC0415
    from fpstate.verify.properties import class_of  # noqa: PLC0415
    from fpstate.verify.question import Options, Shape  # noqa: PLC0415

    kind = class_of(result.component)
    if kind is None:
        return {}
    options = Options(shape=Shape(2, 2, 1), method="induction", classes=(kind,), cached=True)
    return {found.policy.name: document(found) for found in verify_all(result.cpu, managed, options)}
