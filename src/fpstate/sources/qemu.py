"""QEMU migration streams: what ``migrate exec:cat>FILE`` writes.

A stream does not say how long its sections are, but since 2.4 it ends with a description, JSON, of every field of every
device in the order in which they were sent.  From it follows how long each device's section is, and so where each
begins, counted from the end: guest memory, which comes before the devices, is never looked at.  Each section found
must have its header and its footer, and a footer's number must be its header's.

QEMU keeps registers, not an image (``vmstate_x86_cpu``); fields are big-endian.  The image is put together here.

Sources: QEMU ``migration/savevm.c`` (sections), ``migration/vmstate.c`` (description), ``target/i386/machine.c``
(fields: AVX since 1.0, MPX and AVX-512 since 2.0, PKRU since 2.6, AMX since 7.0), ``scripts/analyze-migration.py``.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fpstate.errors import UnreadableInput, printable
from fpstate.sources.assemble import LAYOUT, NOTE, assemble, fxsave
from fpstate.sources.capture import Capture, Damage, Thread
from fpstate.sources.input import Input
from fpstate.xfeatures import LEGACY, bits

__all__ = ["read", "sniff"]

_MAGIC: Final = 0x5145564D
_VERSION: Final = 3
_END, _FULL, _FOOTER = 0x00, 0x04, 0x7E
"""QEMU_VM_EOF, QEMU_VM_SECTION_FULL, QEMU_VM_SECTION_FOOTER."""
_HEADER: Final = re.compile(rb"\x06(?=[\x00-\xff]{4}\{)")
"""QEMU_VM_VMDESCRIPTION, a length and the brace with which the JSON begins."""
_LONGEST: Final = 8 << 20
"""Bytes of a description that are parsed: one of 288 vCPUs has 4 MiB."""
_DEEPEST: Final = 16
_MOST_CPUS: Final = 4096
_LARGEST_CPU: Final = 1 << 20

_PIECES: Final[Mapping[int, tuple[str, ...]]] = {
    2: ("env.xmm_regs[1]", "env.ymmh_regs"),
    5: ("env.opmask_regs",),
    6: ("env.xmm_regs[2]", "env.zmmh_regs"),
    7: ("env.xmm_regs[3]", "env.hi16_zmm_regs"),
    17: ("env.xtilecfg",),
    18: ("env.xtiledata",),
}
"""Component to the fields that hold it, by name in one version or another.

``env.xmm_regs`` stands four times in one section: XMM, and with other parts of the registers YMM_H, ZMM_H and the upper
sixteen.  The reader numbers them by the structure that each is described with.
"""
_STRUCTURES: Final = {"xmm_reg": 0, "ymmh_reg": 1, "zmmh_reg": 2, "hi16_zmm_reg": 3}
_VALUES: Final = {
    "env.xss": "xss",
    "env.msr_xfd": "xfd",
    "env.u_cet": "u_cet",
    "env.s_cet": "s_cet",
    "env.pl0_ssp": "pl0_ssp",
    "env.pl1_ssp": "pl1_ssp",
    "env.pl2_ssp": "pl2_ssp",
    "env.pl3_ssp": "pl3_ssp",
    "env.guest_ssp": "ssp",
}
"""Fields that lie outside the image, with what fpstate calls them."""


def sniff(source: Input) -> bool:
    """Tell whether *source* begins as a migration stream of version 3 does."""
    return source.head[:8] == struct.pack(">II", _MAGIC, _VERSION)


def read(source: Input) -> Capture:
    """Return the vCPUs of a migration stream; of a mapped file only the end is read.

    Raises:
        UnreadableInput: it has no description, is cut short, or has no x86 CPU.
    """
    name, data = source.name, source.everything()
    end, described = _description(name, data)
    damage: list[Damage] = []
    threads = []
    for number, fields in _cpus(name, data, end, described, damage):
        threads.append(_thread(number, fields))
        if len(threads) == _MOST_CPUS:
            break
    if not threads and not damage:
        raise UnreadableInput(f"{name} is a QEMU migration stream without an x86 CPU")
    return Capture(name, "qemu", threads, damage=tuple(damage), notes=(NOTE,))


def _description(name: str, data: memoryview) -> tuple[int, list[Any]]:
    """Return where the byte that ends the devices lies, and the devices that the description names."""
    tail = bytes(data[-(_LONGEST + 5) :])
    at = _header_of_description(tail)
    if at < 0:
        raise UnreadableInput(
            f"{name} is a QEMU migration stream without the description of its fields at the end",
            cure="give all of it; QEMU before 2.4, and the machine property suppress-vmdesc, leave it out",
        )
    try:
        described = json.loads(tail[at + 5 :])
        devices = described["devices"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableInput(f"{name}: the description at its end is damaged JSON: {_said(error)}") from error
    if not isinstance(devices, list):
        raise UnreadableInput(f"{name}: the description at its end has no list of devices")
    return len(data) - len(tail) + at - 1, devices


def _header_of_description(tail: bytes) -> int:
    """Return where QEMU_VM_VMDESCRIPTION with the length of all that follows stands in *tail*, or -1."""
    for found in _HEADER.finditer(tail):
        at = found.start()
        if int.from_bytes(tail[at + 1 : at + 5], "big") == len(tail) - at - 5:
            return at
    return -1


@dataclass(frozen=True, slots=True)
class _Section:
    """One device as the description has it.

    Attributes:
        name: its idstr.
        instance: its number among those of the name.
        size: bytes of its data.
        device: its part of the description.
    """

    name: bytes
    instance: int
    size: int
    device: Mapping[str, Any]

    @property
    def head(self) -> int:
        """Bytes of its header: type, section, name with its length, instance and version."""
        return 1 + 4 + 1 + len(self.name) + 4 + 4

    @property
    def whole(self) -> int:
        """Bytes with header and footer."""
        return self.head + self.size + 5


def _cpus(
    name: str, data: memoryview, end: int, devices: list[Any], damage: list[Damage]
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Yield the number and the fields of every CPU; the sections are counted back from *end*."""
    try:
        sections = [_section(device) for device in devices]
    except _DAMAGED as error:
        raise UnreadableInput(f"{name}: the description at its end is damaged: {_said(error)}") from error
    if end < 8 or data[end] != _END:
        raise UnreadableInput(f"{name}: there is no end of the devices before the description", cure="give all of it")
    for start, section in _found(sections, end, damage):
        try:
            _check(data, start, section)
            body = start + section.head
            fields = dict(_fields(data[body : body + section.size], section.device))
        except _DAMAGED as error:
            text = f"the section of CPU {section.instance} is not as the description has it: {_said(error)}"
            damage.append(Damage("qemu.section", text, start, "give all of the stream"))
        else:
            if "env.fpuc" in fields:  # else it is another architecture's
                yield section.instance, fields


_DAMAGED: Final = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
"""What JSON that is not as it must be comes to."""


def _said(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error))[:120]


def _found(sections: list[_Section], end: int, damage: list[Damage]) -> list[tuple[int, _Section]]:
    """Return where each CPU's section begins, in the stream's order.

    Some devices are sent before memory and described first: so what lies behind memory is counted from the end.
    """
    found = []
    for section in reversed(sections):
        end -= section.whole
        if end < 8:
            text = f"the devices that the description names are {8 - end} bytes longer than the stream"
            damage.append(Damage("qemu.truncated", text, None, "give all of the stream"))
            break
        if section.name == b"cpu":
            found.append((end, section))
    return found[::-1]


def _check(data: memoryview, start: int, section: _Section) -> None:
    """Check the header and the footer of a section.

    Raises:
        ValueError: one is not where it must be.
    """
    if section.size > _LARGEST_CPU:
        raise ValueError(f"{section.size} bytes are more than a CPU has")
    number = bytes(data[start + 1 : start + 5])
    head = bytes([_FULL]) + number + bytes([len(section.name)]) + section.name + section.instance.to_bytes(8, "big")[4:]
    if bytes(data[start : start + len(head)]) != head:
        raise ValueError(f"there is no section header at byte {start}")
    foot = start + section.whole - 5
    if bytes(data[foot : foot + 5]) != bytes([_FOOTER]) + number:
        raise ValueError(f"there is no section footer at byte {foot}")


def _section(device: Mapping[str, Any]) -> _Section:
    name = device["name"].encode()
    if len(name) > 255:
        raise ValueError("a device has a name of more than 255 bytes")
    size = device["size"] if "vmsd_name" not in device else _size(device)
    return _Section(name, _count(device["instance_id"]), _count(size), device)


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 40:
        raise ValueError(f"{value!r} is no size")
    return value


def _size(described: Mapping[str, Any], depth: int = 0) -> int:
    """Return the bytes of a device, a structure or a subsection with everything in it."""
    if depth > _DEEPEST:
        raise ValueError(f"structures lie more than {_DEEPEST} deep")
    total = 0
    for field in described.get("fields", ()):
        total += _count(field["size"]) * _count(field.get("array_len", 1))
    for part in described.get("subsections", ()):
        total += _subsection_head(part) + _size(part, depth + 1)
    return total


def _fields(data: memoryview, described: Mapping[str, Any], at: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield each field by name, of subsections as well, little-endian in elements of the size described.

    Args:
        data: the section, and nothing behind it: fields follow each other, so all of them are no larger.
        described: what it has, or from *at* on a subsection.
        at: offset in *data*.
    """
    for field in described.get("fields", ()):
        size = _count(field["size"]) * _count(field.get("array_len", 1))
        yield _named(field), _little(bytes(data[at : at + size]), field)
        at += size
    for part in described.get("subsections", ()):
        at += _subsection_head(part)
        yield from _fields(data, part, at)
        at += _size(part)


def _subsection_head(part: Mapping[str, Any]) -> int:
    """Return the bytes before a subsection's fields: type, name with its length, version."""
    return 1 + 1 + len(part["vmsd_name"].encode()) + 4


def _named(field: Mapping[str, Any]) -> str:
    """Return a field's name; for one of those called ``env.xmm_regs`` with the number of its part."""
    name = str(field["name"])
    structure = field.get("struct")
    if name.startswith("env.xmm_regs") and isinstance(structure, dict):
        return f"env.xmm_regs[{_STRUCTURES.get(structure.get('vmsd_name', ''), 9)}]"
    return name


def _little(value: bytes, field: Mapping[str, Any]) -> bytes:
    """Return big-endian *value* with each of its numbers the other way round."""
    widths = _widths(field, len(value)) if value else []
    step = sum(widths)
    if not step or len(value) % step or widths == [1]:
        return value
    found = bytearray()
    for start in range(0, len(value), step):
        at = start
        for width in widths:
            found += value[at : at + width][::-1]
            at += width
    return bytes(found)


def _widths(field: Mapping[str, Any], most: int, depth: int = 0) -> list[int]:
    """Return the bytes of each number in one element of *field*, which has at most as many numbers as bytes: *most*."""
    inner = field.get("struct", field)
    rows = inner.get("fields") if isinstance(inner, dict) else None
    if not isinstance(rows, list) or depth > _DEEPEST:
        return [1] if field.get("type") in {"buffer", "uint8"} else [_count(field["size"])]
    found: list[int] = []
    for row in rows:
        one = _widths(row, most, depth + 1)
        times = _count(row.get("array_len", 1))
        if len(found) + times * len(one) > most:
            raise ValueError(f"a field of {most} bytes has more numbers")
        found += one * (times if one else 0)
    return found


def _thread(number: int, fields: Mapping[str, bytes]) -> Thread:
    """Return the vCPU: x87 and SSE as QEMU has them, and the components that its XSTATE_BV names."""

    def value(name: str) -> int:
        return int.from_bytes(fields.get(name, b""), "little")

    status = value("env.fpus_vmstate")
    registers = fields.get("env.fpregs", b"").ljust(80, b"\0")
    xstate_bv = value("env.xstate_bv")
    # KVM's come as KVM_GET_XSAVE has them, ST0 first (x86_cpu_xrstor_all_areas()), TCG's by physical number; and TCG
    # leaves XSTATE_BV 0 and has every register at hand.
    top = 0 if xstate_bv else status >> 11 & 7
    order = [(top + i) & 7 for i in range(8)]
    legacy = fxsave(
        control=value("env.fpuc") & 0xFFFF,
        status=status & 0xFFFF,
        tags=value("env.fptag_vmstate") & 0xFF,
        opcode=value("env.fpop") & 0xFFFF,
        ip=value("env.fpip"),
        dp=value("env.fpdp"),
        mxcsr=value("env.mxcsr") & 0xFFFFFFFF,
        stack=b"".join(registers[10 * i : 10 * i + 10] + bytes(6) for i in order),
        xmm=fields.get("env.xmm_regs[0]", b"")[:256],
    )
    components = {bit: piece for bit, names in _PIECES.items() for name in names if (piece := fields.get(name))}
    if "env.pkru" in fields:
        components[9] = fields["env.pkru"]
    if "env.bnd_regs" in fields:
        components[3] = fields["env.bnd_regs"]
        components[4] = fields.get("env.bndcs_regs.cfgu", bytes(8)) + fields.get("env.bndcs_regs.sts", bytes(8))
    for bit in bits(xstate_bv & ~LEGACY):
        if bit in LAYOUT:
            components.setdefault(bit, b"")  # QEMU does not send what is all zeros
    in_use = xstate_bv or LEGACY | sum(1 << bit for bit, piece in components.items() if any(piece))
    image, layout = assemble(legacy, components, in_use)
    values = {"qemu_xstate_bv": xstate_bv}
    values |= {ours: value(theirs) for theirs, ours in _VALUES.items() if theirs in fields}
    enabled = value("env.xcr0") or None
    return Thread(number, image, name=f"CPU {number}", enabled=enabled, layout=layout, values=values)
