"""Tables and emphasis for the terminal; plain ASCII when it is none, or with NO_COLOR.

The column layout is our own twenty lines: the libraries for it cost more start-up than everything else that
``fpstate layout`` does (docs/benchmarks.md).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest

from termcolor import colored

__all__ = ["bold", "columns_that_fit", "table", "warn", "wrapped"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def bold(text: str) -> str:
    """Return *text* in bold where the terminal allows."""
    return colored(text, attrs=["bold"])


def warn(text: str) -> str:
    """Return *text* in the colour of a warning where the terminal allows."""
    return colored(text, "yellow", attrs=["bold"])


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return a table in plain text; the columns whose numbers are in *right* are right-aligned.

    Columns are two spaces apart and as wide as their widest cell; colour codes take no width.  Without *headers*
    the table is its rows.
    """
    columns = list(zip_longest(*([headers] if headers else []), *rows, fillvalue=""))
    widths = [max(map(_width, column), default=0) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = [_pad(cell, widths[i], right=i in right) for i, cell in enumerate(cells)]
        return "  ".join(padded).rstrip()

    head = [line(headers), line(["-" * width for width in widths])] if headers else []
    return "\n".join([*head, *(line(row) for row in rows)])


def wrapped(line: str) -> str:
    """Return *line* of prose as an indented paragraph of at most 100 columns."""
    import textwrap  # noqa: PLC0415  tables do without

    return textwrap.fill(line, 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def columns_that_fit(first: Sequence[str], columns: Sequence[Sequence[str]]) -> list[range]:
    """Split *columns* into runs that fit the terminal beside the column *first*; one run if it is no terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return [range(len(columns))]
    room = os.get_terminal_size().columns - max(map(_width, first), default=0)
    runs, start, used = [], 0, 0
    for i, column in enumerate(columns):
        width = max(map(_width, column), default=0) + 2
        if used + width > room and i > start:
            runs.append(range(start, i))
            start, used = i, 0
        used += width
    runs.append(range(start, len(columns)))
    return runs


def _width(cell: str) -> int:
    return len(_COLOUR.sub("", cell))


def _pad(cell: str, width: int, *, right: bool) -> str:
    space = " " * (width - _width(cell))
    return space + cell if right else cell + space
