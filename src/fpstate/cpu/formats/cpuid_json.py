"""CPUID as JSON, in the shapes that are about.

* fpstate's own: ``{"cpuid": {"d.0": [7, 832, 832, 0], ...}, "cpuid_source": "...", "cpuid_raw": {...}}``, leaf and
  sub-leaf both in hex;
* leaf 0DH alone: ``{"leafD": {"0": ["00000007", ...], ...}}``, sub-leaves in decimal, or a list of such objects;
* ``kvm_cpuid_entry2`` as VMMs write it: ``[{"function": 13, "index": 1, "eax": 15, ...}]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fpstate.cpu.dump import BootLog, Dump, Leaves, Registers
from fpstate.cpu.formats import boot_lines
from fpstate.cpu.formats.json_text import registers, u32, u64
from fpstate.cpu.formats.records import MAX_CPUS, Collector, without_echoes
from fpstate.cpu.formats.text import plain_lines
from fpstate.errors import UnreadableInput

__all__ = ["from_json"]

_CALL: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{1,8})[.:/](?:0x)?([0-9a-fA-F]{1,8})")
_STATES: Final = ("reset", "xcr0_all", "xcr0_xss_all")
_DECIMAL: Final = re.compile(r"[0-9]{1,2}")
_ZERO_PRINTERS: Final = {"instlatx64", "libcpuid"}
"""Collections whose tools print zeros for a sub-leaf that they did not read."""


def from_json(value: Any, name: str) -> list[Dump] | None:
    """Return the dumps in *value*, a JSON value; None if it has none of these shapes."""
    nested = value.get("cpuid", value.get("entries")) if isinstance(value, dict) else value
    entries = nested if isinstance(nested, list) else [value]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        return None
    if _is_kvm_entry(entries[0]):
        return _from_kvm(entries, name)
    if len(entries) > MAX_CPUS:
        raise UnreadableInput(f"{name}: more than {MAX_CPUS} CPUs in one input")
    read = _from_calls if isinstance(entries[0].get("cpuid"), dict) else _from_leaf_d
    found: list[Dump] = []
    for index, entry in enumerate(entries):
        dump = read(entry, index, f"{name}, entry {index}" if len(entries) > 1 else name)
        if dump is None:
            return None
        found.append(dump)
    return found


def _is_kvm_entry(entry: object) -> bool:
    return isinstance(entry, dict) and "function" in entry and "eax" in entry


def _from_kvm(entries: Iterable[Any], name: str) -> list[Dump]:
    """Return the vCPUs in a list of ``kvm_cpuid_entry2``."""
    found = Collector()
    for at, entry in enumerate(entries):
        what = f"{name}, CPUID entry {at}"
        if not _is_kvm_entry(entry):
            raise UnreadableInput(f"{what} must have function, index, eax, ebx, ecx, edx")
        index = u32(entry.get("index", 0), f"{what}, index")
        found.add(u32(entry["function"], f"{what}, function"), index, registers(entry, what))
    return found.dumps(format="kvm-cpuid")


def _from_calls(entry: Mapping[str, Any], index: int, what: str) -> Dump | None:
    """Return the dump in fpstate's own shape; None if *entry* has another."""
    calls = entry.get("cpuid")
    if not isinstance(calls, dict):
        return None
    all_leaves = _leaves(calls, f"{what}, cpuid")
    leaves, notes = without_echoes(all_leaves)
    source = entry.get("cpuid_source")
    states = _states(entry.get("cpuid_raw"), what)
    at_reset = states.get("reset") == all_leaves
    return Dump(
        format="fpstate-json",
        leaves=leaves,
        label=_label(entry),
        index=index,
        xcr0=_stated(entry, "xcr0", what, at_reset=1 if at_reset else None),
        xss=_stated(entry, "xss", what, at_reset=0 if at_reset else None),
        os_linux=isinstance(source, str) and "under linux" in source.lower(),
        boot_log=_boot_log(entry.get("boot_lines")),
        other_states={key: without_echoes(value)[0] for key, value in _by_state(states).items()},
        notes=notes,
    )


def _stated(entry: Mapping[str, Any], key: str, what: str, *, at_reset: int | None) -> int | None:
    """Return the value of a control register, if *entry* states it or the leaves are those of the reset state."""
    return at_reset if entry.get(key) is None else u64(entry[key], f"{what}, {key}")


def _states(raw: object, what: str) -> dict[str, Leaves]:
    """Return the leaves in each state that ``cpuid_raw`` has."""
    if not isinstance(raw, dict):
        return {}
    return {
        key: _leaves(value, f"{what}, cpuid_raw.{key}")
        for key, value in raw.items()
        if key in _STATES and isinstance(value, dict)
    }


def _leaves(calls: Mapping[str, Any], what: str) -> dict[tuple[int, int], Registers]:
    """Return ``{"leaf.subleaf": [...]}`` as leaves."""
    leaves: dict[tuple[int, int], Registers] = {}
    for key, value in calls.items():
        call = _CALL.fullmatch(key)
        if not call:
            raise UnreadableInput(f"{what}: a key must be LEAF.SUBLEAF in hex, such as d.1, not {key[:40]!r}")
        leaves[int(call[1], 16), int(call[2], 16)] = registers(value, f"{what}, {key}")
    if not leaves:
        raise UnreadableInput(f"{what} is empty")
    return leaves


def _by_state(states: Mapping[str, Leaves]) -> dict[tuple[int, int], Leaves]:
    """Return the leaves that were read in several states by (XCR0, IA32_XSS): at reset, and with all bits set."""
    found: dict[tuple[int, int], Leaves] = {}
    for key in _STATES:
        if key not in states:
            continue
        leaves = states[key]
        nothing = (0, 0, 0, 0)
        eax, _, _, edx = leaves.get((0xD, 0), nothing)
        _, _, low, high = leaves.get((0xD, 1), nothing)
        state = {"reset": (1, 0), "xcr0_all": (eax | edx << 32, 0), "xcr0_xss_all": (eax | edx << 32, low | high << 32)}
        found.setdefault(state[key], leaves)
    return found


def _boot_log(lines: object) -> BootLog | None:
    """Return what the boot lines beside the leaves say, if they tell of exactly one boot."""
    if not isinstance(lines, list):
        return None
    boots = boot_lines.parse_boots(plain_lines("\n".join(line for line in lines if isinstance(line, str))))
    return boots[0].log if len(boots) == 1 else None


def _label(entry: Mapping[str, Any]) -> str | None:
    """Return what *entry* calls its CPU: its label, its model, or the first of its sources."""
    sources = entry.get("sources")
    first = next(iter(sources.values()), None) if isinstance(sources, dict) else None
    nested = next((each for each in first if isinstance(each, str)), None) if isinstance(first, list) else first
    for label in (entry.get("label"), entry.get("cpu_model"), nested):
        if isinstance(label, str) and label:
            return label[:200]
    return None


def _from_leaf_d(entry: Mapping[str, Any], index: int, what: str) -> Dump | None:
    """Return leaf 0DH given alone; None if *entry* has another shape."""
    subleaves = entry.get("leafD", entry.get("leaf_d"))
    if not isinstance(subleaves, dict):
        return None
    leaves: dict[tuple[int, int], Registers] = {}
    for key, value in subleaves.items():
        if not _DECIMAL.fullmatch(key) or int(key) > 63:
            raise UnreadableInput(f"{what}, leaf 0xd: a sub-leaf must be 0 to 63 in decimal, not {key[:40]!r}")
        leaves[0xD, int(key)] = registers(value, f"{what}, leaf 0xd, sub-leaf {key}")
    if (0xD, 0) not in leaves:
        raise UnreadableInput(f"{what}, leaf 0xd: sub-leaf 0 is missing")
    sources = entry.get("sources")
    return Dump(
        format="leaf-d-json",
        leaves=leaves,
        label=_label(entry),
        index=index,
        zeros_unread=isinstance(sources, dict) and not _ZERO_PRINTERS.isdisjoint(sources),
    )
