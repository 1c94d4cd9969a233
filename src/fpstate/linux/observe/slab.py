"""How large the kernel makes a task: struct task_struct with the struct fpu behind or in it, as the allocator sees it.

Sources: Linux ``mm/slub.c`` (sysfs), ``mm/slab_common.c`` (slabinfo).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fpstate.errors import CannotTell
from fpstate.linux.observe.fact import Observation, Probe

__all__ = ["PROBE", "objsize"]

_SYSFS: Final = Path("/sys/kernel/slab/task_struct/object_size")
_SLABINFO: Final = Path("/proc/slabinfo")


def objsize(slabinfo: str) -> int | None:
    """Return the third number of the task_struct line of /proc/slabinfo: its size rounded up to its alignment."""
    for line in slabinfo.splitlines():
        words = line.split()
        if len(words) > 3 and words[0] == "task_struct" and words[3].isdigit():
            return int(words[3])
    return None


def _task_struct(_seconds: float) -> list[Observation]:
    try:
        return [Observation("task_struct_slab", int(_SYSFS.read_text()), str(_SYSFS), None)]
    except (FileNotFoundError, ValueError):  # a kernel without CONFIG_SLUB_DEBUG shows slabinfo only
        size = objsize(_SLABINFO.read_text(encoding="ascii", errors="replace"))
    if size is None:
        raise CannotTell("/proc/slabinfo has no line task_struct")
    return [Observation("task_struct_slab", size, f"{_SLABINFO} (rounded up to its alignment)", None)]


PROBE: Final = Probe({"task_struct_slab": str(_SYSFS)}, _task_struct)
