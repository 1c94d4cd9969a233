"""A machine over real bytes: CPUs that execute XSAVE and its kin, tasks and guests, and the kernel of a policy.

`Machine.step` takes one of `fpstate.linux.steps.STEPS` and says what it did: instructions with their masks,
tracepoints, whose values are where, and what must not be.  The kernel is `fpstate.linux.kernel`, the same that the
verifier reads its rules out of; every write uses values that were never written before, so that bytes say whose they
are.
"""

from __future__ import annotations

from typing import Final

from fpstate.cpu.model import Cpu as CpuModel
from fpstate.errors import UsageError
from fpstate.isa import Fault, Profile
from fpstate.isa.masks import ALL
from fpstate.linux.boot import boot
from fpstate.linux.kernel import KERNEL, Cpu, Fpstate, Guest, Kernel, Sets, Task
from fpstate.linux.machine.calls import CALLS, Answer
from fpstate.linux.machine.event import Event, State, state_of
from fpstate.linux.machine.hardware import ByteHardware, Instruction, Refused
from fpstate.linux.machine.specification import ByteSpecification, Finding, NotPossible, Trace
from fpstate.linux.policy import Policy
from fpstate.linux.steps import STEPS, Assumptions, Step, World

__all__ = [
    "CALLS",
    "JUDGED",
    "KNOWN",
    "MOST",
    "OBJECTS",
    "Answer",
    "ByteHardware",
    "ByteSpecification",
    "Event",
    "Finding",
    "Instruction",
    "Machine",
    "NotPossible",
    "State",
    "Trace",
]

KNOWN: Final[dict[str, Step]] = STEPS | CALLS
"""Every step and call by name."""
MOST: Final = 64
"""CPUs or tasks of one machine."""
JUDGED: Final = (
    "ISO-RUN",
    "ISO-BUF",
    "INT-RUN",
    "INT-BUF",
    "P1",
    "P3",
    "P4",
    "P8",
    "P13",
    "P14",
    "P18",
    "P20",
    "STEP",
)
"""The properties that steps over bytes can be found to break; WARNs, faults and refusals beside them.

The others are about every state, not about a step, or about the sets alone: `fpstate.verify` looks at them.
"""
_TASKS: Final = frozenset({"task", "other"})
OBJECTS: Final = _TASKS | {"cpu"}
"""Parameters that are numbers of CPUs and tasks."""


class Machine:
    """One machine.

    Attributes:
        config, sets: what booted.
        policy: the design or release.
        world: CPUs, tasks, kernel.
        hw, spec: what executes, and what is held against it.
        record: whether steps say what they did; without, they are several times as fast and say findings alone.
        events: the steps taken so far; nothing where *record* is False.
        answer: what the last call was told; None if the last step was no call.
    """

    def __init__(
        self,
        cpu: CpuModel,
        policy: Policy,
        *,
        cpus: int = 2,
        tasks: int = 2,
        vcpus: int = 1,
        kernel: type[Kernel] = Kernel,
        assumptions: Assumptions | None = None,
        profile: Profile | None = None,
        record: bool = True,
        cmdline: str = "",
    ) -> None:
        _check_shape(cpus, tasks, vcpus)
        assumptions = assumptions or Assumptions()
        self.config = boot(cpu, policy, cmdline)
        if self.config.fate != "xsave":
            why = self.config.xsave_disabled or self.config.panic or "it has no XSAVE"
            raise UsageError(f"{policy.name} does not use XSAVE on {cpu.name}: {why}")
        self.policy = policy
        self.sets = Sets.of(self.config)
        self.hw = ByteHardware(self.config, self.sets, profile)
        self.spec = ByteSpecification(self.sets, self.hw, assumptions)
        made = kernel(policy, self.sets, self.hw, self.spec)
        armed = self.sets.initial_xfd
        processors = [Cpu(n, regs=self.hw.processor(), xfd=armed, xfd_state=armed) for n in range(cpus)]
        slots = [self._task(made, n, vcpu=n < vcpus) for n in range(tasks)]
        self.world = World(kernel=made, cpus=processors, tasks=slots, spec=self.spec, assumptions=assumptions)
        self.record = record
        self.events: list[Event] = []
        self.answer: Answer | None = None

    def _task(self, kernel: Kernel, number: int, *, vcpu: bool) -> Task:
        task = Task(number, Fpstate(f"task {number}"), mode=KERNEL, need_fpu_load=1)
        kernel.fpstate_reset(task)
        task.own.image = self.hw.new_image(task.own)
        task.pkru, task.lbr = self.hw.pkru_default, self.hw.nothing
        self.spec.adopt(task)
        self.spec.starts(task)
        if vcpu:
            fpstate = Fpstate(f"guest {number}", xfeatures=self.sets.guest_default, is_guest=1)
            fpstate.image = self.hw.new_image(fpstate)
            task.guest = Guest(number, fpstate, own=self.hw.nothing)
            self.spec.adopt(task.guest)
        return task

    def step(self, name: str, **params: int) -> Event:
        """Take the step called *name*.

        Args:
            name: of `KNOWN`.
            params: numbers of what it takes of ``cpu``, ``task`` and ``other``; of a call, its arguments too.

        Raises:
            UsageError: there is no such step, or its parameters are others.
            NotPossible: it cannot be taken as things are.
        """
        step = KNOWN.get(str(name))
        if step is None:
            raise UsageError(f"there is no step {str(name)[:40]!r}", cure=f"steps are {', '.join(KNOWN)}")
        self._check(step, params)
        numbers = tuple(params[kind] for kind in step.parameters)
        if not self.record:
            return Event(name, params, tuple(self.take(step, numbers)), answer=self.answer)
        self.hw.log, self.spec.traces = [], []
        try:
            findings = tuple(self.take(step, numbers))
            log, traces = tuple(self.hw.log), tuple(self.spec.traces)
            event = Event(name, params, findings, log, traces, self.state(), self.answer)
        finally:
            self.hw.log = self.spec.traces = None
        self.events.append(event)
        return event

    def take(self, step: Step, numbers: tuple[int, ...]) -> list[Finding]:
        """Take *step* with these CPUs and tasks, and return what must not be.

        Raises:
            NotPossible: it cannot be taken as things are; nothing has changed.
        """
        world, spec = self.world, self.spec
        spec.step = step.name
        spec.found = found = []
        chosen = [
            world.cpus[n] if kind == "cpu" else world.tasks[n] if kind in _TASKS else n
            for kind, n in zip(step.parameters, numbers, strict=True)
        ]
        self.answer = None
        try:
            told = step.run(world, *chosen)
            self.answer = told if isinstance(told, Answer) else None
        except Fault as fault:
            found.append(Finding(f"FAULT: {fault.rule.id}", str(fault)))
        except Refused as refusal:
            self.answer = Answer(refusal.finding.effect) if step.name in CALLS else None
            found.append(Finding(f"REFUSED: {refusal.finding.rule.id}", str(refusal)))
        return found

    def state(self) -> State:
        """Return what the machine looks like."""
        return state_of(self.world, self.hw, self.spec)

    def _check(self, step: Step, params: dict[str, int]) -> None:
        takes = f"{step.name} takes {', '.join(step.parameters)}"
        for name in step.parameters:
            if name not in params:
                raise UsageError(f"{step.name} lacks {name!r}", cure=takes)
        for name, value in params.items():
            if name not in step.parameters:
                raise UsageError(f"{step.name} has the unknown parameter {name!r}", cure=takes)
            if not _is_number(value):
                raise UsageError(f"{step.name}: {name} must be a number, not {value!r}")
            if name not in OBJECTS:
                if not 0 <= value <= ALL:
                    raise UsageError(f"{step.name}: {name} must be a number of 64 bits, not {value!r}")
                continue
            kind, most = ("cpu", len(self.world.cpus)) if name == "cpu" else ("task", len(self.world.tasks))
            if not 0 <= value < most:
                raise UsageError(f"{step.name}: {name} must be the number of a {kind}, 0 to {most - 1}, not {value!r}")
        if "other" in params and params["other"] == params["task"]:
            raise UsageError(f"{step.name}: other must be another task than task")


def _is_number(value: object) -> bool:
    """Tell whether a caller who does not check types gave a number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_shape(cpus: int, tasks: int, vcpus: int) -> None:
    for name, value, least in (("cpus", cpus, 1), ("tasks", tasks, 1), ("vcpus", vcpus, 0)):
        if not least <= value <= MOST:
            raise UsageError(f"{name} must be {least} to {MOST}, not {value!r}")
    if vcpus > tasks:
        raise UsageError(f"there are {vcpus} vCPUs and {tasks} tasks: each vCPU has a task of its own")
