"""Leaves written in each format that fpstate reads, and the things that mail and terminals do to text."""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Callable, Mapping

from hypothesis import strategies as st

Registers = tuple[int, int, int, int]
Leaves = Mapping[tuple[int, int], Registers]


def instlatx64(leaves: Leaves) -> str:
    return "".join(
        f"CPUID {leaf:08X}: {a:08X}-{b:08X}-{c:08X}-{d:08X} [SL {sub:02X}]\n"
        for (leaf, sub), (a, b, c, d) in leaves.items()
    )


def aida_report(leaves: Leaves) -> str:
    return "".join(
        f"      CPUID {leaf:08X}                        {a:08X}-{b:08X}-{c:08X}-{d:08X} [SL {sub:02X}] [a comment]\n"
        for (leaf, sub), (a, b, c, d) in leaves.items()
    )


def cpuid_r(leaves: Leaves) -> str:
    return "CPU:\n" + "".join(
        f"   0x{leaf:08x} 0x{sub:02x}: eax=0x{a:08x} ebx=0x{b:08x} ecx=0x{c:08x} edx=0x{d:08x}\n"
        for (leaf, sub), (a, b, c, d) in leaves.items()
    )


def kcpuid(leaves: Leaves) -> str:
    lines = []
    for leaf, calls in itertools.groupby(sorted(leaves), key=lambda call: call[0]):
        lines.append(f"0x{leaf:08x}: subleafs:")
        for _, sub in calls:
            a, b, c, d = leaves[leaf, sub]
            lines.append(f" {sub:2d}: EAX=0x{a:08x}, EBX=0x{b:08x}, ECX=0x{c:08x}, EDX=0x{d:08x}")
    return "\n".join(lines)


def linux_dump(leaves: Leaves) -> str:
    return "".join(
        f"CPUID[{leaf:02x}, {sub:02x}]: eax={a:08x} ebx={b:08x} ecx={c:08x} edx={d:08x}\n"
        for (leaf, sub), (a, b, c, d) in leaves.items()
    )


def libvirt(leaves: Leaves) -> str:
    return "<cpudata arch='x86'>\n" + "".join(
        f"  <cpuid eax_in='0x{leaf:08x}' ecx_in='0x{sub:02x}'"
        f" eax='0x{a:08x}' ebx='0x{b:08x}' ecx='0x{c:08x}' edx='0x{d:08x}'/>\n"
        for (leaf, sub), (a, b, c, d) in leaves.items()
    )


def kvm_json(leaves: Leaves) -> str:
    return json.dumps(
        [
            {"function": leaf, "index": sub, "flags": 1, "eax": a, "ebx": b, "ecx": c, "edx": d}
            for (leaf, sub), (a, b, c, d) in leaves.items()
        ],
        indent=1,
    )


def fpstate_json(leaves: Leaves) -> str:
    return json.dumps({"cpuid": {f"{leaf:x}.{sub:x}": list(values) for (leaf, sub), values in leaves.items()}})


def fingerprint(leaves: Leaves) -> str:
    return json.dumps(
        {
            "kernel_version": "6.1.0",
            "guest_cpu_config": {
                "cpuid_modifiers": [
                    {
                        "leaf": hex(leaf),
                        "subleaf": hex(sub),
                        "flags": 1,
                        "modifiers": [
                            {"register": name, "bitmap": f"0b{value:032b}"}
                            for name, value in zip(("eax", "ebx", "ecx", "edx"), values, strict=True)
                        ],
                    }
                    for (leaf, sub), values in leaves.items()
                ]
            },
        }
    )


LINES: dict[str, Callable[[Leaves], str]] = {
    "instlatx64": instlatx64,
    "aida_report": aida_report,
    "cpuid_r": cpuid_r,
    "linux_dump": linux_dump,
}
"""Formats with one record a line, which mail wraps."""
ALL: dict[str, Callable[[Leaves], str]] = {
    **LINES,
    "kcpuid": kcpuid,
    "libvirt": libvirt,
    "kvm_json": kvm_json,
    "fpstate_json": fpstate_json,
    "fingerprint": fingerprint,
}

_u32 = st.one_of(st.sampled_from([0, 1, 7, 0x240, 0x340, 0xFFFF_FFFF]), st.integers(0, 0xFFFF_FFFF))
registers = st.tuples(_u32, _u32, _u32, _u32)
_calls = st.tuples(
    st.sampled_from([0x1, 0x4, 0x7, 0xB, 0xD, 0x14, 0x1D, 0x1E, 0x4000_0001, 0x8000_0001, 0x8000_001D]),
    st.integers(0, 63),
)
leaves = st.dictionaries(_calls, registers, min_size=1, max_size=12)


def stamped(text: str) -> str:
    """Write the kernel's timestamp before each line."""
    return "".join(f"[{at / 7:12.6f}] {line}\n" for at, line in enumerate(text.splitlines()))


def syslog(text: str) -> str:
    return "".join(f"Sep 25 02:28:53 localhost kernel: {line}\n" for line in text.splitlines())


def quoted(text: str, marks: str = "> > ") -> str:
    return "".join(f"{marks}{line}\n" for line in text.splitlines())


def cut(text: str, width: int) -> str:
    """Cut each line at *width*, as a terminal does."""
    return "".join(f"{line[at : at + width]}\n" for line in text.splitlines() for at in range(0, len(line), width))


def wrapped(text: str, width: int) -> str:
    """Wrap each line at blanks, as mail programs do."""
    return "".join(
        f"{piece}\n"
        for line in text.splitlines()
        for piece in textwrap.wrap(line, width, break_on_hyphens=False, break_long_words=False)
    )


def coloured(text: str) -> str:
    return re.sub(r"(0x|-)", "\x1b[01;31m\\1\x1b[0m", text)
