"""What can be executed, and what is told of it: `Step`, `Fault`, `Outcome`.

They are named tuples, not dataclasses: a differential test makes hundreds of thousands of them a second.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from fpstate.silicon import encode
from fpstate.silicon.encode import RCX, RDI, RDX, At

__all__ = ["MEMORY_OPS", "OPS", "TOUCH_OPS", "Fault", "Outcome", "Step", "fill"]

Mode = Literal[64, 32]

_AREA: Final = At(RDI)

MEMORY_OPS: Final[dict[str, bytes]] = {
    "xsave": encode.xsave(_AREA, wide=False),
    "xsave64": encode.xsave(_AREA, wide=True),
    "xsaveopt": encode.xsaveopt(_AREA, wide=False),
    "xsaveopt64": encode.xsaveopt(_AREA, wide=True),
    "xsavec": encode.xsavec(_AREA, wide=False),
    "xsavec64": encode.xsavec(_AREA, wide=True),
    "xrstor": encode.xrstor(_AREA, wide=False),
    "xrstor64": encode.xrstor(_AREA, wide=True),
    "fxsave": encode.fxsave(_AREA, wide=False),
    "fxsave64": encode.fxsave(_AREA, wide=True),
    "fxrstor": encode.fxrstor(_AREA, wide=False),
    "fxrstor64": encode.fxrstor(_AREA, wide=True),
    "ldmxcsr": encode.ldmxcsr(_AREA),
    "fill": encode.mov(RCX, RDX, wide=False) + encode.REP_STOSB,
}
"""Instructions with a memory operand, at [rdi]; ``fill`` is for changing memory between two others, see `fill`."""

TOUCH_OPS: Final[dict[str, bytes]] = {
    "touch-xmm1": encode.paddd(1),
    "touch-vxmm1": encode.vpaddd(1, long=False),
    "touch-ymm1": encode.vpaddd(1, long=True),
    "touch-zmm1": encode.vpaddd_zmm(1),
    "touch-zmm20": encode.vpaddd_zmm(20),
    "touch-k1": encode.kxnorw(1),
    "touch-x87": encode.FNINIT,
    "fld1": encode.FLD1,
    "vzeroupper": encode.VZEROUPPER,
    "vzeroall": encode.VZEROALL,
}
"""Instructions without a memory operand, which change registers."""

OPS: Final = (*MEMORY_OPS, "xgetbv", *TOUCH_OPS)
"""Every operation that a `Step` can name."""


class Step(NamedTuple):
    """One instruction to execute.

    Attributes:
        op: one of `OPS`.
        rfbm: what EDX:EAX holds; for ``xgetbv``, what ECX holds; for ``fill``, see `fill`.
        offset: where the memory operand lies: bytes from the first byte of the area; may be negative or misaligned.
        address: where it lies instead, as an absolute linear address; may be unmapped or not canonical.
        mode: 32 executes it in compatibility mode: no REX.W, registers 8 and up out of reach.
    """

    op: str
    rfbm: int = 0
    offset: int = 0
    address: int | None = None
    mode: Mode = 64


def fill(value: int, count: int, offset: int = 0) -> Step:
    """Return the step that writes *count* bytes of *value* from *offset* on; no extended register changes."""
    return Step("fill", value | count << 32, offset)


class Fault(NamedTuple):
    """The signal that a step ended in.

    Attributes:
        step: the step's number, from 0.
        signal: SIGSEGV, SIGBUS, SIGILL or SIGFPE.
        code: si_code; 128 is SI_KERNEL, which is what #GP gives.
        address: si_addr.
        trapno: the exception's vector: 6 #UD, 13 #GP, 14 #PF, 16 #MF, 17 #AC.
        error_code: the exception's error code.
        cr2: the address of a #PF; 0 for all others.
    """

    step: int
    signal: int
    code: int
    address: int
    trapno: int
    error_code: int
    cr2: int


class Outcome(NamedTuple):
    """What a run left behind.

    Attributes:
        memory: the area's bytes.
        registers: a standard-format image of all enabled components, whose XSTATE_BV has all of them.
        xinuse_before: XGETBV(1) just before the first step; None where the CPU does not have it.
        xinuse_after: XGETBV(1) just after the last step.  After a fault it is what the kernel's XRSTOR made of it when
            the handler returned, which may be less (Zen 4: zeros are no longer in use) or more.
        value: EDX:EAX of the last ``xgetbv``; None if there was none.
        fault: the signal, or None.
    """

    memory: bytes
    registers: bytes
    xinuse_before: int | None
    xinuse_after: int | None
    value: int | None
    fault: Fault | None
