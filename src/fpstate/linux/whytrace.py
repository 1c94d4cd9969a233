"""Why a thread may not be traced, in words: what the kernel answers with EPERM alone.

Sources: ptrace(2), "Ptrace access mode checking"; Linux ``kernel/ptrace.c`` (``ptrace_attach``,
``__ptrace_may_access``), ``Documentation/admin-guide/LSM/Yama.rst``, proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fpstate.errors import UnreadableInput, printable

__all__ = ["explain", "refusal", "status_of"]

_CAP_SYS_PTRACE: Final = 19  # <linux/capability.h>
_PF_KTHREAD: Final = 0x00200000  # <linux/sched.h>; "Kthread:" of the status is younger (6.8)
_YAMA: Final = Path("/proc/sys/kernel/yama/ptrace_scope")


def refusal(tid: int) -> UnreadableInput:
    """Return the error that says why this process may not trace thread *tid*."""
    own = status_of(os.getpid())
    yama = None
    try:
        yama = int(_YAMA.read_text(encoding="ascii"))
    except (OSError, ValueError):  # a kernel without Yama
        yama = 0
    status = status_of(tid)
    tracer = status_of(_number(status, "TracerPid")) if _number(status, "TracerPid") else {}
    return explain(tid, status, own, tracer=tracer.get("Name", ""), yama=yama, kernel_thread=_is_kernel_thread(tid))


def status_of(tid: int) -> dict[str, str]:
    """Return the fields of /proc/*tid*/status; none where it is gone or hidden."""
    try:
        text = Path(f"/proc/{tid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: printable(value.strip()) for name, _, value in pairs}


def _number(status: Mapping[str, str], field: str, base: int = 10) -> int:
    """Return the first number of a field; 0 where it is missing."""
    try:
        return int(status.get(field, "").split()[0], base)
    except (IndexError, ValueError):
        return 0


def _is_kernel_thread(tid: int) -> bool:
    try:
        fields = Path(f"/proc/{tid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
        return bool(int(fields[6]) & _PF_KTHREAD)
    except (OSError, ValueError, IndexError):
        return False


def explain(
    tid: int,
    status: Mapping[str, str],
    own: Mapping[str, str],
    *,
    tracer: str = "",
    yama: int = 0,
    kernel_thread: bool = False,
) -> UnreadableInput:
    """Return why the process with status *own* may not trace thread *tid*, the surest reason first.

    Args:
        tid: the thread.
        status: its fields, see `status_of`.
        own: ours.
        tracer: the name of the process that traces it already.
        yama: /proc/sys/kernel/yama/ptrace_scope; 0 where there is none.
        kernel_thread: it belongs to the kernel.
    """
    thread = f"thread {tid} ({status.get('Name', '?')})"
    capable = bool(_number(own, "CapEff", 16) >> _CAP_SYS_PTRACE & 1)
    if status.get("Tgid") and status.get("Tgid") == own.get("Tgid"):
        return UnreadableInput(
            f"{thread} is one of fpstate's own process, and none can trace itself", cure="ask another"
        )
    if kernel_thread:
        return UnreadableInput(f"{thread} is a kernel thread: it has no user registers")
    if status.get("State", "")[:1] in {"Z", "X"}:
        return UnreadableInput(f"{thread} has exited, and only its status is left: it has no registers any more")
    if _number(status, "TracerPid"):
        by = f"{status['TracerPid']} ({tracer or '?'})"
        return UnreadableInput(f"{thread} is already traced by {by}, and can have one tracer", cure="detach that one")
    return _by_rights(thread, status, own, yama=yama, capable=capable)


def _by_rights(
    thread: str, status: Mapping[str, str], own: Mapping[str, str], *, yama: int, capable: bool
) -> UnreadableInput:
    if yama == 3:
        return UnreadableInput(
            f"{thread} may not be traced: Yama's ptrace_scope is 3, which forbids it to everybody until the next boot"
        )
    if capable:
        return UnreadableInput(
            f"{thread} may not be traced, although we have CAP_SYS_PTRACE: it is in another user namespace, or a "
            "security module, a seccomp filter or a container forbids it",
            cure="run fpstate in the initial user namespace, or allow ptrace to the container (--cap-add=SYS_PTRACE)",
        )
    if yama == 2:
        return UnreadableInput(
            f"{thread} may not be traced: Yama's ptrace_scope is 2, only CAP_SYS_PTRACE may", cure="run as root"
        )
    users = set(status.get("Uid", "").split()[:3])
    if users and users != {own.get("Uid", "").partition("\t")[0]}:
        return UnreadableInput(f"{thread} belongs to user {', '.join(sorted(users))}, not to us", cure="run as root")
    if yama == 1:
        return UnreadableInput(
            f"{thread} may not be traced: Yama's ptrace_scope is 1, and it is no descendant of this process",
            cure="run as root, or set /proc/sys/kernel/yama/ptrace_scope to 0, or have it call "
            "prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY)",
        )
    return UnreadableInput(
        f"{thread} may not be traced: it has more capabilities than we, or is not dumpable (its program cannot be read "
        "by us, or it called prctl(PR_SET_DUMPABLE, 0))",
        cure="run as root",
    )
