"""The values that MSRs accept: one check for WRMSR and for the supervisor components that XRSTORS loads."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Final, Literal, NamedTuple

from fpstate import registers as regs
from fpstate.cpu.model import Cpu
from fpstate.isa.capabilities import Capabilities
from fpstate.isa.masks import ALL
from fpstate.isa.processor import Processor
from fpstate.isa.rules import Fault
from fpstate.registers import Register
from fpstate.xfeatures import LBR

__all__ = [
    "CET_RESERVED",
    "UIF",
    "Condition",
    "check_before",
    "check_component",
    "check_value",
    "conditions",
    "plan",
    "tilecfg_supported",
]

_PT, _UINTR = 8, 14
_DEPTHS: Final = 0b1111
_USUAL_DEPTHS: Final = 0b1011
"""8, 16 and 32: what leaf 1CH of every CPU with arch-LBR that was seen allows."""
_TRACE_EN: Final = 1
_CET_SHSTK: Final = 0b11
_CET_IBT: Final = ~(0b11 | 0xF << 6) & (1 << 64) - 1
CET_RESERVED: Final = 0xF << 6
"""Bits 9:6 of IA32_U_CET and IA32_S_CET."""
UIF: Final = 1 << 63
"""Bit 63 of UINTR_MISC in an image: the user-interrupt flag, which is no part of the MSR (SDM 13.5.11)."""
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
    checked, reserved = plan(bit, len(data))
    for register, start, end in checked:
        if bit == LBR and data[start:end] == p.sections[LBR][start:end] and register.name == "lbr_depth":
            continue  # the depth that the CPU has is legal (SDM 13.5.12)
        check_value(p, register, int.from_bytes(data[start:end], "little"), at=offset + start, by_xrstors=True)
    for start, end in reserved:
        if any(data[start:end]):
            index = next(i for i in range(start, end) if data[i])
            raise Fault("reserved", f"byte {index} of component {bit} is not 0", offset=offset + index)


@cache
def plan(bit: int, size: int) -> tuple[tuple[tuple[Register, int, int], ...], tuple[tuple[int, int], ...]]:
    """Return the registers of a component whose value is checked, with their bytes, and the runs of reserved bytes."""
    spans = [(r, r.parts[0].offset, r.parts[0].offset + r.parts[0].size) for r in regs.of_component(bit)]
    return tuple(span for span in spans if span[0].name in _CHECKED), regs.unclaimed(bit, size)


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
    if by_xrstors and register.name == "uintr_misc":
        value &= ~UIF
    for condition in conditions(p.caps, register.name):
        bit = condition.offending_bit(value, p.caps)
        if bit is not None:
            where = None if at is None else at + bit // 8
            raise Fault(condition.rule, f"{register.name} would be {value:#x}", bit=bit, offset=where)


class Condition(NamedTuple):
    """One thing that a value must fulfil.

    Attributes:
        rule: what a value that does not breaks.
        kind: "clear": the bits of *mask* must be 0; "not-all": they must not all be 1; "canonical": the address must
            be canonical; "depth": the value must be 8 times the number, from 1, of a bit of *mask*.
        mask: see there; 0 for "canonical".
    """

    rule: str
    kind: Literal["clear", "not-all", "canonical", "depth"]
    mask: int = 0

    def offending_bit(self, value: int, caps: Capabilities) -> int | None:
        """Return a bit of *value* that breaks the condition, or None."""
        if self.kind == "clear":
            bad = value & self.mask
            return (bad & -bad).bit_length() - 1 if bad else None
        if self.kind == "not-all":
            return self.mask.bit_length() - 1 if value & self.mask == self.mask else None
        if self.kind == "canonical":
            return None if caps.canonical(value) else caps.linear_bits - 1
        good = value % 8 == 0 and 8 <= value <= 64 and self.mask >> (value // 8 - 1) & 1
        return None if good else (value & -value).bit_length() - 1 if value else 0


@lru_cache(maxsize=4096)
def conditions(caps: Capabilities, name: str) -> tuple[Condition, ...]:
    """Return what a value for register *name* must fulfil, in the order in which it is checked.

    Sources: SDM volume 4 for each MSR; volume 1, 13.5.11 for user interrupts.  Reserved is what no CPU defines: that a
    CPU lacks an optional bit of Intel PT, LBR or HWP (leaves 14H, 1CH, 6) is not looked at.
    """
    if name in {"u_cet", "s_cet"}:
        absent = (0 if caps.has("SHSTK") else _CET_SHSTK) | (0 if caps.has("IBT") else _CET_IBT)
        return (
            Condition("cet-reserved", "clear", CET_RESERVED | absent),
            Condition("cet-tracker", "not-all", _SUPPRESS | _TRACKER),
            Condition("cet-canonical", "canonical"),
        )
    if name == "lbr_depth":  # which depths there are is in CPUID.1CH:EAX[7:0]; the component has 32 entries
        leaf = caps.cpu.register(0x1C, 0)
        return (Condition("lbr-depth", "depth", _USUAL_DEPTHS if leaf is None else leaf[0] & _DEPTHS),)
    return _CONDITIONS.get(name, ())


def _ssp() -> tuple[Condition, ...]:
    return Condition("ssp-alignment", "clear", 0b11), Condition("ssp-canonical", "canonical")


_CONDITIONS: Final[dict[str, tuple[Condition, ...]]] = {
    **{f"pl{i}_ssp": _ssp() for i in range(4)},
    "interrupt_ssp_table": (Condition("ssp-canonical", "canonical"),),
    "pasid": (Condition("pasid-reserved", "clear", 0x7FF << 20 | 0xFFFFFFFF << 32),),
    "uintr_handler": (Condition("uintr-canonical", "canonical"),),
    "uintr_stackadjust": (Condition("uintr-canonical", "canonical"),),
    "uintr_misc": (Condition("uintr-reserved", "clear", 0xFFFFFF << 40),),
    "uintr_pd": (Condition("uintr-reserved", "clear", 0x3F), Condition("uintr-canonical", "canonical")),
    "uintr_tt": (Condition("uintr-reserved", "clear", 0b1110), Condition("uintr-canonical", "canonical")),
    **{f"rtit_addr{i}_{end}": (Condition("pt-reserved", "canonical"),) for i in range(2) for end in "ab"},
    "rtit_cr3_match": (Condition("pt-reserved", "clear", 0x1F),),
    "rtit_ctl": (Condition("pt-reserved", "clear", 0xFE7F_0000_7084_0000),),
    "rtit_output_base": (Condition("pt-reserved", "clear", 0x7F),),
    "rtit_status": (Condition("pt-reserved", "clear", 0xFFFE_0000_FFFF_FF08),),
    "lbr_ctl": (Condition("lbr-reserved", "clear", ALL ^ 0x7F_000F),),
    "hwp_request": (Condition("hwp-reserved", "clear", 0x07FF_F800_0000_0000),),
    "pm_ctl1": (Condition("hdc-reserved", "clear", ALL ^ 1),),
}
"""What MSRs accept on every CPU that has them, by register name; one without a row accepts everything."""
_CHECKED: Final = frozenset({*_CONDITIONS, "u_cet", "s_cet", "lbr_depth"})


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
