"""Make the goldens: what Bochs does with some thousands of cases.

    python conformance/bochs/goldens.py [MODEL ...]

Installs Debian sid with Bochs into build/sid (or the folder that FPSTATE_SID names) if it is not there, and writes
tests/isa/goldens/bochs_MODEL.jsonl.gz.  Made again, they are the same bytes.  Without MODEL it makes all of them.
"""

from __future__ import annotations

import collections
import gzip
import json
import pathlib
import sys
import time
from typing import Any, Final

from bochs_oracle.cases import cases
from bochs_oracle.defects import defect
from bochs_oracle.emulator import VERSION, Emulator
from bochs_oracle.errors import OracleError
from bochs_oracle.oracle import Oracle

_FOLDER: Final = pathlib.Path(__file__).resolve().parents[2] / "tests" / "isa" / "goldens"

_SHARES: Final = {
    "tigerlake": 1.0,
    "sapphire_rapids": 0.5,
    "arrow_lake": 0.5,
    "corei7_skylake_x": 0.25,
    "ryzen": 0.2,
    "corei7_haswell_4770": 0.2,
    "zambezi": 0.2,
}
"""How many of the random cases each model gets."""


def main(arguments: list[str]) -> int:
    """Make the goldens of the models in *arguments*, or of all."""
    models = arguments or list(_SHARES)
    if unknown := [model for model in models if model not in _SHARES]:
        print(f"no model {', '.join(unknown)}; the models are {', '.join(_SHARES)}", file=sys.stderr)
        return 2
    try:
        emulator = Emulator()
        if emulator.version() != VERSION:
            print(f"Bochs is {emulator.version()}, the goldens in the tree were made by {VERSION}: they may change")
        for model in models:
            start = time.perf_counter()
            path, counts = _make(Oracle(emulator), model)
            seconds = time.perf_counter() - start
            print(f"{path.name}: {counts.total()} cases, {path.stat().st_size:,} bytes, {seconds:.1f} s")
            print("   ", ", ".join(f"{op} {count}" for op, count in sorted(counts.items())))
    except OracleError as stopped:
        print(f"goldens: {stopped}", file=sys.stderr)
        return 1
    return 0


def _make(oracle: Oracle, model: str) -> tuple[pathlib.Path, collections.Counter[str]]:
    """Write the goldens of *model*; return where, and how many cases of each instruction they have."""
    machine = oracle.machine(model)
    made = cases(machine, _SHARES[model])
    lines: list[bytes] = []
    for case, result in zip(made, oracle.judge(made), strict=True):
        golden: dict[str, Any] = {"case": case, "result": result}
        if found := defect(machine, case, result):
            golden["defect"] = found
        lines.append(json.dumps(golden, separators=(",", ":")).encode() + b"\n")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    path = _FOLDER / f"bochs_{model}.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(lines), compresslevel=9, mtime=0))
    return path, collections.Counter(case["op"] for case in made)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
