"""Bugs of real kernels, put back into the model: the proof would be worth little if they went through it unnoticed.

A bug is a subclass of `Kernel` with the historical mistake in it, a policy with one rule changed, or a mistake in
numbers that a boot alone decides.  What it was and who mended it is in ``data/bugs.toml``, under the same id.  The
kernel around it is the policy ``repaired``, of which everything is proven.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any, Final

from fpstate import toml
from fpstate.cpu import by_name as cpu_by_name
from fpstate.errors import UsageError
from fpstate.linux import policy as policies
from fpstate.linux.boot import boot
from fpstate.linux.config import BootConfig
from fpstate.linux.kernel import Kernel
from fpstate.linux.policy import Policy
from fpstate.linux.steps import Assumptions, World
from fpstate.verify.check import subjects
from fpstate.verify.invariants import invariants
from fpstate.verify.mistakes import KERNELS, NUMBERS, RULES, Numbers
from fpstate.verify.model import Model, build
from fpstate.verify.properties import property_of
from fpstate.verify.question import Shape
from fpstate.verify.search import Limits, Run, search

__all__ = ["BASE", "BEYOND", "BUGS", "CPU", "OUTSIDE", "Bug", "Outside", "Result", "find", "run_bug", "run_history"]

BASE: Final = "repaired"
"""The policy around each bug."""
CPU: Final = "sapphire-rapids"
"""The CPU, where the bug asks for no other."""
BEYOND: Final = {"OFFER": "KVM offers a guest no component whose feature it has switched off"}
"""Rules that a bug breaks though no property of the verifier speaks of them."""
_MOST_STATES: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One bug.

    Attributes:
        id: its name.
        title: what it was.
        cve: its CVE record, or "".
        commits: those that mended it, the one that matters first; none if it was never in a release.
        fixed_in: the releases from which on it is gone.
        function: of the model, or of the kernel where the model has none, that makes the mistake.
        symptom, fix: what came of it, and what is right.
        sure: ``confirmed``, or what was not.
        kernel: the kernel that makes it.
        rules: fields of the policy that make it.
        numbers: the check that makes it visible, if a boot alone does.
        component: the class of components to look at.
        focus: the context that comes to harm; "" is any.
        shape: the CPUs, tasks and vCPUs that it takes.
        assumptions: what is taken for granted.
        expects: properties, of which one is broken.
        cpu: the CPU that it needs.
    """

    id: str
    title: str
    cve: str = ""
    commits: tuple[str, ...]
    fixed_in: str
    function: str
    symptom: str
    fix: str
    sure: str
    kernel: type[Kernel] = Kernel
    rules: dict[str, Any] = field(default_factory=dict)
    numbers: Numbers | None = None
    component: str = ""
    focus: str = ""
    shape: Shape = field(default_factory=lambda: Shape(1, 1, 0))
    assumptions: Assumptions = field(default_factory=Assumptions)
    expects: tuple[str, ...]
    cpu: str = CPU

    @property
    def policy(self) -> Policy:
        """The policy with the bug in it."""
        return replace(policies.find(BASE), **self.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """A bug that the model cannot show.

    Attributes:
        id, cve, commits: as of `Bug`.
        why: the reason.
    """

    id: str
    cve: str = ""
    commits: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the verifier says to a bug.

    Attributes:
        bug: the bug.
        broken: the properties among those expected that it breaks; none if it goes unnoticed.
        claim: the claim that the run breaks, or "".
        focus: the context that comes to harm.
        run: a shortest run; None if a boot alone shows it.
        reason: what is wrong, where no run shows it.
        states: visited for it.
        seconds: taken.
    """

    bug: Bug
    broken: tuple[str, ...] = ()
    claim: str = ""
    focus: str = ""
    run: Run | None = None
    reason: str = ""
    states: int = 0
    seconds: float = 0.0

    @property
    def found(self) -> bool:
        """Whether it does not go unnoticed."""
        return bool(self.broken)


# -- the table --------------------------------------------------------------------------------------------------------


@cache
def _rows() -> dict[str, dict[str, Any]]:
    name = "data/bugs.toml"
    return toml.parse(resources.files("fpstate").joinpath(name).read_bytes(), name, "bugs")


def _bug(name: str, row: dict[str, Any]) -> Bug:
    plain = ((key, value) for key, value in row.items() if key not in {"class", "shape", "assume"})
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain}
    return Bug(
        id=name,
        kernel=KERNELS.get(name, Kernel),
        rules=RULES.get(name, {}),
        numbers=NUMBERS.get(name),
        component=row.get("class", ""),
        shape=Shape(*row.get("shape", (1, 1, 0))),
        assumptions=Assumptions(**row.get("assume", {})),
        **values,
    )


BUGS: Final = {name: _bug(name, row) for name, row in _rows().items() if name != "outside"}
"""Every bug by id."""
OUTSIDE: Final = {
    name: Outside(id=name, cve=row.get("cve", ""), commits=tuple(row["commits"]), why=row["why"])
    for name, row in _rows()["outside"].items()
}
"""Bugs that the model cannot show."""


def find(name: str) -> Bug:
    """Return the bug called *name*.

    Raises:
        UsageError: there is none; names those there are.
    """
    if name not in BUGS:
        raise UsageError(f"{name!r} is not a bug of history", cure=f"bugs are {', '.join(BUGS)}")
    return BUGS[name]


# -- looking for them -------------------------------------------------------------------------------------------------


def run_bug(bug: Bug, *, mended: bool = False) -> Result:
    """Look for a run that breaks a property that *bug* is expected to break.

    Args:
        bug: the bug.
        mended: look at the same place without the mistake: there nothing must be found.
    """
    started = time.perf_counter()
    policy = policies.find(BASE) if mended else bug.policy
    cpu = cpu_by_name(bug.cpu)
    if bug.numbers is not None:
        reason = bug.numbers(cpu, policy, not mended)
        broken = bug.expects if reason else ()
        return Result(bug=bug, broken=broken, reason=reason or "", seconds=time.perf_counter() - started)
    result = Result(bug=bug)
    for focus in (bug.focus,) if bug.focus else bug.shape.foci():
        result = _look(bug, boot(cpu, policy), Kernel if mended else bug.kernel, focus, result)
        if result.found:
            break
    return replace(result, seconds=time.perf_counter() - started)


def _look(bug: Bug, config: BootConfig, kernel: type[Kernel], focus: str, before: Result) -> Result:
    """Search the model of one focus; *before* is what came of those before it."""
    subject = next(s for kind, _, s in subjects(config, bug.assumptions, kernel) if kind.name == bug.component)
    model = _asked(build(subject, bug.shape, focus, _claims), bug.expects)
    found = search(model, Limits(states=_MOST_STATES, stop=True))
    states = before.states + found.states
    if not found.broken:
        return replace(before, states=states)
    shortest = found.broken[0]
    broken = sorted({str(property_of(b.property)) for b in found.broken})
    return replace(before, broken=tuple(broken), claim=shortest.property, focus=focus, run=shortest.run, states=states)


def _claims(w: World) -> Iterator[tuple[str, Any]]:
    return ((name, holds) for name, holds in invariants(w) if property_of(name))


def _asked(model: Model, properties: tuple[str, ...]) -> Model:
    """Return *model* with the claims of *properties* alone; what other claims rule out stays ruled out."""
    return replace(
        model,
        checks=tuple(check for check in model.checks if property_of(check.property) in properties),
        invariants=tuple(claim for claim in model.invariants if property_of(claim[0]) in properties),
    )


def run_history(progress: Callable[[Result], None] | None = None) -> list[Result]:
    """Look for every bug; *progress* is called after each."""
    results = []
    for bug in BUGS.values():
        results.append(run_bug(bug))
        if progress is not None:
            progress(results[-1])
    return results
