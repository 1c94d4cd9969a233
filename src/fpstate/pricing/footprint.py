"""How many bytes an instruction moves: those that the model of the instruction writes or reads, counted.

There is no second copy of the rules here: `fpstate.isa` executes the instruction on memory that takes notes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from fpstate.cpu.model import Cpu
from fpstate.isa.capabilities import Capabilities
from fpstate.isa.instructions import execute
from fpstate.isa.memory import Memory
from fpstate.isa.processor import Processor
from fpstate.isa.profile import of_cpu

__all__ = ["Footprint"]

_ROOM: Final = 64
"""Bytes behind an image, for what is written past the end; nothing is."""


class _Noted(bytearray):
    """Memory that remembers which of its bytes were read and which were written.

    Attributes:
        read, written: one byte for each, 1 where it was.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.read, self.written = bytearray(len(self)), bytearray(len(self))

    def __getitem__(self, at: Any) -> Any:
        _note(self.read, at)
        return super().__getitem__(at)

    def __setitem__(self, at: Any, value: Any) -> None:
        _note(self.written, at)
        super().__setitem__(at, value)


def _note(notes: bytearray, at: slice | int) -> None:
    if isinstance(at, slice):
        notes[at] = b"\1" * len(notes[at])
    else:
        notes[at] = 1


class Footprint:
    """Counts the bytes that saves and restores move on one CPU.

    Args:
        cpu: the CPU.
        xcr0: the user components that are enabled.
        xss: the supervisor components that are.
    """

    def __init__(self, cpu: Cpu, xcr0: int, xss: int) -> None:
        self._caps = Capabilities(cpu)
        # XINUSE is what was said, whatever the registers hold: so they can stay initial, which every rule accepts.
        self._profile = replace(of_cpu(cpu), xinuse="sticky", modified=False)
        self._xcr0, self._xss = xcr0 or 1, xss
        self._saved: dict[tuple[str, int, int], int] = {}
        self._restored: dict[tuple[str, str, int, int, int], int] = {}

    def saved(self, instruction: str, rfbm: int, in_use: int) -> int:
        """Return the bytes that a save writes into an image that it has written before.

        Args:
            instruction: ``XSAVES``, ``XSAVEC``, ``XSAVEOPT``, ``XSAVE`` or ``FXSAVE``.
            rfbm: EDX:EAX.
            in_use: XINUSE.
        """
        key = (instruction, rfbm, in_use)
        if key not in self._saved:
            memory = self._memory()
            self._execute(instruction, rfbm, in_use, memory)
            self._saved[key] = sum(memory.written)
        return self._saved[key]

    def restored(self, instruction: str, saved_by: str, buffer: int, rfbm: int, xstate_bv: int) -> int:
        """Return the bytes that a restore reads.

        Args:
            instruction: ``XRSTORS``, ``XRSTOR`` or ``FXRSTOR``.
            saved_by: what wrote the image.
            buffer: the components that the image has room for.
            rfbm: EDX:EAX.
            xstate_bv: what the image holds.
        """
        key = (instruction, saved_by, buffer, rfbm, xstate_bv)
        if key not in self._restored:
            memory = self._memory()
            self._execute(saved_by, buffer, xstate_bv, memory)
            memory.forget()
            self._execute(instruction, rfbm, 0, memory)
            self._restored[key] = sum(memory.read)
        return self._restored[key]

    def _memory(self) -> _Noted:
        enabled = self._xcr0 | self._xss
        ends = [self._caps.compacted(enabled).end, self._caps.standard(self._xcr0).end]
        return _Noted(max(ends) + _ROOM)

    def _execute(self, instruction: str, mask: int, in_use: int, memory: _Noted) -> None:
        p = Processor(self._caps, self._profile)
        p.xcr0, p.xss, p.used = self._xcr0, self._xss, in_use
        execute(p, f"{instruction.lower()}64", Memory(memory, 0), 0, mask)
