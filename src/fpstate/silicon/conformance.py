"""The model against this CPU: random cases, executed by both, compared in every byte, register and signal.

The CPU is asked in user mode, with the XCR0 that the kernel has set.  `Conformance` runs the cases of a seed, `Tally`
adds them up.  A mismatch is made small, and is a line that ``fpstate vectors check`` reads.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fpstate.cpu import this_host
from fpstate.isa import Capabilities, Fault, Memory, Processor, execute, masks, x87
from fpstate.isa import profile as profiles
from fpstate.isa.access import NEEDS
from fpstate.isa.capabilities import Places
from fpstate.isa.case import Case
from fpstate.isa.control import xgetbv
from fpstate.isa.generate import Generator
from fpstate.isa.memory import PAGE
from fpstate.isa.processor import LEGACY_BYTES
from fpstate.registers import MXCSR_INIT
from fpstate.silicon.arena import ARENA_PAGES, Protection
from fpstate.silicon.context import MOVABLE
from fpstate.silicon.executor import Executor
from fpstate.silicon.minimal import Trial, minimal
from fpstate.silicon.steps import Outcome, Step, fill
from fpstate.vectors.case import encode
from fpstate.vectors.fields import Document
from fpstate.xfeatures import LEGACY, PKRU, SSE, bits

__all__ = ["USER_OPS", "Conformance", "Mismatch", "Tally"]

_VECTORS: Final = {6: "#UD", 7: "#NM", 12: "#SS", 13: "#GP", 14: "#PF", 17: "#AC"}
_NAMES: Final = ("xsave", "xsaveopt", "xsavec", "xrstor", "fxsave", "fxrstor")
USER_OPS: Final = tuple(f"{name}{form}" for name in _NAMES for form in ("64", ""))
"""The instructions that user mode has."""
_ATTEMPTS: Final = 4
_PRESENT: Final = 1
"""Bit 0 of a page fault's error code: whether the kernel had filled in the page, which is its own affair."""
_SHOWN: Final = 10
_POISON: Final = 0x6B


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A case in which the model and the CPU differ.

    Attributes:
        differences: what differs, a line each.
        steps: the instructions.
        line: ``{"case": ..., "result": ...}`` as ``fpstate vectors check`` reads it; the case's ``op`` is the first
            instruction, and without a second one the result is what the CPU did.
    """

    differences: tuple[str, ...]
    steps: tuple[Step, ...]
    line: Document


class _Verdict(NamedTuple):
    outcome: Outcome
    differences: list[str]
    fault: Fault | None
    attempt: int


@dataclass(slots=True)
class Tally:
    """What many cases came to.

    Attributes:
        cases: instruction, or sequence, to the number of its cases.
        faults: rule to the number of cases that broke it.
        repeated: cases that agreed only when tried again: the kernel had preempted the tracking.
        mismatches: at most a few, the first.
        wrong: how many mismatches there were.
    """

    cases: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    wrong: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add the counts of another part."""
        self.cases += other.cases
        self.faults += other.faults
        self.repeated += other.repeated
        self.wrong += other.wrong
        self.mismatches = (self.mismatches + other.mismatches)[:_SHOWN]


class Conformance:
    """A run of random cases on the model and on this CPU.

    Args:
        executor: what runs instructions on the CPU.
        seed: the same seed gives the same cases.
    """

    def __init__(self, executor: Executor, *, seed: int) -> None:
        self._executor = executor
        self._caps = Capabilities(this_host())
        self._profile = profiles.of_cpu(self._caps.cpu)
        self._xcr0 = executor.xcr0
        self._standard: Places = self._caps.standard(self._xcr0)
        self._ops = [op for op in USER_OPS if self._caps.has(NEEDS[op.removesuffix("64")])]
        self._generator = Generator(
            self._caps, seed=seed, xcr0=self._xcr0, xss=0, base=executor.arena, frozen=1 << PKRU | ~_movable(executor)
        )
        self._pick = self._generator.below

    @property
    def not_exercised(self) -> list[str]:
        """What this CPU, or user mode, cannot do, in words."""
        missing = ["XSAVES, XRSTORS, XSETBV, RDMSR, WRMSR: CPL 0", "CR0.TS, CR0.EM, CR4.OSXSAVE, IA32_XFD: CPL 0"]
        beyond = self._xcr0 & ~_movable(self._executor)
        if beyond:
            missing.append(f"{self._caps.cpu.catalogue.names(beyond)}: enabled, but kept in its initial configuration")
        absent = self._caps.cpu.catalogue.extended(()).names(_ALL_USER & ~self._xcr0)
        missing.append(f"{absent}: not on this CPU, or not enabled in XCR0")
        if not self._executor.runs_mode_32:
            missing.append("32-bit mode: this process has none")
        return missing

    def run(self, count: int) -> Tally:
        """Execute *count* cases.

        Returns:
            The tally; mismatches do not stop it.
        """
        tally = Tally()
        for _ in range(count):
            self._one(tally)
        return tally

    def _one(self, tally: Tally) -> None:
        if self._pick(8) == 0:
            case, steps, name = self._sequence()
        else:
            case, steps, name = self._single()
        # What moves have written stays tracked in ways that nobody documents: a sequence starts from XRSTOR's tracking.
        # MXCSR hides whether zeros that moves wrote to XMM registers are in use.
        loader_moves = self._pick(4) != 0 and len(steps) == 1 and not _hidden(case)
        verdict = self._verdict(case, steps, moves=loader_moves)
        if verdict.differences:
            tally.wrong += 1
            if len(tally.mismatches) < _SHOWN:
                tally.mismatches.append(self._mismatch((case, steps), moves=loader_moves))
        elif verdict.attempt:
            tally.repeated += 1
        tally.cases[name] += 1
        tally.faults[verdict.fault.rule.id if verdict.fault else "no fault"] += 1

    def _verdict(self, case: Case, steps: list[Step], *, moves: bool) -> _Verdict:
        """Compare until both agree, or often enough: a preemption in between loses the CPU's tracking."""
        for attempt in range(_ATTEMPTS):
            outcome, differences, fault = self._compare(case, steps, moves=moves)
            if not differences or attempt == _ATTEMPTS - 1:
                return _Verdict(outcome, differences, fault, attempt)
        raise AssertionError  # the last attempt has returned

    def _mismatch(self, trial: Trial, *, moves: bool) -> Mismatch:
        """Return the smallest case like *trial* in which model and CPU differ, with what the CPU did."""
        case, steps = minimal(trial, lambda each: bool(self._verdict(*each, moves=moves).differences))
        verdict = self._verdict(case, steps, moves=moves)
        line: Document = {"case": encode(case, "host")}
        if len(steps) == 1:
            line["result"] = {"memory": verdict.outcome.memory.hex(), "fault": _as_result(verdict.outcome)}
        return Mismatch(tuple(verdict.differences), tuple(steps), line)

    # Cases

    def _single(self) -> tuple[Case, list[Step], str]:
        op = "xgetbv" if self._pick(20) == 0 else self._ops[self._pick(len(self._ops))]
        case = self._case(op)
        case.modes = {"cpl": 3}
        if op == "xgetbv":
            case.address, case.memory = self._executor.arena, bytes(64)
            return case, [Step(op, case.ecx)], op
        name = op
        if not op.endswith("64") and self._pick(4) == 0 and self._executor.runs_mode_32 and not case.address >> 32:
            case.modes = {"cpl": 3, "mode": 32}
            name = f"{op} (32-bit mode)"
        elif self._pick(30) == 0:
            case.modes = {"cpl": 3, "am": 1, "ac": 1}
        elif self._pick(60) == 0:
            case.address |= 1 << 62
        return case, [_step(case)], name

    def _case(self, op: str) -> Case:
        """Return a case that loads nothing which this process needs, or may not have: PKRU, tiles under XFD."""
        while True:
            case = self._generator.case(op)
            xstate_bv = int.from_bytes(case.memory[512:520], "little") if op.startswith("xrstor") else 0
            if not masks.loaded(case.mask & self._xcr0, xstate_bv) & ~_movable(self._executor):
                return case

    def _sequence(self) -> tuple[Case, list[Step], str]:
        """Return XRSTOR, memory changed behind it, a register written, and a save: the tracking of SDM 13.6."""
        restore = "xrstor64" if self._pick(3) else "xrstor"
        case = self._case(restore)
        case.modes, case.pages = {"cpl": 3}, {}
        case.address &= ~63
        steps = [_step(case)]
        if self._pick(3):
            steps.append(fill(_POISON, 512))
            steps.append(fill(_POISON, max(0, self._standard.end - 576), 576))
        if self._pick(2):
            steps.append(Step(_TOUCHES[self._pick(len(_TOUCHES))]))
        saves = [op for op in self._ops if "xsave" in op]
        mask = self._generator.mask(self._xcr0)
        offset = 0 if self._pick(4) else 64
        steps.append(Step(saves[self._pick(len(saves))], mask, offset))
        case.memory += bytes(64)
        return case, [step for step in steps if self._can(step)], f"{restore}, ..., save"

    def _can(self, step: Step) -> bool:
        """Tell whether the CPU has the registers that a step touches."""
        needed = {"touch-vxmm1": 0b111, "touch-k1": 0xE7, "touch-zmm20": 0xE7}.get(step.op, 0)
        return not needed & ~self._xcr0

    # Comparing

    def _compare(self, case: Case, steps: list[Step], *, moves: bool) -> tuple[Outcome, list[str], Fault | None]:
        executor = self._executor
        inside = not case.address >> 62
        outcome = executor.run(
            steps,
            self._register_image(case),
            case.memory,
            offset=case.address - executor.arena if inside else 0,
            protection=_protection(case, executor),
            loader="moves" if moves else "xrstor",
            ac=bool(case.modes.get("ac")),
        )
        p = case.processor()
        mode, p.mode = p.mode, 64
        p.used = 0
        in_use = _not_initial(p, self._xcr0) if outcome.xinuse_before is not None else 0
        differences = []
        if outcome.xinuse_before is not None:
            sticky = self._profile.xinuse == "sticky"
            differences = _xinuse_before(in_use, outcome.xinuse_before, exact=not moves and not sticky)
            p.used = outcome.xinuse_before if moves or sticky else 0
        p.mode = mode
        memory = bytearray(case.memory)
        fault = _model(p, case, steps, memory)
        differences += self._differences(p, case, memory, fault, outcome, moves=moves)
        return outcome, differences, fault

    def _register_image(self, case: Case) -> bytes:
        image = bytearray(self._executor.initial)
        xstate_bv = 0
        p = case.processor()
        for bit in case.state:
            xstate_bv |= LEGACY if bit == 0 else 1 << bit
        image[:LEGACY_BYTES] = p.legacy
        for bit, offset, size in self._standard.slots:
            if bit in case.state:
                image[offset : offset + size] = case.state[bit]
        image[512:520] = xstate_bv.to_bytes(8, "little")
        return bytes(image)

    def _differences(
        self, p: Processor, case: Case, memory: bytearray, fault: Fault | None, outcome: Outcome, *, moves: bool
    ) -> Iterator[str]:
        yield from _fault_differences(fault, outcome)
        if outcome.value is not None and fault is None and outcome.value != xgetbv(p, case.ecx):
            yield f"XGETBV is {outcome.value:#x} on the CPU, {xgetbv(p, case.ecx):#x} in the model"
        if outcome.memory != memory:
            at = next(i for i, pair in enumerate(zip(outcome.memory, memory, strict=True)) if pair[0] != pair[1])
            yield f"memory byte {at} is {outcome.memory[at]:#04x} on the CPU, {memory[at]:#04x} in the model"
        yield from self._register_differences(p, outcome.registers)
        if fault is None and outcome.xinuse_after is not None:
            p.mode = 64
            modelled, possible = xgetbv(p, 1), outcome.xinuse_before if moves else 0
            if (modelled ^ outcome.xinuse_after) & ~(possible or 0):
                yield f"XINUSE is {outcome.xinuse_after:#x} on the CPU, {modelled:#x} in the model"

    def _register_differences(self, p: Processor, image: bytes) -> Iterator[str]:
        legacy = bytearray(p.legacy)
        x87.store(p, legacy, 0, wide=True)
        for start, end in ((0, 28), (32, LEGACY_BYTES)):
            if image[start:end] != legacy[start:end]:
                at = next(i for i in range(start, end) if image[i] != legacy[i])
                yield f"register byte {at} is {image[at]:#04x} on the CPU, {legacy[at]:#04x} in the model"
        for bit, offset, size in self._standard.slots:
            if image[offset : offset + size] != p.sections[bit]:
                yield f"component {bit} differs"


_ALL_USER: Final = 0b1100_0000_0010_1111_1111 | 1 << 19
_TOUCHES: Final = ("touch-vxmm1", "touch-k1", "touch-zmm20", "touch-x87")


def _movable(executor: Executor) -> int:
    """Return the components whose registers ordinary instructions load."""
    return executor.xcr0 & MOVABLE


def _hidden(case: Case) -> bool:
    p = case.processor()
    return p.mxcsr != MXCSR_INIT and p.in_initial_configuration(1)


def _step(case: Case) -> Step:
    address = case.address if case.address >> 62 else None
    return Step(case.op, case.mask, 0, address, 32 if case.modes.get("mode") == 32 else 64)


def _protection(case: Case, executor: Executor) -> list[Protection] | None:
    if not case.pages:
        return None
    first = executor.arena // PAGE
    return [case.pages.get(first + page, "rw") for page in range(ARENA_PAGES)]


def _not_initial(p: Processor, components: int) -> int:
    """Return what XGETBV(1) must show at least: what is not initial, by its value and not by the model's own XINUSE."""
    in_use = sum(1 << bit for bit in bits(components) if not p.in_initial_configuration(bit))
    return in_use | (SSE if p.mxcsr != MXCSR_INIT else 0)


def _xinuse_before(modelled: int, measured: int, *, exact: bool) -> list[str]:
    """XINUSE must have what is not initial; zeros that moves wrote may be in use as well."""
    wrong = modelled ^ measured if exact else modelled & ~measured
    return [f"XINUSE is {measured:#x} before, {modelled:#x} in the model"] if wrong else []


def _model(p: Processor, case: Case, steps: list[Step], memory: bytearray) -> Fault | None:
    seen = Memory(memory, case.address, case.pages)
    try:
        for step in steps:
            if step.op == "fill":
                count = step.rfbm >> 32
                memory[step.offset : step.offset + count] = bytes([step.rfbm & 0xFF]) * count
            elif step.op in _TOUCHES:
                _touch(p, step.op)
            elif step.op == "xgetbv":
                xgetbv(p, step.rfbm)
            else:
                execute(p, step.op, seen, case.address + step.offset, step.rfbm & (1 << 64) - 1)
    except Fault as fault:
        return fault
    return None


def _touch(p: Processor, op: str) -> None:
    """Do what the touching instruction does: VPADDD of a register with itself, KXNORW, FNINIT."""
    if op == "touch-k1":
        p.write("k1", 0xFFFF)
    elif op == "touch-x87":
        top = p.legacy[3] >> 3 & 7
        stack = [p.legacy[32 + 16 * i : 48 + 16 * i] for i in range(8)]
        p.legacy[32:160] = b"".join(stack[(j - top) % 8] for j in range(8))  # TOP is 0 now
        p.legacy[:24] = struct.pack("<HHBBH16x", 0x37F, 0, 0, 0, 0)
        p.fcs = p.fds = 0
        p.modified |= 1
    elif op == "touch-zmm20":
        p.write("zmm20", _doubled(p.read("zmm20")))
    else:
        doubled = _doubled(p.read("xmm1"))
        used = p.used
        p.write("zmm1" if 6 in p.sections else "ymm1", doubled.ljust(64 if 6 in p.sections else 32, b"\0"))
        p.used = used | SSE  # the upper parts become 0, and known to be


def _doubled(data: bytes) -> bytes:
    count = len(data) // 4
    return struct.pack(f"<{count}I", *(2 * lane & 0xFFFFFFFF for lane in struct.unpack(f"<{count}I", data)))


def _as_result(outcome: Outcome) -> Document | None:
    """Return the CPU's fault as a test vector has it."""
    fault = outcome.fault
    if fault is None:
        return None
    vector = _VECTORS.get(fault.trapno, str(fault.trapno))
    found: Document = {"vector": vector, "error_code": None if vector in {"#UD", "#NM"} else fault.error_code}
    return found | ({"address": f"{fault.cr2:#x}"} if vector == "#PF" else {})


def _fault_differences(fault: Fault | None, outcome: Outcome) -> Iterator[str]:
    given = outcome.fault
    if given is None or fault is None:
        if given is not None or fault is not None:
            shown = "none" if given is None else _VECTORS.get(given.trapno, str(given.trapno))
            yield f"fault is {shown} on the CPU, {fault} in the model"
        return
    vector = _VECTORS.get(given.trapno, str(given.trapno))
    if vector != fault.vector:
        yield f"fault is {vector} on the CPU, {fault} in the model"
    elif (given.error_code ^ (fault.error_code or 0)) & ~(_PRESENT if vector == "#PF" else 0):
        yield f"error code is {given.error_code:#x} on the CPU, {fault.error_code} in the model"
    elif fault.address is not None and given.cr2 != fault.address:
        yield f"CR2 is {given.cr2:#x} on the CPU, {fault.address:#x} in the model"
