"""The arguments that name an image and the machine that it is for, shared by the verbs that read one."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from fpstate import cpu as cpus
from fpstate import registers as regs
from fpstate.cli.streams import complain, forget
from fpstate.cpu import xcr0
from fpstate.cpu.model import Cpu
from fpstate.errors import FpstateError, UnreadableInput, UsageError
from fpstate.image import Image, read, remarks
from fpstate.isa import Capabilities, Processor
from fpstate.isa import profile as profiles

__all__ = ["add_machine", "assignments", "machine", "other_cpu", "read_as", "read_image", "write_image"]

_LARGEST: Final = 1 << 20


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add --xcr0, --xss, --xfd and --profile."""
    parser.add_argument("--xcr0", metavar="MASK", help="XCR0 (default: all that the CPU has)")
    parser.add_argument("--xss", metavar="MASK", help="IA32_XSS (default: all that the CPU has)")
    parser.add_argument("--xfd", metavar="MASK", default="0", help="IA32_XFD (default: 0)")
    parser.add_argument("--profile", metavar="NAME", help="how the CPU uses the freedom that the architecture leaves")


def other_cpu(name: str, cpu: Cpu) -> Cpu:
    """Return another CPU than *cpu*: ``host``, a name of the built-in table, or a file with a / or a . in its path."""
    return cpus.named_or_file(name, cpu.catalogue)


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
            what = {"xcr0": "enable in XCR0", "xss": "enable in IA32_XSS", "xfd": "disable by XFD"}[name]
            raise UsageError(f"--{name} {value:#x} has {cpu.catalogue.names(beyond)}, which {cpu.name} cannot {what}")
        setattr(p, name, value)
    broken = xcr0.fault(p.xcr0)
    if broken is not None:
        raise UsageError(f"--xcr0 {p.xcr0:#x} is none that XSETBV accepts: {broken.text}")
    return p


def read_as(path: str, cpu: Cpu | Capabilities) -> Image:
    """Return the image in a file, laid out as *cpu* does; what speaks against that goes to standard error.

    Raises:
        FpstateError: the file cannot be read, or is no such image; names it.
    """
    data = read_image(path)
    try:
        image = read(data, cpu)
    except FpstateError as refusal:
        raise type(refusal)(f"{_named(path)}: {refusal}") from refusal
    for remark in remarks(image):
        complain(f"fpstate: note: {_named(path)}: {remark}")
    return image


def _named(path: str) -> str:
    return "standard input" if path == "-" else path


def assignments(texts: Iterable[str], sizes: Mapping[int, int], option: str = "--set ") -> dict[str, bytes]:
    """Read ``REG=VALUE`` texts.

    Args:
        texts: each as `fpstate.registers.Register.parse` reads its value.
        sizes: component to its bytes on the CPU that is meant.
        option: what the texts stand behind, for messages.

    Raises:
        UsageError: one is none, or a register is named twice.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{option}{text[:40]!r} must be REG=VALUE")
        register = regs.find(name.strip(), sizes)
        if register.name in found:
            raise UsageError(f"{register.name} is set twice")
        found[register.name] = register.parse(value)
    return found


def read_image(path: str) -> bytes:
    """Return the bytes of a raw image; ``-`` is standard input.

    Raises:
        UnreadableInput: it cannot be read, is empty, or larger than 1 MiB.
    """
    where = _named(path) or "a file without a name"
    try:
        if path == "-":
            if sys.stdin is None:
                raise UnreadableInput("standard input is closed")
            data = sys.stdin.buffer.read(_LARGEST + 1)
        elif not path:
            raise UnreadableInput("a file must have a name")
        else:
            with Path(path).open("rb") as file:
                data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        if isinstance(error, FpstateError):
            raise
        raise UnreadableInput(f"cannot read {where}: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise UnreadableInput(f"{where} is empty")
    if len(data) > _LARGEST:
        raise UnreadableInput(f"{where} is larger than {_LARGEST >> 20} MiB: no XSAVE image is")
    for magic, kind in _OTHERS.items():
        if data.startswith(magic):
            raise UnreadableInput(f"{where} is {kind}, not an XSAVE image", cure="take the image out of it")
    return data


_OTHERS: Final = {
    b"\x7fELF": "an ELF file: a core's images are in its NT_X86_XSTATE notes",
    b"MDMP": "a minidump: its images are in CONTEXT_EX records",
    b"\x1f\x8b": "compressed",
    b"\x28\xb5\x2f\xfd": "compressed",
    b"\xfd7zXZ": "compressed",
}
"""Files that hold images, and are none."""


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
