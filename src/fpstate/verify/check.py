"""The verdict on a policy: every property, proven, holding, or broken by a shortest run.

For each class of components and each kind of context there is one model.  The induction is tried first; where it does
not go through, and where it is asked for, every state is visited.  Models that come out alike, because the policies do
not differ on the component, are checked once.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from fpstate.cpu.model import Cpu
from fpstate.errors import UsageError
from fpstate.linux.boot import boot
from fpstate.linux.config import BootConfig
from fpstate.linux.kernel import Kernel, Sets
from fpstate.linux.policy import Policy
from fpstate.linux.steps import Assumptions, World
from fpstate.verify import cache
from fpstate.verify.invariants import invariants
from fpstate.verify.model import Subject, build
from fpstate.verify.properties import CLASSES, PROPERTIES, ComponentClass, property_of, static_verdicts
from fpstate.verify.question import DEFAULT_SHAPE, METHODS, Method, Options, Shape
from fpstate.verify.result import Failure, Outcome, Run, Taken

if TYPE_CHECKING:
    from fpstate.verify.induction import Induction
    from fpstate.verify.search import Found

__all__ = [
    "DEFAULT_SHAPE",
    "METHODS",
    "Finding",
    "Method",
    "Options",
    "Report",
    "Status",
    "claimed_invariants",
    "prepare",
    "subjects",
    "verify",
]

Status = Literal["proven", "holds", "violated", "unknown"]
_SEVERITY: Final[dict[Status, int]] = {"violated": 3, "unknown": 2, "holds": 1, "proven": 0}
_MOST_AFTER_FAILURE: Final = 400_000
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
        shape, focus: of that run.
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
    focus: str = ""
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
        seconds: of work, by however many processes, were it the only policy.
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


class _Memory:
    """Models already checked in this process, and proofs already tried."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[object, ...], Outcome] = {}
        self.inductions: dict[tuple[object, ...], Induction] = {}


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
    policy = subject.policy
    rules: tuple[object, ...] = (policy.switch_marks_next,)
    if subject.sets.pkru:
        rules += (policy.copies_pkru_always, policy.coredump_reads_pkru)
    if subject.sets.dynamic:
        rules += (
            policy.kvm_drops_xfd,
            policy.permission_keeps_supervisor,
            policy.sigreturn_initialises_dynamic,
            policy.guest_xfd_waits_for_load,
            policy.signal_updates_xfd,
            policy.user & subject.sets.tracked,
            policy.user_dynamic & subject.sets.tracked,
            subject.sets.dynamic < 1 << policy.xfeature_max,
        )
    assumptions = subject.assumptions
    if not subject.sets.cet_kernel:
        assumptions = replace(assumptions, host_sss=False, fred=True)
    if not subject.sets.dynamic:
        assumptions = replace(assumptions, msrs_first=True)
    return (subject.sets, subject.watched, assumptions, subject.kernel, rules, *rest)


_ALTERNATIVES: Final[tuple[tuple[str, dict[str, bool], str], ...]] = (
    ("host-sss off", {"host_sss": True}, "cet-kernel"),
    ("msrs-first on", {"msrs_first": False}, "user-dynamic"),
)
"""An assumption, what it is to do without it, and the class that could tell the difference."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One model to check, and what to call it."""

    subject: Subject
    focus: str
    shape: Shape
    method: Method
    name: str

    @property
    def key(self) -> tuple[object, ...]:
        """What decides about its outcome."""
        return _key(self.subject, self.focus, self.shape, self.method)

    @property
    def group(self) -> tuple[object, ...]:
        """What it has in common with the models of other contexts."""
        return _key(self.subject, self.shape, self.method)


Progress = Callable[[str, "Found"], None]


def _known(job: _Job, options: Options) -> Outcome | None:
    """Return the outcome of a model that was checked, here or in an earlier process."""
    if job.key not in _MEMORY.outcomes and options.cached:
        kept = cache.load(job.key)
        if kept is not None:
            _MEMORY.outcomes[job.key] = kept
    return _MEMORY.outcomes.get(job.key)


def _learn(job: _Job, outcome: Outcome, options: Options) -> Outcome:
    _MEMORY.outcomes[job.key] = outcome
    if options.cached:
        cache.save(job.key, outcome)
    return outcome


def _outcome(job: _Job, options: Options, progress: Progress | None) -> Outcome:
    return _known(job, options) or _learn(job, _check(job, progress), options)


def prepare(
    cpu: Cpu, policies: Sequence[Policy], options: Options, workers: int, done: Callable[[int, int], None]
) -> None:
    """Check the models of *policies* in several processes; `verify` then finds their outcomes.

    Args:
        cpu: as `verify` will have it.
        policies: those that it will be called with.
        options: as it will have them.
        workers: processes.
        done: called with how many groups of models are checked, of how many.
    """
    configs = [config for policy in policies if (config := boot(cpu, policy)).fate == "xsave"]
    groups = _groups((job for config in configs for _, job in _jobs(config, options)), options)
    if workers < 2 or len(groups) < 2:
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        _share_out(groups, options, pool, done)
        # Which assumptions a verdict needs depends on what was proven.
        groups = _groups((job for config in configs for job in _jobs_without_assumptions(config, options)), options)
        _share_out(groups, options, pool, done)


def _groups(jobs: Iterable[_Job], options: Options) -> list[list[_Job]]:
    """Return the jobs whose outcomes are not known, those that share a proof together, long ones first."""
    groups: dict[tuple[object, ...], dict[tuple[object, ...], _Job]] = {}
    for job in jobs:
        if _known(job, options) is None:
            groups.setdefault(job.group, {})[job.key] = job
    return sorted((list(group.values()) for group in groups.values()), key=lambda group: group[0].name not in _LARGE)


def _share_out(
    groups: list[list[_Job]], options: Options, pool: ProcessPoolExecutor, done: Callable[[int, int], None]
) -> None:
    running = {pool.submit(_check_all, group): group for group in groups}
    for count, future in enumerate(as_completed(running), 1):
        for job, outcome in zip(running[future], future.result(), strict=True):
            _learn(job, outcome, options)
        done(count, len(running))


def _check_all(jobs: Sequence[_Job]) -> list[Outcome]:
    """Check models that share a proof."""
    return [_check(job, None) for job in jobs]


def _jobs(config: BootConfig, options: Options) -> Iterator[tuple[ComponentClass, _Job]]:
    """Yield the models to check, by component class."""
    for kind, _, subject in subjects(config, options.assumptions, options.kernel):
        if options.classes is None or kind.name in options.classes:
            shape = _shape_for(kind, options.shape)
            for focus in shape.foci()[:1] if kind.with_supervisor else shape.foci():
                yield kind, _Job(subject, focus, shape, options.method, kind.name)


def _shape_for(kind: ComponentClass, shape: Shape) -> Shape:
    """Return the shape in which the models of a class are visited: smaller where control states are many."""
    tasks = max(1, shape.tasks - 1)
    if kind.with_supervisor:
        return Shape(1, tasks, min(shape.vcpus, tasks))
    return Shape(shape.cpus, tasks, min(shape.vcpus, tasks)) if kind.name in _LARGE else shape


def _without(options: Options, classes: Collection[str]) -> Iterator[tuple[str, Options]]:
    """Yield each assumption that may matter to *classes*, and the options of a quick verification without it."""
    shape = Shape(min(2, options.shape.cpus), min(2, options.shape.tasks), min(1, options.shape.vcpus))
    method: Method = "exhaustive" if options.method == "exhaustive" else "proof"
    for need, change, name in _ALTERNATIVES:
        other = replace(options.assumptions, **change)
        if other != options.assumptions and name in classes:
            yield need, replace(options, shape=shape, method=method, assumptions=other, classes=(name,))


def _jobs_without_assumptions(config: BootConfig, options: Options) -> Iterator[_Job]:
    proven: dict[str, bool] = {}
    for kind, job in _jobs(config, options):
        outcome = _known(job, options)
        proven[kind.name] = proven.get(kind.name, True) and outcome is not None and _may_get_worse(outcome, options)
    for _, changed in _without(options, [name for name, it_may in proven.items() if it_may]):
        for _, job in _jobs(config, changed):
            yield job


def _may_get_worse(outcome: Outcome, options: Options) -> bool:
    """Tell whether a quick verification can show more than this outcome: a proof that fails shows no run."""
    return outcome.proven or options.method == "exhaustive"


def _check(job: _Job, progress: Progress | None) -> Outcome:
    started = time.perf_counter()
    outcome = Outcome()
    if job.method != "exhaustive":
        _prove(job, outcome)
    if job.method != "proof" and (not outcome.proven or job.method != "induction"):
        _visit(job, outcome, progress)
    outcome.seconds = time.perf_counter() - started
    return outcome


def _prove(job: _Job, outcome: Outcome) -> None:
    focus = "guest0" if job.focus.startswith("guest") else "task0"
    thorough = job.method != "proof"
    key = _key(job.subject, focus, thorough)
    if key not in _MEMORY.inductions:
        from fpstate.verify.induction import prove  # noqa: PLC0415  z3, which kept outcomes do without

        _MEMORY.inductions[key] = prove(job.subject, focus, thorough=thorough)
    induction = _MEMORY.inductions[key]
    outcome.proven, outcome.failures = induction.proven, induction.failures


def _visit(job: _Job, outcome: Outcome, progress: Progress | None) -> None:
    from fpstate.verify.search import Limits, search  # noqa: PLC0415  NumPy, likewise

    model = build(job.subject, job.shape, job.focus, claimed_invariants)
    report = None if progress is None else lambda found: progress(f"{job.name}, {job.focus}", found)
    found = search(model, Limits(states=_MOST_AFTER_FAILURE if outcome.failures else None), report)
    outcome.states, outcome.memory, outcome.complete = found.states, found.memory, found.complete
    for broken in found.broken:
        taken = tuple(Taken(command.step, command.arguments) for command in broken.run.commands)
        outcome.broken[broken.property] = Run(taken, broken.run.states)
    if not found.complete:
        tasks = min(2 if job.shape.cpus > 1 else 1, job.shape.tasks)
        outcome.smaller = Shape(1, tasks, min(1, job.shape.vcpus))
        focus = job.focus if job.focus in outcome.smaller.foci() else outcome.smaller.foci()[-1]
        smaller = build(job.subject, outcome.smaller, focus, claimed_invariants)
        outcome.complete = search(smaller, Limits()).complete


def claimed_invariants(w: World) -> Iterator[tuple[str, Any]]:
    """Yield the clauses that are part of a property; the others only carry the induction."""
    for name, holds in invariants(w):
        if property_of(name):
            yield name, holds


def verify(
    cpu: Cpu, policy: Policy, options: Options | None = None, *, needs: bool = True, progress: Progress | None = None
) -> Report:
    """Verify *policy* on *cpu*.

    Args:
        cpu: the CPU: which components there are.
        policy: the design.
        options: how.
        needs: find out which assumptions the verdicts need.
        progress: called after every level of a search with what is being searched.

    Raises:
        UsageError: the kernel does not boot with XSAVE.
        CannotTell: the source of *cpu* lacks a number that the boot depends on.
    """
    options = options or Options()
    config = boot(cpu, policy)
    if config.fate != "xsave":
        raise UsageError(f"{policy.name} does not use XSAVE on {cpu.name}: {config.panic or config.xsave_disabled}")
    report = _Verification(config, options, progress).report()
    if needs:
        _find_needs(report, config, options)
    return report


class _Verification:
    """One policy's models, one after the other."""

    def __init__(self, config: BootConfig, options: Options, progress: Progress | None) -> None:
        self.config, self.options, self.progress = config, options, progress
        self.findings = {name: Finding(name) for name in PROPERTIES}
        self.least: dict[str, Shape] = {}
        findings = list(self.findings.values())
        self.result = Report(config.policy, config.cpu, options.assumptions, findings, options.shape, {}, {})

    def report(self) -> Report:
        sets, options = Sets.of(self.config), self.options
        for name, (verdict, reason, needs) in static_verdicts(
            self.config, sets, options.assumptions, options.classes
        ).items():
            finding = self.findings[name]
            finding.verdict, finding.reason, finding.needs = verdict, reason, list(needs)
        for kind, job in _jobs(self.config, self.options):
            self.result.classes[kind.name] = job.subject.watched.bit_length() - 1
            outcome = _outcome(job, self.options, self.progress)
            if outcome.failures:
                self.result.failures.setdefault(kind.name, []).extend(outcome.failures)
            self._merge(job, outcome)
        return self.result

    def _merge(self, job: _Job, outcome: Outcome) -> None:
        states = outcome.states
        self.result.states += states
        self.result.seconds += outcome.seconds
        self.result.memory = max(self.result.memory, outcome.memory)
        broken = {property_of(claim): (claim, run) for claim, run in outcome.broken.items()}
        usual: Status = "proven" if outcome.proven else "holds" if outcome.complete else "unknown"
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
                    finding.component, finding.shape, finding.focus = job.name, job.shape, job.focus
                    finding.claim, finding.run = broken[finding.id]
            elif finding.verdict == "proven" and finding.method == "static":
                finding.method = "induction"
            if verdict == finding.verdict == "holds" and outcome.smaller is not None:
                least = min(self.least.get(finding.id, outcome.smaller), outcome.smaller, key=_extent)
                self.least[finding.id] = least
                finding.method = f"exhaustive at {least.cpus}x{least.tasks}x{least.vcpus}"


def _extent(shape: Shape) -> tuple[int, int, int]:
    return shape.cpus, shape.tasks, shape.vcpus


_STATIC: Final = frozenset({"P5", "P6", "P15", "P17", "P19"})


def _find_needs(report: Report, config: BootConfig, options: Options) -> None:
    """Verify again without each assumption, where that could matter, and note which verdicts get worse."""
    classes = report.classes.keys() - (report.failures.keys() if options.method != "exhaustive" else ())
    for need, changed in _without(options, classes):
        without = _Verification(config, changed, None).report()
        for finding, worse in zip(report.findings, without.findings, strict=True):
            lost = {"violated": True, "unknown": finding.verdict == "proven"}.get(worse.verdict, False)
            if lost and finding.verdict != "violated" and need not in finding.needs:
                finding.needs.append(need)
