"""The source text of the kernels: straight-line Python for one CPU, one set of enabled components and one profile.

Sizes, standard offsets and what the profile decides are literals, so that the compiler sees no table; RFBM is an
argument, and where a compacted component lies is computed for each XCOMP_BV.  The text reads like `fpstate.isa`, whose
steps it follows, and calls the functions of `fpstate.isa.masks`.  `print(module(machine, "xsave"))` shows it.

Names in the text: ``a`` is the address of an image, ``r`` of a register file, ``atN`` the offset of component N in the
image, ``BITN`` the mask of component N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from fpstate import registers as regs
from fpstate.batch.checks import plan, tilecfg_shapes
from fpstate.batch.registers import FCS, FDS, RegisterLayout, register_layout
from fpstate.isa import RULES, Capabilities, Profile, masks
from fpstate.isa.processor import X87_INIT
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, MAGIC2_SIZE
from fpstate.registers import MXCSR_INIT
from fpstate.xfeatures import LBR, LEGACY, MIN_SIZE, PKRU, PT, SOFTWARE, UINTR, XTILE, bits

__all__ = ["CODES", "FX_ONLY", "KERNELS", "Machine", "Slot", "module"]

FX_ONLY: Final = 200
"""The code of sigreturn-magic1; those of sigreturn-size and sigreturn-magic2 follow."""
CODES: Final = {rule: index + 1 for index, rule in enumerate(RULES)}
"""Rule to outcome: its place in `fpstate.isa.RULES`, from 1; 0 is success."""

_DEPTH: Final = regs.find("lbr_depth").initial
_XTILECFG: Final = (XTILE & -XTILE).bit_length() - 1
_ES_AND_B: Final = 1 << 7 | 1 << 15
_ST_USED: Final = (1 << 64) - 1, 0xFFFF
"""The bits of the two words of an x87 register that are not reserved."""

REGISTER_ARGUMENTS: Final = "n, images, stride, width, registers, step, used, modified, outcome, rfbm, end"
SIGRETURN_ARGUMENTS: Final = REGISTER_ARGUMENTS.replace("rfbm", "features")
CONVERT_ARGUMENTS: Final = (
    "n, images, stride, width, out, step, out_width, outcome, keep, add, form, strict, fill, software, scratch"
)
Lines = Iterator[str]


@dataclass(frozen=True, slots=True)
class Slot:
    """One extended component.

    Attributes:
        bit: its number.
        size: bytes.
        register: offset in a row of the register file.
        standard: offset in a standard image; None for a supervisor component, and where unknown.
        aligned: whether it begins on 64 bytes in a compacted image.
    """

    bit: int
    size: int
    register: int
    standard: int | None
    aligned: bool

    @property
    def initial(self) -> bytes:
        """Its bytes in the initial configuration."""
        return regs.initial(self.bit, self.size)


@dataclass(frozen=True)
class Machine:
    """What kernels are generated for.

    Attributes:
        caps: the CPU.
        profile: its freedoms.
        xcr0, xss, xfd: the control registers.
        wide: REX.W.
    """

    caps: Capabilities
    profile: Profile
    xcr0: int
    xss: int
    xfd: int
    wide: bool = True

    @cached_property
    def enabled(self) -> int:
        """XCR0 | IA32_XSS."""
        return self.xcr0 | self.xss

    @cached_property
    def registers(self) -> RegisterLayout:
        """Where the registers lie."""
        return register_layout(self.caps, self.enabled)

    @cached_property
    def disabled(self) -> int:
        """What XFD disables."""
        return masks.disabled(self.xcr0, self.xfd)

    def slots(self, components: int) -> list[Slot]:
        """Return the extended components among *components*, ascending."""
        found = []
        for bit, (register, size) in self.registers.sections.items():
            component = self.caps.cpu.components[bit]
            if components >> bit & 1:
                standard = None if component.supervisor else component.offset
                found.append(Slot(bit, size, register, standard, component.aligned))
        return found


def _indent(lines: Iterable[str], levels: int = 1) -> Lines:
    return (" " * 4 * levels + line for line in lines)


def _function(name: str, arguments: str, before: Iterable[str], row: Iterable[str]) -> str:
    """Return a function that executes *before* once and *row* for each row."""
    head = [f"def {name}({arguments}):", *_indent(before), "    for i in range(n):"]
    return "\n".join([*head, *_indent(row, 2), ""])


def _fail(rule: str) -> list[str]:
    return [f"    outcome[i] = {CODES[rule]}  # {rule}", "    continue"]


def _refuse(condition: str, rule: str) -> list[str]:
    return [f"if {condition}:", *_fail(rule)]


def _words(initial: bytes) -> Iterator[tuple[int, int]]:
    """Yield offset and value of the words of *initial* that are not 0."""
    for at in range(0, len(initial), 8):
        value = int.from_bytes(initial[at : at + 8], "little")
        if value:
            yield at, value


def _differs(at: int, initial: bytes) -> str:
    """Return an expression that is not 0 where the bytes at *at* of the register file are not *initial*."""
    terms, start = [], 0
    for offset, value in [*_words(initial), (len(initial), 0)]:
        if start < offset:
            terms.append(f"any_set(r + {at + start}, {offset - start})")
        if value:
            terms.append(f"(load64(r + {at + offset}) ^ u64({value:#x}))")
        start = offset + 8
    return " | ".join(terms)


def _initialise(base: str, initial: bytes) -> Lines:
    yield f"zero({base}, {len(initial)})"
    for offset, value in _words(initial):
        yield f"store64({base} + {offset}, u64({value:#x}))"


# XINUSE


def _in_use(slot: Slot) -> str:
    if slot.bit == LBR:  # XINUSE[15] does not pertain to IA32_LBR_DEPTH
        return f"any_set(r + {slot.register}, 8) | any_set(r + {slot.register + 16}, {slot.size - 16})"
    return _differs(slot.register, slot.initial)


_X87_IN_USE: Final = f"{_differs(0, X87_INIT)} | any_set(r + 32, 128) | load32(r + {FCS})"


_BEFORE: Final = {
    "by-value": "u64(0)",
    "tracked": "used[i] & rfbm if used.size else u64(0)",
    "sticky": "used[i] & rfbm",
    "always": "rfbm",
}
_AFTER: Final = {
    "tracked": "used[i] & complement(rfbm & ~kept)",
    "sticky": "used[i] & complement(rfbm & ~kept) | (load & ~kept)",
}
"""What counts as in use before the bytes are looked at, and after a restore, by the profile's XINUSE."""


def _by_value(m: Machine) -> bool:
    """Whether XINUSE depends on the bytes."""
    return m.profile.xinuse in {"by-value", "tracked"}


def _scan(m: Machine, slots: list[Slot]) -> Lines:
    """Set ``xinuse``, without what XFD disables."""
    yield f"xinuse = {_BEFORE[m.profile.xinuse]}"
    if m.profile.bndregs_tracked:
        yield "xinuse &= complement(BIT3) | (used[i] if used.size else u64(0))"
    if m.disabled:
        yield f"xinuse &= u64({masks.complement(m.disabled):#x})  # XFD"
    if not _by_value(m):
        return
    tests = [(0, _X87_IN_USE), (1, "any_set(r + 160, 256)")]
    for bit, test in [*tests, *((s.bit, _in_use(s)) for s in slots if not m.disabled >> s.bit & 1)]:
        yield f"if rfbm & BIT{bit} and {test}:"
        yield f"    xinuse |= BIT{bit}"


# Saving


def _store_x87(m: Machine) -> Lines:
    yield "copy(a + 32, r + 32, 128)"
    pointers = list(_store_pointers(m))
    if m.profile.x87_pointers == "always":
        yield from pointers
        return
    yield "if load8(r + 2) & u64(0x80):  # an error is pending"
    yield from _indent(pointers)
    yield "else:"
    if m.profile.x87_pointers == "unwritten":
        yield "    copy(a, r, 6)"
    else:
        yield "    store64(a, load64(r) & u64(0xFFFFFFFFFFFF))"
        yield "    zero(a + 8, 16)"


def _store_pointers(m: Machine) -> Lines:
    if m.wide:
        yield "copy(a, r, 24)"
        return
    yield "store64(a, load64(r))"
    for pointer, selector in ((8, FCS), (16, FDS)):
        high = "" if m.caps.no_fcs_fds else f" | load16(r + {selector}) << u64(32)"
        yield f"store64(a + {pointer}, load32(r + {pointer}){high})"


def _store(m: Machine, slot: Slot) -> Lines:
    base, register = f"a + at{slot.bit}", f"r + {slot.register}"
    if m.disabled >> slot.bit & 1:
        yield from _initialise(base, slot.initial)
    elif slot.bit == LBR:
        yield f"depth = load64({register} + 8)"
        most = (slot.size - 40) // 24
        yield f"copy_n({base}, {register}, {slot.size} if depth > u64({most}) else 40 + 24 * i64(depth))"
    else:
        size = min(slot.size, m.profile.pkru_bytes) if slot.bit == PKRU else slot.size
        yield f"copy({base}, {register}, {size})"


def _store_all(m: Machine, slots: list[Slot], which: str) -> Lines:
    yield f"if {which} & BIT0:"
    yield from _indent(_store_x87(m))
    yield f"if {which} & BIT1:"
    yield "    copy(a + 160, r + 160, 256)"
    for slot in slots:
        yield f"if {which} & BIT{slot.bit}:"
        yield from _indent(_store(m, slot))


_ROW: Final = ["a = images + i * stride", "r = registers + i * step"]
_MXCSR: Final = "store64(a + 24, load64(r + 24))  # MXCSR and MXCSR_MASK"


def _standard_slots(m: Machine) -> list[Slot]:
    return [slot for slot in m.slots(m.xcr0) if slot.standard is not None]


def _standard_places(slots: list[Slot]) -> Lines:
    """Set the offsets; one that is not known is never used: `Batch` refuses its component."""
    return (f"at{slot.bit} = {slot.standard or 0}" for slot in slots)


def _compacted_places(slots: list[Slot], mask: str, name: str = "at") -> Lines:
    yield f"top = {MIN_SIZE}"
    for slot in slots:
        yield f"{name}{slot.bit} = top"
        yield f"if {mask} & BIT{slot.bit}:"
        if slot.aligned:
            yield f"    {name}{slot.bit} = (top + 63) & -64"
        yield f"    top = {name}{slot.bit} + {slot.size}"


def xsave(m: Machine) -> str:
    """Return XSAVE (SDM 13.7): every component in RFBM is written; XINUSE is found while it is copied."""
    slots = _standard_slots(m)
    fused = {s.bit: s for s in slots if _by_value(m) and not any(s.initial)}
    for bit in (*bits(m.disabled), PKRU, LBR):
        fused.pop(bit, None)
    row = [*_ROW, *_scan(m, [s for s in m.slots(m.xcr0) if s.bit not in fused])]
    row += _store_all(m, [slot for slot in slots if slot.bit not in fused], "rfbm")
    for slot in fused.values():
        row.append(f"if rfbm & BIT{slot.bit} and copy_any(a + at{slot.bit}, r + {slot.register}, {slot.size}):")
        row.append(f"    xinuse |= BIT{slot.bit}")
    row.append("store64(a + 512, saved_standard(load64(a + 512), rfbm, xinuse))")
    row += ["if rfbm & u64(0b110):", f"    {_MXCSR}"]
    return _function("xsave", REGISTER_ARGUMENTS, _standard_places(slots), row)


def xsaveopt(m: Machine) -> str:
    """Return XSAVEOPT (SDM 13.9)."""
    slots = _standard_slots(m)
    row = [*_ROW, *_scan(m, m.slots(m.xcr0)), "store64(a + 512, saved_standard(load64(a + 512), rfbm, xinuse))"]
    row.append("which = rfbm & xinuse")
    row += ["if modified.size:", "    which &= modified[i]"] if m.profile.modified else []
    row += _store_all(m, slots, "which")
    row += ["if rfbm & u64(0b110):  # neither optimisation is for MXCSR", f"    {_MXCSR}"]
    return _function("xsaveopt", REGISTER_ARGUMENTS, _standard_places(slots), row)


def _save_compacted(m: Machine, slots: list[Slot]) -> Lines:
    yield from _scan(m, slots)
    yield "mxcsr_in_use = u64(0) if load32(r + 24) == u64(0x1f80) else BIT1"
    yield "xstate_bv = saved_compacted(rfbm, xinuse, mxcsr_in_use)"
    yield "store64(a + 512, xstate_bv)"
    yield "store64(a + 520, xcomp_bv(rfbm))"


def xsavec(m: Machine) -> str:
    """Return XSAVEC (SDM 13.10)."""
    slots = m.slots(m.xcr0)
    row = [*_ROW, *_save_compacted(m, slots), *_store_all(m, slots, "xstate_bv")]
    row += ["if xstate_bv & BIT1:", f"    {_MXCSR}"]
    return _function("xsavec", REGISTER_ARGUMENTS, _compacted_places(slots, "rfbm"), row)


def xsaves(m: Machine) -> str:
    """Return XSAVES (SDM 13.11), with what saving PT and user-interrupt state does to the registers."""
    slots = m.slots(m.enabled)
    row = [*_ROW, *_save_compacted(m, slots), "saved = xstate_bv"]
    row += ["if modified.size:", "    saved &= modified[i] | mxcsr_in_use"] if m.profile.modified else []
    row += [*_store_all(m, slots, "saved"), "if saved & BIT1:", f"    {_MXCSR}"]
    for slot in slots:
        cleared = {PT: (slot.register, 0xFE), UINTR: (slot.register + 20, 0)}.get(slot.bit)
        if cleared is not None:
            at, kept = cleared
            row += [f"if saved & BIT{slot.bit}:", f"    store8(r + {at}, load8(r + {at}) & u64({kept:#x}))"]
            row += ["    if modified.size:", f"        modified[i] |= BIT{slot.bit}"]
    return _function("xsaves", REGISTER_ARGUMENTS, _compacted_places(slots, "rfbm"), row)


# Restoring


def _load_x87(m: Machine) -> Lines:
    p = m.profile
    yield f"fcw = load16(a) & u64({p.fcw_keep:#x}) | u64({p.fcw_set:#x})"
    yield f"fsw = load16(a + 2) & u64({0xFFFF & ~_ES_AND_B:#x})"
    yield "pending = fsw & (fcw ^ u64(0x3f)) & u64(0x3f)"
    yield "if pending:"
    yield f"    fsw |= u64({_ES_AND_B:#x})"
    yield "store32(r, fcw | fsw << u64(16))"
    yield "store16(r + 4, load8(a + 4))"
    for at in range(32, 160, 16):
        yield f"store64(r + {at}, load64(a + {at}))"
        yield f"store64(r + {at + 8}, load16(a + {at + 8}))"
    pointers = list(_load_pointers(m))
    if p.x87_pointers == "always":
        yield from pointers
        return
    yield "if pending:"
    yield from _indent(pointers)
    if p.x87_pointers == "pending":
        yield "else:"
        yield "    zero(r + 6, 18)"
        yield f"    store32(r + {FCS}, u64(0))"


def _load_pointers(m: Machine) -> Lines:
    yield "store16(r + 6, load16(a + 6) & u64(0x7ff))"
    shift = 64 - m.profile.pointer_bits
    for at in (8, 16):
        if m.wide:
            yield f"store64(r + {at}, u64(i64(load64(a + {at}) << u64({shift})) >> {shift}))"
        else:
            yield f"store64(r + {at}, load32(a + {at}))"
    for pointer, selector in ((8, FCS), (16, FDS)):
        value = "u64(0)" if m.wide or m.caps.no_fcs_fds else f"load16(a + {pointer + 4})"
        yield f"store16(r + {selector}, {value})"


def _load(m: Machine, slot: Slot) -> Lines:
    image, register = f"a + at{slot.bit}", f"r + {slot.register}"
    if slot.bit == _XTILECFG:
        accepted = [f"tilecfg_accepted({image}, {p}, {t}, {w}, {h})" for p, (t, w, h) in tilecfg_shapes(m.caps).items()]
        yield f"if {' or '.join(accepted)}:"
        yield f"    copy({register}, {image}, {slot.size})"
        yield "else:"
        yield f"    zero({register}, {slot.size})"
    elif slot.bit == LBR:
        yield from _load_lbr(slot, image, register)
    else:
        yield f"copy({register}, {image}, {slot.size})"
        for start, end in m.caps.padding.get(slot.bit, ()):
            yield f"zero({register} + {start}, {end - start})"


def _load_lbr(slot: Slot, image: str, register: str) -> Lines:
    """Another depth than the current one leaves the triples 0 (SDM 13.5.12)."""
    most = (slot.size - 40) // 24
    yield f"depth = load64({register} + 8)"
    yield f"same = load64({image} + 8) == depth"
    yield f"copy({register}, {image}, 8)"
    yield f"copy({register} + 16, {image} + 16, 24)"
    yield "if same:"
    yield f"    size = {slot.size - 40} if depth > u64({most}) else 24 * i64(depth)"
    yield f"    copy_n({register} + 40, {image} + 40, size)"
    yield "else:"
    yield f"    zero({register} + 40, {slot.size - 40})"
    yield f"    kept = BIT{LBR}  # XINUSE stays as it is"


def _reset(slot: Slot) -> Lines:
    if slot.bit == LBR:  # the depth stays
        yield f"zero(r + {slot.register}, 8)"
        yield f"zero(r + {slot.register + 16}, {slot.size - 16})"
    else:
        yield from _initialise(f"r + {slot.register}", slot.initial)


def _update(m: Machine, slots: list[Slot]) -> Lines:
    """Load and initialise what RFBM names; MXCSR was before."""
    yield "kept = u64(0)"
    cases: list[tuple[int, Iterable[str], Iterable[str]]] = [
        (0, _load_x87(m), [*_initialise("r", X87_INIT), "zero(r + 32, 128)", f"store32(r + {FCS}, u64(0))"]),
        (1, ["copy(r + 160, a + 160, 256)"], ["zero(r + 160, 256)"]),
        *((slot.bit, _load(m, slot), _reset(slot)) for slot in slots),
    ]
    for bit, loading, resetting in cases:
        yield f"if load & BIT{bit}:"
        yield from _indent(loading)
        yield f"elif rfbm & BIT{bit}:"
        yield from _indent(resetting)
    after = "sticky" if m.profile.bndregs_tracked else m.profile.xinuse
    if after in _AFTER:
        yield "if used.size:"
        yield f"    used[i] = {_AFTER[after]}"


def _standard_header(allowed: int) -> list[str]:
    return [
        *_refuse(f"bad_standard_xstate_bv(xstate_bv, u64({allowed:#x}))", "standard-xstate-bv"),
        *_refuse("(xcomp | load64(a + 528))", "standard-header"),
    ]


def _compacted_header(allowed: int) -> list[str]:
    return [
        *_refuse(f"bad_xcomp_bv(xcomp, u64({allowed:#x}))", "xcomp-bv"),
        *_refuse("bad_xstate_bv(xstate_bv, xcomp)", "xstate-bv"),
        *_refuse("any_set(a + 528, 48)", "compacted-header"),
    ]


def _xfd(m: Machine) -> list[str]:
    needed = f"needed_but_disabled(rfbm, xstate_bv, u64({m.xcr0:#x}), u64({m.xfd:#x}))"
    return _refuse(needed, "xfd") if m.disabled else []


def _outside(slots: list[Slot], which: str) -> str:
    terms = [f"({which} & BIT{slot.bit} and at{slot.bit} + {slot.size} > width)" for slot in slots]
    return " or ".join(terms) or "False"


def _bad_mxcsr(m: Machine) -> list[str]:
    return _refuse(f"load32(a + 24) & u64({0xFFFFFFFF & ~m.profile.mxcsr_legal:#x})", "mxcsr")


def _standard_form(m: Machine, *, change: bool) -> Lines:
    page = _refuse("width < end", "page-read")
    first = m.profile.fault_order == "page-header-mxcsr"
    yield from page if first else []
    yield from [*_standard_header(m.xcr0), *_xfd(m), *page]
    yield "if rfbm & u64(0b110):  # whatever XSTATE_BV says"
    yield from _indent(_bad_mxcsr(m))
    if change:
        yield "    store32(r + 24, load32(a + 24))"
    yield from _standard_places(m.slots(m.xcr0))


def _compacted_form(m: Machine, allowed: int, *, change: bool) -> Lines:
    slots = m.slots(allowed)
    yield from _compacted_header(allowed)
    yield from _compacted_places(slots, "xcomp")
    yield from _xfd(m)
    outside = "width < top" if m.profile.probe_compacted else _outside(slots, "load")
    yield from _refuse(outside, "page-read")
    yield "if load & BIT1:"
    yield from _indent(_bad_mxcsr(m))
    if allowed & m.xss:
        yield from _supervisor(m, change=change)
    if change:
        yield "if rfbm & BIT1:"
        yield f"    store32(r + 24, load32(a + 24) if load & BIT1 else u64({MXCSR_INIT:#x}))"


def _supervisor(m: Machine, *, change: bool) -> Lines:
    slots = m.slots(m.xss)
    for slot in slots if change else []:
        at, mask, rule = {
            PT: (slot.register, 1, "pt-enabled"),
            UINTR: (slot.register + 20, 0xFF, "uinv"),
        }.get(slot.bit, (0, 0, ""))
        if rule:
            yield from _refuse(f"rfbm & BIT{slot.bit} and load8(r + {at}) & u64({mask:#x})", rule)
    for slot in slots:
        checks = list(_component(m, slot, change=change))
        if checks:
            yield f"if load & BIT{slot.bit}:"
            yield from _indent(checks)


def _component(m: Machine, slot: Slot, *, change: bool) -> Lines:
    checked, reserved = plan(m.caps, slot.bit, slot.size)
    for at, conditions in checked:
        yield f"v = load64(a + at{slot.bit} + {at})"
        for condition, rule in conditions:
            if rule == "lbr-depth":  # the depth that the CPU has is legal
                current = f"load64(r + {slot.register + at})" if change else f"u64({_DEPTH})"
                yield from _refuse(f"v != {current} and {condition}", rule)
            else:
                yield from _refuse(condition, rule)
    for start, end in reserved:
        yield from _refuse(f"any_set(a + at{slot.bit} + {start}, {end - start})", "reserved")


_HEADER: Final = ["xstate_bv = load64(a + 512)", "xcomp = load64(a + 520)"]


def _checks(m: Machine, *, change: bool = False) -> Lines:
    """Check what XRSTOR checks, and with *change* load MXCSR."""
    yield "if xcomp & COMPACTED:"
    if m.caps.has("XSAVEC"):
        yield from _indent(_compacted_form(m, m.xcr0, change=change))
    else:
        yield from _fail("compaction")
    yield "else:"
    yield from _indent(_standard_form(m, change=change))


def xrstor(m: Machine, name: str = "xrstor", *, change: bool = True) -> str:
    """Return XRSTOR (SDM 13.8): the form that XCOMP_BV[63] selects; without *change* only its checks."""
    row = [*(_ROW if change else _ROW[:1]), *_HEADER, "load = loaded(rfbm, xstate_bv)"]
    row += [*_checks(m, change=change), *(_update(m, m.slots(m.xcr0)) if change else [])]
    return _function(name, REGISTER_ARGUMENTS, [], row)


def xrstors(m: Machine, name: str = "xrstors", *, change: bool = True) -> str:
    """Return XRSTORS (SDM 13.12); without *change* its checks of the image."""
    row = [*(_ROW if change else _ROW[:1]), *_HEADER, "load = loaded(rfbm, xstate_bv)"]
    row += _refuse("not xcomp & COMPACTED", "xcomp-bv-format")
    row += _compacted_form(m, m.enabled, change=change)
    row += _update(m, m.slots(m.enabled)) if change else []
    return _function(name, REGISTER_ARGUMENTS, [], row)


# Images


def _mxcsr_initial(m: Machine) -> str:
    return f"u64({m.profile.mxcsr_mask << 32 | MXCSR_INIT:#x})"


def _read_image(m: Machine) -> Lines:
    """Check the header and find what the image holds, and where: ``own`` are the components with a place."""
    slots = m.slots(m.enabled)
    standard = sum(1 << slot.bit for slot in _standard_slots(m)) | LEGACY
    yield "compacted = xcomp & COMPACTED"
    yield "mxcsr = load64(a + 24)  # and MXCSR_MASK"
    yield "if compacted:"
    yield from _indent([*_compacted_header(m.enabled), *_compacted_places(slots, "xcomp")])
    yield "    own = xcomp & complement(COMPACTED)"
    yield "    if not xstate_bv & BIT1:"
    yield f"        mxcsr = {_mxcsr_initial(m)}"
    yield "else:"
    yield from _indent([*_standard_header(standard), *_standard_places(slots), f"own = u64({LEGACY})"])
    for slot in _standard_slots(m):
        yield f"    if width >= {(slot.standard or 0) + slot.size}:"
        yield f"        own |= BIT{slot.bit}"
    yield from _refuse(_outside(slots, "xstate_bv"), "page-read")


def _place_image(m: Machine) -> Lines:
    """Choose the components of the result, ``target``, and their places."""
    slots, standard = m.slots(m.enabled), _standard_slots(m)
    mask = sum(1 << slot.bit for slot in standard) | LEGACY
    yield "target = own & keep | add"
    yield "to_compacted = form == 2 or (form == 0 and compacted != u64(0))"
    yield "if to_compacted:"
    yield from _indent(_compacted_places(slots, "target", "to"))
    yield "else:"
    yield f"    target &= u64({mask:#x})"
    yield f"    top = {MIN_SIZE}"
    for slot in slots:
        yield f"    to{slot.bit} = {slot.standard or 0}"
    for slot in standard:
        yield f"    if target & BIT{slot.bit}:"
        yield f"        top = max(top, {(slot.standard or 0) + slot.size})"
    yield "present = xstate_bv & target"
    yield "if strict and present != xstate_bv:"
    yield f"    outcome[i] = {CODES['xstate-bv']} if to_compacted else {CODES['standard-xstate-bv']}"
    yield "    continue"
    yield from _refuse("top > out_width", "page-write")


def _copy_component(bit: int, copying: Iterable[str], filling: Iterable[str]) -> Lines:
    yield f"if present & BIT{bit}:"
    yield from _indent(copying)
    filling = list(filling)
    if filling:
        yield f"elif fill and target & BIT{bit}:"
        yield from _indent(filling)


def convert(m: Machine) -> str:
    """Return the conversion of images; `fpstate.image` is its reference.

    ``form``: 0 as it is, 1 standard, 2 compacted.  The result is built in ``scratch`` where that is not 0.
    """
    row = ["a = images + i * stride", "b = scratch if scratch else out + i * step", *_HEADER]
    row += [*_read_image(m), *_place_image(m)]
    row += ["if not target & BIT1:", f"    mxcsr = {_mxcsr_initial(m)}"]
    row += ["header = present", "if to_compacted and target & BIT1 and (mxcsr & u64(0xffffffff)) != u64(0x1f80):"]
    row += ["    header |= BIT1  # a compacted image has no other way to say it"]
    row += ["zero_n(b, out_width)"]
    words = [f"store64(b + {at}, u64({value:#x}))" for at, value in _words(X87_INIT)]
    row += _copy_component(0, ["copy(b, a, 24)", "copy(b + 32, a + 32, 128)"], words)
    row += _copy_component(1, ["copy(b + 160, a + 160, 256)"], [])
    row += ["if not to_compacted or header & BIT1 or fill and target & BIT1:", "    store64(b + 24, mxcsr)"]
    row += ["if software:", "    copy(b + 464, a + 464, 48)", "store64(b + 512, header)"]
    row += ["if to_compacted:", "    store64(b + 520, xcomp_bv(target))"]
    for slot in m.slots(m.enabled):
        base = f"b + to{slot.bit}"
        initial = [f"store64({base} + {at}, u64({value:#x}))" for at, value in _words(slot.initial)]
        row += _copy_component(slot.bit, [f"copy({base}, a + at{slot.bit}, {slot.size})"], initial)
    row += ["if scratch:", "    copy_n(out + i * step, scratch, out_width)"]
    return _function("convert", CONVERT_ARGUMENTS, [], row)


def sigreturn(m: Machine) -> str:
    """Return what rt_sigreturn checks of a frame (`fpstate.linux.copyin.check_sigreturn`); XFD does not matter.

    ``features`` are the task's user features and ``end`` its user size.  Rules of XRSTOR have their own codes, those
    about the software bytes `FX_ONLY` and up.
    """
    m = replace(m, xss=0, xfd=0)
    row = [*_ROW[:1], f"size = i64(load32(a + {SOFTWARE + 16}))", "fx_only = 0"]
    row += [f"if load32(a + {SOFTWARE}) != u64({FP_XSTATE_MAGIC1:#x}):", f"    fx_only = {FX_ONLY}"]
    row += [f"elif size < {MIN_SIZE} or size > min(end, i64(load32(a + {SOFTWARE + 4}))):"]
    row += [f"    fx_only = {FX_ONLY + 1}", f"elif width < end + {MAGIC2_SIZE}:", *_fail("page-read")]
    row += [f"elif load32(a + size) != u64({FP_XSTATE_MAGIC2:#x}):"]
    row += [f"    fx_only = {FX_ONLY + 2}", "if fx_only:"]
    row += [*_indent(_bad_mxcsr(m)), "    outcome[i] = fx_only", "    continue"]
    row += [f"rfbm = features & load64(a + {SOFTWARE + 8})", *_HEADER, "load = loaded(rfbm, xstate_bv)"]
    return _function("check_sigreturn", SIGRETURN_ARGUMENTS, [], [*row, *_checks(m)])


KERNELS: Final[dict[str, Callable[[Machine], str]]] = {
    "xsave": xsave,
    "xsaveopt": xsaveopt,
    "xsavec": xsavec,
    "xsaves": xsaves,
    "xrstor": xrstor,
    "xrstors": xrstors,
    "check_xrstor": lambda m: xrstor(m, "check_xrstor", change=False),
    "check_xrstors": lambda m: xrstors(m, "check_xrstors", change=False),
    "check_sigreturn": sigreturn,
    "convert": convert,
}
"""Kernel to what writes its text."""


def module(m: Machine, name: str) -> str:
    """Return the text of a module with kernel *name*; the names that it uses are those of `fpstate.batch.jit`."""
    components = [0, 1, *m.registers.sections]
    names = [f"BIT{bit} = u64({1 << bit:#x})  # {m.caps.cpu.catalogue.name(bit)}" for bit in components]
    return "\n".join([*names, "", "", KERNELS[name](m)])
