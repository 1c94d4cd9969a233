"""libvirt ``cputestdata`` XML: ``<cpuid eax_in='0x0000000d' ecx_in='0x01' eax='...' ebx='...' ecx='...' edx='...'/>``.

Read element by element and not as a document: excerpts have no single root, and nothing that a document type could
declare is ever looked at.  Before libvirt 1.2 the leaf was called ``function`` and there were no sub-leaves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fpstate.cpu.dump import Dump
from fpstate.cpu.formats.json_text import REGISTERS
from fpstate.cpu.formats.records import Collector, registers
from fpstate.errors import UnreadableInput

__all__ = ["parse", "sniff"]

_ELEMENT: Final = re.compile(r"<(?:(cpudata|cpuid)\b([^<>]*)>|!--([^<>]{1,400})-->)")
_ATTRIBUTE: Final = re.compile(r"""\b([a-z_]{1,20})\s*=\s*["']([^"'<>]{0,40})["']""")
_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]{1,8}")
_X86: Final = {"x86", "x86_64", "i686"}


def sniff(body: str) -> bool:
    """Say whether *body*, a whole plain text, has such elements."""
    return "<cpuid" in body or "<cpudata" in body


def parse(lines: Sequence[str]) -> list[Dump]:
    """Return the CPUs that *lines* show: one for each ``<cpudata>``, labelled by the comment before it."""
    found = Collector()
    comment = ""
    for element in _ELEMENT.finditer("\n".join(lines)):
        tag, text, remark = element.groups()
        if remark:
            comment = " ".join(remark.split())
            continue
        # A value that a mailer cut in two has a line break in it.
        attributes = {key: "".join(value.split()) for key, value in _ATTRIBUTE.findall(text)}
        if tag == "cpudata":
            if (arch := attributes.get("arch", "x86")) not in _X86:
                raise UnreadableInput(f"libvirt cputestdata of {arch[:40]} has no CPUID leaves")
            if comment:
                found.header(comment)
            comment = ""
            continue
        leaf = attributes.get("eax_in", attributes.get("function"))
        numbers = [leaf, attributes.get("ecx_in", "0x0"), *map(attributes.get, REGISTERS)]
        given = [number for number in numbers if number is not None and _NUMBER.fullmatch(number)]
        if len(given) == len(numbers):  # a feature of a CPU model names only the registers that it is about
            found.add(int(given[0], 16), int(given[1], 16), registers(*given[2:]))
    return found.dumps(format="libvirt")
