"""Firecracker guest fingerprints and CPU templates: ``cpuid_modifiers`` with a bitmap for each register.

A bitmap is written most significant bit first, ``0`` and ``1`` for a forced bit and ``x`` for one left as the CPU has
it.  A fingerprint (``cpu-template-helper fingerprint dump``) forces every bit: it is a CPU.  A template forces some; a
file of bare modifiers is one even if it forces all, as ``template dump`` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fpstate.cpu.dump import Dump, Modifier, Registers
from fpstate.cpu.formats.json_text import REGISTERS, u32
from fpstate.cpu.formats.records import without_echoes
from fpstate.errors import UnreadableInput

__all__ = ["from_json"]

_BITMAP: Final = re.compile(r"(?:0b)?([01x]{1,32})")
_HEX: Final = re.compile(r"0x([0-9a-f]{1,8})")
_ALL_BITS: Final = 0xFFFF_FFFF
_MOST_MODIFIERS: Final = 65536


def from_json(value: Any, name: str) -> list[Dump] | None:
    """Return the fingerprint or template in *value*, a JSON value; None if it is neither."""
    if not isinstance(value, dict):
        return None
    config = value.get("guest_cpu_config", value)
    if not isinstance(config, dict):
        return None
    if "cpuid_modifiers" not in config:
        if "reg_modifiers" in config:
            raise UnreadableInput(f"{name} is a Firecracker CPU template for Arm: it has no cpuid_modifiers")
        return None
    modifiers, all_forced = _modifiers(config["cpuid_modifiers"], name)
    leaves = _as_leaves(modifiers) if all_forced and config is not value else None
    if leaves is None:
        return [Dump(format="firecracker-template", modifiers=tuple(modifiers))]
    kept, notes = without_echoes(leaves)
    return [Dump(format="firecracker", leaves=kept, label=_label(value), notes=notes)]


def _modifiers(entries: object, name: str) -> tuple[list[Modifier], bool]:
    """Return the registers that *entries* force, in file order, and whether no bit of them is left alone."""
    if not isinstance(entries, list) or not entries:
        raise UnreadableInput(f"{name}: cpuid_modifiers must be a list with at least one leaf")
    found: list[Modifier] = []
    all_forced = True
    for at, entry in enumerate(entries):
        what = f"{name}, cpuid_modifiers[{at}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("modifiers"), list):
            raise UnreadableInput(f"{what} must have leaf, subleaf and a list of modifiers")
        leaf, subleaf = u32(entry.get("leaf"), f"{what}, leaf"), u32(entry.get("subleaf"), f"{what}, subleaf")
        for each in entry["modifiers"]:
            if not isinstance(each, dict) or each.get("register") not in REGISTERS:
                raise UnreadableInput(f"{what}: each modifier must name eax, ebx, ecx or edx")
            register = REGISTERS.index(each["register"])
            mask, bits_set, forced = _bitmap(each.get("bitmap"), f"{what}, {each['register']}")
            all_forced = all_forced and forced
            found.append(Modifier(leaf, subleaf, register, mask, bits_set))
        if len(found) > _MOST_MODIFIERS:
            raise UnreadableInput(f"{name}: more than {_MOST_MODIFIERS} registers")
    return found, all_forced


def _bitmap(text: object, what: str) -> tuple[int, int, bool]:
    """Return the bits that a bitmap forces, their values, and whether it has no ``x``.

    One shorter than 32 bits leaves the upper ones alone in a template, and is a number in a fingerprint.
    """
    if isinstance(text, str):
        plain = text.strip().lower().replace("_", "")
        if number := _HEX.fullmatch(plain):
            return _ALL_BITS, int(number[1], 16), True
        if bitmap := _BITMAP.fullmatch(plain):
            digits = bitmap[1]
            mask = int(digits.replace("0", "1").replace("x", "0"), 2)
            return mask, int(digits.replace("x", "0"), 2), "x" not in digits
    raise UnreadableInput(f"{what}: a bitmap must be up to 32 of 0, 1 and x, or 0x and hex digits")


def _as_leaves(modifiers: list[Modifier]) -> dict[tuple[int, int], Registers] | None:
    """Return *modifiers*, which force all bits of their registers, as leaves; None if a leaf lacks a register."""
    found: dict[tuple[int, int], list[int | None]] = {}
    for each in modifiers:
        found.setdefault((each.leaf, each.subleaf), [None] * 4)[each.register] = each.value
    leaves: dict[tuple[int, int], Registers] = {}
    for key, values in found.items():
        eax, ebx, ecx, edx = values
        if eax is None or ebx is None or ecx is None or edx is None:
            return None
        leaves[key] = (eax, ebx, ecx, edx)
    return leaves


def _label(value: Mapping[str, Any]) -> str | None:
    """Return what tells fingerprints of one CPU apart: the host's kernel and microcode."""
    parts = [
        f"{title} {text[:100]}"
        for key, title in (("kernel_version", "host kernel"), ("microcode_version", "microcode"))
        if isinstance(text := value.get(key), str)
    ]
    return f"Firecracker guest, {', '.join(parts)}" if parts else None
