"""Run cases on Bochs: JSON lines of cases in, JSON lines of results out.

    python conformance/bochs/run.py FILE        FILE of cases; - is standard input

A case names its CPU as ours ("tiger-lake") or as {"bochs": "tigerlake"}.  Results come model by model.
"""

from __future__ import annotations

import json
import pathlib
import sys

from bochs_oracle.emulator import Emulator
from bochs_oracle.errors import OracleError
from bochs_oracle.oracle import Oracle


def main(arguments: list[str]) -> int:
    """Print the results of the cases in the file that *arguments* name."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        text = sys.stdin.read() if arguments == ["-"] else pathlib.Path(arguments[0]).read_text(encoding="utf-8")
        cases = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as wrong:
        print(f"run: {arguments[0]}: {wrong}", file=sys.stderr)
        return 2
    try:
        for result in Oracle(Emulator()).judge(cases):
            print(json.dumps(result))
    except OracleError as stopped:
        print(f"run: {stopped}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
