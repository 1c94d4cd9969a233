"""What can be asked of the verifier: a shape, assumptions, a method.  Light to import: kept verdicts need no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from fpstate.errors import UsageError
from fpstate.linux.kernel import Kernel
from fpstate.linux.steps import Assumptions

__all__ = ["DEFAULT_SHAPE", "METHODS", "Method", "Options", "Shape"]

Method = Literal["proof", "induction", "exhaustive", "both"]
METHODS: Final = ("proof", "induction", "exhaustive", "both")


@dataclass(frozen=True, slots=True)
class Shape:
    """How many of each: the first *vcpus* tasks may have a vCPU.

    Attributes:
        open: there may be more of them, which are named but not looked at.

    Raises:
        UsageError: there is no CPU or no task, or more vCPUs than tasks.
    """

    cpus: int
    tasks: int
    vcpus: int
    open: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.vcpus <= self.tasks or min(self.cpus, self.tasks) < 1:
            raise UsageError("there must be at least one CPU and one task, and no more vCPUs than tasks")

    @property
    def contexts(self) -> int:
        """Tasks and guests."""
        return self.tasks + self.vcpus

    def foci(self) -> tuple[str, ...]:
        """Return one context of each kind: a vCPU's thread, its guest, and a task without a vCPU."""
        vcpu = ("task0", "guest0") if self.vcpus else ()
        return vcpu + ((f"task{self.vcpus}",) if self.tasks > self.vcpus else ())


DEFAULT_SHAPE: Final = Shape(2, 3, 1)
"""What is visited if nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to verify.

    Attributes:
        shape: what the exhaustive search visits.
        assumptions: what is taken for granted.
        method: ``"proof"``, by induction and nothing else; ``"induction"``, followed by a search where it fails;
            ``"exhaustive"``; or ``"both"``.
        kernel: a bug of history is a class of its own.
        classes: names of the component classes to look at, None for all.
        cached: outcomes are kept on disk, and taken from there.
    """

    shape: Shape = DEFAULT_SHAPE
    assumptions: Assumptions = field(default_factory=Assumptions)
    method: Method = "both"
    kernel: type[Kernel] = Kernel
    classes: tuple[str, ...] | None = None
    cached: bool = False
