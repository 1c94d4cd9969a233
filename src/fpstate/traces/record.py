"""Recording: what the kernel's tracepoints say of extended state, from now until a command ends, into one trace.dat.

The ring buffer is an instance of our own.  Its pages go into files beside the destination, which are packed into one
when recording is over; the destination appears complete or not at all.  What is recorded is what
`fpstate.traces.columns.EVENTS` knows.  Source: Linux ``Documentation/trace/ftrace.rst``.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fpstate.errors import CannotTell, FpstateError, UsageError
from fpstate.linux.tracefs import TRACEFS, Instance, Stats, expect_tracefs, own_name, refusal, remove_leftovers
from fpstate.traces import machine, packing, writer
from fpstate.traces.columns import EVENTS
from fpstate.traces.drain import Drain, page_size
from fpstate.traces.stop import Stop

__all__ = ["BUFFER_KB", "Plan", "Recorded", "record", "tracing"]

BUFFER_KB: Final = 4096
"""KiB of ring buffer a CPU: 60 ms of the most that one CPU was seen to trace."""
_CLOCK: Final = "mono"
_FPU: Final = "x86_fpu"
_GRACE: Final = 5.0
"""Seconds that a command gets for its end when it outlives the recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to record.

    Attributes:
        path: the file to write.
        events: ``system:name``, ``system:*``, ``system``, or a name of `EVENTS`; empty for all that the model knows.
        command: what to run meanwhile; empty for nothing.
        seconds: when to stop at the latest, or None.
        buffer_kb: KiB of ring buffer, for each CPU.
    """

    path: Path
    events: Sequence[str] = ()
    command: Sequence[str] = ()
    seconds: float | None = None
    buffer_kb: int = BUFFER_KB


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What was recorded.

    Attributes:
        path: the file.
        seconds: that were recorded.
        stats: CPU to what its ring buffer counted.
        size, raw_size: bytes of the file, and of its pages before they were packed.
        packing: how they were packed, ``zstd`` or ``zlib``.
        stopped_by: ``command``, ``seconds``, or a signal's name.
        status: of the command: its exit status, the negative number of the signal that killed it, None without one.
        missing: events that this kernel does not have.
        removed: instances of dead fpstate processes that were removed.
        notes: remarks.
    """

    path: Path
    seconds: float
    stats: Mapping[int, Stats]
    size: int
    raw_size: int
    packing: str
    stopped_by: str
    status: int | None
    missing: tuple[str, ...]
    removed: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def events(self) -> int:
        """How many events the file has."""
        return sum(each.read for each in self.stats.values())

    @property
    def lost(self) -> int:
        """How many more there were."""
        return sum(each.lost for each in self.stats.values())


@dataclass(frozen=True, slots=True)
class Set:
    """An instance that is ready to record.

    Attributes:
        instance: its events enabled, its recording off.
        events: those, ``system/name``.
        missing: events, ``system:name``, that this kernel does not have.
        removed: names of leftovers that were removed.
        mounted: whether tracefs had to be mounted, in a namespace that children share.
    """

    instance: Instance
    events: tuple[str, ...]
    missing: tuple[str, ...]
    removed: tuple[str, ...]
    mounted: bool


@contextlib.contextmanager
def tracing(wanted: Sequence[str], buffer_kb: int, what: str) -> Iterator[Set]:
    """Make an instance that records the *wanted* events, see `Plan.events`, and remove it at the end.

    Args:
        wanted: events.
        buffer_kb: KiB of its buffer, for each CPU.
        what: is done with it, for messages: ``recording``.

    Raises:
        CannotTell: tracing is not possible here, or there is no such event.
        UsageError: *wanted* names what is no event.
    """
    with contextlib.ExitStack() as held:
        try:
            mounted = expect_tracefs()
            removed = remove_leftovers()
            instance = held.enter_context(Instance(own_name(), buffer_kb=buffer_kb))
            instance.write("tracing_on", "0")
            instance.write("trace_clock", _CLOCK)
            events, missing = _chosen(instance, wanted)
            for event in events:
                instance.enable(event)
        except OSError as error:
            raise refusal(error, what) from error
        yield Set(instance, tuple(events), tuple(missing), tuple(removed), mounted)


def record(plan: Plan) -> Recorded:
    """Record as *plan* says, until its command ends, its seconds are over, or a signal asks for the end.

    Raises:
        CannotTell: tracing is not possible here, or there is no such event.
        UsageError: the command cannot be run, or the destination is no file.
        FpstateError: the destination cannot be written.
        KeyboardInterrupt: a second signal came; nothing is left behind.
    """
    target = _destination(plan)
    if plan.command and not shutil.which(plan.command[0]):
        raise UsageError(f"there is no command {plan.command[0]!r}", cure="give its path")
    try:
        with Stop() as stop, tempfile.TemporaryDirectory(prefix=".fpstate-", dir=target.parent) as folder:
            return _record(plan, target, Path(folder), stop)
    except OSError as error:
        raise FpstateError(f"cannot write {plan.path}: {error.strerror}") from error


def _destination(plan: Plan) -> Path:
    """Return the file to write; refuse what is no file, which a rename would destroy.

    Raises:
        UsageError: it is none, or its folder does not exist.
    """
    target = Path(os.path.realpath(plan.path))
    if not target.parent.is_dir():
        raise UsageError(f"cannot write {plan.path}: there is no folder {target.parent}")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(target.stat().st_mode):
            raise UsageError(f"cannot write {plan.path}: it is no file", cure="name a file with -o")
    return target


def _record(plan: Plan, target: Path, folder: Path, stop: Stop) -> Recorded:
    with tracing(plan.events, plan.buffer_kb, "recording") as ready:
        pages, ran = _drained(plan, ready.instance, folder, stop)
        if stop.error is not None:
            raise stop.error
        recording = _described(ready, pages)
    packed, how = folder / target.name, packing.best()
    with packed.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)  # the kernel's addresses are nobody else's business
        writer.write(file, recording, how)
    size, raw_size = packed.stat().st_size, sum(each.stat().st_size for each in pages.values())
    packed.replace(target)
    shared = ("tracefs was mounted for this process; the command shared its mount namespace",)
    return Recorded(
        path=plan.path,
        seconds=ran.seconds,
        stats={cpu: Stats.parsed(said) for cpu, said in recording.stats.items()},
        size=size,
        raw_size=raw_size,
        packing=how.name,
        stopped_by=ran.stopped_by,
        status=ran.status,
        missing=ready.missing,
        removed=ready.removed,
        notes=shared if ready.mounted and plan.command else (),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """How the time of recording passed."""

    seconds: float
    stopped_by: str
    status: int | None


def _drained(plan: Plan, instance: Instance, folder: Path, stop: Stop) -> tuple[dict[int, Path], _Run]:
    """Record while *plan*'s command runs; return the files of raw pages by CPU."""
    pages = {cpu: folder / f"cpu{cpu}" for cpu in instance.cpus()}
    with contextlib.ExitStack() as held:
        Drain.wake_at(instance)
        drains = []
        for cpu, path in pages.items():
            drains.append(Drain(instance, cpu, path, stop))
            held.callback(drains[-1].close)
        for drain in drains:
            drain.start()
        try:
            with instance.recording():
                ran = _run(plan, stop)
        finally:
            stop.ask("the end")
            for drain in drains:
                drain.join()
        for drain in drains:
            drain.finish()
    return pages, ran


def _run(plan: Plan, stop: Stop) -> _Run:
    """Run the command, if there is one, until it ends, the seconds are over, or the end is asked for."""
    start = time.monotonic()
    if not plan.command:
        ended = _wait(stop, plan.seconds, None)
        return _Run(time.monotonic() - start, ended, None)
    try:
        child = subprocess.Popen(plan.command)  # noqa: S603 - what the user asks for
    except OSError as error:
        raise UsageError(f"cannot run {plan.command[0]!r}: {error.strerror}") from error
    try:
        ended = _wait(stop, plan.seconds, child.pid)
        seconds = time.monotonic() - start
    finally:
        status = _ended(child)
    return _Run(seconds, ended, status)


def _wait(stop: Stop, seconds: float | None, child: int | None) -> str:
    """Wait, and return what ended it: ``seconds``, ``command``, or who asked for the end."""
    waiting = select.poll()
    waiting.register(stop.fd, select.POLLIN)
    with contextlib.ExitStack() as held:
        if child is not None:
            ends = os.pidfd_open(child)
            held.callback(os.close, ends)
            waiting.register(ends, select.POLLIN)
        ready = waiting.poll(None if seconds is None else max(0, round(1000 * seconds)))
    if stop:
        return stop.why
    return "command" if ready else "seconds"


def _ended(child: subprocess.Popen[bytes]) -> int:
    """Return the exit status of the command; one that outlives the recording is told to end, then killed."""
    if child.poll() is None:
        child.terminate()
        try:
            return child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()


def _chosen(instance: Instance, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the events to enable, ``system/name``, and those of the model, ``system:name``, that are missing here.

    Raises:
        CannotTell: this kernel has none of the model's, or not one that was asked for by name.
    """
    known = {event.name: event.system for event in EVENTS if event.system}
    if not wanted:
        others = [f"{system}/{name}" for name, system in known.items() if system != _FPU]
        fpu = instance.events(_FPU)
        if not fpu:
            raise CannotTell("this kernel has no tracepoints x86_fpu:*", cure="use an x86 kernel with CONFIG_TRACING")
        missing = [event.replace("/", ":") for event in others if not instance.has(event)]
        return fpu + [event for event in others if instance.has(event)], missing
    found: dict[str, None] = {}
    for word in wanted:
        system, _, name = word.partition(":")
        if not name:
            system, name = (known[word], word) if word in known else (word, "*")
        events = instance.events(system) if name == "*" else [f"{system}/{name}"]
        if not events or "/" in system + name or not all(map(instance.has, events)):
            hint = " (is its module loaded?)" if system == "kvm" else ""
            raise CannotTell(
                f"this kernel has no tracepoint {word!r}{hint}",
                cure=f"{TRACEFS / 'available_events'} lists what it has",
            )
        found.update(dict.fromkeys(events))
    return list(found), []


def _described(ready: Set, pages: Mapping[int, Path]) -> writer.Recording:
    """Return what is written, with all that explains the pages."""
    instance, folder = ready.instance, ready.instance.path / "events"
    formats: dict[str, list[bytes]] = {}
    for event in ready.events:
        formats.setdefault(event.partition("/")[0], []).append(instance.format(event))
    system = os.uname()
    return writer.Recording(
        pages=pages,
        page_size=page_size(instance),
        header_page=(folder / "header_page").read_bytes(),
        header_event=(folder / "header_event").read_bytes(),
        ftrace=[instance.format(event) for event in instance.events("ftrace")],
        formats=formats,
        comms=_comms(),
        clocks=instance.read("trace_clock"),
        clock=_CLOCK,
        uname=f"{system.sysname} {system.nodename} {system.release} {system.machine}",
        stats=instance.stats(list(pages)),
        facts=machine.describe(),
    )


def _comms() -> dict[int, str]:
    """Return the names of threads: those that live, and those that the kernel remembers of the ones that do not."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for line in (TRACEFS / "saved_cmdlines").read_text(errors="replace").splitlines():
            thread, _, name = line.partition(" ")
            if thread.isdigit():
                found[int(thread)] = name
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                for task in (process / "task").iterdir():
                    found[int(task.name)] = (task / "comm").read_text(errors="replace").rstrip("\n")
    return found
