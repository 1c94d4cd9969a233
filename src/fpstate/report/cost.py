"""The costs of a run under several policies, as text and as a document."""

from __future__ import annotations

from collections import Counter
from typing import Final

from fpstate.pricing.calibration import DERIVED
from fpstate.pricing.tariff import Range, total
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.tables import bold, columns_that_fit, table, wrapped
from fpstate.traces.census import OPS, UNKNOWN
from fpstate.traces.cost import Costs, Price, Row, paired

__all__ = ["document", "rows", "text"]


def document(costs: Costs, source: str) -> Document:
    """Return the costs; *source* is the recording's name."""
    counts, calibration = costs.counts, costs.tariff.calibration
    comparison = costs.comparison
    return {
        "schema": SCHEMA,
        "source": source,
        "cpu": comparison.cpu.name,
        "component": {"bit": comparison.component, "name": comparison.name},
        "calibration": {
            "source": calibration.source,
            "machine": calibration.machine.name,
            "date": calibration.machine.date,
            "unit": "TSC ticks",
        },
        "run": {
            "events": counts.events,
            "lost": counts.lost,
            "lost_places": counts.lost_rows,
            "stale": counts.stale,
            "tasks": sum(counts.tasks.values()),
            "vcpus": sum(counts.vcpus.values()),
            "moves": [
                {
                    "op": move.op,
                    "whose": "guest" if move.guest else "task",
                    "in_use": _mask(move.in_use),
                    "room": _mask(move.buffer),
                    "count": count,
                }
                for move, count in counts.moves.items()
            ],
        },
        "policies": _policies(costs),
        "assumptions": costs.assumptions(),
    }


def _policies(costs: Costs) -> dict[str, Document]:
    """Return the policies' part of the document, by name."""
    differences = {name: difference for name, _, difference in paired(costs)}
    first = next(iter(differences), None)
    return {
        name: _price(costs, price, None if name == first else first, differences.get(name))
        for name, price in costs.prices.items()
    }


def _price(costs: Costs, price: Price, first: str | None, difference: Range | None) -> Document:
    if price.refused is not None or difference is None:
        return {"refused": price.refused}
    names = costs.comparison.cpu.catalogue.names
    return {
        **_row(costs, price.never),
        "cycles": _cycles(costs.cycles(price)),
        "always": _row(costs, price.always),
        "never": _row(costs, price.never),
        "undetermined": {whose: names(mask) for whose, mask in price.undetermined.items()},
        "memory": {
            "tasks": price.memory.tasks,
            "vcpus": price.memory.vcpus,
            "own": price.memory.own,
            "total": price.memory.total,
        },
        "difference": None if first is None else {"to": first, "cycles": _cycles(difference)},
    }


def _row(costs: Costs, row: Row) -> Document:
    return {
        "bytes_saved": row.bytes_saved,
        "bytes_restored": row.bytes_restored,
        "saves": _by_mask(row.saves),
        "restores": _by_mask(row.restores),
        "msr_reads": row.msr_reads,
        "msr_writes": row.msr_writes,
        "cycles": _cycles(total(costs.tariff, row.items)),
    }


def _by_mask(counts: Counter[int]) -> dict[str, int]:
    return {hexmask(mask): count for mask, count in sorted(counts.items()) if count}


def _cycles(cost: Range) -> dict[str, int]:
    return {"low": round(cost.low), "mid": round(cost.mid), "high": round(cost.high)}


def _mask(mask: int) -> str | None:
    return None if mask == UNKNOWN else hexmask(mask)


# Text


def text(costs: Costs, source: str) -> str:
    """Return the run, the table of costs, and what they rest on."""
    counts = costs.counts
    head = (
        f"{bold(source)}: {counts.events} events, {sum(counts.tasks.values())} tasks, "
        f"{sum(counts.vcpus.values())} vCPUs, priced for {costs.comparison.cpu.name}"
    )
    parts = [head, _run(costs)]
    names = list(costs.prices)
    found = rows(costs)
    cells = [[name, *(row[i + 1] for row in found)] for i, name in enumerate(names)]
    for run in columns_that_fit([row[0] for row in found], cells):
        chosen = [[row[0], *(row[i + 1] for i in run)] for row in found]
        parts.append(table(("", *(names[i] for i in run)), chosen, right=range(1, len(run) + 1)))
    parts.append("taken for granted:\n" + "\n".join(map(wrapped, costs.assumptions())))
    parts.append("derived:\n" + "\n".join(wrapped(f"{name}: {words}.") for name, words in DERIVED.items()))
    return "\n\n".join(parts)


def _run(costs: Costs) -> str:
    """Return what the run did, whatever it did it with."""
    totals: Counter[tuple[str, bool]] = Counter()
    for move, count in costs.counts.moves.items():
        totals[move.op, move.guest] += count
    lines = [
        [op, str(totals[op, False]), str(totals[op, True]), words] for op, words in OPS.items() if op in _ops(totals)
    ]
    return table(("what happened", "task's", "guest's", ""), lines, right=(1, 2))


def _ops(totals: Counter[tuple[str, bool]]) -> set[str]:
    return {op for op, _ in totals}


def rows(costs: Costs) -> list[list[str]]:
    """Return the rows of the table: a label, then a cell a policy."""
    differences = {name: difference for name, _, difference in paired(costs)}
    first = next(iter(differences), None)
    found = [[label, *(_cell(price, key) for price in costs.prices.values())] for label, key in _ROWS]
    ticks = ["-" if price.refused else _shown(costs.cycles(price)) for price in costs.prices.values()]
    last = [_difference(name, first, differences.get(name)) for name in costs.prices]
    return [*found, ["TSC ticks of the run", *ticks], [f"dearer than {first}, ticks", *last]]


def _cell(price: Price, key: str) -> str:
    if price.refused is not None:
        return "-"
    return _CELLS[key](price)


def _difference(name: str, first: str | None, difference: Range | None) -> str:
    if difference is None:
        return "-"
    return "" if name == first else _shown(difference)


def _shown(cost: Range) -> str:
    return f"{cost.mid:,.0f} ({cost.low:,.0f} to {cost.high:,.0f})"


def _spanned(never: int, always: int) -> str:
    return f"{never:,}" if never == always else f"{never:,} (always in use: {always:,})"


def _calls(row: Counter[int]) -> str:
    return ", ".join(f"{count:,} of {hexmask(mask)}" for mask, count in sorted(row.items()) if count) or "none"


_CELLS: Final = {
    "saves": lambda p: _calls(p.never.saves),
    "restores": lambda p: _calls(p.never.restores),
    "saved": lambda p: _spanned(p.never.bytes_saved, p.always.bytes_saved),
    "restored": lambda p: _spanned(p.never.bytes_restored, p.always.bytes_restored),
    "reads": lambda p: f"{p.never.msr_reads:,}",
    "writes": lambda p: f"{p.never.msr_writes:,}",
    "memory": lambda p: f"{p.memory.total:,}",
}
_ROWS: Final = (
    ("saves in the run, by RFBM", "saves"),
    ("restores in the run, by RFBM", "restores"),
    ("bytes saved", "saved"),
    ("bytes restored", "restored"),
    ("RDMSR in the run", "reads"),
    ("WRMSR in the run", "writes"),
    ("memory of tasks and vCPUs", "memory"),
)
