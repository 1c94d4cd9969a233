"""libcpuid raw dumps and ``.test`` files: ``basic_cpuid[13]=000000ff 00000a80 00000a80 00000000``.

The arrays hold sub-leaf 0 of each leaf; a few leaves have an array of their sub-leaves.  What follows the line of
dashes in a ``.test`` file, the decode that libcpuid expects, has no records and is passed over.  A row of all ones is
what libcpuid's converter writes where its source had no data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fpstate.cpu.dump import Dump
from fpstate.cpu.formats.instlatx64 import HEADER
from fpstate.cpu.formats.records import Collector, registers
from fpstate.cpu.formats.text import HEX32, rejoin

__all__ = ["parse", "sniff"]

_LEAF_ARRAYS: Final = {"basic_cpuid": 0, "ext_cpuid": 0x8000_0000}
"""Arrays that are indexed by leaf, from this one on."""
_SUBLEAF_ARRAYS: Final = {
    "intel_fn4": 0x4,
    "intel_fn11": 0xB,
    "intel_fn12h": 0x12,
    "intel_fn14h": 0x14,
    "amd_fn8000001dh": 0x8000_001D,
}
"""Arrays that are indexed by sub-leaf, of this leaf (libcpuid ``cpuid_serialize_raw_data``)."""

_INDEXED: Final = rf"\b({'|'.join([*_LEAF_ARRAYS, *_SUBLEAF_ARRAYS])})\[([0-9]{{1,3}})\]"
_START: Final = re.compile(_INDEXED)
_RECORD: Final = re.compile(rf"{_INDEXED}[ \t]*=[ \t]*{HEX32} {HEX32} {HEX32} {HEX32}")
_NO_DATA: Final = (0xFFFF_FFFF,) * 4


def sniff(body: str) -> bool:
    """Say whether *body*, a whole plain text, has such rows."""
    return "_cpuid[" in body and _START.search(body) is not None


def parse(lines: Sequence[str]) -> list[Dump]:
    """Return the logical CPUs that *lines* show."""
    found = Collector()
    for line in rejoin(lines, _START, _RECORD):
        if header := HEADER.search(line):
            found.header(f"CPU #{int(header[1])}")
        for match in _RECORD.finditer(line):
            array, index, *digits = match.groups()
            values = registers(*digits)
            if values == _NO_DATA:
                continue
            if array in _LEAF_ARRAYS:
                found.add(_LEAF_ARRAYS[array] + int(index), 0, values)
            else:
                found.add(_SUBLEAF_ARRAYS[array], int(index), values, may_begin=False)
    return found.dumps(format="libcpuid", zeros_unread=True)
