"""Random cases: every instruction, every state of every component, and on demand a case that breaks a given rule."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from fpstate import registers as regs
from fpstate.errors import CannotTell, UsageError
from fpstate.isa import (
    AREA_INSTRUCTIONS,
    CONTROL_INSTRUCTIONS,
    Capabilities,
    Fault,
    Memory,
    Processor,
    execute,
    values,
    x87,
)
from fpstate.isa import profile as profiles
from fpstate.isa.case import Case, run
from fpstate.isa.control import IA32_XFD, IA32_XFD_ERR, IA32_XSS, MSRS
from fpstate.isa.masks import ALL
from fpstate.isa.memory import PAGE
from fpstate.isa.profile import Profile
from fpstate.isa.rules import RULES
from fpstate.registers import MXCSR_INIT, REGISTERS
from fpstate.xfeatures import COMPACTED, LBR, LEGACY, XTILE, bits

__all__ = ["Generator"]

_MOST_TRIES: Final = 100
_SAVES: Final = {"xrstor": ("xsave64", "xsavec64"), "xrstors": ("xsaves64",), "fxrstor": ("fxsave64",)}
"""What makes an image that the instruction restores, on a CPU with XSAVEC."""
_XTILECFG: Final = (XTILE & -XTILE).bit_length() - 1
_SIGNIFICANT: Final = (0, 1, 0x80, 0xFF)


class Generator:
    """A source of cases for one CPU, the same for the same seed.

    Attributes:
        xcr0, xss, xfd: what is enabled; the CPU's all, and 0, if not given.
        frozen: components that stay in their initial configuration.

    Args:
        caps: the CPU.
        seed: any number.
        profile: how it uses its freedom; its own if None.
        base: where areas begin: the linear address of a page.
    """

    def __init__(
        self,
        caps: Capabilities,
        *,
        seed: int,
        xcr0: int | None = None,
        xss: int | None = None,
        xfd: int = 0,
        profile: Profile | None = None,
        base: int = 0x10000,
        frozen: int = 0,
    ) -> None:
        self.caps = caps
        self.profile = profile or profiles.of_cpu(caps.cpu)
        self.xcr0 = caps.user if xcr0 is None else xcr0
        self.xss = caps.supervisor if xss is None else xss
        self.xfd = xfd
        self.base = base
        self.frozen = frozen
        self._random = random.Random(seed)  # noqa: S311  cases are not secrets
        self._scratch = Processor(caps, self.profile)

    def case(self, op: str, *, rule: str | None = None) -> Case:
        """Return a case of *op*; with *rule* one that breaks just that rule.

        Raises:
            UsageError: there is no such instruction or rule.
            CannotTell: *op* on this CPU cannot break the rule, as far as many tries tell.
        """
        if op not in AREA_INSTRUCTIONS + CONTROL_INSTRUCTIONS:
            raise UsageError(f"{op[:40]!r} is no instruction", cure=", ".join(AREA_INSTRUCTIONS + CONTROL_INSTRUCTIONS))
        if rule is None:
            return self._plain(op)
        if rule not in RULES:
            raise UsageError(f"there is no rule {rule[:40]!r}", cure=f"rules are {', '.join(RULES)}")
        for _ in range(_MOST_TRIES if op.removesuffix("64") in RULES[rule].ops else 0):
            case = self._plain(op, damaged=False)
            recipe = _RECIPES.get(rule)
            if recipe is not None:
                recipe(self, case)
            fault = run(case).fault
            if fault is not None and fault.rule.id == rule:
                return case
        raise CannotTell(f"no case of {op} on {self.caps.cpu.name} was found that breaks the rule {rule}")

    def _plain(self, op: str, *, damaged: bool = True) -> Case:
        control = {"xcr0": self.xcr0, "xss": self.xss, "xfd": self.xfd}
        case = Case(caps=self.caps, op=op, profile=self.profile, control=control)
        case.state = self.state()
        if self.profile.xinuse == "sticky":
            case.used = self._used(case.state)
        if op in CONTROL_INSTRUCTIONS:
            self._operands(case)
        else:
            self._area(case, damaged=damaged)
        return case

    # Registers

    def state(self) -> dict[int, bytes]:
        """Return a state that a processor can hold: each component initial, nearly so, or random."""
        found = {0: self._legacy()}
        for bit in bits((self.xcr0 | self.xss) & ~LEGACY & ~self.frozen):
            size = self.caps.sizes.get(bit)
            if size is not None and self._random.random() < 0.65:
                found[bit] = self._component(bit, size)
        return found

    def _used(self, state: dict[int, bytes]) -> int:
        used = self._random.getrandbits(2) | (0 if state[0] == self._initial_legacy() else LEGACY)
        for bit in state:
            used |= 1 << bit if bit else 0
        return used

    def _initial_legacy(self) -> bytes:
        return bytes(Processor(self.caps, self.profile).legacy)

    def _legacy(self) -> bytes:
        rng, p = self._random, self._scratch
        how = rng.random()
        image = bytearray(160) if how < 0.3 else bytearray(rng.randbytes(160))
        if how < 0.6:
            image[:24] = regs.initial(0, 24)
        if how > 0.9:
            image[2] = 0
        x87.load(p, image, 0, wide=True)
        p.mxcsr = MXCSR_INIT if rng.random() < 0.4 else rng.getrandbits(32) & self.profile.mxcsr_mask
        p.legacy[160:] = self._filled(256, 16)
        return bytes(p.legacy)

    def _component(self, bit: int, size: int) -> bytes:
        if bit == _XTILECFG:
            return self._tilecfg(size)
        if 1 << bit & (self.caps.cpu.xss_mask or 0):
            return self._msrs(bit, size)
        data = bytearray(self._filled(size, 64 if bit in {6, 7} else 16 if bit == 2 else 8))
        used = max((part.offset + part.size for r in regs.of_component(bit) for part in r.parts), default=size)
        data[used:] = bytes(size - min(used, size))
        return bytes(data)

    def _filled(self, size: int, unit: int) -> bytes:
        """Return zeros, one unit that is not zero, a single bit, or random bytes."""
        rng = self._random
        how = rng.random()
        if how < 0.25:
            return bytes(size)
        if how < 0.7:
            return rng.randbytes(size)
        data = bytearray(size)
        at = rng.randrange(size // unit) * unit
        if how < 0.85:
            data[at : at + unit] = rng.randbytes(unit)
        else:
            data[rng.randrange(size)] = 1 << rng.randrange(8)
        return bytes(data)

    def _msrs(self, bit: int, size: int) -> bytes:
        data = bytearray(regs.initial(bit, size))
        for register in regs.of_component(bit):
            part = register.parts[0]
            if part.offset + part.size <= size:
                value = self._msr_value(register.name)
                data[part.offset : part.offset + part.size] = value.to_bytes(part.size, "little")
        if bit == LBR:
            depth = int.from_bytes(data[8:16], "little")
            data[40 + 24 * depth :] = bytes(max(0, size - 40 - 24 * depth))
        return bytes(data)

    def _msr_value(self, name: str) -> int:
        """Return a value that the MSR accepts: random bits, without those that it refuses."""
        rng = self._random
        if name == "lbr_depth":
            return rng.choice((8, 16, 32))
        value = rng.getrandbits(47) if rng.random() < 0.7 else 0
        if name == "rtit_ctl":
            value &= ~1  # tracing on, and UINV, would fault nearly every XRSTORS
        elif name == "uintr_misc":
            value &= ~(0xFF << 32) if rng.random() < 0.9 else ALL
        while True:
            try:
                values.check_value(self._scratch, REGISTERS[name], value)
            except Fault as fault:
                value &= ~(1 << (fault.bit or 0))
            else:
                return value

    def _tilecfg(self, size: int) -> bytes:
        rng = self._random
        data = bytearray(size)
        data[0], data[1] = 1, rng.randrange(8)
        for t in range(8):
            if rng.random() < 0.7:
                data[16 + 2 * t] = rng.randrange(4, 65, 4)
                data[48 + t] = rng.randrange(1, 17)
        return bytes(data)

    # Areas

    def mask(self, enabled: int) -> int:
        """Return EDX:EAX: all, none, a few of the *enabled* components, or any bits."""
        rng = self._random
        how = rng.random()
        if how < 0.2:
            return ALL
        if how < 0.25:
            return 0
        return rng.getrandbits(64) & (enabled if how < 0.85 else ALL)

    def _area(self, case: Case, *, damaged: bool) -> None:
        rng = self._random
        name = case.op.removesuffix("64")
        case.address = self.base + 64 * rng.randrange(8)
        case.mask = self.mask(self.xcr0 | self.xss)
        size = max(self.caps.standard(self.xcr0).end, self.caps.compacted(self.xcr0 | self.xss).end)
        if name in _SAVES:
            case.memory = self.image(name, size)
            if damaged and rng.random() < 0.3:
                rng.choice(_DAMAGE)(self, case)
        else:
            case.memory = rng.randbytes(size) if rng.random() < 0.7 else bytes(size)
        if damaged and rng.random() < 0.04:
            case.address += rng.randrange(1, 64)
        if damaged and rng.random() < 0.06:
            self._lose_page(case)

    def image(self, name: str, size: int) -> bytes:
        """Return *size* bytes with an image that the instruction *name* (without 64) restores, noise between."""
        rng, p = self._random, Processor(self.caps, self.profile)
        p.xcr0, p.xss = self.xcr0, self.xss
        for bit, data in self.state().items():
            p.sections[bit][: len(data)] = data
            p.touch(LEGACY if bit == 0 else 1 << bit)
        memory = bytearray(rng.randbytes(size) if rng.random() < 0.5 else size)
        memory[512:576] = bytes(64)
        memory[24:28] = p.legacy[24:28]
        saves = _SAVES[name] if self.caps.has("XSAVEC") else ("fxsave64" if name == "fxrstor" else "xsave64",)
        execute(p, rng.choice(saves), Memory(memory, 0), 0, self.mask(self.xcr0 | self.xss))
        if rng.random() < 0.3:
            memory[:24] = rng.randbytes(24)  # FCW, FSW and the pointers take any value
        if rng.random() < 0.3 and name != "fxrstor":
            self._absent(memory)
        return bytes(memory)

    def _absent(self, memory: bytearray) -> None:
        """Clear bits of XSTATE_BV: the bytes of the components stay, and must not matter."""
        xstate_bv = int.from_bytes(memory[512:520], "little") & self._random.getrandbits(64)
        memory[512:520] = xstate_bv.to_bytes(8, "little")

    def _lose_page(self, case: Case) -> None:
        rng = self._random
        first = case.address // PAGE
        if rng.random() < 0.7:  # push the area over the end of its page
            case.address = (first + 1) * PAGE - 64 * rng.randrange(1, max(2, len(case.memory) // 64))
            first = case.address // PAGE
        last = (case.address + max(1, len(case.memory)) - 1) // PAGE
        case.pages = {rng.randint(first, max(first, last)): rng.choice(("none", "r"))}

    # Operands of XGETBV, XSETBV, RDMSR, WRMSR

    def _operands(self, case: Case) -> None:
        rng = self._random
        if case.op in {"xgetbv", "xsetbv"}:
            case.ecx = rng.choice((0, 0, 0, 1, 1, 2, rng.getrandbits(32)))
            case.value = rng.choice((self.caps.user, rng.getrandbits(64), self._mostly(self.caps.user)))
            return
        known = [*MSRS, *(r.msr for r in REGISTERS.values() if r.msr is not None and r.parts[0].bit in self.caps.sizes)]
        case.ecx = rng.choice(known) if rng.random() < 0.95 else rng.getrandbits(32)
        masks = {IA32_XSS: self.caps.supervisor, IA32_XFD: self.caps.xfd, IA32_XFD_ERR: self.caps.xfd}
        if case.ecx in masks:
            case.value = self._mostly(masks[case.ecx])
        else:
            case.value = rng.choice(
                (0, rng.getrandbits(64), rng.getrandbits(47) & ~7, rng.getrandbits(47), 1 << rng.randrange(64))
            )

    def _mostly(self, allowed: int) -> int:
        value = allowed & self._random.getrandbits(64) | (1 if allowed & 1 else 0)
        return value if self._random.random() < 0.7 else value | 1 << self._random.randrange(64)

    def field(self, case: Case, at: int, change: Callable[[int], int], size: int = 8) -> None:
        """Change the number at byte *at* of the image of *case*."""
        memory = bytearray(case.memory)
        number = change(int.from_bytes(memory[at : at + size], "little"))
        memory[at : at + size] = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
        case.memory = bytes(memory)

    def any_bit(self, mask: int) -> int:
        """Return one bit of *mask* as a mask; 0 if it has none."""
        return 1 << self._random.choice(list(bits(mask))) if mask else 0

    def byte_value(self) -> int:
        """Return a byte that is not 0."""
        return self._random.choice(_SIGNIFICANT[1:])

    def below(self, end: int) -> int:
        """Return a number from 0 to *end* - 1."""
        return self._random.randrange(end)


_Recipe = Callable[[Generator, Case], None]


def _xstate_bv(g: Generator, case: Case) -> None:
    g.field(case, 512, lambda v: v ^ 1 << g.below(64))


def _xcomp_bv(g: Generator, case: Case) -> None:
    g.field(case, 520, lambda v: v ^ 1 << g.below(64))


def _reserved(g: Generator, case: Case) -> None:
    g.field(case, 528 + g.below(48), lambda _: g.byte_value(), 1)


def _mxcsr(g: Generator, case: Case) -> None:
    g.field(case, 24, lambda v: v | 1 << g.below(32), 4)


def _format(g: Generator, case: Case) -> None:
    g.field(case, 520, lambda v: v ^ COMPACTED)


_DAMAGE: Final[tuple[_Recipe, ...]] = (_xstate_bv, _xcomp_bv, _reserved, _mxcsr, _format)


def _mode(name: str, value: int) -> _Recipe:
    def recipe(_: Generator, case: Case) -> None:
        case.modes = {**case.modes, name: value}

    return recipe


def _misaligned(g: Generator, case: Case) -> None:
    case.address += 1 + g.below(15)


def _alignment_check(g: Generator, case: Case) -> None:
    case.modes = {**case.modes, "cpl": 3, "am": 1, "ac": 1}
    _misaligned(g, case)


def _not_canonical(_: Generator, case: Case) -> None:
    case.address |= 1 << 62


def _pages(access: str) -> _Recipe:
    def recipe(_: Generator, case: Case) -> None:
        last = (case.address + 511) // PAGE
        case.pages = {last: "none" if access == "none" else "r"}

    return recipe


def _xfd(g: Generator, case: Case) -> None:
    """Load a component that XFD disables."""
    bit = g.any_bit(g.caps.xfd & g.xcr0)
    case.control = {**case.control, "xfd": bit}
    case.mask |= bit
    g.field(case, 512, lambda v: v | bit)


def _value_of(bit: int, offset: int, value: Callable[[Generator], int]) -> _Recipe:
    """Put a value into a register of a supervisor component in the image, and load it."""

    def recipe(g: Generator, case: Case) -> None:
        case.mask |= 1 << bit
        if case.op == "wrmsr":
            register = next((r for r in regs.of_component(bit) if r.parts[0].offset == offset), None)
            case.ecx, case.value = (register.msr or 0) if register else 0, value(g)
            return
        for place, at, _ in g.caps.compacted(int.from_bytes(case.memory[520:528], "little") & ~COMPACTED).slots:
            if place == bit:
                g.field(case, 512, lambda v: v | 1 << bit)
                g.field(case, at + offset, lambda _: value(g))

    return recipe


def _before(bit: int, offset: int, value: int) -> _Recipe:
    """Give the processor a register value that XRSTORS must not find."""

    def recipe(g: Generator, case: Case) -> None:
        size = g.caps.sizes.get(bit)
        if size is not None:
            data = bytearray(case.state.get(bit) or regs.initial(bit, size))
            data[offset] |= value
            case.state = {**case.state, bit: bytes(data)}
            case.mask |= 1 << bit

    return recipe


def _unsupported(g: Generator, case: Case) -> None:
    case.ecx = 0 if case.op == "xsetbv" else IA32_XSS
    case.value |= 1 << g.below(63)


def _xfd_unsupported(g: Generator, case: Case) -> None:
    case.ecx = (IA32_XFD, IA32_XFD_ERR)[g.below(2)]
    case.value = 1 << g.below(64)


def _xcr0_value(g: Generator, case: Case) -> None:
    case.ecx = 0
    case.value = g.caps.user ^ g.any_bit(g.caps.user) ^ (g.any_bit(g.caps.user) if g.below(2) else 0)


_RECIPES: Final[dict[str, _Recipe]] = {
    "osxsave": _mode("osxsave", 0),
    "ts": _mode("ts", 1),
    "em": _mode("em", 1),
    "cpl": _mode("cpl", 3),
    "canonical": _not_canonical,
    "alignment": _misaligned,
    "alignment-check": _alignment_check,
    "page-read": _pages("none"),
    "page-write": _pages("r"),
    "compaction": _format,
    "standard-xstate-bv": _xstate_bv,
    "standard-header": _reserved,
    "xcomp-bv-format": _format,
    "xcomp-bv": _xcomp_bv,
    "xstate-bv": _xstate_bv,
    "compacted-header": _reserved,
    "mxcsr": _mxcsr,
    "xfd": _xfd,
    "reserved": _value_of(8, 72, lambda g: g.byte_value()),
    "pt-enabled": _before(8, 0, 1),
    "uinv": _before(14, 20, 0xEC),
    "ssp-alignment": _value_of(12, 0, lambda g: 1 + g.below(3)),
    "ssp-canonical": _value_of(12, 8, lambda _: 1 << 62),
    "cet-reserved": _value_of(11, 0, lambda g: 1 << 6 + g.below(4)),
    "cet-tracker": _value_of(11, 0, lambda _: 0b11 << 10),
    "cet-canonical": _value_of(11, 0, lambda _: 1 << 62),
    "uintr-canonical": _value_of(14, 0, lambda _: 1 << 62),
    "uintr-reserved": _value_of(14, 24, lambda g: 1 << g.below(6)),
    "lbr-depth": _value_of(15, 8, lambda g: 1 + g.below(7)),
    "lbr-reserved": _value_of(15, 0, lambda g: 1 << 4 + g.below(12)),
    "hwp-reserved": _value_of(16, 0, lambda g: 1 << 43 + g.below(16)),
    "hdc-reserved": _value_of(13, 0, lambda g: 1 << 1 + g.below(62)),
    "pasid-reserved": _value_of(10, 0, lambda g: 1 << 20 + g.below(11)),
    "pt-reserved": _value_of(8, 40, lambda _: 1 << 62),
    "xcr0-unsupported": _unsupported,
    "xss-unsupported": _unsupported,
    "xfd-unsupported": _xfd_unsupported,
    **{rule: _xcr0_value for rule in RULES if rule.startswith("xcr0-") and rule != "xcr0-unsupported"},
}
"""How to turn a good case into one that breaks a rule; the rest come up by chance."""
