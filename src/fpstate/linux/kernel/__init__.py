"""The Linux kernel's handling of extended state, function by function, in the kernel's names and the kernel's order.

`Kernel` is one class in layers, a layer a source file of the kernel.  It says what is saved, loaded, invalidated and
warned about; `fpstate.linux.kernel.hardware` says who executes that: real instructions over bytes, or tags that say
whose value is where.
"""

from __future__ import annotations

from fpstate.linux.kernel.hardware import Hardware, Specification
from fpstate.linux.kernel.sched import Sched
from fpstate.linux.kernel.sets import Sets
from fpstate.linux.kernel.state import FREE, GUEST, KERNEL, NULL, USER, Cpu, Fpstate, Guest, Task

__all__ = [
    "FREE",
    "GUEST",
    "KERNEL",
    "NULL",
    "USER",
    "Cpu",
    "Fpstate",
    "Guest",
    "Hardware",
    "Kernel",
    "Sets",
    "Specification",
    "Task",
]


class Kernel(Sched):
    """The kernel, whole."""
