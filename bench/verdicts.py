"""How long the verdicts take: `fpstate verify --policy all`, the check in `fpstate compare`, and steps over bytes.

    python bench/verdicts.py [ROUNDS]

Each round begins with an empty cache of outcomes.  Seconds are of the wall, with the CPU seconds of all processes;
steps a second are of one core, of a random walk that was recorded before.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fpstate import cpu_by_name, policy
from fpstate.linux.machine import Machine

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from walks import walk

VERIFY_SECONDS, COMPARE_SECONDS, STEPS_A_SECOND = 60, 5, 20_000
"""What was promised: `verify --policy all`, what the check adds to `compare`, and the machine over bytes."""
STEPS = 40_000


def timed(cache: str, *words: str) -> tuple[float, float]:
    """Run fpstate with its cache in a folder; return wall and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "fpstate", *words],
        env={**os.environ, "XDG_CACHE_HOME": cache},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    wall = time.perf_counter() - started
    if done.returncode not in {0, 1}:
        raise SystemExit(f"fpstate {' '.join(words)} exits with {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def verdicts(rounds: int) -> list[str]:
    """Measure the two commands, cold and with what was kept; return the promises that do not hold."""
    names = ("verify, cold", "verify, kept", "compare, cold", "compare, kept", "compare --no-verify")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    every, one = ("verify", "--policy", "all", "--json"), ("compare", "--cpu", "sapphire-rapids")
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            for name, cache, words in (
                ("verify, cold", first, every),
                ("verify, kept", first, every),
                ("compare, cold", second, one),
                ("compare, kept", second, one),
                ("compare --no-verify", second, (*one, "--no-verify")),
            ):
                found[name].append(timed(cache, *words))
    median = {}
    for name, runs in found.items():
        walls = [wall for wall, _ in runs]
        median[name] = statistics.median(walls)
        cpu = statistics.median(cpu for _, cpu in runs)
        print(f"  {name:20} {median[name]:7.2f} s ({min(walls):.2f} to {max(walls):.2f}), {cpu:.2f} s of CPU time")
    added = median["compare, cold"] - median["compare --no-verify"]
    kept = median["compare, kept"] - median["compare --no-verify"]
    print(f"  the check adds {added:.2f} s to compare, {kept:.2f} s when its outcome was kept")
    broken = []
    if median["verify, cold"] > VERIFY_SECONDS:
        broken.append(f"verify --policy all takes more than {VERIFY_SECONDS} s")
    if added > COMPARE_SECONDS:
        broken.append(f"the check adds more than {COMPARE_SECONDS} s to compare")
    return broken


def machine() -> Machine:
    """Return the machine that walks: two CPUs, three tasks, two vCPUs, on a CPU with AMX and CET."""
    return Machine(cpu_by_name("sapphire-rapids"), policy("linux-6.18"), cpus=2, tasks=3, vcpus=2, record=False)


def steps(rounds: int) -> list[str]:
    """Measure steps over bytes; return the promises that do not hold."""
    recorded = [(step, numbers) for step, numbers, _ in walk(machine(), 1, STEPS)]
    rates = []
    for _ in range(rounds):
        made = machine()
        started = time.process_time()
        for step, numbers in recorded:
            made.take(step, numbers)
        rates.append(STEPS / (time.process_time() - started))
    spread = f"({min(rates):,.0f} to {max(rates):,.0f})"
    print(f"  {STEPS:,} steps over bytes: {statistics.median(rates):,.0f} a second {spread}")
    return [f"fewer than {STEPS_A_SECOND:,} steps a second"] if statistics.median(rates) < STEPS_A_SECOND else []


def main() -> int:
    """Measure and print; exit 1 if a promise is broken."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"seconds of the wall: median of {rounds} (minimum to maximum)")
    broken = verdicts(rounds) + steps(max(5, rounds))
    for promise in broken:
        print(f"BROKEN: {promise}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
