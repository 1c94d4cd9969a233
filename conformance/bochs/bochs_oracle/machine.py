"""What the guest tells about its CPU: the leaves of CPUID, and what follows from them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["HEADER_END", "MODELS", "Leaf", "Machine", "read_machine"]

Leaf = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

MODELS: Final[Mapping[str, str]] = {
    "bulldozer": "zambezi",
    "haswell": "corei7_haswell_4770",
    "zen": "ryzen",
    "skylake-x": "corei7_skylake_x",
    "tiger-lake": "tigerlake",
    "sapphire-rapids": "sapphire_rapids",
    "arrow-lake-s": "arrow_lake",
}
"""Our name of a CPU: Bochs' name of its model."""

HEADER_END: Final = 576
"""Bytes of the legacy region and the header of an XSAVE area."""

_XTILEDATA: Final = 18


@dataclasses.dataclass(frozen=True)
class Machine:
    """One CPU model of Bochs.

    Attributes:
        model: Bochs' name.
        leaves: CPUID by leaf and sub-leaf, those that are not zero.
    """

    model: str
    leaves: Mapping[tuple[int, int], Leaf]

    def leaf(self, leaf: int, subleaf: int = 0) -> Leaf:
        """Return one leaf, zeros if the CPU does not have it."""
        return self.leaves.get((leaf, subleaf), (0, 0, 0, 0))

    @functools.cached_property
    def user(self) -> int:
        """The bits that XCR0 may have."""
        eax, _, _, edx = self.leaf(0xD)
        return edx << 32 | eax

    @functools.cached_property
    def supervisor(self) -> int:
        """The bits that IA32_XSS may have."""
        _, _, ecx, edx = self.leaf(0xD, 1)
        return edx << 32 | ecx

    @property
    def has_xsaveopt(self) -> bool:
        """CPUID.(0DH,1):EAX[0]."""
        return bool(self.leaf(0xD, 1)[0] & 1)

    @property
    def has_xsavec(self) -> bool:
        """CPUID.(0DH,1):EAX[1]."""
        return bool(self.leaf(0xD, 1)[0] & 2)

    @property
    def has_xgetbv1(self) -> bool:
        """CPUID.(0DH,1):EAX[2]."""
        return bool(self.leaf(0xD, 1)[0] & 4)

    @property
    def has_xsaves(self) -> bool:
        """CPUID.(0DH,1):EAX[3]."""
        return bool(self.leaf(0xD, 1)[0] & 8)

    @property
    def has_cet(self) -> bool:
        """CET_SS or CET_IBT of leaf 7."""
        _, _, ecx, edx = self.leaf(7)
        return bool(ecx & 1 << 7 or edx & 1 << 20)

    @property
    def has_amx(self) -> bool:
        """AMX-TILE of leaf 7."""
        return bool(self.leaf(7)[3] & 1 << 24)

    @property
    def is_amd(self) -> bool:
        """Vendor "AuthenticAMD": the MXCSR_MASK of such a model has bit 17."""
        return self.leaf(0)[2] == 0x444D_4163

    @property
    def linear_bits(self) -> int:
        """Width of a linear address."""
        return (self.leaf(0x8000_0008)[0] >> 8 & 0xFF) or 48

    def has(self, component: int) -> bool:
        """Say whether XCR0 or IA32_XSS may have the bit *component*."""
        return bool((self.user | self.supervisor) >> component & 1)

    def size(self, component: int) -> int:
        """Bytes of a component from 2 on."""
        return self.leaf(0xD, component)[0]

    def offset(self, component: int) -> int:
        """Where the standard format has a user component from 2 on."""
        return self.leaf(0xD, component)[1]

    def standard_size(self, mask: int) -> int:
        """Bytes of a standard area for the user components of *mask*."""
        ends = [self.offset(i) + self.size(i) for i in range(2, 63) if mask & self.user & 1 << i]
        return max([HEADER_END, *ends])

    @property
    def load_size(self) -> int:
        """Bytes of a standard image of everything but tiles, which is how the guest loads registers."""
        return self.standard_size(self.user & ~(1 << _XTILEDATA))

    def compacted(self, mask: int) -> tuple[dict[int, int], int]:
        """Where a compacted area for *mask* has the components from 2 on, and its size: SDM volume 1, 13.4.3."""
        places: dict[int, int] = {}
        at = HEADER_END
        for component in range(2, 63):
            if not mask >> component & 1:
                continue
            if self.leaf(0xD, component)[2] & 2:
                at = -(-at // 64) * 64
            places[component] = at
            at += self.size(component)
        return places, at

    def described(self) -> dict[str, Any]:
        """Return the fields of a case that tell its CPU: leaf 0DH and Bochs' name, and the other leaves."""
        leaf_d = {str(sub): _hex(values) for (leaf, sub), values in sorted(self.leaves.items()) if leaf == 0xD}
        others = {
            f"{leaf:x}.{sub:x}": _hex(values) for (leaf, sub), values in sorted(self.leaves.items()) if leaf != 0xD
        }
        return {"cpu": {"bochs": self.model, "leaf_d": leaf_d}, "leaves": others}


def _hex(leaf: Leaf) -> list[str]:
    return [f"{register:#x}" for register in leaf]


def read_machine(model: str, lines: Iterable[str]) -> Machine:
    """Return the CPU that the guest's lines of CPUID describe."""
    leaves: dict[tuple[int, int], Leaf] = {}
    for line in lines:
        if line.startswith("L "):
            leaf, sub, eax, ebx, ecx, edx = (int(word, 16) for word in line.split()[1:])
            if eax or ebx or ecx or edx:
                leaves[leaf, sub] = (eax, ebx, ecx, edx)
    return Machine(model, leaves)
