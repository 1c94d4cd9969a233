"""CPUID records in file order, sorted into logical CPUs: what all the formats that list records have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fpstate.cpu.dump import Dump, Leaves, Registers
from fpstate.cpu.formats.unnumbered import number_leaf_d
from fpstate.errors import UnreadableInput

__all__ = ["MAX_CPUS", "Collector", "registers", "without_echoes"]

MAX_CPUS: Final = 8192
"""Logical CPUs that one input may hold: NR_CPUS of the largest Linux configuration."""

_HYPERVISOR: Final = 0x4000_0000
_EXTENDED: Final = 0x8000_0000
_EXTENDED_END: Final = 0x8001_0000
"""Leaves from here on (80860000H, C0000000H, 8FFFFFFFH) are not counted by 80000000H."""


def registers(*digits: str) -> Registers:
    """Return four hex strings as EAX, EBX, ECX, EDX."""
    eax, ebx, ecx, edx = (int(each, 16) for each in digits)
    return eax, ebx, ecx, edx


def without_echoes(leaves: Leaves) -> tuple[Leaves, tuple[str, ...]]:
    """Return *leaves* without those beyond the highest leaf that leaf 0 or 80000000H states, and a note for each range.

    Intel CPUs answer a basic leaf above the highest with the data of the highest (SDM volume 2, CPUID), and an
    extended one likewise: such a record is an echo and says nothing.
    """
    notes: list[str] = []
    for base, end, kind in ((0, _HYPERVISOR, "basic"), (_EXTENDED, _EXTENDED_END, "extended")):
        if (base, 0) not in leaves:
            continue
        highest = leaves[base, 0][0]
        echoes = {leaf for leaf, _ in leaves if base <= leaf < end and leaf > highest}
        if echoes:
            leaves = {key: value for key, value in leaves.items() if key[0] not in echoes}
            notes.append(
                f"dropped {len(echoes)} leaves above {highest:#x}, the highest {kind} leaf that the CPU states"
            )
    return leaves, tuple(notes)


@dataclass(slots=True)
class _LogicalCpu:
    label: str | None
    first: tuple[int, int | None]
    rows: dict[int, list[tuple[int | None, Registers]]] = field(default_factory=dict)
    last: int = -1

    def leaves(self) -> tuple[dict[tuple[int, int], Registers], list[str]]:
        """Return the records by leaf and sub-leaf, with the numbers that the input left out, and what was guessed."""
        leaves: dict[tuple[int, int], Registers] = {}
        differing: dict[tuple[int, int], None] = {}
        guesses: list[str] = []
        for leaf, rows in self.rows.items():
            numbers = [at if number is None else number for at, (number, _) in enumerate(rows)]
            if leaf == 0xD and all(number is None for number, _ in rows):
                numbers = number_leaf_d([values for _, values in rows])
                if numbers != list(range(len(numbers))):
                    shown = ", ".join(map(str, numbers))
                    guesses.append(f"the rows of leaf 0xd carry no sub-leaf numbers: read as {shown}, by their content")
            for number, (_, values) in zip(numbers, rows, strict=False):
                if leaves.setdefault((leaf, number), values) != values:
                    differing[leaf, number] = None
        if differing:
            leaf, number = next(iter(differing))
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            guesses.append(
                f"leaf {leaf:#x} sub-leaf {number:#x}{more}: there twice with other values, the first is taken"
            )
        return leaves, guesses


class Collector:
    """Takes CPUID records as they come and makes one `Dump` of each logical CPU.

    A new logical CPU begins where a header names one, where leaf 0 comes again, or where the record comes again that
    the current one began with.
    """

    __slots__ = ("_cpus", "_header")

    def __init__(self) -> None:
        self._cpus: list[_LogicalCpu] = []
        self._header: str | None = None

    def header(self, label: str) -> None:
        """Take note that the records after this belong to the logical CPU called *label*."""
        self._header = label

    def add(self, leaf: int, subleaf: int | None, values: Registers, *, may_begin: bool = True) -> None:
        """Take a record.

        Args:
            leaf: the leaf.
            subleaf: the sub-leaf; None where the input does not number them.
            values: the registers.
            may_begin: False for records that never are the first of a logical CPU.
        """
        cpu = self._cpus[-1] if self._cpus else None
        if cpu is None or (may_begin and self._begins_anew(cpu, leaf, subleaf)):
            if len(self._cpus) == MAX_CPUS:
                raise UnreadableInput(f"more than {MAX_CPUS} logical CPUs in one input")
            cpu = _LogicalCpu(self._header, (leaf, subleaf))
            self._cpus.append(cpu)
        self._header = None
        cpu.rows.setdefault(leaf, []).append((subleaf, values))
        cpu.last = leaf

    def _begins_anew(self, cpu: _LogicalCpu, leaf: int, subleaf: int | None) -> bool:
        if self._header is not None and self._header != cpu.label:
            return True
        if leaf == 0 and 0 in cpu.rows:
            return True
        # Without numbers, the same leaf right after itself is its next sub-leaf.
        return (leaf, subleaf) == cpu.first and (subleaf is not None or cpu.last != leaf)

    def dumps(
        self,
        *,
        format: str,  # noqa: A002 - the field of Dump that it becomes
        zeros_unread: bool = False,
        os_linux: bool = False,
        complaints: tuple[str, ...] = (),
        guesses: tuple[str, ...] = (),
    ) -> list[Dump]:
        """Return the logical CPUs in file order."""
        found: list[Dump] = []
        for index, cpu in enumerate(self._cpus):
            all_leaves, own_guesses = cpu.leaves()
            leaves, echo_notes = without_echoes(all_leaves)
            found.append(
                Dump(
                    format=format,
                    leaves=leaves,
                    label=cpu.label,
                    index=index,
                    os_linux=os_linux,
                    zeros_unread=zeros_unread,
                    complaints=complaints,
                    guesses=(*guesses, *own_guesses),
                    notes=echo_notes,
                )
            )
        return found
