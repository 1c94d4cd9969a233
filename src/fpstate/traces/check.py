"""A recording held against the model of the kernel that made it: masks, and what may follow what.

`Check` takes block after block, and parts that were checked apart are joined without loss.  The rules are
`fpstate.traces.rules`; what is known of a kernel's masks is `fpstate.traces.expected`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from fpstate.traces.columns import ABSENT, CODES, EVENTS, LOST, MISSING, Block
from fpstate.traces.expected import Expected
from fpstate.traces.fpstates import Fpstates, Owner, Seen
from fpstate.traces.losses import Losses
from fpstate.traces.rules import RULES
from fpstate.traces.succession import Broken, Order
from fpstate.xfeatures import CATALOGUE, COMPACTED, mask_of

__all__ = ["SHOWN", "Check", "Checked", "Finding"]

SHOWN: Final = 20
"""Findings of one rule that are told one by one; all of them are counted."""
_KVM: Final = CODES["kvm_fpu"]
_REAL: Final = mask_of(row.bit for row in CATALOGUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One event that breaks a rule.

    Attributes:
        rule: its id.
        event: the tracepoint.
        time: of the trace's clock.
        cpu, pid: where it happened, and who ran.
        task: the thread's name, "" if it is not known.
        message: what is wrong.
        count: how many events of this thread are the same in this.
    """

    rule: str
    event: str
    time: int
    cpu: int
    pid: int
    task: str
    message: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What came of it.

    Attributes:
        events: by name, how many there were.
        lost: events lost, as far as counted.
        losses: how often some were lost.
        findings: in order of time, `SHOWN` of each rule at most.
        totals: by rule, how many events break it.
        masks: XCOMP_BV to how many events showed it; none if they are stale bytes.
        fpstates: whose fpstate it was, to XCOMP_BV to how many events.
        xfeatures: XSTATE_BV to how many events showed it.
        skipped_restores: how often a CPU still held what was to be loaded.
        swaps: how often KVM swapped fpstates, by its kvm_fpu events that follow an activated.
        expected: the model's masks; None if the CPU is not known.
        notes: what was not judged, and why.
        untold: whether a rule that applies could not be judged at all.
    """

    events: Mapping[str, int]
    lost: int
    losses: int
    findings: tuple[Finding, ...]
    totals: Mapping[str, int]
    masks: Mapping[int, int]
    fpstates: Mapping[str, Mapping[int, int]]
    xfeatures: Mapping[int, int]
    skipped_restores: int
    swaps: int
    expected: Expected | None
    notes: tuple[str, ...]
    untold: bool


class Check:
    """The rules over a recording.

    Args:
        expected: the masks of the kernel that was traced; None judges only what holds on every kernel.
    """

    def __init__(self, expected: Expected | None = None) -> None:
        self._expected = expected
        self._counts = np.zeros(len(EVENTS), np.int64)
        self._losses, self._fpstates, self._order = Losses(), Fpstates(), Order()

    def feed(self, block: Block) -> None:
        """Take in a block."""
        self._add(np.bincount(block.code, minlength=len(EVENTS)))
        self._losses.feed(block)
        self._fpstates.feed(block)
        self._order.feed(block)

    def join(self, later: Check) -> None:
        """Take in a later part of the same recording."""
        self._add(later._counts)
        self._losses.join(later._losses)
        self._fpstates.join(later._fpstates)
        self._order.join(later._order)

    def result(self, names: Sequence[str], comms: Mapping[int, str]) -> Checked:
        """Return what came of it; *names* and *comms* are the recording's own, once it was read."""
        seen = self._fpstates.seen()
        known = self._knows_masks(seen)
        losses = self._losses
        found = [*self._mask_findings(seen)] if known else []
        found += self._order_findings()
        found.sort(key=lambda f: (f.time, f.cpu, f.pid, f.rule))
        totals = {name: sum(f.count for f in found if f.rule == name) for name in RULES}
        for name, broken in self._order.broken(losses):
            totals[name] += broken.more
        masks = seen if known else Seen()
        return Checked(
            events={names[code]: n for code, n in enumerate(self._counts.tolist()) if n and code != LOST},
            lost=losses.count,
            losses=losses.rows,
            findings=tuple(_named(_first_of_each(found), comms)),
            totals={name: total for name, total in totals.items() if total},
            masks=_tally(masks, masks.xcomp_bv),
            fpstates={
                owner.name.lower(): tally
                for owner in Owner
                if (tally := _tally(part := masks.take(masks.owner == owner), part.xcomp_bv))
            },
            xfeatures=_tally(masks, masks.xfeatures),
            skipped_restores=self._order.skipped,
            swaps=self._order.swaps,
            expected=self._expected,
            notes=tuple(self._notes(seen, known=known)),
            untold=bool(len(seen)) and self._expected is None and known,
        )

    def _add(self, counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        size = max(len(self._counts), len(counts))
        self._counts = np.pad(self._counts, (0, size - len(self._counts))) + np.pad(counts, (0, size - len(counts)))

    def _count(self, name: str) -> int:
        return int(self._counts[CODES[name]])

    # -- masks -------------------------------------------------------------------------------------------------------

    def _knows_masks(self, seen: Seen) -> bool:
        """Whether the events have masks, and not what was left in the buffer.

        Without CPUID.1:ECX.OSXSAVE the tracepoints do not fill them in, and the record keeps old bytes: text, pointers.
        A kernel's own mistake would hardly name components that no CPU has, twice and differently.
        """
        if self._expected is not None and not self._expected.uses_xsave:
            return False
        real = np.uint64(_REAL | (self._expected.possible if self._expected else 0))
        strange = (seen.xfeatures & ~real) | (seen.xcomp_bv & ~real & ~np.uint64(COMPACTED))
        return not self._fpstates.uncounted and len(np.unique(strange[strange != 0])) < 2

    def _mask_findings(self, seen: Seen) -> Iterator[Finding]:
        compacted = self._expected.compacted if self._expected else _mostly_compacted(seen)
        owned = self._owners_matter()
        flips = self._both_kinds(seen) if owned else set()
        for pid, number, code, xfeatures, xcomp_bv, count, time, cpu in zip(
            *(column.tolist() for column in seen.columns()), strict=True
        ):
            owner = Owner(number) if owned or number == Owner.CHILD else Owner.UNKNOWN
            wrong = self._wrong(owner, xfeatures, xcomp_bv, compacted=compacted, flips=pid in flips)
            if wrong is not None:
                rule, message = wrong
                yield Finding(
                    rule=rule,
                    event=EVENTS[code].name,
                    time=time,
                    cpu=cpu,
                    pid=pid,
                    task="",
                    message=message,
                    count=count,
                )

    def _owners_matter(self) -> bool:
        """Whether tasks' and guests' fpstates can be told apart: kvm_fpu was recorded, and nothing was lost."""
        return not self._losses.rows and self._count("kvm_fpu") > 0 and self._count("x86_fpu_regs_activated") > 0

    def _both_kinds(self, seen: Seen) -> set[int]:
        """Threads without kvm_fpu that show a task's fpstate and a guest's; one that stays in KVM_RUN shows one."""
        if self._expected is None or self._expected.task == self._expected.guest:
            return set()
        rows = seen.take(seen.owner == Owner.UNKNOWN)
        kinds: dict[int, set[bool]] = {}
        for pid, xcomp_bv in zip(rows.pid.tolist(), rows.xcomp_bv.tolist(), strict=True):
            kinds.setdefault(pid, set()).add(self._expected.is_guest(xcomp_bv))
        return {pid for pid, both in kinds.items() if len(both) == 2}

    def _wrong(
        self, owner: Owner, xfeatures: int, xcomp_bv: int, *, compacted: bool, flips: bool
    ) -> tuple[str, str] | None:
        """Return the rule that an event's masks break and how, or None."""
        if bool(xcomp_bv & COMPACTED) != compacted or (xcomp_bv and not xcomp_bv & COMPACTED):
            form = "has bit 63: fpstates are compacted" if compacted else "is 0: fpstates are in standard format"
            return "xcomp-format", f"XCOMP_BV {xcomp_bv:#x}, where this kernel's {form}"
        extra = xfeatures & ~xcomp_bv | xfeatures & COMPACTED if compacted else 0
        if extra:
            return "xstate-subset", f"XSTATE_BV {xfeatures:#x} has {extra:#x}, which XCOMP_BV {xcomp_bv:#x} lacks"
        expected = self._expected
        if expected is None:
            return None
        unknown = (xfeatures | xcomp_bv) & ~COMPACTED & ~expected.possible
        if unknown:
            kernel = f"{expected.policy} on {expected.cpu} enables {expected.possible:#x}"
            return "unknown-component", f"{expected.catalogue.names(unknown)} ({unknown:#x}): {kernel}"
        return _wrong_owner(expected, owner, xcomp_bv, flips=flips) if compacted else None

    # -- order -------------------------------------------------------------------------------------------------------

    def _order_findings(self) -> list[Finding]:
        return [finding for name, broken in self._order.broken(self._losses) for finding in _of_rows(name, broken)]

    # -- what was not judged -----------------------------------------------------------------------------------------

    def _notes(self, seen: Seen, *, known: bool) -> Iterator[str]:
        if self._losses.rows:
            yield (
                f"events were lost {self._losses.rows} times: what lies across is not judged, "
                "and guests' fpstates are not told from tasks'"
            )
        if not len(seen):
            yield "there are no x86_fpu events with masks"
            return
        if not known:
            yield self._why_stale()
        elif self._expected is None:
            yield (
                "cannot tell which masks this kernel may have: the recording does not name its CPU "
                "(give it: --cpu NAME, or --host)"
            )
        if not self._count("x86_fpu_regs_activated"):
            yield "x86_fpu_regs_activated was not recorded: no rule about loading is judged"
        if not self._count("kvm_fpu"):
            yield "there are no kvm_fpu events: guests' fpstates, if any, are not told from tasks'"
        yield from self._resident(seen)

    def _why_stale(self) -> str:
        if self._expected is not None and not self._expected.uses_xsave:
            return "this kernel does not use XSAVE: its events have no masks, and no rule about masks is judged"
        return (
            "the masks are stale bytes: the machine ran without OSXSAVE (CPUID.1:ECX[27] = 0), where the tracepoints "
            "do not fill them in; no rule about masks is judged"
        )

    def _resident(self, seen: Seen) -> Iterator[str]:
        """Tell of threads that show nothing but a guest's fpstate and never entered or left KVM_RUN."""
        expected = self._expected
        if expected is None or not self._owners_matter() or not expected.guest_only:
            return
        rows = seen.take(seen.owner == Owner.UNKNOWN)
        alike = [expected.is_guest(value) for value in rows.xcomp_bv.tolist()]
        pids = set(rows.pid[np.array(alike, np.bool_)].tolist()) - self._both_kinds(seen)
        if pids:
            yield (
                f"{len(pids)} thread{'s' if len(pids) > 1 else ''} (pid {', '.join(map(str, sorted(pids)[:5]))}) showed"
                " only a guest's fpstate and no kvm_fpu: taken for vCPUs that stayed in KVM_RUN"
            )


def _wrong_owner(expected: Expected, owner: Owner, xcomp_bv: int, *, flips: bool) -> tuple[str, str] | None:
    """Return the rule about whose fpstate it is that XCOMP_BV breaks, or None."""
    if owner == Owner.GUEST:
        if expected.is_guest(xcomp_bv):
            return None
        return "guest-xcomp", f"XCOMP_BV {expected.says(xcomp_bv)} of a guest, not {expected.guest:#x}"
    if owner == Owner.CHILD and xcomp_bv & expected.dynamic:
        names = expected.catalogue.names(xcomp_bv & expected.dynamic)
        return "child-xcomp", f"XCOMP_BV {xcomp_bv:#x} of a new task has {names}, which is not inherited"
    if expected.is_task(xcomp_bv) or (owner == Owner.UNKNOWN and expected.is_guest(xcomp_bv) and not flips):
        return None
    foreign = xcomp_bv & expected.guest_only
    if foreign:
        return "guest-only", f"XCOMP_BV {xcomp_bv:#x} of a task has {expected.catalogue.names(foreign)}"
    name = "child-xcomp" if owner == Owner.CHILD else "task-xcomp"
    return name, f"XCOMP_BV {expected.says(xcomp_bv)} of a task, not {expected.task:#x}"


def _mostly_compacted(seen: Seen) -> bool:
    """The format of most fpstates that have anything in them."""
    compacted = (seen.xcomp_bv & np.uint64(COMPACTED)) != 0
    return bool(2 * seen.count[compacted].sum() >= seen.count.sum())


def _of_rows(name: str, broken: Broken) -> Iterator[Finding]:
    """Tell of rows that break a rule about order."""
    before = zip(*(column.tolist() for column in broken.before.columns()), strict=True)
    after = zip(*(column.tolist() for column in broken.after.columns()), strict=True)
    for earlier, later in zip(before, after, strict=True):
        time, cpu, pid, code = later[:4]
        message = f"{_event(later)}, after {_event(earlier)} on CPU {earlier[1]}"
        yield Finding(rule=name, event=EVENTS[code].name, time=time, cpu=cpu, pid=pid, task="", message=message)


def _event(row: tuple[int, ...]) -> str:
    """Say what one row is, in short."""
    code, flag, fpu = row[3], row[4], row[5]
    if code == _KVM:
        return "kvm_fpu " + {0: "unload", 1: "load", ABSENT: "(unknown)"}.get(flag, str(flag))
    name = EVENTS[code].name.removeprefix("x86_fpu_").removeprefix("regs_")
    return name if fpu == MISSING else f"{name} of {fpu:#x}"


def _first_of_each(findings: Sequence[Finding]) -> list[Finding]:
    """Return the first of each rule, in their order."""
    left = dict.fromkeys(RULES, SHOWN)
    kept = []
    for finding in findings:
        left[finding.rule] -= 1
        if left[finding.rule] >= 0:
            kept.append(finding)
    return kept


def _named(findings: Sequence[Finding], comms: Mapping[int, str]) -> Iterator[Finding]:
    """Give the findings with the names of their threads."""
    for finding in findings:
        yield replace(finding, task=comms.get(finding.pid, ""))


def _tally(seen: Seen, values: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> dict[int, int]:
    """Return how many events showed each value, the most frequent first."""
    found, inverse = np.unique(values, return_inverse=True)
    counts = np.zeros(len(found), np.int64)
    np.add.at(counts, inverse, seen.count)
    pairs = zip(found.tolist(), counts.tolist(), strict=True)
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))
