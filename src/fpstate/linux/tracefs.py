"""Tracing instances: ring buffers and event switches of our own, so that nobody's tracing is disturbed.

An instance is a folder of tracefs, named after the process that made it, and removed at the end whatever happens.
Sources: Linux ``Documentation/trace/ftrace.rst`` ("Instances", "stats"), ``Documentation/trace/events.rst``,
``kernel/trace/trace.c``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from fpstate.errors import CannotTell
from fpstate.linux.observe.libc import demand, libc

__all__ = ["Instance", "Stats", "expect_tracefs", "own_name", "refusal", "remove_leftovers"]

TRACEFS: Final = Path("/sys/kernel/tracing")
INSTANCES: Final = TRACEFS / "instances"
_LOCKDOWN: Final = Path("/sys/kernel/security/lockdown")
_PREFIX: Final = "fpstate-"
_OURS: Final = re.compile(rf"{_PREFIX}([0-9]+)")
_CPU: Final = re.compile(r"cpu([0-9]+)")
_ATTEMPTS, _PAUSE = 50, 0.02
_CLONE_NEWNS: Final = 0x20000  # <linux/sched.h>
_MS_REC_PRIVATE: Final = 1 << 14 | 1 << 18  # <linux/mount.h>


@dataclass(frozen=True, slots=True)
class Stats:
    """What a CPU's ``stats`` file counts, in events.

    Attributes:
        read: handed to readers.
        entries: still in the buffer.
        overrun: overwritten before they were read.
        commit_overrun: not written, because an interrupted writer held the buffer's last page.
        dropped: not written, because the buffer was full and must not overwrite.
    """

    read: int
    entries: int
    overrun: int
    commit_overrun: int
    dropped: int

    @property
    def lost(self) -> int:
        """Events that happened and are in no recording."""
        return self.overrun + self.commit_overrun + self.dropped

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Return what a ``stats`` file, *text*, says; what it does not say counts as 0."""
        said: dict[str, int] = {}
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if value.strip().isdigit():
                said[name.strip()] = int(value)
        names = ("read events", "entries", "overrun", "commit overrun", "dropped events")
        return cls(*(said.get(name, 0) for name in names))


def own_name() -> str:
    """Return the name of this process's instance."""
    return f"{_PREFIX}{os.getpid()}"


def expect_tracefs() -> bool:
    """See to it that tracefs is there; where it is not mounted, mount it in a mount namespace of this process's own.

    Returns:
        Whether it had to be mounted.  The namespace ends with the process, and its children share it.

    Raises:
        OSError: the kernel has no tracefs, or we may not use it; its ``filename`` says at which step.
    """
    os.stat(TRACEFS)  # noqa: PTH116 - Path.exists() would hide why not
    if INSTANCES.is_dir():
        return False
    _mount()
    return True


def _mount() -> None:
    import ctypes  # noqa: PLC0415 - importing this module stays cheap

    library, text = libc(), ctypes.c_char_p
    library.mount.argtypes = (text, text, text, ctypes.c_ulong, ctypes.c_void_p)
    demand(library.unshare(_CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    demand(library.mount(b"none", b"/", None, _MS_REC_PRIVATE, None), "making mounts private")
    demand(library.mount(b"tracefs", bytes(TRACEFS), b"tracefs", 0, None), "mounting tracefs")


def remove_leftovers() -> list[str]:
    """Remove the instances of fpstate processes that were killed before they could do it, and return their names.

    One whose process lives is left alone, and so is one that somebody has open: the kernel refuses to remove it.
    """
    removed = []
    for folder in INSTANCES.iterdir():
        ours = _OURS.fullmatch(folder.name)
        if ours and not Path("/proc", ours[1]).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()
                removed.append(folder.name)
    return sorted(removed)


def refusal(error: OSError, what: str) -> CannotTell:
    """Return the error that says why *what* (``recording``) cannot be done, with the cure."""
    if error.errno in {errno.EACCES, errno.EPERM}:
        if os.geteuid() != 0:
            return CannotTell(f"{what} needs root: tracefs is root's", cure="run it with sudo")
        with contextlib.suppress(OSError):
            if "[confidentiality]" in _LOCKDOWN.read_text():
                cure = "boot with lockdown=integrity or without lockdown="
                return CannotTell(
                    f"{what}: the kernel is locked down (confidentiality), which forbids tracing", cure=cure
                )
        place = f" {error.filename}" if error.filename else ""
        cure = "run it outside of the container, or give it CAP_SYS_ADMIN"
        return CannotTell(f"{what}: the kernel refuses{place} to root: {error.strerror}", cure=cure)
    if error.errno in {errno.ENOENT, errno.ENODEV}:
        cure = "use a kernel with CONFIG_TRACING, or mount it: mount -t tracefs tracefs /sys/kernel/tracing"
        return CannotTell(f"{what}: there is no tracefs ({error.filename}: {error.strerror})", cure=cure)
    return CannotTell(f"{what}: {error.filename or 'tracefs'}: {error.strerror}")


class Instance:
    """A tracing instance: made on entry, removed on exit.

    Args:
        name: of its folder; `own_name()` is recognised as a leftover should this process be killed.
        buffer_kb: KiB of its ring buffer, for each CPU.

    Attributes:
        path: the folder.
    """

    def __init__(self, name: str, *, buffer_kb: int) -> None:
        self.path = INSTANCES / name
        self._buffer_kb = buffer_kb

    def __enter__(self) -> Self:
        self.path.mkdir()
        try:
            self.write("buffer_size_kb", str(self._buffer_kb))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for _attempt in range(_ATTEMPTS):  # EBUSY while somebody looks into it
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(_PAUSE)
            else:
                return

    def has(self, event: str) -> bool:
        """Say whether this kernel has *event*, ``system/name``, now; KVM's come with its module."""
        return (self.path / "events" / event).is_dir()

    def events(self, system: str) -> list[str]:
        """Return the events of *system* as ``system/name``; none if this kernel has no such system."""
        folders = sorted((self.path / "events" / system).glob("*/format"))
        return [f"{system}/{each.parent.name}" for each in folders]

    def enable(self, event: str, condition: str = "") -> None:
        """Record *event*, ``system/name``, where *condition* holds.

        Raises:
            CannotTell: this kernel has no such event.
            OSError: it cannot be enabled.
        """
        if not self.has(event):
            raise CannotTell(f"this kernel has no tracepoint {event.replace('/', ':')}")
        if condition:
            self.write(f"events/{event}/filter", condition)
        self.write(f"events/{event}/enable", "1")

    def format(self, event: str) -> bytes:
        """Return the description of the fields of *event*, ``system/name``."""
        return (self.path / "events" / event / "format").read_bytes()

    def cpus(self) -> list[int]:
        """Return the numbers of the CPUs that have a buffer, in order."""
        names = (_CPU.fullmatch(each.name) for each in (self.path / "per_cpu").iterdir())
        return sorted(int(name[1]) for name in names if name)

    def stats(self, cpus: Sequence[int]) -> Mapping[int, str]:
        """Return the ``stats`` file of each of *cpus*, which `Stats.parsed` reads."""
        return {cpu: self.read(f"per_cpu/cpu{cpu}/stats") for cpu in cpus}

    def read(self, file: str) -> str:
        """Return the text of one of its files."""
        return (self.path / file).read_text(errors="replace")

    def write(self, file: str, text: str) -> None:
        """Write *text* to one of its files."""
        (self.path / file).write_text(text, encoding="ascii")

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Let events into the buffer while the block runs."""
        self.write("tracing_on", "1")
        try:
            yield
        finally:
            self.write("tracing_on", "0")
