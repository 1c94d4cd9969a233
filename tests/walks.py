"""Random walks: steps that are likely to be possible, so that few tries are wasted."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from fpstate.linux.kernel import FREE, GUEST, USER
from fpstate.linux.machine import Machine, NotPossible
from fpstate.linux.machine.specification import Finding
from fpstate.linux.steps import STEPS, Step, World

IDLE: Final = ("switch_from_idle", "kernel_fpu_begin_idle", "fpu_idle_fpregs", "cpu_down_up", "kernel_fpu_end")
IN_USER_MODE: Final = ("user_writes", "user_initialises", "user_uses_dynamic", "enter_kernel")
IN_GUEST: Final = ("guest_writes", "guest_initialises", "guest_writes_xfd", "vm_exit")
ELSEWHERE: Final = tuple(set(STEPS) - {*IDLE, *IN_USER_MODE, *IN_GUEST} | {"kernel_fpu_end"})
OFTEN: Final = ("exit_to_user_mode", "context_switch", "vm_entry", "kvm_run", "kvm_create_vcpu", "fork")
STOPPED: Final = ("ptrace_getregset", "ptrace_setregset", "ptrace_setregset_initial")
TABLE: Final = {
    "idle": [STEPS[name] for name in (*["switch_from_idle"] * 12, *IDLE)],
    "user": [STEPS[name] for name in IN_USER_MODE],
    "guest": [STEPS[name] for name in IN_GUEST],
    "kernel": [STEPS[name] for name in (*sorted(ELSEWHERE), *OFTEN * 3)],
}


def chance(seed: int) -> Random:
    """Return a source of chance that is the same for every *seed*."""
    return Random(seed)  # noqa: S311  no secret


def candidate(world: World, random: Random) -> tuple[Step, tuple[int, ...]]:
    """Return a step that may be possible, and its CPU and tasks."""
    cpu = world.cpus[int(random.random() * len(world.cpus))]
    if not cpu.curr:
        kind = "idle"
    else:
        mode = world.tasks[cpu.curr - 1].mode
        kind = "user" if mode == USER else "guest" if mode == GUEST else "kernel"
    steps = TABLE[kind]
    step = steps[int(random.random() * len(steps))]
    tasks = len(world.tasks)
    current = cpu.curr - 1 if cpu.curr and step.name not in STOPPED else int(random.random() * tasks)
    other = (current + 1 + int(random.random() * max(1, tasks - 1))) % tasks
    numbers = {"cpu": cpu.number, "task": current, "other": other}
    return step, tuple(numbers[name] for name in step.parameters)


def walk(machine: Machine, seed: int, steps: int) -> Iterator[tuple[Step, tuple[int, ...], list[Finding]]]:
    """Take random possible steps."""
    random, taken = chance(seed), 0
    while taken < steps:
        step, numbers = candidate(machine.world, random)
        if "other" in step.parameters and numbers[1] == numbers[2]:
            continue
        if step.name == "exit" and sum(task.mode != FREE for task in machine.world.tasks) < 2:
            continue  # nobody would be left to fork
        try:
            found = machine.take(step, numbers)
        except NotPossible:
            continue
        taken += 1
        yield step, numbers, found
