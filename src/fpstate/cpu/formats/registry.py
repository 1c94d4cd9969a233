"""Which reader an input belongs to, found by its content, and what to say when it belongs to none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fpstate import compression
from fpstate.cpu.dump import Dump
from fpstate.cpu.formats import (
    boot_lines,
    cpuid_json,
    cpuid_tool,
    firecracker,
    instlatx64,
    json_text,
    libcpuid,
    libvirt,
    linux_dump,
    raw,
)
from fpstate.cpu.formats.text import decode, plain_lines
from fpstate.errors import UnreadableInput

__all__ = ["read"]


@dataclass(frozen=True, slots=True)
class _TextFormat:
    """A format that lists CPUID records in lines.

    Attributes:
        sniff: says whether a whole plain text may hold it.
        parse: takes the plain lines; returns no dumps if there is nothing after all.
    """

    sniff: Callable[[str], bool]
    parse: Callable[[Sequence[str]], list[Dump]]


_LISTINGS: Final = (
    _TextFormat(linux_dump.sniff, linux_dump.parse),
    _TextFormat(cpuid_tool.sniff, cpuid_tool.parse),
    _TextFormat(libcpuid.sniff, libcpuid.parse),
    _TextFormat(instlatx64.sniff, instlatx64.parse),
    _TextFormat(libvirt.sniff, libvirt.parse),
)
_JSON_READERS: Final = (firecracker.from_json, cpuid_json.from_json)

_NEEDLES: Final = (
    "cpuid",
    "CPUID",
    "eax=",
    "EAX=",
    "eax =",
    "xstate",
    "XSAVE",
    "leafD",
    "leaf_d",
    '"function"',
    "cpudata",
)
"""One of these is in every input that a reader of text knows; one without is refused before it is taken apart."""

_STRANGERS: Final = (
    (b"\x7fELF", "an ELF file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "a bzip2 file"),
    (b"\x89PNG", "a picture"),
    (b"%PDF", "a PDF file"),
)
"""First bytes of files that are often taken for a dump."""
_OTHER_TEXTS: Final = (
    ("will use FXSAVE", "its boot lines say that the kernel uses FXSAVE: without XSAVE there are no xfeatures"),
    ("x86/fpu: XSAVE disabled", "its boot lines say that the kernel gave up XSAVE, but not with what"),
    ("Supporting XSAVE feature", "its boot lines lack the one with the size, 'Enabled xstate features'"),
    ("CPU implementer", "it looks like /proc/cpuinfo of an Arm machine"),
    ("feature information (1/", "it is what cpuid prints in words: run it with -r"),
    ("vendor_id", "it looks like /proc/cpuinfo, which has names of flags but no CPUID leaves"),
)
"""What is found in texts that are often taken for a dump."""


def read(data: bytes, *, name: str = "-") -> list[Dump]:
    """Recognise an input by its content and read it.

    Args:
        data: the input, uncompressed.
        name: what to call it in messages and labels.

    Returns:
        One dump for each logical CPU, in the order of the input.

    Raises:
        UnreadableInput: it is of no kind that fpstate knows, or it is of one and broken.
    """
    if name == "-":
        name = "standard input"
    if not data.strip():
        raise UnreadableInput(f"{name} is empty")
    if raw.sniff(data):
        return raw.parse(data, name)
    text = decode(data)
    complaint: str | None = None
    if any(needle in text for needle in _NEEDLES):
        lines = plain_lines(text)
        value, complaint = json_text.load(text, lines)
        if dumps := _read_json(value, name) or _read_listing(lines):
            return dumps
    what = f": it looks like JSON, but {complaint}" if complaint else _what_it_is(data, text)
    raise UnreadableInput(
        f"no CPUID leaves, boot lines or template found in {name}{what}",
        cure="give the output of 'cpuid -1 -r', an InstLatx64 or libcpuid dump, a dmesg, or a Firecracker template",
    )


def _read_json(value: Any, name: str) -> list[Dump]:
    for reader in _JSON_READERS:
        if dumps := reader(value, name):
            return dumps
    return []


def _read_listing(lines: Sequence[str]) -> list[Dump]:
    """Return the CPUs of the first listing that *lines* hold, with their boot log; those of boot lines alone else."""
    body = "\n".join(lines)
    dumps: list[Dump] = []
    for listing in _LISTINGS:
        if listing.sniff(body) and (dumps := listing.parse(lines)):
            break
    boots = boot_lines.parse_boots(lines) if boot_lines.sniff(body) else []
    if not dumps:
        return boot_lines.dumps_of(boots)
    return _with_boot_logs(dumps, boots)


def _with_boot_logs(dumps: list[Dump], boots: Sequence[boot_lines.Boot]) -> list[Dump]:
    """Return *dumps* with the boot that belongs to each: the only one there is, or as many as there are dumps."""
    own = [boot for boot in boots if not boot.xen] or list(boots)
    if not own:
        return dumps
    if len(own) == 1:
        own *= len(dumps)
    if len(own) != len(dumps):
        note = f"{len(own)} boots and {len(dumps)} CPUs in one input: the boot lines are left aside"
        return [dataclasses.replace(dump, notes=(*dump.notes, note)) for dump in dumps]
    return [dataclasses.replace(dump, boot_log=boot.log) for dump, boot in zip(dumps, own, strict=True)]


def _what_it_is(data: bytes, text: str) -> str:
    """Return what *data* looks like instead, as the end of a sentence; nothing if like nothing in particular."""
    kind = compression.kind_of(data)
    if kind:
        return f": it is compressed with {kind}"
    for magic, what in _STRANGERS:
        if data.startswith(magic):
            return f": it is {what}"
    for needle, what in _OTHER_TEXTS:
        if needle in text:
            return f": {what}"
    return ": it is binary data" if b"\0" in data else ""
