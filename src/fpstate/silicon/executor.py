"""`Executor`: XSAVE-family instructions, executed by this CPU with registers, memory and faults under control."""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, Literal, Self

from fpstate.errors import CannotTell, UnreadableInput, UsageError
from fpstate.layout import Layout
from fpstate.silicon import context
from fpstate.silicon.arena import ARENA_SIZE, Arena, Protection
from fpstate.silicon.context import host_facts
from fpstate.silicon.machine import Key, Machine
from fpstate.silicon.program import Program
from fpstate.silicon.steps import MEMORY_OPS, OPS, Fault, Outcome, Step
from fpstate.silicon.timing import SAMPLE_SIZE, TIMED

__all__ = ["MOST_SAMPLES", "Executor", "Loader"]

Loader = Literal["moves", "xrstor"]
"""How the registers are loaded: by ordinary instructions, or by one XRSTOR64 of the image."""

_U64: Final = (1 << 64) - 1
_PARAMETERS: Final = tuple(struct.Struct(f"<{2 * count}Q") for count in range(context.MOST_STEPS + 1))
_PAGE_FAULT: Final = 14
_EMPTY_ARENA: Final = bytes(ARENA_SIZE)
_SAMPLES_AT: Final = ARENA_SIZE // 2
"""Where in the arena the samples of a timing lie."""
MOST_SAMPLES: Final = (ARENA_SIZE - _SAMPLES_AT) // SAMPLE_SIZE
"""Samples of one timing."""
_MOST_REPEATS: Final = 256

_open: Final[set[Executor]] = set()
"""Executors not closed yet.  The kernel holds addresses in their memory, which therefore must not be collected."""


class Executor:
    """Executes XSAVE-family instructions on this CPU and reports every byte, register and signal.

    It is this process's and this thread's: make one in each process, after the fork; threads are not provided for,
    and the signal stack is that of the thread that made it.  Several in one process must be closed in reverse order.

    The kernel may preempt a run, or the hypervisor.  Both save and restore the registers with their values, but what
    the CPU tracks beside them is lost: the modified optimisation of XSAVEOPT then writes more, and on CPUs whose
    XINUSE is not exact XINUSE may change.  What depends on tracking has to be tried more than once.

    Signal actions for SIGSEGV, SIGBUS, SIGILL and SIGFPE are its own until `close`.  A fault anywhere else, and a
    signal sent by a process, still do what they did before it was made.

    Example:
        with Executor() as executor:
            outcome = executor.run([Step("xsave64", 7)], executor.initial, bytes(executor.size))

    Attributes:
        xcr0: the enabled components.
        layout: the standard format of all of them; register images have it.
        size: bytes of a register image.
        initial: the register image in which every component is in its initial state, its XSTATE_BV empty.
        arena: the address of the arena's first byte.

    Raises:
        UnreadableInput: this machine cannot do it; says what is missing.
    """

    def __init__(self) -> None:
        facts = host_facts()
        self.xcr0: int = facts.xcr0
        self.layout: Layout = facts.layout
        self.size: int = facts.layout.size
        try:
            self._machine = Machine(facts)
            self._arena = Arena()
            self._machine.actions.install()
        except OSError as refused:
            raise UnreadableInput(f"instructions cannot be run here: {refused.strerror}") from refused
        self._context = self._machine.context
        self._load = self._machine.places.load
        self._out = self._machine.places.out
        self._reach = facts.reach
        self._has_xgetbv1 = facts.has_xgetbv1
        self._process = os.getpid()
        self._place: tuple[int, int] | None = None
        self._closed = False
        self._mode_32_works: bool | None = None
        self.initial: bytes = self._machine.initial[: self.size]
        self.arena: int = self._arena.base
        _open.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Put back the signal actions and the signal stack that were there before, and unmap the memory."""
        if self._closed:
            return
        self._closed = True
        _open.discard(self)
        self._machine.actions.remove()
        self._arena.close()
        self._machine.close()

    def run(
        self,
        steps: Sequence[Step],
        registers: bytes,
        area: bytes,
        *,
        offset: int = 0,
        protection: Sequence[Protection] | None = None,
        loader: Loader = "moves",
        ac: bool = False,
    ) -> Outcome:
        """Load *registers*, execute *steps* one after the other, and read everything back.

        Args:
            steps: what to execute; the first that faults is the last.
            registers: a standard-format image of `size` bytes.  XSTATE_BV says which components to load; the others
                are initial.  MXCSR is loaded always.
            area: what the memory operands begin at, unless a step says otherwise.  The rest of the arena is zero.
            offset: where the area begins, in bytes from the start of the arena.
            protection: what the instructions may do with each page of the arena; None is all of it everywhere.
            loader: ``"xrstor"`` for components that no moves load (PKRU, AMX, MPX), and for XINUSE as XRSTOR makes it:
                on Zen 4, zeros that moves have loaded may be in use, zeros that XRSTOR has loaded never are.
            ac: whether EFLAGS.AC is set during each instruction, so that CR0.AM makes misaligned accesses fault.  Linux
                leaves it set in signal handlers: one of the process's own that runs at that very moment has it too.

        Raises:
            UsageError: an argument cannot be meant, or the CPU refuses to load *registers*.
            CannotTell: a step is of mode 32, which does not work here.
        """
        key: Key = (ac, tuple([(step.op, step.mode) for step in steps]))
        self._check(key, registers, area, offset, loader)
        program = self._machine.program(key)
        view, start, end = self._arena.view, offset, offset + len(area)
        stray = self._write_parameters(steps, self.arena + offset, len(area))
        if stray or self._place != (start, end):
            view[:] = _EMPTY_ARENA
        view[start:end] = area
        self._place = None if stray else (start, end)
        self._arena.protect(protection)
        memory = self._context
        memory[self._load : self._load + self.size] = registers
        context.ORDER.pack_into(memory, context.PROGRAM, program.address, loader == "xrstor", 0)
        self._machine.enter()
        signal, before, after, value, _ = context.RESULT.unpack_from(memory, context.SIGNAL)
        fault = self._fault(program, signal) if signal else None
        measured = program.first_xgetbv is not None and (fault is None or program.first_xgetbv < fault.step)
        return Outcome(
            view[start:end],
            memory[self._out : self._out + self.size],
            before if self._has_xgetbv1 else None,
            after if self._has_xgetbv1 else None,
            value if measured else None,
            fault,
        )

    def time(self, op: str, rfbm: int, registers: bytes, area: bytes, *, samples: int, repeats: int) -> tuple[int, ...]:
        """Load *registers* by XRSTOR64 and time an instruction; return each sample in ticks of the TSC.

        Args:
            op: one of `fpstate.silicon.timing.TIMED`.
            rfbm: what EDX:EAX holds.
            registers: a standard-format image of `size` bytes, of which XSTATE_BV says what is loaded.
            area: what the memory operand begins as, at most half of the arena.
            samples: how many, at most `MOST_SAMPLES`.
            repeats: how many times each executes the instruction.

        Raises:
            UsageError: an argument cannot be meant, or the CPU refuses the registers or the instruction.
        """
        self._check_mine(registers)
        if op not in TIMED or not 0 < samples <= MOST_SAMPLES or not 0 < repeats <= _MOST_REPEATS:
            raise UsageError(f"{samples} samples of {repeats} times {op!r} cannot be timed")
        if len(area) > _SAMPLES_AT:
            raise UsageError(f"an area of {len(area)} bytes leaves no room for the samples")
        program = self._machine.timing_program(op, repeats)
        self._arena.view[:_SAMPLES_AT] = area.ljust(_SAMPLES_AT, b"\0")
        self._place = None
        self._arena.protect(None)
        parameters = (rfbm & _U64, self.arena, samples, self.arena + _SAMPLES_AT)
        _PARAMETERS[2].pack_into(self._context, context.STEPS, *parameters)
        self._context[self._load : self._load + self.size] = registers
        context.ORDER.pack_into(self._context, context.PROGRAM, program.address, True, 0)
        self._machine.enter()
        signal = context.RESULT.unpack_from(self._context, context.SIGNAL)[0]
        if signal:
            raise UsageError(f"{op} faults: {self._fault(program, signal)}")
        return struct.unpack_from(f"<{samples}I", self._arena.view, _SAMPLES_AT)

    def _write_parameters(self, steps: Sequence[Step], base: int, length: int) -> bool:
        """Write each step's RFBM and address; return whether one may touch memory outside the area."""
        values: list[int] = []
        stray = False
        for op, rfbm, offset, address, mode in steps:
            if address is None:
                address = base + offset  # noqa: PLW2901
                stray |= op in MEMORY_OPS and not 0 <= offset <= length - self._reach
            else:
                stray = True
            stray |= op == "fill"  # as long as it likes
            if mode == 32 and not 0 <= address < 1 << 32:
                raise UsageError(f"address {address:#x} is out of reach in 32-bit mode")
            values += (rfbm & _U64, address & _U64)
        _PARAMETERS[len(steps)].pack_into(self._context, context.STEPS, *values)
        return stray

    def _check(self, key: Key, registers: bytes, area: bytes, offset: int, loader: str) -> None:
        """Refuse what cannot be run, and make ready for what can."""
        self._check_mine(registers)
        if not 0 <= offset <= ARENA_SIZE - len(area):
            raise UsageError(
                f"an area of {len(area)} bytes at {offset:#x} does not fit into the arena ({ARENA_SIZE} bytes)"
            )
        if loader == "moves":
            self._check_moves(registers)
        elif loader != "xrstor":
            raise UsageError(f"there is no loader {loader!r}: there are 'moves' and 'xrstor'")
        if not self._machine.knows(key):
            self._check_steps(key)

    def _check_mine(self, registers: bytes) -> None:
        """Refuse to run for another process, or registers of another size; put our signal actions back."""
        if self._closed:
            raise UsageError("this executor is closed")
        if self._process != os.getpid():
            raise UsageError("this executor is another process's", cure="make one in each process, after the fork")
        if len(registers) != self.size:
            raise UsageError(f"registers are an image of {self.size} bytes here, not {len(registers)}")
        if self._context[context.PASSED_ON]:
            self._context[context.PASSED_ON] = 0
            self._machine.actions.reinstall()

    def _check_moves(self, registers: bytes) -> None:
        present = int.from_bytes(registers[context.XSTATE_BV : context.XSTATE_BV + 8], "little")
        beyond = present & ~(self.xcr0 & context.MOVABLE)
        if beyond & ~self.xcr0:
            raise UsageError(f"XSTATE_BV of the registers has {beyond:#x}, which is not enabled (XCR0 {self.xcr0:#x})")
        if beyond:
            raise UsageError(f"no moves load the components {beyond:#x}", cure="give loader='xrstor'")

    def _check_steps(self, key: Key) -> None:
        _, ops = key
        if len(ops) > context.MOST_STEPS:
            raise UsageError(f"a run has at most {context.MOST_STEPS} steps, not {len(ops)}")
        for op, mode in ops:
            if op not in OPS:
                raise UsageError(f"there is no operation {op!r}", cure=f"there are {', '.join(OPS)}")
            if mode not in {32, 64}:
                raise UsageError(f"a step's mode is 64 or 32, not {mode!r}")
            if mode == 32 and op.endswith("64"):
                raise UsageError(f"{op} needs REX.W, which 32-bit mode does not have")
            if mode == 32 and op not in MEMORY_OPS and op != "xgetbv":
                raise UsageError(f"{op} is executed in 64-bit mode only")
            if mode == 32 and not self.runs_mode_32:
                raise CannotTell("32-bit code cannot be run here (no memory below 4 GiB, or no 32-bit code segment)")

    @property
    def runs_mode_32(self) -> bool:
        """Whether steps of mode 32 can be executed here; found out by trying."""
        if self._mode_32_works is None:
            self._mode_32_works = self._machine.is_low  # for the trial
            if self._mode_32_works:
                trial = self.run([Step("xgetbv", mode=32)], self.initial, b"")
                self._mode_32_works = trial.value == self.xcr0
        return self._mode_32_works

    def _fault(self, program: Program, signal: int) -> Fault:
        """Return the fault that the handler wrote down.

        Raises:
            UsageError: it happened before the first step, while the registers were loaded.
        """
        code, address, trapno, error_code, cr2, rip = context.FAULT.unpack_from(self._context, context.CODE)
        if not program.address <= rip < program.address + len(program.code):
            raise UsageError(
                f"the CPU refuses to load these registers (signal {signal}, exception {trapno})",
                cure="MXCSR, bytes 24 to 27, must not set reserved bits; for loader='xrstor' XRSTOR's rules hold too",
            )
        step = bisect_right(program.starts, rip) - 1
        return Fault(step, signal, code, address, trapno, error_code, cr2 if trapno == _PAGE_FAULT else 0)
