"""States a second of `fpstate.verify`'s searches, beside Spin on the same model, exported to it; and a large model.

    python bench/verify.py [ROUNDS] [COMPONENT] [CPUSxTASKSxVCPUS]

Every way visits all states, reductions off, in a process of its own, in turn; CPU time is that process's, after it has
made its model and before it takes it down.  Spin's is `pan`'s, without the time to generate and compile it.  All of its
exact modes are run once, the fastest of them in every round.  Memory is the process's most.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fpstate import cpu_by_name, policy
from fpstate.linux.boot import boot
from fpstate.linux.steps import Assumptions, World
from fpstate.verify.check import subjects
from fpstate.verify.invariants import invariants
from fpstate.verify.model import Model, Shape, build
from fpstate.verify.promela import promela
from fpstate.verify.properties import property_of
from fpstate.verify.search import Limits, search

COMPILED_OVER_SPIN, NUMPY_OVER_SPIN = 10.0, 3.0
"""What was promised, in states a second."""
LARGE: Final = Shape(3, 4, 2)
LARGE_SECONDS, LARGE_MEMORY = 300, 4096
"""What was promised of it, reductions on: seconds in all, and MiB."""
MODES: Final = {
    "spin DFS": ("-DNOREDUCE", "-DNOFAIR", "-DNOBOUNDCHECK"),
    "spin DFS, reduction on": (),
    "spin DFS -O3": ("-O3", "-march=native", "-DNOREDUCE", "-DNOFAIR", "-DNOBOUNDCHECK"),
    "spin -DCOLLAPSE": ("-DCOLLAPSE", "-DNOREDUCE", "-DNOFAIR"),
    "spin -DBFS": ("-DBFS", "-DNOREDUCE", "-DNOFAIR", "-DNOBOUNDCHECK"),
}
"""Spin's exact modes, beside -O2 -DSAFETY.  Bit state hashing and hash compaction lose states."""


@dataclass(frozen=True, slots=True)
class Run:
    """One way, once: states, CPU seconds, MiB."""

    states: int
    seconds: float
    memory: float


def made(component: str, shape: Shape) -> Model:
    """Return the model that is measured."""
    found = subjects(boot(cpu_by_name("sapphire-rapids"), policy("repaired")), Assumptions())
    subject = next(subject for kind, _, subject in found if kind.name == component)
    return build(subject, shape, "guest0", claims)


def claims(w: World) -> Iterator[tuple[str, object]]:
    """Yield the clauses that are part of a property."""
    return (clause for clause in invariants(w) if property_of(clause[0]))


def child(component: str, shape: Shape, engine: str) -> None:
    """Search, and print what it took: what the process of one way does."""
    model = made(component, shape)
    started = time.process_time()
    reduced = engine == "reduced"
    limits = Limits(symmetry=reduced, liveness=reduced)
    found = search(model, limits, engine="numpy" if engine == "numpy" else "compiled")
    seconds = time.process_time() - started
    if not found.complete:
        raise SystemExit("the search is not complete")
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text("ascii"))
    print(json.dumps([found.states, seconds, int(peak[1]) / 1024 if peak else 0]))


def ours(component: str, shape: Shape, engine: str) -> Run:
    """Run one engine in a process of its own."""
    text = f"{shape.cpus}x{shape.tasks}x{shape.vcpus}"
    command = [sys.executable, __file__, "--child", component, text, engine]
    return Run(*json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def prepared(folder: Path, model: Model) -> dict[str, Path]:
    """Make `pan` in every mode, and return the programs."""
    (folder / "model.pml").write_text(promela(model), "ascii")
    subprocess.run(["spin", "-a", "model.pml"], cwd=folder, check=True, capture_output=True)
    programs = {}
    for number, (name, options) in enumerate(MODES.items()):
        program = folder / f"pan{number}"
        command = ["gcc", "-w", "-O2", "-DSAFETY", *options, "-o", str(program), "pan.c"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        programs[name] = program
    return programs


def spin(program: Path, states: int) -> Run:
    """Run `pan`: a hash table for all *states*, and a stack that is deep enough."""
    table = max(18, states.bit_length())
    depth = states if "pan4" not in program.name else 10_000
    process = subprocess.Popen(
        [str(program), f"-w{table}", f"-m{depth}", "-n"], cwd=program.parent, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None  # noqa: S101  it is a pipe
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    stored = re.search(r"([\d.e+]+) states, stored", text)
    if stored is None or int(float(stored[1])) != states or "errors: 0" not in text or "too small" in text:
        raise SystemExit(f"Spin does not visit the same {states} states:\n{text}")
    return Run(states, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def shown(name: str, runs: list[Run], base: float | None) -> str:
    """Return a line of the table."""
    seconds = [run.seconds for run in runs]
    rate = runs[0].states / statistics.median(seconds)
    spread = f"({min(seconds):.2f} to {max(seconds):.2f})"
    ratio = f"  {rate / base:5.1f} x Spin" if base else ""
    memory = max(run.memory for run in runs)
    return (
        f"  {name:24} {statistics.median(seconds):8.2f} s {spread:20} {rate / 1e6:7.3f} M/s  {memory:6.0f} MiB{ratio}"
    )


def compare(component: str, shape: Shape, rounds: int) -> list[str]:
    """Measure the engines against Spin, print the table, and return the promises that do not hold."""
    ours(component, Shape(2, 2, 1), "compiled")  # Numba's part is compiled once
    engines = ("numpy", "compiled")
    runs: dict[str, list[Run]] = {engine: [] for engine in engines}
    runs["compiled"].append(ours(component, shape, "compiled"))
    states = runs["compiled"][0].states
    with tempfile.TemporaryDirectory() as folder:
        programs = prepared(Path(folder), made(component, shape))
        every = {name: [spin(program, states)] for name, program in programs.items()}
        best = min(every, key=lambda name: every[name][0].seconds)
        for number in range(rounds):
            if number:
                every[best].append(spin(programs[best], states))
                runs["compiled"].append(ours(component, shape, "compiled"))
            runs["numpy"].append(ours(component, shape, "numpy"))
    base = states / statistics.median(run.seconds for run in every[best])
    least = min(every[name][0].memory for name in every)
    print(
        f"{component} {shape.cpus}x{shape.tasks}x{shape.vcpus}, {states:,} states, {rounds} rounds; {best} is the best"
    )
    for name, taken in every.items():
        print(shown(name, taken, None))
    for engine in engines:
        print(shown(f"fpstate {engine}", runs[engine], base))
    broken = []
    for engine, promised in (("numpy", NUMPY_OVER_SPIN), ("compiled", COMPILED_OVER_SPIN)):
        if states / statistics.median(run.seconds for run in runs[engine]) < promised * base:
            broken.append(f"{engine} is not {promised:.0f} x Spin")
        if max(run.memory for run in runs[engine]) > least:
            broken.append(f"{engine} takes more memory than Spin's {least:.0f} MiB")
    return broken


def large(component: str) -> list[str]:
    """Visit the large model, reductions on, print what it took, and return the promises that do not hold."""
    started = time.perf_counter()
    run = ours(component, LARGE, "reduced")
    wall = time.perf_counter() - started
    print(
        f"{component} {LARGE.cpus}x{LARGE.tasks}x{LARGE.vcpus}, reductions on: {run.states:,} states,"
        f" {run.seconds:.0f} s of CPU time, {wall:.0f} s in all, {run.memory:.0f} MiB"
    )
    late, big = wall > LARGE_SECONDS, run.memory > LARGE_MEMORY
    return [f"{component}: the large model takes too much time or memory"] if late or big else []


def parsed(text: str) -> Shape:
    """Return the shape that is written CPUSxTASKSxVCPUS."""
    cpus, tasks, vcpus = map(int, text.split("x"))
    return Shape(cpus, tasks, vcpus)


def main() -> int:
    """Measure and print; exit 1 if a promise is broken."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], parsed(sys.argv[3]), sys.argv[4])
        return 0
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    component = sys.argv[2] if len(sys.argv) > 2 else "user"
    shape = parsed(sys.argv[3]) if len(sys.argv) > 3 else Shape(2, 3, 1)
    missing = [name for name in ("spin", "gcc") if shutil.which(name) is None]
    if missing:
        print(f"no comparison: {' and '.join(missing)} missing")
        return 0
    version = subprocess.run(["spin", "-V"], check=True, capture_output=True, text=True).stdout.strip()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {version}")
    print("CPU seconds: median (minimum to maximum); states a second; most memory of the process; one core")
    broken = compare(component, shape, rounds)
    for name in ("cet-kernel", "user"):
        broken += large(name)
    for promise in broken:
        print(f"BROKEN: {promise}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
