"""``fpstate vectors``: test vectors of the XSAVE instructions, executed, made and checked."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator

from fpstate.cli.image import add_machine, machine
from fpstate.cli.source import add_source, load
from fpstate.cli.streams import complain, put
from fpstate.cpu.model import Cpu
from fpstate.errors import CannotTell, FpstateError, UnreadableInput, UsageError
from fpstate.isa import AREA_INSTRUCTIONS, INSTRUCTIONS, RULES, Capabilities
from fpstate.isa.access import NEEDS
from fpstate.isa.case import Case
from fpstate.isa.generate import Generator
from fpstate.vectors import fields, result
from fpstate.vectors.case import encode

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    actions = parser.add_subparsers(prog="fpstate vectors", dest="action", metavar="ACTION", required=True)
    execute = actions.add_parser("run", help="execute cases and print their results")
    execute.add_argument("file", metavar="FILE", help="cases, a JSON object a line; - is standard input")
    check = actions.add_parser("check", help="compare the results of another implementation with the model's")
    check.add_argument("file", metavar="FILE", help='lines {"case": {...}, "result": {...}}; - is standard input')
    _configure_generate(actions.add_parser("generate", help="make cases, the same for the same seed"))
    for name, action in (("run", _run), ("check", _check), ("generate", _generate)):
        actions.choices[name].set_defaults(act=action)


def _configure_generate(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("--op", metavar="NAME", default="all", help="instructions, joined by commas, or all")
    parser.add_argument("--rule", metavar="ID", help="only cases that break this rule, or all: some for each rule")
    parser.add_argument("--count", metavar="N", type=_count, default=100, help="cases (with --rule all: a rule)")
    parser.add_argument("--seed", metavar="N", type=_count, default=0, help="another seed gives other cases")
    add_machine(parser)
    parser.add_argument("--results", action="store_true", help='print {"case": {...}, "result": {...}}')


def _count(text: str) -> int:
    """Read a number of up to nine digits."""
    if not text.isdecimal() or not text.isascii() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} must be a number of at most 9 digits")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    status: int = args.act(args)
    return status


def _run(args: argparse.Namespace) -> int:
    """Print a result a case; one that is none gets ``{"error": ...}`` in its place, and the exit status is 2.

    Of a line with a case and a result the case is executed.
    """

    def one(line: int, document: fields.Document) -> int:
        case = document["case"] if set(document) == {"case", "result"} else document
        try:
            answer = result.run_document(case)
        except FpstateError as refusal:
            put(json.dumps({**_identity(case), "line": line, "error": str(refusal)}))
            return 2
        put(json.dumps(answer))
        return 0

    return _each_line(args.file, one)


def _check(args: argparse.Namespace) -> int:
    """Print the lines that differ, and how many did not: exit 1 if any."""
    checked = wrong = 0

    def one(line: int, document: fields.Document) -> int:
        nonlocal checked, wrong
        differences = result.check(document)
        checked += 1
        if differences:
            wrong += 1
            put(json.dumps({**_identity(document.get("case", {})), "line": line, "differences": differences}))
        return 1 if differences else 0

    status = _each_line(args.file, one)
    if not checked:
        raise UnreadableInput("there is no result to check")
    complain(f"{checked} results checked, {wrong} differ")
    return status


def _identity(document: object) -> fields.Document:
    return {"id": document["id"]} if isinstance(document, dict) and "id" in document else {}


def _each_line(path: str, act: Callable[[int, fields.Document], int]) -> int:
    """Call *act* with the number and the object of each line of the file and return the highest status.

    Raises:
        FpstateError: the file cannot be read, or *act* refuses an object; names the line.
    """
    status = 0
    for line, document in fields.read_lines(_lines(path)):
        try:
            status = max(status, act(line, document))
        except FpstateError as refusal:
            raise type(refusal)(f"line {line}: {refusal}") from refusal
    return status


def _lines(path: str) -> Iterator[str]:
    """Yield the lines of the file.

    Raises:
        UnreadableInput: it cannot be read, or is not UTF-8.
    """
    where = "standard input" if path == "-" else path
    if path == "-" and sys.stdin is None:
        raise UnreadableInput("standard input is closed")
    try:
        with contextlib.nullcontext(sys.stdin) if path == "-" else open(path, encoding="utf-8-sig") as file:  # noqa: PTH123
            while line := file.readline(fields.LONGEST_LINE + 1):
                yield line
    except UnicodeDecodeError as error:
        raise UnreadableInput(f"{where} is not UTF-8 text: byte {error.start}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, FpstateError):
            raise
        raise UnreadableInput(f"cannot read {where}: {getattr(error, 'strerror', None) or error}") from error


def _generate(args: argparse.Namespace) -> int:
    """Print cases; nothing if the CPU cannot break the rule."""
    for document in _cases(args, load(args)):
        if args.results:
            put(json.dumps({"case": document, "result": result.run_document(document)}))
        else:
            put(json.dumps(document))
    return 0


def _cases(args: argparse.Namespace, cpu: Cpu) -> Iterator[fields.Document]:
    p = machine(args, cpu)
    generator = Generator(p.caps, seed=args.seed, xcr0=p.xcr0, xss=p.xss, xfd=p.xfd, profile=p.profile)
    where = _place(args, cpu)
    if args.rule is None:
        ops = _operations(args.op, p.caps)
        for index in range(args.count):
            case = generator.case(ops[index % len(ops)])
            case.id = f"{args.seed}-{index}"
            yield encode(case, where) | _leaves(cpu, where)
        return
    refusals = []
    for rule in RULES if args.rule == "all" else [args.rule]:
        try:
            for case in _breaking(generator, _operations(args.op, None), rule, args.count):
                case.id = f"{rule}-{case.id}"
                yield encode(case, where) | _leaves(cpu, where)
        except CannotTell as refusal:
            refusals.append(refusal)
    if refusals and args.rule != "all":
        raise refusals[0]
    if refusals:
        complain(f"{cpu.name} cannot break {len(refusals)} of {len(RULES)} rules")


def _breaking(generator: Generator, ops: list[str], rule: str, count: int) -> Iterator[Case]:
    """Yield *count* cases that break *rule*, of each instruction that can in turn.

    Raises:
        CannotTell: none can.
    """
    able = []
    for op in ops:
        try:
            generator.case(op, rule=rule)
        except CannotTell:
            continue
        able.append(op)
    if not able:
        raise CannotTell(f"no instruction on {generator.caps.cpu.name} was found that breaks the rule {rule}")
    for index in range(count):
        case = generator.case(able[index % len(able)], rule=rule)
        case.id = str(index)
        yield case


def _operations(text: str, caps: Capabilities | None) -> list[str]:
    """Return the instructions asked for; of ``all`` those that *caps* has."""
    if text.strip().lower() != "all":
        asked = [op.strip().lower() for op in text.split(",") if op.strip().lower() != "all"]
        unknown = [op for op in asked if op not in INSTRUCTIONS]
        if unknown:
            raise UsageError(f"{unknown[0][:40]!r} is no instruction", cure=f"they are {', '.join(INSTRUCTIONS)}")
        return asked
    missing = {op for op in AREA_INSTRUCTIONS if caps is not None and not caps.has(NEEDS[op.removesuffix("64")])}
    return [op for op in INSTRUCTIONS if op not in missing]


def _place(args: argparse.Namespace, cpu: Cpu) -> object:
    """Return what stands for the CPU in a case: its name, or its leaf 0DH."""
    if args.cpu is not None and args.components is None:
        return args.cpu
    leaf_d = {str(sub): [f"{v:#x}" for v in regs] for (leaf, sub), regs in cpu.leaves.items() if leaf == 0xD}
    if not leaf_d or args.components is not None:
        raise UsageError(f"{cpu.name} has no leaf 0DH to put into a case", cure="give --cpu NAME or a CPUID dump")
    return {"leaf_d": leaf_d}


def _leaves(cpu: Cpu, where: object) -> fields.Document:
    if isinstance(where, str):
        return {}
    wanted = {key: regs for key, regs in cpu.leaves.items() if key[0] in {0, 1, 7, 0x1C, 0x1D, 0x8000_0008}}
    return {"leaves": {f"{leaf:x}.{sub:x}": [f"{v:#x}" for v in regs] for (leaf, sub), regs in wanted.items()}}
