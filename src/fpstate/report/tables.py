"""Tables and emphasis for the terminal; plain ASCII when it is none, or with NO_COLOR."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from tabulate import tabulate
from termcolor import colored

__all__ = ["bold", "columns_that_fit", "table", "warn"]


def bold(text: str) -> str:
    """Return *text* in bold where the terminal allows."""
    return colored(text, attrs=["bold"])


def warn(text: str) -> str:
    """Return *text* in the colour of a warning where the terminal allows."""
    return colored(text, "yellow", attrs=["bold"])


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> str:
    """Return a table in plain text; the columns whose numbers are in *right* are right-aligned."""
    aligned = ["right" if i in right else "left" for i in range(len(headers))]
    return tabulate(
        rows, headers=headers, tablefmt="simple", colalign=aligned, disable_numparse=True, preserve_whitespace=True
    )


def columns_that_fit(first: Sequence[str], columns: Sequence[Sequence[str]]) -> list[range]:
    """Split *columns* into runs that fit the terminal beside the column *first*; one run if it is no terminal."""
    if not sys.stdout.isatty():
        return [range(len(columns))]
    room = shutil.get_terminal_size().columns - _width(first)
    runs, start, used = [], 0, 0
    for i, column in enumerate(columns):
        width = _width(column) + 2
        if used + width > room and i > start:
            runs.append(range(start, i))
            start, used = i, 0
        used += width
    runs.append(range(start, len(columns)))
    return runs


def _width(column: Sequence[str]) -> int:
    return max((len(line) for cell in column for line in cell.split("\n")), default=0)
