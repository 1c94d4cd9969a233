"""The arguments by which every verb is told its CPU, and how they are read."""

from __future__ import annotations

import argparse
import contextlib
import os

from fpstate import cpu as cpus
from fpstate.cli.streams import put
from fpstate.cpu.model import Cpu
from fpstate.errors import CannotTell, UnreadableInput, UsageError
from fpstate.report import Document
from fpstate.xfeatures import CATALOGUE, Catalogue, Xfeature

__all__ = [
    "add_output",
    "add_policy_files",
    "add_source",
    "check_source",
    "emit",
    "load",
    "load_several",
    "number",
    "refuse_guesses",
]


def add_source(parser: argparse.ArgumentParser, *, several: bool = False, default: str = "this host") -> None:
    """Add FILE, --cpu and --host, and what belongs to them.

    Args:
        parser: the verb's.
        several: allow each more than once.
        default: the CPU that is meant if none is given, in words.
    """
    group = parser.add_argument_group(f"the CPU ({default} if none is given)")
    group.add_argument(
        "file",
        metavar="FILE",
        nargs="*" if several else "?",
        help="a CPUID dump, boot log or VMM file in any known form; - is standard input",
    )
    group.add_argument(
        "--cpu", metavar="NAME", action="append" if several else "store", help="a CPU of the built-in table"
    )
    group.add_argument("--host", action="store_true", help="the CPU that this runs on")
    group.add_argument("--index", metavar="N", type=number, help="which CPU or boot of the file, from 0")
    group.add_argument("--base", metavar="CPU", help="what a CPU template is applied to: host, a name or a file")
    group.add_argument("--components", metavar="TOML", help="components of your own, or changed ones")
    group.add_argument("--strict", action="store_true", help="refuse a source that leaves something to be guessed")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print a JSON document in place of text")


def add_policy_files(parser: argparse.ArgumentParser) -> None:
    """Add --policies, --cmdline and --no-debug-fpu."""
    parser.add_argument("--policies", metavar="TOML", help="policies of your own")
    parser.add_argument("--cmdline", metavar="TEXT", default="", help="a kernel command line")
    parser.add_argument("--no-debug-fpu", action="store_true", help="a kernel without CONFIG_X86_DEBUG_FPU")


def number(text: str) -> int:
    """Read a small number that is not negative."""
    if not text.isdecimal() or len(text) > 6:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number, 0 or more")
    return int(text)


def load(args: argparse.Namespace) -> Cpu:
    """Return the one CPU that the arguments name.

    Raises:
        UsageError: they name several.
    """
    check_source(args)
    catalogue, rows = _catalogue(args)
    return _finish(_load(args.file, args.cpu, args, catalogue), args, catalogue, rows)


def check_source(args: argparse.Namespace) -> None:
    """Refuse arguments that name several CPUs where one is meant, or a CPU in the place of a file."""
    if sum((args.file is not None, args.cpu is not None, bool(args.host))) > 1:
        raise UsageError("the CPU must be given once: by FILE, by --cpu or by --host")
    if args.file is not None:
        _check_file(args.file)


def load_several(args: argparse.Namespace) -> list[Cpu]:
    """Return the CPUs that the arguments name, the host if none: files first, then names, then the host."""
    catalogue, rows = _catalogue(args)
    for path in args.file:
        _check_file(path)
    found = [_load(path, None, args, catalogue) for path in args.file]
    found += [_load(None, name, args, catalogue) for name in args.cpu or ()]
    if args.host or not found:
        found.append(_load(None, None, args, catalogue))
    return [_finish(cpu, args, catalogue, rows) for cpu in found]


def _catalogue(args: argparse.Namespace) -> tuple[Catalogue, tuple[Xfeature, ...]]:
    if args.components is None:
        return CATALOGUE, ()
    from fpstate import components  # noqa: PLC0415  parses TOML

    return components.load(args.components)


def _load(path: str | None, name: str | None, args: argparse.Namespace, catalogue: Catalogue) -> Cpu:
    if path is not None:
        return cpus.load(path, index=args.index, base=args.base, catalogue=catalogue)
    if args.index is not None or args.base is not None:
        raise UsageError("--index and --base go with a FILE")
    if name is not None:
        return cpus.by_name(name, catalogue=catalogue)
    return cpus.this_host(catalogue=catalogue)


def _check_file(path: str) -> None:
    """Refuse a CPU's name in the place of a file's."""
    if "/" in path or path == "-" or os.path.lexists(path):
        return
    with contextlib.suppress(UsageError):
        cpus.by_name(path)
        raise UnreadableInput(f"there is no file {path!r}", cure=f"for the CPU of that name give --cpu {path}")


def _finish(cpu: Cpu, args: argparse.Namespace, catalogue: Catalogue, rows: tuple[Xfeature, ...]) -> Cpu:
    refuse_guesses(args, cpu)
    return cpu.with_components(rows, catalogue) if rows else cpu


def refuse_guesses(args: argparse.Namespace, cpu: Cpu) -> None:
    """Refuse *cpu* if --strict was given and something about it was guessed.

    Raises:
        CannotTell: names the first guess.
    """
    if args.strict and cpu.guesses:
        guess = cpu.guesses[0]
        raise CannotTell(f"{cpu.name} leaves something to be guessed: {guess}", cure="drop --strict to allow it")


def emit(args: argparse.Namespace, document: Document, text: str) -> None:
    """Print the JSON document if --json was given, else the text."""
    if args.json:
        import json  # noqa: PLC0415  text output does without

        text = json.dumps(document, indent=2)
    put(text)
