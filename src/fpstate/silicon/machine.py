"""The machine code in place: its pages, its context, its signal actions, and the programs assembled so far."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Final

from fpstate.silicon import context
from fpstate.silicon.context import PAGE, Facts, Places
from fpstate.silicon.encode import Assembler
from fpstate.silicon.memory import READ_EXECUTE, READ_WRITE, address_of, map_private, protect
from fpstate.silicon.program import Program, assemble, emit_entry, emit_epilogue
from fpstate.silicon.signals import Actions, emit_handler
from fpstate.silicon.steps import Mode
from fpstate.silicon.timing import assemble_timing

__all__ = ["Key", "Machine"]

Key = tuple[bool, tuple[tuple[str, Mode], ...]]
"""What makes a program: EFLAGS.AC, and each step's operation and mode."""

_CODE_SIZE: Final = 1024 * PAGE
_ENTRY: Final = PAGE
_PROGRAMS: Final = 2 * PAGE
_LOW_STACK_SIZE: Final = 16 * PAGE
_INITIAL: Final = ((0, "<H", 0x037F), (context.MXCSR, "<I", 0x1F80))
"""FCW and MXCSR in their initial state; everything else of an image is zero then."""


class Machine:
    """Code and context in memory.  Page 0 of the code is the handler and the epilogue, whose faults are not ours.

    Args:
        facts: what the CPU has.

    Raises:
        OSError: the kernel or a security module refuses memory, or that it becomes executable.
    """

    def __init__(self, facts: Facts) -> None:
        self.places = Places.of(facts.layout.size)
        self.context = map_private(self.places.size)
        self._code = map_private(_CODE_SIZE)
        self._low_stack = map_private(_LOW_STACK_SIZE)
        self._programs: dict[Key | tuple[str, int], Program] = {}
        self._free = _PROGRAMS
        self._write_context()
        self._write_code(facts)

    def _write_context(self) -> None:
        for offset, form, value in _INITIAL:
            struct.pack_into(form, self.context, self.places.init + offset, value)
        stack = address_of(self._low_stack) + _LOW_STACK_SIZE
        struct.pack_into("<Q", self.context, context.LOW_STACK, stack)

    def _write_code(self, facts: Facts) -> None:
        base, origin = address_of(self.context), address_of(self._code)
        first = Assembler(origin)
        first.label("epilogue")
        emit_epilogue(first, base, self.places, facts)
        emit_handler(first, base, (origin + _ENTRY, origin + _CODE_SIZE), "epilogue")
        entry = Assembler(origin + _ENTRY)
        emit_entry(entry, base, self.places, facts)
        self._put(0, first.finish())
        self._put(_ENTRY, entry.finish())
        self._epilogue = first.address("epilogue")
        self.enter: Callable[[], None] = ctypes.PYFUNCTYPE(None)(origin + _ENTRY)
        self.actions = Actions(first.address("handler"), first.address("restorer"), base + context.PREVIOUS_ACTIONS)

    def _put(self, offset: int, code: bytes) -> None:
        """Write *code* to pages of its own, which may have been executable before."""
        address, size = address_of(self._code) + offset, -(-len(code) // PAGE) * PAGE
        protect(address, size, READ_WRITE)
        self._code[offset : offset + size] = code.ljust(size, b"\xcc")  # int3
        protect(address, size, READ_EXECUTE)

    @property
    def is_low(self) -> bool:
        """Whether 32-bit code reaches all of it."""
        return all(address_of(view) + len(view) <= 1 << 32 for view in (self.context, self._code, self._low_stack))

    @property
    def initial(self) -> bytes:
        """An image in which everything is initial."""
        return self.context[self.places.init : self.places.load]

    def knows(self, key: Key) -> bool:
        """Whether the program of *key* has been assembled."""
        return key in self._programs

    def program(self, key: Key) -> Program:
        """Return the program of *key*, assembled the first time."""
        program = self._programs.get(key)
        return program or self._assembled(key)

    def timing_program(self, op: str, repeats: int) -> Program:
        """Return the program that times *repeats* times *op*, assembled the first time."""
        program = self._programs.get((op, repeats))
        return program or self._placed(
            (op, repeats), lambda origin: assemble_timing(op, repeats, origin, self._epilogue)
        )

    def _assembled(self, key: Key) -> Program:
        ac, ops = key
        return self._placed(key, lambda origin: assemble(ops, origin, self._epilogue, ac=ac))

    def _placed(self, key: Key | tuple[str, int], assembled: Callable[[int], Program]) -> Program:
        """Put the program that *assembled* returns for an address behind the others, and remember it by *key*."""
        program = assembled(address_of(self._code) + self._free)
        if self._free + len(program.code) > _CODE_SIZE:  # full: begin again
            self._programs.clear()
            self._free = _PROGRAMS
            program = assembled(address_of(self._code) + self._free)
        self._put(self._free, program.code)
        self._free += -(-len(program.code) // PAGE) * PAGE
        self._programs[key] = program
        return program

    def close(self) -> None:
        """Unmap everything; the signal actions must have been removed."""
        for view in (self.context, self._code, self._low_stack):
            view.close()
