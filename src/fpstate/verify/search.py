"""Exhaustive search: breadth first over every state that can be reached, a block of states at a time, with NumPy.

A state is the index of its control state and, packed, the data in the places that matter there (`Skeleton`).  The
visited states are sorted runs, merged as they grow; a run that does not fit the memory allowed lies in a file that is
mapped.  The run that leads to the first state in which a property is broken is a shortest one.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from fpstate.verify.columns import Columns, Masks
from fpstate.verify.model import Check, Command, Model
from fpstate.verify.packing import WORD, Packing, States
from fpstate.verify.skeleton import Skeleton, sorted_distinct
from fpstate.verify.symmetry import renamings

__all__ = ["Broken", "Engine", "Found", "Limits", "Run", "command_of", "search"]

Engine = Literal["auto", "numpy", "compiled"]
_BLOCK: Final = 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a search may take.

    Attributes:
        states: the most states to visit; None for any number.
        memory: bytes of visited states that stay in memory; what is more lies in a temporary file.
        symmetry: of states that differ in the names of like CPUs and tasks, visit one.
        liveness: of states that differ in places whose content nobody will read, visit one.
        stop: end with the first level on which a property is broken; else go on, past what is broken, to the rest.
    """

    states: int | None = None
    memory: int = 1 << 30
    symmetry: bool = True
    liveness: bool = True
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the model from its initial state: the commands taken, and the states after each.

    Attributes:
        commands: in order; the last may be one that a check stops on its way.
        states: one more than the completed commands, the initial one first.
    """

    commands: tuple[Command, ...]
    states: tuple[dict[str, int], ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A property that does not hold, and a shortest run that breaks it."""

    property: str
    run: Run


@dataclass(slots=True)
class Found:
    """What a search found out.

    Attributes:
        states: visited.
        edges: successors computed.
        depth: levels below the initial state.
        seconds: taken.
        complete: every reachable state was visited.
        broken: one entry a claim that is broken, at its least depth.
        memory: most bytes of visited states at a time, in memory or mapped.
        control: control states.
    """

    states: int = 0
    edges: int = 0
    depth: int = 0
    seconds: float = 0.0
    complete: bool = False
    broken: list[Broken] = field(default_factory=list)
    memory: int = 0
    control: int = 0


class _Visited:
    """The states seen so far: sorted runs, each more than twice as long as the next."""

    def __init__(self, memory: int) -> None:
        self.runs: list[States] = []
        self.allowed = memory
        self.most = 0
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.files = 0

    def add(self, run: States) -> None:
        """Add a sorted run of new states."""
        while self.runs and len(self.runs[-1]) < 2 * len(run):
            run = _merge(self.runs.pop(), run)
        self.runs.append(self._place(run))
        self.most = max(self.most, sum(r.nbytes for r in self.runs))

    def _place(self, run: States) -> States:
        if sum(r.nbytes for r in self.runs if not isinstance(r, np.memmap)) + run.nbytes <= self.allowed:
            return run
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="fpstate-")
        self.files += 1
        path = Path(self.folder.name) / f"run{self.files}"
        mapped: States = np.memmap(path, np.uint64, "w+", shape=run.shape)
        mapped[:] = run
        path.unlink()  # the mapping keeps it
        return mapped

    def new(self, candidates: States) -> States:
        """Return those of the sorted *candidates* that were not seen."""
        for run in self.runs:
            if not len(candidates):
                break
            at = np.searchsorted(run, candidates)
            at[at == len(run)] = 0
            candidates = candidates[run[at] != candidates]
        return candidates

    def close(self) -> None:
        """Let go of the files."""
        self.runs.clear()
        if self.folder is not None:
            self.folder.cleanup()


def _merge(first: States, second: States) -> States:
    both = np.concatenate([first, second])
    both.sort(kind="stable")  # two sorted runs: one pass
    return both


class _States:
    """How states are numbered: control index above, data below; dead places empty, one of each orbit."""

    def __init__(self, model: Model, skeleton: Skeleton, limits: Limits) -> None:
        self.model, self.skeleton = model, skeleton
        control_bits = max(1, (len(skeleton.states) - 1).bit_length())
        self.data = Packing([v for v in model.variables if v.data], WORD - control_bits)
        self.shift = np.uint64(self.data.bits)
        self.mask = np.uint64((1 << self.data.bits) - 1)
        self.dead = None
        if limits.liveness and skeleton.data:
            self.dead = [
                (name, (skeleton.live >> np.uint32(i) & np.uint32(1)) == 0) for i, name in enumerate(skeleton.data)
            ]
        self.renamed = list(self._renamings()) if limits.symmetry else []

    def _renamings(self) -> Iterator[tuple[States, tuple[States, ...]]]:
        packing, states = self.skeleton.packing, self.skeleton.states
        codes = [group.codes(states) for group in packing.groups]
        for renaming in renamings(self.model):
            tables = renaming.tables(packing)
            renamed = sum((table[code] for table, code in zip(tables, codes, strict=True)), np.zeros(1, np.uint64))
            index = self.skeleton.index(np.broadcast_to(renamed, states.shape)).astype(np.uint64) << self.shift
            yield index, renaming.tables(self.data)

    def control(self, states: States) -> Any:
        """Return the indexes of the control states."""
        return (states >> self.shift).astype(np.int64)

    def number(self, values: dict[str, int]) -> int:
        """Return the number of a state, as it is."""
        index = int(self.skeleton.index(np.array([self.skeleton.packing.pack(values)], np.uint64))[0])
        return index << int(self.shift) | self.data.pack(values)

    def values(self, state: int) -> dict[str, int]:
        """Return the values of a state."""
        index, data = state >> int(self.shift), state & int(self.mask)
        return self.skeleton.packing.unpack(int(self.skeleton.states[index])) | self.data.unpack(data)

    def columns(self, states: States) -> tuple[Columns, Any]:
        """Return the columns of a block, and the function that gives the codes of its data groups."""
        index = self.control(states)
        packing = self.skeleton.packing
        control = [group.codes(self.skeleton.states[index]) for group in packing.groups]
        data = [group.codes(states & self.mask) for group in self.data.groups]

        def variable(name: str) -> Any:
            if name in self.data.places:
                return self.data.column(name, data)
            return packing.column(name, control)

        return Columns(len(states), variable), data

    def canonical(self, states: States) -> States:
        """Return for each state the one that is visited in its place."""
        if self.dead:
            index = self.control(states)
            codes = [group.codes(states & self.mask) for group in self.data.groups]
            for name, dead in self.dead:
                share = self.data.places[name].share_of_code[codes[self.data.group_of[name]]]
                states = states - np.where(dead[index], share, np.uint64(0))
        if not self.renamed:
            return states
        index = self.control(states)
        codes = [group.codes(states & self.mask) for group in self.data.groups]
        least = states
        for controls, tables in self.renamed:
            renamed = controls[index]
            for table, code in zip(tables, codes, strict=True):
                renamed = renamed + table[code]
            least = np.minimum(least, renamed)
        return least


class _Search:
    def __init__(self, model: Model, limits: Limits, progress: Callable[[Found], None] | None) -> None:
        self.model, self.limits, self.progress = model, limits, progress
        self.skeleton = Skeleton(model)
        self.numbers = _States(model, self.skeleton, limits)
        self.found = Found(control=len(self.skeleton.states))
        self.broken: dict[str, tuple[int, Command | None]] = {}
        self.ways: dict[str, Run] = {}
        data = self.numbers.data.places
        self.data_guards = [tuple(c for c in command.guard if self.skeleton.reads(c)) for command in model.commands]
        self.data_updates = [
            [(data[name], value) for name, value in command.updates.items() if name in data]
            for command in model.commands
        ]

    def run(self) -> Found:
        started = time.perf_counter()
        visited = _Visited(self.limits.memory)
        initial = np.array([self.numbers.number(self.model.initial)], np.uint64)
        frontier = self.numbers.canonical(initial)
        levels = [frontier]
        visited.add(frontier)
        self.found.states = 1
        try:
            while len(frontier):
                successors = self._level(frontier)
                self.found.seconds = time.perf_counter() - started
                for name in self.broken.keys() - self.ways.keys():
                    state, last = self.broken[name]
                    self.ways[name] = self._run_to(state, levels, last)
                if self.broken and self.limits.stop:
                    break
                frontier = visited.new(successors)
                if not len(frontier):
                    self.found.complete = True
                    break
                visited.add(frontier)
                levels.append(frontier)
                self.found.states += len(frontier)
                self.found.depth += 1
                if self.progress is not None:
                    self.progress(self.found)
                if self.limits.states is not None and self.found.states > self.limits.states:
                    break
        finally:
            self.found.memory = visited.most
            visited.close()
        self.found.broken = [Broken(name, self.ways[name]) for name in sorted(self.ways)]
        self.found.seconds = time.perf_counter() - started
        return self.found

    def _level(self, frontier: States) -> States:
        parts = []
        for start in range(0, len(frontier), _BLOCK):
            block = frontier[start : start + _BLOCK]
            columns, codes = self.numbers.columns(block)
            self._check(columns, block)
            reached = [states for _, _, states in self._taken(columns, codes, block)]
            if reached:
                successors = np.concatenate(reached)
                self.found.edges += len(successors)
                parts.append(sorted_distinct(self.numbers.canonical(sorted_distinct(successors))))
        return sorted_distinct(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)

    def _taken(self, columns: Columns, codes: Any, block: States) -> Iterator[tuple[Command, Any, States]]:
        """Yield (command, where in the sorted block it is taken, the states after it)."""
        index = self.numbers.control(block)
        low, high = int(index.min()), int(index.max())
        target = np.empty(high - low + 1, np.int64)
        masks = Masks(columns)
        for number, command in enumerate(self.model.commands):
            edges = self.skeleton.edges[number]
            first, last = np.searchsorted(edges.source, [low, high + 1])
            if first == last:
                continue
            target.fill(-1)
            target[edges.source[first:last] - low] = edges.target[first:last]
            after = target[index - low]
            possible = after >= 0
            guard = masks.of(self.data_guards[number])
            if guard is None:
                continue
            chosen = np.flatnonzero(possible & guard.view(bool))
            if not len(chosen):
                continue
            data = block[chosen] & self.numbers.mask
            for place, value in self.data_updates[number]:
                old = place.share_of_code[codes[self.numbers.data.group_of[place.name]][chosen]]
                new = columns.of(value)
                data = data + (place.share_of_value[new if isinstance(new, int) else new[chosen]] - old)
            yield command, chosen, (after[chosen].astype(np.uint64) << self.numbers.shift) + data

    def _check(self, columns: Columns, block: States) -> None:
        masks = Masks(columns)
        for check in self.model.checks:
            reached = masks.of(check.guard)
            if reached is not None:
                self._note(check.property, reached, columns.of(check.holds), block, check)
        for name, holds in self.model.invariants:
            self._note(name, np.ones(len(block), np.uint8), columns.of(holds), block, None)

    def _note(self, name: str, reached: Any, holds: Any, block: States, check: Check | None) -> None:
        if name in self.broken:
            return
        bad = reached & (1 - holds if isinstance(holds, int) else holds ^ 1)
        if bad.any():
            last = command_of(self.model, check) if check is not None else None
            self.broken[name] = (int(block[int(np.argmax(bad))]), last)

    # -- from levels to a run ------------------------------------------------------------------------------------------

    def _run_to(self, state: int, levels: list[States], last: Command | None) -> Run:
        """Return a run to *state*, each step as its CPUs and tasks are really called, and *last* behind it.

        The levels hold one state of each orbit.  The states on the way are found backwards; then the run is made
        forwards, from the initial state as it is.  *last* is called as it would be in the state that was found.
        """
        way = [state]
        depth = next(i for i, level in enumerate(levels) if _contains(level, state))
        for level in reversed(levels[:depth]):
            way.append(self._predecessor(way[-1], level))
        now = self.numbers.number(self.model.initial)
        commands, states = [], [self.numbers.values(now)]
        for goal in reversed(way[:-1]):
            command, now = self._towards(now, goal)
            commands.append(command)
            states.append(self.numbers.values(now))
        if last is not None:
            commands.append(self._alike(last, now))
        return Run(tuple(commands), tuple(states))

    def _predecessor(self, state: int, level: States) -> int:
        for start in range(0, len(level), _BLOCK):
            block = level[start : start + _BLOCK]
            columns, codes = self.numbers.columns(block)
            for _, chosen, states in self._taken(columns, codes, block):
                hit = np.flatnonzero(self.numbers.canonical(states) == np.uint64(state))
                if len(hit):
                    return int(block[chosen[hit[0]]])
        raise AssertionError("a state on a level has no predecessor on the level before")

    def _towards(self, state: int, goal: int) -> tuple[Command, int]:
        """Return a command from *state* to a state of the orbit of *goal*."""
        block = np.array([state], np.uint64)
        columns, codes = self.numbers.columns(block)
        for command, _, states in self._taken(columns, codes, block):
            if int(self.numbers.canonical(states)[0]) == goal:
                return command, int(states[0])
        raise AssertionError("no command leads on")

    def _alike(self, last: Command, state: int) -> Command:
        """Return the command that breaks the property in *state*: *last*, with the CPUs and tasks as they are there."""
        block = np.array([state], np.uint64)
        columns, _ = self.numbers.columns(block)
        masks = Masks(columns)
        for check in self.model.checks:
            reached = masks.of(check.guard)
            holds = columns.of(check.holds)
            if reached is not None and not (holds if isinstance(holds, int) else int(holds[0])):
                command = command_of(self.model, check)
                if command.step == last.step:
                    return command
        return last


def _contains(level: States, state: int) -> bool:
    at = int(np.searchsorted(level, np.uint64(state)))
    return at < len(level) and int(level[at]) == state


def command_of(model: Model, check: Check) -> Command:
    """Return the command that goes as far as *check*, which lies on its way, or ends it."""
    ids = tuple(map(id, check.guard))
    for command in (*model.commands, *model.stopped):
        of_step = command.step == check.step and command.arguments == check.arguments
        if of_step and tuple(map(id, command.guard[: len(ids)])) == ids:
            return command
    raise AssertionError("a check lies on no command's way")


def search(
    model: Model,
    limits: Limits | None = None,
    progress: Callable[[Found], None] | None = None,
    engine: Engine = "auto",
) -> Found:
    """Visit every state of *model*, or as many as *limits* allow.

    Args:
        model: the transition system.
        limits: what the search may take.
        progress: called after every level.
        engine: ``"numpy"``; ``"compiled"``, which needs Numba; or what is there and fits the model.

    Raises:
        UsageError: a state does not fit into the words that the engine has for it.
    """
    limits = limits or Limits()
    if engine == "compiled" or (engine == "auto" and _worth_compiling(model)):
        from fpstate.verify.compiled import search_compiled  # noqa: PLC0415  it needs Numba

        return search_compiled(model, limits, progress, probe=engine == "auto")
    return _Search(model, limits, progress).run()


def _worth_compiling(model: Model) -> bool:
    """Tell whether the model is large enough for compiled code to pay, and whether that can be had."""
    return model.shape.cpus * model.shape.tasks > 1 and importlib.util.find_spec("numba") is not None
