"""Write the man pages and the shell completions under share/: from the command line's own parser.

    python scripts/manual.py [--check]

With --check nothing is written; exit 1 if a file is not what the parser says.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

import shtab
from argparse_manpage.manpage import Manpage

from fpstate import __version__, cli
from fpstate.cpu.table import rows
from fpstate.linux.policy import shipped
from fpstate.xfeatures import CATALOGUE

SHARE = pathlib.Path(__file__).parent.parent / "share"
COMPLETIONS = {
    "bash": "bash-completion/completions/fpstate",
    "zsh": "zsh/site-functions/_fpstate",
    "fish": "fish/vendor_completions.d/fpstate.fish",
}
DATE = "2026-11-23"
"""Date of the pages: raised with a release, so that they come out the same on every day and machine."""

SEE_ALSO = ("fpstate", *(f"fpstate-{verb}" for verb in cli.VERBS), "cpuid", "gdb", "trace-cmd")
FILES = {"file", "policies", "components", "base", "source", "diff"}
"""Arguments that take a file's name."""
EXIT_STATUS = [
    ("0", "yes: consistent, agrees, done"),
    ("1", "no: findings, a difference, nothing found"),
    ("2", "the request or the input cannot be used"),
    ("3", "cannot tell: the input does not hold the answer"),
    ("130", "interrupted"),
]


def pages() -> dict[str, str]:
    """Return each file under share/ and its text."""
    os.environ["COLUMNS"] = "1000"  # man(1) breaks the lines
    top = cli.parser()
    (subparsers,) = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    found = {"man/man1/fpstate.1": page(top)}
    for name, sub in subparsers.choices.items():
        found[f"man/man1/fpstate-{name}.1"] = page(sub)
    for shell, place in COMPLETIONS.items():
        found[place] = shtab.complete(completed(cli.parser()), shell=shell)
    return found


def completed(top: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Return *top* with what its arguments can be: names of the tables, and files."""
    names = {
        "cpu": [name for row in rows() for name in (row.name, *row.aliases)],
        "policy": list(shipped()),
        "component": [row.name for row in CATALOGUE],
    }
    (subparsers,) = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    for sub in subparsers.choices.values():
        for action in sub._actions:  # noqa: SLF001
            if action.dest in FILES:
                action.complete = shtab.FILE
            elif action.dest in names:
                action.choices = names[action.dest]
    return top


def page(parser: argparse.ArgumentParser) -> str:
    """Return the man page of one parser, with exit status and references."""
    data = {
        "prog": parser.prog.replace(" ", "-"),
        "project_name": "fpstate",
        "version": __version__,
        "date": DATE,
        "manual_title": "fpstate manual",
        "manual_section": "1",
        "format": "single-commands-section",
    }
    name = parser.prog.replace(" ", "-")
    body = str(Manpage(parser, data)).rstrip().partition(".SH SYNOPSIS")[2]
    summary = (parser.description or "").rstrip(".")
    head = (
        f'.TH {name.upper()} 1 "{DATE}" "fpstate {__version__}" "fpstate manual"\n'
        f".SH NAME\n{name} \\- {summary[:1].lower()}{summary[1:]}\n.SH SYNOPSIS"
    )
    text = head + body.partition(".SH COMMAND")[0].rstrip()  # each verb has a page of its own
    also = ", ".join(f"{page}(1)" for page in SEE_ALSO if page != name)
    status = "\n".join(f".TP\n.B {code}\n{words}" for code, words in EXIT_STATUS)
    return f"{text}\n\n.SH EXIT STATUS\n{status}\n\n.SH SEE ALSO\n{also}\n"


def main() -> int:
    """Write the files, or compare them."""
    stale = []
    for place, text in pages().items():
        path = SHARE / place
        if path.is_file() and path.read_text() == text:
            continue
        stale.append(place)
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote share/{place}")
    if "--check" in sys.argv and stale:
        print(f"share/ is out of date, run 'make manual': {', '.join(stale)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
