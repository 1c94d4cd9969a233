"""Which reader a source belongs to: one table, asked in order, by the first bytes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from fpstate.errors import UnreadableInput
from fpstate.sources.capture import Capture
from fpstate.sources.input import Input, open_input

__all__ = ["READERS", "Reader", "open_source"]


@dataclass(frozen=True, slots=True)
class Reader:
    """A kind of source.

    Attributes:
        kind: what `Capture.kind` says.
        sniff: tells by the first bytes, at most `fpstate.sources.input.HEAD`.
        module: the module whose ``read(source: Input) -> Capture`` reads it; imported when it is needed.
        what: in words, for a refusal.
    """

    kind: str
    sniff: Callable[[bytes], bool]
    module: str
    what: str

    def read(self, source: Input) -> Capture:
        """Return what *source* holds.

        Raises:
            UnreadableInput: nothing that can be shown.
        """
        read = cast("Callable[[Input], Capture]", importlib.import_module(self.module).read)
        return read(source)


READERS: Final[tuple[Reader, ...]] = (
    Reader("elf-core", lambda head: head.startswith(b"\x7fELF"), "fpstate.sources.elfcore", "an ELF core"),
)
"""Every kind of file, those with the surest signs first; what takes anything (raw bytes, text) belongs at the end."""


def open_source(path: str) -> Capture:
    """Return the threads in the file *path*, or in standard input if it is ``-``; compressed or not.

    Raises:
        UnreadableInput: it cannot be read, or is of no kind that fpstate knows.
    """
    source = open_input(path)
    head = source.head
    for reader in READERS:
        if reader.sniff(head):
            return reader.read(source)
    kinds = ", ".join(reader.what for reader in READERS)
    raise UnreadableInput(f"{source.name} holds no extended state that fpstate recognises", cure=f"it reads {kinds}")
