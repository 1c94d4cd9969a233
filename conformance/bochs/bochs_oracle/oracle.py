"""The oracle: cases in, results out."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bochs_oracle.emulator import Emulator
from bochs_oracle.errors import OracleError
from bochs_oracle.machine import MODELS, Machine, read_machine
from bochs_oracle.registers import normalised, show
from bochs_oracle.wire import END, Outcome, encode, outcomes, result

__all__ = ["Case", "Oracle", "Result", "model_of"]

Case = dict[str, Any]
Result = dict[str, Any]


def model_of(case: Mapping[str, Any]) -> str:
    """Return Bochs' name of the CPU of *case*: a name of ours or of Bochs', or {"bochs": name}.

    Raises:
        OracleError: the case names no model that Bochs has.
    """
    cpu = case.get("cpu")
    name = cpu.get("bochs") if isinstance(cpu, dict) else cpu
    model = MODELS.get(str(name), str(name))
    if model not in MODELS.values():
        raise OracleError(
            f'{case.get("id")}: no model of Bochs for {cpu!r}; give {", ".join(MODELS)} or {{"bochs": MODEL}}'
        )
    return model


class Oracle:
    """Bochs as a judge of cases."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self.machine = functools.cache(self._machine)

    def _machine(self, model: str) -> Machine:
        """Return what CPUID of *model* tells."""
        return read_machine(model, self._emulator.run(model, END))

    def judge(self, cases: Iterable[Case]) -> Iterator[Result]:
        """Yield the result of each case, model by model, in the order of the cases within a model.

        Raises:
            OracleError: a case cannot be run as it says.
        """
        by_model: dict[str, list[Case]] = {}
        for case in cases:
            by_model.setdefault(model_of(case), []).append(case)
        for model, group in by_model.items():
            yield from self._judge(self.machine(model), group)

    def _judge(self, machine: Machine, cases: Sequence[Case]) -> Iterator[Result]:
        """Yield the results of *cases*, once it is known that each register of each case can be set as it says."""
        for probe, outcome in self._run(machine, _probes(cases)):
            if wrong := result(machine, probe, outcome)["registers"]:
                state = normalised(machine, probe["registers"])
                told = "; ".join(f"{name} is {wrong[name]}, not {state.get(name)}" for name in sorted(wrong))
                raise OracleError(f"{probe['id']}: {machine.model} does not hold the registers as given: {told}")
        for case, outcome in self._run(machine, cases):
            yield result(machine, case, outcome)

    def _run(self, machine: Machine, cases: Iterable[Case]) -> Iterator[tuple[Case, Outcome]]:
        """Yield *cases* with their outcomes; each run of Bochs takes as many as fit into a table."""
        records: list[tuple[Case, bytes]] = []
        left = self._emulator.room - len(END)
        for case in cases:
            record = encode(machine, case)
            if len(record) > left:
                yield from self._run_table(machine, records)
                records, left = [], self._emulator.room - len(END)
            records.append((case, record))
            left -= len(record)
        yield from self._run_table(machine, records)

    def _run_table(self, machine: Machine, records: Sequence[tuple[Case, bytes]]) -> Iterator[tuple[Case, Outcome]]:
        """Yield the cases of one table with their outcomes."""
        lines = self._emulator.run(machine.model, b"".join([*(record for _, record in records), END]))
        found = list(outcomes(lines))
        if len(found) != len(records):
            raise OracleError(f"{machine.model}: {len(records)} cases went in, {len(found)} came out")
        yield from zip((case for case, _ in records), found, strict=True)


def _probes(cases: Sequence[Case]) -> list[Case]:
    """Return cases that do nothing, one for each set of registers: they show whether the guest can set it up."""
    found: dict[str, Case] = {}
    for case in cases:
        registers = case.get("registers", {})
        key = repr(sorted(registers.items()))
        if key not in found:
            masks = {"xcr0": case.get("xcr0", "0x1"), "xss": case.get("xss", show(0))}
            found[key] = {"id": case["id"], "op": "nop", "registers": registers, **masks}
    return list(found.values())
