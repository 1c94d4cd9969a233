"""A user's TOML file: read whole or refused in words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from fpstate.errors import UnreadableInput

__all__ = ["load", "parse"]

_LIMIT: Final = 1 << 20
_MOST_DOTS: Final = 64
"""Dots in one line: tomllib takes a key of thousands of parts apart for seconds."""


def load(path: str, what: str) -> dict[str, Any]:
    """Return the tables of the file at *path*; *what* says in words what it should hold.

    Raises:
        UnreadableInput: it cannot be read, is larger than 1 MiB, or is not TOML.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LIMIT + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnreadableInput(f"cannot read {path}: {reason}") from error
    if len(data) > _LIMIT:
        raise UnreadableInput(f"{path} is larger than {_LIMIT >> 20} MiB: not a TOML file of {what}")
    return parse(data, path, what)


def parse(data: bytes, name: str, what: str) -> dict[str, Any]:
    """Return the tables of *data*, which *name* holds.

    Raises:
        UnreadableInput: it is not TOML; names the line.
    """
    if any(line.partition(b"=")[0].count(b".") > _MOST_DOTS for line in data.splitlines()):
        raise UnreadableInput(f"{name} is not a TOML file of {what}: a key has more than {_MOST_DOTS} dots")
    try:
        return tomllib.loads(data.decode())
    except RecursionError as error:
        raise UnreadableInput(f"{name} is not a TOML file of {what}: it is nested too deeply") from error
    except ValueError as error:  # not UTF-8, not TOML, or a number with thousands of digits
        raise UnreadableInput(f"{name} is not a TOML file of {what}: {error}") from error
