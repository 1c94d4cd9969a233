"""The CPU feature flags that decide about xfeatures, where CPUID shows them, and what falls when one is cleared.

Names and numbers are Linux's ``X86_FEATURE_*`` (word * 32 + bit, ``arch/x86/include/asm/cpufeatures.h``), the
dependencies those of ``arch/x86/kernel/cpu/cpuid-deps.c``, both as of Linux 7.2.  A flag that the kernel shows in
/proc/cpuinfo can be named on its command line (``clearcpuid=avx``); the others only by number (``clearcpuid=519``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from fpstate.cpu.dump import Leaves

__all__ = ["FLAGS", "Flag", "cascade", "decode", "find"]


class Flag(NamedTuple):
    """One CPU feature flag.

    Attributes:
        name: Linux's name, without ``X86_FEATURE_``.
        number: Linux's number, word * 32 + bit.
        leaf, subleaf, register, bit: where CPUID shows it; register 0 to 3 is EAX, EBX, ECX, EDX.
        cpuinfo: the name in /proc/cpuinfo, or None if the kernel gives it none.
        needs: the flags without which Linux clears this one.
    """

    name: str
    number: int
    leaf: int
    subleaf: int
    register: int
    bit: int
    cpuinfo: str | None
    needs: tuple[str, ...] = ()


_EAX, _EBX, _ECX, _EDX = range(4)

FLAGS: Final[dict[str, Flag]] = {
    flag.name: flag
    for flag in (
        Flag("FPU", 0, 1, 0, _EDX, 0, "fpu"),
        Flag("FXSR", 24, 1, 0, _EDX, 24, "fxsr", ("FPU",)),
        Flag("XMM", 25, 1, 0, _EDX, 25, "sse", ("FXSR",)),
        Flag("XMM2", 26, 1, 0, _EDX, 26, "sse2", ("XMM",)),
        Flag("XSAVE", 154, 1, 0, _ECX, 26, "xsave", ("FXSR",)),
        Flag("AVX", 156, 1, 0, _ECX, 28, "avx", ("XSAVE",)),
        Flag("AVX2", 293, 7, 0, _EBX, 5, "avx2", ("AVX",)),
        # What FXSAVE and XSAVE write for the x87 selectors, and how wide a linear address is.
        Flag("ZERO_FCS_FDS", 301, 7, 0, _EBX, 13, None),
        Flag("LA57", 528, 7, 0, _ECX, 16, "la57"),
        Flag("MPX", 302, 7, 0, _EBX, 14, "mpx", ("XSAVE",)),
        Flag("AVX512F", 304, 7, 0, _EBX, 16, "avx512f", ("AVX",)),
        Flag("INTEL_PT", 313, 7, 0, _EBX, 25, "intel_pt"),
        Flag("XSAVEOPT", 320, 0xD, 1, _EAX, 0, "xsaveopt", ("XSAVE",)),
        Flag("XSAVEC", 321, 0xD, 1, _EAX, 1, "xsavec", ("XSAVE",)),
        Flag("XGETBV1", 322, 0xD, 1, _EAX, 2, "xgetbv1", ("XSAVE",)),
        Flag("XSAVES", 323, 0xD, 1, _EAX, 3, "xsaves", ("XSAVE",)),
        Flag("XFD", 324, 0xD, 1, _EAX, 4, None, ("XSAVES", "XGETBV1")),
        Flag("PKU", 515, 7, 0, _ECX, 3, "pku", ("XSAVE",)),
        # Linux sets OSPKE itself, with CR4.PKE, when it may use PKU: the CPUID bit only mirrors CR4.
        Flag("OSPKE", 516, 7, 0, _ECX, 3, "ospke", ("PKU",)),
        Flag("SHSTK", 519, 7, 0, _ECX, 7, None, ("XSAVES",)),
        Flag("ENQCMD", 541, 7, 0, _ECX, 29, "enqcmd", ("XSAVES",)),
        Flag("UINTR", 581, 7, 0, _EDX, 5, None),
        Flag("ARCH_LBR", 595, 7, 0, _EDX, 19, "arch_lbr"),
        Flag("IBT", 596, 7, 0, _EDX, 20, "ibt"),
        Flag("AMX_TILE", 600, 7, 0, _EDX, 24, "amx_tile", ("XFD",)),
        Flag("APX", 681, 7, 1, _EDX, 21, "apx", ("XSAVE",)),
    )
}
"""Every flag that a rule of fpstate asks for, by name."""


def decode(leaves: Leaves) -> tuple[frozenset[str], frozenset[str]]:
    """Return the flags that *leaves* show set, and those that *leaves* say nothing about.

    A leaf above the stated maximum basic leaf reads as zero: its flags are known to be clear.
    """
    top = leaves[0, 0][0] if (0, 0) in leaves else None
    present: set[str] = set()
    unknown: set[str] = set()
    for flag in FLAGS.values():
        registers = leaves.get((flag.leaf, flag.subleaf))
        if registers is None:
            if top is None or (flag.leaf <= top and not _beyond_subleaves(leaves, flag)):
                unknown.add(flag.name)
        elif registers[flag.register] >> flag.bit & 1:
            present.add(flag.name)
    if "XSAVE" not in present and "XSAVE" not in unknown:
        # Leaf 0DH is all zero then; a dump that leaves it out says the same.
        unknown -= {name for name in unknown if FLAGS[name].leaf == 0xD}
    return frozenset(present), frozenset(unknown)


def _beyond_subleaves(leaves: Leaves, flag: Flag) -> bool:
    """Tell whether *flag* sits in a sub-leaf of leaf 7 that CPUID.7.0:EAX says does not exist."""
    return flag.leaf == 7 and flag.subleaf > 0 and (7, 0) in leaves and leaves[7, 0][_EAX] < flag.subleaf


def cascade(cleared: Iterable[str]) -> frozenset[str]:
    """Return *cleared* and everything that transitively needs one of them (Linux ``do_clear_cpu_cap()``)."""
    gone = set(cleared)
    grew = True
    while grew:
        grew = False
        for flag in FLAGS.values():
            if flag.name not in gone and not gone.isdisjoint(flag.needs):
                gone.add(flag.name)
                grew = True
    return frozenset(gone)


def find(word: str) -> Flag | None:
    """Return the flag that a ``clearcpuid=`` word means to Linux: a /proc/cpuinfo name or a decimal number."""
    if word.isdecimal():
        return next((flag for flag in FLAGS.values() if flag.number == int(word)), None)
    return next((flag for flag in FLAGS.values() if flag.cpuinfo == word), None)
