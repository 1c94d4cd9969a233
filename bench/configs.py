"""Configurations a second: every CPU at hand booted under every shipped policy, in one process.

    python bench/configs.py [ROUNDS]

The CPUs are those of the corpus (FPSTATE_CORPUS) and of the built-in table.  Reading them is not counted; explaining
the sizes that each dump shows is.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import sys
import time

from fpstate import cpu as cpus
from fpstate.cpu.sizes import compacted_rule, standard_rule
from fpstate.cpu.table import rows
from fpstate.errors import CannotTell, FpstateError
from fpstate.linux.boot import boot
from fpstate.linux.policy import shipped

PROMISED = 1000.0
"""Configurations a second."""


def corpus() -> list[cpus.Cpu]:
    """Return the CPUs of every CPUID file in the corpus; none if there is no corpus."""
    folder = os.environ.get("FPSTATE_CORPUS")
    found: list[cpus.Cpu] = []
    for path in sorted(pathlib.Path(folder).glob("*/**/*")) if folder else []:
        if path.is_file() and path.parts[-2] != "traces" and {"cpuid", "realkernel"} & set(path.parts):
            try:
                found += cpus.load_all(str(path))
            except FpstateError:
                continue  # licences, templates
    return found


def configure(subjects: list[cpus.Cpu]) -> tuple[int, float]:
    """Boot every CPU under every policy; return how many configurations and how many seconds."""
    standard_rule.cache_clear()
    compacted_rule.cache_clear()
    policies = list(shipped().values())
    done = 0
    start = time.perf_counter()
    for cpu in subjects:
        for policy in policies:
            try:
                boot(cpu, policy)
            except CannotTell:
                continue
            done += 1
    return done, time.perf_counter() - start


def main() -> int:
    """Measure and print; exit 1 if the promise is broken."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    subjects = [*corpus(), *(cpus.by_name(row.name) for row in rows())]
    rates = []
    done = 0
    for _ in range(rounds):
        done, seconds = configure(subjects)
        rates.append(done / seconds)
    middle = statistics.median(rates)
    print(f"{len(subjects)} CPUs, {len(shipped())} policies, {done} configurations, {rounds} rounds")
    print(f"configurations a second: {middle:.0f} ({min(rates):.0f} to {max(rates):.0f}); promised: {PROMISED:.0f}")
    return int(middle < PROMISED)


if __name__ == "__main__":
    sys.exit(main())
