"""What a source gives before anything is concluded from it: threads, and the bytes that hold their state.

Nothing here is checked against a rule, and nothing is copied: an image is a view of the source's bytes, however many
threads there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fpstate.cpu.model import Component, Cpu

__all__ = ["Abi", "Capture", "Damage", "Form", "Thread"]

Form = Literal["xsave", "fxsave", "fsave", "none"]
"""What an image is: an XSAVE area of either format, FXSAVE's 512 bytes, i387's 108, or nothing at all."""

Abi = Literal["x86-64", "x32", "i386"]


class Damage(NamedTuple):
    """Something that is not as it must be; whatever can still be read beside it is.

    Attributes:
        rule: its id, such as ``elf.note-truncated``.
        text: what is wrong, with the numbers.
        offset: bytes from the start of the source; None if it has no place there.
        cure: what to do about it, or "".
    """

    rule: str
    text: str
    offset: int | None = None
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread, or one vCPU, as the source holds it.

    Attributes:
        tid: its number there; None if it has none.
        name: its command or label, or "".
        abi: whose registers it has.
        form: what `image` is.
        image: the bytes, as the source has them; empty if there are none.
        offset: of `image`, bytes from the start of the source; None where it has no place (a live process).
        enabled: XCR0 as the source tells it; None if it does not.
        layout: the components where the source says where each lies (NT_X86_XSAVE_LAYOUT); None if it does not.
        values: what is kept outside the image: "ssp", "xss", "xfd", "pl3_ssp", ...
        damage: found in what belongs to this thread.
        said: bytes that the source says `image` has, where it holds fewer; else None.
    """

    tid: int | None
    image: memoryview
    form: Form = "xsave"
    name: str = ""
    abi: Abi = "x86-64"
    offset: int | None = None
    enabled: int | None = None
    layout: Mapping[int, Component] | None = None
    values: Mapping[str, int] = field(default_factory=dict)
    damage: tuple[Damage, ...] = ()
    said: int | None = None


@dataclass(frozen=True, slots=True)
class Capture:
    """What a source holds.

    Attributes:
        source: what to call it: a path, ``pid 17``, ``standard input``.
        kind: what it is: ``elf-core``, ``process``, ``kvm-xsave``, ``sigframe``, ``minidump``, ``criu``, ``qemu``,
            ``firecracker``, ``image``, ``text``.
        threads: in the source's order; the one that dumped first, where the source has one.
        cpu: the CPU that made it, where the source tells its CPUID; else None.
        damage: found in what belongs to no thread.
        maker: the program that made it, where that matters: ``gdb``; else "".
        unpacked: whether the source is compressed: offsets count from the start of what it unpacks to.
        notes: remarks that speak of no damage: a version, a guess with its alternatives.
    """

    source: str
    kind: str
    threads: Sequence[Thread]
    cpu: Cpu | None = None
    damage: tuple[Damage, ...] = ()
    notes: tuple[str, ...] = ()
    maker: str = ""
    unpacked: bool = False
