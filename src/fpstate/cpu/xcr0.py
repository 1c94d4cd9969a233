"""The rules by which XSETBV refuses a value of XCR0 (SDM 13.3).

They are about the bits among themselves; whether a CPU has a component at all is CPUID's matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from fpstate.xfeatures import APX, AVX512, MPX, XTILE

__all__ = ["RULES", "Rule", "fault"]


class Rule(NamedTuple):
    """One reason for #GP.

    Attributes:
        name: a short id.
        broken: tells, for a mask, whether it breaks the rule.
        text: the rule in words.
        source: where it is written.
    """

    name: str
    broken: Callable[[int], bool]
    text: str
    source: str = "SDM vol. 1, 13.3"


RULES: Final = (
    Rule("x87", lambda m: not m & 1, "x87 (bit 0) must be set"),
    Rule("avx", lambda m: m & 0b110 == 0b100, "AVX (bit 2) needs SSE (bit 1)"),
    Rule("mpx", lambda m: m & MPX not in {0, MPX}, "BNDREGS (bit 3) and BNDCSR (bit 4) go together"),
    Rule(
        "avx512",
        lambda m: bool(m & AVX512) and m & (AVX512 | 0b110) != AVX512 | 0b110,
        "AVX-512 (bits 5, 6 and 7) goes all together and needs SSE and AVX (bits 1 and 2)",
    ),
    Rule("xtile", lambda m: m & XTILE not in {0, XTILE}, "XTILECFG (bit 17) and XTILEDATA (bit 18) go together"),
    Rule(
        "apx",
        lambda m: bool(m & 1 << APX and m & MPX),
        "APX (bit 19) and MPX (bits 3 and 4) share a place in the image",
        "Linux, KVM and QEMU; the SDM is silent, no CPU has both",
    ),
)
"""The rules in the order in which fpstate names them.  That APX excludes MPX is Linux's, KVM's and QEMU's rule: no
CPU enumerates both, and the SDM is silent."""


def fault(xcr0: int) -> Rule | None:
    """Return the first rule that *xcr0* breaks, or None if XSETBV accepts it on a CPU that has all its components."""
    return next((rule for rule in RULES if rule.broken(xcr0)), None)
