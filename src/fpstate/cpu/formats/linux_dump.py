"""What Linux prints when its XSAVE consistency check fails: all of leaf 0DH, after it set XCR0 and IA32_XSS.

``CPUID[0d, 11]: eax=00000040 ebx=00000ac0 ecx=00000002 edx=00000000``: both numbers are hex, so this is sub-leaf 17
(``__xstate_dump_leaves`` in ``arch/x86/kernel/fpu/xstate.c``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fpstate.cpu.dump import Dump
from fpstate.cpu.formats.records import Collector, registers
from fpstate.cpu.formats.text import HEX32, rejoin

__all__ = ["parse", "sniff"]

_CALL: Final = r"CPUID\[([0-9a-f]{2,8}),[ \t]*([0-9a-f]{2,8})\]"
_START: Final = re.compile(r"CPUID\[[0-9a-f]{2}")
_RECORD: Final = re.compile(
    rf"{_CALL}:[ \t]*eax=(?:0x)?{HEX32}[ \t]+ebx=(?:0x)?{HEX32}[ \t]+ecx=(?:0x)?{HEX32}[ \t]+edx=(?:0x)?{HEX32}"
)
_COMPLAINT: Final = re.compile(r"XSAVE consistency problem.*|XFEATURE_\w+: (?:struct|calculated size) is .*")
_COMPLAINT_START: Final = re.compile(r"XSAVE consistency problem|XFEATURE_\w+: ?(?:struct|calculated|$)")
_WHOLE_COMPLAINT: Final = re.compile(
    r"XSAVE consistency problem(?:: size\s+[0-9]+ != kernel_size\s+[0-9]+|, dumping leaves|: (?!size)\D.*)"
    r"|XFEATURE_\w+:\s(?:struct|calculated size) is\s+[0-9]+\s+bytes,\s+cpu\s+state\s+[0-9]+\s+bytes"
)
_MOST_COMPLAINTS: Final = 8


def sniff(body: str) -> bool:
    """Say whether *body*, a whole plain text, has such lines."""
    return _START.search(body) is not None


def parse(lines: Sequence[str]) -> list[Dump]:
    """Return the CPUs that *lines* show; a log of several boots has several."""
    found = Collector()
    complaints: list[str] = []
    for line in rejoin(lines, _START, _RECORD):
        for match in _RECORD.finditer(line):
            leaf, subleaf, *values = match.groups()
            found.add(int(leaf, 16), int(subleaf, 16), registers(*values))
    for line in rejoin(lines, _COMPLAINT_START, _WHOLE_COMPLAINT):
        if (complaint := _COMPLAINT.search(line)) and len(complaints) < _MOST_COMPLAINTS:
            complaints.append(" ".join(complaint[0].split())[:200])
    return found.dumps(format="linux-dump", os_linux=True, complaints=tuple(dict.fromkeys(complaints)))
