"""``fpstate decode`` as its tests run it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fpstate import cli

__all__ = ["document", "run"]


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Return the exit code, standard output and standard error of a command."""
    try:
        status = cli.main(["decode", *command.split()])
    except SystemExit as end:
        status = int(end.code or 0)
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def document(command: str, capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, Any]:
    """Return what a command prints with --json; it ends with *status* and says nothing else."""
    found, out, err = run(f"{command} --json", capsys)
    assert (found, err) == (status, "")
    answer: dict[str, Any] = json.loads(out)
    return answer
