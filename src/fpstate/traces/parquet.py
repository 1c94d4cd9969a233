"""Recordings as Parquet: the same columns on disk, one file or a folder of parts, that any engine can query.

A file has the columns of `fpstate.traces.columns`, null where a row has no such field, and the bytes of events that the
model does not know in ``payload``.  The order of rows is the order of events, also of those with the same time.  What
the recording says of itself is JSON in the schema's metadata under ``fpstate``.  A folder's files, by name, are the
parts of one recording in their order.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fpstate.errors import CannotTell, UnreadableInput, UsageError
from fpstate.sources.capture import Damage
from fpstate.traces.columns import ABSENT, COLUMNS, DTYPES, MISSING, Block
from fpstate.traces.recording import Request
from fpstate.traces.trace import Facts, Trace

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    raise CannotTell("Parquet needs PyArrow, which is missing", cure="pip install 'fpstate[trace]'") from missing

__all__ = ["ROWS", "files_of", "group_sizes", "read", "read_groups", "write"]

ROWS: Final = 1 << 18
"""Rows of a row group: what is held in memory at once."""
_SCHEMA: Final = 1
_ABSENT: Final[Mapping[str, int]] = {"flag": ABSENT, "a": MISSING, "b": MISSING, "c": MISSING}
"""The values that are null in the file."""
_KEY: Final = b"fpstate"
_PAYLOAD: Final = "payload"
_MOST_NAMES: Final = 1 << 16


def _arrow_schema(*, payloads: bool) -> Any:
    columns = [
        pa.field(name, pa.from_numpy_dtype(np.dtype(dtype)), nullable=name in _ABSENT)
        for name, dtype in zip(COLUMNS, DTYPES, strict=True)
    ]
    return pa.schema(columns + ([pa.field(_PAYLOAD, pa.binary())] if payloads else []))


# -- writing ----------------------------------------------------------------------------------------------------------


def write(trace: Trace, path: str, *, rows: int | None = None) -> int:
    """Write a recording, whole or not at all, and return the number of its rows.

    Args:
        trace: what to write; its blocks are read.  With payloads if its first block has them.
        path: the file, or with *rows* the folder.
        rows: of a part, where the recording is to be a folder of parts.

    Raises:
        UsageError: *path* is a folder that holds something.
        UnreadableInput: it cannot be written.
    """
    partial = Path(f"{os.path.realpath(path)}.part{os.getpid()}")
    try:
        if rows is None:
            written = _write_files(trace, trace.blocks(), iter([partial]), None)
            os.replace(partial, os.path.realpath(path))  # noqa: PTH105 - a name, as it was given
        else:
            _check_folder(Path(path))
            partial.mkdir()
            names = (partial / f"part-{number:05}.parquet" for number in range(100_000))
            written = _write_files(trace, trace.blocks(), names, rows)
            with suppress(FileNotFoundError):
                os.rmdir(path)  # noqa: PTH106 - likewise
            partial.rename(path)
    except OSError as error:
        raise UnreadableInput(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)
    return written


def _check_folder(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is there already, and parts need a folder of their own", cure="name another")


def _write_files(trace: Trace, blocks: Iterable[Block], names: Iterator[Path], rows: int | None) -> int:
    """Write files until the blocks end: each of *rows* rows, or one of them all."""
    blocks = iter(_pieces(blocks, ROWS if rows is None else rows // -(-rows // ROWS)))
    block = next(blocks, Block.join([]))
    payloads = block.payload is not None
    total, number, more = 0, 0, True
    while more:
        with pq.ParquetWriter(next(names), _arrow_schema(payloads=payloads), **_options(payloads=payloads)) as writer:
            written = 0
            while more and (rows is None or written + len(block) <= rows):
                writer.write_batch(_batch(block, payloads=payloads))
                written += len(block)
                following = next(blocks, None)
                more, block = following is not None, following or block
            writer.add_key_value_metadata({_KEY.decode(): json.dumps(_about(trace, number))})
        total, number = total + written, number + 1
    return total


def _pieces(blocks: Iterable[Block], rows: int) -> Iterator[Block]:
    """Give blocks of exactly *rows* rows, but for the last."""
    held: list[Block] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= rows:
            whole = Block.join(held)
            end = size - size % rows
            yield from (whole.take(slice(at, at + rows)) for at in range(0, end, rows))
            held, size = [whole.take(slice(end, None))], size - end
    if size:
        yield Block.join(held)


def _options(*, payloads: bool) -> dict[str, Any]:
    """Return how to encode: times as differences, everything else by what few values there are."""
    names = [*COLUMNS, _PAYLOAD] if payloads else list(COLUMNS)
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in names if name != "time"],
        "column_encoding": {"time": "DELTA_BINARY_PACKED"},
    }


def _batch(block: Block, *, payloads: bool) -> Any:
    arrays = [
        pa.array(column, mask=column == _ABSENT[name] if name in _ABSENT else None)
        for name, column in zip(COLUMNS, block.columns(), strict=True)
    ]
    if payloads:
        given = block.payload if block.payload is not None else [None] * len(block)
        arrays.append(pa.array(given, pa.binary()))
    return pa.record_batch(arrays, schema=_arrow_schema(payloads=payloads))


def _about(trace: Trace, part: int) -> dict[str, object]:
    return {
        "schema": _SCHEMA,
        "part": part,
        "source": trace.source,
        "format": trace.format,
        "clock": trace.clock,
        "facts": asdict(trace.facts),
        "names": trace.names,
        "comms": {str(pid): name for pid, name in trace.comms.items()},
        "damage": [damage._asdict() for damage in trace.damage],
        "notes": trace.notes,
    }


# -- reading ----------------------------------------------------------------------------------------------------------


def files_of(path: str) -> list[str]:
    """Return the files of a recording: those of a folder by name, or the one."""
    if not os.path.isdir(path):  # noqa: PTH112 - a name, as it was given
        return [path]
    found = [entry for entry in os.listdir(path) if entry.endswith(".parquet")]  # noqa: PTH208 - likewise
    parts = [os.path.join(path, name) for name in sorted(found, key=_numbers)]  # noqa: PTH118 - likewise
    if not parts:
        raise UnreadableInput(f"{path} is a folder without a Parquet file")
    return parts


def _numbers(name: str) -> list[tuple[int, str]]:
    """Order names with numbers by the numbers: part-99999 comes before part-100000."""
    return [(int(word), "") if word.isdecimal() else (0, word) for word in re.split(r"(\d+)", name)]


def read(request: Request) -> Trace:
    """Open one file.

    Raises:
        UnreadableInput: it is no Parquet file that a recording was written to.
    """
    file = _opened(pa.BufferReader(pa.py_buffer(request.data)), request.name)
    return _trace([(file, request.name)], request.name, None, payloads=request.payloads)


def read_groups(path: str, *, groups: tuple[int, int] | None = None, payloads: bool = False) -> Trace:
    """Open a file or a folder of parts.

    Args:
        path: which.
        groups: of a file, the number of its first row group and of the first that is not wanted.
        payloads: read the column of payloads too.

    Raises:
        UnreadableInput: a file is no Parquet file that a recording was written to.
    """
    return _trace([(_opened(name, name), name) for name in files_of(path)], path, groups, payloads=payloads)


def group_sizes(path: str) -> list[int]:
    """Return the rows of each row group of a file."""
    metadata = _opened(path, path).metadata
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def _opened(source: Any, name: str) -> Any:
    try:
        file = pq.ParquetFile(source)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableInput(f"{name} cannot be read as Parquet: {_first_line(error)}") from error
    kinds = {field.name: field.type for field in file.schema_arrow}
    wanted = _arrow_schema(payloads=False)
    for column in wanted:
        if kinds.get(column.name) != column.type:
            found = kinds.get(column.name, "not there")
            raise UnreadableInput(
                f"{name} holds no recording: column {column.name!r} must be {column.type}, is {found}"
            )
    if file.schema_arrow.get_field_index(_PAYLOAD) >= 0 and kinds[_PAYLOAD] != pa.binary():
        raise UnreadableInput(f"{name} holds no recording: column 'payload' must be binary, is {kinds[_PAYLOAD]}")
    return file


def _trace(files: list[tuple[Any, str]], source: str, groups: tuple[int, int] | None, *, payloads: bool) -> Trace:
    heads = [_head(file, name) for file, name in files]
    last = heads[-1]
    rows = sum(file.metadata.num_rows for file, _ in files)
    trace = Trace(
        source=source,
        format=f"Parquet of {last.format}",
        streams=[],
        clock=last.clock,
        facts=last.facts,
        comms=dict(item for head in heads for item in head.comms.items()),
        damage=last.damage,
        notes=last.notes,
    )
    codes = _Codes(trace.names)
    trace.streams = [_rows(trace, codes, files, heads, groups, payloads=payloads)] if rows else []
    return trace


def _head(file: Any, name: str) -> Trace:
    """Return what a file says of its recording."""
    try:
        told = json.loads((file.metadata.metadata or {}).get(_KEY) or "")
        if told["schema"] != _SCHEMA:
            raise UnreadableInput(f"{name} is of schema {told['schema']!r}; this fpstate reads {_SCHEMA}")
        facts = {field.name: told["facts"][field.name] for field in fields(Facts) if field.name in told["facts"]}
        cpus = facts.pop("cpus", None)
        return Trace(
            source=str(told["source"]),
            format=str(told["format"]),
            streams=[],
            clock=str(told["clock"]),
            facts=Facts(**{key: str(value) for key, value in facts.items()}, cpus=None if cpus is None else int(cpus)),
            names=[str(each) for each in told["names"][:_MOST_NAMES]],
            comms={int(pid): str(comm) for pid, comm in told["comms"].items()},
            damage=[_damage(**each) for each in told["damage"]],
            notes=[str(each) for each in told["notes"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UnreadableInput):
            raise
        raise UnreadableInput(
            f"{name} does not say in its metadata what recording it holds", cure="write it with 'fpstate trace convert'"
        ) from error


def _damage(rule: str, text: str, offset: int | None = None, cure: str = "") -> Damage:
    return Damage(str(rule), str(text), None if offset is None else int(offset), str(cure))


class _Codes:
    """The codes of a file in those of this version of fpstate: a file goes by its names."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._known = {name: code for code, name in enumerate(names)}

    def of(self, names: list[str]) -> NDArray[np.uint16]:
        """Return the code for each of a file's; one that it does not name is an event of that number."""
        table = np.zeros(_MOST_NAMES, np.uint16)
        for code, name in enumerate(names):
            table[code] = self.code(name)
        return table

    def code(self, name: str) -> int:
        """Return the code of an event, that of the trace's own names which is added where needed."""
        if name not in self._known and len(self._names) < _MOST_NAMES:
            self._known[name] = len(self._names)
            self._names.append(name)
        return self._known.get(name, 0)


def _rows(
    trace: Trace,
    codes: _Codes,
    files: list[tuple[Any, str]],
    heads: list[Trace],
    groups: tuple[int, int] | None,
    *,
    payloads: bool,
) -> Iterator[Block]:
    for (file, name), head in zip(files, heads, strict=True):
        table = codes.of(head.names)
        wanted = range(*(groups or (0, file.metadata.num_row_groups)))
        columns = [*COLUMNS, _PAYLOAD] if payloads else list(COLUMNS)
        try:
            for batch in file.iter_batches(ROWS, row_groups=list(wanted), columns=columns):
                yield _block(batch, table, len(head.names), codes, payloads=payloads)
        except (pa.ArrowException, OSError) as error:
            trace.damage.append(Damage("parquet.rows", f"{name} cannot be read further: {_first_line(error)}"))
            return


def _block(batch: Any, table: NDArray[np.uint16], named: int, codes: _Codes, *, payloads: bool) -> Block:
    columns = []
    for name, dtype in zip(COLUMNS, DTYPES, strict=True):
        column = batch.column(name)
        if column.null_count:
            column = column.fill_null(_ABSENT.get(name, 0))
        columns.append(column.to_numpy(zero_copy_only=False).astype(dtype, copy=False))
    at = COLUMNS.index("code")
    beyond = columns[at] >= named
    if beyond.any():
        for code in np.unique(columns[at][beyond]).tolist():
            table[code] = codes.code(f"event {code}")
    columns[at] = table[columns[at]]
    payload = None
    if payloads:
        there = batch.schema.get_field_index(_PAYLOAD) >= 0
        values = batch.column(_PAYLOAD).to_pylist() if there else [None] * len(batch)
        payload = np.empty(len(batch), object)
        payload[:] = values
    return Block.made(columns, payload)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
