"""Which places matter, for models whose control states are too many to list: guessed from a smaller model, and checked.

Whether a place's content matters is taken to depend on its *view*: the fields of the CPU, task and guest that it
belongs to, and of those which these refer to.  The views of a smaller model, whose liveness is known, say what matters;
a search checks on every step that what it left out is not read, which alone makes it sound, and a guess that does not
hold is mended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fpstate.verify.expr import FALSE, Expr, as_expr, var, where
from fpstate.verify.invariants import invariants
from fpstate.verify.model import Model, Shape, build
from fpstate.verify.skeleton import Skeleton

__all__ = ["View", "learned", "smaller", "views"]

_MOST_BITS: Final = 26
_MOST_PLACES: Final = 14
Part = tuple[Expr, int]


@dataclass(frozen=True, slots=True)
class View:
    """What a place sees.

    Attributes:
        name: of the place.
        kind: places of one kind share what is known.
        parts: expressions, with the bits that each takes.
    """

    name: str
    kind: str
    parts: tuple[Part, ...]

    @property
    def bits(self) -> int:
        """Bits of a view's number."""
        return sum(bits for _, bits in self.parts)


class _Maker:
    def __init__(self, model: Model, fields: dict[str, dict[str, int]]) -> None:
        self.shape, self.fields = model.shape, fields
        self.focus = int(model.focus.removeprefix("task").removeprefix("guest"))
        self.guest = model.focus.startswith("guest")
        self.sizes = {v.name: max(v.values) + 1 for v in model.variables}

    def get(self, name: str) -> Expr:
        """Return a variable, or 0 if the model has none."""
        return var(name, self.sizes[name]) if name in self.sizes else FALSE

    def of_task(self, t: int) -> Iterator[Part]:
        """Yield the fields of a task, and of its guest."""
        for kind in ("task", "guest"):
            for name, bits in self.fields[kind].items():
                yield self.get(f"{kind}{t}.{name}"), bits

    def task(self, t: int) -> Iterator[Part]:
        """Yield what a place of a task or its guest sees."""
        yield from self.of_task(t)
        last, cpus = self.get(f"task{t}.last_cpu"), range(self.shape.cpus)
        here = [self.get(f"cpu{c}.curr") == t + 1 for c in cpus]
        owner = [self.get(f"cpu{c}.fpregs_owner_ctx") for c in cpus]
        for name, bits in self.fields["cpu"].items():
            yield _chosen(here, [self.get(f"cpu{c}.{name}") for c in cpus]), bits
        yield _chosen(here, [where(o == t + 1, 1, where(o == 0, 0, 2)) for o in owner]), 2
        was = [last == c + 1 for c in cpus]
        yield _chosen(was, [where(h, 1, 2) for h in here]), 2
        yield _chosen(was, [o == t + 1 for o in owner]), 1

    def cpu(self, c: int) -> Iterator[Part]:
        """Yield what a place of a CPU sees."""
        for name, bits in self.fields["cpu"].items():
            yield self.get(f"cpu{c}.{name}"), bits
        tasks = range(self.shape.tasks)
        here = [self.get(f"cpu{c}.curr") == t + 1 for t in tasks]
        own = [self.get(f"cpu{c}.fpregs_owner_ctx") == t + 1 for t in tasks]
        valid = [o & (self.get(f"task{t}.last_cpu") == c + 1) for t, o in zip(tasks, own, strict=True)]
        yield from self._one_of(here)
        yield _chosen(here, own), 1
        yield _chosen(here, valid), 1
        yield from self._one_of(valid)

    def _one_of(self, which: Sequence[Expr]) -> Iterator[Part]:
        yield _chosen(which, [as_expr(1)] * len(which)), 1
        yield which[self.focus], 1
        fields = [list(self.of_task(t)) for t in range(self.shape.tasks)]
        for part in zip(*fields, strict=True):
            yield _chosen(which, [e for e, _ in part]), part[0][1]


def _chosen(which: Sequence[Expr], values: Sequence[Any]) -> Expr:
    found: Expr = FALSE
    for condition, value in zip(which, values, strict=True):
        found = where(condition, value, found)
    return found


def _fields(*models: Model) -> dict[str, dict[str, int]]:
    """Return the control fields of each kind that any model has, but references, with their bits."""
    fields: dict[str, dict[str, int]] = {"cpu": {}, "task": {}, "guest": {}}
    for model in models:
        for variable in model.variables:
            holder, _, name = variable.name.partition(".")
            if variable.data or name in {"curr", "fpregs_owner_ctx", "last_cpu"}:
                continue
            kind = fields[holder.rstrip("0123456789")]
            kind[name] = max(kind.get(name, 0), max(variable.values).bit_length())
    return fields


def views(model: Model, *others: Model) -> list[View]:
    """Return the view of every place of *model*, alike for all these models."""
    maker = _Maker(model, _fields(model, *others))
    found = []
    for name in (v.name for v in model.variables if v.data):
        holder, _, rest = name.partition(".")
        kind = holder.rstrip("0123456789")
        if not rest:
            parts = maker.task(maker.focus)
        elif kind == "cpu":
            parts = maker.cpu(int(holder.removeprefix(kind)))
        else:
            parts = maker.task(int(holder.removeprefix(kind)))
            kind += " in focus" if int(holder.removeprefix(kind)) == maker.focus else ""
        found.append(View(name, f"{kind}.{rest}", tuple(parts)))
    return found


def learned(small: Model, large: Model) -> dict[str, npt.NDArray[np.uint8]]:
    """Return for each kind of place, by view, whether it matters in *small*, for *large* to begin with."""
    skeleton = Skeleton(small)
    tables = {view.kind: np.zeros(1 << view.bits, np.uint8) for view in views(large, small)}
    columns = skeleton.columns(skeleton.states)
    for bit, view in enumerate(views(small, large)):
        number = np.zeros(len(skeleton.states), np.int64)
        for e, bits in view.parts:
            number = number << bits | columns.of(e)
        live = (skeleton.live >> np.uint32(bit) & np.uint32(1)) != 0
        tables.setdefault(view.kind, np.zeros(1 << view.bits, np.uint8))[number[live]] = 1
    return tables


def smaller(model: Model) -> Model | None:
    """Return the same in a smaller shape, to learn from; None if there is none, or its views would be too many."""
    if not _few(views(model)):
        return None
    shape = model.shape
    number = int(model.focus.removeprefix("task").removeprefix("guest"))
    vcpus = min(2, shape.vcpus)
    if shape.tasks > vcpus:
        small = Shape(min(2, shape.cpus), min(shape.tasks, max(2, vcpus + 1)), vcpus)
    else:
        small = Shape(min(2, shape.cpus), vcpus, vcpus)
    kind = model.focus.rstrip("0123456789")
    focus = f"{kind}{0 if number < shape.vcpus else vcpus}"
    names = {name for name, _ in model.invariants}
    made = build(model.subject, small, focus, lambda w: (clause for clause in invariants(w) if clause[0] in names))
    return made if _few(views(model, made)) else None


def _few(seen: Sequence[View]) -> bool:
    """Tell whether tables can have a place for every view."""
    return len(seen) <= _MOST_PLACES and all(view.bits <= _MOST_BITS for view in seen)
