"""One instruction to execute, with everything that it depends on, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fpstate.isa import CONTROL_INSTRUCTIONS, Capabilities, Fault, Memory, Processor, Profile, execute
from fpstate.isa.control import rdmsr, wrmsr, xgetbv, xsetbv
from fpstate.isa.memory import Access

__all__ = ["Case", "Outcome", "run"]


@dataclass(slots=True, kw_only=True)
class Case:
    """A processor, an instruction, and memory.

    Attributes:
        caps: the CPU; profile: how it uses its freedom, None for its own.
        op: the mnemonic, one of `fpstate.isa.INSTRUCTIONS`.
        state: component to its bytes; those not named are in their initial configuration.  The legacy region, with
            MXCSR, is component 0.
        control: the other registers: xcr0, xss, xfd, s_cet, ... by the names of `fpstate.isa.processor.CONTROL`.
        modes: cpl, ts, em, am, ac, osxsave, osfxsr, mode, non_root, where they are not as usual.
        used: `Processor.used`; None: every component in *state* where XINUSE is sticky, else none.
        mask, address, memory, pages: EDX:EAX, the area, the bytes at that address, and what the pages allow.
        ecx, value: operands of XGETBV, XSETBV, RDMSR and WRMSR.
        id: what to call it.
    """

    caps: Capabilities
    op: str
    profile: Profile | None = None
    state: Mapping[int, bytes] = field(default_factory=dict)
    control: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    used: int | None = None
    mask: int = 0
    address: int = 0
    memory: bytes = b""
    pages: Mapping[int, Access] = field(default_factory=dict)
    ecx: int = 0
    value: int = 0
    id: object = None

    def processor(self) -> Processor:
        """Return the processor as it is before the instruction."""
        p = Processor(self.caps, self.profile)
        used = 0
        for bit, data in self.state.items():
            p.sections[bit][: len(data)] = data
            used |= 0b11 if bit == 0 else 1 << bit
        p.used = self.used if self.used is not None else used if p.profile.xinuse == "sticky" else 0
        for name, value in self.control.items():
            setattr(p, name, value)
        for name, value in self.modes.items():
            setattr(p, name, value)
        return p


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a case.

    Attributes:
        processor: the processor afterwards.
        memory: the bytes afterwards.
        fault: what was raised, or None.
        value: what RDMSR or XGETBV returned, or None.
    """

    processor: Processor
    memory: bytearray
    fault: Fault | None = None
    value: int | None = None


def run(case: Case) -> Outcome:
    """Execute *case* on the model."""
    p = case.processor()
    outcome = Outcome(processor=p, memory=bytearray(case.memory))
    try:
        if case.op in CONTROL_INSTRUCTIONS:
            outcome.value = _control(p, case)
        else:
            execute(p, case.op, Memory(outcome.memory, case.address, case.pages), case.address, case.mask)
    except Fault as fault:
        outcome.fault = fault
    return outcome


def _control(p: Processor, case: Case) -> int | None:
    if case.op == "xgetbv":
        return xgetbv(p, case.ecx)
    if case.op == "rdmsr":
        return rdmsr(p, case.ecx)
    (xsetbv if case.op == "xsetbv" else wrmsr)(p, case.ecx, case.value)
    return None
