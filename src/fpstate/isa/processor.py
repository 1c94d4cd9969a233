"""One logical processor: the registers that XSAVE moves, and the control state that decides how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from fpstate import registers as regs
from fpstate.cpu.model import Cpu
from fpstate.errors import UsageError
from fpstate.isa.capabilities import Capabilities
from fpstate.isa.masks import ALL
from fpstate.isa.profile import Profile, of_cpu
from fpstate.registers import MXCSR_INIT, Register
from fpstate.xfeatures import LBR, LEGACY, SSE, bits

__all__ = [
    "CONTROL",
    "LEGACY_BYTES",
    "MXCSR",
    "MXCSR_INITIAL",
    "NOT_TRACKED",
    "REACH_OUTSIDE_64_BIT_MODE",
    "X87_INIT",
    "Processor",
    "XrstorInfo",
]

LEGACY_BYTES: Final = 416
"""Bytes of the legacy region that hold registers; the rest is reserved or software's."""
MXCSR: Final = slice(24, 28)
"""Where MXCSR lies in the legacy region; MXCSR_MASK is the four bytes after it."""
MXCSR_INITIAL: Final = MXCSR_INIT.to_bytes(4, "little")
"""Its bytes in the initial configuration."""
X87_INIT: Final = regs.initial(0, 24)
"""The first 24 bytes of the legacy region in the initial configuration."""
_NOTHING: Final = bytearray()
_ST_ZERO: Final = bytes(128)
_XMM_ZERO: Final = bytes(256)

NOT_TRACKED: Final = frozenset({"mxcsr", "lbr_depth"})
"""Registers that XINUSE is not about."""
BNDREGS: Final = 1 << 3
"""The bound registers of MPX."""
CONTROL: Final = ("xcr0", "xss", "xfd", "xfd_err", "s_cet", "interrupt_ssp_table", "fcs", "fds")
"""The control state that is a number and no part of a component."""

REACH_OUTSIDE_64_BIT_MODE: Final = {1: 288, 2: 128, 6: 256, 7: 0, 19: 0}
"""Where the registers of a component end that exist outside 64-bit mode (SDM 13.5, 13.13); all of the others do.
For SSE it is the offset in the image; that APX is out of reach is unconfirmed."""
_ONLY_64_BIT_MODE: Final = sum(1 << bit for bit, reach in REACH_OUTSIDE_64_BIT_MODE.items() if not reach)


class XrstorInfo(NamedTuple):
    """What the processor remembers of the last XRSTOR or XRSTORS (SDM 13.6)."""

    cpl: int
    non_root: bool
    address: int
    xcomp_bv: int


@dataclass(slots=True)
class _Modes:
    """The modes that an instruction looks at, as plain attributes of `Processor`."""

    cpl: int = 0
    ts: bool = False
    em: bool = False
    am: bool = False
    ac: bool = False
    osxsave: bool = True
    osfxsr: bool = True
    mode: int = 64
    non_root: bool = False


class Processor(_Modes):
    """A logical processor with every register at its initial value.

    Attributes:
        cpl: 0 to 3.
        ts, em, am: CR0 bits; ac: EFLAGS.AC; osxsave, osfxsr: CR4 bits; non_root: VMX non-root operation.
        mode: 64 for 64-bit mode, 32 for any other: registers 8 and up are then out of reach.
        xcr0, xss, xfd, xfd_err: the control registers and MSRs of those names.
        s_cet, interrupt_ssp_table: CET MSRs that no component holds.
        fcs, fds: the selectors of the x87 pointers.
        sections: component to its bytes, in the places of `fpstate.registers`; x87 and SSE share the legacy region.
            Change them in place, do not replace them.
        extended: for each component from 2 on, but LBR: its mask, its section, and that in its initial configuration.
        used: the components that count as in use whatever they hold: XINUSE where it is sticky, and what was written
            since the last XRSTOR where it is tracked.
        modified: XMODIFIED; info: XRSTOR_INFO, None before the first XRSTOR.
    """

    __slots__ = (
        "caps",
        "cpu",
        "extended",
        "fcs",
        "fds",
        "info",
        "interrupt_ssp_table",
        "legacy",
        "modified",
        "profile",
        "s_cet",
        "sections",
        "used",
        "xcr0",
        "xfd",
        "xfd_err",
        "xss",
    )

    def __init__(self, cpu: Cpu | Capabilities, profile: Profile | None = None) -> None:
        super().__init__()
        self.caps = cpu if isinstance(cpu, Capabilities) else Capabilities(cpu)
        self.cpu = self.caps.cpu
        self.profile = profile or of_cpu(self.cpu)
        self.xcr0 = 1
        self.xss = self.xfd = self.xfd_err = 0
        self.s_cet = self.interrupt_ssp_table = 0
        self.fcs = self.fds = 0
        self.used = 0
        self.modified = ALL
        self.info: XrstorInfo | None = None
        self.legacy = bytearray(LEGACY_BYTES)
        self.legacy[:24] = X87_INIT
        self.legacy[MXCSR] = MXCSR_INITIAL
        self.legacy[28:32] = self.profile.mxcsr_mask.to_bytes(4, "little")
        self.sections: dict[int, bytearray] = {0: self.legacy, 1: self.legacy}
        for bit, size in self.caps.sizes.items():
            self.sections[bit] = bytearray(regs.initial(bit, size))
        self.extended = [
            (1 << bit, section, regs.initial(bit, len(section)))
            for bit, section in self.sections.items()
            if bit > 1 and bit != LBR
        ]

    @property
    def mxcsr(self) -> int:
        """The MXCSR register."""
        return int.from_bytes(self.legacy[MXCSR], "little")

    @mxcsr.setter
    def mxcsr(self, value: int) -> None:
        self.legacy[MXCSR] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    @property
    def mxcsr_in_use(self) -> int:
        """SSE if MXCSR is not in its initial configuration: XSAVEC, XSAVES and XGETBV count it so (SDM 13.6)."""
        return 0 if self.legacy[MXCSR] == MXCSR_INITIAL else SSE

    @property
    def end_of_xmm(self) -> int:
        """Where the XMM registers that this mode reaches end in the legacy region."""
        return LEGACY_BYTES if self.mode == 64 else REACH_OUTSIDE_64_BIT_MODE[1]

    # Registers by name

    def read(self, name: str) -> bytes:
        """Return the bytes of a register, in memory order.

        Raises:
            UsageError: there is no register of that name.
        """
        selector = _SELECTORS.get(name)
        if selector is not None:
            return int(getattr(self, selector)).to_bytes(2, "little")
        return regs.read(regs.find(name, self.caps.sizes), self.sections)

    def write(self, name: str, value: bytes | int) -> None:
        """Put *value* into a register, as an ordinary instruction would: its components count as used and modified.

        Raises:
            UsageError: there is no such register, this CPU has it not, or *value* does not fit.
        """
        register = regs.find(name, self.caps.sizes)
        try:
            data = value.to_bytes(register.size, "little") if isinstance(value, int) else bytes(value)
        except OverflowError:
            data = b""
        if len(data) != register.size:
            raise UsageError(f"{name} takes {register.size} bytes")
        selector = _SELECTORS.get(name)
        if selector is not None:
            setattr(self, selector, int.from_bytes(data, "little"))
        else:
            _require(register, self.sections, self.cpu.name)
            regs.write(register, self.sections, data)
        # XINUSE[1] is not about MXCSR, nor XINUSE[15] about IA32_LBR_DEPTH (SDM 13.6); XMODIFIED is about all of it.
        self.modified |= register.components
        if name not in NOT_TRACKED:
            self.used |= register.components

    def touch(self, components: int) -> None:
        """Record that an instruction other than XRSTOR wrote *components*."""
        self.used |= components
        self.modified |= components

    # Tracking (SDM 13.6)

    def in_initial_configuration(self, bit: int) -> bool:
        """Tell whether component *bit* holds its initial values, as far as this mode reaches it."""
        legacy = self.legacy
        if bit == 0:
            return legacy[:24] == X87_INIT and legacy[32:160] == _ST_ZERO and not self.fcs | self.fds
        if self._reaches_all:
            if bit == 1:
                return legacy[160:416] == _XMM_ZERO
            section = self.sections.get(bit, _NOTHING)
            if bit == LBR:  # XINUSE[15] does not pertain to IA32_LBR_DEPTH
                return not any(section[:8]) and not any(section[16:])
            return section == regs.initial(bit, len(section))
        start = 160 if bit == 1 else 0
        section = self.sections.get(bit, _NOTHING)
        end = REACH_OUTSIDE_64_BIT_MODE.get(bit, len(section))
        return section[start:end] == regs.initial(bit, len(section))[start:end]

    def xinuse(self, components: int) -> int:
        """Return XINUSE of *components*, by the profile; XFD is not looked at."""
        how = self.profile.xinuse
        if how == "always":
            untracked = components & ~BNDREGS if self.profile.bndregs_tracked else components
            return untracked | self.used & components
        if how == "sticky":
            return self._sticky(components)
        mask = self._sticky(components) if how == "tracked" else 0
        all_reached = self._reaches_all
        legacy_and_others = components & (LEGACY | 1 << LBR) if all_reached else components
        for bit in bits(legacy_and_others):
            if not self.in_initial_configuration(bit):
                mask |= 1 << bit
        if all_reached:
            for flag, section, initial in self.extended:
                if components & flag and section != initial:
                    mask |= flag
        return mask

    def _sticky(self, components: int) -> int:
        mask = self.used & components
        return mask if self._reaches_all else mask & ~_ONLY_64_BIT_MODE

    @property
    def _reaches_all(self) -> bool:
        """Whether XINUSE looks at registers 8 and up: in 64-bit mode, and on some CPUs in any."""
        return self.mode == 64 or not self.profile.xinuse_by_mode

    def restored(self, rfbm: int, loaded: int) -> None:
        """Update `used` after an instruction that restored *rfbm*, of it *loaded* from memory (SDM 13.8.3)."""
        how = self.profile.xinuse
        if how == "sticky":
            self.used = self.used & ~rfbm | loaded | (self._out_of_reach() & rfbm if self.mode != 64 else 0)
        elif how == "tracked":
            self.used &= ~rfbm
        elif self.profile.bndregs_tracked:
            self.used = self.used & ~rfbm | loaded

    def _out_of_reach(self) -> int:
        """Return the components that hold something in registers which exist in 64-bit mode only."""
        mask = SSE if any(self.legacy[REACH_OUTSIDE_64_BIT_MODE[1] :]) else 0
        for flag, section, initial in self.extended:
            reach = REACH_OUTSIDE_64_BIT_MODE.get(flag.bit_length() - 1)
            if reach is not None and section[reach:] != initial[reach:]:
                mask |= flag
        return mask

    @property
    def enabled(self) -> int:
        """The components that XSAVES reaches: XCR0 | IA32_XSS."""
        return self.xcr0 | self.xss


_SELECTORS: Final = {"fiseg": "fcs", "foseg": "fds"}
"""Registers that the 64-bit form of an image has no place for."""


def _require(register: Register, sections: dict[int, bytearray], cpu: str) -> None:
    missing = [part.bit for part in register.parts if part.bit not in sections]
    if missing:
        raise UsageError(f"{cpu} has no component {missing[0]}, in which {register.name} lies")
