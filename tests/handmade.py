"""Recordings written by hand: rows by the names of their events."""

from __future__ import annotations

from fpstate.traces.columns import ABSENT, CODES, MISSING, Block

HOST = 0x80000000000008E7
"""XCOMP_BV of a task's fpstate: x87 to AVX-512, PKRU is not there, CET_U is."""
GUEST = 0x80000000000018E7
"""XCOMP_BV of a guest's: CET_S too."""


def block(*rows: tuple[object, ...]) -> Block:
    """Make a block of (time, cpu, pid, event, field, ...).

    The fields are: of an x86_fpu event XSTATE_BV and XCOMP_BV, of which the last may be left out; of kvm_fpu 1 for load
    and 0 for unload; of others what ``Event.fields`` says.  A thread's fpu is at 0xffff000000000000 + its number.
    """
    return Block.of_rows([_row(*row) for row in rows])  # type: ignore[arg-type]


def _row(time: int, cpu: int, pid: int, event: str, *fields: int) -> tuple[int, ...]:
    if event in {"activated", "deactivated"}:
        event = f"x86_fpu_regs_{event}"
    elif event == "dropped":
        event = "x86_fpu_dropped"
    code = CODES[event]
    if event.startswith("x86_fpu"):
        xfeatures, xcomp_bv = (*fields, *(2, HOST)[len(fields) :])
        return time, cpu, pid, code, 1, 0xFFFF_0000_0000_0000 + pid, xfeatures, xcomp_bv
    if event == "kvm_fpu":
        return time, cpu, pid, code, fields[0], MISSING, MISSING, MISSING
    a, b, c = (*fields, *(MISSING,) * (3 - len(fields)))
    return time, cpu, pid, code, ABSENT, a, b, c
