"""From a thread's bytes to its state: where each component lies, who says so, and what is wrong with the bytes.

Every layout becomes a `Capabilities`, every form an `Image` whose header is sound.  What a damaged header says beyond
that is taken out of it and reported, so that everything else can still be read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from operator import itemgetter
from typing import Final, Literal, NamedTuple

from fpstate import registers as regs
from fpstate.cpu import xcr0
from fpstate.cpu.dump import Registers
from fpstate.cpu.model import Component, Cpu
from fpstate.errors import CannotTell
from fpstate.image import Image, registers
from fpstate.isa.capabilities import Capabilities
from fpstate.isa.header import Header, check_compacted, check_standard, named
from fpstate.isa.mxcsr import check_plausible
from fpstate.isa.rules import Fault
from fpstate.registers import Register, abridged_tags
from fpstate.sources.capture import Abi, Damage, Thread
from fpstate.xfeatures import (
    AVX512,
    CATALOGUE,
    COMPACTED,
    FSAVE_SIZE,
    LEGACY,
    LEGACY_PLACES,
    LEGACY_SIZE,
    MIN_SIZE,
    MPX,
    PKRU,
    SOFTWARE,
    SSE,
    XTILE,
    bits,
)

__all__ = ["Confidence", "Layout", "Origin", "Placed", "Placer", "Slot", "State"]

Origin = Literal["note", "cpu", "deduced", "given"]
"""Who says where components lie: the source itself (NT_X86_XSAVE_LAYOUT); the CPU, named by the user or told by the
source; the CPUs of the built-in table that fit; nobody need, as the form of the image fixes it."""

Confidence = Literal["certain", "high", "low"]
"""Of a layout: it is said, every known CPU that fits agrees, or several differ."""

State = Literal["in-use", "init", "absent"]

_ALL: Final = (1 << 63) - 1
_X87_END, _XMM_END = (offset + size for offset, size in LEGACY_PLACES.values())
"""Where the x87 and XMM registers of the legacy region end."""
_EVERY: Final = "every known CPU"
_AVX: Final = 2
"""The bit of AVX, which all CPUs have in one place."""
_HALVES: Final = frozenset(f"{kind}{i}h" for kind in ("ymm", "zmm") for i in range(16))
_MOST_LAYOUTS: Final = 64
"""Layouts that the threads of one source may have; those of one system have one."""
_LARGEST: Final = 1 << 16
"""Bytes of an image that are looked at; the largest that a CPU can write have some 12,000."""


class Layout(NamedTuple):
    """Where the components of an image lie.

    Attributes:
        origin: who says so.
        confidence: how sure it is.
        caps: the layout itself.
        candidates: the CPUs that it can be, each group that agrees joined by ", "; the first one was taken.
        damage: what speaks against it.
    """

    origin: Origin
    confidence: Confidence
    caps: Capabilities
    candidates: tuple[str, ...] = ()
    damage: tuple[Damage, ...] = ()

    @property
    def text(self) -> str:
        """Who says where components lie, in words."""
        if self.origin == "note":
            return "places from the layout note"
        if self.origin == "cpu":
            return f"places as {self.caps.cpu.name} lays them out"
        if self.origin == "given":
            return "places fixed by the architecture"
        if not self.candidates:
            return "places not known: no CPU of the built-in table fits"
        if self.candidates == (_EVERY,):
            return "places deduced: the same on every known CPU"
        return f"places deduced: as {self.candidates[0]}{'' if self.confidence == 'high' else ' (a guess)'}"


class Slot(NamedTuple):
    """One component of an image: its state, and its place there; None if it has none."""

    bit: int
    name: str
    state: State
    offset: int | None
    size: int


class Placed(NamedTuple):
    """One thread's state.

    Attributes:
        thread: as the source has it.
        layout: where its components lie.
        image: its state, with a header that is sound; None if nothing can be read.
        has: the components that have a place.
        xstate_bv, xcomp_bv: as the bytes have them, sound or not; None where the form has no header.
        damage: everything found, the thread's own first.
    """

    thread: Thread
    layout: Layout
    image: Image | None
    has: int
    xstate_bv: int | None
    xcomp_bv: int | None
    damage: tuple[Damage, ...]

    @property
    def format(self) -> str:
        """``standard`` or ``compacted`` of an XSAVE image, else the form: ``fxsave``, ``fsave``, ``none``."""
        if self.thread.form != "xsave" or self.image is None:
            return self.thread.form
        return self.image.format

    @property
    def in_use(self) -> int:
        """The components that have a place and are not in their initial configuration."""
        return 0 if self.image is None else self.image.xstate_bv & self.has

    @property
    def components(self) -> tuple[Slot, ...]:
        """Every user component that fpstate knows, and every other one that the layout has."""
        named = (self.xstate_bv or 0) & _ALL
        return _slots(self.layout.caps, self.has, self.in_use, named, 0 if self.image is None else self.image.xcomp_bv)

    def exists(self, register: Register) -> bool:
        """Tell whether the thread's mode reaches *register*, and it lies in components that have a place."""
        return not register.components & ~self.has and not (register.long_mode and self.thread.abi == "i386")

    @property
    def widest(self) -> tuple[Register, ...]:
        """The registers that there are, each byte once: zmm3 for xmm3, ymm3h and zmm3h where all three are."""
        sizes = self.layout.caps.sizes
        return tuple(r for r in registers(self.has, sizes) if self.exists(r))

    @property
    def named(self) -> tuple[Register, ...]:
        """The registers that there are under every whole name: xmm3, ymm3 and zmm3, but no upper half."""
        return _existing(self.layout.caps, self.thread.abi, self.has)

    def value(self, register: Register) -> bytes:
        """Return the bytes of *register*, lowest first: its initial ones where its component is not in use."""
        if self.image is None:
            raise CannotTell(f"thread {self.thread.tid} has no state that can be read")
        return self.image.register(register)

    def hexadecimal(self) -> dict[str, str]:
        """Return every register of `named` as hex digits in memory order."""
        image = self.image
        if image is None:
            return {}
        plan = _plan(self.layout.caps, self.thread.abi, self.has, image.xstate_bv, image.xcomp_bv)
        digits = plan.initial + image.data.hex()
        found = dict(zip(plan.names, plan.first_parts(digits), strict=True))
        for name, rest in plan.rests:
            found[name] += "".join(rest(digits))
        if self.has & SSE:
            found["mxcsr"] = image.mxcsr.to_bytes(4, "little").hex()
        return found


@lru_cache(maxsize=256)
def _slots(caps: Capabilities, has: int, in_use: int, named: int, xcomp_bv: int) -> tuple[Slot, ...]:
    catalogue = caps.cpu.catalogue
    laid_out = caps.compacted(xcomp_bv & ~COMPACTED) if xcomp_bv else caps.standard(has)
    places = LEGACY_PLACES | {bit: (offset, size) for bit, offset, size in laid_out.slots}
    known = sum(row.mask for row in catalogue if not row.supervisor)
    found = []
    for bit in bits(known | has | named):
        row = catalogue.get(bit)
        size = caps.sizes.get(bit, 0 if row is None else row.size)
        offset = None
        state: State = "absent"
        if has >> bit & 1:
            offset, size = places[bit]
            state = "in-use" if in_use >> bit & 1 else "init"
        found.append(Slot(bit, catalogue.name(bit), state, offset, size))
    return tuple(found)


@cache
def _named(bit: int, size: int) -> tuple[Register, ...]:
    """Return the registers whose highest part lies in component *bit*, without upper halves; an undivided one whole."""
    found = [r for r in regs.REGISTERS.values() if r.parts[-1].bit == bit and r.name not in _HALVES]
    return tuple(found) if found or bit < 2 else (regs.raw(bit, size),)


_Digits = Callable[[str], tuple[str, ...]]


class _Plan(NamedTuple):
    """How to take registers out of hex digits: `Placed.hexadecimal` for images with equal headers.

    A thousand threads have a hundred thousand registers: the digits are cut by `operator.itemgetter`, all at once.

    Attributes:
        initial: what the components that are not in use hold; it goes before the image's digits.
        names: every register, in order.
        first_parts: cuts the digits of each one's first part.
        rests: of those with further parts, the name, and what cuts them.
    """

    initial: str
    names: list[str]
    first_parts: _Digits
    rests: list[tuple[str, _Digits]]


@lru_cache(maxsize=256)
def _plan(caps: Capabilities, abi: Abi, has: int, xstate_bv: int, xcomp_bv: int) -> _Plan:
    places = caps.compacted(xcomp_bv & ~COMPACTED) if xcomp_bv else caps.standard(has)
    starts, idle = {0: 0, 1: 0} | {bit: offset for bit, offset, _ in places.slots}, b""
    sizes = {0: _X87_END, 1: _XMM_END} | {bit: size for bit, _, size in places.slots}
    for bit in bits(has & ~xstate_bv):
        starts[bit] = len(idle)
        idle += regs.initial(bit, sizes[bit])
    cuts = []
    registers = _existing(caps, abi, has)
    for register in registers:
        begins = [starts[p.bit] + p.offset + (xstate_bv >> p.bit & 1) * len(idle) for p in register.parts]
        ends = [begin + part.size for begin, part in zip(begins, register.parts, strict=True)]
        cuts.append([slice(2 * begin, 2 * end) for begin, end in zip(begins, ends, strict=True)])
    names = [register.name for register in registers]
    rests = [(name, _cutter(cut[1:])) for name, cut in zip(names, cuts, strict=True) if len(cut) > 1]
    return _Plan(idle.hex(), names, _cutter([cut[0] for cut in cuts]), rests)


def _cutter(cuts: list[slice]) -> _Digits:
    """Return what cuts all of *cuts* out of digits."""
    whole: _Digits = itemgetter(*cuts, slice(0))  # with one more, that there are never fewer than two
    return lambda digits: whole(digits)[:-1]


@lru_cache(maxsize=256)
def _existing(caps: Capabilities, abi: Abi, has: int) -> tuple[Register, ...]:
    """Return the registers of the components in *has* that the mode of *abi* reaches, halves left out."""
    return tuple(
        register
        for bit in bits(has)
        for register in _named(bit, caps.sizes.get(bit, 0))
        if not register.components & ~has and not (register.long_mode and abi == "i386")
    )


# -- who says where components lie ---------------------------------------------------------------------------------


class Placer:
    """Places threads.

    Args:
        cpu: the CPU that made them, as the user names it or the source tells; None if nobody does.
        strict: refuse a layout that is a guess among several.
        by_gdb: gdb's gcore wrote the source: maybe with Intel's size for an AMD, see `_written_by_gdb`.
    """

    def __init__(self, cpu: Cpu | None = None, *, strict: bool = False, by_gdb: bool = False) -> None:
        self._cpu = cpu
        self._strict = strict
        self._by_gdb = by_gdb
        self._layouts: dict[object, Layout] = {}
        self._said: list[Mapping[int, Component]] = []

    def place(self, thread: Thread) -> Placed:
        """Return the state of *thread*.

        Raises:
            CannotTell: *strict*, and several layouts fit.
        """
        data = bytes(thread.image[:_LARGEST])
        if thread.form == "fsave":
            return _legacy(thread, _from_fsave(data), 1, len(data) >= FSAVE_SIZE)
        if thread.form == "fxsave":
            return _legacy(thread, data, LEGACY, len(data) >= LEGACY_SIZE)
        if thread.form == "none" or not data:
            text = f"{_who(thread)} has no floating-point state in the source"
            if thread.form != "none":
                text = f"the {thread.form} image of {_who(thread)} has 0 bytes"
            damage = Damage("image.none", text, thread.offset, "what is kept beside the image is shown")
            return Placed(thread, _FIXED, None, 0, None, None, (*thread.damage, damage))
        if len(data) < MIN_SIZE:
            return _legacy(thread, data, LEGACY, False)
        header = Header(*struct.unpack_from("<QQ48s", data, LEGACY_SIZE))
        layout = self._layout(thread, header)
        return _with_header(thread, data, header, layout)

    def _layout(self, thread: Thread, header: Header) -> Layout:
        compacted = header.xcomp_bv if _is_compacted(thread, header) else 0
        known = thread.enabled is not None or compacted
        used = 0 if known else header.xstate_bv
        key = (self._number(thread.layout), thread.enabled, _size(thread), compacted, used)
        found = self._layouts.get(key)
        if found is None and len(self._layouts) >= _MOST_LAYOUTS:
            return _TOO_MANY
        if found is None:
            found = self._layouts[key] = self._find(thread, compacted, used)
        return found

    def _number(self, layout: Mapping[int, Component] | None) -> int | None:
        """Return the number of a layout that a source tells; equal ones, as of vCPUs each read anew, have one."""
        if layout is None:
            return None
        found = next((i for i, seen in enumerate(self._said) if seen is layout or seen == layout), len(self._said))
        if found == len(self._said) < _MOST_LAYOUTS:
            self._said.append(layout)
        return found

    def _find(self, thread: Thread, compacted: int, used: int) -> Layout:
        if thread.layout is not None:
            return _from_note(thread, thread.layout, self._cpu)
        if self._cpu is not None:
            return _from_cpu(self._cpu, thread.enabled, 0 if compacted else _size(thread))
        layout = _compacted_layout() if compacted else _deduced(thread.enabled, _size(thread), used)
        if self._by_gdb and not compacted and layout.candidates:
            layout = _written_by_gdb(layout, _size(thread))
        if self._strict and layout.confidence == "low":
            raise CannotTell(
                f"the layout of {_who(thread)} is not told: {layout.text}"
                + "".join(f"; or as {other}" for other in layout.candidates[1:]),
                cure="name the CPU that made it with --cpu, or drop --strict",
            )
        return layout


def _is_compacted(thread: Thread, header: Header) -> bool:
    """Tell the format by XCOMP_BV[63], unless the source tells standard offsets: then it is damaged if it is set.

    A minidump of a compacted image tells sizes alone.
    """
    standard = thread.layout is not None and any(c.offset is not None for c in thread.layout.values())
    return bool(header.xcomp_bv & COMPACTED) and not standard


def _size(thread: Thread) -> int:
    """Return the bytes that the image of *thread* has, or had before it was cut off; a size that none has is a lie."""
    return len(thread.image) if thread.said is None or thread.said > _LARGEST else thread.said


def _who(thread: Thread) -> str:
    return "the image" if thread.tid is None else f"thread {thread.tid}"


def _capabilities(name: str, components: Mapping[int, Component]) -> Capabilities:
    """Return the CPU that has *components*, and of the instructions what any format needs."""
    user = LEGACY | sum(1 << bit for bit, c in components.items() if not c.supervisor)
    supervisor = sum(1 << bit for bit, c in components.items() if c.supervisor)
    flags = frozenset({"FXSR", "XSAVE", "XSAVEC", "XSAVES"})
    cpu = Cpu(name=name, source=name, xcr0_mask=user, xss_mask=supervisor, components=components, flags=flags)
    return Capabilities(cpu)


_FIXED: Final = Layout("given", "certain", _capabilities("the architecture", {}))


_TOO_MANY: Final = _FIXED._replace(
    origin="deduced",
    confidence="low",
    damage=(Damage("layout.too-many", f"XCR0 and sizes differ in more than {_MOST_LAYOUTS} ways: no system does so"),),
)


def _from_note(thread: Thread, layout: Mapping[int, Component], cpu: Cpu | None) -> Layout:
    """Return the layout that the source tells; of *cpu* comes what XCR0 has and a damaged note lacks."""
    components, damage = {}, []
    for bit, component in layout.items():
        try:
            _capabilities("the layout note", {bit: component})
        except CannotTell as refusal:
            damage.append(Damage("layout.component", str(refusal), None, "the component is left out"))
            continue
        components[bit] = component
        other = None if cpu is None else cpu.components.get(bit)
        if other is not None and (other.offset, other.size) != (component.offset, component.size):
            text = f"the layout note gives {CATALOGUE.name(bit)} {component.size} bytes at {component.offset}, "
            text += f"{'' if cpu is None else cpu.name} {other.size} at {other.offset}: the note counts"
            damage.append(Damage("layout.cpu-differs", text, None, "is it the CPU that made it?"))
    if cpu is not None:
        components |= _missing(cpu, components, thread.enabled or 0)
    return Layout("note", "certain", _capabilities("the layout note", components), damage=tuple(damage))


def _missing(cpu: Cpu, components: Mapping[int, Component], enabled: int) -> dict[int, Component]:
    """Return the components of *enabled* that *components* lack, where *cpu* has them, beside those."""
    taken = [(c.offset, c.offset + c.size) for c in components.values() if c.offset is not None]
    found = {}
    for bit, c in cpu.components.items():
        if bit not in components and enabled >> bit & 1 and c.offset is not None:
            begin, end = c.offset, c.offset + c.size
            if not any(begin < other_end and other < end for other, other_end in taken):
                found[bit] = c
    return found


def _from_cpu(cpu: Cpu, enabled: int | None, size: int) -> Layout:
    """Return the layout of *cpu* for an image of *size* bytes in standard format; 0 for a compacted one."""
    damage = []
    lacking = 0 if enabled is None else enabled & ~(cpu.xcr0_mask | LEGACY)
    if lacking:
        names = cpu.catalogue.names(lacking)
        text = f"XCR0 is {enabled:#x}, but {cpu.name} has not {names}"
        damage.append(Damage("layout.cpu-lacks", text, None, "is it the CPU that made it?"))
    if enabled is not None:
        kept = {bit: c for bit, c in cpu.components.items() if c.supervisor or enabled >> bit & 1}
        cpu = replace(cpu, xcr0_mask=cpu.xcr0_mask & enabled | LEGACY, components=kept)
        needed = cpu.standard_size(cpu.xcr0_mask) if size else 0
        if needed != size and not lacking:
            text = f"the image has {size} bytes, {cpu.name} writes {needed} with XCR0 {enabled:#x}"
            damage.append(Damage("layout.cpu-size", text, None, "is it the CPU that made it?"))
    return Layout("cpu", "certain", Capabilities(cpu), damage=tuple(damage))


@cache
def _compacted_layout() -> Layout:
    """Return the layout of a compacted image: the same on all CPUs, but for PKRU of Zen 2 (64 bytes)."""
    components = {r.bit: Component(r.bit, r.size, None, r.supervisor, r.aligned) for r in CATALOGUE if r.bit >= _AVX}
    return Layout("deduced", "high", _capabilities(_EVERY, components), (_EVERY,))


_Key = tuple[int, tuple[tuple[int, int, int], ...]]
"""XCR0, and (component, offset, size) of each extended component of an image, ascending."""


def _deduced(enabled: int | None, size: int, used: int) -> Layout:
    """Return the layout that CPUs of the built-in table have for an image of *size* bytes in standard format.

    Args:
        enabled: XCR0, if it is known.
        size: bytes.
        used: XSTATE_BV, for where XCR0 is not known.
    """
    fits = _fitting(enabled, size, used)
    if not fits:
        avx = {_AVX: Component(_AVX, 256, MIN_SIZE)}  # the same on all
        there = size >= MIN_SIZE + 256 and (enabled or used) >> _AVX & 1
        mask = "an unknown XCR0" if enabled is None else f"XCR0 {enabled:#x}"
        text = f"no CPU of the built-in table writes {size} bytes with {mask}"
        damage = Damage("layout.unknown", text, None, "name the CPU that made it with --cpu, or give its CPUID dump")
        return Layout("deduced", "low", _capabilities("no known CPU", avx if there else {}), (), (damage,))
    groups = sorted(fits.items(), key=lambda item: -len(item[1]))
    (_, places), names = groups[0]
    components = {bit: Component(bit, length, offset, aligned=_aligned(bit)) for bit, offset, length in places}
    caps = _capabilities(names[0], components)
    unsure = len(groups) > 1
    listed = (_listed(names) + (f" with XCR0 {mask:#x}" if enabled is None else "") for (mask, _), names in groups)
    return Layout("deduced", "low" if unsure else "high", caps, tuple(listed))


def _written_by_gdb(layout: Layout, size: int) -> Layout:
    """Return *layout* with the CPUs that gdb 13 writes so as well, though their own images are smaller.

    gdb 13 knows Intel's places only.  On an AMD with AVX-512 its gcore writes an image of Intel's size in which every
    byte has kept its place, but those where Intel has no register are lost: opmask and ZMM0_H to ZMM5_H (measured on
    a Zen 4: note of 2688 bytes, bytes 832 to 1087 zeros).  No byte tells such an image from one made on an Intel.
    """
    own = layout.caps.cpu.components
    others: list[str] = []
    for name, leaf in _known():
        places = {bit: (leaf[bit][1], leaf[bit][0]) for bit in own if bit in leaf}
        end = max((offset + length for offset, length in places.values()), default=size)
        if len(places) == len(own) and end < size:
            others.append(name)
    if not others:
        return layout
    rival = f"{_listed(others)}, of which gdb 13 writes so, opmask and ZMM0_H to ZMM5_H being lost (--cpu)"
    return layout._replace(confidence="low", candidates=(*layout.candidates, rival))


@cache
def _known() -> tuple[tuple[str, Mapping[int, Registers]], ...]:
    from fpstate.cpu import table  # noqa: PLC0415  most cores need it not

    return tuple(table.leaves())


def _aligned(bit: int) -> bool:
    row = CATALOGUE.get(bit)
    return row is not None and row.aligned


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _fitting(enabled: int | None, size: int, used: int) -> dict[_Key, list[str]]:
    """Return the layouts that fit, each with the CPUs that have it."""
    simple: dict[int | None, tuple[tuple[tuple[int, int, int], ...], int]] = {
        LEGACY: ((), MIN_SIZE),
        LEGACY | 1 << _AVX: (((_AVX, MIN_SIZE, 256),), MIN_SIZE + 256),
    }
    if enabled is not None and enabled in simple:  # the same on all; and this one spares reading the table
        places, end = simple[enabled]
        return {(enabled, places): [_EVERY]} if end == size else {}
    found: dict[_Key, list[str]] = {}
    for name, leaf in _known():
        registers = leaf.get(0, (0, 0, 0, 0))
        has = registers[0] | registers[3] << 32
        for mask in (enabled,) if enabled is not None else dict.fromkeys(_likely(has)):  # the likeliest first
            places = tuple((bit, leaf[bit][1], leaf[bit][0]) for bit in bits(mask & ~LEGACY) if bit in leaf)
            end = max((offset + length for _, offset, length in places), default=MIN_SIZE)
            if not mask & ~has and not used & ~mask and end == size:
                found.setdefault((mask, places), []).append(name)
    return found


def _likely(has: int) -> Iterator[int]:
    """Yield the masks that systems enable on a CPU with *has*: all of it, without AMX, PKRU, MPX or AVX-512."""
    for without in (0, XTILE, 1 << PKRU, XTILE | 1 << PKRU, MPX, MPX | 1 << PKRU, AVX512 | XTILE, AVX512 | MPX | XTILE):
        yield has & ~without


# -- what is wrong with the bytes ----------------------------------------------------------------------------------


def _legacy(thread: Thread, data: bytes, form: int, whole: bool) -> Placed:
    """Return a state that has no header: as much of the components *form* as there are bytes for."""
    damage = list(thread.damage)
    if not whole:
        text = f"the {thread.form} image of {_who(thread)} has {len(thread.image)} bytes"
        cure = "give all of it; what its registers take is shown"
        damage.append(Damage("image.truncated", text, thread.offset, cure))
    has = form & ((len(data) >= _X87_END) | (len(data) >= _XMM_END) << 1)
    if not has:
        return Placed(thread, _FIXED, None, 0, None, None, tuple(damage))
    if has & SSE:
        damage += _odd_mxcsr(thread, data)
    legacy = data[:LEGACY_SIZE].ljust(LEGACY_SIZE, b"\0")
    image = Image(legacy + struct.pack("<QQ48x", has, 0), _FIXED.caps, has, 0)
    image = replace(image, xstate_bv=_not_initial(image, thread.abi))
    return Placed(thread, _FIXED, image, has, None, None, tuple(damage))


def _not_initial(image: Image, abi: Abi) -> int:
    """Return x87 and SSE as XINUSE tells them, which FXSAVE does not keep (SDM volume 1, 13.6), MXCSR aside."""
    mask = 0
    for bit in (0, 1):
        for register in regs.of_component(bit):
            narrow = abi == "i386" and register.long_mode
            initial = register.initial.to_bytes(register.size, "little")
            if register.name != "mxcsr" and not narrow and image.register(register) != initial:
                mask |= 1 << bit
    return mask


def _from_fsave(data: bytes) -> bytes:
    """Return the x87 part of an FXSAVE image with the state of an FSAVE one (SDM volume 1, figure 8-9, and 10.5.1)."""
    if len(data) < FSAVE_SIZE:
        return b""
    fcw, fsw, ftw, fip, fcs, fop, fdp, fds = struct.unpack_from("<H2xH2xH2xIHHIH", data)
    head = struct.pack("<HHBxHIHHIHH", fcw, fsw, abridged_tags(ftw), fop & 0x7FF, fip, fcs, 0, fdp, fds, 0)
    stack = b"".join(data[28 + 10 * i : 38 + 10 * i] + bytes(6) for i in range(8))
    return head + bytes(8) + stack


def _with_header(thread: Thread, data: bytes, header: Header, layout: Layout) -> Placed:
    """Return the state of an XSAVE image of either format."""
    caps = layout.caps
    sound, damage = _mended(thread, header, caps)
    image = Image(data, caps, sound.xstate_bv, sound.xcomp_bv)
    lost = _lost(image)
    if lost and image.xcomp_bv:  # the places before it stay where they are: it is the last ones that are cut off
        image = replace(image, xcomp_bv=image.xcomp_bv & ~lost)
    for bit in bits(lost & image.xstate_bv):
        text = f"XSTATE_BV has component {bit} ({caps.cpu.catalogue.name(bit)}), "
        if bit in caps.sizes:
            text += f"whose bytes lie beyond the {len(data)} of the image"
            damage.append(Damage("image.truncated", text, _place_of(thread, LEGACY_SIZE + bit // 8), "give all of it"))
        else:
            damage.append(_no_place(thread, caps, bit))
    image = replace(image, xstate_bv=image.xstate_bv & ~lost)
    if not header.xcomp_bv or header.xstate_bv & SSE:
        damage += _odd_mxcsr(thread, data)
    found = (*thread.damage, *layout.damage, *_odd_xcr0(thread), *damage)
    return Placed(thread, layout, image, image.components, header.xstate_bv, header.xcomp_bv, found)


def _lost(image: Image) -> int:
    """Return the components that the header names and that have no place, or one beyond the bytes."""
    named = image.xcomp_bv & ~COMPACTED or image.xstate_bv
    there = LEGACY
    for bit, offset, size in image.caps.compacted(named).slots if image.xcomp_bv else image.places.slots:
        there |= (offset + size <= len(image.data)) << bit
    return named & ~there


def _mended(thread: Thread, header: Header, caps: Capabilities) -> tuple[Header, list[Damage]]:
    """Return *header* without what the rules of XRSTOR forbid, and each rule that it breaks."""
    found: list[Damage] = []
    enabled = caps.user if thread.enabled is None else thread.enabled
    for _ in range(8):  # each turn mends what one rule objects to
        compacted = _is_compacted(thread, header)
        allowed = caps.user | caps.supervisor if compacted else enabled
        try:
            if compacted:
                check_compacted(header, allowed)
            else:
                check_standard(header, allowed)
                if any(header.reserved):  # validate_user_xstate_header(): no kernel writes anything there
                    at = next(i for i, byte in enumerate(header.reserved) if byte)
                    found.append(_damage(thread, "header.reserved", "header bytes 16 to 63 must be 0", 528 + at))
        except Fault as fault:
            offset = LEGACY_SIZE if fault.offset is None else fault.offset
            detail = named(fault.detail, fault.bit, fault.offset, caps.cpu.catalogue)
            text = f"{detail}: {fault.rule.text}"
            found.append(_damage(thread, f"header.{fault.rule.id}", text, offset, fault.rule.cure))
            mended = _without(header, offset, allowed, compacted=compacted)
            if compacted:
                found += [
                    _no_place(thread, caps, bit) for bit in bits(header.xcomp_bv & ~mended.xcomp_bv & header.xstate_bv)
                ]
            header = mended
        else:
            break
    return header, found


def _no_place(thread: Thread, caps: Capabilities, bit: int) -> Damage:
    text = f"XSTATE_BV has component {bit} ({caps.cpu.catalogue.name(bit)}), but where it lies is not known"
    cure = "name the CPU that made it with --cpu"
    if caps.cpu.leaves:
        cure = f"is it {caps.cpu.name} that made it?"
    return Damage("layout.no-place", text, _place_of(thread, LEGACY_SIZE + bit // 8), cure)


def _without(header: Header, offset: int, allowed: int, *, compacted: bool) -> Header:
    """Return *header* without what is wrong in its field at *offset* of the image."""
    if offset >= LEGACY_SIZE + 16:
        return header._replace(reserved=bytes(48))
    if offset >= LEGACY_SIZE + 8 and compacted:  # where a component ends that nobody knows, the next ones cannot begin
        odd = header.xcomp_bv & ~(allowed | COMPACTED)
        placed = (odd & -odd) - 1
        lost = header.xcomp_bv & ~(placed | COMPACTED)
        return header._replace(xcomp_bv=header.xcomp_bv & ~lost, xstate_bv=header.xstate_bv & ~lost)
    if offset >= LEGACY_SIZE + 8:
        return header._replace(xcomp_bv=0)
    within = header.xcomp_bv & ~COMPACTED if compacted else allowed
    return header._replace(xstate_bv=header.xstate_bv & within)


def _damage(thread: Thread, rule: str, text: str, offset: int, cure: str = "") -> Damage:
    where = f"offset {offset} of the image" if thread.tid is None else f"{_who(thread)}, offset {offset} of its image"
    return Damage(rule, f"{where}: {text}", _place_of(thread, offset), cure)


def _place_of(thread: Thread, offset: int) -> int | None:
    """Return where *offset* of the image lies in the source; None if it has no place there."""
    return None if thread.offset is None else thread.offset + offset


def _odd_mxcsr(thread: Thread, data: bytes) -> list[Damage]:
    """Return what is wrong with MXCSR in the legacy region *data*: XRSTOR would raise #GP."""
    try:
        check_plausible(data)
    except Fault as fault:
        text = f"{fault.detail}: {fault.rule.text}"
        return [_damage(thread, "image.mxcsr", text, fault.offset or 24, fault.rule.cure)]
    return []


def _odd_xcr0(thread: Thread) -> list[Damage]:
    """Return what is wrong with XCR0 as the source tells it: no CPU can have had it."""
    broken = None if thread.enabled is None else xcr0.fault(thread.enabled)
    if broken is None:
        return []
    text = f"{_who(thread)} has XCR0 {thread.enabled:#x}, which XSETBV refuses: {broken.text}"
    cure = "the software bytes are damaged, or are not XCR0"
    return [Damage("image.xcr0", text, _place_of(thread, SOFTWARE), cure)]
