"""CPUID in fpstate's own form: what `fpstate.cpu.formats` reads back as the CPU that it was."""

from __future__ import annotations

from typing import Any

from fpstate.cpu.dump import Dump

__all__ = ["document"]


def document(dump: Dump) -> dict[str, Any]:
    """Return *dump* as a value for JSON: ``{"cpuid": {"d.0": [...]}, ...}``, see `fpstate.cpu.formats.cpuid_json`."""
    found: dict[str, Any] = {
        "cpuid": {f"{leaf:x}.{subleaf:x}": list(values) for (leaf, subleaf), values in sorted(dump.leaves.items())},
        "cpuid_source": "read under Linux" if dump.os_linux else dump.format,
    }
    for name, value in (("xcr0", dump.xcr0), ("xss", dump.xss)):
        if value is not None:
            found[name] = f"{value:#x}"
    if dump.label:
        found["label"] = dump.label
    return found
