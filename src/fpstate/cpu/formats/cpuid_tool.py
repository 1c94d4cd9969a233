"""What the command-line tools print: ``cpuid -r``, ``kcpuid -r`` of the Linux tree, ``x86info -r``.

* cpuid: ``   0x0000000d 0x01: eax=0x0000000f ebx=0x00000998 ecx=0x00003900 edx=0x00000000``
* kcpuid: ``0x0000000d: subleafs:``, then `` 17: EAX=0x00000040, EBX=0x00000ac0, ...`` (sub-leaf in decimal; a sub-leaf
  of all zeros is left out)
* x86info: ``eax in: 0x0000000d, eax = 000002e7 ebx = 00000a88 ecx = 00000a88 edx = 00000000``
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fpstate.cpu.dump import Dump
from fpstate.cpu.formats.records import Collector, registers
from fpstate.cpu.formats.text import HEX32, rejoin

__all__ = ["parse", "sniff"]

_LEAF: Final = rf"0x{HEX32}(?:[ \t]+0x([0-9a-fA-F]{{1,8}}))?|(?<![0-9a-fA-Fx])([0-9]{{1,2}})(?=: EAX)"
_VALUES: Final = ",?[ \t]+".join(
    rf"(?:{name}|{name.upper()})[ \t]*=[ \t]*(?:0x)?{HEX32}" for name in ("eax", "ebx", "ecx", "edx")
)
_RECORD: Final = re.compile(rf"(?:{_LEAF})[:,][ \t]*{_VALUES}")
_START: Final = re.compile(rf"(?:{_LEAF})[:,][ \t]*(?:eax|EAX)")
_SUBLEAVES_FOLLOW: Final = re.compile(rf"0x{HEX32}: subleafs:")
_HEADER: Final = re.compile(r"CPU(?: ([0-9]{1,5}))?:$")


def sniff(body: str) -> bool:
    """Say whether *body*, a whole plain text, has such lines."""
    return ("eax" in body or "EAX" in body) and _START.search(body) is not None


def parse(lines: Sequence[str]) -> list[Dump]:
    """Return the logical CPUs that *lines* show."""
    found = Collector()
    leaf_of_list: int | None = None
    for line in rejoin(lines, _START, _RECORD):
        if header := _HEADER.match(line):
            found.header(f"CPU #{int(header[1])}" if header[1] else "CPU")
        elif listed := _SUBLEAVES_FOLLOW.search(line):
            leaf_of_list = int(listed[1], 16)
        elif "e" in line or "E" in line:
            for match in _RECORD.finditer(line):
                leaf, subleaf, position, *values = match.groups()
                if leaf:
                    found.add(int(leaf, 16), int(subleaf or "0", 16), registers(*values))
                elif leaf_of_list is not None:
                    found.add(leaf_of_list, int(position), registers(*values))
    return found.dumps(format="cpuid-r")
