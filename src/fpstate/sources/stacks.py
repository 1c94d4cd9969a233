"""Signal frames on the stacks of a live process, and in the memory that an ELF core holds.

Of a thread its stack is searched from the stack pointer upwards, while it is stopped: there lie the frames of the
handlers that it is in.  Of a core all writable memory is searched, for an alternate stack may be anywhere.

Sources: proc(5), elf(5), Linux ``<asm/user_64.h>``, ``<asm/user_32.h>``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from fpstate.cpu.model import Component
from fpstate.errors import CannotTell, FpstateError, UnreadableInput
from fpstate.isa import Capabilities
from fpstate.linux.tracee import NT_PRSTATUS, in_tracer
from fpstate.sources import elfcore
from fpstate.sources.capture import Capture, Thread
from fpstate.sources.input import Input
from fpstate.sources.process import host_cpu, leader_of, require_linux, stop, threads_of
from fpstate.sources.sigframe import Memory, find

__all__ = ["core_memory", "frames_of_core", "frames_of_process", "frames_of_thread"]

_RED_ZONE: Final = 128
"""Bytes below the stack pointer that a 64-bit program may use."""
_MOST_STACK: Final = 8 << 20
"""Bytes of one stack that are read: what RLIMIT_STACK allows by default."""
_RSP_64, _ESP_32 = 19 * 8, 15 * 4  # struct user_regs_struct, struct user_regs_struct32
_SIZEOF_64: Final = 27 * 8
_PF_W: Final = 2  # <linux/elf.h>


def frames_of_process(pid: int) -> Capture:
    """Return the signal frames on the stacks of the threads of process *pid*, one `Thread` each.

    Raises:
        UnreadableInput, CannotTell: as `fpstate.sources.process.capture_process`.
    """
    require_linux()
    leader = leader_of(pid)
    return _frames(f"pid {leader}", leader, threads_of(leader))


def frames_of_thread(tid: int) -> Capture:
    """Return the signal frames on the stack of thread *tid* alone, one `Thread` each.

    Raises:
        UnreadableInput, CannotTell: as `fpstate.sources.process.capture_process`.
    """
    require_linux()
    return _frames(f"tid {tid}", leader_of(tid), [tid])


def _frames(name: str, leader: int, tids: list[int]) -> Capture:
    """Return the frames on the stacks of threads *tids* of process *leader*."""
    cpu, reasons = host_cpu()
    caps = None if cpu is None or not cpu.has_xsave else Capabilities(cpu)
    frames: list[Thread] = []
    notes = list(reasons)
    refused: list[FpstateError] = []
    for tid, stack in in_tracer(partial(_stacks, leader, tids)):
        if isinstance(stack, Memory):
            found, remarks = find([stack], tid=tid, caps=caps)
            frames += found
            notes += remarks
        else:
            refused.append(stack)
    if refused and len(refused) == len(tids):
        raise refused[0]
    return Capture(name, "sigframe", frames, cpu, notes=(*notes, *map(str, refused)))


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


def frames_of_core(source: Input) -> Capture:
    """Return the signal frames in the memory of an ELF core, one `Thread` each, offsets in the core.

    The kernel lays a frame out as it does the notes (``copy_xstate_to_uabi_buf``, ``copy_fpstate_to_sigframe``): where
    the core says where components lie, that is so in its frames.

    Args:
        source: the core; a mapped file is read only where it holds writable memory.

    Raises:
        UnreadableInput: it is no ELF core of an x86 machine.
    """
    frames, notes = find(core_memory(source))
    layout = _layout_of(source)
    return Capture(source.name, "sigframe", [replace(frame, layout=layout) for frame in frames], notes=notes)


def _layout_of(source: Input) -> Mapping[int, Component] | None:
    """Return the layout note of a core; None if it has none, or no notes that can be read."""
    try:
        return next((thread.layout for thread in elfcore.read(source).threads), None)
    except UnreadableInput:
        return None


def core_memory(source: Input) -> Iterator[Memory]:
    """Yield the writable segments of an ELF core, as far as the file holds them.

    Raises:
        UnreadableInput: it is no ELF core of an x86 machine.
    """
    data = source.everything()
    for offset, address, size, flags in elfcore.memory(source):
        if flags & _PF_W and offset < len(data):
            yield Memory(address, data[offset : offset + size], offset)
