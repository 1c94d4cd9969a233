"""This CPU's XSAVE instructions timed in user mode, point after point, in several runs.

All points are taken in turn, and that several times: what drifts (clock, neighbours on the machine) hits all of them,
and shows as the distance between the medians of the runs.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from itertools import accumulate
from math import gcd
from statistics import median
from typing import Final

from fpstate.cpu import this_host
from fpstate.cpu.model import Cpu
from fpstate.errors import FpstateError
from fpstate.isa.capabilities import Capabilities
from fpstate.linux.abi import ARCH_REQ_XCOMP_PERM
from fpstate.pricing import published
from fpstate.pricing.calibration import Calibration, Clock, Machine, Point
from fpstate.silicon import Executor, Step
from fpstate.silicon.memory import libc
from fpstate.silicon.timing import CHAIN, CHAIN_LENGTH, NOTHING
from fpstate.xfeatures import APX, AVX, AVX512, CATALOGUE, LEGACY, MPX, PKRU, SSE, XTILE, XTILEDATA, bits

__all__ = ["Plan", "measure", "plans", "summary"]

_GROUPS: Final = (LEGACY, AVX, MPX, AVX512, 1 << PKRU, XTILE, 1 << APX)
"""Components that come and go together, in the order in which they are added to a mask."""
_ALONE: Final = (AVX512, 1 << PKRU, XTILE)
_OPS: Final = {
    "XSAVE": "xsave64",
    "XSAVEOPT": "xsaveopt64",
    "XSAVEC": "xsavec64",
    "XRSTOR": "xrstor64",
    "XRSTOR compacted": "xrstor64",
    "FXSAVE": "fxsave64",
    "FXRSTOR": "fxrstor64",
}
_NEEDS: Final = {"XSAVEOPT": "XSAVEOPT", "XSAVEC": "XSAVEC", "XRSTOR compacted": "XSAVEC"}
"""The CPUID flag of an instruction that not every CPU with XSAVE has."""
_REPEATS: Final = 16
_AREA: Final = 12288
"""Bytes: more than an image of all user components of today's CPUs."""
_ARCH_PRCTL: Final = 158
_HYPERVISOR: Final = 1 << 31  # CPUID.1:ECX
_FILLING: Final = b"\x11"
_VALUES: Final = {
    PKRU: b"\x54\x55\x55\x55".ljust(8, b"\0"),  # Linux's own: key 0 allowed, else memory could not be reached
    (XTILE & -XTILE).bit_length() - 1: (b"\x01".ljust(16, b"\0") + b"\x40").ljust(48, b"\0") + b"\x10".ljust(16, b"\0"),
}
"""Components whose bytes mean something: PKRU; TILECFG, palette 1 with one tile of 16 rows of 64 bytes."""


@dataclass(slots=True)
class Plan:
    """A point to measure, and what has come of it: the samples of each run, in ticks.

    Attributes:
        instruction: of `INSTRUCTIONS`, or what `fpstate.silicon.timing` calls nothing and a chain.
        rfbm, in_use: the masks.
        repeats: executions in a sample.
        runs: the samples.
    """

    instruction: str
    rfbm: int
    in_use: int
    repeats: int = _REPEATS
    runs: list[tuple[int, ...]] = field(default_factory=list)


def plans(xcr0: int, has: Callable[[str], bool]) -> list[Plan]:
    """Return the points that matter where XCR0 is *xcr0*: by instruction, RFBM and XINUSE.

    RFBM grows by one group of components at a time; each with nothing and with all of it in use.  With RFBM as a
    kernel has it, everything, XINUSE grows too: with and without x87, which most programs leave initial.
    """
    groups = [group & xcr0 for group in _GROUPS if group & xcr0]
    prefixes = list(accumulate(groups, int.__or__))
    pairs = [(mask, used) for mask in (*prefixes, *(m & xcr0 for m in _ALONE if m & xcr0)) for used in (0, mask)]
    pairs += [(prefixes[-1], used) for prefix in (SSE, *prefixes) for used in (prefix, prefix & ~1)]
    found = [Plan(name, *pair) for pair in dict.fromkeys(pairs) for name in _OPS if name[0] == "X"]
    found += [Plan(name, LEGACY, LEGACY) for name in ("FXSAVE", "FXRSTOR")]
    return [plan for plan in found if has(_NEEDS.get(plan.instruction, "XSAVE"))]


def measure(*, samples: int = 1000, runs: int = 9) -> Calibration:
    """Return the calibration of this CPU; takes a few seconds.

    Args:
        samples: of each point in each run.
        runs: how many times all points are taken.

    Raises:
        UnreadableInput: this machine cannot execute it; says what is missing.
    """
    cpu = this_host()
    missing = ["XSAVES and XRSTORS fault in user mode (CPL must be 0): derived, see 'derived'"]
    with _pinned() as pinned, Executor() as executor:
        if not pinned:
            missing.append("this process could not be pinned to one CPU: samples of several may be mixed")
        caps = Capabilities(cpu)
        _request_amx(executor.xcr0)
        wanted = plans(executor.xcr0, caps.has)
        missing += [f"{name}: this CPU does not have it" for name, flag in _NEEDS.items() if not caps.has(flag)]
        overhead, empty, chain = Plan(NOTHING, 0, 0), Plan(NOTHING, 0, 0, 1), Plan(CHAIN, 0, 0, 1)
        _take(executor, [overhead, empty, chain, *wanted], samples, runs, missing)
        machine = _machine(cpu, executor.xcr0)
    clock = _clock(overhead, empty, chain)
    missing += _without(executor.xcr0, cpu.mask)
    missing += [f"{row.title}: {row.source}" for row in published.shipped().values() if row.low is None]
    return Calibration(
        source="",
        machine=machine,
        clock=clock,
        points=tuple(summary(plan, clock.overhead) for plan in wanted if plan.runs),
        published=published.shipped(),
        not_measured=tuple(missing),
    )


def _take(executor: Executor, wanted: list[Plan], samples: int, runs: int, missing: list[str]) -> None:
    """Take all points in turn, *runs* times; one that the CPU refuses is told of and left out."""
    refused: set[int] = set()
    for _ in range(runs):
        for at, plan in enumerate(wanted):
            if at in refused:
                continue
            try:
                plan.runs.append(_sample(executor, plan, samples))
            except FpstateError as refusal:
                refused.add(at)
                missing.append(f"{plan.instruction} of {plan.rfbm:#x} with {plan.in_use:#x} in use: {refusal}")


def _sample(executor: Executor, plan: Plan, samples: int) -> tuple[int, ...]:
    registers = _registers(executor, plan.in_use)
    op = _OPS.get(plan.instruction, plan.instruction)
    area = bytes(_AREA)
    if "RSTOR" in plan.instruction:
        save = "fxsave64" if op[0] == "f" else "xsavec64" if "compacted" in plan.instruction else "xsave64"
        area = executor.run([Step(save, plan.rfbm)], registers, area, loader="xrstor").memory
    return executor.time(op, plan.rfbm, registers, area, samples=samples, repeats=plan.repeats)


def _registers(executor: Executor, in_use: int) -> bytes:
    """Return the register image in which just *in_use* is in use: XRSTOR of it makes XINUSE so."""
    image = bytearray(executor.initial)
    if in_use & 1:
        image[32:160] = (_FILLING * 10 + bytes(6)) * 8
    if in_use & SSE:
        image[160:416] = _FILLING * 256
    for slot in executor.layout.slots:
        if slot.bit > 1 and in_use >> slot.bit & 1:
            image[slot.offset : slot.end] = _VALUES.get(slot.bit, b"").ljust(slot.size, _FILLING)[: slot.size]
    image[512:520] = in_use.to_bytes(8, "little")
    return bytes(image)


def summary(plan: Plan, overhead: float) -> Point:
    """Return the point of a plan's samples: ticks of one execution, *overhead* ticks a sample subtracted."""
    every = sorted(sample for run in plan.runs for sample in run)
    medians = [median(run) for run in plan.runs]

    def cost(ticks: float) -> float:
        return round((ticks - overhead) / plan.repeats, 2)

    quarter = len(every) // 4
    return Point(
        instruction=plan.instruction,
        rfbm=plan.rfbm,
        in_use=plan.in_use,
        minimum=cost(every[0]),
        q1=cost(every[quarter]),
        median=cost(median(every)),
        q3=cost(every[-1 - quarter]),
        low=cost(min(medians)),
        high=cost(max(medians)),
    )


def _clock(overhead: Plan, empty: Plan, chain: Plan) -> Clock:
    """Return what the readings say of themselves: a chain of additions has a known number of core clocks."""
    samples = [sorted(sample for run in plan.runs for sample in run) for plan in (overhead, empty, chain)]
    ticks = median(samples[2]) - median(samples[1])
    return Clock(
        granularity=reduce(gcd, (sample for row in samples for sample in row)),
        overhead=float(median(samples[0])),
        core_per_tick=round(CHAIN_LENGTH / max(ticks, 1), 2),
        repeats=overhead.repeats,
        samples=len(samples[0]),
        runs=len(overhead.runs),
    )


def _machine(cpu: Cpu, xcr0: int) -> Machine:
    brand = b"".join(
        word.to_bytes(4, "little") for leaf in (2, 3, 4) for word in cpu.register(0x8000_0000 + leaf, 0) or ()
    )
    signature, _, ecx, _ = cpu.register(1, 0) or (0, 0, 0, 0)
    return Machine(
        name=" ".join(brand.decode("ascii", "replace").replace("\0", " ").split()),
        signature=signature,
        hypervisor=bool(ecx & _HYPERVISOR),
        xcr0=xcr0,
        sizes={bit: part.size for bit, part in cpu.components.items() if xcr0 >> bit & 1},
        kernel=platform.release(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _without(xcr0: int, mask: int) -> list[str]:
    """Say which components of today's CPUs were not there to be measured."""
    names = [CATALOGUE.name(bit) for group in _GROUPS for bit in bits(group) if not xcr0 >> bit & 1]
    lines = [f"{', '.join(names)}: not enabled in XCR0 here"] if names else []
    supervisor = [CATALOGUE.name(bit) for bit in bits(mask & ~xcr0)]
    return lines + ([f"{', '.join(supervisor)}: user mode cannot move them"] if supervisor else [])


@contextlib.contextmanager
def _pinned() -> Iterator[bool]:
    """Stay on the CPU that is highest in this process's set; tell whether that is granted."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    try:
        if before:
            os.sched_setaffinity(0, {max(before)})
    except OSError:
        before = set()
    try:
        yield bool(before)
    finally:
        if before:
            os.sched_setaffinity(0, before)


def _request_amx(xcr0: int) -> None:
    """Ask Linux for tile data, which only who asked may load; a refusal shows as a fault later, and is told of then."""
    if xcr0 >> XTILEDATA & 1:
        libc().syscall(_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA, 0, 0)
