"""What the kernel thinks, without whose value is where: the graph of the control variables, and what matters in it.

Control states are few.  Their graph, with every guard about data taken to hold, has every way that the full model has;
so a place whose content nothing reads before it is overwritten, on every way through the graph, is dead: states that
differ only there behave alike, and the search keeps one of them.  That is a liveness analysis as compilers do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fpstate.errors import UsageError
from fpstate.verify.columns import Columns, Masks
from fpstate.verify.expr import Expr, variables
from fpstate.verify.model import Command, Model
from fpstate.verify.packing import Packing, States

__all__ = ["Skeleton", "sorted_distinct"]

_BLOCK: Final = 1 << 15
_MOST: Final = 60_000_000
Indexes = npt.NDArray[np.int64]


@dataclass(slots=True)
class Edges:
    """Where one command leads: from each control state at which it may be taken, ascending, to the next."""

    source: Indexes
    target: Indexes


class Skeleton:
    """The reachable control states of a model.

    Attributes:
        packing: of the control variables.
        states: the control states, ascending.
        edges: for each command of the model.
        live: for each control state the set of data variables that matter, a bit each in the order of `data`.
        data: names of the data variables.

    Raises:
        UsageError: a control variable depends on data, or there are too many control states.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.data = tuple(v.name for v in model.variables if v.data)
        self._bit = {name: 1 << i for i, name in enumerate(self.data)}
        self.packing = Packing([v for v in model.variables if not v.data])
        self._guards = [self._control(command.guard) for command in model.commands]
        self._updates = [self._control_updates(command) for command in model.commands]
        self.states = self._reach()
        self.edges = self._connect()
        self.live = self._liveness()

    def index(self, states: States) -> Indexes:
        """Return the indexes of control states, all of which are reachable."""
        return np.searchsorted(self.states, states)

    def reads(self, e: Expr) -> int:
        """Return the data variables in *e*."""
        return sum(self._bit.get(name, 0) for name in variables(e))

    def _reads_all(self, guard: tuple[Expr, ...]) -> int:
        found = 0
        for condition in guard:
            found |= self.reads(condition)
        return found

    def _control(self, guard: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(condition for condition in guard if not self.reads(condition))

    def _control_updates(self, command: Command) -> dict[str, Expr]:
        updates = {name: value for name, value in command.updates.items() if name not in self._bit}
        for name, value in updates.items():
            if self.reads(value):
                raise UsageError(f"step {command.step} makes {name} depend on data")
        return updates

    def columns(self, states: States) -> Columns:
        """Return the columns of a block of control states."""
        codes = [group.codes(states) for group in self.packing.groups]
        return Columns(len(states), lambda name: self.packing.column(name, codes))

    # -- reachable control states ----------------------------------------------------------------------------------

    def _reach(self) -> States:
        seen = frontier = np.array([self.packing.pack(self.model.initial)], np.uint64)
        while len(frontier):
            parts = [
                np.unique(targets)
                for start in range(0, len(frontier), _BLOCK)
                for _, _, targets in self._taken(frontier[start : start + _BLOCK])
            ]
            reached = sorted_distinct(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)
            at = np.searchsorted(seen, reached)
            at[at == len(seen)] = 0
            frontier = reached[seen[at] != reached]
            seen = sorted_distinct(np.concatenate([seen, frontier]))
            if len(seen) > _MOST:
                raise UsageError(f"more than {_MOST} control states", cure="verify fewer CPUs, tasks or vCPUs")
        return seen

    def _taken(self, block: States) -> Any:
        """Yield (command's number, where in the block it may be taken, the states after it)."""
        columns = self.columns(block)
        masks = Masks(columns)
        for number, guard in enumerate(self._guards):
            enabled = masks.of(guard)
            if enabled is None:
                continue
            chosen = np.flatnonzero(enabled)
            targets = block[chosen]
            for name, value in self._updates[number].items():
                place = self.packing.places[name]
                new = columns.of(value)
                new = place.share_of_value[new] if isinstance(new, int) else place.share_of_value[new[chosen]]
                targets = targets + (new - place.share_of_value[self._column(columns, name)[chosen]])
            yield number, chosen, targets

    @staticmethod
    def _column(columns: Columns, name: str) -> Any:
        return columns._variable(name)  # noqa: SLF001

    def _connect(self) -> list[Edges]:
        sources: list[list[Indexes]] = [[] for _ in self.model.commands]
        targets: list[list[Indexes]] = [[] for _ in self.model.commands]
        for start in range(0, len(self.states), _BLOCK):
            for number, chosen, reached in self._taken(self.states[start : start + _BLOCK]):
                sources[number].append(chosen + start)
                targets[number].append(self.index(reached))
        empty = np.zeros(0, np.int64)
        return [
            Edges(np.concatenate([empty, *s]), np.concatenate([empty, *t]))
            for s, t in zip(sources, targets, strict=True)
        ]

    # -- liveness ------------------------------------------------------------------------------------------------------

    def _liveness(self) -> npt.NDArray[np.uint32]:
        live = self._claimed()
        flows = [self._flow(command) for command in self.model.commands]
        for command, edges in zip(self.model.commands, self.edges, strict=True):
            live[edges.source] |= np.uint32(self._reads_all(command.guard))
        changed = True
        while changed:
            changed = False
            for flow, edges in zip(flows, self.edges, strict=True):
                if len(edges.source):
                    before = live[edges.source]
                    after = before | flow(live[edges.target])
                    if (after != before).any():
                        live[edges.source] = after
                        changed = True
        return live

    def _flow(self, command: Command) -> Any:
        """Return the function from what is live after *command* to what it makes live before it."""
        updates = {name: self.reads(value) for name, value in command.updates.items() if name in self._bit}
        kept = np.uint32(sum(bit for name, bit in self._bit.items() if name not in updates))
        reads = [(np.uint32(self._bit[name]), np.uint32(read)) for name, read in updates.items() if read]

        def flow(after: Any) -> Any:
            before = after & kept
            for bit, read in reads:
                before = before | np.where(after & bit, read, np.uint32(0))
            return before

        return flow

    def _claimed(self) -> npt.NDArray[np.uint32]:
        """Return what the checks and invariants read, in each control state."""
        live = np.zeros(len(self.states), np.uint32)
        for start in range(0, len(self.states), _BLOCK):
            block = self.states[start : start + _BLOCK]
            columns = self.columns(block)
            masks = Masks(columns)
            part = live[start : start + _BLOCK]
            for check in self.model.checks:
                reached = masks.of(self._control(check.guard))
                if reached is not None:
                    read = self._read(check.holds, columns)
                    read = read | np.uint32(self._reads_all(check.guard))
                    part |= np.where(reached, read, np.uint32(0))
            for _, holds in self.model.invariants:
                part |= self._read(holds, columns)
        return live

    def _read(self, e: Expr, columns: Columns) -> Any:
        """Return what evaluating *e* reads: of a choice that control decides, only the side that is taken."""
        everything = np.uint32(self.reads(e))
        if not everything:
            return everything
        if e.op == "where" and not self.reads(e.args[0]):
            taken = columns.of(e.args[0])
            return np.where(taken, self._read(e.args[1], columns), self._read(e.args[2], columns))
        if e.op in {"and", "or"} and e.boolean:
            for first, second in (e.args, reversed(e.args)):
                if not self.reads(first):
                    decides = columns.of(first) if e.op == "or" else columns.of(first) ^ 1
                    return np.where(decides, np.uint32(0), self._read(second, columns))
        if e.op == "eq" and e.args[1].op == "const":
            return self._read(e.args[0], columns)
        return everything


def sorted_distinct(states: States) -> States:
    """Return the states ascending, each once."""
    states = np.sort(states)
    return states[np.concatenate([[True], states[1:] != states[:-1]])] if len(states) else states
