"""Like CPUs and like tasks may change their names: what that makes of variables and of their values."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from fpstate.verify.model import Model
from fpstate.verify.packing import Packing, States

__all__ = ["Renaming", "renamings"]

_NAME: Final = re.compile(r"(cpu|task|guest)(\d+)(.*)")


@dataclass(frozen=True, slots=True)
class Renaming:
    """A permutation of CPUs, and one of tasks that leaves vCPU threads among themselves and the focus where it is."""

    cpus: tuple[int, ...]
    tasks: tuple[int, ...]

    def variable(self, name: str) -> str:
        """Return the name of the variable that *name* becomes."""
        match = _NAME.fullmatch(name)
        if match is None:
            return name
        kind, number, rest = match[1], int(match[2]), match[3]
        return f"{kind}{(self.cpus if kind == 'cpu' else self.tasks)[number]}{rest}"

    def value(self, name: str, value: int) -> int:
        """Return what *value* of variable *name* becomes: references are renamed, other values stay."""
        rest = name.partition(".")[2]
        if rest in {"curr", "fpregs_owner_ctx"}:
            return self.tasks[value - 1] + 1 if value else 0
        if rest == "last_cpu":
            return self.cpus[value - 1] + 1 if value else 0
        return value

    def tables(self, packing: Packing) -> tuple[States, ...]:
        """Return for each group of *packing*, by its code, what it adds to the renamed state."""
        tables = []
        for group in packing.groups:
            table = np.zeros(1 << group.bits, np.uint64)
            for place in group.places:
                target = packing.places[self.variable(place.name)]
                by_value = np.zeros(max(place.values) + 1, np.uint64)
                for value in place.values:
                    by_value[value] = target.share_of_value[self.value(place.name, value)]
                table += by_value[place.value_of_code]
            tables.append(table)
        return tuple(tables)


def renamings(model: Model) -> Iterator[Renaming]:
    """Yield every renaming but the identity."""
    shape = model.shape
    focus = int(model.focus.removeprefix("task").removeprefix("guest"))
    plain = range(shape.vcpus, shape.tasks)
    for cpus in itertools.permutations(range(shape.cpus)):
        for first in itertools.permutations(range(shape.vcpus)):
            for second in itertools.permutations(plain):
                tasks = first + second
                identity = cpus == tuple(range(shape.cpus)) and tasks == tuple(range(shape.tasks))
                if not identity and tasks[focus] == focus:
                    yield Renaming(cpus, tasks)
