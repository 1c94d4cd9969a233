"""``fpstate trace cost``: what a recorded run would have cost under other policies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fpstate.cli.source import add_output, add_policy_files, emit
from fpstate.cli.streams import complain
from fpstate.cli.traces.source import add_trace, open_from
from fpstate.errors import FpstateError, UsageError
from fpstate.linux.compare import DEBATE

if TYPE_CHECKING:
    from fpstate.cpu.model import Cpu
    from fpstate.linux.compare import Comparison
    from fpstate.traces.cost import Costs
    from fpstate.traces.trace import Trace

__all__ = ["add_calibration", "configure", "costs_of", "run", "status_of"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    add_trace(parser)
    parser.add_argument(
        "--policy", metavar="A,B,...", help=f"the policies to price, or all (default: {','.join(DEBATE)})"
    )
    parser.add_argument(
        "--component", metavar="NAME", default="CET_S", help="the component that they differ about (default: CET_S)"
    )
    parser.add_argument(
        "--cpu",
        metavar="NAME",
        help="the CPU to price for: a name of the built-in table, a file, or host (default: the recorded one)",
    )
    add_calibration(parser)
    parser.add_argument("--svg", metavar="SVG", help="write a picture too: each policy's cost with its range")
    add_policy_files(parser)
    add_output(parser)


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Add --calibration."""
    parser.add_argument(
        "--calibration",
        metavar="JSON",
        help="what instructions cost, as fpstate calibrate wrote it (default: a Zen 4 that the package knows)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the costs: exit 1 if the recording is not whole."""
    from fpstate.linux import policy as policies  # noqa: PLC0415 - the help stays fast
    from fpstate.linux.compare import compare  # noqa: PLC0415 - likewise
    from fpstate.report import cost as report  # noqa: PLC0415 - likewise

    if args.svg == "-":
        raise UsageError("--svg must name a file: standard output is for the text", cure="give --svg FILE")
    trace = open_from(args)
    cpu = _cpu(args.cpu, trace)
    table = policies.table(args.policies, cpu.catalogue)
    default = [*DEBATE, *policies.own(args.policies, cpu.catalogue)]
    wanted = default if args.policy is None else args.policy.split(",")
    chosen = list(table.values()) if wanted == ["all"] else [policies.find(name.strip(), table) for name in wanted]
    comparison = compare(
        cpu,
        list({policy.name: policy for policy in chosen}.values()),
        component=cpu.catalogue.parse_bit(args.component),
        cmdline=args.cmdline,
        debug_fpu=not args.no_debug_fpu,
    )
    costs = costs_of(trace, comparison, args.calibration)
    if args.svg is not None:
        _write_picture(args.svg, costs, trace.source)
    emit(args, report.document(costs, trace.source), report.text(costs, trace.source))
    return status_of(trace, costs)


def status_of(trace: Trace, costs: Costs) -> int:
    """Tell on stderr what could not be read of the recording; return 1 if it is not whole, else 0."""
    for damage in trace.damage:
        complain(f"fpstate: {damage.text}")
    return 1 if trace.damage or costs.counts.lost_rows else 0


def costs_of(trace: Trace, comparison: Comparison, calibration: str | None) -> Costs:
    """Return what the run in *trace* costs under the policies of *comparison*.

    Raises:
        CannotTell: the recording has no event that tells of a save or restore.
        UnreadableInput: the file *calibration* is none.
    """
    from fpstate.errors import CannotTell  # noqa: PLC0415 - with what needs it
    from fpstate.pricing.calibration import read, shipped  # noqa: PLC0415 - NumPy: the help must not wait
    from fpstate.pricing.tariff import Tariff  # noqa: PLC0415 - likewise
    from fpstate.traces.census import Census  # noqa: PLC0415 - likewise
    from fpstate.traces.cost import price  # noqa: PLC0415 - likewise

    found = read(calibration) if calibration is not None else shipped()
    census = Census()
    for block in trace.blocks():
        census.feed(block)
    counts = census.result()
    if not counts.moves:
        raise CannotTell(
            f"{trace.source} has no x86_fpu event: nothing that it shows was saved or restored",
            cure="record x86_fpu:* and kvm:kvm_fpu: fpstate trace record",
        )
    return price(comparison, counts, Tariff(found, comparison.cpu))


def _cpu(name: str | None, trace: Trace) -> Cpu:
    """Return the CPU to price for: the one that is named, that the recording describes, or this host."""
    import io  # noqa: PLC0415 - with what needs it

    from fpstate import cpu as cpus  # noqa: PLC0415 - the help stays fast

    if name is not None:
        return cpus.named_or_file(name)
    if trace.facts.cpuid:
        return cpus.load("-", stdin=io.BytesIO(trace.facts.cpuid.encode()))
    complain("fpstate: the recording does not describe its CPU: priced for this host (--cpu names another)")
    return cpus.this_host()


def _write_picture(path: str, costs: Costs, source: str) -> None:
    from fpstate.report.cost_picture import svg  # noqa: PLC0415 - only with --svg

    try:
        Path(path).write_text(svg(costs, source), encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise FpstateError(f"cannot write {path}: {reason}") from error
