"""CPU time of a start: fpstate's verbs and its import, over a bare interpreter in the same run.

    python bench/startup.py [ROUNDS]

Every round runs each command once, in turn, with bytecode compiled; the figure is user and system time of the whole
process as the kernel counts it.
"""

from __future__ import annotations

import compileall
import os
import pathlib
import resource
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
BARE = "python -c pass"
LIMITS = {"import fpstate": 40.0, "fpstate layout --cpu zen4": 60.0}
"""What was promised, in milliseconds of CPU over a bare interpreter."""


def commands() -> dict[str, list[str]]:
    """Return what is measured, by the name that is printed."""
    python = sys.executable
    return {
        BARE: [python, "-c", "pass"],
        "import fpstate": [python, "-c", "import fpstate"],
        "import fpstate; boot, compare, lint": [python, "-c", "from fpstate import boot, compare, lint"],
        "fpstate --version": [python, "-m", "fpstate", "--version"],
        "fpstate layout --cpu zen4": [python, "-m", "fpstate", "layout", "--cpu", "zen4"],
        "fpstate config --cpu zen4": [python, "-m", "fpstate", "config", "--cpu", "zen4"],
        "fpstate compare --cpu zen4": [python, "-m", "fpstate", "compare", "--cpu", "zen4"],
    }


def cpu_ms(command: list[str], environment: dict[str, str]) -> float:
    """Run *command* once and return its CPU time in milliseconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> int:
    """Measure and print; exit 1 if a promise is broken."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    compileall.compile_dir(ROOT / "src", quiet=2)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    taken: dict[str, list[float]] = {name: [] for name in commands()}
    for turn in range(rounds + 2):
        for name, command in commands().items():
            spent = cpu_ms(command, environment)
            if turn >= 2:  # the first rounds warm the page cache
                taken[name].append(spent)
    bare = statistics.median(taken[BARE])
    print(f"{rounds} rounds, CPU milliseconds of the whole process: median (minimum to maximum)")
    broken = False
    for name, values in taken.items():
        middle = statistics.median(values)
        limit = LIMITS.get(name)
        over = "" if name == BARE else f"  {middle - bare:5.1f} over bare, {middle / bare:.1f} x"
        promise = "" if limit is None else f"  (promised: under {limit:.0f})"
        print(f"{name:38} {middle:6.1f} ({min(values):.1f} to {max(values):.1f}){over}{promise}")
        broken |= limit is not None and middle - bare > limit
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
