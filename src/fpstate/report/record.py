"""What ``fpstate trace record`` says when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fpstate.traces.record import Plan, Recorded

__all__ = ["document", "text"]


def document(plan: Plan, done: Recorded) -> dict[str, Any]:
    """Return the JSON document."""
    return {
        "schema": 1,
        "file": str(done.path),
        "seconds": round(done.seconds, 6),
        "stopped_by": done.stopped_by,
        "command": {"arguments": list(plan.command), "status": done.status} if plan.command else None,
        "events": done.events,
        "lost": done.lost,
        "cpus": {
            str(cpu): {
                "events": each.read,
                "overrun": each.overrun,
                "commit_overrun": each.commit_overrun,
                "dropped": each.dropped,
            }
            for cpu, each in done.stats.items()
        },
        "bytes": done.size,
        "bytes_unpacked": done.raw_size,
        "compression": done.packing,
        "missing_events": list(done.missing),
        "removed_instances": list(done.removed),
        "notes": list(done.notes),
    }


def text(plan: Plan, done: Recorded) -> str:
    """Return the same as text."""
    what = f"{done.events:,} events of {len(done.stats)} CPUs in {done.seconds:.2f} s"
    size = f"{done.size:,} bytes ({done.packing}; {done.raw_size:,} before)"
    lines = [f"{done.path}: {what}, {size}"]
    if done.status is not None:
        how = f"exit status {done.status}" if done.status >= 0 else f"killed by signal {-done.status}"
        lines.append(f"command {plan.command[0]}: {how}")
    if done.stopped_by not in {"command", "seconds"}:
        lines.append(f"stopped by {done.stopped_by}")
    lines += [f"events lost: {count:,} of CPU {cpu}" for cpu, count in _losses(done)]
    if done.lost:
        lines.append("cure: a larger --buffer, or fewer --events")
    lines += [f"note: this kernel has no {event}" for event in done.missing]
    lines += [f"note: removed {name}, left behind by a process that was killed" for name in done.removed]
    lines += [f"note: {note}" for note in done.notes]
    return "\n".join(lines if done.lost else [lines[0] + ", none lost", *lines[1:]])


def _losses(done: Recorded) -> list[tuple[int, int]]:
    return [(cpu, each.lost) for cpu, each in done.stats.items() if each.lost]
