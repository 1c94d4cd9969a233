"""InstLatx64 dumps and AIDA64 reports: ``CPUID 0000000D: EAX-EBX-ECX-EDX [SL 01] [comment]``.

Seen on real files: with and without the colon (AIDA64 reports pad with blanks), lower-case digits, sub-leaves numbered
in hex by ``[SL nn]`` or not at all, ``CPUID 0000000d:01 = EAX EBX ECX EDX | text`` of other tools, and five kinds of
header before each logical CPU.  All other sections (MSRs, caches, versions) are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fpstate.cpu.dump import Dump
from fpstate.cpu.formats.records import Collector, registers
from fpstate.cpu.formats.text import HEX32, rejoin

__all__ = ["HEADER", "parse", "sniff"]

HEADER: Final = re.compile(r"\bCPU ?#([0-9]{1,5})\b")
"""``CPUID Registers (CPU #1 Virtual):``, ``------[ Logical CPU #0 ]------``, ``CPU#000 AffMask: 0x1``, ..."""

_START: Final = re.compile(r"CPUID[ \t]+[0-9a-fA-F]{8}(?![0-9a-fA-F])")
_VALUES: Final = rf"CPUID[ \t]+{HEX32}(?::([0-9a-fA-F]{{2}}))?[ \t]*[:=]?[ \t]*{HEX32}[- ]{HEX32}[- ]{HEX32}[- ]{HEX32}"
_RECORD: Final = re.compile(rf"{_VALUES}(?:[ \t]*\[SL[ \t]*([0-9a-fA-F]{{1,3}})\])?")
# A record is whole if no bracket after it is left open: the cut may lie within [SL 01].
_WHOLE: Final = re.compile(rf"{_RECORD.pattern}(?=(?:[^\[]|\[[^\]]*\])*$)")


def sniff(body: str) -> bool:
    """Say whether *body*, a whole plain text, has such records."""
    return _START.search(body) is not None


def parse(lines: Sequence[str]) -> list[Dump]:
    """Return the logical CPUs that *lines* show."""
    found = Collector()
    for line in rejoin(lines, _START, _WHOLE):
        if "CPUID" in line:
            for match in _RECORD.finditer(line):
                leaf, subleaf, *values, numbered = match.groups()
                number = numbered or subleaf
                found.add(int(leaf, 16), int(number, 16) if number else None, registers(*values))
        if (header := HEADER.search(line)) and not _START.search(line):
            found.header(f"CPU #{int(header[1])}")
    return found.dumps(format="instlatx64", zeros_unread=True)
