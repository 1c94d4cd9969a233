"""Exhaustive search with compiled code: breadth first over every state that can be reached.

The successors of a block of states are found by code made for the model (`fpstate.verify.source`), and looked up and
added by Numba's (`fpstate.verify.table`).  Every state is kept as it is, in the order in which it was found, so that
the run to one in which a property is broken is found again backwards, a level at a time.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import llvmlite.binding as llvm
import numpy as np

from fpstate.verify.expr import evaluate
from fpstate.verify.model import Command, Model
from fpstate.verify.search import Broken, Found, Limits, Run, command_of
from fpstate.verify.source import Field, Flow, Layout, expander, layout, reader, viewer
from fpstate.verify.symmetry import renamings
from fpstate.verify.table import Numbers, Visited, Words, least, recently, settle
from fpstate.verify.views import learned, smaller, views

__all__ = ["search_compiled"]

_BLOCK: Final = 512
_FEW: Final = 150_000
"""States of a model that are visited as they are."""
_GROUP: Final = 8
"""Bits of a state that are renamed by one look into a table."""
Progress = Callable[[Found], None]
State = tuple[int, ...]


class _Code:
    """The code made for a model; the engine owns the memory that it lies in."""

    def __init__(self, text: str, name: str, arrays: int) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = llvm.parse_assembly(text)
        machine = llvm.Target.from_default_triple().create_target_machine(opt=0, cpu=llvm.get_host_cpu_name())
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * arrays, ctypes.c_int64)
        self._function = kind(self._engine.get_function_address(name))

    def __call__(self, count: int, *arrays: Any) -> int:
        """Call the function for *count* states."""
        return int(self._function(*(array.ctypes.data for array in arrays), count)) if count else 0


class _Symmetry:
    """Of the states that differ in names, the least."""

    def __init__(self, model: Model, place: Layout) -> None:
        self.words = place.words
        groups = list(_groups(place))
        found = list(renamings(model))
        self.tables = np.zeros((len(found), len(groups), 1 << _GROUP, 2), np.uint64)
        for renaming, table in zip(found, self.tables, strict=True):
            for group, part in zip(groups, table, strict=True):
                for code in range(1 << group.bits):
                    for f in group.fields:
                        target = place.fields[renaming.variable(f.name)]
                        value = renaming.value(f.name, min(code >> f.shift - group.shift & f.mask, _most(model, f)))
                        part[code, target.word] |= np.uint64(value << target.shift)
        self.word_of = np.array([group.fields[0].word for group in groups], np.int64)
        self.shifts = np.array([group.shift for group in groups], np.int64)
        self.sizes = np.array([(1 << group.bits) - 1 for group in groups], np.int64)

    def reduce(self, states: Words, count: int) -> None:
        """Put the least of each state's renamings in its place."""
        if len(self.tables):
            least(states, count, self.words, self.tables, self.word_of, self.shifts, self.sizes)


@dataclass(frozen=True, slots=True)
class _Group:
    """Fields that are renamed by one look into a table."""

    fields: tuple[Field, ...]
    shift: int
    bits: int


def _groups(place: Layout) -> Iterator[_Group]:
    waiting = list(place.fields.values())
    while waiting:
        first = waiting[0]
        fields = [f for f in waiting if f.word == first.word and _end(f) - first.shift <= _GROUP]
        waiting = waiting[len(fields) :]
        yield _Group(tuple(fields), first.shift, _end(fields[-1]) - first.shift)


def _end(f: Field) -> int:
    return f.shift + f.mask.bit_length()


def _most(model: Model, f: Field) -> int:
    """Return the greatest value of a reference: codes above it are of no state."""
    rest = f.name.partition(".")[2]
    if rest in {"curr", "fpregs_owner_ctx"}:
        return model.shape.tasks
    return model.shape.cpus if rest == "last_cpu" else f.mask


class _Liveness:
    """Which places matter: what is taken for granted, and the checks on it."""

    def __init__(self, model: Model, small: Model, place: Layout, flows: list[Flow]) -> None:
        self.place = place
        self.views = views(model, small)
        known = learned(small, model)
        self.starts, start = {}, 0
        for kind, table in known.items():
            self.starts[kind] = start
            start += len(table)
        self.tables = np.concatenate(list(known.values()))
        offsets = [self.starts[view.kind] for view in self.views]
        self._matter = _Code(viewer(place, [view.parts for view in self.views], offsets), "matter", 3)
        self._claimed = _Code(reader(model, place), "claimed", 2)
        self._kept = np.array([flow.kept for flow in flows], np.int64)
        most = max(1, *(len(flow.reads) for flow in flows))
        padded = [(*flow.reads, *[(0, 0)] * (most - len(flow.reads))) for flow in flows]
        self._written, self._reads = (
            np.array([[pair[side] for pair in row] for row in padded], np.int64) for side in (0, 1)
        )
        self._masks = self._keep()
        self._recent = recently()
        self._matters = np.zeros(_BLOCK * 64, np.int64)
        self._before, self._read, self._missing = (np.zeros(_BLOCK, np.int64) for _ in range(3))

    def _keep(self) -> Any:
        """Return for each set of places that matter the bits of a state that stay."""
        masks = np.zeros((1 << len(self.views), 2), np.uint64)
        masks[:] = np.uint64((1 << 64) - 1)
        sets = np.arange(1 << len(self.views))
        for bit, view in enumerate(self.views):
            f = self.place.fields[view.name]
            masks[(sets >> bit & 1) == 0, f.word] &= np.uint64(~(f.mask << f.shift) & ((1 << 64) - 1))
        return masks

    def begin(self, block: Words, count: int) -> None:
        """Find out what matters in the states of a block, and whether that is all they read."""
        self._matter(count, block, self._before, self.tables)
        self._claimed(count, block, self._read)
        self._missing[:count] = self._read[:count] & ~self._before[:count]

    def settle(self, out: Words, count: int, tags: Numbers) -> int:
        """Empty the places of successors that do not matter; return how many are left."""
        if count > len(self._matters):
            self._matters = np.zeros(2 * count, np.int64)
        self._matter(count, out, self._matters, self.tables)
        return settle(
            out,
            count,
            self.place.words,
            tags,
            self._matters,
            self._before,
            self._kept,
            self._written,
            self._reads,
            self._masks,
            self._recent,
            self._missing,
        )

    def mend(self, block: Words, count: int) -> bool:
        """Let what was missing matter from now on; tell whether anything was."""
        wrong = np.flatnonzero(self._missing[:count])
        for i in wrong:
            words = self.place.words
            values = self.place.unpack(tuple(int(w) for w in block[i * words : (i + 1) * words]))
            for bit, view in enumerate(self.views):
                if int(self._missing[i]) >> bit & 1:
                    number = 0
                    for e, bits in view.parts:
                        number = number << bits | evaluate(e, values)
                    self.tables[self.starts[view.kind] + number] = 1
        return bool(len(wrong))

    def forget(self) -> None:
        """Forget what came up lately."""
        self._recent.fill(0)

    def emptied(self, state: Words) -> None:
        """Empty the places of one state."""
        self._matter(1, state, self._matters, self.tables)
        state &= self._masks[self._matters[0], : self.place.words]


class _Machinery:
    """What is made once for a model, however often it is searched."""

    def __init__(self, model: Model, *, symmetry: bool, flows: bool) -> None:
        self.layout = layout(model.variables)
        self.claims = sorted({check.property for check in model.checks} | {name for name, _ in model.invariants})
        self.flows: list[Flow] | None = [] if flows else None
        self.code = _Code(expander(model, self.layout, self.claims, self.flows), "expand", 4)
        self.symmetry = _Symmetry(model, self.layout) if symmetry else None


class _Search:
    def __init__(
        self, model: Model, made: _Machinery, limits: Limits, progress: Progress | None, small: Model | None
    ) -> None:
        self.model, self.limits, self.progress = model, limits, progress
        self.layout, self.claims, self.code, self.symmetry = made.layout, made.claims, made.code, made.symmetry
        self.liveness = _Liveness(model, small, made.layout, made.flows) if made.flows and small is not None else None
        self.words = self.layout.words
        self.out = np.empty(_BLOCK * len(model.commands) * self.words, np.uint64)
        self.tags = np.empty(len(self.out) if made.flows else 0, np.int64)
        self.visited = Visited(self.words)
        self.levels: list[tuple[int, int]] = []
        self.found = Found()
        self.first: dict[str, tuple[State, int]] = {}
        self.mended = False

    def run(self) -> Found:
        """Return what was found, once nothing has turned out to matter that was left out."""
        started = time.perf_counter()
        while True:
            self._go()
            if not self.mended:
                break
            self.visited, self.levels, self.found, self.first = Visited(self.words), [], Found(), {}
            self.mended = False
        found = self.found
        found.broken = [Broken(name, self._run_to(name, way)) for name, way in sorted(self._ways().items())]
        found.seconds = time.perf_counter() - started
        return found

    def _go(self) -> None:
        """Visit level after level, from the initial state."""
        found = self.found
        if self.liveness is not None:
            self.liveness.forget()
        initial = np.array(self._canonical(self.model.initial), np.uint64)
        self.visited.add(initial, 1)
        begin, end = 0, 1
        started = time.perf_counter()
        while True:
            self.levels.append((begin, end))
            self._level(begin, end)
            if self.mended:
                break
            found.states, found.seconds = self.visited.count, time.perf_counter() - started
            found.memory = max(found.memory, self.visited.memory)
            begin, end = end, self.visited.count
            if begin == end:
                found.complete = not (self.first and self.limits.stop)
                break
            if self.first and self.limits.stop:
                found.states = begin
                break
            found.depth += 1
            if self.progress is not None:
                self.progress(found)
            if self.limits.states is not None and found.states > self.limits.states:
                break

    def _blocks(self, begin: int, end: int) -> Iterator[Words]:
        """Yield the states numbered *begin* to *end*, a block at a time."""
        first = 0
        number = 0
        while first < end:
            run = self.visited.run(number)
            count = len(run) // self.words
            at = max(0, begin - first)
            last = min(count, end - first)
            while at < last:
                size = min(_BLOCK, last - at)
                yield run[at * self.words : (at + size) * self.words]
                at += size
            first += count
            number += 1

    def _level(self, begin: int, end: int) -> None:
        broken = np.full(max(1, len(self.claims)), -1, np.int64)
        for block in self._blocks(begin, end):
            size = len(block) // self.words
            count = self.code(size, block, self.out, broken, self.tags)
            self.found.edges += count
            if (broken >= 0).any():
                self._note(block, broken)
            count = self._reduced(block, count)
            self.visited.add(self.out, count)

    def _reduced(self, block: Words, count: int) -> int:
        """Put what is visited in their place in place of the successors of a block; return how many there are."""
        if self.liveness is not None:
            size = len(block) // self.words
            self.liveness.begin(block, size)
            count = self.liveness.settle(self.out, count, self.tags)
            self.mended |= self.liveness.mend(block, size)
        if self.symmetry is not None:
            self.symmetry.reduce(self.out, count)
        return count

    def _canonical(self, values: Mapping[str, int]) -> State:
        """Return the state that is visited in place of one."""
        state = np.array(self.layout.pack(values), np.uint64)
        if self.liveness is not None:
            self.liveness.emptied(state)
        if self.symmetry is not None:
            self.symmetry.reduce(state, 1)
        return tuple(int(word) for word in state)

    def _note(self, block: Words, broken: Any) -> None:
        """Keep the first state that breaks a claim, with its level."""
        for number in np.flatnonzero(broken >= 0):
            at = int(broken[number]) * self.words
            state = tuple(int(word) for word in block[at : at + self.words])
            self.first.setdefault(self.claims[number], (state, len(self.levels) - 1))
        broken.fill(-1)

    # -- from levels to a run ------------------------------------------------------------------------------------------

    def _ways(self) -> dict[str, list[State]]:
        """Return for each claim that is broken the states on a shortest way to where it is, the last one first."""
        ways = {name: [state] for name, (state, _) in self.first.items()}
        for level in range(max((level for _, level in self.first.values()), default=0), 0, -1):
            through = [way for name, way in ways.items() if self.first[name][1] >= level]
            before = self._predecessors({way[-1] for way in through}, *self.levels[level - 1])
            for way in through:
                way.append(before[way[-1]])
        return ways

    def _run_to(self, name: str, way: list[State]) -> Run:
        """Return a run along *way*, and behind it the command that breaks the claim, if it does."""
        now = dict(self.model.initial)
        commands, states = [], [now]
        for goal in reversed(way[:-1]):
            command, now = self._towards(now, goal)
            commands.append(command)
            states.append(now)
        last = self._breaking(name, now)
        return Run(tuple(commands) if last is None else (*commands, last), tuple(states))

    def _predecessors(self, goals: set[State], begin: int, end: int) -> dict[State, State]:
        """Return for each of *goals* a state, of those numbered *begin* to *end*, from which it is one step away."""
        found: dict[State, State] = {}
        for block in self._blocks(begin, end):
            for goal in self._reached(block, goals - found.keys()):
                for i in range(0, len(block), self.words):
                    if self._reached(block[i : i + self.words], {goal}):
                        found[goal] = tuple(int(word) for word in block[i : i + self.words])
                        break
            if len(found) == len(goals):
                return found
        raise AssertionError("a state on a level has no predecessor on the level before")

    def _reached(self, block: Words, goals: set[State]) -> list[State]:
        """Return those of *goals* that are a step away from a state of a block."""
        if self.liveness is not None:
            self.liveness.forget()
        ignored = np.zeros(max(1, len(self.claims)), np.int64)
        count = self.code(len(block) // self.words, block, self.out, ignored, self.tags)
        count = self._reduced(block, count)
        reached = self.out[: count * self.words].reshape(count, self.words)
        return [goal for goal in goals if (reached == np.array(goal, np.uint64)).all(axis=1).any()]

    def _towards(self, now: dict[str, int], goal: State) -> tuple[Command, dict[str, int]]:
        """Return a command that leads to *goal*, and the state after it."""
        for command in self.model.commands:
            if all(evaluate(condition, now) for condition in command.guard):
                after = now | {name: evaluate(value, now) for name, value in command.updates.items()}
                if self._canonical(after) == goal:
                    return command, after
        raise AssertionError("no command leads on")

    def _breaking(self, name: str, now: Mapping[str, int]) -> Command | None:
        """Return the command on whose way the claim is broken in a state, or None if the state itself breaks it."""
        for check in self.model.checks:
            if check.property == name and all(evaluate(c, now) for c in check.guard) and not evaluate(check.holds, now):
                return command_of(self.model, check)
        return None


def search_compiled(model: Model, limits: Limits, progress: Progress | None = None, *, probe: bool = False) -> Found:
    """Visit every state of *model* with compiled code.

    Args:
        model: the transition system.
        limits: what the search may take.
        progress: called after every level.
        probe: visit a model of few states as it is, for to find out which places matter would take longer.

    Raises:
        UsageError: a state does not fit into two words.
    """
    reduces = limits.liveness and any(v.data for v in model.variables)
    made = _Machinery(model, symmetry=limits.symmetry, flows=reduces)
    if reduces and probe and (limits.states is None or limits.states > _FEW):
        found = _Search(model, made, replace(limits, states=_FEW), progress, None).run()
        if found.complete or (limits.stop and found.broken):
            return found
    return _Search(model, made, limits, progress, smaller(model) if reduces else None).run()
