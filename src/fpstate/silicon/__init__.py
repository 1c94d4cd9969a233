"""This CPU, asked: XSAVE-family instructions executed in user mode, from Python, without a compiler.

`Executor` runs a few instructions with chosen registers, memory and page protections, and reports every byte, register
and signal.  It is the reference that a model of the instructions is compared with.  Only x86-64 Linux can do it.
"""

from __future__ import annotations

from fpstate.silicon.arena import ARENA_PAGES, ARENA_SIZE, Protection
from fpstate.silicon.executor import Executor, Loader
from fpstate.silicon.steps import MEMORY_OPS, OPS, TOUCH_OPS, Fault, Outcome, Step, fill

__all__ = [
    "ARENA_PAGES",
    "ARENA_SIZE",
    "MEMORY_OPS",
    "OPS",
    "TOUCH_OPS",
    "Executor",
    "Fault",
    "Loader",
    "Outcome",
    "Protection",
    "Step",
    "fill",
]
