"""Results of cases: as JSON objects, and held against the model's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fpstate import registers as regs
from fpstate.errors import UnreadableInput
from fpstate.isa import CONTROL_INSTRUCTIONS, Fault
from fpstate.isa.case import Case, Outcome, run
from fpstate.isa.processor import CONTROL
from fpstate.registers import REGISTERS
from fpstate.vectors.case import READS, decode
from fpstate.vectors.changes import SELECTORS, changed
from fpstate.vectors.fields import Document, hex_bytes, hex_number, quoted, text

__all__ = ["check", "encode", "run_document"]


def run_document(document: Document) -> Document:
    """Execute the case that *document* holds and return its result.

    Raises:
        FpstateError: it is no case; names the field.
    """
    if not isinstance(document, Mapping):
        raise UnreadableInput(f"a case must be an object, not {quoted(document)}")
    case = decode(document)
    return encode(case, run(case))


def encode(case: Case, outcome: Outcome) -> Document:
    """Return the result of a case: memory after it, every register that changed, the fault."""
    before, after = case.processor(), outcome.processor
    registers = changed(before.sections, after.sections, after.xcr0 | after.xss | before.xcr0)
    for name in CONTROL:
        if getattr(before, name) != getattr(after, name):
            registers[SELECTORS.get(name, name)] = f"{getattr(after, name):#x}"
    result: Document = {} if case.id is None else {"id": case.id}
    if case.op not in CONTROL_INSTRUCTIONS:
        result["memory"] = outcome.memory.hex()
    elif case.op in READS:
        result["value"] = None if outcome.value is None else f"{outcome.value:#x}"
    result["registers"] = registers
    result["fault"] = None if outcome.fault is None else _fault(outcome.fault)
    return result


def _fault(fault: Fault) -> Document:
    found: Document = {"vector": fault.vector, "error_code": fault.error_code, "rule": fault.rule.id}
    if fault.address is not None:
        found["address"] = f"{fault.address:#x}"
    if fault.bit is not None:
        found["bit"] = fault.bit
    if fault.offset is not None:
        found["offset"] = fault.offset
    return found


_COMPARED: Final = ("memory", "registers", "fault", "value")
"""The fields of a result that are compared."""


def check(document: Mapping[str, Any]) -> list[str]:
    """Compare another implementation's result with the model's.

    Args:
        document: ``{"case": {...}, "result": {...}}``.  Of the result, fields that are absent, and a ``rule`` that is
            null, are not compared.

    Returns:
        One line for each difference; empty if there is none.

    Raises:
        FpstateError: it is not of that form.
    """
    case, result = document.get("case"), document.get("result")
    if not isinstance(case, Mapping) or not isinstance(result, Mapping):
        raise UnreadableInput('a line to check must be {"case": {...}, "result": {...}}')
    unknown = sorted(set(result) - {*_COMPARED, "id", "xinuse"})
    if unknown:
        raise UnreadableInput(
            f"a result has no field {quoted(unknown[0])}", cure=f"fields are id, {', '.join(_COMPARED)}"
        )
    if not any(name in result for name in _COMPARED):
        raise UnreadableInput(f"a result must have one of {', '.join(_COMPARED)}: there is nothing to compare")
    expected = run_document(dict(case))
    differences = []
    if "memory" in result:
        differences += _memory_differences(result["memory"], expected.get("memory", ""))
    if "registers" in result:
        differences += _register_differences(result["registers"], expected["registers"])
    if "fault" in result:
        differences += _fault_differences(_check_fault(result["fault"]), expected["fault"])
    if "value" in result and "value" not in expected:
        raise UnreadableInput(f"{case.get('op')} has no value")
    if "value" in result:
        given = None if result["value"] is None else hex_number(result["value"], "value")
        right = None if expected["value"] is None else int(expected["value"], 16)
        if given != right:
            differences.append(f"value is {_number(given)}, must be {_number(right)}")
    return differences


def _memory_differences(given: object, right: str) -> list[str]:
    found, wanted = hex_bytes(given, "memory"), bytes.fromhex(right)
    if len(found) != len(wanted):
        return [f"memory is {len(found)} bytes, must be {len(wanted)}"]
    differing = [i for i, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1]]
    if not differing:
        return []
    first = differing[0]
    more = f", and {len(differing) - 1} more bytes" if len(differing) > 1 else ""
    return [f"memory byte {first} is {found[first]:#04x}, must be {wanted[first]:#04x}{more}"]


def _register_differences(given: object, right: Mapping[str, str]) -> list[str]:
    if not isinstance(given, Mapping):
        raise UnreadableInput(f"registers must be an object, not {quoted(given)}")
    given = {name.lower(): value for name, value in given.items()}
    differences = []
    for name in sorted({*given, *right}):
        if name not in given:
            differences.append(f"{name} must change to {right[name]}")
        elif name not in right:
            if name not in REGISTERS and name not in CONTROL and not name.startswith("bit"):
                raise UnreadableInput(f"registers: there is no register {quoted(name)}")
            differences.append(f"{name} must not change")
        elif _register_value(name, given[name]) != _register_value(name, right[name]):
            differences.append(f"{name} is {given[name]}, must be {right[name]}")
    return differences


def _register_value(name: str, value: object) -> bytes | int:
    given = text(value, name)
    if name.startswith("bit"):
        return hex_bytes(given, name)
    return regs.find(name).parse(given) if name in REGISTERS else hex_number(given, name)


_FAULT: Final = ("vector", "error_code", "rule", "address", "bit", "offset")


def _check_fault(given: object) -> Mapping[str, Any] | None:
    """Return the fault of a result.

    Raises:
        UnreadableInput: it is no object with a vector, or has an unknown field.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping) or "vector" not in given:
        raise UnreadableInput(f"fault must be null or an object with a vector, not {quoted(given)}")
    unknown = sorted(set(given) - set(_FAULT))
    if unknown:
        raise UnreadableInput(f"a fault has no field {quoted(unknown[0])}", cure=f"fields are {', '.join(_FAULT)}")
    return given


def _fault_differences(given: Mapping[str, Any] | None, right: Document | None) -> list[str]:
    if given is None or right is None:
        if given is None and right is None:
            return []
        shown = "no fault" if given is None else f"fault {given['vector']}"
        wanted = "none" if right is None else f"{right['vector']} ({right['rule']})"
        return [f"{shown}, must be {wanted}"]
    differences = [
        f"fault {key} is {given[key]}, must be {right.get(key)}"
        for key in ("vector", "error_code", "rule", "bit", "offset")
        if given.get(key) is not None and given[key] != right.get(key)
    ]
    if given.get("address") is not None and "address" in right:
        address = hex_number(given["address"], "fault.address")
        if address != int(right["address"], 16):
            differences.append(f"fault address is {address:#x}, must be {right['address']}")
    return differences


def _number(value: int | None) -> str:
    return "none" if value is None else f"{value:#x}"
