"""An image as text and as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fpstate.image import Image, remarks
from fpstate.image import registers as image_registers
from fpstate.registers import Register
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.tables import bold, table
from fpstate.xfeatures import LEGACY_PLACES, bits

__all__ = ["document", "lines", "text", "values"]

_DIGITS_A_LINE = 64


def values(image: Image, wanted: Sequence[Register], *, everything: bool) -> dict[str, str]:
    """Return the *wanted* registers, or those of *image* that are not in their initial configuration, by name.

    A vector register is shown as the widest one whose components all have a place.
    """
    if wanted:
        return {register.name: register.format(image.register(register)) for register in wanted}
    found = {}
    for register in image_registers(image.components, image.caps.sizes):
        value = image.register(register)
        initial = register.initial.to_bytes(register.size, "little")
        if everything or value != initial:
            found[register.name] = register.format(value)
    return found


def document(image: Image, registers: Mapping[str, str]) -> Document:
    """Return header, components and *registers*."""
    return {
        "schema": SCHEMA,
        "cpu": image.caps.cpu.name,
        "source": image.caps.cpu.source,
        "format": image.format,
        "size": image.places.end,
        "xstate_bv": hexmask(image.xstate_bv),
        "xcomp_bv": hexmask(image.xcomp_bv),
        "components": [
            {"bit": bit, "name": name, "state": state, "offset": offset, "size": size}
            for bit, name, state, offset, size in _components(image)
        ],
        "registers": dict(registers),
        "notes": remarks(image),
    }


def _components(image: Image) -> list[tuple[int, str, str, int | None, int]]:
    """Return (bit, name, state, offset, size) of every component of the CPU."""
    places = LEGACY_PLACES | {bit: (offset, size) for bit, offset, size in image.places.slots}
    catalogue, caps = image.caps.cpu.catalogue, image.caps
    rows = []
    for bit in bits(caps.user | caps.supervisor):
        offset, size = places.get(bit, (None, caps.sizes.get(bit, 0)))
        state = "in-use" if image.xstate_bv >> bit & 1 else "init" if bit in places else "absent"
        rows.append((bit, catalogue.name(bit), state, offset, size))
    return rows


def text(image: Image, registers: Mapping[str, str], *, brief: bool) -> str:
    """Return the same as tables; with *brief* the registers alone."""
    listed = "\n".join(lines(name, value) for name, value in registers.items())
    if brief:
        return listed
    names = image.caps.cpu.catalogue.names
    head = [
        f"{bold(image.format)} format, {image.places.end} bytes, as {image.caps.cpu.name} lays it out",
        f"XSTATE_BV {image.xstate_bv:#x} {names(image.xstate_bv)}",
        f"XCOMP_BV  {image.xcomp_bv:#x} {names(image.xcomp_bv)}",
    ]
    rows = [
        [str(bit), name, state, "" if offset is None else str(offset), str(size)]
        for bit, name, state, offset, size in _components(image)
    ]
    components = table(("bit", "component", "state", "offset", "size"), rows, right=(0, 3, 4))
    return "\n\n".join(["\n".join(head), components, listed or "every register has its initial value"])


def lines(name: str, value: str) -> str:
    """Return a register and its value, 32 bytes a line."""
    lines = [value[i : i + _DIGITS_A_LINE] for i in range(0, len(value), _DIGITS_A_LINE)]
    return f"{name:<9} " + f"\n{'':<9} ".join(lines)
