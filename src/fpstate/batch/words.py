"""Memory at a plain address, for compiled kernels: words of any alignment, and runs whose length is a literal.

A run becomes straight-line vector moves, as wide as the CPU has them; that is what makes a kernel with literal sizes
eight times faster than a loop over a table.  Every function here exists in compiled code only.  Addresses and sizes are
``int64``, values are unsigned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["any_set", "copy", "copy_any", "copy_n", "load8", "load16", "load32", "load64", "zero"]
__all__ += ["store8", "store16", "store32", "store64", "zero_n"]

_INLINE: Final = 1024
"""Bytes up to which a run is moved by instructions in line; a longer one by memcpy or a loop."""
_VECTOR: Final = 64
_CHUNK: Final = 512
"""Bytes that a search for a set bit looks at before it asks whether to go on."""


def _pointer(builder: Any, address: Any, offset: int, kind: Any) -> Any:
    at = builder.add(address, ir.Constant(address.type, offset)) if offset else address
    return builder.inttoptr(at, kind.as_pointer())


def _load(builder: Any, address: Any, offset: int, kind: Any) -> Any:
    return builder.load(_pointer(builder, address, offset, kind), align=1)


def _store(builder: Any, value: Any, address: Any, offset: int) -> None:
    builder.store(value, _pointer(builder, address, offset, value.type), align=1)


def _parts(size: int) -> Iterator[tuple[int, Any]]:
    """Yield offset and type of the moves that cover *size* bytes, the widest first."""
    at = 0
    for width in (_VECTOR, 32, 16, 8, 4, 2, 1):
        kind = ir.VectorType(ir.IntType(64), width // 8) if width > 8 else ir.IntType(8 * width)
        while size - at >= width:
            yield at, kind
            at += width


def _is_set(builder: Any, values: dict[Any, Any]) -> Any:
    """Return 1 (uint64) if one of *values*, one a type, is not all zeros."""
    word = ir.IntType(64)
    total = ir.Constant(word, 0)
    for kind, value in values.items():
        if isinstance(kind, ir.VectorType):
            name = f"llvm.vector.reduce.or.v{kind.count}i64"
            known = builder.module.globals.get(name)
            reduce = known or ir.Function(builder.module, ir.FunctionType(word, [kind]), name)
            scalar = builder.call(reduce, [value])
        else:
            scalar = value if kind.width == 64 else builder.zext(value, word)
        total = builder.or_(total, scalar)
    return builder.zext(builder.icmp_unsigned("!=", total, ir.Constant(word, 0)), word)


def _run(
    result: Any, arguments: int, body: Callable[[Any, list[Any], int], Any]
) -> Callable[..., tuple[Any, Callable[..., Any]] | None]:
    """Return the typing of a function of *arguments* addresses and a literal size."""

    def typed(*given: Any) -> tuple[Any, Callable[..., Any]] | None:
        size = given[-1]
        if not isinstance(size, types.IntegerLiteral):
            return None

        def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            found = body(builder, list(values[:-1]), size.literal_value)
            return ir.Constant(ir.IntType(8).as_pointer(), None) if found is None else found

        return result(*[types.int64] * arguments, size), generate

    return typed


def _memcpy(builder: Any, to: Any, start: Any, size: Any) -> None:
    byte, flag = ir.IntType(8), ir.IntType(1)
    function = builder.module.declare_intrinsic("llvm.memcpy", [byte.as_pointer(), byte.as_pointer(), size.type])
    pointers = [_pointer(builder, to, 0, byte), _pointer(builder, start, 0, byte)]
    builder.call(function, [*pointers, size, ir.Constant(flag, 0)])


def _memset(builder: Any, to: Any, size: Any) -> None:
    byte, flag = ir.IntType(8), ir.IntType(1)
    function = builder.module.declare_intrinsic("llvm.memset", [byte.as_pointer(), size.type])
    builder.call(function, [_pointer(builder, to, 0, byte), ir.Constant(byte, 0), size, ir.Constant(flag, 0)])


def _copy(builder: Any, addresses: list[Any], size: int) -> None:
    to, start = addresses
    if size > _INLINE:
        _memcpy(builder, to, start, ir.Constant(ir.IntType(64), size))
        return
    for at, kind in _parts(size):
        _store(builder, _load(builder, start, at, kind), to, at)


def _zero(builder: Any, addresses: list[Any], size: int) -> None:
    if size > _INLINE:
        _memset(builder, addresses[0], ir.Constant(ir.IntType(64), size))
        return
    for at, kind in _parts(size):
        _store(builder, ir.Constant(kind, None), addresses[0], at)


def _any_in_line(builder: Any, start: Any, size: int, to: Any = None) -> Any:
    values: dict[Any, Any] = {}  # one a type
    for at, kind in _parts(size):
        value = _load(builder, start, at, kind)
        if to is not None:
            _store(builder, value, to, at)
        values[kind] = builder.or_(values[kind], value) if kind in values else value
    return _is_set(builder, values)


def _any_set(builder: Any, addresses: list[Any], size: int) -> Any:
    """Search by chunks; the first one with a set bit ends the search."""
    start = addresses[0]
    if size <= _INLINE:
        return _any_in_line(builder, start, size)
    word = ir.IntType(64)
    before, loop, done = builder.block, builder.append_basic_block("search"), builder.append_basic_block("searched")
    rest = _any_in_line(builder, builder.add(start, ir.Constant(word, size - size % _CHUNK)), size % _CHUNK)
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(word)
    flag = _any_in_line(builder, builder.add(start, at), _CHUNK)
    following = builder.add(at, ir.Constant(word, _CHUNK))
    at.add_incoming(ir.Constant(word, 0), before)
    at.add_incoming(following, loop)
    clear = builder.icmp_unsigned("==", flag, ir.Constant(word, 0))
    more = builder.icmp_unsigned("<", following, ir.Constant(word, size - size % _CHUNK))
    builder.cbranch(builder.and_(clear, more), loop, done)
    builder.position_at_end(done)
    return builder.or_(flag, rest)


def _copy_any(builder: Any, addresses: list[Any], size: int) -> Any:
    to, start = addresses
    if size <= _INLINE:
        return _any_in_line(builder, start, size, to)
    found = _any_set(builder, [start], size)
    _copy(builder, addresses, size)
    return found


@intrinsic(prefer_literal=True)
def copy(_context: Any, to: Any, start: Any, size: Any) -> Any:
    """Copy *size* bytes; the runs do not overlap."""
    return _run(types.none, 2, _copy)(to, start, size)


@intrinsic(prefer_literal=True)
def zero(_context: Any, to: Any, size: Any) -> Any:
    """Clear *size* bytes."""
    return _run(types.none, 1, _zero)(to, size)


@intrinsic(prefer_literal=True)
def any_set(_context: Any, start: Any, size: Any) -> Any:
    """Return 1 if one of *size* bytes is not 0, else 0."""
    return _run(types.uint64, 1, _any_set)(start, size)


@intrinsic(prefer_literal=True)
def copy_any(_context: Any, to: Any, start: Any, size: Any) -> Any:
    """Copy *size* bytes and return what `any_set` says of them."""
    return _run(types.uint64, 2, _copy_any)(to, start, size)


@intrinsic
def copy_n(_context: Any, _to: Any, _start: Any, _size: Any) -> Any:
    """Copy a number of bytes that is no literal."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        _memcpy(builder, *values)
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.none(types.int64, types.int64, types.int64), generate


@intrinsic
def zero_n(_context: Any, _to: Any, _size: Any) -> Any:
    """Clear a number of bytes that is no literal."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        _memset(builder, *values)
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.none(types.int64, types.int64), generate


def _loader(width: int) -> Any:
    @intrinsic
    def load(_context: Any, _address: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            value = _load(builder, values[0], 0, ir.IntType(width))
            return value if width == 64 else builder.zext(value, ir.IntType(64))

        return types.uint64(types.int64), generate

    return load


def _storer(width: int) -> Any:
    @intrinsic
    def store(_context: Any, _address: Any, _value: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            kind = ir.IntType(width)
            _store(builder, values[1] if width == 64 else builder.trunc(values[1], kind), values[0], 0)
            return ir.Constant(ir.IntType(8).as_pointer(), None)

        return types.none(types.int64, types.uint64), generate

    return store


load8, load16, load32, load64 = (_loader(width) for width in (8, 16, 32, 64))
store8, store16, store32, store64 = (_storer(width) for width in (8, 16, 32, 64))
