"""Hold the model against this CPU: random cases, executed by both, compared in every byte, register and signal.

    python scripts/conformance.py [--cases N] [--seed N] [--processes N]

Prints cases per instruction, the rules that were broken, mismatches with a case that reproduces each, and what this CPU
could not exercise.  Exit 1 if anything mismatched.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time

from fpstate.cpu import this_host
from fpstate.silicon import Executor
from fpstate.silicon.conformance import Conformance, Tally

PART = 10_000
"""Cases of one seed."""


def part(seed: int) -> Tally:
    """Execute one part of the cases; each process has an executor of its own."""
    return Conformance(_executor(), seed=seed).run(PART)


_made: dict[int, Executor] = {}


def _executor() -> Executor:
    if os.getpid() not in _made:
        _made[os.getpid()] = Executor()
    return _made[os.getpid()]


def main() -> int:
    """Run the parts on all processors and print the sum."""
    parser = argparse.ArgumentParser(description="hold the model against this CPU")
    parser.add_argument("--cases", type=int, default=2_000_000, help="how many (default: 2,000,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the first part (default: 1)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one a processor")
    args = parser.parse_args()
    if args.cases < 1 or args.processes < 1:
        parser.error("--cases and --processes must be 1 or more")
    parts = max(1, -(-args.cases // PART))
    total, start = Tally(), time.monotonic()
    with multiprocessing.Pool(args.processes) as pool:
        for done, tally in enumerate(pool.imap_unordered(part, range(args.seed, args.seed + parts)), 1):
            total.add(tally)
            if sys.stderr.isatty():
                print(f"\r{done * PART:,} cases, {total.wrong} mismatches", end="", file=sys.stderr)
    report(total, time.monotonic() - start)
    return 1 if total.wrong else 0


def report(total: Tally, seconds: float) -> None:
    """Print what came of it."""
    count = sum(total.cases.values())
    print(f"{this_host().name}: {count:,} cases in {seconds:.0f} s ({count / seconds:,.0f} a second)\n")
    for title, counts in (("instruction", total.cases), ("rule broken", total.faults)):
        print(f"{title:<28} cases")
        print("\n".join(f"{name:<28} {number:>9,}" for name, number in sorted(counts.items())), "\n")
    print(f"mismatches: {total.wrong}; agreed when tried again, after a preemption: {total.repeated}")
    for mismatch in total.mismatches:
        print(f"\n{'; '.join(mismatch.differences)}\n  steps: {[tuple(step) for step in mismatch.steps]}")
        print(f"  for 'fpstate vectors check': {json.dumps(mismatch.line)}")
    with Executor() as executor:
        print("\nnot exercised:", *Conformance(executor, seed=0).not_exercised, sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
