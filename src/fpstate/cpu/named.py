"""From a row of the built-in table to the CPUID leaves that it stands for."""

from __future__ import annotations

from fpstate.cpu.dump import Dump, Registers
from fpstate.cpu.flags import FLAGS
from fpstate.cpu.table import TableRow

__all__ = ["dump_of"]


def dump_of(row: TableRow) -> Dump:
    """Return the leaves of *row*: 0DH and 1DH as its dump prints them, 0, 1 and 7 as far as fpstate reads them.

    Leaf 0 and 1 give vendor, family, model and stepping, leaves 1 and 7 the flags that decide about xfeatures;
    every other bit is zero.
    """
    vendor = row.vendor.encode("ascii")
    ebx, edx, ecx = (int.from_bytes(vendor[i : i + 4], "little") for i in (0, 4, 8))
    top = 0x1D if row.leaf_1d else 0xD if row.leaf_d else 7
    registers: dict[tuple[int, int], list[int]] = {
        (0, 0): [top, ebx, ecx, edx],
        (1, 0): [_signature(row), 0, 0, 0],
        (7, 0): [0, 0, 0, 0],
    }
    for name in row.flags:
        flag = FLAGS[name]
        if flag.leaf == 7 and flag.subleaf:
            registers[7, 0][0] = max(registers[7, 0][0], flag.subleaf)
        registers.setdefault((flag.leaf, flag.subleaf), [0, 0, 0, 0])[flag.register] |= 1 << flag.bit
    leaves: dict[tuple[int, int], Registers] = {key: (r[0], r[1], r[2], r[3]) for key, r in registers.items()}
    leaves |= {(0xD, subleaf): values for subleaf, values in row.leaf_d.items()}
    leaves |= {(0x1D, subleaf): values for subleaf, values in enumerate(row.leaf_1d)}
    unproven = () if row.confidence == "dump" else (f"no dump of {row.name} is public: its row is {row.confidence}",)
    return Dump(format="table", label=row.name, leaves=leaves, guesses=unproven)


def _signature(row: TableRow) -> int:
    """Return CPUID.1:EAX for the row's family, model and stepping (Linux x86_family(), x86_model() backwards)."""
    base = min(row.family, 0xF)
    extended = row.family - base
    return extended << 20 | (row.model >> 4) << 16 | base << 8 | (row.model & 0xF) << 4 | row.stepping
