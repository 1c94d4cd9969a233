"""``fpstate simulate``: a scenario over real bytes, step by step."""

from __future__ import annotations

import argparse

from fpstate.cli.image import write_image
from fpstate.cli.source import add_output, add_source, emit, load
from fpstate.errors import UsageError
from fpstate.linux import policy as policies
from fpstate.linux import scenario as scenarios
from fpstate.report import simulate as report

__all__ = ["INTERMIXED", "configure", "run"]

INTERMIXED = True
"""The CPU's FILE may come after options."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "scenario",
        metavar="SCENARIO",
        nargs="?",
        help="a shipped one by name, a TOML or Python file, - is standard input",
    )
    parser.add_argument("--list", action="store_true", help="list the shipped scenarios")
    parser.add_argument("--steps", action="store_true", help="list what can happen in a scenario")
    add_source(parser, default="the scenario's, or this host")
    parser.add_argument("--policy", metavar="NAME", help="the release or design (default: the scenario's)")
    parser.add_argument("--policies", metavar="TOML", help="policies of your own")
    parser.add_argument("--svg", metavar="SVG", help="write a picture too: who owns each CPU's registers when")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Play the scenario: exit 1 if anything happened that must not, or did not that should."""
    _refuse_mixtures(args)
    if args.list:
        shipped = scenarios.shipped()
        emit(args, report.list_document(shipped), report.list_text(shipped))
        return 0
    if args.steps:
        emit(args, report.steps_document(), report.steps_text())
        return 0
    if args.scenario is None:
        raise UsageError("simulate needs a SCENARIO", cure="--list shows those that are shipped")
    if args.scenario == "-" and args.file == "-":
        raise UsageError("SCENARIO and FILE cannot both be standard input")
    scenario = scenarios.load(args.scenario)
    if args.file is None and args.cpu is None and not args.host:
        args.cpu = scenario.cpu
    cpu = load(args)
    table = policies.table(args.policies, cpu.catalogue)
    policy = policies.find(args.policy or scenario.policy or policies.DEFAULT, table)
    outcome = scenarios.play(scenario, cpu, policy)
    if args.svg is not None:
        from fpstate.report.timeline import svg  # noqa: PLC0415  only a picture needs it

        write_image(args.svg, svg(outcome).encode())
    emit(args, report.document(outcome), report.text(outcome))
    return 1 if outcome.findings or any(outcome.surprises()) else 0


def _refuse_mixtures(args: argparse.Namespace) -> None:
    """Refuse options of which one would be ignored."""
    for option in ("list", "steps"):
        others = {"--steps": args.steps, "a SCENARIO": args.scenario is not None, "--svg": args.svg is not None}
        beside = next((name for name, given in others.items() if given and name != f"--{option}"), None)
        if getattr(args, option) and beside is not None:
            raise UsageError(f"--{option} and {beside} do not go together")
    if args.svg == "-":
        raise UsageError("--svg must name a file: standard output is for the text", cure="give --svg FILE")
