"""XGETBV, XSETBV, and RDMSR and WRMSR of the MSRs that extended state depends on (SDM volume 1, 13.2, 13.3, 13.14)."""

from __future__ import annotations

from typing import Final

from fpstate import registers as regs
from fpstate.cpu import xcr0
from fpstate.isa import values
from fpstate.isa.masks import ALL, complement
from fpstate.isa.processor import Processor
from fpstate.isa.rules import Fault
from fpstate.registers import Register
from fpstate.xfeatures import LBR, PT, UINTR, bits

__all__ = ["IA32_XFD", "IA32_XFD_ERR", "IA32_XSS", "MSRS", "rdmsr", "wrmsr", "xgetbv", "xsetbv"]

IA32_XFD: Final = 0x1C4
IA32_XFD_ERR: Final = 0x1C5
IA32_XSS: Final = 0xDA0
IA32_S_CET: Final = 0x6A2
IA32_INTERRUPT_SSP_TABLE_ADDR: Final = 0x6A8

MSRS: Final = {
    IA32_XFD: ("xfd", "XFD"),
    IA32_XFD_ERR: ("xfd_err", "XFD"),
    IA32_XSS: ("xss", "XSAVES"),
    IA32_S_CET: ("s_cet", ""),
    IA32_INTERRUPT_SSP_TABLE_ADDR: ("interrupt_ssp_table", "SHSTK"),
}
"""MSRs that no component holds: the attribute of `Processor`, and the CPUID flag with which they exist."""

_LBR_ENTRIES: Final = 40
_FLAG_OF_COMPONENT: Final = {PT: "INTEL_PT", UINTR: "UINTR", LBR: "ARCH_LBR"}
_SHSTK_ONLY: Final = frozenset({"pl0_ssp", "pl1_ssp", "pl2_ssp", "pl3_ssp"})


def xgetbv(p: Processor, ecx: int) -> int:
    """Execute XGETBV: XCR0, or with ECX = 1 what of it is in use.

    Raises:
        Fault: #UD, #GP.
    """
    _check_osxsave(p)
    ecx &= 0xFFFFFFFF
    if ecx == 0:
        return p.xcr0
    if ecx == 1 and p.caps.has("XGETBV1"):
        return p.xinuse(p.xcr0) | p.mxcsr_in_use & p.xcr0
    lacks = f", and {p.cpu.name} has no XGETBV1" if ecx == 1 else ""
    raise Fault("xcr-index", f"ECX is {ecx:#x}{lacks}")


def xsetbv(p: Processor, ecx: int, value: int) -> None:
    """Execute XSETBV.  No register changes, also none of a component that is switched off.

    Raises:
        Fault: #UD, #GP.
    """
    _check_osxsave(p)
    if p.cpl:
        raise Fault("cpl", f"CPL is {p.cpl}")
    ecx, value = ecx & 0xFFFFFFFF, value & ALL
    if ecx:
        raise Fault("xcr-index", f"ECX is {ecx:#x}")
    _check_supported("xcr0-unsupported", "XCR0", value, p.caps.user)
    broken = xcr0.fault(value)
    if broken is not None:
        raise Fault(f"xcr0-{broken.name}", f"XCR0 would be {value:#x}")
    p.xcr0 = value


def rdmsr(p: Processor, ecx: int) -> int:
    """Execute RDMSR.

    Raises:
        Fault: CPL is not 0, or the MSR is none that extended state has, or not on this CPU.
    """
    where = _msr(p, ecx)
    if isinstance(where, str):
        return int(getattr(p, where))
    value = int.from_bytes(regs.read(where, p.sections), "little")
    return value & ~(1 << 63) if where.name == "uintr_misc" else value


def wrmsr(p: Processor, ecx: int, value: int) -> None:
    """Execute WRMSR.

    Raises:
        Fault: CPL is not 0, the MSR is none that extended state has, or it does not accept *value*.
    """
    where, value = _msr(p, ecx), value & ALL
    if isinstance(where, Register):
        if where.parts[0].bit == PT and p.sections[PT][0] & 1 and not (where.name == "rtit_ctl" and not value & 1):
            raise Fault("pt-enabled", "IA32_RTIT_CTL.TraceEn is 1", bit=0)
        values.check_value(p, where, value)
        kept = regs.read(where, p.sections)[7] & 0x80 if where.name == "uintr_misc" else 0
        p.write(where.name, value | kept << 56)
        if where.name == "lbr_depth":  # the entries are reset (SDM volume 3, "Architectural LBRs")
            p.sections[LBR][_LBR_ENTRIES:] = bytes(len(p.sections[LBR]) - _LBR_ENTRIES)
        return
    if where == "xss":
        _check_supported("xss-unsupported", "IA32_XSS", value, p.caps.supervisor)
    elif where in {"xfd", "xfd_err"}:
        _check_supported("xfd-unsupported", f"IA32_{where.upper()}", value, p.caps.xfd)
    else:
        values.check_value(p, _CET[where], value)
    setattr(p, where, value)


_CET: Final = {
    name: Register(name=name, parts=(), number=True, initial=0, view=False, long_mode=False, msr=None)
    for name in ("s_cet", "interrupt_ssp_table")
}


def _msr(p: Processor, ecx: int) -> Register | str:
    """Return where MSR *ecx* is kept: an attribute of the processor, or a register of a component."""
    if p.cpl:
        raise Fault("cpl", f"CPL is {p.cpl}")
    ecx &= 0xFFFFFFFF
    if ecx in MSRS:
        name, flag = MSRS[ecx]
        exists = p.caps.has(flag) if flag else p.caps.has("SHSTK") or p.caps.has("IBT")
        if exists:
            return name
    register = regs.by_msr(ecx)
    if register is not None and _exists(p, register):
        return register
    raise Fault("msr", f"{p.cpu.name} has no MSR {ecx:#x}, or none that a component of it holds")


def _exists(p: Processor, register: Register) -> bool:
    """Tell whether the CPU has the MSR of *register*: its feature may be there though IA32_XSS is not."""
    bit = register.parts[0].bit
    if bit not in p.sections:
        return False
    if register.name in _SHSTK_ONLY:
        return p.caps.has("SHSTK")
    flag = _FLAG_OF_COMPONENT.get(bit)
    return flag is None or p.caps.has(flag)


def _check_osxsave(p: Processor) -> None:
    if not p.osxsave:
        raise Fault("osxsave", "CR4.OSXSAVE is 0", bit=18)


def _check_supported(rule: str, name: str, value: int, supported: int) -> None:
    bad = value & complement(supported)
    if bad:
        bit = next(bits(bad))
        raise Fault(rule, f"{name} would be {value:#x}, which sets bit {bit}", bit=bit)
