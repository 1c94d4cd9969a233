"""CPUs: what CPUID leaf 0DH and its neighbours tell, from this host, a file or the built-in table.

`load` is the one door.  The readers, the table and the host's CPUID are imported only when they are asked for.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import BinaryIO

from fpstate.cpu.conclude import conclude
from fpstate.cpu.dump import Dump, Modifier, Registers, log_only
from fpstate.cpu.model import Component, Cpu
from fpstate.errors import UsageError
from fpstate.xfeatures import CATALOGUE, MIN_SIZE, Catalogue

__all__ = ["Component", "Cpu", "by_name", "conclude", "load", "load_all", "named_or_file", "this_host"]


def this_host(*, catalogue: Catalogue = CATALOGUE) -> Cpu:
    """Return the CPU that this process runs on, by the CPUID instruction; needs no privilege.

    Raises:
        UnreadableInput: this machine is not x86-64, or allows neither executable memory nor /dev/cpu/N/cpuid.
    """
    from fpstate.cpu.host import read_host  # noqa: PLC0415  ctypes and mmap

    return conclude(read_host(), name="this host", source="the CPUID instruction", catalogue=catalogue)


def by_name(name: str, *, catalogue: Catalogue = CATALOGUE) -> Cpu:
    """Return the CPU called *name* in the built-in table, by name or alias.

    Raises:
        UsageError: the table has no such CPU; the message suggests near misses.
    """
    from fpstate.cpu import table  # noqa: PLC0415  parses TOML
    from fpstate.cpu.named import dump_of  # noqa: PLC0415

    row = table.find(name)
    source = f"built-in table ({row.confidence}): {row.source}"
    return conclude(dump_of(row), name=row.name, source=source, catalogue=catalogue)


def load(
    path: str | os.PathLike[str],
    *,
    index: int | None = None,
    base: str | None = None,
    catalogue: Catalogue = CATALOGUE,
    stdin: BinaryIO | None = None,
) -> Cpu:
    """Return the CPU that a file tells of.

    Args:
        path: a file in any of the known formats, or ``-`` for standard input.
        index: which logical CPU or boot of the file, from 0; None is the first CPU, or the last boot of a log.
        base: for a CPU template, the CPU it changes: ``host``, a name of the built-in table, or a file.
        catalogue: the components known.
        stdin: what ``-`` reads; standard input if None.

    Raises:
        UnreadableInput: the file cannot be read or is of no known kind.
        UsageError: the file has no CPU number *index*.
        CannotTell: it is a template and *base* is None, or it does not show leaf 0DH.
    """
    path = os.fspath(path)
    where = _where(path)
    dumps = _dumps(path, stdin)
    boots = all(log_only(dump.leaves, dump.boot_log) for dump in dumps)
    if index is None:
        index = len(dumps) - 1 if boots else 0
    if not 0 <= index < len(dumps):
        raise UsageError(f"{where} has no CPU number {index}", cure=f"it has {len(dumps)}, from 0")
    dump = dumps[index]
    if any(_content(d) != _content(dump) for d in dumps):
        what = "different boots" if boots else "CPUs with different leaves 0DH"
        note = f"{where} has {len(dumps)} {what}; this is number {index}, counted from 0 (--index)"
        dump = replace(dump, notes=(*dump.notes, note))
    return _conclude_file(dump, path, base, catalogue)


def load_all(
    path: str | os.PathLike[str], *, catalogue: Catalogue = CATALOGUE, stdin: BinaryIO | None = None
) -> list[Cpu]:
    """Return every logical CPU of a file, one for each distinct leaf 0DH, in file order.

    Raises:
        UnreadableInput: the file cannot be read or is of no known kind.
        CannotTell: it is a CPU template, or a CPU in it does not show leaf 0DH.
    """
    seen: list[object] = []
    cpus = []
    path = os.fspath(path)
    for dump in _dumps(path, stdin):
        key = (*_content(dump), dump.modifiers)
        if key not in seen:
            seen.append(key)
            cpus.append(_conclude_file(dump, path, None, catalogue))
    return cpus


def _where(path: str) -> str:
    return "standard input" if path == "-" else path


def _dumps(path: str, stdin: BinaryIO | None) -> list[Dump]:
    from fpstate.cpu.formats import open_source  # noqa: PLC0415  the readers

    return open_source(path, stdin=stdin)


def _conclude_file(dump: Dump, path: str, base: str | None, catalogue: Catalogue) -> Cpu:
    where = _where(path)
    name = dump.label or where
    source = f"{where} ({dump.format})"
    if base is not None and not dump.modifiers:
        raise UsageError(f"{where} is no CPU template: --base goes with one")
    if base is not None:
        below = named_or_file(base, catalogue)
        dump = Dump(format=dump.format, leaves=_modified(below, dump.modifiers), notes=dump.notes)
        name, source = f"{below.name} under {where}", f"{source} applied to {below.source}"
    return conclude(dump, name=name, source=source, catalogue=catalogue)


def named_or_file(base: str, catalogue: Catalogue = CATALOGUE) -> Cpu:
    """Return this host for ``host``, else the CPU of the built-in table, else that of a file with / or . in its path.

    Raises:
        UsageError: the table has no such CPU, and it is no path.
        UnreadableInput: the file cannot be read or is of no known kind.
    """
    if base == "host":
        return this_host(catalogue=catalogue)
    try:
        return by_name(base, catalogue=catalogue)
    except UsageError:
        if "/" not in base and "." not in base:
            raise
        return load(base, catalogue=catalogue)


def _modified(below: Cpu, modifiers: tuple[Modifier, ...]) -> dict[tuple[int, int], Registers]:
    """Apply a template's forced bits to the leaves of the CPU below it.

    The sizes for what is enabled are what KVM computes for a guest at reset: only x87 is.
    """
    leaves = dict(below.leaves)
    for subleaf, computed in ((0, True), (1, bool(leaves.get((0xD, 1), (0,))[0] & 0b1010))):
        if (0xD, subleaf) in leaves:
            eax, _, ecx, edx = leaves[0xD, subleaf]
            leaves[0xD, subleaf] = (eax, MIN_SIZE if computed else 0, ecx, edx)
    for change in modifiers:
        registers = list(leaves.get((change.leaf, change.subleaf), (0, 0, 0, 0)))
        registers[change.register] = registers[change.register] & ~change.mask | change.value
        leaves[change.leaf, change.subleaf] = (registers[0], registers[1], registers[2], registers[3])
    return leaves


def _content(dump: Dump) -> tuple[object, ...]:
    """Return what makes two CPUs, or two boots, differ in extended state."""
    return {key: registers for key, registers in dump.leaves.items() if key[0] == 0xD}, dump.boot_log
