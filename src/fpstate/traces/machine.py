"""What a recording says of the machine: written into an option of the trace.dat, and read back from it.

trace-cmd skips an option whose number it does not know, without a word.  The option's data is JSON: `Facts`, with the
CPU in the project's own form, which may be cut out and handed to any verb that takes a CPU.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from fpstate import __version__
from fpstate.cpu import native
from fpstate.cpu.host import read_host
from fpstate.errors import FpstateError, UnreadableInput
from fpstate.linux.observe import boot
from fpstate.traces.trace import Facts

__all__ = ["OPTION", "boot_lines", "describe", "document", "facts_of"]

OPTION: Final = 0x7066
"""The option's number: "fp".  trace-cmd's own are counted up from 0, and were 23 in 2024."""

_SCHEMA: Final = 1
_SECONDS: Final = 5.0


def document() -> dict[str, Any]:
    """Return the facts of this machine, as a value for JSON."""
    machine = os.uname()
    found: dict[str, Any] = {
        "schema": _SCHEMA,
        "recorded_by": f"fpstate {__version__}",
        "release": machine.release,
        "version": machine.version,
        "machine": _cpu_name(),
        "cmdline": _text("/proc/cmdline"),
        "cpus": os.cpu_count(),
    }
    try:
        found["cpu"] = native.document(read_host())
    except FpstateError as refused:
        found["cpu_missing"] = str(refused)
        return found
    lines = boot_lines()
    if lines:
        found["cpu"]["boot_lines"] = list(lines)
    return found


def describe() -> bytes:
    """Return the option's data for this machine."""
    return json.dumps(document(), separators=(",", ":")).encode()


def facts_of(data: bytes) -> Facts:
    """Return what the option's *data* says.

    Raises:
        UnreadableInput: it is no JSON object, or of a schema that is not known.
    """
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableInput(f"the machine's facts are damaged: {error}") from None
    if not isinstance(said, dict) or said.get("schema") != _SCHEMA:
        raise UnreadableInput(f"the machine's facts are not of schema {_SCHEMA}", cure="use a newer fpstate")
    cpu, cpus = said.get("cpu"), said.get("cpus")
    return Facts(
        release=_word(said, "release"),
        machine=_word(said, "machine"),
        cmdline=_word(said, "cmdline"),
        cpuid=json.dumps(cpu) if isinstance(cpu, dict) else "",
        cpus=cpus if isinstance(cpus, int) and not isinstance(cpus, bool) else None,
    )


def boot_lines() -> tuple[str, ...]:
    """Return the ``x86/fpu:`` lines of this boot; none if the kernel's log cannot be read or has lost them."""
    try:
        values = [seen.value for seen in boot.PROBE.read(_SECONDS)]
    except (FpstateError, OSError):
        return ()
    return next((value for value in values if isinstance(value, tuple)), ())


def _word(said: dict[str, Any], key: str) -> str:
    value = said.get(key, "")
    return value if isinstance(value, str) else ""


def _cpu_name() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
