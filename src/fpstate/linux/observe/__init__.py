"""The running machine: everything about x86 extended state that its kernel lets a program see.

`observe` reads each fact where the kernel publishes it and says, where it cannot, which part is missing.  It never
guesses and never raises: a container, an unprivileged user, an old kernel and another architecture only get more
reasons.  What could disturb the caller (signals, tracing, namespaces, a guest) happens in helper processes.

Importing this package is cheap on every platform: ctypes and the modules that read load with the first call.
"""

from __future__ import annotations

import os
from pathlib import Path

from fpstate.linux.observe.fact import Observation

__all__ = ["Observation", "cmdline", "kernel_release", "observe"]


def observe(*, seconds: float = 2.0) -> list[Observation]:
    """Return every fact, in one order that never changes.

    Args:
        seconds: how long any one helper process may take; one that takes longer is stopped, and is the reason.
    """
    from fpstate.cpu.host import why_not_x86_64  # noqa: PLC0415 - see the module's docstring
    from fpstate.linux.observe import boot, frame, kvm, regset, slab, task, tracing  # noqa: PLC0415 - likewise

    probes = (boot.PROBE, *task.PROBES, frame.PROBE, regset.PROBE, kvm.PROBE, tracing.PROBE, slab.PROBE)
    refusal = why_not_x86_64()
    if refusal:
        return [observation for probe in probes for observation in probe.missing(refusal)]
    return [observation for probe in probes for observation in probe.observe(seconds)]


def kernel_release() -> str:
    """Return the release of the running kernel, e.g. ``6.18.44``; ``unknown`` where there is no uname(2)."""
    return os.uname().release if hasattr(os, "uname") else "unknown"


def cmdline() -> str | None:
    """Return the command line that the running kernel was booted with; None if it cannot be read."""
    try:
        return Path("/proc/cmdline").read_text(errors="replace").strip()
    except OSError:
        return None
