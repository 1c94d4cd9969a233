"""What every reader of XSAVE images would say to a thread's bytes: the instructions, ptrace, KVM and sigreturn.

The bytes are asked about as the source has them, damage included.  The machine is the one that the source speaks of:
the CPU of the layout, with the source's XCR0, under one kernel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from fpstate.cpu import xcr0
from fpstate.cpu.flags import FLAGS
from fpstate.errors import CannotTell, FpstateError
from fpstate.isa import Processor
from fpstate.isa.capabilities import Capabilities
from fpstate.isa.verdict import Verdict, judge
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, MAGIC2_SIZE
from fpstate.linux.copyin import RULES, Finding
from fpstate.linux.handin import hand_in, kvm_size, user_features
from fpstate.linux.policy import Policy
from fpstate.sources.placement import Placed
from fpstate.xfeatures import AVX, AVX512, COMPACTED, LEGACY, MPX, SOFTWARE, SSE, XTILE

__all__ = ["Answer", "Hearing", "hear"]

_KVM: Final = "KVM_SET_XSAVE"
_FRAME: Final = "signal frame"
"""How the names of threads begin whose image is one."""
_MAGIC1: Final = FP_XSTATE_MAGIC1.to_bytes(4, "little")
_GROUPS: Final = ((MPX, MPX), (AVX512, AVX512 | AVX | SSE), (XTILE, XTILE), (AVX, AVX | SSE))
"""Components that XCR0 has only together: of one of the first, all of the second."""
_LARGEST: Final = 1 << 16
"""Bytes that are handed in; the largest image of a CPU has some 12,000."""


class Answer(NamedTuple):
    """What one reader says.  With neither verdict, finding nor refusal, it accepts the image.

    Attributes:
        reader: the instruction, the request or the system call.
        verdict: an instruction's: it runs, or faults.
        finding: the rule of the kernel's that is broken.
        refusal: why it cannot be told.
    """

    reader: str
    verdict: Verdict | None = None
    finding: Finding | None = None
    refusal: FpstateError | None = None


class Hearing(NamedTuple):
    """The machine that was asked, and what its readers say.

    Attributes:
        processor: CPU, XCR0 and IA32_XSS; None if the source does not tell enough of them.
        policy: the kernel.
        features: the user features of the task or vCPU: the default ones, and with permission where the image needs it;
            None if they cannot be told.
        answers: one a reader.
    """

    processor: Processor | None
    policy: Policy
    features: int | None
    answers: tuple[Answer, ...]


def hear(placed: Placed, policy: Policy) -> Hearing:
    """Return what the readers of its form say to the image of *placed*; none reads FSAVE's form here, or no image.

    KVM wants at least 4096 bytes, and a core's or a debugger's image has fewer: it is asked a second time about the
    same image with zeros behind it.
    """
    if placed.format in {"none", "fsave"}:
        return Hearing(None, policy, None, ())
    image = bytes(placed.thread.image[:_LARGEST])
    answers = [_instruction(placed, name, image) for name in _instructions(placed)]
    xsave = placed.thread.form == "xsave"
    framed = placed.thread.name.startswith(_FRAME)
    p = None
    try:
        p = _machine(placed)
        features = _features(p, policy, placed.xstate_bv or 0)
    except FpstateError as refusal:
        readers = (*(("PTRACE_SETREGSET", _KVM) if xsave else ()), *(("rt_sigreturn",) if xsave or framed else ()))
        answers += [Answer(name, refusal=refusal) for name in readers]
        return Hearing(p, policy, None, tuple(answers))
    kernel = _Kernel(p, policy, features)
    if xsave:
        answers.append(_ask(kernel, "PTRACE_SETREGSET", "ptrace", image))
        answers += _kvm(kernel, image)
    if xsave or framed:
        answers.append(_sigreturn(placed, kernel, image))
    return Hearing(p, policy, features, tuple(answers))


def _instructions(placed: Placed) -> tuple[str, ...]:
    """Return the instructions that read the form: those of 64-bit mode for a 64-bit thread."""
    wide = "" if placed.thread.abi == "i386" else "64"
    return (f"xrstor{wide}", f"xrstors{wide}") if placed.thread.form == "xsave" else (f"fxrstor{wide}",)


# -- the machine ---------------------------------------------------------------------------------------------------


def _machine(placed: Placed) -> Processor:
    """Return the processor that the source speaks of.

    Raises:
        CannotTell: no CPU is known that writes such an image, or XCR0 is none.
    """
    layout = placed.layout
    if layout.origin == "deduced" and not layout.candidates:
        raise CannotTell("no CPU of the built-in table writes such an image", cure="name the CPU with --cpu")
    cpu = layout.caps.cpu
    compacted = (placed.xcomp_bv or 0) & ~COMPACTED if (placed.xcomp_bv or 0) & COMPACTED else 0
    told = placed.thread.enabled
    if told is None and layout.origin == "deduced" and compacted:
        told = _closed(compacted)  # the layout is that of all CPUs together: it is what the image names
    user = layout.caps.user if told is None else (told | LEGACY) & layout.caps.user
    supervisor = (cpu.xss_mask or 0) if layout.origin == "cpu" else compacted & (cpu.xss_mask or 0)
    if not cpu.leaves:  # a layout alone: of its flags nothing is known
        silent = frozenset(FLAGS) - cpu.flags
        kept = {bit: c for bit, c in cpu.components.items() if (user | supervisor) >> bit & 1}
        cpu = replace(cpu, xcr0_mask=user, xss_mask=supervisor, components=kept, flags_unknown=silent)
    broken = xcr0.fault(user)
    if broken is not None:
        raise CannotTell(f"XCR0 {user:#x} is none that XSETBV accepts: {broken.text}")
    p = Processor(Capabilities(cpu))
    p.xcr0, p.xss = user, supervisor & p.caps.supervisor
    return p


def _closed(mask: int) -> int:
    """Return the least XCR0 that has *mask*."""
    for some, together in _GROUPS:
        mask |= together if mask & some else 0
    return mask | LEGACY


def _features(p: Processor, policy: Policy, used: int) -> int:
    default, most = user_features(p.cpu, policy, None), user_features(p.cpu, policy, p.caps.user)
    return most if used & most & ~default else default


# -- the answers ---------------------------------------------------------------------------------------------------


def _instruction(placed: Placed, op: str, image: bytes) -> Answer:
    try:
        return Answer(op.upper(), judge(_machine(placed), op, image))  # it changes the processor
    except FpstateError as refusal:
        return Answer(op.upper(), refusal=refusal)


class _Kernel(NamedTuple):
    """Who is asked: a kernel on a machine, for a task or vCPU with the user *features*."""

    processor: Processor
    policy: Policy
    features: int


def _ask(kernel: _Kernel, reader: str, way: str, image: bytes) -> Answer:
    p, policy, features = kernel
    try:
        return Answer(reader, finding=hand_in(p, way, image, policy, features=features))
    except FpstateError as refusal:
        return Answer(reader, refusal=refusal)


def _kvm(kernel: _Kernel, image: bytes) -> list[Answer]:
    first = _ask(kernel, _KVM, "kvm", image)
    if first.finding is None or first.finding.rule.id != "kvm-size":
        return [first]
    padded = image.ljust(kvm_size(kernel.processor.cpu, kernel.policy, kernel.features), b"\0")
    return [first, _ask(kernel, f"{_KVM}, padded", "kvm", padded)]


def _sigreturn(placed: Placed, kernel: _Kernel, image: bytes) -> Answer:
    """Return what rt_sigreturn says; of a frame with magic2, which the reader has seen behind the image."""
    thread, reader = placed.thread, "rt_sigreturn"
    for damage in thread.damage:  # of a frame, with what stood around the image
        if damage.rule in RULES and damage.rule.startswith("sigreturn-"):
            at = None if damage.offset is None else damage.offset - (thread.offset or 0)
            return Answer(reader, finding=Finding(RULES[damage.rule], damage.text, None, at))
    if thread.abi == "i386":
        text = "the frame of a 32-bit task has FSAVE's 112 bytes before the image"
        return Answer(reader, refusal=CannotTell(text, cure="give the frame itself"))
    if thread.name.startswith(_FRAME) and image[SOFTWARE : SOFTWARE + 4] == _MAGIC1:
        image += FP_XSTATE_MAGIC2.to_bytes(MAGIC2_SIZE, "little")
    return _ask(kernel, reader, "sigreturn", image)
