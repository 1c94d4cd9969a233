"""What an ordinary task is told about itself: XCR0, its permissions, and the smallest signal stack.

Sources: Linux ``Documentation/arch/x86/xstate.rst``, ``<asm/prctl.h>``, ``<linux/auxvec.h>``.
"""

from __future__ import annotations

import errno
from typing import Final

from fpstate.cpu.host import read_host
from fpstate.errors import CannotTell
from fpstate.linux import abi
from fpstate.linux.observe.fact import Observation, Probe, why
from fpstate.linux.observe.libc import demand, libc

__all__ = ["PROBES", "arch_prctl"]

_NR_ARCH_PRCTL: Final = 158  # <asm/unistd_64.h>; glibc has no wrapper that musl has too
_AT_MINSIGSTKSZ: Final = 51  # <linux/auxvec.h>
_QUESTIONS: Final = {
    # fact: (option, its name, first kernel that has it), <asm/prctl.h>
    "xcomp_supp": (abi.ARCH_GET_XCOMP_SUPP, "ARCH_GET_XCOMP_SUPP", "5.16"),
    "xcomp_perm": (abi.ARCH_GET_XCOMP_PERM, "ARCH_GET_XCOMP_PERM", "5.16"),
    "xcomp_guest_perm": (abi.ARCH_GET_XCOMP_GUEST_PERM, "ARCH_GET_XCOMP_GUEST_PERM", "5.17"),
}


def arch_prctl(option: int) -> int:
    """Return the mask that *option*, one of ``ARCH_GET_XCOMP_*``, stores.

    Raises:
        OSError: the kernel refuses; EINVAL if it does not know the option.
        ImportError: this Python has no ctypes.
    """
    import ctypes  # noqa: PLC0415 - see the package: importing it stays cheap

    mask = ctypes.c_uint64(0)
    number, code = ctypes.c_long(_NR_ARCH_PRCTL), ctypes.c_long(option)
    demand(libc().syscall(number, code, ctypes.byref(mask)), "arch_prctl")
    return mask.value


def _xcr0(_seconds: float) -> list[Observation]:
    host = read_host()
    if host.xcr0 is None:
        raise CannotTell(host.notes[0] if host.notes else "XSAVE is off (CPUID.1:ECX.OSXSAVE = 0)")
    return [Observation("xcr0", host.xcr0, _XCR0.how["xcr0"], None)]


def _permissions(_seconds: float) -> list[Observation]:
    found = []
    for fact, (option, _, since) in _QUESTIONS.items():
        value, why_not = None, None
        try:
            value = arch_prctl(option)
        except OSError as error:
            why_not = why(error, "arch_prctl")
            if error.errno == errno.EINVAL:
                why_not += f": Linux before {since} does not have it"
        found.append(Observation(fact, value, _PERMISSIONS.how[fact], why_not))
    return found


def _minsigstksz(_seconds: float) -> list[Observation]:
    import ctypes  # noqa: PLC0415 - see the package: importing it stays cheap

    # Not /proc/self/auxv, which a process that changed its user may not read.
    getauxval = libc().getauxval
    getauxval.restype = ctypes.c_ulong
    size = int(getauxval(ctypes.c_ulong(_AT_MINSIGSTKSZ)))
    if not size:
        raise CannotTell("not in the auxiliary vector: Linux before 5.14 does not have it")
    return [Observation("minsigstksz", size, _MINSIGSTKSZ.how["minsigstksz"], None)]


_XCR0: Final = Probe({"xcr0": "XGETBV(0)"}, _xcr0)
_PERMISSIONS: Final = Probe(
    {fact: f"arch_prctl({name})" for fact, (_, name, _) in _QUESTIONS.items()},
    _permissions,
)
_MINSIGSTKSZ: Final = Probe({"minsigstksz": "getauxval(AT_MINSIGSTKSZ)"}, _minsigstksz)
PROBES: Final = (_XCR0, _PERMISSIONS, _MINSIGSTKSZ)
