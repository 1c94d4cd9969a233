"""A migration stream, built section by section as savevm.c writes it and vmstate.c describes it."""

from __future__ import annotations

import json
import struct
from typing import Any

Field = tuple[dict[str, Any], bytes]


def number(name: str, value: int, size: int) -> Field:
    return {"name": name, "type": f"uint{8 * size}", "size": size}, value.to_bytes(size, "big")


def words(name: str, values: list[int], size: int = 8, *, structure: str = "") -> Field:
    """Return an array of numbers; of structures called *structure* where that is given, as the vector registers are."""
    data = b"".join(value.to_bytes(size, "big") for value in values)
    if not structure:
        return {"name": name, "array_len": len(values), "type": f"uint{8 * size}", "size": size}, data
    per = {"xmm_reg": 2, "ymmh_reg": 2, "zmmh_reg": 4, "hi16_zmm_reg": 8, "bnd_regs": 2}[structure]
    rows = [{"name": f"_q_ZMMReg[{i}]", "type": "uint64", "size": 8} for i in range(per)]
    inner = {"vmsd_name": structure, "version": 1, "fields": rows}
    return {"name": name, "array_len": len(values) // per, "type": "struct", "struct": inner, "size": 8 * per}, data


def cpu(fields: list[Field], subsections: dict[str, list[Field]]) -> tuple[dict[str, Any], bytes]:
    """Return the description of a CPU section, and its data."""
    data = b"".join(value for _, value in fields)
    parts = []
    for name, inner in subsections.items():
        data += bytes([5, len(name)]) + name.encode() + struct.pack(">I", 1) + b"".join(value for _, value in inner)
        parts.append({"vmsd_name": name, "version": 1, "fields": [field for field, _ in inner]})
    return {"vmsd_name": "cpu", "version": 12, "fields": [field for field, _ in fields], "subsections": parts}, data


def stream(cpus: list[tuple[dict[str, Any], bytes]], memory: bytes = b"") -> bytes:
    """Return a whole stream with these CPUs, and *memory* where guest memory lies."""
    made = struct.pack(">II", 0x5145564D, 3) + memory
    devices = []
    for i, (described, data) in enumerate(cpus):
        made += b"\4" + struct.pack(">I", i + 2) + b"\3cpu" + struct.pack(">II", i, 12) + data
        made += b"\x7e" + struct.pack(">I", i + 2)
        devices.append({"name": "cpu", "instance_id": i, **described})
    text = json.dumps({"page_size": 4096, "devices": devices}).encode()
    return made + b"\0\6" + struct.pack(">I", len(text)) + text
