"""Cores: `fpstate decode` beside gdb, the array form beside a plain read, the start of the verb, a large core.

    python bench/decode.py [ROUNDS]

The cores are made here: 1,000 threads with every register of AVX-512 in use, in Intel's layout, which gdb 13 knows, and
one thread of a Zen 4.  Every round does each thing once, in turn, with bytecode compiled.
"""

from __future__ import annotations

import compileall
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import fpstate
from fpstate.sources.open import open_source

ROOT = pathlib.Path(__file__).parent.parent
THREADS = 1000
OVER_GDB, ARRAYS_MS, OF_A_READ, START_MS, OPEN_MS = 20.0, 5.0, 10.0, 60.0, 300.0
"""What was promised: times as fast as gdb; milliseconds of the array form, and times a read of the same bytes;
milliseconds of CPU over a bare interpreter; milliseconds to open a core of 1 GB."""
PYTHON = [sys.executable, "-m", "fpstate", "decode"]


def make_cores(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Write the cores, and return them by name."""
    sys.path.insert(0, str(ROOT / "tests"))
    import elfcores as cores  # noqa: PLC0415  the tests' own maker of cores

    values = {f"zmm{i}": bytes([i + 1]) * 64 for i in range(32)} | {f"k{i}": bytes([i + 1]) * 8 for i in range(8)}
    made = {
        "many": cores.many(THREADS, cores.image(values, "ice-lake"), extra=cores.layout_of("ice-lake")),
        "one": cores.many(1, cores.image(values), extra=cores.layout_of()),
        "one, no note": cores.many(1, cores.image(values)),
    }
    found = {}
    for name, data in made.items():
        found[name] = folder / f"{name}.core"
        found[name].write_bytes(data)
    found["large"] = folder / "large.core"
    shutil.copyfile(found["one"], found["large"])
    os.truncate(found["large"], 1 << 30)
    return found


def process(command: list[str]) -> Callable[[], tuple[float, float]]:
    """Return what runs *command* and returns its milliseconds: of the wall, of CPU."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def run() -> tuple[float, float]:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return 1000 * wall, 1000 * cpu

    return run


def inside(work: Callable[[], object]) -> Callable[[], tuple[float, float]]:
    """Return what does *work* in this process and returns its milliseconds, likewise."""

    def run() -> tuple[float, float]:
        cpu, start = time.process_time(), time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu)

    return run


def ways(cores: dict[str, pathlib.Path]) -> dict[str, Callable[[], tuple[float, float]]]:
    """Return what is measured, by the name that is printed."""
    many = cores["many"]
    at, size = note_segment(many)

    def read() -> bytes:
        with many.open("rb") as file:
            return os.pread(file.fileno(), size, at)

    def look() -> Any:
        return fpstate.decode(many).as_arrays().images.sum()

    found = {
        "python -c pass": process([sys.executable, "-c", "pass"]),
        "decode CORE, one thread": process([*PYTHON, str(cores["one"])]),
        "decode CORE, no layout note": process([*PYTHON, str(cores["one, no note"])]),
        f"decode CORE --json, {THREADS} threads": process([*PYTHON, str(many), "--json"]),
        "decode(CORE).as_arrays()": inside(lambda: fpstate.decode(many).as_arrays()),
        "the same, and a look at every byte": inside(look),
        "a read of its notes": inside(read),
        "open a core of 1 GB": inside(lambda: open_source(str(cores["large"])).threads[0]),
    }
    gdb = shutil.which("gdb")
    if gdb:
        script = ["-ex", f"core-file {many}", "-ex", "thread apply all info registers vector"]
        found["gdb, info registers vector"] = process([gdb, "-nx", "-batch", *script])
    return found


def note_segment(core: pathlib.Path) -> tuple[int, int]:
    """Return offset and bytes of the first segment of a core made here, its notes."""
    with core.open("rb") as file:
        head = os.pread(file.fileno(), 128, 0)
    return int.from_bytes(head[72:80], "little"), int.from_bytes(head[96:104], "little")


def broken_promises(wall: dict[str, float], cpu: dict[str, float]) -> list[str]:
    """Return the promises that do not hold, in words."""
    arrays, read = wall["decode(CORE).as_arrays()"], wall["a read of its notes"]
    start = cpu["decode CORE, one thread"] - cpu["python -c pass"]
    json = wall[f"decode CORE --json, {THREADS} threads"]
    kept = {
        f"the array form takes {arrays:.2f} ms (promised: {ARRAYS_MS:.0f})": arrays < ARRAYS_MS,
        f"the array form takes {arrays / read:.1f} x a read (promised: {OF_A_READ:.0f})": arrays < OF_A_READ * read,
        f"one thread takes {start:.1f} ms over bare (promised: {START_MS:.0f})": start < START_MS,
        f"1 GB opens in {wall['open a core of 1 GB']:.1f} ms (promised: {OPEN_MS:.0f})": wall["open a core of 1 GB"]
        < OPEN_MS,
    }
    gdb = wall.get("gdb, info registers vector")
    if gdb is not None:
        kept[f"JSON is {gdb / json:.1f} x as fast as gdb (promised: {OVER_GDB:.0f})"] = gdb > OVER_GDB * json
    for line in kept:
        print(line)
    return [line for line, holds in kept.items() if not holds]


def main() -> int:
    """Measure and print; exit 1 if a promise is broken."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    compileall.compile_dir(ROOT / "src", quiet=2)
    with tempfile.TemporaryDirectory() as folder:
        measured = ways(make_cores(pathlib.Path(folder)))
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
        for turn in range(rounds + 1):
            for name, work in measured.items():
                spent = work()
                if turn:  # the first round warms the page cache
                    taken[name].append(spent)
    wall = {name: statistics.median(w for w, _ in values) for name, values in taken.items()}
    cpu = {name: statistics.median(c for _, c in values) for name, values in taken.items()}
    print(f"{rounds} rounds, milliseconds: median of the wall (minimum to maximum), median of CPU")
    for name, values in taken.items():
        low, high = min(w for w, _ in values), max(w for w, _ in values)
        print(f"{name:38} {wall[name]:8.2f} ({low:.2f} to {high:.2f})  {cpu[name]:8.2f}")
    if "gdb, info registers vector" not in wall:
        print("no comparison with gdb: it is not installed")
    for promise in (broken := broken_promises(wall, cpu)):
        print(f"BROKEN: {promise}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
