"""Signal frames: the image that the kernel puts on the stack for a handler, and takes back at sigreturn.

An image begins at an address that 64 divides; its software bytes (464 to 511) begin with magic1, and magic2 stands
behind it.  Such images are found in memory by magic1, and each is checked as rt_sigreturn checks it: a rule that it
breaks is the thread's damage.  Where sigreturn would restore x87 and SSE alone ("fx-only"), the 512 bytes that it
reads are all that is given.

A frame is 64-bit or, with 112 bytes of FSAVE before its image and counted in extended_size, a 32-bit one.

Sources: Linux ``arch/x86/kernel/fpu/signal.c``, ``<asm/sigcontext.h>``, ``<asm/ucontext.h>``; the rules are those of
`fpstate.linux.copyin`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from fpstate.errors import UnreadableInput
from fpstate.isa import Capabilities
from fpstate.isa.profile import of_cpu
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FSAVE_HEADER, MAGIC2_SIZE
from fpstate.linux.copyin import Finding, check_ptrace, check_sigreturn, check_xstate_in_sigframe
from fpstate.registers import MXCSR_MASK_DEFAULT
from fpstate.sources.capture import Capture, Damage, Thread
from fpstate.sources.input import Input
from fpstate.xfeatures import LEGACY, LEGACY_SIZE, MIN_SIZE, SOFTWARE, USER

__all__ = ["Memory", "find", "read", "sniff"]

MOST_BYTES: Final = 64 << 20
"""Bytes of memory that are searched."""
MOST_FRAMES: Final = 1024
"""Frames that are given: a stack that holds more of them is damaged, or somebody's idea of a joke."""
_LARGEST: Final = 1 << 16
"""Bytes of an image: a size in software bytes is not trusted further."""
_MAGIC1: Final = re.compile(re.escape(FP_XSTATE_MAGIC1.to_bytes(4, "little")))
_ALIGNMENT: Final = 64

# struct ucontext of a 64-bit process: uc_mcontext begins at 40 with r8, ...
_UC_RSP, _UC_RIP, _UC_FPSTATE = 40 + 8 * 15, 40 + 8 * 16, 40 + 8 * 23
_REACH: Final = 4096
"""Bytes below an image in which its ucontext lies: struct rt_sigframe, and what aligns the image."""


class Memory(NamedTuple):
    """A run of a process's memory.

    Attributes:
        address: of its first byte.
        data: its bytes.
        offset: of its first byte in the source; None where it has none (a live process).
    """

    address: int
    data: memoryview
    offset: int | None = None


# -- raw bytes -------------------------------------------------------------------------------------------------------


def sniff(source: Input) -> bool:
    """Tell whether *source* begins with the image of a signal frame: its magic1 is there."""
    return _start(source.head) is not None


def _start(data: bytes) -> int | None:
    """Return where the image begins: at 0, or behind the 112 bytes of FSAVE of a 32-bit frame."""
    magic = FP_XSTATE_MAGIC1.to_bytes(4, "little")
    for start in (0, FSAVE_HEADER):
        if data[start + SOFTWARE : start + SOFTWARE + 4] == magic and len(data) - start >= LEGACY_SIZE:
            return start
    return None


def read(source: Input) -> Capture:
    """Return the one frame whose image *source* begins with, maybe with more behind it.

    The task is the one that the frame speaks of: its features and its size are the frame's own.

    Args:
        source: from the image's first byte on, or from the FSAVE part of a 32-bit frame.

    Raises:
        UnreadableInput: it is no such image.
    """
    start = _start(source.head)
    if start is None:
        raise UnreadableInput(
            f"{source.name} is no image of a signal frame: magic1 ({FP_XSTATE_MAGIC1:#x}) is not at {SOFTWARE}",
            cure="give the bytes from uc_mcontext.fpstate on",
        )
    data = source.upto(FSAVE_HEADER + _LARGEST + MAGIC2_SIZE)
    return Capture(source.name, "sigframe", [_thread(data[start:], None, start, None)])


# -- memory ----------------------------------------------------------------------------------------------------------


def find(
    memory: Iterable[Memory], *, tid: int | None = None, caps: Capabilities | None = None
) -> tuple[list[Thread], tuple[str, ...]]:
    """Return the frames in *memory*, by ascending address within each run, and notes about what was not searched.

    A thread's values tell where it lies (``address``) and, where the ucontext of a 64-bit process points to it, what
    the signal interrupted (``rip``, ``rsp``).  A frame that has returned is found as well until it is overwritten.

    Args:
        memory: runs of it; `MOST_BYTES` are searched in all.
        tid: the thread whose stack it is.
        caps: the CPU, where it is known.
    """
    found: list[Thread] = []
    left = MOST_BYTES
    for run in memory:
        if left < len(run.data):
            run = run._replace(data=run.data[:left])  # noqa: PLW2901 - the rest is said to be left out
        left -= len(run.data)
        for at in _candidates(run):
            found.append(_in_memory(run, at, tid, caps))
            if len(found) == MOST_FRAMES:
                return found, (f"only the first {MOST_FRAMES} frames are given",)
        if left <= 0:
            return found, (f"only the first {MOST_BYTES >> 20} MiB of memory were searched for frames",)
    return found, ()


def _candidates(run: Memory) -> Iterator[int]:
    """Yield where in *run* an image could begin: magic1 is in its place, and 64 divides the address."""
    for match in _MAGIC1.finditer(run.data):
        at = match.start() - SOFTWARE
        if at >= 0 and not (run.address + at) % _ALIGNMENT and at + LEGACY_SIZE <= len(run.data):
            yield at


def _in_memory(run: Memory, at: int, tid: int | None, caps: Capabilities | None) -> Thread:
    thread = _thread(run.data[at:], tid, None if run.offset is None else run.offset + at, caps)
    values = {"address": run.address + at, **_interrupted(run, at)}
    return Thread(
        thread.tid,
        thread.image,
        thread.form,
        f"signal frame at {run.address + at:#x}",
        thread.abi,
        thread.offset,
        thread.enabled,
        values=values,
        damage=thread.damage,
    )


def _interrupted(run: Memory, at: int) -> dict[str, int]:
    """Return RIP and RSP out of the ucontext whose fpstate pointer is the image's address; none if there is none."""
    start = max(at - _REACH, 0)
    place = bytes(run.data[start:at]).rfind((run.address + at).to_bytes(8, "little"))
    context = start + place - _UC_FPSTATE
    if place < 0 or context < 0:
        return {}
    rip, rsp = (struct.unpack_from("<Q", run.data, context + field)[0] for field in (_UC_RIP, _UC_RSP))
    return {"rip": rip, "rsp": rsp}


# -- one image -------------------------------------------------------------------------------------------------------


class _Software(NamedTuple):
    """``struct _fpx_sw_bytes``, its sizes not trusted."""

    magic1: int
    extended_size: int
    xfeatures: int
    xstate_size: int

    @property
    def i386(self) -> bool:
        """Whether extended_size counts the FSAVE part of a 32-bit frame."""
        return self.extended_size - self.xstate_size == MAGIC2_SIZE + FSAVE_HEADER


def _thread(data: memoryview, tid: int | None, offset: int | None, caps: Capabilities | None) -> Thread:
    """Return the frame whose image *data* begins with; it has 512 bytes or more."""
    software = _Software(*struct.unpack_from("<IIQI", data, SOFTWARE))
    size = software.xstate_size if MIN_SIZE <= software.xstate_size <= _LARGEST else LEGACY_SIZE
    image = data[: size + MAGIC2_SIZE]
    finding = _check(bytes(image), software, caps)
    fx_only = (finding is not None and finding.effect == "fx-only") or len(image) < MIN_SIZE
    return Thread(
        tid,
        image[:LEGACY_SIZE] if fx_only else image[:size],
        "fxsave" if fx_only else "xsave",
        "signal frame",
        "i386" if software.i386 else "x86-64",
        offset,
        software.xfeatures if software.xfeatures & LEGACY == LEGACY and not software.xfeatures >> 63 else None,
        damage=() if finding is None else (_damage(finding, offset),),
    )


def _check(image: bytes, software: _Software, caps: Capabilities | None) -> Finding | None:
    """Return the first rule that sigreturn finds broken, in a task whose features and size are the frame's own.

    Of a CPU that is not known XCR0 has every user component: the header may have what the software bytes leave out.
    """
    mask = int.from_bytes(image[28:32], "little") or MXCSR_MASK_DEFAULT
    xcr0 = USER
    if caps is not None:
        mask, xcr0 = of_cpu(caps.cpu).mxcsr_legal, caps.cpu.dump.xcr0 or caps.user
    size, features = software.xstate_size, software.xfeatures
    if software.i386:
        found = check_xstate_in_sigframe(image, size)
        # The slow path copies as ptrace does: copy_sigframe_from_user_to_xstate() is copy_uabi_to_xstate().
        return found or check_ptrace(image[: size & ~7], features=features, size=size & ~7, mxcsr_mask=mask)
    return check_sigreturn(image, caps=caps, xcr0=xcr0, user_xfeatures=features, user_size=size, mxcsr_mask=mask)


def _damage(finding: Finding, offset: int | None) -> Damage:
    """Return what sigreturn makes of the frame; in a 32-bit one a refused copy is the signal SIGSEGV as well."""
    effect = "sigreturn restores x87 and SSE alone" if finding.effect == "fx-only" else "sigreturn kills with SIGSEGV"
    place = None if finding.offset is None else (offset or 0) + finding.offset
    text = f"{effect}: {finding.detail}: {finding.rule.text} (Linux {finding.rule.source})"
    return Damage(finding.rule.id, text, place, finding.rule.cure)
