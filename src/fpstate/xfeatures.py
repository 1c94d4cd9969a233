"""The catalogue of xfeatures (XSAVE state components) and the bit-sets that the rest of fpstate speaks.

One row a component, each with where its numbers come from.  A mask is a plain ``int`` (bit *i* = component *i*);
a component is an `Xfeature`.  The catalogue is a value: `Catalogue.extended` gives a new one with a user's rows.

Sources of the rows: Intel SDM volume 1 chapter 13 (components 0-9, 11-18); CPUID leaf 0DH as 318 public InstLatx64
dumps print it (sizes, offsets, alignment and XFD flags, retrieved 2026-08); Linux 7.2 ``arch/x86/kernel/fpu/xstate.c``
(boot strings, ``xsave_cpuid_features[]``, C struct sizes).  No public dump of a CPU with APX exists yet: row 19 follows
Linux ``struct apx_state`` and the QEMU and Linux APX series.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from fpstate.errors import UsageError

__all__ = [
    "APX",
    "AVX",
    "AVX512",
    "CATALOGUE",
    "CET",
    "COMPACTED",
    "FSAVE_SIZE",
    "HEADER_SIZE",
    "LAST",
    "LBR",
    "LEGACY",
    "LEGACY_PLACES",
    "LEGACY_SIZE",
    "MIN_SIZE",
    "MPX",
    "PKRU",
    "PT",
    "SOFTWARE",
    "SSE",
    "UINTR",
    "USER",
    "XTILE",
    "XTILEDATA",
    "Catalogue",
    "Placement",
    "Role",
    "Xfeature",
    "bits",
    "component_mask",
    "mask_of",
]

LEGACY_SIZE: Final = 512
"""Bytes of the legacy region, the FXSAVE image (SDM 13.4.1)."""
HEADER_SIZE: Final = 64
"""Bytes of the XSAVE header that follows it (SDM 13.4.2)."""
MIN_SIZE: Final = LEGACY_SIZE + HEADER_SIZE
"""Offset of the extended region and size of the smallest XSAVE image."""
SOFTWARE: Final = 464
"""Where the 48 bytes of the legacy region that software may use begin.

Linux: in a signal frame ``struct _fpx_sw_bytes`` (magic1, extended_size, xfeatures, xstate_size); in NT_X86_XSTATE
(``struct user_xstateregs``) and KVM_GET_XSAVE the mask of the largest user features.
"""
FSAVE_SIZE: Final = 108
"""Bytes that FSAVE writes in 32-bit protected mode (SDM volume 1, figure 8-9)."""
LEGACY_PLACES: Final = {0: (0, 160), 1: (160, 256)}
"""Where x87 and SSE lie in every image: (offset, size).  MXCSR, bytes 24 to 31, lies among those of x87."""
LEGACY: Final = 0b11
"""x87 and SSE: the components that live in the legacy region."""
SSE: Final = 1 << 1
"""The XMM registers; MXCSR goes by SSE and AVX."""
AVX: Final = 1 << 2
"""The upper halves of the YMM registers."""
MPX: Final = 0b11000
"""BNDREGS and BNDCSR."""
AVX512: Final = 0b111 << 5
"""opmask, ZMM_Hi256 and Hi16_ZMM."""
CET: Final = 0b11 << 11
"""CET_U and CET_S."""
PT: Final = 8
"""The bit of Intel Processor Trace, a supervisor component between user ones."""
PKRU: Final = 9
"""The bit of PKRU, which the kernel switches eagerly."""
UINTR: Final = 14
"""The bit of user interrupts."""
LBR: Final = 15
"""The bit of arch-LBR, whose size follows the depth that leaf 1CH allows."""
XTILEDATA: Final = 18
"""The bit of AMX tile data, which Linux checks against leaf 1DH."""
XTILE: Final = 0b11 << 17
"""XTILECFG and XTILEDATA."""
APX: Final = 19
"""The bit of APX, which re-uses the place of MPX."""
LAST: Final = 62
"""The highest number that a component can have."""
COMPACTED: Final = 1 << 63
"""XCOMP_BV[63]: the image is in compacted format.  Never a component."""

Role = Literal["user", "user-dynamic", "supervisor", "guest-only", "independent", "unsupported", "unknown"]
"""The set of a Linux policy that a component belongs to."""


def bits(mask: int) -> Iterator[int]:
    """Yield the numbers of the bits set in *mask*, ascending.

    Raises:
        ValueError: *mask* is negative.
    """
    if mask < 0:
        raise ValueError(f"a mask is never negative: {mask}")
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def component_mask(low: int, high: int) -> int:
    """Join the halves of a mask that CPUID returns in two registers; bit 63 is no component."""
    return (low | high << 32) & ~COMPACTED


def mask_of(numbers: Iterable[int]) -> int:
    """Return the mask with the given bits set."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


class Placement(NamedTuple):
    """A place in the standard format that some real CPU gives a component.

    Attributes:
        offset: bytes from the start of the image.
        size: bytes.
        layout: which family of layouts it belongs to; a CPU uses the places of one family, and those of "all".
        who: the CPUs on which it was seen.
    """

    offset: int
    size: int
    layout: str
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Xfeature:
    """One state component.

    Attributes:
        bit: its number in XCR0 or IA32_XSS, XSTATE_BV and XCOMP_BV.
        name: the SDM's short name, which fpstate prints.
        kernel_name: the enumerator of Linux ``enum xfeature``, without the prefix.
        boot_string: what Linux prints at boot for it; None for those it has no name for.
        size: bytes, architecturally or as every known CPU has it.
        supervisor: True if it is enabled by IA32_XSS, False if by XCR0 (CPUID.0DH.i:ECX[0]).
        aligned: True if it starts on 64 bytes in compacted format (CPUID.0DH.i:ECX[1]).
        xfd: True if IA32_XFD can disable it (CPUID.0DH.i:ECX[2]).
        flag: the CPU feature flag without which Linux drops the bit; None if it has none in its table.
        struct_size: sizeof the kernel's C struct that the boot check compares with; None if there is none.
        role: the set it belongs to where a policy does not say.
        placements: standard-format places seen on real CPUs; empty for supervisor components.
        aliases: other names that a mask may use.
        source: where size and flags come from.
    """

    bit: int
    name: str
    kernel_name: str
    boot_string: str | None
    size: int
    supervisor: bool = False
    aligned: bool = False
    xfd: bool = False
    flag: str | None = None
    struct_size: int | None = None
    role: Role = "unknown"
    placements: tuple[Placement, ...] = ()
    aliases: tuple[str, ...] = ()
    source: str

    def __post_init__(self) -> None:
        if not 0 <= self.bit <= LAST:
            raise UsageError(f"component bit must be 0 to {LAST}, not {self.bit} (bit 63 is XCOMP_BV's format flag)")
        if not 0 < self.size <= 1 << 20:
            raise UsageError(f"size of component {self.bit} must be 1 to 1048576 bytes, not {self.size}")
        if self.supervisor and self.placements:
            raise UsageError(f"component {self.bit} is supervisor: it has no place in the standard format")
        for place in self.placements:
            if self.bit > 1 and not MIN_SIZE <= place.offset < 1 << 31:
                raise UsageError(
                    f"standard offset of component {self.bit} must be {MIN_SIZE} or more, not {place.offset}"
                    if place.offset < MIN_SIZE
                    else f"standard offset of component {self.bit} must be below 2 GiB, not {place.offset}"
                )

    @property
    def mask(self) -> int:
        """The mask with just this component's bit."""
        return 1 << self.bit


class Catalogue:
    """An immutable set of xfeatures, with the names that masks are written in.

    Iterating yields the `Xfeature` rows by ascending bit.
    """

    __slots__ = ("_by_bit", "_names")

    def __init__(self, rows: Iterable[Xfeature]) -> None:
        self._by_bit: dict[int, Xfeature] = {}
        for row in sorted(rows, key=lambda r: r.bit):
            if row.bit in self._by_bit:
                raise UsageError(f"component {row.bit} is given twice: {self._by_bit[row.bit].name} and {row.name}")
            self._by_bit[row.bit] = row
        self._names: dict[str, int] = {}
        for row in self._by_bit.values():
            for name in (row.name, row.kernel_name, *row.aliases):
                key = _fold(name)
                self._names[key] = self._names.get(key, 0) | row.mask
        for name, members in GROUPS.items():
            self._names.setdefault(_fold(name), members)

    def __iter__(self) -> Iterator[Xfeature]:
        return iter(self._by_bit.values())

    def __contains__(self, bit: object) -> bool:
        return bit in self._by_bit

    def get(self, bit: int) -> Xfeature | None:
        """Return the row of component *bit*, or None if the catalogue has none."""
        return self._by_bit.get(bit)

    def name(self, bit: int) -> str:
        """Return the component's name; ``bitN`` for one that the catalogue does not know."""
        row = self._by_bit.get(bit)
        return row.name if row else f"bit{bit}"

    def names(self, mask: int) -> str:
        """Spell *mask* in names joined by ``|``: ``x87|SSE|AVX``; unknown bits are shown, never dropped.

        Bit 63 is spelt ``compacted``; 0 is spelt ``none``.
        """
        parts = [self.name(bit) for bit in bits(mask & ~COMPACTED)]
        if mask & COMPACTED:
            parts.append("compacted")
        return "|".join(parts) or "none"

    def parse_mask(self, text: str, *, everything: int) -> int:
        """Read a mask as hex (``0x2e7``, ``2e7h``), as names (``AVX|PKRU``, ``avx512``) or as ``all``.

        Args:
            text: names and numbers joined by ``|``, ``,`` or ``+``; a leading ``~`` or ``-`` removes a term, from
                everything if it comes first.
            everything: what ``all`` stands for.

        Raises:
            UsageError: a term is neither a number nor a name, or a number sets bit 63 or more.
        """
        terms = [t.strip() for t in text.replace(",", "|").replace("+", "|").split("|")]
        if not any(terms):
            raise UsageError("mask must not be empty", cure="use 'none' for no component, 'all' for every one")
        mask = everything if next(filter(None, terms))[0] in "~-" else 0
        for term in filter(None, terms):
            remove = term[0] in "~-"
            value = self._parse_term(term.lstrip("~-").strip(), everything)
            mask = mask & ~value if remove else mask | value
        return mask

    def parse_bit(self, text: str) -> int:
        """Read one component: its name, or its number (``12``; with ``0x``, ``0b`` or ``h`` it is a mask of one bit).

        Raises:
            UsageError: *text* is none of that, or names several components.
        """
        if text.isascii() and text.isdigit() and len(text) <= 2:
            mask = 1 << int(text)
        else:
            mask = self.parse_mask(text, everything=0)
        if mask.bit_count() != 1 or mask >= COMPACTED:
            raise UsageError(f"{text!r} must name one component", cure="give its name, CET_S, or its number, 12")
        return mask.bit_length() - 1

    def _parse_term(self, term: str, everything: int) -> int:
        key = _fold(term)
        if key == "all":
            return everything
        if key == "none":
            return 0
        if key in self._names:
            return self._names[key]
        unnamed = re.fullmatch(r"bit([0-9]{1,2})", key)
        value = 1 << int(unnamed[1]) if unnamed else _number(term)  # what names() gives a bit without a row
        if value is None:
            raise UsageError(
                f"{term!r} is not a component, a group or a number",
                cure=f"components are {', '.join(x.name for x in self)}; groups are {', '.join(GROUPS)}, all",
            )
        if value >> 63:
            raise UsageError(f"mask {term} sets bit 63 or more; components are bits 0 to 62")
        return value

    def extended(self, rows: Iterable[Xfeature]) -> Catalogue:
        """Return a catalogue in which *rows* are added to this one's, or replace those of the same bit."""
        merged = dict(self._by_bit)
        merged.update({row.bit: row for row in rows})
        return Catalogue(merged.values())


def _fold(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def _number(term: str) -> int | None:
    """Read ``0x2e7``, ``0b101``, ``2e7h`` or ``743``; None if it is no number or longer than a mask can be."""
    if len(term) > 68 or not term.isascii() or "_" in term:
        return None
    try:
        if term[-1:] in "hH":
            return int(term[:-1], 16)
        return int(term, 0)
    except ValueError:
        return None


GROUPS: Final[dict[str, int]] = {
    "legacy": LEGACY,
    "fpsse": LEGACY,
    "mpx": MPX,
    "avx512": AVX512,
    "amx": XTILE,
    "xtile": XTILE,
    "cet": CET,
}
"""Names for several components at once."""

_DUMPS: Final = "InstLatx64 dumps"

CATALOGUE: Final = Catalogue(
    (
        Xfeature(
            bit=0,
            name="x87",
            kernel_name="FP",
            boot_string="x87 floating point registers",
            size=160,
            flag="FPU",
            role="user",
            placements=(Placement(*LEGACY_PLACES[0], "all", "every CPU"),),
            source="SDM 13.4.1: bytes 0-23 and 32-159 of the legacy region; Linux records offset 0, size 160",
        ),
        Xfeature(
            bit=1,
            name="SSE",
            kernel_name="SSE",
            boot_string="SSE registers",
            size=256,
            flag="XMM",
            role="user",
            placements=(Placement(*LEGACY_PLACES[1], "all", "every CPU"),),
            aliases=("XMM",),
            source="SDM 13.4.1: XMM at 160-415, MXCSR at 24-31",
        ),
        Xfeature(
            bit=2,
            name="AVX",
            kernel_name="YMM",
            boot_string="AVX registers",
            size=256,
            flag="AVX",
            struct_size=256,
            role="user",
            placements=(Placement(576, 256, "all", "every CPU"),),
            aliases=("YMM_Hi128",),
            source=f"SDM 13.5.3; {_DUMPS}: 283",
        ),
        Xfeature(
            bit=3,
            name="BNDREGS",
            kernel_name="BNDREGS",
            boot_string="MPX bounds registers",
            size=64,
            flag="MPX",
            struct_size=64,
            role="user",
            placements=(Placement(960, 64, "intel", "Intel, Centaur"),),
            source=f"SDM 13.5.4; {_DUMPS}: 70",
        ),
        Xfeature(
            bit=4,
            name="BNDCSR",
            kernel_name="BNDCSR",
            boot_string="MPX CSR",
            size=64,
            flag="MPX",
            struct_size=64,
            role="user",
            placements=(Placement(1024, 64, "intel", "Intel, Centaur"),),
            source=f"SDM 13.5.4 (16 bytes used); {_DUMPS}: 67",
        ),
        Xfeature(
            bit=5,
            name="opmask",
            kernel_name="OPMASK",
            boot_string="AVX-512 opmask",
            size=64,
            flag="AVX512F",
            struct_size=64,
            role="user",
            placements=(Placement(1088, 64, "intel", "Intel"), Placement(832, 64, "zen3", "AMD Zen 4 and later")),
            source=f"SDM 13.5.5; {_DUMPS}: 52",
        ),
        Xfeature(
            bit=6,
            name="ZMM_Hi256",
            kernel_name="ZMM_Hi256",
            boot_string="AVX-512 Hi256",
            size=512,
            flag="AVX512F",
            struct_size=512,
            role="user",
            placements=(Placement(1152, 512, "intel", "Intel"), Placement(896, 512, "zen3", "AMD Zen 4 and later")),
            source=f"SDM 13.5.5; {_DUMPS}: 52",
        ),
        Xfeature(
            bit=7,
            name="Hi16_ZMM",
            kernel_name="Hi16_ZMM",
            boot_string="AVX-512 ZMM_Hi256",
            size=1024,
            flag="AVX512F",
            struct_size=1024,
            role="user",
            placements=(Placement(1664, 1024, "intel", "Intel"), Placement(1408, 1024, "zen3", "AMD Zen 4 and later")),
            source=f"SDM 13.5.5; {_DUMPS}: 51",
        ),
        Xfeature(
            bit=8,
            name="PT",
            kernel_name="PT_UNIMPLEMENTED_SO_FAR",
            boot_string="Processor Trace (unused)",
            size=128,
            supervisor=True,
            flag="INTEL_PT",
            role="unsupported",
            source=f"SDM 13.5.6 (72 bytes used); {_DUMPS}: 111",
        ),
        Xfeature(
            bit=9,
            name="PKRU",
            kernel_name="PKRU",
            boot_string="Protection Keys User registers",
            size=8,
            flag="OSPKE",
            struct_size=8,
            role="user",
            placements=(
                Placement(2688, 8, "intel", "Intel, Zhaoxin, Centaur"),
                Placement(2432, 8, "zen3", "AMD Zen 3 and later"),
                Placement(832, 64, "zen2", "AMD Zen 2"),
            ),
            source=f"SDM 13.5.7 (4 bytes used); {_DUMPS}: 83 with 8 bytes, 24 with 64 (Zen 2)",
        ),
        Xfeature(
            bit=10,
            name="PASID",
            kernel_name="PASID",
            boot_string="PASID state",
            size=8,
            supervisor=True,
            flag="ENQCMD",
            struct_size=8,
            role="supervisor",
            source=f"SDM 13.5.8; {_DUMPS}: 6",
        ),
        Xfeature(
            bit=11,
            name="CET_U",
            kernel_name="CET_USER",
            boot_string="Control-flow User registers",
            size=16,
            supervisor=True,
            flag="SHSTK",
            struct_size=16,
            role="supervisor",
            source=f"SDM 13.5.9; {_DUMPS}: 103",
        ),
        Xfeature(
            bit=12,
            name="CET_S",
            kernel_name="CET_KERNEL",
            boot_string="Control-flow Kernel registers (KVM only)",
            size=24,
            supervisor=True,
            flag="SHSTK",
            struct_size=24,
            role="guest-only",
            source=f"SDM 13.5.9; {_DUMPS}: 103",
        ),
        Xfeature(
            bit=13,
            name="HDC",
            kernel_name="RSRVD_COMP_13",
            boot_string=None,
            size=8,
            supervisor=True,
            source=f"SDM 13.5.10; {_DUMPS}: 13",
        ),
        Xfeature(
            bit=14,
            name="UINTR",
            kernel_name="RSRVD_COMP_14",
            boot_string=None,
            size=48,
            supervisor=True,
            source=f"SDM 13.5.11; {_DUMPS}: 15",
        ),
        Xfeature(
            bit=15,
            name="LBR",
            kernel_name="LBR",
            boot_string=None,
            size=808,
            supervisor=True,
            flag="ARCH_LBR",
            role="independent",
            source=f"SDM 13.5.12: 40 + 24 a record, 32 records; {_DUMPS}: 48",
        ),
        Xfeature(
            bit=16,
            name="HWP",
            kernel_name="RSRVD_COMP_16",
            boot_string=None,
            size=8,
            supervisor=True,
            source=f"SDM 13.5.13; {_DUMPS}: 43",
        ),
        Xfeature(
            bit=17,
            name="XTILECFG",
            kernel_name="XTILE_CFG",
            boot_string="AMX Tile config",
            size=64,
            aligned=True,
            flag="AMX_TILE",
            struct_size=64,
            role="user",
            placements=(Placement(2752, 64, "intel", "Intel"),),
            aliases=("TILECFG",),
            source=f"SDM 13.5.14; {_DUMPS}: 6",
        ),
        Xfeature(
            bit=18,
            name="XTILEDATA",
            kernel_name="XTILE_DATA",
            boot_string="AMX Tile data",
            size=8192,
            aligned=True,
            xfd=True,
            flag="AMX_TILE",
            struct_size=8192,
            role="user-dynamic",
            placements=(Placement(2816, 8192, "intel", "Intel"),),
            aliases=("TILEDATA",),
            source=f"SDM 13.5.14; {_DUMPS}: 6; Linux checks it against leaf 1DH in place of a struct",
        ),
        Xfeature(
            bit=19,
            name="APX",
            kernel_name="APX",
            boot_string="APX registers",
            size=128,
            flag="APX",
            struct_size=128,
            role="user",
            placements=(Placement(960, 128, "intel", "Intel, announced"),),
            aliases=("EGPR",),
            source="Linux 6.16 struct apx_state; place of MPX re-used; no public dump yet",
        ),
        Xfeature(
            bit=62,
            name="LWP",
            kernel_name="LWP",
            boot_string=None,
            size=128,
            role="unknown",
            placements=(
                Placement(832, 128, "k15", "AMD family 15h"),
                Placement(896, 128, "zen2", "AMD family 17h model 47h"),
            ),
            source=f"AMD APM volume 2; {_DUMPS}: 20",
        ),
    )
)
"""The components that this version of fpstate knows.  `Catalogue.extended` adds a user's own."""

USER: Final = mask_of(row.bit for row in CATALOGUE if not row.supervisor)
"""The user components that this version of fpstate knows: those that XCR0 enables."""
