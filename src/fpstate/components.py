"""A user's own xfeatures, from a TOML file: what if component 20 were 4 KiB, supervisor, aligned?

The file has one ``[[component]]`` table a component, with the fields of `fpstate.xfeatures.Xfeature`:

    [[component]]
    bit = 20
    name = "WIDGET"
    size = 4096
    supervisor = true
    aligned = true

``role`` names the policy set it joins (``supervisor`` or ``user`` if not given), ``offset`` its place in the standard
format (behind everything else if not given).  A bit that the catalogue has already is changed by the fields given.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Final, get_args

from fpstate import toml
from fpstate.errors import UsageError
from fpstate.xfeatures import CATALOGUE, Catalogue, Placement, Role, Xfeature

__all__ = ["load"]

_FIELDS: Final[dict[str, type]] = {
    "bit": int,
    "name": str,
    "kernel_name": str,
    "boot_string": str,
    "size": int,
    "supervisor": bool,
    "aligned": bool,
    "xfd": bool,
    "flag": str,
    "role": str,
    "offset": int,
    "aliases": list,
    "source": str,
}


def load(path: str | os.PathLike[str], catalogue: Catalogue = CATALOGUE) -> tuple[Catalogue, tuple[Xfeature, ...]]:
    """Return *catalogue* with the components of the file at *path*, and those components.

    Raises:
        UnreadableInput: the file cannot be read or is not TOML.
        UsageError: a field is missing, unknown, or of the wrong kind; names the component and the field.
    """
    path = os.fspath(path)
    table = toml.load(path, "components")
    rows = table.get("component")
    if not isinstance(rows, list) or not rows or set(table) != {"component"}:
        raise UsageError(f"{path} must hold [[component]] tables and nothing else")
    own = tuple(_row(path, number, row, catalogue) for number, row in enumerate(rows, 1))
    Catalogue(own)  # refuses a bit given twice
    return catalogue.extended(own), own


def _row(path: str, number: int, row: Any, catalogue: Catalogue) -> Xfeature:
    where = f"{path}: component {number}"
    if not isinstance(row, dict) or not _is(row.get("bit"), int):
        raise UsageError(f"{where} must be a table with a number 'bit'")
    for key, value in row.items():
        kind = _FIELDS.get(key)
        if kind is None:
            raise UsageError(f"{where} has the unknown field {key!r}", cure=f"fields are {', '.join(_FIELDS)}")
        if not _is(value, kind):
            raise UsageError(f"{where}: {key} must be {_KINDS[kind]}, not {value!r}")
    if row["bit"] < 2:
        raise UsageError(f"{where}: bit must be 2 to 62; x87 and SSE are what they are")
    if row.get("role", "user") not in get_args(Role):
        raise UsageError(f"{where}: role must be one of {', '.join(get_args(Role))}, not {row['role']!r}")
    base = catalogue.get(row["bit"])
    supervisor = row.get("supervisor", base.supervisor if base else False)
    if row.get("role") in {"supervisor", "guest-only", "independent"} and not supervisor:
        raise UsageError(f"{where}: role {row['role']!r} is for supervisor components", cure="add supervisor = true")
    if row.get("role") in {"user", "user-dynamic"} and supervisor:
        raise UsageError(f"{where}: role {row['role']!r} is for user components, and this is a supervisor one")
    if base is None and "size" not in row:
        raise UsageError(f"{where} (bit {row['bit']}) must have a 'size' in bytes")
    return _changed(base, row) if base else _new(row)


_KINDS: Final = {int: "a number", str: "a text", bool: "true or false", list: "a list of texts"}


def _is(value: object, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _places(row: dict[str, Any], size: int) -> tuple[Placement, ...]:
    return (Placement(row["offset"], size, "all", "your components file"),) if "offset" in row else ()


def _new(row: dict[str, Any]) -> Xfeature:
    supervisor = row.get("supervisor", False)
    name = row.get("name", f"bit{row['bit']}")
    role: Role = row.get("role", "supervisor" if supervisor else "user")
    return Xfeature(
        bit=row["bit"],
        name=name,
        kernel_name=row.get("kernel_name", name),
        boot_string=row.get("boot_string", f"{name} (your component)"),
        size=row["size"],
        supervisor=supervisor,
        aligned=row.get("aligned", False),
        xfd=row.get("xfd", role == "user-dynamic"),
        flag=row.get("flag", f"COMPONENT_{row['bit']}"),
        role=role,
        placements=_places(row, row["size"]),
        aliases=tuple(row.get("aliases", ())),
        source=row.get("source", "your components file"),
    )


def _changed(base: Xfeature, row: dict[str, Any]) -> Xfeature:
    changes = {key: value for key, value in row.items() if key not in {"bit", "offset", "aliases"}}
    size = row.get("size", base.size)
    if row.get("supervisor", base.supervisor):
        changes["placements"] = ()
    elif "offset" in row or size != base.size:
        changes["placements"] = _places(row, size)
    if "aliases" in row:
        changes["aliases"] = tuple(row["aliases"])
    changes["struct_size"] = size
    changes.setdefault("source", "your components file")
    return replace(base, **changes)
