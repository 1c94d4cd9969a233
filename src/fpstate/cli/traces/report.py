"""``fpstate trace report``: what a recording tells of extended state."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fpstate.cli.source import add_output, emit, number
from fpstate.cli.traces.source import add_cluster, add_trace, analysed, say_damage
from fpstate.errors import UsageError

if TYPE_CHECKING:
    from fpstate.cpu.model import Cpu
    from fpstate.traces.analyse import Analysed
    from fpstate.traces.report import Report
    from fpstate.traces.told import Told

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    add_trace(parser, several=True)
    parser.add_argument(
        "--cpu",
        metavar="NAME",
        help="the CPU whose layout makes the bytes: a name of the built-in table, a file, or host (default: the "
        "recorded one)",
    )
    parser.add_argument("--task", metavar="PID", type=number, help="tell of this thread alone")
    parser.add_argument("--on", metavar="N", type=number, help="show the registers of CPU N alone")
    parser.add_argument("--svg", metavar="SVG", help="write a picture too: who owns each CPU's registers when")
    parser.add_argument(
        "--perfetto",
        metavar="JSON",
        help="write a file for ui.perfetto.dev too: the same, by event (.gz: packed)",
    )
    add_cluster(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report: exit 1 if part of a recording could not be read."""
    from fpstate.report import trace_report as report  # noqa: PLC0415 - NumPy: the help must not wait for it

    _refuse_mixtures(args)
    cpu = _named_cpu(args.cpu)
    results = [_tell(result, cpu, args) for result in _results(args)]
    if args.svg is not None:
        from fpstate.cli.image import write_image  # noqa: PLC0415 - only a picture needs it
        from fpstate.report.owners import svg  # noqa: PLC0415 - likewise

        write_image(args.svg, svg(results[0]).encode())
    emit(args, report.documents(results), "\n\n".join(report.text(told) for told in results))
    for told in results:
        say_damage(told.about)
    return 1 if any(told.about.damage for told in results) else 0


def _refuse_mixtures(args: argparse.Namespace) -> None:
    for option in ("svg", "perfetto"):
        path = getattr(args, option)
        if path == "-":
            raise UsageError(f"--{option} must name a file: standard output is for the text")
        if path is not None and len(args.trace) > 1:
            raise UsageError(f"--{option} goes with one FILE, not {len(args.trace)}")
    if args.perfetto is not None and args.cluster is not None:
        raise UsageError(
            "--perfetto writes event by event, and --cluster sends no events back", cure="drop one of them"
        )


def _named_cpu(name: str | None) -> Cpu | None:
    from fpstate.cpu import named_or_file  # noqa: PLC0415 - likewise

    return None if name is None else named_or_file(name)


def _results(args: argparse.Namespace) -> list[Analysed[Report]]:
    from fpstate.traces.report import Report  # noqa: PLC0415 - likewise

    if args.perfetto is None:
        return list(analysed(args, Report))
    from fpstate.traces.analyse import analyse  # noqa: PLC0415 - likewise
    from fpstate.traces.open import open_trace  # noqa: PLC0415 - likewise
    from fpstate.traces.perfetto import Perfetto  # noqa: PLC0415 - only a file of it needs it

    trace = open_trace(args.trace[0], instance=args.instance)
    with Perfetto(args.perfetto, trace) as out:
        return [analyse(trace, Report(), out.watch(trace.blocks()))]


def _tell(result: Analysed[Report], cpu: Cpu | None, args: argparse.Namespace) -> Told:
    from fpstate.traces.told import recorded_cpu, tell  # noqa: PLC0415 - likewise

    remark = ""
    if cpu is None:
        cpu, remark = recorded_cpu(result.about.facts)
    return tell(result.analysis, result.about, cpu, remark=remark, task=args.task, on=args.on)
