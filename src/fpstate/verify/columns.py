"""Expressions over a block of states: each is computed once, as an array of small numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from fpstate.verify.expr import Expr

__all__ = ["Columns", "Masks"]


class Columns:
    """Values of expressions over a block.

    Attributes:
        count: states of the block.
    """

    def __init__(self, count: int, variable: Callable[[str], Any]) -> None:
        self.count = count
        self._variable = variable
        self._values: dict[int, Any] = {}

    def of(self, e: Expr) -> Any:
        """Return the column of *e*: an array of uint8, or a number if it is constant."""
        key = id(e)
        if key not in self._values:
            self._values[key] = self._compute(e)
        return self._values[key]

    def _compute(self, e: Expr) -> Any:
        if e.op == "const":
            return e.args[0]
        if e.op == "var":
            return self._variable(e.args[0])
        args = [self.of(arg) for arg in e.args]
        if e.op == "where":
            return np.where(args[0].view(bool), *(np.uint8(a) if isinstance(a, int) else a for a in args[1:]))
        result = _OPERATIONS[e.op](*args)
        return result.view(np.uint8) if result.dtype == bool else result


_OPERATIONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "eq": lambda a, b: a == b,
    "lt": lambda a, b: a < b,
}


class Masks:
    """Where guards hold: the paths of a step begin alike, and what they share is computed once."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._masks: dict[tuple[int, ...], Any] = {}

    def of(self, guard: tuple[Expr, ...]) -> Any:
        """Return an array of 0 and 1, or None where it would be 0 throughout."""
        if not guard:
            return np.ones(self.columns.count, np.uint8)
        key = tuple(map(id, guard))
        if key not in self._masks:
            self._masks[key] = self._and(self.of(guard[:-1]), self.columns.of(guard[-1]))
        return self._masks[key]

    @staticmethod
    def _and(before: Any, last: Any) -> Any:
        if before is None or (isinstance(last, int) and not last):
            return None
        mask = before if isinstance(last, int) else before & last
        return mask if mask.any() else None
