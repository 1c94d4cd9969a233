"""Variables as one number: groups of mixed radix, a group in as many bits as its values need.

Three tags of ten values take 10 bits, not 12.  The number of a state is a sum of products, so that a command adds
differences to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2, prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fpstate.errors import UsageError
from fpstate.verify.model import Variable

__all__ = ["WORD", "Group", "Packing", "Place", "States"]

WORD: Final = 64
_GROUP_BITS: Final = 12
States = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Place:
    """Where a variable is: ``state >> shift & mask``, divided by *stride*, modulo *size*, is the index of its value."""

    name: str
    values: tuple[int, ...]
    shift: int
    mask: int
    stride: int

    @property
    def size(self) -> int:
        """How many values it has."""
        return len(self.values)

    @property
    def unit(self) -> int:
        """What the state grows by from one value to the next."""
        return self.stride << self.shift

    @cached_property
    def value_of_code(self) -> npt.NDArray[np.uint8]:
        """The value, by the group's code."""
        codes = np.arange(self.mask + 1) // self.stride % self.size
        return np.array(self.values, np.uint8)[codes]

    @cached_property
    def share_of_code(self) -> States:
        """What the variable adds to the state, by the group's code."""
        codes = np.arange(self.mask + 1) // self.stride % self.size
        return codes.astype(np.uint64) * np.uint64(self.unit)

    @cached_property
    def share_of_value(self) -> States:
        """What the variable adds to the state, by its value."""
        table = np.zeros(max(self.values) + 1, np.uint64)
        for index, value in enumerate(self.values):
            table[value] = index * self.unit
        return table


@dataclass(frozen=True, slots=True)
class Group:
    """Variables that share a run of bits."""

    places: tuple[Place, ...]
    shift: int
    bits: int

    def codes(self, states: States) -> npt.NDArray[np.uint16]:
        """Return the group's part of each state."""
        return (states >> np.uint64(self.shift) & np.uint64((1 << self.bits) - 1)).astype(np.uint16)


class Packing:
    """How some variables are packed.

    Raises:
        UsageError: they need more than *room* bits.
    """

    def __init__(self, variables: Sequence[Variable], room: int = WORD) -> None:
        self.groups = tuple(_groups(variables))
        self.places = {place.name: place for group in self.groups for place in group.places}
        self.group_of = {place.name: i for i, group in enumerate(self.groups) for place in group.places}
        self.bits = self.groups[-1].shift + self.groups[-1].bits if self.groups else 0
        if self.bits > room:
            raise UsageError(
                f"a state of this model takes {self.bits} bits of the {room} that this search has for it",
                cure="verify fewer CPUs, tasks or vCPUs",
            )

    def pack(self, values: Mapping[str, int]) -> int:
        """Return the number of a state."""
        return sum(place.values.index(values[name]) * place.unit for name, place in self.places.items())

    def unpack(self, state: int) -> dict[str, int]:
        """Return the values of a state."""
        return {
            name: place.values[(state >> place.shift & place.mask) // place.stride % place.size]
            for name, place in self.places.items()
        }

    def column(self, name: str, codes: Sequence[Any]) -> npt.NDArray[np.uint8]:
        """Return the values of a variable, given the codes of every group."""
        column: npt.NDArray[np.uint8] = self.places[name].value_of_code[codes[self.group_of[name]]]
        return column


def _groups(variables: Sequence[Variable]) -> Iterator[Group]:
    """Put variables of like sizes together, as many as fit a group, where that wastes the fewest bits."""
    shift = 0
    waiting = sorted(variables, key=lambda v: (v.size, v.name))
    while waiting:
        fitting = [n for n in range(1, len(waiting) + 1) if n == 1 or _bits(waiting[:n]) <= _GROUP_BITS]
        best = min(fitting, key=lambda n: (_waste(waiting[:n]), -n))
        members, waiting = waiting[:best], waiting[best:]
        bits = _bits(members)
        places, stride = [], 1
        for member in members:
            places.append(Place(member.name, member.values, shift, (1 << bits) - 1, stride))
            stride *= member.size
        yield Group(tuple(places), shift, bits)
        shift += bits


def _bits(members: Sequence[Variable]) -> int:
    return (prod(member.size for member in members) - 1).bit_length()


def _waste(members: Sequence[Variable]) -> float:
    """Return the bits that a variable of this group wastes on average."""
    return (_bits(members) - log2(prod(member.size for member in members))) / len(members)
