"""What a recording tells, as text and as a document."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Final

from fpstate.errors import printable
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.tables import bold, table, warn
from fpstate.traces.report import AWAY, BETWEEN_LOADS, LOADED
from fpstate.traces.told import Component, Task, Told, Vcpu, Wait
from fpstate.xfeatures import AVX512, CATALOGUE, XTILE, Catalogue

__all__ = ["Scale", "document", "documents", "text"]

_COLUMNS: Final = 48
"""Of a timeline in text."""
_MOST_TASKS: Final = 8
_MOST_CPUS: Final = 8
_MOST_VCPUS: Final = 6
_MOST_EVENTS: Final = 6
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SHADES: Final = " .:-=+*#"
_WAITS: Final = {LOADED: "loaded", AWAY: "away", BETWEEN_LOADS: "between_loads"}


class Scale:
    """How to write times: in nanoseconds and their multiples, or as the recording's clock counts."""

    def __init__(self, clock: str, *, nanoseconds: bool) -> None:
        self.clock, self.nanoseconds = clock, nanoseconds

    def __call__(self, time: float) -> str:
        """Return *time* in three digits."""
        if not self.nanoseconds:
            return f"{time:.3g} ticks" if time >= 1e6 else f"{time:.0f} ticks"
        for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
            if time >= size:
                return f"{time / size:.3g} {unit}"
        return f"{time:.0f} ns"


def documents(all_told: Sequence[Told]) -> Document:
    """Return the document of one recording, or of several a document each."""
    if len(all_told) == 1:
        return document(all_told[0])
    return {"schema": SCHEMA, "recordings": [document(told) for told in all_told]}


def document(told: Told) -> Document:
    """Return everything that is told; times as the clock counts."""
    about, catalogue = told.about, _catalogue(told)
    return {
        "schema": SCHEMA,
        "source": about.source,
        "format": about.format,
        "clock": about.clock,
        "nanoseconds": about.in_nanoseconds,
        "release": about.facts.release,
        "machine": about.facts.machine,
        "cpu": None if told.cpu is None else told.cpu.name,
        "remarks": told.remarks,
        "events": told.events,
        "lost": told.lost,
        "lost_uncounted": told.lost_uncounted,
        "damage": [f"{each.rule}: {each.text}" for each in about.damage],
        "first": told.first,
        "last": told.last,
        "stale": told.stale,
        "impossible": told.impossible,
        "xcomp_bv": [
            {"mask": hexmask(mask), "names": catalogue.names(mask), "events": n, "size": told.size(mask)}
            for mask, n in told.formats.items()
        ],
        "bin": told.bin,
        "bins_from": told.bins.start * told.bin,
        "saves_over_time": told.saves,
        "components": [_component(each, told, catalogue) for each in told.components],
        "tasks": [_task(each, told) for each in told.tasks],
        "vcpus": [_vcpu(each, told) for each in told.vcpus],
        "owners": [
            {"cpu": each.cpu, "pid": each.pid, "name": told.name(each.pid), "in_use": each.in_use, "kept": each.kept}
            for each in told.owners
        ],
    }


def _catalogue(told: Told) -> Catalogue:
    return CATALOGUE if told.cpu is None else told.cpu.catalogue


def _all_saves(told: Told) -> int:
    return sum(task.saves for task in told.tasks)


def _component(each: Component, told: Told, catalogue: Catalogue) -> Document:
    saves = _all_saves(told)
    return {
        "bit": each.bit,
        "name": catalogue.name(each.bit),
        "loads": each.loads,
        "saves": each.saves,
        "share": each.saves / saves if saves else None,
        "first": each.first,
        "last": each.last,
        "tasks": len(each.tasks),
        "over_time": each.over_time,
    }


def _task(task: Task, told: Told) -> Document:
    return {
        "pid": task.pid,
        "name": told.name(task.pid),
        **{name: getattr(task, name) for name in ("loads", "saves", "skipped")},
        **{f"bytes_{name}": getattr(task, name) for name in ("loaded", "saved", "spared")},
        **{name: getattr(task, name) for name in ("in_use", "kept")},
        "xfeatures": hexmask(task.xfeatures),
        "xcomp_bv": [hexmask(mask) for mask in sorted(task.xcomp_bv)],
        "avx512_saves": task.avx512,
        "amx_saves": task.amx,
    }


def _vcpu(vcpu: Vcpu, told: Told) -> Document:
    return {
        "pid": vcpu.pid,
        "name": told.name(vcpu.pid),
        "vcpu_ids": None if vcpu.vcpu_ids is None else list(vcpu.vcpu_ids),
        **{name: getattr(vcpu, name) for name in ("loads", "unloads", "user_exits", "reloads_per_exit")},
        **{name: getattr(vcpu, name) for name in ("entries", "exits")},
        "guest_xcomp_bv": [hexmask(mask) for mask in sorted(vcpu.guest_xcomp_bv)],
        "own_xcomp_bv": [hexmask(mask) for mask in sorted(vcpu.own_xcomp_bv)],
        "guest_xfeatures": hexmask(vcpu.guest_xfeatures),
        **{name: _wait(vcpu.waits.get(kind)) for kind, name in _WAITS.items()},
    }


def _wait(wait: Wait | None) -> Document | None:
    if wait is None:
        return None
    return {
        "times": wait.n,
        "total": wait.total,
        "least": wait.least,
        "middle": wait.middle,
        "greatest": wait.greatest,
    }


# -- the text ---------------------------------------------------------------------------------------------------------


def text(told: Told) -> str:
    """Return one screen: what there was, whose registers when, and the tasks, components and vCPUs that count."""
    scale = Scale(told.about.clock, nanoseconds=told.about.in_nanoseconds)
    letters = _letters(told)
    parts = [
        _head(told, scale),
        _owners(told, scale, letters),
        _tasks(told, scale, letters),
        _components(told, scale),
        _vcpus(told, scale),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(told: Told, scale: Scale) -> str:
    about = told.about
    machine = " on ".join(word for word in (about.facts.release, about.facts.machine) if word)
    lines = [f"{bold(printable(about.source))}  {about.format}{f', {printable(machine)}' if machine else ''}"]
    total = sum(told.events.values())
    lost = [f"{told.lost:,} lost"] if told.lost else []
    lost += [f"an unknown number lost at {told.lost_uncounted:,} places"] if told.lost_uncounted else []
    lines.append(
        f"{total:,} events in {scale(told.last - told.first)}, {warn(' and '.join(lost)) if lost else 'none lost'}"
    )
    named = [f"{printable(name)} {n:,}" for name, n in list(told.events.items())[:_MOST_EVENTS]]
    more = len(told.events) - len(named)
    lines.append(", ".join([*named, *([f"{more} other kinds"] if more else [])]))
    if told.stale:
        lines.append(
            f"{warn('the masks are stale')}: {told.impossible:,} x86_fpu events show masks that no image has, and the "
            "rest may be no better: a machine without OSXSAVE leaves them unset"
        )
    elif told.impossible:
        lines.append(
            f"{warn('masks that no image has')}: {told.impossible:,} x86_fpu events, left out of the masks below"
        )
    lines += [warn("note") + f": {printable(remark)}" for remark in told.remarks]
    return "\n".join(line for line in lines if line)


def _letters(told: Told) -> dict[int, str]:
    """Give letters to the threads that are listed and to those that owned registers longest."""
    times: dict[int, int] = {}
    for owner in told.owners:
        times[owner.pid] = times.get(owner.pid, 0) + owner.in_use + owner.kept
    longest = sorted(times, key=lambda pid: (-times[pid], pid))
    return dict(zip(longest, _LETTERS, strict=False))


def _owners(told: Told, scale: Scale, letters: dict[int, str]) -> str:
    lanes = told.timeline(_COLUMNS)
    if not lanes:
        return ""
    width = len(told.held.span()) * (1 << told.held.width) / _COLUMNS
    shown = dict(list(lanes.items())[:_MOST_CPUS])
    rows = []
    for cpu, cells in shown.items():
        strip = "".join(_cell(cells.get(column, {}), letters) for column in range(_COLUMNS))
        rows.append([f"CPU {cpu}", f"|{strip}|", _shares(told, cpu, letters)])
    title = f"who owns the registers, {scale(width)} a column (small: kept after a save, .: not known or nobody)"
    lines = [bold(title), table((), rows)]
    if len(lanes) > len(shown):
        lines.append(f"and {len(lanes) - len(shown)} more CPUs (--on N shows one, --json all)")
    return "\n".join(lines)


def _cell(owners: dict[int, list[int]], letters: dict[int, str]) -> str:
    if not owners:
        return "."
    pid, (in_use, kept) = max(owners.items(), key=lambda item: (sum(item[1]), -item[0]))
    letter = letters.get(pid, "?")
    return letter if in_use >= kept else letter.lower()


def _shares(told: Told, cpu: int, letters: dict[int, str]) -> str:
    there = [owner for owner in told.owners if owner.cpu == cpu]
    whole = max(told.last - told.first, 1)
    return ", ".join(
        f"{letters.get(each.pid, '?')} {100 * (each.in_use + each.kept) / whole:.0f}%" for each in there[:3]
    )


def _tasks(told: Told, scale: Scale, letters: dict[int, str]) -> str:
    if not told.tasks:
        return ""
    shown = told.tasks[:_MOST_TASKS]
    rows = [
        [
            letters.get(task.pid, ""),
            _called(told, task.pid),
            *(f"{n:,}" for n in (task.loads, task.saves, task.skipped)),
            *(_bytes(n) for n in (task.loaded, task.saved, task.spared)),
            scale(task.in_use),
            "" if told.stale else _catalogue(told).names(task.xfeatures),
        ]
        for task in shown
    ]
    headers = ("", "task", "loads", "saves", "skipped", "loaded", "saved", "spared", "in use", "components")
    lines = [table(headers, rows, right=(2, 3, 4, 5, 6, 7, 8))]
    if len(told.tasks) > len(shown):
        rest = told.tasks[len(shown) :]
        lines.append(
            f"and {len(rest):,} more with {sum(t.loads for t in rest):,} loads and {sum(t.saves for t in rest):,} saves"
        )
    for name, mask, count in (("AVX-512", AVX512, "avx512"), ("AMX", XTILE, "amx")):
        users = sorted((t for t in told.tasks if getattr(t, count)), key=lambda t: -int(getattr(t, count)))
        if users:
            named = ", ".join(f"{_called(told, t.pid)} {getattr(t, count):,}" for t in users[:4])
            more = f", {len(users) - 4} more" if len(users) > 4 else ""
            lines.append(f"{name} in use ({_catalogue(told).names(mask)}), saves: {named}{more}")
    return "\n".join(lines)


def _called(told: Told, pid: int) -> str:
    name = printable(told.name(pid))
    return f"{name} ({pid})" if name else str(pid)


def _bytes(n: int | None) -> str:
    if n is None:
        return "?"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n} B"


def _components(told: Told, scale: Scale) -> str:
    if not told.components:
        return ""
    saves = _all_saves(told)
    catalogue = _catalogue(told)
    rows = [
        [
            catalogue.name(each.bit),
            f"{each.saves:,}",
            f"{100 * each.saves / saves:.1f}%" if saves else "",
            f"{each.loads:,}",
            f"{len(each.tasks):,}",
            *(f"+{scale(time - told.first)}" for time in (each.first, each.last)),
            _shades(each.over_time, told.saves),
        ]
        for each in told.components
    ]
    headers = ("component", "saves", "share", "loads", "tasks", "first", "last", "share of saves over time")
    return table(headers, rows, right=(1, 2, 3, 4, 5, 6)) + "\n" + _formats(told)


def _shades(some: Sequence[int], every: Sequence[int]) -> str:
    """Return a strip: how dark a column is, is the component's share of the saves in it."""
    if not some:
        return ""
    columns = min(_COLUMNS // 2, len(every))
    of, all_of = [0] * columns, [0] * columns
    for at, (n, total) in enumerate(zip(some, every, strict=True)):
        of[at * columns // len(every)] += n
        all_of[at * columns // len(every)] += total
    top = len(_SHADES) - 1
    return "".join(_SHADES[-(-n * top // total) if total else 0] for n, total in zip(of, all_of, strict=True))


def _formats(told: Told) -> str:
    parts = []
    for mask, n in list(told.formats.items())[:4]:
        size = told.size(mask)
        parts.append(f"{hexmask(mask)}{f' ({size:,} bytes)' if size else ''} {n:,}")
    more = len(told.formats) - len(parts)
    return f"XCOMP_BV, events: {', '.join(parts)}{f', {more} more' if more else ''}"


def _vcpus(told: Told, scale: Scale) -> str:
    if not told.vcpus:
        return ""
    shown = told.vcpus[:_MOST_VCPUS]
    rows = [_vcpu_row(told, vcpu, scale) for vcpu in shown]
    headers = (
        "vCPU thread",
        "vCPU",
        "loads",
        "user exits",
        "loads/exit",
        "entries",
        "exits",
        "loaded",
        "between loads",
        "",
    )
    lines = [table(headers, rows, right=(2, 3, 4, 5, 6, 7, 8))]
    if len(told.vcpus) > len(shown):
        lines.append(f"and {len(told.vcpus) - len(shown):,} more (--json has all)")
    return "\n".join(lines)


def _vcpu_row(told: Told, vcpu: Vcpu, scale: Scale) -> list[str]:
    ratio = vcpu.reloads_per_exit
    ids = vcpu.vcpu_ids
    guest, own = (reduce(or_, masks, 0) for masks in (vcpu.guest_xcomp_bv, vcpu.own_xcomp_bv))
    beyond = guest & ~own if own else 0
    return [
        _called(told, vcpu.pid),
        "" if ids is None else str(ids[0]) if ids[0] == ids[1] else f"{ids[0]} to {ids[1]}",
        f"{vcpu.loads:,}",
        f"{vcpu.user_exits:,}" if "kvm_userspace_exit" in told.events else "?",
        "" if ratio is None else f"{ratio:.2f}",
        f"{vcpu.entries:,}",
        f"{vcpu.exits:,}",
        *(f"~{scale(vcpu.waits[kind].middle)}" if kind in vcpu.waits else "" for kind in (LOADED, BETWEEN_LOADS)),
        f"only the guest's fpstate has {_catalogue(told).names(beyond)}" if beyond else "",
    ]
