"""The verdict on a policy: every property, proven, holding, or broken by a shortest run.

For each class of components and each kind of context there is one model.  The induction is tried first; where it does
not go through, and where it is asked for, every state is visited.  Models that come out alike, because the policies do
not differ on the component, are checked once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from fpstate.cpu.model import Cpu
from fpstate.errors import UsageError
from fpstate.linux.boot import boot
from fpstate.linux.config import BootConfig
from fpstate.linux.kernel import Kernel, Sets
from fpstate.linux.policy import Policy
from fpstate.linux.steps import Assumptions
from fpstate.verify.induction import Failure, prove
from fpstate.verify.invariants import invariants
from fpstate.verify.model import Shape, Subject, build
from fpstate.verify.properties import CLASSES, PROPERTIES, ComponentClass, property_of, static_verdicts
from fpstate.verify.search import Found, Limits, Run, search

__all__ = ["DEFAULT_SHAPE", "METHODS", "Finding", "Method", "Report", "Status", "subjects", "verify"]

Status = Literal["proven", "holds", "violated", "unknown"]
Method = Literal["induction", "exhaustive", "both"]
METHODS: Final = ("induction", "exhaustive", "both")
DEFAULT_SHAPE: Final = Shape(2, 3, 1)
_SEVERITY: Final[dict[Status, int]] = {"violated": 3, "unknown": 2, "holds": 1, "proven": 0}
_MOST_AFTER_FAILURE: Final = 2_000_000
"""States to visit where the induction has failed: what it fails at is found among the first."""
_LARGE: Final = frozenset({"user-dynamic", "permissions"})
"""Classes whose control states are many: they are visited with one task less."""


@dataclass(slots=True)
class Finding:
    """The verdict on one property.

    Attributes:
        id: the property's.
        verdict: proven for any number; holds in the shape visited; violated; unknown.
        method: what gave the verdict.
        states: visited for it.
        seconds: taken.
        component: the class of components in which it is violated, or "".
        claim: the claim that is violated, or "".
        reason: why, where no run shows it.
        run: a shortest run that breaks it, or None.
        shape: the shape of that run.
        needs: the assumptions without which it would not be so good.
    """

    id: str
    verdict: Status = "proven"
    method: str = "static"
    states: int = 0
    seconds: float = 0.0
    component: str = ""
    claim: str = ""
    reason: str = ""
    run: Run | None = None
    shape: Shape | None = None
    needs: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """The verdict on a policy.

    Attributes:
        policy, cpu: what was verified.
        assumptions: what was taken for granted.
        findings: one a property, in the order of `PROPERTIES`.
        shape: what was visited.
        classes: component classes that were looked at, with the component that stood for each.
        failures: steps at which the induction does not go through, by component class.
        states: visited in all.
        memory: most bytes of visited states at a time.
        seconds: taken.
    """

    policy: Policy
    cpu: Cpu
    assumptions: Assumptions
    findings: list[Finding]
    shape: Shape
    classes: dict[str, int]
    failures: dict[str, list[Failure]]
    states: int = 0
    memory: int = 0
    seconds: float = 0.0

    @property
    def verdict(self) -> Status:
        """The worst of the verdicts."""
        return max((f.verdict for f in self.findings), key=_SEVERITY.__getitem__)

    @property
    def needs(self) -> list[str]:
        """The assumptions that any of the verdicts needs."""
        return sorted({need for finding in self.findings for need in finding.needs})


@dataclass(slots=True)
class _Outcome:
    """What came of one model: verdicts by claim, and what it took."""

    proven: bool
    failures: list[Failure]
    found: Found | None
    seconds: float


class _Memory:
    """Models already checked in this process."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[object, ...], _Outcome] = {}


_MEMORY: Final = _Memory()


def subjects(
    config: BootConfig, assumptions: Assumptions, kernel: type[Kernel] = Kernel
) -> Iterator[tuple[ComponentClass, int, Subject]]:
    """Yield each class that there is under *config*, the component that stands for it, and its models' subject."""
    sets = Sets.of(config)
    managed = sets.maximum | sets.independent | sets.raw_msr
    for kind in CLASSES:
        bit = next((b for b in kind.bits if managed >> b & 1), None)
        if bit is None:
            continue
        watched = 1 << bit
        beside = _lowest(sets.supervisor & sets.default) if kind.with_supervisor else 0
        if kind.with_supervisor and not beside:
            continue
        projected = replace(sets.project(watched | beside), watched=watched)
        yield kind, bit, Subject(config.policy, projected, watched, assumptions, kernel)


def _lowest(mask: int) -> int:
    return mask & -mask


def _key(subject: Subject, *rest: object) -> tuple[object, ...]:
    """Return what decides about the model of *subject*: of a policy the rules alone that the component meets."""
    rules: tuple[object, ...] = ()
    if subject.sets.dynamic:
        policy = subject.policy
        rules = (
            policy.kvm_drops_xfd,
            policy.permission_keeps_supervisor,
            policy.sigreturn_initialises_dynamic,
            policy.guest_xfd_waits_for_load,
            policy.user,
            policy.user_dynamic,
            policy.xfeature_max,
        )
    assumptions = subject.assumptions
    if not subject.sets.cet_kernel:
        assumptions = replace(assumptions, host_sss=False, fred=True)
    if not subject.sets.dynamic:
        assumptions = replace(assumptions, msrs_first=True)
    return (subject.sets, subject.watched, assumptions, subject.kernel, rules, *rest)


@dataclass(frozen=True, slots=True)
class _Job:
    """One model to check, and what to call it."""

    subject: Subject
    focus: str
    shape: Shape
    method: Method
    name: str


Progress = Callable[[str, Found], None]


def _outcome(job: _Job, progress: Progress | None) -> _Outcome:
    key = _key(job.subject, job.focus, job.shape, job.method)
    if key not in _MEMORY.outcomes:
        _MEMORY.outcomes[key] = _check(job, progress)
    return _MEMORY.outcomes[key]


def _check(job: _Job, progress: Progress | None) -> _Outcome:
    started = time.perf_counter()
    proven, failures = False, []
    if job.method != "exhaustive":
        induction = prove(job.subject, "guest0" if job.focus.startswith("guest") else "task0")
        proven, failures = induction.proven, induction.failures
    found = None
    if not proven or job.method != "induction":
        model = build(job.subject, job.shape, job.focus, _claimed_invariants)
        report = None if progress is None else lambda found: progress(f"{job.name}, {job.focus}", found)
        found = search(model, Limits(states=_MOST_AFTER_FAILURE if failures else None), report)
    return _Outcome(proven, failures, found, time.perf_counter() - started)


def _claimed_invariants(w: object) -> Iterator[tuple[str, object]]:
    """Yield the clauses that are part of a property; the others only carry the induction."""
    for name, holds in invariants(w):  # type: ignore[arg-type]
        if property_of(name):
            yield name, holds


def verify(
    cpu: Cpu,
    policy: Policy,
    *,
    shape: Shape = DEFAULT_SHAPE,
    assumptions: Assumptions | None = None,
    method: Method = "both",
    kernel: type[Kernel] = Kernel,
    classes: Sequence[str] | None = None,
    needs: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Verify *policy* on *cpu*.

    Args:
        cpu: the CPU: which components there are.
        policy: the design.
        shape: CPUs, tasks and vCPUs of the exhaustive search.
        assumptions: what is taken for granted; the usual ones if None.
        method: ``"induction"``, with a search only where it fails; ``"exhaustive"``; or ``"both"``.
        kernel: the kernel; a bug of history is a class of its own.
        classes: names of the component classes to look at; all if None.
        needs: find out which assumptions the verdicts need.
        progress: called after every level of a search with what is being searched.

    Raises:
        UsageError: the kernel does not boot with XSAVE, or the shape is impossible.
        CannotTell: the source of *cpu* lacks a number that the boot depends on.
    """
    if not 0 <= shape.vcpus <= shape.tasks or min(shape.cpus, shape.tasks) < 1:
        raise UsageError("there must be at least one CPU and one task, and no more vCPUs than tasks")
    config = boot(cpu, policy)
    if config.fate != "xsave":
        raise UsageError(f"{policy.name} does not use XSAVE on {cpu.name}: {config.panic or config.xsave_disabled}")
    options = _Options(shape, assumptions or Assumptions(), method, kernel, tuple(classes) if classes else None)
    report = _Verification(config, options, progress).report()
    if needs:
        _find_needs(report, config, options)
    return report


@dataclass(frozen=True, slots=True)
class _Options:
    """The arguments of `verify`."""

    shape: Shape
    assumptions: Assumptions
    method: Method
    kernel: type[Kernel]
    classes: tuple[str, ...] | None


class _Verification:
    """One policy's models, one after the other."""

    def __init__(self, config: BootConfig, options: _Options, progress: Progress | None) -> None:
        self.config, self.options, self.progress = config, options, progress
        self.findings = {name: Finding(name) for name in PROPERTIES}
        findings = list(self.findings.values())
        self.result = Report(config.policy, config.cpu, options.assumptions, findings, options.shape, {}, {})

    def report(self) -> Report:
        started = time.perf_counter()
        sets = Sets.of(self.config)
        for name, (verdict, reason, needs) in static_verdicts(self.config, sets, self.options.assumptions).items():
            finding = self.findings[name]
            finding.verdict, finding.reason, finding.needs = verdict, reason, list(needs)
        wanted = self.options.classes
        for kind, bit, subject in subjects(self.config, self.options.assumptions, self.options.kernel):
            if wanted is None or kind.name in wanted:
                self.result.classes[kind.name] = bit
                self._class(kind, subject)
        self.result.seconds = time.perf_counter() - started
        return self.result

    def _class(self, kind: ComponentClass, subject: Subject) -> None:
        shape = self.options.shape
        if kind.name in _LARGE:
            shape = Shape(shape.cpus, max(1, shape.tasks - 1), min(shape.vcpus, max(1, shape.tasks - 1)))
        if kind.with_supervisor:
            shape = Shape(1, shape.tasks, shape.vcpus)
        for focus in shape.foci()[:1] if kind.with_supervisor else shape.foci():
            outcome = _outcome(_Job(subject, focus, shape, self.options.method, kind.name), self.progress)
            if outcome.failures:
                self.result.failures.setdefault(kind.name, []).extend(outcome.failures)
            self._merge(kind, shape, outcome)

    def _merge(self, kind: ComponentClass, shape: Shape, outcome: _Outcome) -> None:
        found = outcome.found
        states = found.states if found else 0
        self.result.states += states
        self.result.memory = max(self.result.memory, found.memory if found else 0)
        broken = {property_of(b.property): b for b in (found.broken if found else ())}
        usual: Status = "proven" if outcome.proven else "holds" if found and found.complete else "unknown"
        for finding in self.findings.values():
            if finding.id in _STATIC:
                continue
            finding.states += states
            finding.seconds += outcome.seconds
            verdict: Status = "violated" if finding.id in broken else usual
            if _SEVERITY[verdict] > _SEVERITY[finding.verdict]:
                finding.verdict = verdict
                finding.method = "exhaustive"
                if finding.id in broken:
                    finding.run, finding.shape = broken[finding.id].run, shape
                    finding.component, finding.claim = kind.name, broken[finding.id].property
            elif finding.verdict == "proven" and finding.method == "static":
                finding.method = "induction"


_STATIC: Final = frozenset({"P5", "P6", "P15", "P17", "P19"})

_ALTERNATIVES: Final[tuple[tuple[str, dict[str, bool], str], ...]] = (
    ("host-sss off", {"host_sss": True}, "cet-kernel"),
    ("msrs-first on", {"msrs_first": False}, "user-dynamic"),
)
"""An assumption, what it is to do without it, and the class that could tell the difference."""


def _find_needs(report: Report, config: BootConfig, options: _Options) -> None:
    """Verify again without each assumption, where that could matter, and note which verdicts get worse."""
    shape = Shape(min(2, options.shape.cpus), min(2, options.shape.tasks), min(1, options.shape.vcpus))
    method: Method = "exhaustive" if options.method == "exhaustive" else "induction"
    for need, change, name in _ALTERNATIVES:
        other = replace(options.assumptions, **change)
        if other == options.assumptions or name not in report.classes:
            continue
        changed = replace(options, shape=shape, method=method, assumptions=other, classes=(name,))
        without = _Verification(config, changed, None).report()
        for finding, worse in zip(report.findings, without.findings, strict=True):
            if worse.verdict == "violated" != finding.verdict and need not in finding.needs:
                finding.needs.append(need)
