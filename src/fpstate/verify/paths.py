"""Every path through a function of the kernel, by running it once a path over symbols.

The first run answers each question (`Expr.__bool__`) with yes; the runs after it go the ways not yet taken.  What was
answered is the guard of the path, so that no run is about a state that cannot ask its questions in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fpstate.errors import UsageError
from fpstate.verify.expr import ORACLE, Expr, negate

__all__ = ["MOST_DECISIONS", "Path", "explore"]

MOST_DECISIONS = 200
"""Questions on one path: more mean a loop that the state does not bound."""


@dataclass(slots=True)
class Path:
    """One way through: the answers given, in order.

    Attributes:
        guard: conditions that hold on it, each asked when those before it had been answered.
        known: what follows from them without asking.
    """

    ahead: list[bool] = field(default_factory=list)
    taken: list[bool] = field(default_factory=list)
    guard: list[Expr] = field(default_factory=list)
    known: dict[Expr, bool] = field(default_factory=dict)
    values: dict[Expr, int] = field(default_factory=dict)

    def decide(self, condition: Expr) -> bool:
        """Answer *condition*: by what is known, by the plan, or with yes."""
        answer = self.implies(condition)
        if answer is not None:
            return answer
        if len(self.taken) >= MOST_DECISIONS:
            raise UsageError("a step of the model asks too many questions on one path")
        answer = self.ahead[len(self.taken)] if len(self.taken) < len(self.ahead) else True
        self.taken.append(answer)
        self.assume(condition if answer else negate(condition))
        return answer

    def assume(self, condition: Expr) -> None:
        """Take *condition* for granted from here on."""
        self.guard.append(condition)
        self.known[condition] = True
        self.known[negate(condition)] = False
        if condition.op == "eq" and condition.args[0].op == "var" and condition.args[1].op == "const":
            self.values[condition.args[0]] = condition.args[1].args[0]

    def implies(self, condition: Expr) -> bool | None:
        """Return the truth of *condition* if it follows from what was asked before, else None."""
        if condition.op == "const":
            return bool(condition.args[0])
        if condition in self.known:
            return self.known[condition]
        if condition.op == "eq" and condition.args[1].op == "const":
            left, value = condition.args[0], condition.args[1].args[0]
            if left in self.values:
                return bool(self.values[left] == value)
            if value == 0 and left.op == "eq" and left.args[1].op == "const" and left.args[0] in self.values:
                return bool(self.values[left.args[0]] != left.args[1].args[0])
        return None


def explore(run: Callable[[Path], None]) -> Iterator[Path]:
    """Call *run* once for every path through it, and yield each path when its run is over."""
    pending: list[list[bool]] = [[]]
    while pending:
        path = Path(ahead=pending.pop())
        token = ORACLE.set(path)
        try:
            run(path)
        finally:
            ORACLE.reset(token)
        first_new = len(path.ahead)
        pending += [[*path.taken[:i], False] for i in range(first_new, len(path.taken))]
        yield path
