"""Counts and sums by key: what does not depend on the order of rows, and so not on how a recording was cut.

The grouping is Arrow's (``pyarrow.Table.group_by``), which hashes; sorting a million keys takes longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fpstate.errors import CannotTell

try:
    import pyarrow as pa
except ImportError as missing:
    raise CannotTell("this needs PyArrow, which is missing", cure="pip install 'fpstate[trace]'") from missing

__all__ = ["Columns", "Tally"]

Columns: TypeAlias = Mapping[str, NDArray[Any]]

_HOW: Final = {"n": "sum", "ns": "sum", "first": "min", "last": "max"}
"""The columns of values, and what is made of two of the same key."""

_FEW: Final = 1 << 15


class Tally:
    """A table with one row for each key.

    Args:
        keys: the names of the key columns.
        values: the names of the columns of values, each uint64: ``n`` and ``ns`` are added up, of ``first`` the least
            and of ``last`` the greatest is kept.
    """

    def __init__(self, keys: tuple[str, ...], values: tuple[str, ...] = ("n",)) -> None:
        self.keys, self.values = keys, values
        self._table: Any = None
        self._further: list[Any] = []
        """Tables that are not taken into the one as yet: each time that is done, all of it is hashed again."""

    def __len__(self) -> int:
        return 0 if (table := self._whole()) is None else int(table.num_rows)

    @property
    def bound(self) -> int:
        """A number of rows that it has at most, at no cost."""
        return sum(table.num_rows for table in (self._table, *self._further) if table is not None)

    def add(self, columns: Columns) -> None:
        """Take in rows; ``n`` is 1 where *columns* has none."""
        rows = len(columns[self.keys[0]])
        if rows:
            given = {"n": np.ones(rows, np.uint64), **columns}
            self._take(self._grouped(pa.table({name: given[name] for name in (*self.keys, *self.values)})))

    def join(self, other: Self) -> None:
        """Take in the rows of another."""
        if (table := other._whole()) is not None:
            self._take(table)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name, the rows in ascending order of their keys."""
        if (table := self._whole()) is None:
            return {name: np.zeros(0, np.uint64) for name in (*self.keys, *self.values)}
        ordered = table.sort_by([(name, "ascending") for name in self.keys])
        return {name: ordered.column(name).to_numpy() for name in (*self.keys, *self.values)}

    def replace(self, columns: Columns) -> None:
        """Put other rows in the place of all: several may have the same key."""
        self._table, self._further = None, []
        self.add(columns)

    def _take(self, table: Any) -> None:
        self._further.append(table)
        further = sum(table.num_rows for table in self._further)
        if further > max(_FEW, 0 if self._table is None else self._table.num_rows):
            self._whole()

    def _whole(self) -> Any:
        """Return all rows in one table, or None."""
        if self._further:
            tables = [*([] if self._table is None else [self._table]), *self._further]
            self._table = self._grouped(pa.concat_tables(tables)) if len(tables) > 1 else tables[0]
            self._further = []
        return self._table

    def _grouped(self, table: Any) -> Any:
        made = table.group_by(list(self.keys), use_threads=False).aggregate([(v, _HOW[v]) for v in self.values])
        return made.rename_columns({f"{v}_{_HOW[v]}": v for v in self.values}).select([*self.keys, *self.values])
