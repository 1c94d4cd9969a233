"""What one input says about one logical CPU, before anything is concluded from it.

Every reader in `fpstate.cpu.formats` produces `Dump` values and nothing else; `fpstate.cpu.model.Cpu` is what fpstate
makes of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["BootLog", "Dump", "Leaves", "Modifier", "Registers", "log_only"]

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX as one CPUID call returned them."""

Leaves = Mapping[tuple[int, int], Registers]
"""(leaf, sub-leaf) to registers."""


class BootLog(NamedTuple):
    """What the ``x86/fpu:`` lines of a Linux boot, or Xen's ``xstate:`` line, say.

    Attributes:
        features: the enabled xfeatures as printed.
        context_size: bytes of the image, as printed.
        compacted: True or False as printed ('compacted', 'standard'); None if the log does not say.
        components: bit to (offset, size) as printed, in the format of the log; may be empty.
    """

    features: int
    context_size: int
    compacted: bool | None
    components: Mapping[int, tuple[int, int]] = MappingProxyType({})


class Modifier(NamedTuple):
    """One register of a Firecracker CPU template: the bits it forces.

    Attributes:
        leaf, subleaf: which CPUID call.
        register: 0 to 3 for EAX, EBX, ECX, EDX.
        mask: the bits that the template sets or clears (the others, written ``x``, are left as the CPU has them).
        value: their values; a subset of *mask*.
    """

    leaf: int
    subleaf: int
    register: int
    mask: int
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """One logical CPU of one input.

    Attributes:
        format: which reader produced it, e.g. ``"instlatx64"``.
        leaves: the CPUID calls that the input shows.
        label: what the input calls the CPU (file name, host, ``CPU #0``), or None.
        index: number of the logical CPU in the input, from 0.
        xcr0: XCR0 when the dump was taken, if the input states it.
        xss: IA32_XSS when the dump was taken, if the input states it.
        os_linux: True if a booted Linux had set XCR0 and IA32_XSS before the dump was taken.
        zeros_unread: True if this format is known to print zeros for sub-leaves that nobody read.
        boot_log: the boot lines, for inputs that are a log.
        modifiers: the forced bits, for inputs that are a CPU template; then *leaves* is empty.
        other_states: the same CPU's leaves under other (XCR0, IA32_XSS), where an input has several.
        complaints: what the kernel itself said against this leaf 0DH, in its words.
        guesses: what was guessed while reading, and from what.
        notes: other remarks for the user: oddities of the input, what was left aside.
    """

    format: str
    leaves: Leaves = field(default_factory=dict)
    label: str | None = None
    index: int = 0
    xcr0: int | None = None
    xss: int | None = None
    os_linux: bool = False
    zeros_unread: bool = False
    boot_log: BootLog | None = None
    modifiers: tuple[Modifier, ...] = ()
    other_states: Mapping[tuple[int, int], Leaves] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def log_only(leaves: Leaves, boot_log: BootLog | None) -> bool:
    """Tell whether boot lines are all that is known: what a kernel made of the CPU, and no CPUID."""
    return boot_log is not None and not leaves
