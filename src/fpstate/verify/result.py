"""What comes of checking a model, in plain values: they are kept on disk, and sent from one process to another."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from fpstate.verify.question import Shape

__all__ = ["Failure", "Outcome", "Run", "Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken: its name, and its CPUs and tasks by parameter."""

    step: str
    arguments: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the model from its initial state.

    Attributes:
        steps: in order; the last may be one on whose way a property is broken.
        states: after each completed step, the initial one first.
    """

    steps: tuple[Taken, ...]
    states: tuple[dict[str, int], ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """Where the induction does not go through.

    Attributes:
        clause: the clause, or the property, that fails.
        step: the step after which, or in which, it does; None at the start.
        state: a state that satisfies the invariant, from which the step leads to the failure.
    """

    clause: str
    step: Taken | None
    state: dict[str, int]


@dataclass(slots=True)
class Outcome:
    """What came of one model.

    Attributes:
        proven: by induction, for any number of CPUs, tasks and vCPUs.
        failures: where the induction failed.
        states, memory: visited, and the most bytes that they took.
        complete: every state was visited.
        smaller: the shape in which they were, if not in that asked for.
        broken: a shortest run for each claim that is broken.
        seconds: taken.
    """

    proven: bool = False
    failures: list[Failure] = field(default_factory=list)
    states: int = 0
    memory: int = 0
    complete: bool = False
    smaller: Shape | None = None
    broken: dict[str, Run] = field(default_factory=dict)
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def of_plain(cls, found: dict[str, Any]) -> Outcome:
        """Return what `plain` was made of.

        Raises:
            KeyError, TypeError, ValueError: *found* is nothing that `plain` makes.
        """
        failures = [Failure(f["clause"], _taken(f["step"]), f["state"]) for f in found["failures"]]
        broken = {
            claim: Run(tuple(t for step in run["steps"] if (t := _taken(step))), tuple(run["states"]))
            for claim, run in found["broken"].items()
        }
        smaller = Shape(**found["smaller"]) if found["smaller"] else None
        return cls(**{**found, "failures": failures, "broken": broken, "smaller": smaller})


def _taken(found: dict[str, Any] | None) -> Taken | None:
    if found is None:
        return None
    return Taken(str(found["step"]), tuple((str(name), int(number)) for name, number in found["arguments"]))
