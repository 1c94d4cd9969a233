"""What CPUID.0DH.0:EBX and CPUID.0DH.1:EBX will say once an operating system has set XCR0 and IA32_XSS.

Both numbers change with those registers, so a dump's own are those of the system that took it.  Linux reads them
after it has set its own XCR0 and IA32_XSS, checks one against the sum of the components, and sizes the other's
buffers by it.  To predict what Linux reads, fpstate first explains the recorded numbers: by the plain sum over some
XCR0 and IA32_XSS, or by one of the mistakes that real hypervisors and emulators make; then it applies the same rule
to Linux's registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal

from fpstate.cpu.dump import Leaves
from fpstate.cpu.model import Component, Cpu, compacted_size, standard_size
from fpstate.cpu.places import usual
from fpstate.cpu.xcr0 import fault
from fpstate.errors import CannotTell
from fpstate.xfeatures import AVX512, CATALOGUE, LEGACY, MPX, XTILE, bits, mask_of

__all__ = ["EbxRule", "Explanation", "compacted_rule", "explain_compacted", "explain_standard", "standard_rule"]

Rule = Literal["sum", "no alignment", "architectural", "fixed", "unknown"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a recorded EBX is what it is.

    Attributes:
        rule: ``sum`` if it is the sum that the SDM defines; else the mistake that explains it: ``no alignment``
            (CPUID.0DH.i:ECX[1] ignored), ``architectural`` (what is summed is not what
            the sub-leaves say, but what every other CPU has),
            ``fixed`` (no rule found: it is taken to stay what it is); ``unknown`` if it was not recorded.
        recorded: the number, or None.
        xcr0, xss: the register values that explain it; None if none do.
        contradicts: True if the CPU's own sub-leaves add up to another number under those values.
    """

    rule: Rule
    recorded: int | None
    xcr0: int | None = None
    xss: int | None = None
    contradicts: bool = False


@dataclass(frozen=True, slots=True)
class EbxRule:
    """How one CPU answers with a size: `Explanation` turned into a function of the enabled components."""

    explanation: Explanation
    components: Mapping[int, Component]
    standard: bool

    def __call__(self, mask: int) -> int:
        """Return the EBX to expect when XCR0 | IA32_XSS is *mask*.

        Raises:
            CannotTell: the offset of a component is not known.
        """
        rule, recorded = self.explanation.rule, self.explanation.recorded
        if rule == "fixed" and recorded is not None:
            return recorded
        if self.standard:
            return standard_size(self.components, mask)
        return compacted_size(self.components, mask, align=rule != "no alignment")


@lru_cache(maxsize=256)
def standard_rule(cpu: Cpu) -> EbxRule:
    """Return how *cpu* answers CPUID.0DH.0:EBX."""
    explanation = explain_standard(cpu)
    components = _usual(cpu) if explanation.rule == "architectural" else cpu.components
    return EbxRule(explanation, components, standard=True)


@lru_cache(maxsize=256)
def compacted_rule(cpu: Cpu) -> EbxRule:
    """Return how *cpu* answers CPUID.0DH.1:EBX."""
    explanation = explain_compacted(cpu)
    components = _usual(cpu) if explanation.rule == "architectural" else cpu.components
    return EbxRule(explanation, components, standard=False)


@lru_cache(maxsize=256)
def _usual(cpu: Cpu) -> Mapping[int, Component]:
    """Return the components of *cpu* as every known CPU has them; its own, the same object, if nothing is unusual.

    Where a sub-leaf says what no other CPU's says, and a recorded size is explained by the usual value as well, it is
    likelier that the sub-leaf was altered than that the whole CPU was.
    """
    all_size = cpu.leaves[0xD, 0][2] if (0xD, 0) in cpu.leaves else 0
    found = usual(cpu.components, cpu.xcr0_mask, all_size, cpu.catalogue)
    return cpu.components if found == cpu.components else found


def _states(cpu: Cpu) -> Iterator[tuple[int | None, int | None, Leaves]]:
    """Yield each state that *cpu* was recorded in: XCR0 and IA32_XSS if stated, and the leaves."""
    for (xcr0, xss), leaves in cpu.dump.other_states.items():
        yield xcr0, xss, leaves
    yield cpu.dump.xcr0, cpu.dump.xss, cpu.leaves


def explain_standard(cpu: Cpu) -> Explanation:
    """Explain CPUID.0DH.0:EBX by an XCR0 that *cpu* accepts, or by a known mistake."""
    found = [_explain_standard(cpu, leaves[0xD, 0][1], xcr0) for xcr0, _, leaves in _states(cpu) if (0xD, 0) in leaves]
    return _strongest(found)


def _explain_standard(cpu: Cpu, recorded: int, stated: int | None) -> Explanation:
    candidates = (stated,) if stated is not None else tuple(_xcr0_candidates(cpu))
    try:
        ways: tuple[tuple[Rule, Mapping[int, Component]], ...] = (("sum", cpu.components),)
        if _usual(cpu) is not cpu.components:
            ways = (("architectural", _usual(cpu)), *ways)
        for rule, components in ways:
            for xcr0 in candidates:
                if standard_size(components, xcr0) == recorded:
                    plain = standard_size(cpu.components, xcr0)
                    return Explanation(rule, recorded, xcr0=xcr0, contradicts=plain != recorded)
    except CannotTell:
        return Explanation("sum", recorded)
    return Explanation("fixed", recorded, xcr0=stated, contradicts=True)


def _strongest(found: list[Explanation]) -> Explanation:
    """Return, of the explanations of several states, the one that proves most."""
    odd = [explanation for explanation in found if explanation.rule != "sum"]
    proven = [explanation for explanation in odd if explanation.contradicts]
    return next(iter(proven or odd or found[-1:]), Explanation("unknown", None))


def explain_compacted(cpu: Cpu) -> Explanation:
    """Explain CPUID.0DH.1:EBX by XCR0 and IA32_XSS values that *cpu* accepts, or by a known mistake."""
    if "XSAVEC" not in cpu.flags and "XSAVES" not in cpu.flags:
        return Explanation("unknown", None)
    found = [_explain_compacted(cpu, leaves, *state) for *state, leaves in _states(cpu) if (0xD, 1) in leaves]
    return _strongest(found)


def _explain_compacted(cpu: Cpu, leaves: Leaves, xcr0: int | None, xss: int | None) -> Explanation:
    recorded = leaves[0xD, 1][1]
    ways: list[tuple[Rule, Mapping[int, Component], bool]] = [
        ("sum", cpu.components, True),
        ("no alignment", cpu.components, False),
    ]
    if _usual(cpu) is not cpu.components:
        ways.insert(0, ("architectural", _usual(cpu), True))
    for pairs in _pairs(cpu, leaves, xcr0, xss):
        for rule, components, align in ways:
            for user, supervisor in pairs:
                if compacted_size(components, user | supervisor, align=align) == recorded:
                    plain = compacted_size(cpu.components, user | supervisor)
                    return Explanation(rule, recorded, user, supervisor, contradicts=plain != recorded)
    return Explanation("fixed", recorded, contradicts=True)


def _pairs(cpu: Cpu, leaves: Leaves, xcr0: int | None, xss: int | None) -> Iterator[list[tuple[int, int]]]:
    """Yield the (XCR0, IA32_XSS) under which *leaves* may have been recorded, in groups, the likeliest first.

    First come XCR0 values that D.0:EBX agrees with, under what an operating system sets in IA32_XSS: all, none, or
    what Linux does; then the same under any IA32_XSS; then any XCR0 at all, for D.0:EBX itself may be wrong.
    """
    supported = (cpu.xss_mask or 0) if "XSAVES" in cpu.flags else 0
    if cpu.dump.os_linux:
        supported &= _LINUX_XSS
    likely = [xss] if xss is not None else list(dict.fromkeys((supported, 0, supported & _LINUX_XSS)))
    any_xss = [] if xss is not None else [x for x in _subsets(supported) if x not in likely]
    if xcr0 is not None:
        users, others = [xcr0], []
    else:
        ebx0 = leaves[0xD, 0][1] if (0xD, 0) in leaves else None
        candidates = list(dict.fromkeys(_xcr0_candidates(cpu)))
        users = [u for u in candidates if ebx0 is None or _matches(cpu, u, ebx0)]
        known = set(users)
        others = [u for u in candidates if u not in known]
    for some, supervisors in ((users, likely), (users, any_xss), (others, likely), (others[:16], any_xss)):
        yield list(islice(((user, supervisor) for supervisor in supervisors for user in some), _MOST_PAIRS))


def _matches(cpu: Cpu, xcr0: int, ebx: int) -> bool:
    try:
        return standard_size(cpu.components, xcr0) == ebx
    except CannotTell:
        return True


def _xcr0_candidates(cpu: Cpu) -> Iterator[int]:
    """Yield the XCR0 values an operating system may have set, the likeliest first: all, reset, then every legal one."""
    everything = cpu.xcr0_mask
    yield everything
    yield 1
    yield LEGACY & everything
    groups = [g & everything for g in _GROUPS] + [1 << b for b in bits(everything & ~LEGACY & ~_GROUPED)]
    groups = [g for g in groups if g][:12]
    for pick in range(1 << len(groups)):
        xcr0 = LEGACY | sum(group for i, group in enumerate(groups) if pick >> i & 1)
        if fault(xcr0) is None:
            yield xcr0


_LINUX_XSS = mask_of(row.bit for row in CATALOGUE if row.role in {"supervisor", "guest-only", "independent"})
"""The components that a Linux may have set in IA32_XSS."""
_GROUPS = (MPX, AVX512, XTILE)
"""User components that XSETBV enables only together (SDM 13.3)."""
_GROUPED = sum(_GROUPS)
_MOST_PAIRS = 4096
"""States tried in one group: real CPUs have fewer, and leaf 0DH can be made up to have millions."""


def _subsets(mask: int) -> Iterator[int]:
    """Yield every subset of *mask*, the fullest and the empty one first; at most 4096 of them."""
    yield mask
    yield 0
    numbers = list(bits(mask))[:12]
    for pick in range(1, (1 << len(numbers)) - 1):
        yield sum(1 << bit for i, bit in enumerate(numbers) if pick >> i & 1)
