"""The built-in table of CPUs, ``data/cpus.toml``: what public CPUID dumps say about leaf 0DH, found by name.

Looking one CPU up reads that row and no other: the whole table costs the TOML parser 7 ms, one row 0.2 ms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Final

from fpstate.cpu.dump import Registers
from fpstate.cpu.flags import FLAGS
from fpstate.errors import UnreadableInput, UsageError

__all__ = ["CONFIDENCES", "TableRow", "find", "leaves", "rows"]

CONFIDENCES: Final = ("dump", "dump, flags from the vendor's documents", "constructed", "announced")
"""How sure a row is, surest first."""

_PATH: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data", "cpus.toml")  # noqa: PTH118, PTH120 - pathlib costs 3 ms
_START: Final = "\n[[cpu]]\n"
_LEAF_D: Final = "\nleaf_d = '''\n"
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_TEXTS: Final = ("name", "title", "vendor", "flags", "leaf_d", "confidence", "source")
_NUMBERS: Final = ("family", "model", "stepping", "year")
_LISTS: Final = ("aliases", "leaf_1d")
_LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One CPU of the table.

    Attributes:
        name: what fpstate calls it: lower case, words joined by dashes.
        aliases: codenames, -march names of compilers, model names of QEMU.
        title: what its maker calls it.
        vendor: the vendor string of leaf 0.
        family, model, stepping: of the dump, joined as Linux joins them.
        year: of the launch.
        flags: Linux names of the feature flags that decide about xfeatures, without those in CPUID.0DH.1:EAX.
        leaf_d: CPUID leaf 0DH by sub-leaf; empty without XSAVE.
        leaf_1d: CPUID leaf 1DH, sub-leaves from 0 up; empty without AMX.
        confidence: one of `CONFIDENCES`.
        source: the dump, or what the row was made of.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    vendor: str
    family: int
    model: int
    stepping: int
    year: int
    flags: frozenset[str]
    leaf_d: Mapping[int, Registers]
    leaf_1d: tuple[Registers, ...]
    confidence: str
    source: str


@cache
def rows() -> tuple[TableRow, ...]:
    """Return every row, in the order of the table: by vendor and line, then by age."""
    return tuple(_read(text) for text in _texts())


def find(name: str) -> TableRow:
    """Return the row with this name or alias; case, dashes, underscores and spaces do not count.

    Raises:
        UsageError: the table has none; names the nearest ones.
    """
    index = _index()
    key = _fold(name)
    if key in index:
        return _read(index[key][1])
    near = _near(key) if len(key) <= _LONGEST_NAME else ()
    cure = "'fpstate cpus' lists all"
    if near:
        cure = f"did you mean {', '.join(near)}? {cure}"
    shown = name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "..."
    raise UsageError(f"{shown!a} is not a CPU of the built-in table", cure=cure)


def leaves() -> Iterator[tuple[str, Mapping[int, Registers]]]:
    """Yield name and CPUID leaf 0DH, by sub-leaf, of every row that has one; the rest of the row is not read."""
    for text in _texts():
        lines = text.partition(_LEAF_D)[2].partition("'''")[0]
        name = next(_names(text), "?")
        if lines:
            yield name, _leaf_d(lines, f"cpus.toml, row {name}: ")


def _near(key: str) -> list[str]:
    """Return up to three names or aliases that *key* may be a slip for, no two of one row."""
    import difflib  # noqa: PLC0415 - only a slip of the pen pays for it

    index = _index()
    of_row: dict[str, str] = {}
    for match in difflib.get_close_matches(key, index, n=9):
        spelling, text = index[match]
        of_row.setdefault(text, spelling)
    return list(of_row.values())[:3]


def _fold(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


@cache
def _texts() -> tuple[str, ...]:
    """Return the TOML of each row."""
    try:
        with open(_PATH, encoding="utf-8") as file:  # noqa: PTH123 - likewise
            table = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableInput(
            f"the built-in table {_PATH} cannot be read: {error}", cure="reinstall fpstate"
        ) from error
    return tuple(table.split(_START)[1:])


@cache
def _index() -> dict[str, tuple[str, str]]:
    """Return (name or alias as written, TOML of its row) by folded name."""
    return {_fold(name): (name, text) for text in _texts() for name in _names(text)}


def _names(text: str) -> Iterator[str]:
    """Yield name and aliases of a row without parsing it: what its first two lines have in single quotes."""
    for line in text.split("\n", 2)[:2]:
        yield from line.split("'")[1::2]


@cache
def _read(text: str) -> TableRow:
    """Read one row.

    Raises:
        UnreadableInput: the row breaks a rule; names the row, the field and the rule.
    """
    import tomllib  # noqa: PLC0415 - 5 ms that callers with a dump need not pay

    where = f"cpus.toml, row {next(_names(text), '?')}"
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnreadableInput(f"{where}: not TOML: {error}") from error
    _check_types(raw, where)
    if [raw["name"], *raw["aliases"]] != list(_names(text)):
        raise UnreadableInput(f"{where}: name and aliases must be its first two lines, in single quotes")
    if len(raw["vendor"]) != 12:
        raise UnreadableInput(f"{where}: vendor must be the 12 characters of leaf 0, not {raw['vendor']!a}")
    if raw["confidence"] not in CONFIDENCES:
        raise UnreadableInput(f"{where}: confidence must be one of {CONFIDENCES}, not {raw['confidence']!a}")
    values: dict[str, Any] = raw | {
        "aliases": tuple(raw["aliases"]),
        "flags": _flags(raw["flags"], where),
        "leaf_d": _leaf_d(raw["leaf_d"], where),
        "leaf_1d": tuple(_registers(line, f"{where}: leaf_1d") for line in raw.get("leaf_1d", ())),
    }
    return TableRow(**values)


def _check_types(raw: Mapping[str, Any], where: str) -> None:
    """Refuse missing and unknown fields and those of a wrong type."""
    known = {field.name for field in fields(TableRow)}
    for field in sorted(raw.keys() - known):
        raise UnreadableInput(f"{where}: {field} is not a field of a row")
    for field in sorted(known - raw.keys() - {"leaf_1d"}):
        raise UnreadableInput(f"{where}: {field} is missing")
    for field, value in raw.items():
        if field in _TEXTS and not isinstance(value, str):
            raise UnreadableInput(f"{where}: {field} must be a string")
        if field in _NUMBERS and (type(value) is not int or value < 0):
            raise UnreadableInput(f"{where}: {field} must be a number, 0 or more")
        if field in _LISTS and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise UnreadableInput(f"{where}: {field} must be a list of strings")


def _flags(text: str, where: str) -> frozenset[str]:
    """Read the flags; one that CPUID.0DH.1:EAX shows already must not be said twice."""
    flags = frozenset(text.split())
    for name in sorted(flags):
        flag = FLAGS.get(name)
        if flag is None or flag.leaf == 0xD:
            raise UnreadableInput(
                f"{where}: flags must not name {name!a}: it decides about no xfeature or is in leaf_d"
            )
    return flags


def _leaf_d(text: str, where: str) -> dict[int, Registers]:
    """Read lines of a decimal sub-leaf and four registers."""
    leaf: dict[int, Registers] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        number, _, rest = line.partition(" ")
        if not (number.isascii() and number.isdecimal() and len(number) <= 2 and int(number) < 64):
            raise UnreadableInput(f"{where}: leaf_d: a line must start with a sub-leaf, 0 to 63, not {number!a}")
        if int(number) in leaf:
            raise UnreadableInput(f"{where}: leaf_d: sub-leaf {number} is given twice")
        leaf[int(number)] = _registers(rest, f"{where}: leaf_d: sub-leaf {number}")
    return leaf


def _registers(text: str, where: str) -> Registers:
    """Read ``EAX EBX ECX EDX``, eight hex digits each."""
    words = text.split()
    if len(words) != 4 or any(len(word) != 8 or not _HEX.issuperset(word) for word in words):
        raise UnreadableInput(f"{where}: must be EAX EBX ECX EDX of eight hex digits each, not {text.strip()!a}")
    eax, ebx, ecx, edx = (int(word, 16) for word in words)
    return eax, ebx, ecx, edx
