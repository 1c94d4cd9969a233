"""What a machine looks like after a step, and what the step did: records for reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fpstate.linux.kernel import FREE, GUEST, KERNEL, NULL, USER, Cpu, Fpstate, Task
from fpstate.linux.machine.area import Area
from fpstate.linux.machine.calls import Answer
from fpstate.linux.machine.hardware import ByteHardware, Instruction
from fpstate.linux.machine.specification import ByteSpecification, Finding, Trace, label
from fpstate.linux.machine.values import component
from fpstate.linux.steps import World
from fpstate.xfeatures import bits

__all__ = ["MODES", "Buffer", "CpuState", "Event", "State", "TaskState", "state_of"]

MODES = {FREE: "free", USER: "user", KERNEL: "kernel", GUEST: "guest"}
"""What a task does, in words."""

Holding = tuple[tuple[str, int], ...]
"""Whose values, and in which components; ``initial`` last."""


@dataclass(frozen=True, slots=True)
class CpuState:
    """One CPU.

    Attributes:
        number: from 0.
        current: the number of the current task; None is the idle thread.
        owner: that of the task whose state the kernel takes the registers for (fpu_fpregs_owner_ctx), or None.
        kernel_fpu: the kernel is using the registers.
        guest_xstate: the guest's XCR0 and IA32_XSS are loaded.
        xfd, xfd_state: IA32_XFD and its shadow.
        registers: whose values are in them.
    """

    number: int
    current: int | None
    owner: int | None
    kernel_fpu: bool
    guest_xstate: bool
    xfd: int
    xfd_state: int
    registers: Holding


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task.

    Attributes:
        number: from 0.
        mode: one of `MODES`.
        cpu: where it is current, or None.
        need_fpu_load: TIF_NEED_FPU_LOAD.
        last_cpu: the CPU whose registers last held its state, or None.
        plugged: its vCPU's fpstate is the active one.
    """

    number: int
    mode: str
    cpu: int | None
    need_fpu_load: bool
    last_cpu: int | None
    plugged: bool


@dataclass(frozen=True, slots=True)
class Buffer:
    """One fpstate, or one buffer of an independent component.

    Attributes:
        name: whose.
        xfeatures, size: what it has room for, and its bytes.
        xstate_bv, xcomp_bv: its header.
        xfd: what XFD disables while it is active.
        holds: whose values are in it.
    """

    name: str
    xfeatures: int
    size: int
    xstate_bv: int
    xcomp_bv: int
    xfd: int
    holds: Holding


@dataclass(frozen=True, slots=True)
class State:
    """The whole machine."""

    cpus: tuple[CpuState, ...]
    tasks: tuple[TaskState, ...]
    buffers: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One step that was taken.

    Attributes:
        step: its name.
        params: its CPU and tasks by number.
        findings: what must not be.
        instructions, traces: what ran and which tracepoints were passed, in order; empty where nothing is recorded.
        state: the machine after it; None where nothing is recorded.
        answer: what a call was told; None of a step.
    """

    step: str
    params: dict[str, int]
    findings: tuple[Finding, ...] = ()
    instructions: tuple[Instruction, ...] = ()
    traces: tuple[Trace, ...] = ()
    state: State | None = None
    answer: Answer | None = None

    @property
    def arguments(self) -> str:
        """The parameters in words; large numbers in hexadecimal."""
        words = [(name, f"{value:#x}" if value >= 1024 else str(value)) for name, value in self.params.items()]
        return " ".join(f"{name}={value}" for name, value in words)


def state_of(world: World, hw: ByteHardware, spec: ByteSpecification) -> State:
    """Return what *world* looks like."""
    look = _Look(hw, spec)
    return State(
        cpus=tuple(look.cpu(cpu) for cpu in world.cpus),
        tasks=tuple(_task(task, world.cpus) for task in world.tasks),
        buffers=tuple(buffer for task in world.tasks for buffer in look.buffers(task)),
    )


def _task(task: Task, cpus: list[Cpu]) -> TaskState:
    where = next((cpu.number for cpu in cpus if cpu.curr == task.ref), None)
    last = None if task.last_cpu == NULL else task.last_cpu - 1
    return TaskState(task.number, MODES[task.mode], where, bool(task.need_fpu_load), last, bool(task.plugged))


class _Look:
    """Reads bytes."""

    def __init__(self, hw: ByteHardware, spec: ByteSpecification) -> None:
        self.hw, self.spec = hw, spec

    def _holding(self, values: Iterable[tuple[int, bytes | bytearray | None]]) -> Holding:
        found: dict[str, int] = {}
        for bit, data in values:
            whose = "initial" if data is None else label(self.hw.ledger, bit, data)
            found[whose] = found.get(whose, 0) | 1 << bit
        return tuple(sorted(found.items(), key=lambda item: (item[0] == "initial", item[0])))

    def cpu(self, cpu: Cpu) -> CpuState:
        return CpuState(
            number=cpu.number,
            current=None if cpu.curr == NULL else cpu.curr - 1,
            owner=None if cpu.fpregs_owner_ctx == NULL else cpu.fpregs_owner_ctx - 1,
            kernel_fpu=bool(cpu.in_kernel_fpu),
            guest_xstate=bool(cpu.guest_xstate),
            xfd=cpu.xfd,
            xfd_state=cpu.xfd_state,
            registers=self._holding((bit, component(cpu.regs, bit)) for bit in self.spec.bits(-1)),
        )

    def buffers(self, task: Task) -> list[Buffer]:
        if task.mode == FREE:
            return []
        found = [self._fpstate(f"task {task.number}", task.own)]
        sets = self.hw.sets
        if sets.independent & ~sets.kvm_own:
            found.append(self._buffer(f"task {task.number} LBR", task.lbr, sets.independent & ~sets.kvm_own))
        guest = task.guest
        if guest is not None and guest.exists:
            found.append(self._fpstate(f"guest {guest.number}", guest.fpstate))
            if sets.kvm_own:
                found.append(self._buffer(f"guest {guest.number} KVM", guest.own, sets.kvm_own))
        return found

    def _fpstate(self, name: str, fpstate: Fpstate) -> Buffer:
        image: Area = fpstate.image
        held = self._holding((bit, image.component(bit)) for bit in bits(fpstate.xfeatures))
        return Buffer(name, fpstate.xfeatures, fpstate.size, image.xstate_bv, image.xcomp_bv, fpstate.xfd, held)

    def _buffer(self, name: str, buffer: Area | dict[int, int], mask: int) -> Buffer:
        if isinstance(buffer, Area):
            held = self._holding((bit, buffer.component(bit)) for bit in bits(mask))
            return Buffer(name, mask, len(buffer.data), buffer.xstate_bv, buffer.xcomp_bv, 0, held)
        data = b"".join(value.to_bytes(8, "little") for value in buffer.values())
        held = self._holding((bit, data) for bit in bits(mask))
        return Buffer(name, mask, len(data), 0, 0, 0, held)
