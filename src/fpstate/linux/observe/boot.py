"""What the kernel said about the FPU when it booted: its ``x86/fpu:`` lines and the largest signal frame.

Only this boot counts, and only if the log still holds it: lines lost from the start of the ring buffer are never taken
for lines that were not printed.  Sources: Linux ``Documentation/ABI/testing/dev-kmsg``, syslog(2), journalctl(1).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from fpstate.errors import CannotTell
from fpstate.linux.observe.fact import FAILURES, Observation, Probe, why
from fpstate.linux.observe.libc import demand, libc

__all__ = ["PROBE", "select"]

_PREFIXES: Final = ("x86/fpu: ", "signal: max sigframe size: ")
_FIRST_LINE: Final = "Linux version "
"""How the banner begins, the first line that any boot prints."""

_RECORD: Final = 8192  # more than CONSOLE_EXT_LOG_MAX: a shorter read of a longer record fails with EINVAL
_MOST_RECORDS: Final = 1 << 20
_SYSLOG_ACTION_READ_ALL, _SYSLOG_ACTION_SIZE_BUFFER = 3, 10  # <linux/syslog.h>


def select(lines: Iterator[str]) -> tuple[str, ...]:
    """Return the lines about the FPU among *lines*, the kernel's messages of one boot without time stamps.

    The FPU's lines stand together near the start.  A log that has lost its start still holds them all if the oldest
    line that it kept is an earlier one; if it is one of them, or if there are none, some may be lost.

    Raises:
        CannotTell: there are none, or some may be lost.
    """
    oldest: str | None = None
    banner = False
    found: list[str] = []
    for line in lines:
        if oldest is None:
            oldest = line
        banner = banner or line.startswith(_FIRST_LINE)
        if line.startswith(_PREFIXES):
            found.append(line)
    if oldest is None:
        raise CannotTell("it is empty")
    if found and not oldest.startswith(_PREFIXES):
        return tuple(found)
    if banner:
        raise CannotTell("the kernel printed no x86/fpu lines")
    raise CannotTell("it has lost the start of this boot", cure="boot with a larger log_buf_len=, or keep a journal")


def _from_kmsg(_seconds: float) -> Iterator[str]:
    """Yield the kernel's own messages from /dev/kmsg; records that user space wrote there carry another facility."""
    device = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        for _ in range(_MOST_RECORDS):
            try:
                record = os.read(device, _RECORD)
            except BlockingIOError:  # the end, for now
                return
            except BrokenPipeError:  # overwritten while we read; the next read goes on after the gap
                continue
            head, _, body = record.decode(errors="replace").partition(";")
            priority = head.partition(",")[0]
            if priority.isdigit() and int(priority) < 8:
                yield body.partition("\n")[0]
    finally:
        os.close(device)


def _from_syslog(_seconds: float) -> Iterator[str]:
    """Yield the kernel's own messages from syslog(2)."""
    import ctypes  # noqa: PLC0415 - see the package: importing it stays cheap

    klogctl = libc().klogctl
    size = demand(klogctl(_SYSLOG_ACTION_SIZE_BUFFER, None, 0), "syslog(SYSLOG_ACTION_SIZE_BUFFER)")
    buffer = ctypes.create_string_buffer(size)
    got = demand(klogctl(_SYSLOG_ACTION_READ_ALL, buffer, size), "syslog(SYSLOG_ACTION_READ_ALL)")
    for line in buffer.raw[:got].decode(errors="replace").splitlines():
        priority, closed, text = line.removeprefix("<").partition(">")
        if closed and priority.isdigit() and int(priority) < 8:
            yield _without_stamp(text)


def _without_stamp(text: str) -> str:
    """Remove ``[    0.251052] `` and, with CONFIG_PRINTK_CALLER, ``[    T0] `` after it."""
    while text.startswith("["):
        inside, closed, rest = text[1:].partition("]")
        if not closed or not inside.strip().lstrip("TC").replace(".", "").isdigit():
            break
        text = rest.removeprefix(" ")
    return text


def _from_program(*command: str) -> Callable[[float], Iterator[str]]:
    """Return a reader of what a program prints, for those whom the kernel itself does not let read its log."""

    def read(seconds: float) -> Iterator[str]:
        import shutil  # noqa: PLC0415 - see the package: importing it stays cheap
        import subprocess  # noqa: PLC0415 - likewise

        program = shutil.which(command[0])
        if program is None:
            raise CannotTell("not installed")
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command, found on the user's own PATH
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=seconds,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            raise CannotTell(f"no answer within {seconds:g} s") from None
        if done.returncode:
            raise CannotTell(f"ended with code {done.returncode}")
        for line in done.stdout.decode(errors="replace").splitlines():
            yield _without_stamp(line)

    return read


_READERS: Final[dict[str, Callable[[float], Iterator[str]]]] = {
    "/dev/kmsg": _from_kmsg,
    "syslog(SYSLOG_ACTION_READ_ALL)": _from_syslog,
    "journalctl -k -b": _from_program("journalctl", "--quiet", "--no-pager", "-k", "-b", "-o", "cat"),
    "dmesg": _from_program("dmesg"),
}


def _boot_log(seconds: float) -> list[Observation]:
    """Read the lines from the first of the places that still holds them all."""
    reasons = []
    for how, read in _READERS.items():
        try:
            return [Observation("boot_log", select(read(seconds)), how, None)]
        except OSError as error:
            reasons.append(why(error, how))
        except FAILURES as error:
            reasons.append(f"{how}: {why(error, how)}")
    raise CannotTell(" / ".join(reasons))


PROBE: Final = Probe({"boot_log": "the kernel's log"}, _boot_log)
