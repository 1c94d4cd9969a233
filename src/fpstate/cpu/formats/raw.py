"""Raw CPUID output: 16-byte records of EAX, EBX, ECX, EDX, little-endian, as ``/dev/cpu/N/cpuid`` delivers them.

``dd bs=16 if=/dev/cpu/0/cpuid`` gives leaves 0, 1, 2, ... (the driver advances by one leaf a record and never to
another sub-leaf, ``arch/x86/kernel/cpuid.c``); a program of one's own may have written the sub-leaves of leaf 0DH.
"""

from __future__ import annotations

import struct
from typing import Final

from fpstate.cpu.dump import Dump, Registers
from fpstate.cpu.formats.records import Collector
from fpstate.errors import UnreadableInput
from fpstate.xfeatures import LEGACY, MIN_SIZE

__all__ = ["parse", "sniff"]

_RECORD: Final = struct.Struct("<4I")
_VENDORS: Final = {b"GenuineIntel", b"AuthenticAMD", b"HygonGenuine", b"CentaurHauls", b"  Shanghai  "}
_HIGHEST_LEAF: Final = 0xFFFF
_LARGEST_IMAGE: Final = 1 << 16
_LWP_IN_EDX: Final = 1 << 62 - 32
"""The only component above 31 that any CPU has had."""
_SUBLEAVES: Final = 64


def sniff(data: bytes) -> bool:
    """Say whether the first record of *data* is leaf 0, or sub-leaf 0 of leaf 0DH."""
    if len(data) < _RECORD.size:
        return False
    first: Registers = _RECORD.unpack_from(data)
    return _is_leaf_0(first) or _is_leaf_d(first)


def _is_leaf_0(values: Registers) -> bool:
    eax, ebx, ecx, edx = values
    return eax <= _HIGHEST_LEAF and struct.pack("<3I", ebx, edx, ecx) in _VENDORS


def _is_leaf_d(values: Registers) -> bool:
    eax, ebx, ecx, edx = values
    return eax & LEGACY == LEGACY and MIN_SIZE <= ebx <= ecx <= _LARGEST_IMAGE and not edx & ~_LWP_IN_EDX


def parse(data: bytes, name: str) -> list[Dump]:
    """Return the logical CPUs in *data*, of which `sniff` is true."""
    if len(data) % _RECORD.size:
        raise UnreadableInput(f"{name} ends in the middle of a CPUID record: {len(data)} bytes are no multiple of 16")
    found = Collector()
    records: list[Registers] = list(_RECORD.iter_unpack(data))
    if not _is_leaf_0(records[0]):
        for subleaf, values in enumerate(records[:_SUBLEAVES]):
            found.add(0xD, subleaf, values)
        guess = "raw records: taken as sub-leaves 0, 1, 2, ... of leaf 0xd"
        return found.dumps(format="raw", guesses=(guess,))
    leaf = 0
    for values in records:
        leaf = 0 if _is_leaf_0(values) else leaf + 1
        found.add(leaf, 0, values)
    guess = "raw records: taken as leaves 0, 1, 2, ..., sub-leaf 0 of each"
    return found.dumps(format="raw", guesses=(guess,))
