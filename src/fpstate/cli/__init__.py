"""The command line: one small module a verb, each of which parses, calls one function, and hands the result on.

A verb's module is imported only when it is asked for.  It has ``HELP`` (one line), ``configure(parser)`` and
``run(args) -> int``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from fpstate import __version__
from fpstate.cli.streams import complain, put
from fpstate.errors import FpstateError, printable

__all__ = ["VERBS", "main", "parser"]

VERBS: Final[dict[str, str]] = {
    "compare": "lay the designs of the guest-CET debate side by side for a CPU",
    "config": "what Linux makes of a CPU: feature sets, sizes, boot log",
    "layout": "where components lie in an XSAVE image, and why it has its size",
    "verify": "whether a policy lets state leak or get lost: proven, or the shortest run that shows it",
    "simulate": "a scenario over real bytes: each instruction, whose state is where, and what must not be",
    "explain": "what XRSTOR, ptrace, KVM or sigreturn would say to an XSAVE image, and why",
    "decode": "what a core holds of each thread's extended state, every component in its place",
    "show": "the registers that an XSAVE image holds, by name",
    "encode": "an XSAVE image from registers by name",
    "convert": "an XSAVE image in another format, or with other components",
    "diff": "what differs between the states of two XSAVE images",
    "poke": "write a register of a live thread, unless a rule of the kernel's forbids it",
    "trace": "kernel traces: recorded, checked against the model, summed up, priced",
    "vectors": "test vectors of the XSAVE instructions: execute, make and check them",
    "lint": "what is wrong with a CPU's leaf 0DH, and what Linux does about it",
    "cpus": "the CPUs of the built-in table",
    "policies": "the policies: how Linux and KVM split the components into sets",
    "xfeatures": "the components that fpstate knows",
}
"""Each verb's name and what it is for; its module is ``fpstate.cli.NAME``."""

_DESCRIPTION: Final = "The toolkit for x86 extended state: what XSAVE moves, and how Linux and KVM decide about it."


class _Formatter(argparse.HelpFormatter):
    """Help as wide as the terminal.

    argparse makes a formatter for every argument added, and its own imports shutil to ask for the width.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    try:
        return int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size().columns
    except (OSError, ValueError):
        return 80


class Parser(argparse.ArgumentParser):
    """An argument parser whose refusal is one line.

    Attributes:
        intermixed: positional arguments may stand between options: IMAGE --op OP FILE.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, **options)
        self.intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, or as it parses intermixed arguments."""
        if not self.intermixed:
            return super().parse_known_args(args, namespace)
        self.intermixed = False  # it calls this method again
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixed = True

    def error(self, message: str) -> NoReturn:
        """Print *message* and exit with status 2."""
        complain(f"{self.prog}: {printable(message)} (see {self.prog} --help)")
        sys.exit(2)

    def _print_message(self, message: str, file: object = None) -> None:  # noqa: ARG002  argparse passes it
        """Print help and version like all other output (argparse's own hook)."""
        put(message.rstrip("\n"))


def parser(verbs: Sequence[str] = tuple(VERBS), *, only: bool = False) -> Parser:
    """Return the parser of the command with the arguments of *verbs* filled in; with *only*, it knows no other verb."""
    top = Parser(prog="fpstate", description=_DESCRIPTION)
    top.add_argument("--version", action="version", version=f"fpstate {__version__}")
    # Naming prog spares argparse a formatter, and so the import of shutil.
    subparsers = top.add_subparsers(prog="fpstate", dest="verb", metavar="VERB", required=True)
    for name, help_line in VERBS.items():
        if only and name not in verbs:
            continue
        sub = subparsers.add_parser(name, help=help_line, description=f"{help_line[0].upper()}{help_line[1:]}.")
        if name in verbs:
            module = importlib.import_module(f"fpstate.cli.{name}")
            module.configure(sub)
            sub.intermixed = getattr(module, "INTERMIXED", False)
            sub.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 yes, 1 no, 2 not usable, 3 cannot tell."""
    words = list(sys.argv[1:] if argv is None else argv)
    wanted = [word for word in words if word in VERBS][:1]
    only = bool(wanted) and words[:1] == wanted  # the parsers of all verbs take 7 ms
    try:
        args = parser(wanted, only=only).parse_args(words)
        status: int = args.run(args)
    except FpstateError as refusal:
        complain(f"fpstate: {printable(str(refusal))}")
        return refusal.exit_code
    except KeyboardInterrupt:
        return 130
    return status
