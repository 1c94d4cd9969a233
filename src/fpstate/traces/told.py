"""What follows from a report's sums: by task, by component, by vCPU thread and by CPU.

Bytes are those of components that an instruction moved, as the CPU lays them out: a save writes what XSTATE_BV then
has, a load reads what it has (SDM 13.8, 13.11).  XSAVES may leave out what has not changed since the load: so a save's
bytes are the most that it wrote.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from fpstate import cpu as cpus
from fpstate import layout
from fpstate.cpu.model import Cpu
from fpstate.errors import FpstateError
from fpstate.traces.analyse import About
from fpstate.traces.bins import Bins
from fpstate.traces.columns import CODES, MISSING
from fpstate.traces.report import ACTIVATED, DEACTIVATED, DROPPED, EVERY, Report, middle
from fpstate.traces.tally import Tally
from fpstate.traces.trace import Facts
from fpstate.xfeatures import AVX512, COMPACTED, XTILE, bits

__all__ = ["Component", "Owner", "Task", "Told", "Vcpu", "Wait", "recorded_cpu", "tell"]

_STALE_SHARE: Final = 0.1
"""Of all x86_fpu events: one damaged event is no machine without OSXSAVE."""

Row: TypeAlias = dict[str, int]


@dataclass(slots=True, kw_only=True)
class Task:
    """One thread.  Bytes are None where the CPU's layout is not known.

    Attributes:
        pid: its number; two threads that had it one after the other are one here.
        loads: activations.
        saves: deactivations.
        skipped: restores that were spared: its registers were still there.
        loaded, saved, spared: bytes of those.
        in_use: time from an activation to the next event on that CPU.
        kept: time from a save until somebody else took the registers, or it came back.
        xfeatures: every bit that was ever in its XSTATE_BV.
        xcomp_bv: the values of its XCOMP_BV, in ascending order.
        avx512, amx: saves with any component of these.
    """

    pid: int
    loads: int = 0
    saves: int = 0
    skipped: int = 0
    loaded: int | None = 0
    saved: int | None = 0
    spared: int | None = 0
    in_use: int = 0
    kept: int = 0
    xfeatures: int = 0
    xcomp_bv: set[int] = field(default_factory=set)
    avx512: int = 0
    amx: int = 0


@dataclass(slots=True, kw_only=True)
class Component:
    """One component in use.

    Attributes:
        bit: its number.
        loads, saves: with its bit in XSTATE_BV.
        first, last: time of the first and the last x86_fpu event with it.
        tasks: threads that had it.
        over_time: its saves in each bin of `Told.bins`; empty if there are none, or one thread alone is told of.
    """

    bit: int
    loads: int = 0
    saves: int = 0
    first: int = MISSING
    last: int = 0
    tasks: set[int] = field(default_factory=set)
    over_time: list[int] = field(default_factory=list)


class Wait(NamedTuple):
    """Times of one kind: how many, their sum, the least, the middle one within 7%, and the greatest."""

    n: int
    total: int
    least: int
    middle: float
    greatest: int


@dataclass(slots=True, kw_only=True)
class Vcpu:
    """One vCPU thread.

    Attributes:
        pid: its number.
        vcpu_ids: the least and the greatest that its kvm_entry events show; None if there is none.
        loads, unloads: of the guest FPU (kvm_fpu).
        user_exits: to user space (kvm_userspace_exit).
        entries, exits: of the guest.
        guest_xcomp_bv, own_xcomp_bv: of the fpstate that was swapped in, and of that which was swapped back.
        guest_xfeatures: every bit that was in XSTATE_BV as the guest's was swapped in.
        waits: by `report.LOADED`, `AWAY` and `BETWEEN_LOADS`.
    """

    pid: int
    vcpu_ids: tuple[int, int] | None = None
    loads: int = 0
    unloads: int = 0
    user_exits: int = 0
    entries: int = 0
    exits: int = 0
    guest_xcomp_bv: set[int] = field(default_factory=set)
    own_xcomp_bv: set[int] = field(default_factory=set)
    guest_xfeatures: int = 0
    waits: dict[int, Wait] = field(default_factory=dict)

    @property
    def reloads_per_exit(self) -> float | None:
        """Loads of the guest FPU for each exit to user space; None where no such exit was recorded."""
        return self.loads / self.user_exits if self.user_exits else None


class Owner(NamedTuple):
    """Who owned a CPU's registers how long: in use, and kept after a save."""

    cpu: int
    pid: int
    in_use: int
    kept: int


@dataclass(slots=True, kw_only=True)
class Told:
    """All of it.

    Attributes:
        about: the recording.
        cpu: whose layout makes the bytes; None if it is not known.
        remarks: what could not be told, and why.
        stale: whether the masks are what a machine without OSXSAVE leaves there.
        impossible: x86_fpu events with masks that no image has.
        events: their number by name.
        lost, lost_uncounted: see `Report`.
        first, last: time of the first and the last event; both 0 if there is none.
        tasks: those with most loads and saves first.
        components: in ascending order.
        saves: all of them, in each bin; empty as `Component.over_time`.
        bins: their numbers; times `bin` is the start of one.
        bin: their width.
        formats: XCOMP_BV to the number of x86_fpu events with it.
        vcpus: by number.
        owners: by CPU, the longest first.
        held: see `Report.held`.
    """

    about: About
    cpu: Cpu | None
    remarks: list[str]
    stale: bool
    impossible: int
    events: dict[str, int]
    lost: int
    lost_uncounted: int
    first: int
    last: int
    tasks: list[Task]
    components: list[Component]
    saves: list[int]
    bins: range
    bin: int
    formats: dict[int, int]
    vcpus: list[Vcpu]
    owners: list[Owner]
    held: Bins

    def name(self, pid: int) -> str:
        """Return the last known name of a thread, or ""."""
        return self.about.comms.get(pid, "")

    def timeline(self, columns: int) -> dict[int, dict[int, dict[int, list[int]]]]:
        """Return how long who owned the registers: by CPU, column of equal parts of `bins`, and thread: in use, kept.

        CPUs and threads are those of `owners`.
        """
        wanted = {(owner.cpu, owner.pid) for owner in self.owners}
        span = self.held.span()
        lanes: dict[int, dict[int, dict[int, list[int]]]] = {owner.cpu: {} for owner in self.owners}
        for row in _rows(self.held):
            if (row["cpu"], row["pid"]) in wanted:
                column = (row["bin"] - span.start) * columns // len(span)
                cell = lanes[row["cpu"]].setdefault(column, {})
                cell.setdefault(row["pid"], [0, 0])[row["kept"]] += row["ns"]
        return lanes

    def size(self, xcomp_bv: int) -> int | None:
        """Return the bytes of an fpstate's image; None where the CPU's layout is not known."""
        if self.cpu is None or not xcomp_bv & COMPACTED or xcomp_bv & ~COMPACTED & ~self.cpu.mask:
            return None
        return self.cpu.compacted_size(xcomp_bv & ~COMPACTED)


def recorded_cpu(facts: Facts) -> tuple[Cpu | None, str]:
    """Return the CPU that a recording tells of; None and why if it tells of none that can be read."""
    if not facts.cpuid:
        return None, "the recording does not hold its CPU's CPUID: bytes are not known (--cpu names one)"
    try:
        return cpus.load("-", stdin=io.BytesIO(facts.cpuid.encode())), ""
    except FpstateError as refusal:
        return None, f"the CPUID in the recording cannot be read: {refusal}"


def tell(
    report: Report,
    about: About,
    cpu: Cpu | None = None,
    *,
    remark: str = "",
    task: int | None = None,
    on: int | None = None,
) -> Told:
    """Conclude from the sums of a whole recording.

    Args:
        report: the sums.
        about: the recording.
        cpu: the CPU that made it, or None.
        remark: why it is None.
        task: tell of this thread alone.
        on: tell who owned the registers of the CPU with this number alone.
    """
    masks = _rows(report.masks)
    fpu_events = sum(row["n"] for row in masks)
    wrong = sum(row["n"] for row in masks if row["xcomp_bv"] == MISSING)
    known = [row for row in masks if row["xcomp_bv"] != MISSING]
    stale = wrong > _STALE_SHARE * fpu_events or (fpu_events > 0 and not any(_any_bit(row) for row in known))
    remarks = [remark] if remark and fpu_events else []
    present = 0
    for row in known if not stale else ():
        present |= (row["xfeatures"] | row["xcomp_bv"]) & ~COMPACTED
    if stale:
        cpu = None
    elif cpu is not None and present & ~cpu.mask:
        beyond = cpu.catalogue.names(present & ~cpu.mask)
        remarks.append(f"{cpu.name} did not make this recording, whose masks have {beyond}: bytes are not known")
        cpu = None
    held = report.owners()
    tasks = _tasks(report, _measure(cpu), stale=stale)
    owners = _owners(held, tasks)
    span = report.used.span()
    series = {} if stale or task is not None else _series(report.used.columns(), span)
    if task is not None:
        known = [row for row in known if row["pid"] == task]
    return Told(
        about=about,
        cpu=cpu,
        remarks=remarks,
        stale=stale,
        impossible=wrong,
        events=_events(report, about.names),
        lost=report.lost,
        lost_uncounted=report.lost_uncounted,
        first=min(report.first, report.last),
        last=report.last,
        tasks=sorted(
            (each for each in tasks.values() if task in {None, each.pid}),
            key=lambda task: (-task.loads - task.saves, task.pid),
        ),
        components=[] if stale else _components(known, series),
        saves=series.get(EVERY, []),
        bins=span,
        bin=1 << report.used.width,
        formats={} if stale else _formats(known),
        vcpus=[each for each in _vcpus(report, stale=stale) if task in {None, each.pid}],
        owners=[each for each in owners if on in {None, each.cpu} and task in {None, each.pid}],
        held=held,
    )


def _rows(tally: Tally | Bins) -> list[Row]:
    columns = tally.columns()
    lists = [column.tolist() for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _any_bit(row: Row) -> int:
    return row["xfeatures"] | row["xcomp_bv"]


def _events(report: Report, names: tuple[str, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for code, count in enumerate(report.events.tolist()):
        if count and code:
            name = names[code] if code < len(names) else f"event {code}"
            counts[name] = counts.get(name, 0) + count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _formats(masks: Iterable[Row]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for row in masks:
        counts[row["xcomp_bv"]] = counts.get(row["xcomp_bv"], 0) + row["n"]
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


Measure: TypeAlias = Callable[[int], int | None]


def _measure(cpu: Cpu | None) -> Measure:
    """Return what gives the bytes of a mask's components."""

    @cache
    def measure(xfeatures: int) -> int | None:
        if cpu is None or xfeatures == MISSING:
            return None
        return sum(slot.size for slot in layout.compacted(cpu, xfeatures).slots)

    return measure


def _sum(total: int | None, each: int | None, n: int) -> int | None:
    return None if total is None or each is None else total + each * n


def _tasks(report: Report, measure: Measure, *, stale: bool) -> dict[int, Task]:
    tasks: dict[int, Task] = {}
    for row in _rows(report.masks):
        if row["code"] not in {ACTIVATED, DEACTIVATED, DROPPED}:
            continue
        task = tasks.setdefault(row["pid"], Task(pid=row["pid"]))
        n, xfeatures = row["n"], row["xfeatures"]
        if row["code"] == ACTIVATED:
            task.loads += n
            task.loaded = _sum(task.loaded, measure(xfeatures), n)
        elif row["code"] == DEACTIVATED:
            task.saves += n
            task.saved = _sum(task.saved, measure(xfeatures), n)
        if not stale and row["xcomp_bv"] != MISSING:
            _mark(task, row)
    for row in _rows(report.skipped):
        task = tasks.setdefault(row["pid"], Task(pid=row["pid"]))
        task.skipped += row["n"]
        task.spared = _sum(task.spared, measure(row["xfeatures"]), row["n"])
    return tasks


def _mark(task: Task, row: Row) -> None:
    task.xfeatures |= row["xfeatures"]
    task.xcomp_bv.add(row["xcomp_bv"])
    if row["code"] == DEACTIVATED:
        task.avx512 += row["n"] if row["xfeatures"] & AVX512 else 0
        task.amx += row["n"] if row["xfeatures"] & XTILE else 0


def _owners(held: Bins, tasks: Mapping[int, Task]) -> list[Owner]:
    """Add the time up by CPU and task; give the tasks theirs."""
    times: dict[tuple[int, int], list[int]] = {}
    for row in _rows(held):
        times.setdefault((row["cpu"], row["pid"]), [0, 0])[row["kept"]] += row["ns"]
    for (_, pid), (in_use, kept) in times.items():
        if pid in tasks:
            tasks[pid].in_use += in_use
            tasks[pid].kept += kept
    owners = [Owner(cpu, pid, *spent) for (cpu, pid), spent in times.items()]
    return sorted(owners, key=lambda owner: (owner.cpu, -owner.in_use - owner.kept, owner.pid))


def _series(used: Mapping[str, Any], span: range) -> dict[int, list[int]]:
    series: dict[int, list[int]] = {}
    for component, at, n in zip(*(used[name].tolist() for name in ("component", "bin", "n")), strict=True):
        series.setdefault(component, [0] * len(span))[at - span.start] += n
    return series


def _components(masks: Iterable[Row], series: Mapping[int, list[int]]) -> list[Component]:
    found: dict[int, Component] = {}
    for row in masks:
        for bit in bits(row["xfeatures"]):
            each = found.setdefault(bit, Component(bit=bit, over_time=series.get(bit, [])))
            each.first, each.last = min(each.first, row["first"]), max(each.last, row["last"])
            each.tasks.add(row["pid"])
            each.loads += row["n"] if row["code"] == ACTIVATED else 0
            each.saves += row["n"] if row["code"] == DEACTIVATED else 0
    return [found[bit] for bit in sorted(found)]


def _vcpus(report: Report, *, stale: bool) -> list[Vcpu]:
    vcpus: dict[int, Vcpu] = {}
    for row in _rows(report.kvm):
        vcpu = vcpus.setdefault(row["pid"], Vcpu(pid=row["pid"]))
        if row["code"] == CODES["kvm_fpu"]:
            vcpu.loads += row["n"] if row["flag"] == 1 else 0
            vcpu.unloads += row["n"] if row["flag"] == 0 else 0
        vcpu.user_exits += row["n"] if row["code"] == CODES["kvm_userspace_exit"] else 0
        vcpu.entries += row["n"] if row["code"] == CODES["kvm_entry"] else 0
        vcpu.exits += row["n"] if row["code"] == CODES["kvm_exit"] else 0
    for row in _rows(report.vcpus):
        if row["last"] != MISSING:
            vcpus[row["pid"]].vcpu_ids = (row["first"], row["last"])
    for row in () if stale else _rows(report.swapped):
        vcpu = vcpus[row["pid"]]
        if row["xcomp_bv"] != MISSING:
            (vcpu.guest_xcomp_bv if row["flag"] == 1 else vcpu.own_xcomp_bv).add(row["xcomp_bv"])
            vcpu.guest_xfeatures |= row["xfeatures"] if row["flag"] == 1 else 0
    for (pid, kind), classes in _by_kind(report).items():
        vcpus[pid].waits[kind] = _wait(classes)
    return [vcpus[pid] for pid in sorted(vcpus)]


def _by_kind(report: Report) -> dict[tuple[int, int], list[Row]]:
    kinds: dict[tuple[int, int], list[Row]] = {}
    for row in _rows(report.waits):
        kinds.setdefault((row["pid"], row["kind"]), []).append(row)
    return kinds


def _wait(classes: list[Row]) -> Wait:
    """Sum up the size classes of one kind, in ascending order."""
    n = sum(row["n"] for row in classes)
    seen = 0
    for row in classes:
        seen += row["n"]
        if 2 * seen >= n:
            break
    least, greatest = min(row["first"] for row in classes), max(row["last"] for row in classes)
    about = min(max(middle(row["size"]), least), greatest)
    return Wait(n, sum(row["ns"] for row in classes), least, about, greatest)
