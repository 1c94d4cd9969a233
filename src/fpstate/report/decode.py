"""The threads of a source as text and as a document.

A thread's text is a list of parts, each a function of its state: another view is another part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.show import lines
from fpstate.report.tables import bold, table, warn
from fpstate.sources.capture import Capture, Damage
from fpstate.sources.decoded import Decoded, Finding
from fpstate.sources.placement import Layout, Placed
from fpstate.xfeatures import LEGACY_SIZE

if TYPE_CHECKING:
    from fpstate.report.registers_view import Field

__all__ = [
    "bytes_document",
    "bytes_text",
    "document",
    "finding_document",
    "finding_lines",
    "groups",
    "json_text",
    "lanes_document",
    "registers_text",
    "text",
    "title",
]

_SCREEN: Final = 24
"""Lines of registers that one thread's text has at most, unless everything is wanted."""
_MOST_TIDS: Final = 12
"""Numbers of threads that are listed before the rest is counted."""
_NOUNS: Final = {
    "sigframe": "signal frame",
    "kvm-xsave": "vCPU",
    "vcpu": "vCPU",
    "qemu": "vCPU",
    "firecracker": "vCPU",
    "image": "image",
    "text": "image",
}
"""What a `Thread` of a kind of source is, where it is no thread."""
_WITH_NOTE: Final = {"elf-core", "sigframe"}
"""Kinds whose layout is NT_X86_XSAVE_LAYOUT."""


# -- the document --------------------------------------------------------------------------------------------------


def document(decoded: Decoded, threads: Sequence[Placed], names: Sequence[str] = ()) -> Document:
    """Return *threads* with every register, or those of *names* that they have, and what is wrong with the source.

    Raises:
        UsageError: there is no register of a name.
    """
    capture = decoded.capture
    return {
        "schema": SCHEMA,
        "source": capture.source,
        "kind": capture.kind,
        "threads": [_thread(placed, names) for placed in threads],
        "findings": [finding_document(finding) for finding in decoded.findings],
        "notes": list(capture.notes),
    }


def _thread(placed: Placed, names: Sequence[str]) -> Document:
    thread, layout = placed.thread, placed.layout
    return {
        "tid": thread.tid,
        "name": thread.name,
        "abi": thread.abi,
        "format": placed.format,
        "offset": thread.offset,
        "size": len(thread.image),
        "xcr0": _mask(thread.enabled),
        "xstate_bv": _mask(placed.xstate_bv),
        "xcomp_bv": _mask(placed.xcomp_bv),
        "layout": {"from": layout.origin, "confidence": layout.confidence, "candidates": list(layout.candidates)},
        "components": [slot._asdict() for slot in placed.components],
        "values": {name: hexmask(value) for name, value in thread.values.items()},
        "registers": _chosen(placed, names) if names else placed.hexadecimal(),
    }


def _chosen(placed: Placed, names: Sequence[str]) -> dict[str, str]:
    from fpstate.report.described import find  # noqa: PLC0415  the whole state does without

    found = (find(placed, name) for name in names if name not in placed.thread.values)
    return {register.name: placed.value(register).hex() for register in found if register is not None}


def lanes_document(decoded: Decoded, threads: Sequence[Placed], names: Sequence[str], kind: str) -> Document:
    """Return the lanes of the registers *names* that each of *threads* has, as texts, and what is wrong.

    Raises:
        UsageError: there is no register of a name, no type *kind*, or it does not fit a register's size.
    """
    from fpstate.report.described import find, lanes  # noqa: PLC0415  the whole state does without

    def of_thread(placed: Placed) -> Document:
        found = (find(placed, name) for name in names if name not in placed.thread.values)
        return {register.name: lanes(placed, register, kind) for register in found if register is not None}

    return _per_thread(decoded, threads, {"type": kind}, "lanes", of_thread)


def bytes_document(decoded: Decoded, threads: Sequence[Placed]) -> Document:
    """Return every byte of the images of *threads*, field by field, and what is wrong with the source."""
    return _per_thread(decoded, threads, {}, "fields", lambda placed: [f._asdict() for f in _fields(placed)])


def _per_thread(
    decoded: Decoded, threads: Sequence[Placed], what: Document, name: str, shown: Callable[[Placed], object]
) -> Document:
    """Return a document with what *shown* says of each of *threads* under *name*."""
    return {
        "schema": SCHEMA,
        "source": decoded.capture.source,
        "kind": decoded.capture.kind,
        **what,
        "threads": [{"tid": p.thread.tid, "format": p.format, name: shown(p)} for p in threads],
        "findings": [finding_document(finding) for finding in decoded.findings],
    }


def _mask(value: int | None) -> str | None:
    return None if value is None else hexmask(value)


def finding_document(finding: Finding) -> Document:
    """Return what is wrong, where, and in which threads."""
    tids, damage = finding
    return {"rule": damage.rule, "text": damage.text, "offset": damage.offset, "cure": damage.cure, "tids": list(tids)}


def json_text(document: Document) -> str:
    """Return *document* as JSON, a line a thread: a thousand of them have two hundred thousand values."""
    import json  # noqa: PLC0415  text output does without

    rows = []
    for key, value in document.items():
        if key in {"threads", "findings"} and value:
            items = ",\n    ".join([_line(item, json.dumps) for item in value])
            rows.append(f'  "{key}": [\n    {items}\n  ]')
        else:
            rows.append(f'  "{key}": {json.dumps(value)}')
    return "{\n" + ",\n".join(rows) + "\n}"


def _line(item: Document, dumps: Callable[[Any], str]) -> str:
    """Return *item* as JSON; names and digits of registers, nine tenths of it, hold nothing that JSON must escape."""
    registers = item.get("registers")
    if not registers:
        return dumps(item)
    values = ", ".join([f'"{name}": "{digits}"' for name, digits in registers.items()])
    return f"{dumps({**item, 'registers': None})[: -len('null}')]}{{{values}}}}}"


# -- the text ------------------------------------------------------------------------------------------------------


def text(decoded: Decoded, threads: Sequence[Placed], *, everything: bool = False) -> str:
    """Return the state of *threads*, those with the same state once, and what is wrong with the source."""
    capture = decoded.capture
    parts = [title(decoded, threads)]
    for group in groups(threads):
        state = (*_head(group, capture.kind, everything=everything), _registers(group[0], everything=everything))
        parts.append("\n\n".join(filter(None, state)))
    parts += ["\n".join(f"note: {note}" for note in capture.notes)] if capture.notes else []
    return "\n\n".join([*parts, *_findings(decoded)])


def registers_text(decoded: Decoded, threads: Sequence[Placed], names: Sequence[str], kind: str | None = None) -> str:
    """Return the registers *names* of *threads*, those with the same ones once, and what is wrong with the source.

    Args:
        decoded: the source.
        threads: of it.
        names: registers, or values that are kept outside the image.
        kind: lanes, of `fpstate.report.registers_view.TYPES`; None for what suits each register.

    Raises:
        UsageError: there is no such register, or *kind* does not fit its size.
    """
    from fpstate.report.described import described  # noqa: PLC0415  the whole state does without

    return _by_text(decoded, threads, lambda placed: "\n".join(described(placed, name, kind) for name in names))


def bytes_text(decoded: Decoded, threads: Sequence[Placed]) -> str:
    """Return every byte of the images of *threads*, field by field, and what is wrong with the source."""
    from fpstate.report.registers_view import fields_text  # noqa: PLC0415  registers do without

    return _by_text(decoded, threads, lambda p: fields_text(_fields(p)) if p.image is not None else "no image")


def _fields(placed: Placed) -> list[Field]:
    from fpstate.report.registers_view import fields  # noqa: PLC0415  registers do without

    if placed.image is None:
        return []
    there = LEGACY_SIZE if placed.xstate_bv is None else len(placed.image.data)  # FXSAVE has no header
    return [field for field in fields(placed.image) if field.offset < there]


def _by_text(decoded: Decoded, threads: Sequence[Placed], shown: Callable[[Placed], str]) -> str:
    """Return what *shown* says of each of *threads*, equal ones once, with whose it is where there are several."""
    found: dict[str, list[Placed]] = {}
    for placed in threads:
        found.setdefault(shown(placed), []).append(placed)
    parts = [f"{bold(_whose(group))}\n{said}" if len(threads) > 1 else said for said, group in found.items()]
    return "\n\n".join([*parts, *_findings(decoded)])


def _findings(decoded: Decoded) -> list[str]:
    return ["\n".join(finding_lines(decoded))] if decoded.findings else []


def groups(threads: Sequence[Placed]) -> list[list[Placed]]:
    """Return *threads* grouped by equal state: the same components, states and registers, in order of the first one."""
    if len(threads) == 1:  # most cores are decoded for one
        return [list(threads)]
    found: dict[object, list[Placed]] = {}
    for placed in threads:
        state = tuple(placed.hexadecimal().values()), tuple(placed.thread.values.items())
        key = (placed.format, placed.has, placed.in_use, placed.xstate_bv, placed.xcomp_bv, id(placed.layout), state)
        found.setdefault(key, []).append(placed)
    return list(found.values())


def title(decoded: Decoded, threads: Sequence[Placed]) -> str:
    """Return what the source is, and how many threads it has beside *threads*, those that are shown."""
    capture, count = decoded.capture, len(decoded.capture.threads)
    many = f"{count} {_noun(capture)}{'' if count == 1 else 's'}"
    more = "" if len(threads) == count else " (all of them: --all-threads)"
    return f"{capture.source}: {capture.kind}, {many}{more}"


def _noun(capture: Capture) -> str:
    """Return what one of the source's `Thread`s is."""
    return _NOUNS.get(capture.kind, "thread")


def _head(group: Sequence[Placed], kind: str, *, everything: bool) -> tuple[str, ...]:
    """Return whose state it is, its header and its components."""
    placed = group[0]
    thread, names = placed.thread, placed.layout.caps.cpu.catalogue.names
    where = "" if thread.offset is None else f" at {thread.offset}"
    rows = [
        f"{bold(_whose(group))}",
        f"{placed.format}, {len(thread.image)} bytes{where}; {_places(placed.layout, kind)}",
    ]
    rows += [f"  or as {other}" for other in placed.layout.candidates[1:]]
    for label, value in (("XCR0", thread.enabled), ("XSTATE_BV", placed.xstate_bv), ("XCOMP_BV", placed.xcomp_bv)):
        if value is not None:
            rows.append(f"{label:<9} {value:#x} {names(value)}")
    return "\n".join(rows), _components(placed, everything=everything)


def _places(layout: Layout, kind: str) -> str:
    """Return who says where components lie; only a core says it in a note."""
    return "places as the source tells" if layout.origin == "note" and kind not in _WITH_NOTE else layout.text


def _whose(group: Sequence[Placed]) -> str:
    thread = group[0].thread
    name = f" ({thread.name})" if thread.name else ""
    if len(group) > 1:
        tids = ", ".join(str(placed.thread.tid) for placed in group[:_MOST_TIDS])
        rest = f" and {len(group) - _MOST_TIDS} more" if len(group) > _MOST_TIDS else ""
        return f"{len(group)} threads with the same state: {tids}{rest}; {thread.abi}"
    number = "" if thread.tid is None else f"thread {thread.tid}"
    return f"{number}{name or thread.name}, {thread.abi}" if number else f"{thread.name or 'state'}, {thread.abi}"


def _components(placed: Placed, *, everything: bool) -> str:
    shown = [slot for slot in placed.components if everything or slot.state != "absent"]
    rows = [
        [str(slot.bit), slot.name, slot.state, "" if slot.offset is None else str(slot.offset), str(slot.size)]
        for slot in shown
    ]
    if placed.image is None:
        return ""
    absent = [slot.name for slot in placed.components if slot.state == "absent"]
    found = table(("bit", "component", "state", "offset", "size"), rows, right=(0, 3, 4)) if rows else ""
    if absent and not everything:
        found += f"\nabsent: {', '.join(absent)}"
    return found.lstrip("\n")


def _registers(placed: Placed, *, everything: bool) -> str:
    """Return *everything*, or a screenful of the registers that differ from their initial values."""
    if everything:
        return _all_registers(placed)
    outside = placed.thread.values
    width = max([9, *map(len, outside)])
    rows = [f"{name:<{width}} {value:#x}" for name, value in outside.items()]
    if placed.image is None:
        return "\n".join(rows)
    wanted = [(register, placed.value(register)) for register in placed.widest]
    wanted = [(r, value) for r, value in wanted if value != r.initial.to_bytes(r.size, "little")]
    for number, (register, value) in enumerate(wanted):
        shown = lines(register.name, register.format(value)).split("\n")
        if len(rows) + len(shown) > _SCREEN:
            rows.append(f"... and {_more(len(wanted) - number)} (-v)")
            break
        rows += shown
    return "\n".join(rows) or "every register has its initial value"


def _more(count: int) -> str:
    if count == 1:
        return "1 more register that differs from its initial value"
    return f"{count} more registers that differ from their initial values"


def _all_registers(placed: Placed) -> str:
    from fpstate.report.described import described, described_values  # noqa: PLC0415  one screen does without

    outside = described_values(placed.thread.values)
    inside = [described(placed, register.name) for register in placed.widest]
    return "\n".join([*([outside] if outside else []), *inside])


def finding_lines(decoded: Decoded) -> list[str]:
    """Return one line for everything wrong: rule, byte of the source, what is wrong, and the cure."""
    return [_sentence(damage, unpacked=decoded.capture.unpacked) for _, damage in decoded.findings]


def _sentence(damage: Damage, *, unpacked: bool) -> str:
    place = "" if damage.offset is None else f" (byte {damage.offset}{', unpacked' if unpacked else ''})"
    cure = f"; {damage.cure}" if damage.cure else ""
    return f"{warn(damage.rule)}{place}: {damage.text}{cure}"
