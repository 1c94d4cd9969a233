"""The tags of the verifier are the abstraction of the bytes of the machine, at every step of a random walk.

One walk runs on a `Machine`.  Beside it, the same kernel runs over tags of one component, with one context as the
focus.  After every step each place must hold the tag of the bytes in the other machine's place, the kernel's own
variables must be equal, and both must have found the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fpstate import cpu_by_name, policy
from fpstate.isa import Fault, Processor
from fpstate.linux.kernel import KERNEL, Cpu, Fpstate, Guest, Kernel, Task
from fpstate.linux.machine import Machine, NotPossible
from fpstate.linux.machine.area import Area
from fpstate.linux.machine.values import Owner, component
from fpstate.linux.steps import Assumptions, Step, World
from fpstate.verify.expr import Expr
from fpstate.verify.tags import (
    ANY,
    DEFAULT,
    DEFAULTED,
    FOREIGN,
    FRESH,
    INITIAL,
    OWN,
    STALE,
    TagHardware,
    TagSpecification,
)
from fpstate.xfeatures import AVX, PKRU
from walks import candidate, chance

CPUS, TASKS, VCPUS = 2, 3, 2
SAPPHIRE_RAPIDS: Final = cpu_by_name("sapphire-rapids")
EXACT: Final = replace(Processor(SAPPHIRE_RAPIDS).profile, xinuse="by-value")
"""XSTATE_BV follows the bytes, as in the tags: an initial value has no bit."""
COMPONENTS: Final = (0, 1, 2, 7, 9, 11, 12, 15, 17, 18)
FOCI: Final = ("task0", "task2", "guest0")


def plain(value: Any) -> Any:
    return value.args[0] if isinstance(value, Expr) and value.op == "const" else value


class Witness(TagHardware):
    """Tags that know of the components that are not looked at which of them are in use."""

    used: list[int]

    def xfeatures_in_use(self, cpu: Cpu, mask: int) -> Any:
        return super().xfeatures_in_use(cpu, mask) if self.watched & mask else self.used[cpu.number] & mask


class Told(TagSpecification):
    """Findings over tags that are plain numbers."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.found: set[str] = set()
        self.host_sss = 0

    def needs(self, condition: Any, why: str) -> None:
        assert condition, f"possible over bytes, not over tags: {why}"

    def warn(self, name: str, condition: Any, *, of: Task | None = None) -> bool:
        followed = of is None or (self.is_focus(of) and self.hw.watched & self.sets.cet_user)
        if condition and followed:
            self.found.add(f"WARN: {name}")
        return bool(condition)

    def require(self, name: str, condition: Any) -> None:
        if not condition:
            self.found.add(name)

    ensures = require

    def trace(self, event: str, cpu: Cpu, task: Task) -> None:
        pass

    def _hold(self, name: str, tag: Any, *, judged: bool = True) -> None:
        if not self.is_nobody_elses(tag):
            self.found.add(f"ISO-{name}")
        elif judged and not self.is_newest(tag):
            self.found.add(f"INT-{name}")

    def runs(self, cpu: Cpu, who: Task | Guest) -> None:
        host_pkru = self.sets.pkru and isinstance(who, Guest) and not cpu.guest_xstate
        if self.is_focus(who) and self.watches(self.observable(who) & ~cpu.xfd) and not host_pkru:
            self._hold("RUN", cpu.regs)

    def copied(self, tag: Any) -> None:
        self._hold("BUF", tag)

    def shows(self, image: Any, who: Task | Guest) -> None:
        if not self.is_focus(who):
            return
        fpstate = who.own if isinstance(who, Task) else who.fpstate
        visible = bool(self.watches(fpstate.user_xfeatures & (self.sets.kvm if isinstance(who, Guest) else -1)))
        self._hold("BUF", image, judged=visible)
        self.require("P14", visible or image == INITIAL)

    def observable(self, who: Task | Guest) -> int:
        if isinstance(who, Guest):
            return self.sets.kvm & (who.fpstate.xfeatures | self.sets.kvm_own)
        return self.sets.user_writable | self.host_sss

    def is_initial(self, who: Task | Guest, mask: int) -> Any:
        return not self.is_focus(who) or not self.watches(mask) or self.newest == INITIAL


class Twin:
    """The same world over tags."""

    def __init__(self, machine: Machine, bit: int, focus: str, kernel: type[Kernel]) -> None:
        self.machine, self.bit, self.focus = machine, bit, focus
        sets = machine.sets
        self.sets = replace(sets, pkru=sets.pkru & 1 << bit, watched=1 << bit)
        self.hw = Witness(self.sets, 1 << bit)
        self.spec = Told(self.sets, self.hw, self.places, self.is_focus)
        assumptions = machine.world.assumptions
        self.spec.host_sss = sets.cet_kernel if assumptions.host_sss and assumptions.fred else 0
        made = kernel(machine.policy, self.sets, self.hw, self.spec)
        armed = sets.initial_xfd
        cpus = [Cpu(n, regs=INITIAL, xfd=armed, xfd_state=armed) for n in range(CPUS)]
        self.world = World(kernel=made, cpus=cpus, tasks=[], spec=self.spec, assumptions=assumptions)
        self.world.tasks.extend(self._task(made, n) for n in range(TASKS))
        if self.sets.pkru and focus.startswith("task"):
            self.spec.newest = DEFAULTED

    def is_focus(self, who: Task | Guest) -> bool:
        return f"{'task' if isinstance(who, Task) else 'guest'}{who.number}" == self.focus

    def _task(self, kernel: Kernel, number: int) -> Task:
        task = Task(number, Fpstate(f"task {number}"), mode=KERNEL, need_fpu_load=1, lbr=INITIAL)
        kernel.fpstate_reset(task)
        task.own.image = INITIAL
        task.pkru = DEFAULT if self.sets.pkru else INITIAL
        if number < VCPUS:
            fpstate = Fpstate(f"guest {number}", xfeatures=self.sets.guest_default, is_guest=1, image=INITIAL)
            task.guest = Guest(number, fpstate, own=INITIAL)
        return task

    def places(self) -> Iterator[tuple[Any, str]]:
        for holder, name, _ in self._places():
            yield holder, name

    def _places(self) -> Iterator[tuple[Any, str, str]]:
        """Yield each place, and what it is called."""
        for cpu in self.world.cpus:
            yield cpu, "regs", f"CPU {cpu.number}"
        for task in self.world.tasks:
            yield task.own, "image", f"task {task.number}"
            yield task, "lbr", f"task {task.number} LBR"
            if self.sets.pkru:
                yield task, "pkru", f"task {task.number} PKRU"
            if task.guest is not None:
                yield task.guest.fpstate, "image", f"guest {task.number}"
                yield task.guest, "own", f"guest {task.number} own"
                if self.sets.pkru:
                    yield task.guest, "pkru", f"guest {task.number} PKRU"
                    yield task.guest, "host_pkru", f"guest {task.number} host PKRU"

    def take(self, step: Step, numbers: tuple[int, ...]) -> set[str]:
        self.spec.found = set()
        chosen = [
            self.world.cpus[n] if kind == "cpu" else self.world.tasks[n]
            for kind, n in zip(step.parameters, numbers, strict=True)
        ]
        try:
            step.run(self.world, *chosen)
        except Fault as fault:
            self.spec.found.add(f"FAULT: {fault.rule.id}")
        for holder, name in self.places():
            setattr(holder, name, plain(getattr(holder, name)))
        self.spec.newest = plain(self.spec.newest)
        return self.spec.found

    # -- the relation ---------------------------------------------------------------------------------------------

    def tags(self) -> dict[str, int]:
        return {label: getattr(holder, name) for holder, name, label in self._places()}

    def abstraction(self) -> dict[str, int]:
        """The tag of the bytes in every place of the other machine."""
        theirs: dict[str, Any] = {}
        world = self.machine.world
        for cpu in world.cpus:
            theirs[f"CPU {cpu.number}"] = component(cpu.regs, self.bit)
        for task in world.tasks:
            theirs[f"task {task.number}"] = task.own.image
            theirs[f"task {task.number} LBR"] = task.lbr
            if self.sets.pkru:
                theirs[f"task {task.number} PKRU"] = task.pkru
            if task.guest is not None:
                theirs[f"guest {task.number}"] = task.guest.fpstate.image
                theirs[f"guest {task.number} own"] = task.guest.own
                if self.sets.pkru:
                    theirs[f"guest {task.number} PKRU"] = task.guest.pkru
                    theirs[f"guest {task.number} host PKRU"] = task.guest.host_pkru
        return {name: self._tag(value) for name, value in theirs.items()}

    def _tag(self, value: Any) -> int:
        data = self._bytes(value)
        if data is None:
            return INITIAL
        origin = self.machine.hw.ledger.origin(self.bit, data)
        owner = self._owner()
        if origin.kind in {"initial", "default"}:
            return INITIAL if origin.kind == "initial" else DEFAULT
        if origin.owner is not owner:
            return FOREIGN
        return FRESH if owner.newest[self.bit] == data else STALE

    def _bytes(self, value: Any) -> Any:
        if isinstance(value, Area):
            return value.component(self.bit)
        if isinstance(value, int):
            return value.to_bytes(4, "little")
        if isinstance(value, dict):
            held = self.sets.kvm_own >> self.bit & 1
            return b"".join(part.to_bytes(8, "little") for part in value.values()) if held else None
        return value

    def _owner(self) -> Owner:
        who: Any = self.machine.world.tasks[int(self.focus[-1])]
        return self.machine.spec.owners[who.guest if self.focus.startswith("guest") else who]

    def newest(self) -> int:
        """What the bytes say the focus must see, as a kind."""
        owner = self._owner()
        data = owner.newest[self.bit]
        if owner.disowned >> self.bit & 1:
            return ANY
        if data == self.machine.hw.ledger.initial[self.bit]:
            return INITIAL
        return DEFAULTED if self.bit == PKRU and data == self.machine.hw.ledger.default_pkru else OWN

    def control(self, world: World) -> dict[str, Any]:
        """What the kernel believes."""
        cpus = ("curr", "fpregs_owner_ctx", "in_kernel_fpu", "guest_xstate", "xfd", "xfd_state")
        tasks = ("mode", "on_cpu", "need_fpu_load", "last_cpu", "plugged", "state_perm", "guest_perm")
        believed = {f"cpu{c.number}.{name}": getattr(c, name) for c in world.cpus for name in cpus}
        believed |= {f"task{t.number}.{name}": getattr(t, name) for t in world.tasks for name in tasks}
        for task in world.tasks:
            believed[f"task{task.number}.xfeatures"] = task.own.xfeatures, task.own.xfd
            if task.guest is not None:
                fpstate = task.guest.fpstate
                believed[f"guest{task.number}"] = fpstate.xfeatures, fpstate.xfd, fpstate.in_use, task.guest.exists
        return believed

    def agrees(self, findings: set[str], theirs: set[str]) -> None:
        assert self.control(self.world) == self.control(self.machine.world)
        assert self.tags() == self.abstraction()
        assert self.spec.newest == self.newest()
        assert findings == theirs


def lock_step(machine: Machine, twin: Twin, step: Step, numbers: tuple[int, ...]) -> set[str] | None:
    """Take a step on both, if it is possible, hold one against the other, and return what was found."""
    twin.hw.used = [machine.hw.xfeatures_in_use(cpu, -1) for cpu in machine.world.cpus]
    try:
        found = machine.take(step, numbers)
    except NotPossible:
        return None
    focus = twin.focus[:-1] + " " + twin.focus[-1]
    theirs = {f.property for f in found if not f.context or (f.context == focus and f.components >> twin.bit & 1)}
    twin.agrees(twin.take(step, numbers), theirs)
    return theirs


def pair(name: str, bit: int, focus: str, kernel: type[Kernel] = Kernel) -> tuple[Machine, Twin]:
    machine = Machine(
        SAPPHIRE_RAPIDS,
        policy(name),
        cpus=CPUS,
        tasks=TASKS,
        vcpus=VCPUS,
        kernel=kernel,
        assumptions=Assumptions(host_sss=name != "resident"),
        profile=EXACT,
        record=False,
    )
    return machine, Twin(machine, bit, focus, kernel)


def wander(machine: Machine, twin: Twin, random: Random, steps: int) -> set[str]:
    """Walk both at random, and return everything that was found."""
    everything: set[str] = set()
    taken = 0
    while taken < steps:
        found = lock_step(machine, twin, *candidate(machine.world, random))
        if found is not None:
            taken += 1
            everything |= found
    return everything


@pytest.mark.parametrize("focus", FOCI)
@pytest.mark.parametrize("bit", COMPONENTS)
def test_the_tags_of_a_component_are_the_abstraction_of_its_bytes(bit: int, focus: str) -> None:
    machine, twin = pair("linux-6.18", bit, focus)
    wander(machine, twin, chance(bit), 600)


@pytest.mark.parametrize("name", ["repaired", "default-on", "independent", "raw-msr", "resident", "linux-6.17"])
@pytest.mark.parametrize("focus", FOCI)
def test_they_are_under_every_design(name: str, focus: str) -> None:
    machine, twin = pair(name, 12, focus)
    wander(machine, twin, chance(12), 600)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    bit=st.sampled_from(COMPONENTS),
    focus=st.sampled_from(FOCI),
    name=st.sampled_from(["linux-6.18", "repaired"]),
    seeds=st.lists(st.integers(0, 1 << 16), max_size=60),
)
def test_they_are_on_any_walk(bit: int, focus: str, name: str, seeds: list[int]) -> None:
    machine, twin = pair(name, bit, focus)
    for seed in seeds:
        wander(machine, twin, chance(seed), 1)


class ForgetsToInvalidate(Kernel):
    """kernel_fpu_begin() leaves the owner: registers that the kernel overwrote count as a task's."""

    def cpu_invalidate_fpregs_state(self, cpu: Cpu) -> None:
        pass


class RestoresByTheBuffer(Kernel):
    """A load leaves alone what the fpstate has no room for."""

    def restore_fpregs_from_fpstate(self, cpu: Cpu, fpstate: Fpstate) -> None:
        self.xfd_update_state(cpu, fpstate)
        self.hw.xrstor(cpu, fpstate, fpstate.xfeatures & self.sets.restore)


class LosesAvx(Kernel):
    """switch_fpu() leaves AVX out of what it saves; more left out would fault elsewhere, for other components."""

    def switch_fpu(self, cpu: Cpu, prev: Task) -> None:
        saves = not prev.need_fpu_load
        super().switch_fpu(cpu, prev)
        if saves:
            self.hw.drop(prev.fpstate, AVX)


@pytest.mark.parametrize(
    ("kernel", "bit", "focus", "found"),
    [
        (ForgetsToInvalidate, 2, "task2", "ISO-RUN"),
        (LosesAvx, 2, "task2", "INT-RUN"),
    ],
)
def test_a_broken_kernel_is_found_by_both(kernel: type[Kernel], bit: int, focus: str, found: str) -> None:
    walks = (wander(*pair("linux-6.18", bit, focus, kernel), chance(seed), 2_500) for seed in range(10))
    assert any(found in walk for walk in walks)


def test_a_guest_only_value_that_a_load_leaves_behind_reaches_a_host_that_uses_it() -> None:
    walks = (wander(*pair("linux-6.18", 12, "task2", RestoresByTheBuffer), chance(seed), 1_500) for seed in range(10))
    assert any("ISO-RUN" in walk for walk in walks)
