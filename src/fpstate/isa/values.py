"""The values that MSRs accept: one check for WRMSR and for the supervisor components that XRSTORS loads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from fpstate import registers as regs
from fpstate.cpu.model import Cpu
from fpstate.isa.processor import Processor
from fpstate.isa.rules import Fault
from fpstate.registers import Register

__all__ = ["check_before", "check_component", "check_value", "tilecfg_supported"]

_PT, _UINTR = 8, 14
_TRACE_EN: Final = 1
_CET_SHSTK: Final = 0b11
_CET_IBT: Final = ~(0b11 | 0xF << 6) & (1 << 64) - 1
_CET_RESERVED: Final = 0xF << 6
_SUPPRESS, _TRACKER = 1 << 10, 1 << 11


def check_before(p: Processor, components: int) -> None:
    """Check what must hold before XRSTORS loads or initialises *components* (SDM 13.5.6, 13.5.11).

    Raises:
        Fault: tracing is on, or UINV is set.
    """
    if components >> _PT & 1 and p.sections[_PT][0] & _TRACE_EN:
        raise Fault("pt-enabled", "IA32_RTIT_CTL.TraceEn is 1", bit=0)
    if components >> _UINTR & 1 and p.sections[_UINTR][20]:
        raise Fault("uinv", f"UINV is {p.sections[_UINTR][20]:#x}", bit=32)


def check_component(p: Processor, bit: int, data: bytes, offset: int) -> None:
    """Check the *data* of component *bit*, which lies at *offset* of the image.

    Raises:
        Fault: a register would get a value that it does not accept, or a reserved byte is not 0.
    """
    checked, reserved = _plan(bit, len(data))
    for register, start, end in checked:
        check_value(p, register, int.from_bytes(data[start:end], "little"), at=offset + start, by_xrstors=True)
    for start, end in reserved:
        if any(data[start:end]):
            index = next(i for i in range(start, end) if data[i])
            raise Fault("reserved", f"byte {index} of component {bit} is not 0", offset=offset + index)


@cache
def _plan(bit: int, size: int) -> tuple[tuple[tuple[Register, int, int], ...], tuple[tuple[int, int], ...]]:
    """Return the registers of a component whose value is checked, with their bytes, and the runs of reserved bytes."""
    spans = [(r, r.parts[0].offset, r.parts[0].offset + r.parts[0].size) for r in regs.of_component(bit)]
    edges = [0, *(edge for _, start, end in sorted(spans, key=lambda s: s[1]) for edge in (start, end)), size]
    reserved = tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)
    return tuple(span for span in spans if span[0].name in _CHECKS), reserved


def check_value(
    p: Processor, register: Register, value: int, *, at: int | None = None, by_xrstors: bool = False
) -> None:
    """Check a *value* for an MSR.

    Args:
        p: the processor.
        register: which MSR.
        value: 64 bits.
        at: offset of the register in the image, for the message.
        by_xrstors: UIF, bit 63 of UINTR_MISC, is then allowed.

    Raises:
        Fault: #GP.
    """
    checker = _CHECKS.get(register.name)
    if checker is not None:
        found = checker(p, value & ~(1 << 63) if by_xrstors and register.name == "uintr_misc" else value)
        if found is not None:
            rule, bit = found
            where = None if at is None else at + bit // 8
            raise Fault(rule, f"{register.name} would be {value:#x}", bit=bit, offset=where)


_Check = Callable[[Processor, int], tuple[str, int] | None]
"""Given a value, the rule that it breaks and the offending bit."""


def _ssp(p: Processor, value: int) -> tuple[str, int] | None:
    if value & 0b11:
        return "ssp-alignment", _lowest(value & 0b11)
    return None if p.caps.canonical(value) else ("ssp-canonical", p.caps.linear_bits - 1)


def _cet(p: Processor, value: int) -> tuple[str, int] | None:
    reserved = _CET_RESERVED
    reserved |= 0 if p.caps.has("SHSTK") else _CET_SHSTK
    reserved |= 0 if p.caps.has("IBT") else _CET_IBT
    if value & reserved:
        return "cet-reserved", _lowest(value & reserved)
    if value & _SUPPRESS and value & _TRACKER:
        return "cet-tracker", 11
    return None if p.caps.canonical(value) else ("cet-canonical", p.caps.linear_bits - 1)


def _reserved_bits(rule: str, mask: int) -> _Check:
    def check(p: Processor, value: int) -> tuple[str, int] | None:  # noqa: ARG001  one signature for all
        return (rule, _lowest(value & mask)) if value & mask else None

    return check


def _canonical(rule: str, reserved_rule: str = "", mask: int = 0) -> _Check:
    def check(p: Processor, value: int) -> tuple[str, int] | None:
        if value & mask:
            return reserved_rule, _lowest(value & mask)
        return None if p.caps.canonical(value) else (rule, p.caps.linear_bits - 1)

    return check


def _lbr_depth(p: Processor, value: int) -> tuple[str, int] | None:
    """A depth is a multiple of 8; which ones exist is in CPUID.1CH:EAX[7:0], all of 32 entries in the component."""
    leaf = p.cpu.register(0x1C, 0)
    allowed = leaf[0] & 0xFF if leaf is not None else 0xFF
    depth = value // 8
    good = value % 8 == 0 and 1 <= depth <= 8 and allowed >> (depth - 1) & 1
    return None if good else ("lbr-depth", _lowest(value) if value else 0)


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


_CHECKS: Final[dict[str, _Check]] = {
    "u_cet": _cet,
    "s_cet": _cet,
    **{f"pl{i}_ssp": _ssp for i in range(4)},
    "interrupt_ssp_table": _canonical("ssp-canonical"),
    "pasid": _reserved_bits("pasid-reserved", 0x7FF << 20 | 0xFFFFFFFF << 32),
    "uintr_handler": _canonical("uintr-canonical"),
    "uintr_stackadjust": _canonical("uintr-canonical"),
    "uintr_misc": _reserved_bits("uintr-reserved", 0xFFFFFF << 40),
    "uintr_pd": _canonical("uintr-canonical", "uintr-reserved", 0x3F),
    "uintr_tt": _canonical("uintr-canonical", "uintr-reserved", 0b1110),
    "rtit_addr0_a": _canonical("pt-reserved"),
    "rtit_addr0_b": _canonical("pt-reserved"),
    "rtit_addr1_a": _canonical("pt-reserved"),
    "rtit_addr1_b": _canonical("pt-reserved"),
    "rtit_cr3_match": _reserved_bits("pt-reserved", 0x1F),
    "lbr_depth": _lbr_depth,
}
"""What an MSR accepts, by register name; one without a row accepts everything."""


def tilecfg_supported(cpu: Cpu, data: bytes) -> bool:
    """Tell whether LDTILECFG would accept *data*, the 64 bytes of TILECFG (SDM volume 2, LDTILECFG)."""
    palette = data[0]
    found = {each.number: each for each in cpu.palettes()}
    if not found:  # leaf 1DH not shown: the one palette that exists
        tiles, row, rows = 8, 64, 16
    elif palette in found:
        tiles, row, rows = found[palette].tiles, found[palette].row, found[palette].rows
    else:
        return False
    if palette != 1 and palette not in found:
        return False
    columns = [int.from_bytes(data[16 + 2 * t : 18 + 2 * t], "little") for t in range(16)]
    heights = list(data[48:64])
    for t in range(16):
        if t >= tiles and (columns[t] or heights[t]):
            return False
        if columns[t] > row or heights[t] > rows or bool(columns[t]) != bool(heights[t]):
            return False
    return not any(data[2:16])
