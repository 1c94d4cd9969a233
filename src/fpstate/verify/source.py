"""The code of a function that finds the successors of states: the commands' guards as one tree of tests.

Paths of a step begin alike, and so do steps: what guards share is tested once.  A state is one word of fields or two,
each a number of 64 bits with its sign never used.  The text is LLVM's: from a Python function of this size Numba takes
minutes to get to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fpstate.errors import UsageError
from fpstate.verify.expr import FALSE, Expr, const, negate, variables, where
from fpstate.verify.model import Command, Model, Variable

__all__ = ["Field", "Flow", "Layout", "expander", "layout", "reader", "viewer"]

_WORD: Final = 63


@dataclass(frozen=True, slots=True)
class Field:
    """Where a variable is: ``word >> shift & mask`` is its value."""

    name: str
    word: int
    shift: int
    mask: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How a state is written.

    Attributes:
        fields: by name, in the order of the model's variables.
        words: how many there are.
        bits: those in use, of each word.
    """

    fields: Mapping[str, Field]
    words: int
    bits: tuple[int, ...]

    def pack(self, values: Mapping[str, int]) -> tuple[int, ...]:
        """Return the words of a state."""
        words = [0] * self.words
        for f in self.fields.values():
            words[f.word] |= values[f.name] << f.shift
        return tuple(words)

    def unpack(self, words: tuple[int, ...]) -> dict[str, int]:
        """Return the values of a state."""
        return {f.name: words[f.word] >> f.shift & f.mask for f in self.fields.values()}


def layout(variables: tuple[Variable, ...]) -> Layout:
    """Return the layout of *variables*.

    Raises:
        UsageError: they need more than two words.
    """
    fields, word, shift, bits = {}, 0, 0, []
    for variable in variables:
        size = max(variable.values).bit_length()
        if shift + size > _WORD:
            bits.append(shift)
            word, shift = word + 1, 0
        fields[variable.name] = Field(variable.name, word, shift, (1 << size) - 1)
        shift += size
    bits.append(shift)
    if len(bits) > 2:
        raise UsageError(
            f"a state of this model takes {len(bits)} words of {_WORD} bits; this search has two",
            cure="verify fewer CPUs, tasks or vCPUs",
        )
    return Layout(fields, len(bits), tuple(bits))


@dataclass(slots=True)
class _Node:
    """What begins with the same conditions.

    Attributes:
        next: by the condition that comes then.
        commands: whose guards end here.
        claims: (number, condition) of the claims that are made here.
    """

    next: dict[Expr, _Node] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    claims: list[tuple[int, Expr]] = field(default_factory=list)

    def at(self, guard: tuple[Expr, ...]) -> _Node:
        """Return the node of *guard*."""
        node = self
        for condition in guard:
            node = node.next.setdefault(condition, _Node())
        return node


def _tree(model: Model, claims: list[str]) -> _Node:
    root = _Node()
    for command in model.commands:
        root.at(command.guard).commands.append(command)
    for check in model.checks:
        root.at(check.guard).claims.append((claims.index(check.property), check.holds))
    for name, holds in model.invariants:
        root.claims.append((claims.index(name), holds))
    return root


@dataclass(frozen=True, slots=True)
class Flow:
    """What a command does to places: which it overwrites, and with what; a place is a bit.

    Attributes:
        kept: places that are as they were.
        reads: (place that is written, places that are read for it).
    """

    kept: int
    reads: tuple[tuple[int, int], ...]


def expander(model: Model, place: Layout, claims: list[str], flows: list[Flow] | None = None) -> str:
    """Return the LLVM assembly of ``i64 expand(i64 *states, *out, *broken, *tags, i64 count)``.

    It writes the successors of *count* states to *out*, the number of the first state that breaks a claim to *broken*,
    where -1 says that none does, and returns how many successors there are.  *count* is not 0.  With *flows*, which are
    added to, it writes to *tags* for each successor the number of its state times 4096, and of its flow.
    """
    return "\n".join(_Expand(model, place, claims, flows).lines()) + "\n"


def reader(model: Model, place: Layout) -> str:
    """Return the LLVM assembly of ``void claimed(i64 *states, *out, i64 count)``: which places each state reads."""
    return "\n".join(_Claimed(model, place).lines()) + "\n"


def viewer(place: Layout, parts: Sequence[Sequence[tuple[Expr, int]]], offsets: Sequence[int]) -> str:
    """Return the LLVM assembly of ``void matter(i64 *states, *out, i8 *tables, i64 count)``: which places matter.

    Args:
        place: how a state is written.
        parts: of each place's view, with bits.
        offsets: where in the tables those of its kind begin.
    """
    return "\n".join(_Matter(place, parts, offsets).lines()) + "\n"


_Scope = ChainMap[tuple[Expr, bool], str]
"""What was computed on the way here: an expression as a number, or as a truth value, and its name."""


class _Text:
    """Writes expressions and loops as instructions."""

    def __init__(self, place: Layout) -> None:
        self.place = place
        self.made: list[str] = []
        self.names = 0

    def _loop(self, head: str, start: str, body: Callable[[], tuple[str, str]]) -> list[str]:
        """Write a function that goes over states; *body* returns the sum so far, and the block where it ends."""
        self.made += [
            f"define i64 {head} {{",
            "entry:",
            "  br label %loop",
            "loop:",
            "  %i = phi i64 [0, %entry], [%i.next, %latch]",
            "  %n = phi i64 [0, %entry], [%n.next, %latch]",
        ]
        for w in range(self.place.words):
            self._load(f"%s{w}", "states", self._place("%i", w))
        n, block = body()
        self.made += [
            "  br label %latch",
            "latch:",
            f"  %n.next = phi i64 [{n}, %{block}]",
            "  %i.next = add i64 %i, 1",
            "  %more = icmp slt i64 %i.next, %count",
            "  br i1 %more, label %loop, label %done",
            "done:",
            f"  ret i64 {start}",
            "}",
        ]
        return self.made

    def _name(self, kind: str = "%v") -> str:
        self.names += 1
        return f"{kind}{self.names}"

    def _new(self, text: str) -> str:
        """Write an instruction and return the name of what it makes."""
        name = self._name()
        self.made.append(f"  {name} = {text}")
        return name

    def _place(self, index: str, word: int) -> str:
        """Return the index of a word of the state with this index."""
        if self.place.words == 1:
            return index
        first = self._new(f"shl i64 {index}, 1")
        return self._new(f"or i64 {first}, 1") if word else first

    def _load(self, name: str, array: str, index: str) -> None:
        pointer = self._new(f"getelementptr i64, i64* %{array}, i64 {index}")
        self.made.append(f"  {name} = load i64, i64* {pointer}")

    def _store(self, value: str, array: str, index: str) -> None:
        pointer = self._new(f"getelementptr i64, i64* %{array}, i64 {index}")
        self.made.append(f"  store i64 {value}, i64* {pointer}")

    def _number(self, e: Expr, scope: _Scope) -> str:
        """Return *e* as an i64."""
        if e.op == "const":
            return str(e.args[0])
        key = (e, False)
        if key not in scope:
            scope[key] = self._computed(e, scope)
        return scope[key]

    def _computed(self, e: Expr, scope: _Scope) -> str:
        if e.op == "var":
            f = self.place.fields[e.args[0]]
            word = self._new(f"lshr i64 %s{f.word}, {f.shift}") if f.shift else f"%s{f.word}"
            return self._new(f"and i64 {word}, {f.mask}")
        if e.op in {"eq", "lt"}:
            return self._new(f"zext i1 {self._truth(e, scope)} to i64")
        if e.op == "where":
            test, yes, no = self._truth(e.args[0], scope), *(self._number(a, scope) for a in e.args[1:])
            return self._new(f"select i1 {test}, i64 {yes}, i64 {no}")
        return self._new(f"{e.op} i64 {self._number(e.args[0], scope)}, {self._number(e.args[1], scope)}")

    def _truth(self, e: Expr, scope: _Scope) -> str:
        """Return *e*, 0 or 1, as an i1."""
        if e.op == "const":
            return "true" if e.args[0] else "false"
        key = (e, True)
        if key not in scope:
            scope[key] = self._tested(e, scope)
        return scope[key]

    def _tested(self, e: Expr, scope: _Scope) -> str:
        if e.op == "var":
            return self._new(f"icmp ne i64 {self._masked(e)}, 0")
        if e.op == "where":
            test, yes, no = (self._truth(a, scope) for a in e.args)
            return self._new(f"select i1 {test}, i1 {yes}, i1 {no}")
        a, b = e.args
        if e.op == "eq" and b.op == "const" and a.op == "var":
            f = self.place.fields[a.args[0]]
            return self._new(f"icmp eq i64 {self._masked(a)}, {b.args[0] << f.shift}")
        if e.op == "eq" and b.op == "const" and not b.args[0] and a.boolean:
            return self._new(f"xor i1 {self._truth(a, scope)}, true")
        if e.op in {"eq", "lt"}:
            sign = "eq" if e.op == "eq" else "ult"
            return self._new(f"icmp {sign} i64 {self._number(a, scope)}, {self._number(b, scope)}")
        return self._new(f"{e.op} i1 {self._truth(a, scope)}, {self._truth(b, scope)}")

    def _masked(self, e: Expr) -> str:
        """Return a variable where it stands in its word."""
        f = self.place.fields[e.args[0]]
        return self._new(f"and i64 %s{f.word}, {f.mask << f.shift}")


class _Tree(_Text, ABC):
    """Writes a tree as blocks of instructions; what is computed on the way to a block is not computed again there."""

    def __init__(self, model: Model, place: Layout, claims: list[str]) -> None:
        super().__init__(place)
        self.tree = _tree(model, claims)
        self.data = _data(model)

    def _node(self, node: _Node, scope: _Scope, n: str, block: str) -> tuple[str, str]:
        """Write what begins with *node*; return the number of successors after it, and the block where it ends."""
        for number, holds in node.claims:
            n, block = self._claim(number, holds, scope, n, block)
        for command in node.commands:
            n = self._successor(command, scope, n)
        for ways in _branches(node):
            n = self._asked([condition for condition, _ in ways if condition is not None], n)
            n, block = self._branch(ways, scope, n, block)
        return n, block

    @abstractmethod
    def _claim(self, number: int, holds: Expr, scope: _Scope, n: str, block: str) -> tuple[str, str]:
        """Write what a claim asks for; return the sum, and the block where it ends."""

    @abstractmethod
    def _successor(self, command: Command, scope: _Scope, n: str) -> str:
        """Write what a command asks for, and return the sum."""

    @abstractmethod
    def _asked(self, conditions: list[Expr], n: str) -> str:
        """Write what it takes to ask for conditions, and return the sum."""

    def _branch(self, ways: list[_Way], scope: _Scope, n: str, block: str) -> tuple[str, str]:
        labels = [self._name("b") for _ in ways]
        after = self._name("b")
        first = ways[0][0]
        assert first is not None  # noqa: S101  the rest comes second
        if len(ways) > 1 and ways[1][0] is not None:
            value = self._number(first.args[0], scope)
            cases = " ".join(
                f"i64 {way.args[1].args[0]}, label %{label}"
                for (way, _), label in zip(ways, labels, strict=True)
                if way is not None
            )
            self.made.append(f"  switch i64 {value}, label %{after} [{cases}]")
        else:
            other = labels[1] if len(ways) > 1 else after
            self.made.append(f"  br i1 {self._truth(first, scope)}, label %{labels[0]}, label %{other}")
        ends = [] if len(ways) > 1 and ways[1][0] is None else [(n, block)]
        for (_, node), label in zip(ways, labels, strict=True):
            self.made.append(f"{label}:")
            ends.append(self._node(node, scope.new_child(), n, label))
            self.made.append(f"  br label %{after}")
        self.made.append(f"{after}:")
        return self._new("phi i64 " + ", ".join(f"[{value}, %{end}]" for value, end in ends)), after


class _Expand(_Tree):
    """Writes `expand`."""

    def __init__(self, model: Model, place: Layout, claims: list[str], flows: list[Flow] | None) -> None:
        super().__init__(model, place, claims)
        self.flows = flows

    def lines(self) -> list[str]:
        """Return the lines."""
        arrays = ("states", "out", "broken", "tags")
        head = ", ".join(f"i64* noalias %{name}" for name in arrays)
        return self._loop(
            f"@expand({head}, i64 %count)", "%n.next", lambda: self._node(self.tree, ChainMap(), "%n", "loop")
        )

    def _asked(self, conditions: list[Expr], n: str) -> str:  # noqa: ARG002
        return n

    def _claim(self, number: int, holds: Expr, scope: _Scope, n: str, block: str) -> tuple[str, str]:  # noqa: ARG002
        """Write the test of a claim: the first state that breaks it is noted."""
        bad, after = self._name("b"), self._name("b")
        self.made.append(f"  br i1 {self._truth(negate(holds), scope)}, label %{bad}, label %{after}")
        self.made.append(f"{bad}:")
        noted = self._name()
        self._load(noted, "broken", str(number))
        new = self._new(f"icmp slt i64 {noted}, 0")
        self._store(self._new(f"select i1 {new}, i64 %i, i64 {noted}"), "broken", str(number))
        self.made += [f"  br label %{after}", f"{after}:"]
        return n, after

    def _successor(self, command: Command, scope: _Scope, n: str) -> str:
        for w in range(self.place.words):
            self._store(self._word(command, w, scope), "out", self._place(n, w))
        if self.flows is not None:
            flow = _flow(command, self.data)
            if flow not in self.flows:
                self.flows.append(flow)
            first = self._new("shl i64 %i, 12")
            self._store(self._new(f"or i64 {first}, {self.flows.index(flow)}"), "tags", n)
        return self._new(f"add i64 {n}, 1")

    def _word(self, command: Command, word: int, scope: _Scope) -> str:
        """Write one word of the state after *command*."""
        keep, constant, parts = -1, 0, []
        for name, value in command.updates.items():
            f = self.place.fields[name]
            if f.word == word:
                keep &= ~(f.mask << f.shift)
                if value.op == "const":
                    constant |= value.args[0] << f.shift
                else:
                    parts.append(self._new(f"shl i64 {self._number(value, scope)}, {f.shift}"))
        made = f"%s{word}"
        if keep != -1:
            made = self._new(f"and i64 {made}, {keep}")
        for part in [str(constant), *parts] if constant else parts:
            made = self._new(f"or i64 {made}, {part}")
        return made


class _Claimed(_Tree):
    """Writes `claimed`: the sum is the set of the places that were read on the way."""

    def __init__(self, model: Model, place: Layout) -> None:
        names = {check.property for check in model.checks} | {name for name, _ in model.invariants}
        super().__init__(model, place, sorted(names))

    def lines(self) -> list[str]:
        """Return the lines."""
        return self._loop("@claimed(i64* noalias %states, i64* noalias %out, i64 %count)", "0", self._body)

    def _body(self) -> tuple[str, str]:
        n, block = self._node(self.tree, ChainMap(), "0", "loop")
        self._store(n, "out", "%i")
        return n, block

    def _asked(self, conditions: list[Expr], n: str) -> str:
        read = 0
        for condition in conditions:
            read |= _places(condition, self.data)
        return self._new(f"or i64 {n}, {read}") if read else n

    def _claim(self, number: int, holds: Expr, scope: _Scope, n: str, block: str) -> tuple[str, str]:  # noqa: ARG002
        read = _reads(holds, self.data)
        return (n if read is FALSE else self._new(f"or i64 {n}, {self._number(read, scope)}")), block

    def _successor(self, command: Command, scope: _Scope, n: str) -> str:  # noqa: ARG002
        read = 0
        for name, value in command.updates.items():
            if name not in self.data:
                read |= _places(value, self.data)
        return self._new(f"or i64 {n}, {read}") if read else n


class _Matter(_Text):
    """Writes `matter`."""

    def __init__(self, place: Layout, parts: Sequence[Sequence[tuple[Expr, int]]], offsets: Sequence[int]) -> None:
        super().__init__(place)
        self.parts, self.offsets = parts, offsets

    def lines(self) -> list[str]:
        """Return the lines."""
        head = "@matter(i64* noalias %states, i64* noalias %out, i8* noalias %tables, i64 %count)"
        return self._loop(head, "0", self._body)

    def _body(self) -> tuple[str, str]:
        scope: _Scope = ChainMap()
        sum_ = "0"
        for bit, (parts, offset) in enumerate(zip(self.parts, self.offsets, strict=True)):
            number = "0"
            for e, bits in parts:
                number = self._new(f"shl i64 {number}, {bits}")
                number = self._new(f"or i64 {number}, {self._number(e, scope)}")
            at = self._new(f"add i64 {number}, {offset}")
            byte = self._new(f"load i8, i8* {self._new(f'getelementptr i8, i8* %tables, i64 {at}')}")
            wide = self._new(f"zext i8 {byte} to i64")
            sum_ = self._new(f"or i64 {sum_}, {self._new(f'shl i64 {wide}, {bit}')}")
        self._store(sum_, "out", "%i")
        return sum_, "loop"


def _data(model: Model) -> dict[str, int]:
    """Return the bit of each place, in the order of the model's variables."""
    return {name: 1 << i for i, name in enumerate(v.name for v in model.variables if v.data)}


def _places(e: Expr, data: Mapping[str, int]) -> int:
    """Return the places in *e*."""
    return sum(data.get(name, 0) for name in variables(e))


def _reads(e: Expr, data: Mapping[str, int]) -> Expr:
    """Return what evaluating *e* reads: of a choice that control decides, only the side that is taken."""
    everything = _places(e, data)
    if not everything:
        return FALSE
    if e.op == "where" and not _places(e.args[0], data):
        return where(e.args[0], _reads(e.args[1], data), _reads(e.args[2], data))
    if e.op in {"and", "or"} and e.boolean:
        for first, second in (e.args, reversed(e.args)):
            if not _places(first, data):
                return where(first if e.op == "and" else negate(first), _reads(second, data), 0)
    if e.op == "eq" and e.args[1].op == "const":
        return _reads(e.args[0], data)
    return const(everything)


def _flow(command: Command, data: Mapping[str, int]) -> Flow:
    updates = {data[name]: _places(value, data) for name, value in command.updates.items() if name in data}
    kept = sum(bit for bit in data.values() if bit not in updates)
    return Flow(kept, tuple((bit, read) for bit, read in updates.items() if read))


_Way = tuple[Expr | None, _Node]


def _branches(node: _Node) -> Iterator[list[_Way]]:
    """Yield the ways on from *node*, those that exclude each other together: a condition and its negation, or values.

    A way without a condition is the rest.
    """
    waiting = dict(node.next)
    while waiting:
        condition = next(iter(waiting))
        opposite = negate(condition)
        if opposite in waiting:
            yield [(condition, waiting.pop(condition)), (None, waiting.pop(opposite))]
            continue
        alike = [c for c in waiting if c is condition or _other_value(condition, c)]
        alike = [c for c in alike if c is condition or negate(c) not in waiting]
        yield [(c, waiting.pop(c)) for c in alike]


def _other_value(first: Expr, second: Expr) -> bool:
    """Tell whether both say which value the same thing has: not both hold."""

    def compared(e: Expr) -> Any:
        return e.args[0] if e.op == "eq" and e.args[1].op == "const" else None

    return compared(first) is not None and compared(first) is compared(second)
