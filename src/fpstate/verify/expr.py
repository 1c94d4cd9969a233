"""Symbolic numbers: what the kernel's functions compute with while the verifier reads its rules out of them.

A `Expr` is an unsigned number of up to 64 bits, built from constants and state variables by ``&``, ``|``, ``^``,
comparison and `where`; a truth value is a number 0 or 1.  Nodes are shared and simplified as they are built, so that
masks and sizes fold away and what is left speaks of variables and small constants alone.

Asked for its truth, an `Expr` that is not constant asks the `Oracle` of the run: that is how plain ``if`` statements
of the kernel's functions are followed on every path (see `fpstate.verify.paths`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any, Final, Protocol

__all__ = [
    "FALSE",
    "ORACLE",
    "TRUE",
    "Expr",
    "Oracle",
    "as_expr",
    "const",
    "evaluate",
    "negate",
    "var",
    "variables",
    "where",
]

_ALL: Final = (1 << 64) - 1


class Oracle(Protocol):
    """Decides which way a path goes."""

    def decide(self, condition: Expr) -> bool:
        """Return the truth of *condition* on this path."""


ORACLE: ContextVar[Oracle] = ContextVar("ORACLE")
"""The oracle of the run in progress."""

_NODES: dict[tuple[Any, ...], Expr] = {}


class Expr:
    """One shared node.

    Attributes:
        op: ``const``, ``var``, ``and``, ``or``, ``xor``, ``eq``, ``lt`` or ``where``.
        args: the value of a constant; name and number of values of a variable; else the operands.
        boolean: it is 0 or 1.
        rank: puts operands in an order that depends on what they are alone, so that a model comes out the same in
            every process.
    """

    __slots__ = ("args", "boolean", "op", "rank")
    op: str
    args: tuple[Any, ...]
    boolean: bool
    rank: bytes

    def __and__(self, other: Any) -> Expr:
        return _apply("and", self, as_expr(other))

    def __or__(self, other: Any) -> Expr:
        return _apply("or", self, as_expr(other))

    def __xor__(self, other: Any) -> Expr:
        return _apply("xor", self, as_expr(other))

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Expr:
        return self ^ _ALL

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]  # a comparison is a number too
        return _apply("eq", self, as_expr(other))

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return negate(self == other)

    def __lt__(self, other: Any) -> Expr:
        return _apply("lt", self, as_expr(other))

    def __le__(self, other: Any) -> Expr:
        return negate(as_expr(other) < self)

    def __bool__(self) -> bool:
        if self.op == "const":
            return bool(self.args[0])
        return ORACLE.get().decide(self if self.boolean else self != 0)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        if self.op == "const":
            return hex(self.args[0]) if self.args[0] > 9 else str(self.args[0])
        if self.op == "var":
            return str(self.args[0])
        return f"{self.op}({', '.join(map(repr, self.args))})"


def _node(op: str, args: tuple[Any, ...], *, boolean: bool) -> Expr:
    key = (op, *(id(arg) if isinstance(arg, Expr) else arg for arg in args))
    found = _NODES.get(key)
    if found is None:
        found = Expr()
        found.op, found.args, found.boolean = op, args, boolean
        described = repr([arg.rank if isinstance(arg, Expr) else arg for arg in args])
        found.rank = blake2b(f"{op}{described}".encode(), digest_size=8).digest()
        _NODES[key] = found
    return found


_CONSTANTS: dict[int, Expr] = {}


def const(value: int) -> Expr:
    """Return the constant *value*."""
    return _node("const", (int(value) & _ALL,), boolean=value in (0, 1))


FALSE: Final = const(0)
TRUE: Final = const(1)


def var(name: str, size: int) -> Expr:
    """Return the variable *name*, whose values are 0 to *size* - 1; a variable of one value is the constant 0."""
    return _node("var", (name, size), boolean=size <= 2) if size > 1 else FALSE


def as_expr(value: Any) -> Expr:
    """Return *value* as an expression."""
    if isinstance(value, Expr):
        return value
    found = _CONSTANTS.get(value)
    if found is None:
        found = _CONSTANTS[value] = const(int(value))
    return found


def negate(condition: Expr) -> Expr:
    """Return the negation of a truth value."""
    return _apply("eq", condition, FALSE)


_FOLD: Final[dict[str, Callable[[int, int], int]]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "eq": lambda a, b: int(a == b),
    "lt": lambda a, b: int(a < b),
}


_APPLIED: dict[tuple[str, int, int], Expr] = {}
"""What came of an operation on two expressions, which live as long as the process."""


def _apply(op: str, a: Expr, b: Expr) -> Expr:
    key = op, id(a), id(b)
    found = _APPLIED.get(key)
    if found is None:
        found = _APPLIED[key] = _applied(op, a, b)
    return found


def _applied(op: str, a: Expr, b: Expr) -> Expr:
    if a.op == "const" and b.op == "const":
        return const(_FOLD[op](a.args[0], b.args[0]))
    if op != "lt" and (a.op == "const" or (b.op != "const" and a.rank > b.rank)):
        a, b = b, a  # a constant is the second operand
    simple = _identity(op, a, b)
    if simple is not None:
        return simple
    for this, other, swapped in ((a, b, False), (b, a, True)):
        if this.op == "where" and (other.op == "const" or _constant_leaves(this)):
            condition, yes, no = this.args
            first = _apply(op, other, yes) if swapped else _apply(op, yes, other)
            second = _apply(op, other, no) if swapped else _apply(op, no, other)
            return where(condition, first, second)
    both = a.boolean and b.boolean
    return _node(op, (a, b), boolean=both or op in {"eq", "lt"})


def _identity(op: str, a: Expr, b: Expr) -> Expr | None:
    """Return what ``a op b`` is without computing, or None."""
    if a is b:
        return {"and": a, "or": a, "xor": FALSE, "eq": TRUE, "lt": FALSE}[op]
    if op == "lt":
        return None
    if b.op != "const":
        return _absorbed(op, a, b)
    return _equals(a, b.args[0]) if op == "eq" else _masked(op, a, b)


def _masked(op: str, a: Expr, b: Expr) -> Expr | None:
    """Return what *a* and the constant *b* are without computing, or None."""
    value, everything = b.args[0], 1 if a.boolean else _ALL
    if op == "and":
        return FALSE if value == 0 else a if value & everything == everything else None
    if value == 0:
        return a
    return b if op == "or" and value == everything else None


def _equals(a: Expr, value: int) -> Expr | None:
    if a.boolean:
        if value > 1:
            return FALSE
        if value == 1:
            return a
        if a.op == "eq" and a.args[1] is FALSE and a.args[0].boolean:
            return a.args[0]  # type: ignore[no-any-return]  # twice negated
    if a.op == "var" and value >= a.args[1]:
        return FALSE
    return None


def _absorbed(op: str, a: Expr, b: Expr) -> Expr | None:
    if op in {"and", "or"} and a.boolean and b.boolean and (negate(a) is b):
        return FALSE if op == "and" else TRUE
    return None


def _constant_leaves(e: Expr) -> bool:
    if e.op == "where":
        return _constant_leaves(e.args[1]) and _constant_leaves(e.args[2])
    return e.op == "const"


def where(condition: Any, yes: Any, no: Any) -> Expr:
    """Return *yes* where *condition* holds, else *no*."""
    return _where(_truth(as_expr(condition)), as_expr(yes), as_expr(no))


def _truth(e: Expr) -> Expr:
    return e if e.boolean else e != 0


def _where(condition: Expr, yes: Expr, no: Expr) -> Expr:
    if condition.op == "const":
        return yes if condition.args[0] else no
    if yes is no:
        return yes
    if yes is TRUE and no is FALSE:
        return condition
    if yes is FALSE and no is TRUE:
        return negate(condition)
    if condition.op == "eq" and condition.args[1] is FALSE and condition.args[0].boolean:
        condition, yes, no = condition.args[0], no, yes
    if yes.op == "where" and yes.args[0] is condition:
        yes = yes.args[1]
    if no.op == "where" and no.args[0] is condition:
        no = no.args[2]
    return _node("where", (condition, yes, no), boolean=yes.boolean and no.boolean)


def variables(e: Expr, found: set[str] | None = None) -> set[str]:
    """Return the names of the variables in *e*."""
    found = set() if found is None else found
    if e.op == "var":
        found.add(e.args[0])
    elif e.op != "const":
        for arg in e.args:
            variables(arg, found)
    return found


def evaluate(e: Expr, state: Mapping[str, int]) -> int:
    """Return the value of *e* in *state*."""
    if e.op == "const":
        return int(e.args[0])
    if e.op == "var":
        return state[e.args[0]]
    if e.op == "where":
        condition, yes, no = e.args
        return evaluate(yes if evaluate(condition, state) else no, state)
    return _FOLD[e.op](evaluate(e.args[0], state), evaluate(e.args[1], state))
