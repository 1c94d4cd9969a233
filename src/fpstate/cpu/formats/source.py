"""From a path to bytes: files, pipes, standard input, compressed files and the kernel's cpuid device."""

from __future__ import annotations

import os
import stat
import sys
from typing import BinaryIO, Final

from fpstate.compression import expand
from fpstate.cpu.dump import Dump, Registers
from fpstate.cpu.formats.registry import read
from fpstate.cpu.host import walk
from fpstate.errors import UnreadableInput

__all__ = ["MAX_INPUT", "load_bytes", "open_source", "read_device"]

MAX_INPUT: Final = 16 << 20
"""Bytes that an input may have, compressed and uncompressed: fifty times the largest public dump."""

_CPUID_MAJOR: Final = 203  # Documentation/admin-guide/devices.txt


def open_source(path: str, *, stdin: BinaryIO | None = None) -> list[Dump]:
    """Read whatever *path* is: a dump, compressed or not, a ``/dev/cpu/N/cpuid``, or ``-`` for standard input.

    Raises:
        UnreadableInput: it cannot be read, or not as anything that fpstate knows.
    """
    if path != "-" and _is_cpuid_device(path):
        return [read_device(path)]
    name = "standard input" if path == "-" else path
    return read(expand(load_bytes(path, stdin=stdin), name=name, limit=MAX_INPUT), name=name)


def load_bytes(path: str, *, stdin: BinaryIO | None = None) -> bytes:
    """Return the bytes of the file *path*, or of standard input if it is ``-``.

    Args:
        path: the file.
        stdin: what to read in place of this process's standard input.

    Raises:
        UnreadableInput: it cannot be read, or has more than `MAX_INPUT` bytes (or no end).
    """
    try:
        if path == "-":
            return _read_all(stdin or _standard_input(), "standard input")
        _refuse_device(path)
        with open(path, "rb") as file:  # noqa: PTH123 - a path may name a pipe
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size > MAX_INPUT:
                raise _too_large(path)
            return _read_all(file, path)
    except UnreadableInput:
        raise
    except (OSError, ValueError) as refused:  # ValueError: a path with a zero byte
        reason = refused.strerror if isinstance(refused, OSError) and refused.strerror else str(refused)
        raise UnreadableInput(f"cannot read {path!r}: {reason}") from refused


def _standard_input() -> BinaryIO:
    if sys.stdin is None:  # a daemon, or a shell's <&-
        raise UnreadableInput("standard input is closed", cure="give a file")
    return sys.stdin.buffer


def _read_all(stream: BinaryIO, name: str) -> bytes:
    """Return what *stream* holds, read piece by piece: a pipe gives what it has."""
    found = bytearray()
    while piece := stream.read(MAX_INPUT + 1 - len(found)):
        found += piece
        if len(found) > MAX_INPUT:
            raise _too_large(name)
    return bytes(found)


def _too_large(name: str) -> UnreadableInput:
    return UnreadableInput(
        f"{name} has more than {MAX_INPUT >> 20} MiB, the most that fpstate reads", cure="cut the part with CPUID out"
    )


def _refuse_device(path: str) -> None:
    """Refuse a character device before it is opened: one may never answer, and none but cpuid's holds a dump."""
    if stat.S_ISCHR(os.stat(path).st_mode):  # noqa: PTH116 - a path may name a pipe
        raise UnreadableInput(f"cannot read {path!r}: it is a device", cure="give a file, or /dev/cpu/N/cpuid")


def _is_cpuid_device(path: str) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116 - st_rdev is what tells
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == _CPUID_MAJOR


def read_device(path: str) -> Dump:
    """Read a ``/dev/cpu/N/cpuid``: all leaves, with their sub-leaves, of the CPU that it stands for.

    The driver executes CPUID on that CPU with EAX and ECX from the lower and upper half of the file offset.

    Raises:
        UnreadableInput: the device cannot be opened, or its CPU is offline.
    """

    def cpuid(leaf: int, subleaf: int) -> Registers:
        answer = os.pread(device.fileno(), 16, subleaf << 32 | leaf)
        if len(answer) != 16:
            raise UnreadableInput(f"{path} answered leaf {leaf:#x} with {len(answer)} bytes, not 16")
        eax, ebx, ecx, edx = (int.from_bytes(answer[at : at + 4], "little") for at in range(0, 16, 4))
        return eax, ebx, ecx, edx

    try:
        with open(path, "rb", buffering=0) as device:  # noqa: PTH123 - a device, read at offsets
            return Dump(format="cpuid-device", leaves=walk(cpuid), label=path, os_linux=True)
    except OSError as refused:
        cure = "run as root, with the cpuid driver loaded ('modprobe cpuid')"
        raise UnreadableInput(f"cannot read {path!r}: {refused.strerror}", cure=cure) from refused
