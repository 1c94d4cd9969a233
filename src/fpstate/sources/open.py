"""Which reader a source belongs to: one table, asked in order.

A reader is a module with two functions: ``sniff(source: Input) -> bool`` tells whether a source is its own, and
``read(source: Input) -> Capture`` reads it.  Each asks the `Input` for as many bytes as it needs.  A module is imported
when its turn comes: a core costs the import of one.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Final, NamedTuple, Protocol, cast

from fpstate.errors import UnreadableInput
from fpstate.sources.capture import Capture
from fpstate.sources.input import Input, open_input

__all__ = ["READERS", "Reader", "Row", "open_source", "reader_of"]


class Reader(Protocol):
    """What a module in `READERS` has."""

    def sniff(self, source: Input) -> bool:
        """Tell whether *source* is of this kind."""

    def read(self, source: Input) -> Capture:
        """Return what *source* holds, without what went wrong while it was read (`Input.damage`).

        Raises:
            UnreadableInput: nothing that can be shown.
        """


class Row(NamedTuple):
    """A kind of source.

    Attributes:
        module: the reader's, in `fpstate.sources`.
        what: it is, in words, for a refusal.
    """

    module: str
    what: str

    @property
    def reader(self) -> Reader:
        """The module, imported now if it was not."""
        return cast("Reader", importlib.import_module(f"fpstate.sources.{self.module}"))


READERS: Final[tuple[Row, ...]] = (
    Row("elfcore", "an ELF core"),
    Row("minidump", "a Windows minidump"),
    Row("qemu", "a QEMU migration stream"),
    Row("firecracker", "a Firecracker snapshot"),
    Row("criu", "a CRIU core image"),
    Row("sigframe", "a signal frame"),
    Row("vcpu", "a KVM_GET_XSAVE blob"),
    Row("rawimage", "an XSAVE or FXSAVE image"),
    Row("hextext", "one as hex text"),
)
"""Every kind of file: by magic number, then by what stands within, then by content; text costs most to look at."""


def open_source(path: str) -> Capture:
    """Return what the file *path* holds, or standard input if it is ``-``; compressed or not.

    Raises:
        UnreadableInput: it cannot be read, or is of no kind that fpstate knows.
    """
    source = open_input(path)
    capture = reader_of(source).read(source)
    if not source.damage and not source.unpacked:
        return capture
    return replace(capture, damage=(*source.damage, *capture.damage), unpacked=source.unpacked)


def reader_of(source: Input) -> Reader:
    """Return the first reader that knows *source*.

    Raises:
        UnreadableInput: none does; says why it is no image, or no text with one.
    """
    for row in READERS:
        if row.reader.sniff(source):
            return row.reader
    raise _unknown(source)


def _unknown(source: Input) -> UnreadableInput:
    """Return the refusal of what nobody knows: what the reader of text, or of bare images, has against it."""
    from fpstate.sources import hextext, rawimage  # noqa: PLC0415  a core does without

    kinds = f"{', '.join(row.what for row in READERS[:-1])} or {READERS[-1].what}"
    reason = f"{source.name} holds no extended state that fpstate recognises"
    try:
        (hextext if hextext.is_text(source) else rawimage).read(source)
    except UnreadableInput as refusal:
        reason = str(refusal.args[0])
    broken = f" ({source.damage[0].text})" if source.damage else ""
    return UnreadableInput(f"{reason}{broken}", cure=f"give {kinds}")
