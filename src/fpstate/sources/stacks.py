"""Signal frames on the stacks of a live process, and in the memory that an ELF core holds.

Of a thread its stack is searched from the stack pointer upwards, while it is stopped: there lie the frames of the
handlers that it is in.  Of a core all writable memory is searched, for an alternate stack may be anywhere.

Sources: proc(5), elf(5), Linux ``<asm/user_64.h>``, ``<asm/user_32.h>``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from fpstate.errors import CannotTell, FpstateError, UnreadableInput
from fpstate.isa import Capabilities
from fpstate.linux.tracee import NT_PRSTATUS, in_tracer
from fpstate.sources.capture import Capture, Thread
from fpstate.sources.process import host_cpu, leader_of, require_linux, stop, threads_of
from fpstate.sources.sigframe import Memory, find

__all__ = ["core_memory", "frames_of_core", "frames_of_process"]

_RED_ZONE: Final = 128
"""Bytes below the stack pointer that a 64-bit program may use."""
_MOST_STACK: Final = 8 << 20
"""Bytes of one stack that are read: what RLIMIT_STACK allows by default."""
_RSP_64, _ESP_32 = 19 * 8, 15 * 4  # struct user_regs_struct, struct user_regs_struct32
_SIZEOF_64: Final = 27 * 8
_PT_LOAD, _PF_W, _ET_CORE = 1, 2, 4  # <linux/elf.h>
_MOST_SEGMENTS: Final = 1 << 17


def frames_of_process(pid: int) -> Capture:
    """Return the signal frames on the stacks of the threads of process *pid*, one `Thread` each.

    Raises:
        UnreadableInput, CannotTell: as `fpstate.sources.process.capture_process`.
    """
    require_linux()
    leader = leader_of(pid)
    cpu, reasons = host_cpu()
    caps = None if cpu is None or not cpu.has_xsave else Capabilities(cpu)
    frames: list[Thread] = []
    notes = list(reasons)
    refused: list[FpstateError] = []
    tids = threads_of(leader)
    for tid, stack in in_tracer(partial(_stacks, leader, tids)):
        if isinstance(stack, Memory):
            found, remarks = find([stack], tid=tid, caps=caps)
            frames += found
            notes += remarks
        else:
            refused.append(stack)
    if refused and len(refused) == len(tids):
        raise refused[0]
    return Capture(f"signal frames of pid {leader}", "sigframe", frames, cpu, notes=(*notes, *map(str, refused)))


def _stacks(pid: int, tids: list[int]) -> list[tuple[int, Memory | FpstateError]]:
    """Return the stack of each thread from its stack pointer on, or why it cannot be read."""
    found: list[tuple[int, Memory | FpstateError]] = []
    for tid in tids:
        try:
            with stop(tid) as tracee:
                found.append((tid, _stack(pid, tracee.regset(NT_PRSTATUS) or b"")))
        except (UnreadableInput, CannotTell) as error:
            found.append((tid, error))
    return found


def _stack(pid: int, general: bytes) -> Memory:
    pointer, field = (_RSP_64, "<Q") if len(general) == _SIZEOF_64 else (_ESP_32, "<I")
    try:
        (sp,) = struct.unpack_from(field, general, pointer)
        start, end = _mapping(pid, sp)
        start = max(start, sp - _RED_ZONE)
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - read at an address
            data = os.pread(memory.fileno(), min(end - start, _MOST_STACK), start)
    except (OSError, struct.error, OverflowError) as error:
        raise UnreadableInput(f"the stack of process {pid} cannot be read: {error}") from error
    return Memory(start, memoryview(data))


def _mapping(pid: int, address: int) -> tuple[int, int]:
    """Return the mapping of process *pid* that *address* lies in; nothing of one that it does not."""
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        start, _, end = line.partition(" ")[0].partition("-")
        if int(start, 16) <= address < int(end, 16):
            return int(start, 16), int(end, 16)
    return address, address


# -- cores -----------------------------------------------------------------------------------------------------------


def frames_of_core(name: str, data: memoryview) -> Capture:
    """Return the signal frames in the memory of an ELF core, one `Thread` each, offsets in the core.

    Args:
        name: the source's.
        data: all of it; a mapped file is read only where it holds writable memory.

    Raises:
        UnreadableInput: it is no ELF core of an x86 machine.
    """
    frames, notes = find(core_memory(name, data))
    return Capture(name, "sigframe", frames, notes=notes)


def core_memory(name: str, data: memoryview) -> Iterator[Memory]:
    """Yield the writable segments of an ELF core, as far as the file holds them.

    Raises:
        UnreadableInput: it is no little-endian ELF core.
    """
    magic = bytes(data[:6])
    wide = magic[4:5] == b"\x02"
    head = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    if magic[:4] != b"\x7fELF" or magic[5:6] != b"\x01" or len(data) < 16 + struct.calcsize(head):
        raise UnreadableInput(f"{name} is no ELF core")
    kind, _, _, _, start, _, _, _, size, count, *_ = struct.unpack_from(head, data, 16)
    segment = struct.Struct("<IIQQQQQQ" if wide else "<IIIIIIII")
    if kind != _ET_CORE:
        raise UnreadableInput(f"{name} is an ELF file, and no core", cure="give the core")
    for i in range(min(count, _MOST_SEGMENTS)):
        at = start + i * size
        if size < segment.size or at + segment.size > len(data):
            return
        kind, *fields = segment.unpack_from(data, at)
        if wide:
            flags, offset, address, _, length, *_ = fields
        else:
            offset, address, _, length, _, flags, _ = fields
        if kind == _PT_LOAD and flags & _PF_W and offset < len(data):
            yield Memory(address, data[offset : offset + length], offset)
