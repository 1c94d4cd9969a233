"""The arguments that name an image and the machine that it is for, shared by the verbs that read one."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from fpstate.cli.streams import forget
from fpstate.cpu import xcr0
from fpstate.cpu.model import Cpu
from fpstate.errors import FpstateError, UnreadableInput, UsageError
from fpstate.isa import Capabilities, Processor
from fpstate.isa import profile as profiles

__all__ = ["add_machine", "machine", "read_image", "write_image"]

_LARGEST: Final = 1 << 20


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add --xcr0, --xss, --xfd and --profile."""
    parser.add_argument("--xcr0", metavar="MASK", help="XCR0 (default: all that the CPU has)")
    parser.add_argument("--xss", metavar="MASK", help="IA32_XSS (default: all that the CPU has)")
    parser.add_argument("--xfd", metavar="MASK", default="0", help="IA32_XFD (default: 0)")
    parser.add_argument("--profile", metavar="NAME", help="how the CPU uses the freedom that the architecture leaves")


def machine(args: argparse.Namespace, cpu: Cpu) -> Processor:
    """Return a processor of *cpu* in which the arguments have enabled components; the rest is initial.

    Raises:
        UsageError: the CPU has no XSAVE, or not the components.
    """
    p = Processor(Capabilities(cpu), None if args.profile is None else profiles.find(args.profile))
    allowed = {"xcr0": p.caps.user, "xss": p.caps.supervisor, "xfd": p.caps.xfd}
    for name, everything in allowed.items():
        text = getattr(args, name)
        value = everything if text is None else cpu.catalogue.parse_mask(text, everything=everything)
        beyond = value & ~everything
        if beyond:
            raise UsageError(f"--{name} {value:#x} has {cpu.catalogue.names(beyond)}, which {cpu.name} has not")
        setattr(p, name, value)
    broken = xcr0.fault(p.xcr0)
    if broken is not None:
        raise UsageError(f"--xcr0 {p.xcr0:#x} is none that XSETBV accepts: {broken.text}")
    return p


def read_image(path: str) -> bytes:
    """Return the bytes of a raw image; ``-`` is standard input.

    Raises:
        UnreadableInput: it cannot be read, is empty, or larger than 1 MiB.
    """
    where = "standard input" if path == "-" else path
    try:
        if path == "-":
            data = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise UnreadableInput(f"cannot read {where}: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise UnreadableInput(f"{where} is empty")
    if len(data) > _LARGEST:
        raise UnreadableInput(f"{where} is larger than {_LARGEST >> 20} MiB: no XSAVE image is")
    return data


def write_image(path: str, data: bytes) -> None:
    """Write *data* to *path* whole or not at all; ``-`` is standard output.  A device or a pipe is written to.

    Raises:
        UsageError: standard output is a terminal.
        UnreadableInput: it cannot be written.
    """
    try:
        if path == "-":
            _to_standard_output(data)
        elif os.path.lexists(path) and not os.path.isfile(path):  # noqa: PTH113  a name, as it was given
            with open(path, "wb", buffering=0) as file:  # noqa: PTH123  likewise
                file.write(data)
        else:
            _to_file(os.path.realpath(path), data)
    except (OSError, ValueError) as error:
        if isinstance(error, FpstateError):
            raise
        raise UnreadableInput(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


def _to_standard_output(data: bytes) -> None:
    if sys.stdout is None:
        raise FpstateError("standard output is closed")
    if sys.stdout.isatty():
        raise UsageError("an image is no text for a terminal", cure="give --output FILE")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        forget(sys.stdout)
    except OSError as error:
        forget(sys.stdout)
        raise FpstateError(f"cannot write to standard output: {error.strerror}") from error


def _to_file(path: str, data: bytes) -> None:
    """Write a new file beside *path* and put it in its place."""
    partial = f"{path}.part{os.getpid()}"
    try:
        Path(partial).write_bytes(data)
        if os.path.exists(path):  # noqa: PTH110  a name, as it was given
            shutil.copymode(path, partial)
        os.replace(partial, path)  # noqa: PTH105  likewise
    finally:
        Path(partial).unlink(missing_ok=True)
