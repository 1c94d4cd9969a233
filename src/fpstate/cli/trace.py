"""``fpstate trace``: kernel traces recorded, checked against the model, summed up, and priced under other policies."""

from __future__ import annotations

import argparse
import importlib
from typing import Final

__all__ = ["ACTIONS", "configure", "run"]

ACTIONS: Final[dict[str, str]] = {
    "record": "what this kernel does with extended state, recorded into a trace.dat",
    "report": "whose state was where, what was loaded and saved, and who uses which components",
    "convert": "a recording as Parquet, one file or a folder of parts",
}
"""Each action's name and what it is for; its module is ``fpstate.cli.traces.NAME``, with ``configure`` and ``run``."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    actions = parser.add_subparsers(prog="fpstate trace", dest="action", metavar="ACTION", required=True)
    for name, help_line in ACTIONS.items():
        module = importlib.import_module(f"fpstate.cli.traces.{name}")
        action = actions.add_parser(name, help=help_line, description=f"{help_line[0].upper()}{help_line[1:]}.")
        module.configure(action)
        action.set_defaults(act=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    status: int = args.act(args)
    return status
