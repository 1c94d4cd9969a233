"""``fpstate verify``: whether a policy lets state leak or get lost: proven, or the shortest run that shows it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fpstate.cli.source import add_output, add_source, emit, load, number
from fpstate.cli.streams import complain, put
from fpstate.cpu.model import Cpu
from fpstate.errors import UsageError
from fpstate.linux import policy as policies
from fpstate.linux.boot import boot
from fpstate.linux.policy import Policy

if TYPE_CHECKING:
    from fpstate.linux.steps import Assumptions
    from fpstate.verify.check import Report
    from fpstate.verify.question import Options, Shape
    from fpstate.verify.search import Found

__all__ = ["configure", "missing_extra", "run", "verify_all"]

CPU: Final = "sapphire-rapids"
"""The CPU that is meant if none is given: it has a component of every class."""
_EXIT: Final = {"proven": 0, "holds": 0, "violated": 1, "unknown": 3}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_source(parser, default=CPU)
    parser.add_argument(
        "--policy",
        metavar="A,B,...",
        help=f"the policies, or all (default: those of --policies, else {policies.DEFAULT})",
    )
    parser.add_argument("--policies", metavar="TOML", help="policies of your own")
    parser.add_argument(
        "--cpus", metavar="N", type=number, default=2, help="CPUs of the exhaustive search (default: 2)"
    )
    parser.add_argument("--tasks", metavar="N", type=number, default=3, help="its tasks (default: 3)")
    parser.add_argument("--vcpus", metavar="N", type=number, default=1, help="of which run vCPUs (default: 1)")
    parser.add_argument(
        "--method",
        choices=("both", "induction", "exhaustive", "proof"),
        default="both",
        help="both (default); induction, with a search of what it fails at; only the proof; only the exhaustive search",
    )
    parser.add_argument("--component", metavar="CLASS", action="append", help="look at this class of components only")
    parser.add_argument(
        "--assume",
        metavar="NAME=on|off",
        action="append",
        default=[],
        help="host-sss, fred, softirq-fpu, nested, msrs-first",
    )
    parser.add_argument("--show-invariant", action="store_true", help="print the invariant that the proof goes by")
    parser.add_argument("--show-induction", action="store_true", help="print the steps at which the induction fails")
    parser.add_argument(
        "--scenarios", metavar="DIR", help="write each counterexample there, as a scenario for fpstate simulate"
    )
    parser.add_argument(
        "--history",
        metavar="BUG",
        nargs="?",
        const="all",
        help="put bugs of real kernels back into the model, all or one, and say what finds them",
    )
    parser.add_argument(
        "--mutations",
        metavar="TEXT",
        nargs="?",
        const="",
        help="make small mistakes in the kernel's functions, all or those with TEXT in their name, "
        "and say which no property notices, and why",
    )
    parser.add_argument("--export", choices=("promela",), help="print the model of --component in another language")
    parser.add_argument("--focus", metavar="NAME", help="with --export: whose values are told apart: task0, guest0")
    parser.add_argument(
        "--jobs", metavar="N", type=number, default=0, help="processes (default: one a CPU of this host)"
    )
    parser.add_argument("--no-cache", action="store_true", help="do not use verdicts that were kept, nor keep any")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the verdicts: exit 1 if a property is violated, 3 if one is unknown."""
    _refuse_mixtures(args)
    _require()
    if args.history is not None:
        return _history(args)
    if args.mutations is not None:
        return _mutations(args)
    if args.file is None and args.cpu is None and not args.host:
        args.cpu = CPU
    cpu = load(args)
    table = policies.table(args.policies, cpu.catalogue)
    default = [*policies.own(args.policies, cpu.catalogue)] or [policies.DEFAULT]
    wanted = default if args.policy is None else [name.strip() for name in args.policy.split(",")]
    chosen = list(table.values()) if wanted == ["all"] else [policies.find(name, table) for name in wanted]
    options = _options(args)
    if args.show_invariant:
        return _show_invariant(cpu, chosen, options)
    if args.export:
        return _export(args, cpu, chosen, options)
    reports = verify_all(cpu, _that_have_it(cpu, chosen, options), options, jobs=args.jobs)
    if args.scenarios:
        _write_scenarios(args.scenarios, reports)
    _print(args, reports)
    return max((_EXIT[report.verdict] for report in reports), key=(0, 3, 1).index)


def _that_have_it(cpu: Cpu, chosen: Sequence[Policy], options: Options) -> list[Policy]:
    """Return the policies under which *cpu* has any of the components that are asked about, and say which have not.

    Raises:
        UsageError: none has.
    """
    if options.classes is None:
        return list(chosen)
    from fpstate.verify.check import subjects  # noqa: PLC0415  it takes the extra

    found, lacks = [], []
    for policy in chosen:
        config = boot(cpu, policy)
        there = {kind.name for kind, _, _ in subjects(config, options.assumptions)} if config.fate == "xsave" else None
        missing = [name for name in options.classes if there is not None and name not in there]
        lacks += [f"{policy.name} on {cpu.name} has no {name}" for name in missing]
        if len(missing) < len(options.classes):
            found.append(policy)
    if not found:
        raise UsageError(f"there is nothing to verify: {lacks[0]}", cure="leave --component out, or name another CPU")
    for lack in lacks:
        complain(f"fpstate: {lack}: not verified")
    return found


_MODES: Final = {name: f"--{name.replace('_', '-')}" for name in ("history", "mutations", "show_invariant", "export")}
"""Options that ask for something else than verdicts."""
_ABOUT_CPUS: Final = {"file": "FILE", "cpu": "--cpu", "host": "--host", "policy": "--policy", "policies": "--policies"}
_ABOUT_MODELS: Final = {"component": "--component", "assume": "--assume"}
_WITH_VERDICTS: Final = {"scenarios": "--scenarios", "show_induction": "--show-induction"}


def _refuse_mixtures(args: argparse.Namespace) -> None:
    """Refuse options of which one would be ignored."""

    def given(options: dict[str, str]) -> list[str]:
        return [name for key, name in options.items() if getattr(args, key) not in (None, False, [])]

    modes = given(_MODES)
    if len(modes) > 1:
        raise UsageError(f"{modes[0]} and {modes[1]} do not go together")
    for mode in modes:
        ignored = dict(_WITH_VERDICTS)
        if mode in {"--history", "--mutations"}:
            ignored |= _ABOUT_CPUS | _ABOUT_MODELS
        else:
            ignored |= {"json": "--json"}
        if beside := given(ignored):
            raise UsageError(f"{mode} and {beside[0]} do not go together")
    if args.focus is not None and args.export is None:
        raise UsageError("--focus goes with --export")


def missing_extra() -> list[str]:
    """Return what of the extra ``verify`` is not installed."""
    return [name for name in ("numpy", "z3") if importlib.util.find_spec(name) is None]


def _require() -> None:
    missing = missing_extra()
    if missing:
        raise UsageError(f"verify needs {' and '.join(missing)}", cure='pip install "fpstate[verify]"')


def _assumptions(changes: list[str]) -> Assumptions:
    from fpstate.linux.steps import Assumptions  # noqa: PLC0415  see fpstate.cli

    known = {field.name for field in fields(Assumptions)}
    assumptions = Assumptions()
    for change in changes:
        name, _, value = change.partition("=")
        field = name.strip().replace("-", "_")
        if field not in known or value not in {"on", "off"}:
            names = ", ".join(sorted(k.replace("_", "-") for k in known))
            raise UsageError(f"--assume {change!r} is not an assumption", cure=f"NAME=on or NAME=off; names: {names}")
        assumptions = replace(assumptions, **{field: value == "on"})
    return assumptions


def _shape(args: argparse.Namespace) -> Shape:
    from fpstate.linux.machine import MOST  # noqa: PLC0415  see fpstate.cli
    from fpstate.verify.question import Shape  # noqa: PLC0415

    for option in ("cpus", "tasks"):
        value = getattr(args, option)
        if not 1 <= value <= MOST:
            raise UsageError(f"--{option} must be 1 to {MOST}, not {value}")
    if args.vcpus > args.tasks:
        raise UsageError(f"--vcpus must be 0 to {args.tasks}, not {args.vcpus}: there are no more vCPUs than tasks")
    return Shape(args.cpus, args.tasks, args.vcpus)


def _options(args: argparse.Namespace) -> Options:
    from fpstate.verify.question import Options  # noqa: PLC0415  see fpstate.cli

    return Options(
        shape=_shape(args),
        assumptions=_assumptions(args.assume),
        method=args.method,
        classes=_classes(args.component),
        cached=not args.no_cache,
    )


def verify_all(cpu: Cpu, chosen: list[Policy], options: Options, *, jobs: int = 0) -> list[Report]:
    """Return the verdict on each policy."""
    from fpstate.verify.check import prepare, verify  # noqa: PLC0415  see fpstate.cli

    progress = _Progress() if sys.stderr is not None and sys.stderr.isatty() else None
    prepare(cpu, chosen, options, jobs or os.cpu_count() or 1, progress.models if progress else _silent)
    level = progress.level if progress else None
    reports = [verify(cpu, policy, options, progress=level) for policy in chosen]
    if progress:
        progress.clear()
    return reports


def _silent(done: int, models: int) -> None:
    pass


def _classes(names: list[str] | None) -> tuple[str, ...] | None:
    from fpstate.verify.properties import CLASSES  # noqa: PLC0415

    known = [kind.name for kind in CLASSES]
    for name in names or ():
        if name not in known:
            raise UsageError(f"--component {name!r} is no class of components", cure=f"classes are {', '.join(known)}")
    return tuple(names) if names else None


class _Progress:
    """One line on the terminal, written over and over."""

    def models(self, done: int, models: int) -> None:
        """Say how many models are checked."""
        self._write(f"{done} of {models} models checked")

    def mutations(self, done: int, mutations: int) -> None:
        """Say how many mutations were looked at."""
        self._write(f"{done} of {mutations} mutations looked at")

    def level(self, name: str, found: Found) -> None:
        """Say how far a search is."""
        self._write(f"{name}: {found.states:,} states, depth {found.depth}, {found.seconds:.1f} s")

    def clear(self) -> None:
        """Take the line away."""
        self._write("")

    @staticmethod
    def _write(line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def _print(args: argparse.Namespace, reports: list[Report]) -> None:
    from fpstate.report import SCHEMA  # noqa: PLC0415
    from fpstate.report import verify as report  # noqa: PLC0415

    found = [report.document(each) for each in reports]
    if args.json:
        put(json.dumps(found[0] if len(found) == 1 else {"schema": SCHEMA, "policies": found}, indent=2))
        return
    put("\n\n\n".join(report.text(entry, induction=args.show_induction) for entry in found))


def _write_scenarios(folder: str, reports: list[Report]) -> None:
    from fpstate.verify.story import scenario  # noqa: PLC0415

    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for report in reports:
            for finding in report.findings:
                if finding.run is not None:
                    file = Path(folder) / f"{report.policy.name}-{finding.id.lower()}.toml"
                    file.write_text(scenario(finding, report), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from error


def _history(args: argparse.Namespace) -> int:
    """Look for the bugs: exit 1 if one is not found."""
    from fpstate.report import history as report  # noqa: PLC0415
    from fpstate.verify.history import BUGS, find, run_bug  # noqa: PLC0415

    wanted = list(BUGS.values()) if args.history == "all" else [find(args.history)]
    progress = _Progress() if sys.stderr is not None and sys.stderr.isatty() else None
    results = []
    for bug in wanted:
        results.append(run_bug(bug))
        if progress:
            progress.models(len(results), len(wanted))
    if progress:
        progress.clear()
    emit(args, report.document(results), report.text(results))
    return 0 if all(result.found for result in results) else 1


def _mutations(args: argparse.Namespace) -> int:
    """Look at the mutations: exit 1 if one goes unnoticed and nobody has said why."""
    from fpstate.report import mutations as report  # noqa: PLC0415
    from fpstate.verify.mutate import choose, run_mutations  # noqa: PLC0415

    progress = _Progress() if sys.stderr is not None and sys.stderr.isatty() else None
    chosen, jobs = choose(args.mutations), args.jobs or os.cpu_count() or 1
    tally = run_mutations(chosen, jobs, progress.mutations if progress else None)
    if progress:
        progress.clear()
    emit(args, report.document(tally), report.text(tally))
    return 1 if tally.unexplained else 0


def _export(args: argparse.Namespace, cpu: Cpu, chosen: list[Policy], options: Options) -> int:
    from fpstate.verify.check import claimed_invariants, subjects  # noqa: PLC0415
    from fpstate.verify.model import build  # noqa: PLC0415
    from fpstate.verify.promela import promela  # noqa: PLC0415

    if len(chosen) != 1 or not options.classes or len(options.classes) != 1:
        raise UsageError("--export is about one policy and one --component", cure="give each once")
    foci = options.shape.foci()
    focus = args.focus or foci[0]
    if focus not in foci:
        raise UsageError(f"--focus {focus!r} is not told apart in this shape", cure=f"it is one of {', '.join(foci)}")
    for kind, _, subject in subjects(boot(cpu, chosen[0]), options.assumptions):
        if kind.name in options.classes:
            put(promela(build(subject, options.shape, focus, claimed_invariants)).rstrip("\n"))
            return 0
    raise UsageError(f"{chosen[0].name} has no component of class {options.classes[0]} on {cpu.name}")


def _show_invariant(cpu: Cpu, chosen: list[Policy], options: Options) -> int:
    from fpstate.report import verify as report  # noqa: PLC0415
    from fpstate.verify.check import subjects  # noqa: PLC0415
    from fpstate.verify.invariants import invariants  # noqa: PLC0415
    from fpstate.verify.model import Shape, build  # noqa: PLC0415

    if len(chosen) != 1:
        raise UsageError("--show-invariant is about one policy", cure="give one with --policy")
    policy = chosen[0]

    def clauses() -> Iterator[tuple[str, str, Any]]:
        config = boot(cpu, policy)
        if config.fate != "xsave":
            raise UsageError(f"{policy.name} does not use XSAVE on {cpu.name}")
        for kind, _, subject in subjects(config, options.assumptions):
            if options.classes is not None and kind.name not in options.classes:
                continue
            for focus in ("task0", "guest0"):
                model = build(subject, Shape(1, 1, 1), focus, invariants)
                for name, holds in model.invariants:
                    yield f"{kind.name}, {focus}", name, holds

    put(report.invariant_text(list(clauses())))
    return 0
