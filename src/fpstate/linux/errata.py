"""CPU errata for which Linux clears a flag that decides about xstate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fpstate.cpu.dump import Leaves

__all__ = ["ERRATA", "Erratum", "apply"]


@dataclass(frozen=True, slots=True)
class Erratum:
    """One erratum.

    Attributes:
        name: what to call it.
        vendor: CPUID vendor string.
        family: the display family.
        clears: the flag that Linux clears.
        effect: what that changes, in words.
        source: where it is written.
    """

    name: str
    vendor: str
    family: int
    clears: str
    effect: str
    source: str


ERRATA: Final = (
    Erratum(
        "AMD erratum 1386",
        "AuthenticAMD",
        0x17,
        "XSAVES",
        "XSAVES may lose XMM registers; these CPUs have no supervisor components, so XSAVEC loses nothing",
        'Linux commit b0563468eeac ("x86/CPU/AMD: Disable XSAVES on AMD family 0x17"); since 29ba89f18952 only below '
        "fixed microcode, which CPUID does not show",
    ),
)
"""The errata, each with its source."""


def apply(leaves: Leaves, flags: frozenset[str]) -> tuple[Erratum, ...]:
    """Return the errata that hit the CPU of *leaves* and clear one of *flags*; none if leaf 0 or 1 is not known."""
    if (0, 0) not in leaves or (1, 0) not in leaves:
        return ()
    _, ebx, ecx, edx = leaves[0, 0]
    vendor = b"".join(r.to_bytes(4, "little") for r in (ebx, edx, ecx)).decode("latin-1")
    eax = leaves[1, 0][0]
    base = eax >> 8 & 0xF
    family = base + (eax >> 20 & 0xFF) if base == 0xF else base
    return tuple(e for e in ERRATA if (e.vendor, e.family) == (vendor, family) and e.clears in flags)
