"""What a run would have cost under a policy: a census, a machine and a calibration give a row.

A policy is priced by the rules that it sets: a save's RFBM follows the fpstate, a restore's the machine
(`fpstate.linux.config.BootConfig`).  What is in use is what the recording shows of it.  What the recording cannot show,
for its fpstates had no room for a component or its guests never used it, is bounded: the row exists once with the
component never in use and once with it always in use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fpstate.linux.compare import Column, Comparison
from fpstate.linux.config import CACHE_LINE
from fpstate.linux.kvm import FPSTATE_HEADER, PAGE
from fpstate.pricing.footprint import Footprint
from fpstate.pricing.tariff import Item, Range, Tariff, total
from fpstate.traces.census import UNKNOWN, Counts, Move

__all__ = ["Costs", "Memory", "Price", "Row", "paired", "price"]

_SAVES: Final = frozenset({"save", "swap save", "fork"})
_RESTORES: Final = frozenset({"restore", "swap restore"})


@dataclass(slots=True)
class Row:
    """What one policy does in the run.

    Attributes:
        bytes_saved, bytes_restored: that its saves write and its restores read; MSRs are none.
        saves, restores: RFBM to how often, those of a buffer of its own among them.
        msr_reads, msr_writes: RDMSR and WRMSR beside them.
        items: what has a cost, and how often.
    """

    bytes_saved: int = 0
    bytes_restored: int = 0
    saves: Counter[int] = field(default_factory=Counter)
    restores: Counter[int] = field(default_factory=Counter)
    msr_reads: int = 0
    msr_writes: int = 0
    items: Counter[Item] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of the fpstates seen in the run.

    Attributes:
        tasks: of tasks, as task_struct's slab object has them; of those that grew, the larger one too.
        vcpus: of vCPUs, in whole pages.
        own: what the component takes of vCPUs beside that: a buffer, or fields for MSRs.
    """

    tasks: int
    vcpus: int
    own: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.tasks + self.vcpus + self.own


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One policy's side.

    Attributes:
        column: what it does to the component.
        never, always: the run with what it does not show never in use, and always.
        memory: of all tasks and vCPUs.
        undetermined: what it does not show: components of tasks' and of guests' fpstates.
        refused: why it has no price; None if it has one.
    """

    column: Column
    never: Row
    always: Row
    memory: Memory
    undetermined: Mapping[str, int]
    refused: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The run under several policies, in the order asked for.

    Attributes:
        comparison: the policies.
        counts: the run.
        tariff: what an instruction costs.
        prices: by policy.
    """

    comparison: Comparison
    counts: Counts
    tariff: Tariff
    prices: Mapping[str, Price]

    def cycles(self, price_: Price) -> Range:
        """Return TSC ticks: from the least with nothing more in use to the most with all of it.

        In the middle as the run shows it.
        """
        return _spanned(total(self.tariff, price_.never.items), total(self.tariff, price_.always.items))

    def difference(self, price_: Price, other: Price) -> Range:
        """Return by how many ticks *price_* is dearer than *other*.

        What both do, both do at the same cost, however uncertain that is: so the difference is far more certain than
        either.
        """
        return _spanned(
            total(self.tariff, _less(price_.never.items, other.never.items)),
            total(self.tariff, _less(price_.always.items, other.always.items)),
        )

    def assumptions(self) -> list[str]:
        """Say what was taken for granted, one sentence a point."""
        return [*_assumed(self), *_GENERAL]


def _spanned(never: Range, always: Range) -> Range:
    return Range(min(never.low, always.low), never.mid, max(never.high, always.high))


def _less(one: Counter[Item], other: Counter[Item]) -> Counter[Item]:
    """Return how much oftener each item is in *one*, which may be a negative number."""
    found = one.copy()
    found.subtract(other)
    return found


_GENERAL: Final = (
    (
        "XSAVES leaves out what has not changed since the XRSTORS from the same image (the modified optimisation): the "
        "recording does not show what that is, and bytes and cycles are those without it."
    ),
    (
        "Restores that the kernel skipped, for the registers still held the task's state, cost nothing and are in no "
        "count; the saves of kernel_fpu_begin() print nothing and are in none either."
    ),
    "A vCPU's thread that is switched out in KVM_RUN moves what a design keeps beside the guest's fpstate as well.",
    "Memory is that of the tasks and vCPUs whose events the recording has; others there may be are not in it.",
    "PKRU, XCR0, IA32_XSS and IA32_XFD are written by no policy oftener than by another: they are not priced.",
)


def price(comparison: Comparison, counts: Counts, tariff: Tariff) -> Costs:
    """Price the run of *counts* under every policy of *comparison*.

    Raises:
        CannotTell: the calibration lacks an instruction that a policy's kernel uses.
    """
    prices = {
        column.policy.name: _Pricing(column, comparison.component, counts, tariff).price()
        for column in comparison.columns
    }
    return Costs(comparison=comparison, counts=counts, tariff=tariff, prices=prices)


class _Pricing:
    """One policy's price in the making."""

    def __init__(self, column: Column, component: int, counts: Counts, tariff: Tariff) -> None:
        self._column, self._config = column, column.config
        self._component = 1 << component
        self._counts, self._tariff = counts, tariff
        self._undetermined = {"tasks": 0, "guests": 0}
        guests = [move for move in counts.moves if move.guest and move.in_use != UNKNOWN]
        self._guests_use_it = any(move.in_use & self._component for move in guests)

    def price(self) -> Price:
        config = self._config
        if config.fate == "panic":
            nothing = Memory(tasks=0, vcpus=0, own=0)
            return Price(
                column=self._column,
                never=Row(),
                always=Row(),
                memory=nothing,
                undetermined={},
                refused=config.panic or "the kernel does not boot",
            )
        footprint = Footprint(config.cpu, config.xcr0, config.xss)
        never = self._row(footprint, always=False)
        always = self._row(footprint, always=True)
        return Price(
            column=self._column,
            never=never,
            always=always,
            memory=self._memory(),
            undetermined={whose: mask for whose, mask in self._undetermined.items() if mask},
        )

    # -- the row ---------------------------------------------------------------------------------------------------

    def _row(self, footprint: Footprint, *, always: bool) -> Row:
        row = Row()
        for move, count in self._counts.moves.items():
            in_use, rfbm = self._in_use(move, always=always), self._save_rfbm(move)
            if move.op in _SAVES:
                self._save(row, footprint, rfbm, in_use, count)
            elif move.op in _RESTORES:
                self._restore(row, footprint, (rfbm, self._restore_rfbm(move)), in_use, count)
        self._beside(row, footprint, always=always)
        return row

    def _save(self, row: Row, footprint: Footprint, rfbm: int, in_use: int, count: int) -> None:
        instruction = self._config.save_instruction
        row.saves[rfbm] += count
        row.bytes_saved += footprint.saved(instruction, rfbm, in_use) * count
        for item in self._tariff.saving(instruction, rfbm, in_use):
            row.items[item] += count

    def _restore(self, row: Row, footprint: Footprint, masks: tuple[int, int], in_use: int, count: int) -> None:
        """Add *count* restores; *masks* are the room of the image and RFBM."""
        config, (room, rfbm) = self._config, masks
        row.restores[rfbm] += count
        moved = footprint.restored(config.restore_instruction, config.save_instruction, room, rfbm, in_use)
        row.bytes_restored += moved * count
        for item in self._tariff.restoring(config.restore_instruction, rfbm, in_use):
            row.items[item] += count

    def _beside(self, row: Row, footprint: Footprint, *, always: bool) -> None:
        """Add what the design moves beside the fpstates when a guest's is left and entered, halves of a round trip."""
        left, entered = self._crossings()
        column = self._column
        row.msr_reads, row.msr_writes = column.msr_reads * left, column.msr_writes * entered
        row.items.update({Item("rdmsr"): row.msr_reads, Item("wrmsr"): row.msr_writes})
        if column.extra_xsaves:
            mask = self._component
            in_use = mask if always or self._guests_use_it else 0
            if not self._guests_use_it:
                self._undetermined["guests"] |= mask
            self._save(row, footprint, mask, in_use, left * column.extra_xsaves // 2)
            self._restore(row, footprint, (mask, mask), in_use, entered * column.extra_xsaves // 2)

    def _crossings(self) -> tuple[int, int]:
        """Return how often a thread left a guest's state and took it up: by KVM's swaps, and by switches between."""
        moves = self._counts.moves.items()
        left = sum(count for move, count in moves if move.op == "swap restore" and not move.guest)
        entered = sum(count for move, count in moves if move.op == "swap restore" and move.guest)
        switched = sum(count for move, count in moves if move.op == "save" and move.guest)
        return left + switched, entered + switched

    # -- masks -----------------------------------------------------------------------------------------------------

    def _save_rfbm(self, move: Move) -> int:
        """Saving follows the buffer; one that grew by permission grows under every policy that has such."""
        config = self._config
        if move.op == "fork":
            return config.save_rfbm
        grown = max(move.buffer, 0) & config.xfd
        return (config.guest_save_rfbm if move.guest else config.save_rfbm) | grown

    def _restore_rfbm(self, move: Move) -> int:
        """Restoring follows the machine."""
        return self._config.guest_restore_rfbm if move.guest else self._config.restore_rfbm

    def _in_use(self, move: Move, *, always: bool) -> int:
        """Return XSTATE_BV under this policy."""
        rfbm = self._save_rfbm(move)
        room = self._config.cpu.user_components if move.buffer == 0 else move.buffer
        if move.in_use == UNKNOWN:
            return rfbm if always else 0
        open_ = rfbm & ~room
        if move.guest and not self._guests_use_it:
            open_ |= rfbm & self._component
        if move.op in _SAVES | _RESTORES:
            self._undetermined["guests" if move.guest else "tasks"] |= open_
        return (move.in_use & rfbm) | (open_ if always else 0)

    # -- memory ----------------------------------------------------------------------------------------------------

    def _memory(self) -> Memory:
        column, config, counts = self._column, self._config, self._counts
        tasks = sum(
            count * (column.task_slab + self._grown(room, config.save_rfbm)) for room, count in counts.tasks.items()
        )
        vcpus = sum(
            count * (self._grown(room, config.guest_save_rfbm) or column.kvm.allocation_pages * PAGE)
            for room, count in counts.vcpus.items()
        )
        own = 0
        if column.extra_xsaves:
            own = _up(config.cpu.compacted_size(self._component), CACHE_LINE)
        elif column.msr_reads:
            own = column.msr_reads * 8
        return Memory(tasks=tasks, vcpus=vcpus, own=own * sum(counts.vcpus.values()))

    def _grown(self, room: int, rfbm: int) -> int:
        """Return the bytes of an fpstate that grew by dynamic components, which fpstate_realloc() asks vzalloc for."""
        config = self._config
        dynamic = room & config.xfd & ~rfbm
        if not dynamic:
            return 0
        cpu = config.cpu
        size = cpu.compacted_size(rfbm | dynamic) if config.compacted else cpu.standard_size(rfbm | dynamic)
        return _up(size + FPSTATE_HEADER, PAGE)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


# In words


def _assumed(costs: Costs) -> Iterator[str]:
    counts, name = costs.counts, costs.comparison.cpu.catalogue.names
    for policy, found in costs.prices.items():
        if found.refused is not None:
            yield f"{policy} has no price: {found.refused}."
    shared: dict[tuple[str, int], list[str]] = {}
    for policy, found in costs.prices.items():
        for whose, mask in found.undetermined.items():
            shared.setdefault((whose, mask), []).append(policy)
    for (whose, mask), policies in shared.items():
        yield (
            f"{', '.join(policies)}: the run does not show {name(mask)} in {whose}' state: the bounds are that it is "
            "never in use, and always."
        )
    if any(move.in_use == UNKNOWN for move in counts.moves):
        count = sum(count for move, count in counts.moves.items() if move.in_use == UNKNOWN)
        yield f"Moves of which the recording tells no mask: {count}. The bounds are that nothing is in use, and all."
    if counts.lost_rows:
        number = f"{counts.lost} events" if counts.lost else "events, nobody counted how many,"
        yield f"{number} were lost at {counts.lost_rows} places: they are not priced."
    if not counts.has_kvm:
        yield "The recording has no kvm_fpu event: every fpstate is taken for a task's own."
    source = costs.tariff.calibration
    yield f"Cycles are TSC ticks as on {source.machine.name or 'the calibrated CPU'}, calibrated {source.machine.date}."


def paired(costs: Costs) -> Sequence[tuple[str, Price, Range]]:
    """Return each policy with its price and by how much it is dearer than the first that has one."""
    priced = [(name, found) for name, found in costs.prices.items() if found.refused is None]
    return [(name, found, costs.difference(found, priced[0][1])) for name, found in priced]
