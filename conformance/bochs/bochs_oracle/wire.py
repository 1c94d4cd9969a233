"""Between the vectors format and the guest: cases to its table, its lines to results.

The layout of a record is that of ``struc case`` in guest.asm.
"""

from __future__ import annotations

import dataclasses
import itertools
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from bochs_oracle.errors import OracleError
from bochs_oracle.machine import Machine
from bochs_oracle.registers import CET_MSRS, TILES, State, changed, load_image, normalised, read_image, show, shown

__all__ = ["END", "OPS", "WINDOW", "Outcome", "encode", "outcomes", "result"]

END: Final = bytes(64)
"""What ends a table."""

WINDOW: Final = range(0x400000, 0x600000)
"""The linear addresses at which an area may lie."""

# Memory operand [RDI], in 32-bit code [EDI]: the same bytes
OPS: Final[Mapping[str, bytes]] = {
    name: bytes.fromhex(code)
    for name, code in {
        "nop": "90",
        "xsave": "0fae27",
        "xsave64": "480fae27",
        "xsaveopt": "0fae37",
        "xsaveopt64": "480fae37",
        "xsavec": "0fc727",
        "xsavec64": "480fc727",
        "xsaves": "0fc72f",
        "xsaves64": "480fc72f",
        "xrstor": "0fae2f",
        "xrstor64": "480fae2f",
        "xrstors": "0fc71f",
        "xrstors64": "480fc71f",
        "fxsave": "0fae07",
        "fxsave64": "480fae07",
        "fxrstor": "0fae0f",
        "fxrstor64": "480fae0f",
        "xgetbv": "0f01d0",
        "xsetbv": "0f01d1",
        "rdmsr": "0f32",
        "wrmsr": "0f30",
    }.items()
}
"""The instructions by name."""

_INT_20H: Final = b"\xcd\x20"
_DONE: Final = 0x20
_PAGE: Final = 0x1000
_FILLER: Final = 0xCC
"""Fills the last page behind an area: a byte of it that changes betrays a case whose memory is too short."""

_RECORD: Final = struct.Struct("<4I16s6Q7Q3I")
_FLAGS: Final = ("ts", "em", "am", "ac")  # from bit 3 on
_VECTORS: Final = {
    0: "#DE",
    1: "#DB",
    3: "#BP",
    6: "#UD",
    7: "#NM",
    8: "#DF",
    10: "#TS",
    11: "#NP",
    12: "#SS",
    13: "#GP",
    14: "#PF",
    16: "#MF",
    17: "#AC",
    19: "#XM",
    21: "#CP",
}
_WITH_ERROR_CODE: Final = {8, 10, 11, 12, 13, 14, 17, 21}
_PAGE_FAULT: Final = 14
_XTILEDATA: Final = 18


def encode(machine: Machine, case: Mapping[str, Any]) -> bytes:
    """Return the record of *case*.

    Raises:
        OracleError: the guest or the machine cannot do what the case asks.
    """
    _check(machine, case)
    state = normalised(machine, case.get("registers", {}))
    image, load32 = load_image(machine, state)
    loaded = [n for n, name in enumerate(TILES) if int(state.get(name, "0"), 16)]
    rows = [bytes.fromhex(state[TILES[n]]) for n in loaded]
    area = _area(case)
    load_at = -(-_RECORD.size // 64) * 64
    rows_at = -(-(load_at + len(image)) // 64) * 64
    area_at = rows_at + 1024 * len(rows)
    length = -(-(area_at + len(area)) // 64) * 64
    head = _RECORD.pack(
        length,
        zlib.crc32(case["id"].encode()),  # for a reader of the guest's lines
        _flags(case) | load32 << 2,
        sum(1 << n for n in loaded),
        (OPS[case["op"]] + _INT_20H).ljust(16, b"\x90"),
        _number(case, "value" if "value" in case else "rfbm"),
        _number(case, "ecx"),
        _number(case, "address"),
        len(area),
        _number(case, "xcr0", 1),
        _number(case, "xss"),
        *(int(state.get(name, "0"), 0) for name in CET_MSRS),
        load_at,
        rows_at,
        area_at,
    )
    record = bytearray(length)
    for at, part in ((0, head), (load_at, image), (rows_at, b"".join(rows)), (area_at, area)):
        record[at : at + len(part)] = part
    return bytes(record)


def _check(machine: Machine, case: Mapping[str, Any]) -> None:
    """Refuse what would not be done as the case says."""
    if case["op"] not in OPS:
        raise OracleError(f"{case['id']}: no instruction {case['op']}")
    if _number(case, "xfd"):
        raise OracleError(f"{case['id']}: {machine.model} has no XFD")
    if case.get("cpl", 0) not in {0, 3} or case.get("mode", 64) not in {32, 64}:
        raise OracleError(f"{case['id']}: the guest knows CPL 0 and 3, modes 32 and 64")
    if case.get("mode", 64) == 32 and case["op"].endswith("64"):
        raise OracleError(f"{case['id']}: {case['op']} does not exist in mode 32")
    named = case.get("registers", {})
    if "tilecfg" not in named and any(name in named for name in TILES):
        raise OracleError(f"{case['id']}: tiles can be loaded only with a tilecfg")
    memory, address = case.get("memory", ""), _number(case, "address")
    if memory and (address not in WINDOW or address + len(memory) // 2 > WINDOW.stop):
        raise OracleError(f"{case['id']}: the area must lie in {WINDOW.start:#x}-{WINDOW.stop - 1:#x}")


def _flags(case: Mapping[str, Any]) -> int:
    """Return the flags of a record, without F_LOAD32."""
    flags = int(case.get("mode", 64) == 32) | int(case.get("cpl", 0) == 3) << 1
    flags |= sum(1 << bit for bit, name in enumerate(_FLAGS, start=3) if case.get(name, False))
    return flags | int(not case.get("osxsave", True)) << 7 | int(not case.get("osfxsr", True)) << 8


def _area(case: Mapping[str, Any]) -> bytes:
    """Return the bytes of the area, filled up to the end of its last page."""
    memory = bytes.fromhex(case.get("memory", ""))
    if not memory:
        return b""
    end = _number(case, "address") + len(memory)
    return memory + bytes([_FILLER]) * (-end % _PAGE)


def _number(case: Mapping[str, Any], key: str, absent: int = 0) -> int:
    return int(case[key], 0) if key in case else absent


@dataclasses.dataclass
class Outcome:
    """What the guest printed about one case."""

    fault: tuple[int, int, int] = (0, 0, 0)  # vector, error code, CR2
    numbers: dict[str, int] = dataclasses.field(default_factory=dict)
    changed: list[tuple[int, bytes]] = dataclasses.field(default_factory=list)
    image: bytearray = dataclasses.field(default_factory=lambda: bytearray(0x3000))
    legacy: bytes = bytes(16)
    tiles: bytearray = dataclasses.field(default_factory=lambda: bytearray(0x2000))
    msrs: tuple[int, ...] = ()

    def add(self, line: str) -> None:
        """Take one line of the guest."""
        letter, *words = line.split()
        if letter == "F":
            vector, code, cr2 = (int(word, 16) for word in words)
            self.fault = (vector, code, cr2)
        elif letter in {"V", "0", "1", "S"}:
            self.numbers[letter] = int(words[0], 16)
        elif letter == "M":
            self.changed.append((int(words[0], 16), bytes.fromhex(words[1])))
        elif letter in {"R", "T"}:
            into, at, held = (self.image if letter == "R" else self.tiles), int(words[0], 16), bytes.fromhex(words[1])
            into[at : at + len(held)] = held
        elif letter == "X":
            self.legacy = bytes.fromhex(words[0])
        elif letter == "P":
            self.msrs = tuple(int(word, 16) for word in words)
        else:
            raise OracleError(f"not a line of the guest: {line}")

    def state(self, machine: Machine) -> State:
        """Return every register after the instruction."""
        state = read_image(machine, bytes(self.image), self.legacy)
        if machine.has_amx:
            state["tilecfg"] = _swapped(state["tilecfg"])
            state |= {name: self._tile(machine, n, state["tilecfg"]).hex() for n, name in enumerate(TILES)}
        return state | {name: show(value) for name, value in zip(CET_MSRS, self.msrs, strict=False)}

    def _tile(self, machine: Machine, number: int, config: str) -> bytes:
        """Return a tile: as TILESTORED wrote it if the guest could do that, otherwise as XSAVE64 did."""
        held = bytes.fromhex(config)
        if held[16 + 2 * number] and held[48 + number] and not held[1]:
            return bytes(self.tiles[1024 * number : 1024 * (number + 1)])
        at = machine.offset(_XTILEDATA) + 1024 * number
        return bytes(self.image[at : at + 1024])


def _swapped(config: str) -> str:
    """Return a TILECFG whose rows and bytes a row have changed places.

    Bochs' XSAVE writes them the wrong way round (README.md, tilecfg-swapped), and STTILECFG does not run there; so what
    XSAVE shows is turned back, to tell what the register holds.
    """
    held = bytes.fromhex(config)
    widths, rows = held[16:48], held[48:64]
    return (held[:16] + b"".join(bytes([count, 0]) for count in rows) + widths[::2]).hex()


def outcomes(lines: Iterable[str]) -> Iterator[Outcome]:
    """Yield the outcome of each case that the guest ran, in the order of the table."""
    left = iter(lines)
    for line in left:
        if not line.startswith("C "):
            continue
        outcome = Outcome()
        for detail in itertools.takewhile(lambda detail: detail != "E", left):
            outcome.add(detail)
        yield outcome


def result(machine: Machine, case: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return what happened to *case* in the vectors format.

    Raises:
        OracleError: bytes behind the memory of the case have changed.
    """
    before = normalised(machine, case.get("registers", {}))
    before |= {"xcr0": show(_number(case, "xcr0", 1)), "xss": show(_number(case, "xss"))}
    after = outcome.state(machine) | {"xcr0": show(outcome.numbers["0"])}
    after["xss"] = show(outcome.numbers.get("S", 0))
    found: dict[str, Any] = {"id": case["id"]}
    if "memory" in case:
        found["memory"] = _memory(case, outcome)
    enabled = _number(case, "xcr0", 1) | int(after["xcr0"], 0) | int(after["xss"], 0)
    found["registers"] = shown(changed(before, after), enabled)
    found["fault"] = _fault(outcome)
    if case["op"] in {"rdmsr", "xgetbv"} and found["fault"] is None:
        found["value"] = show(outcome.numbers["V"])
    if "1" in outcome.numbers and case.get("mode", 64) == 64:
        found["xinuse"] = show(outcome.numbers["1"])
    return found


def _memory(case: Mapping[str, Any], outcome: Outcome) -> str:
    """Return the area after the instruction."""
    area = bytearray(_area(case))
    for at, held in outcome.changed:
        area[at : at + 16] = held[: len(area) - at]
    size = len(case["memory"]) // 2
    if area[size:] != bytes([_FILLER]) * (len(area) - size):
        raise OracleError(f"{case['id']}: the instruction wrote behind the {size} bytes of the case's memory")
    return area[:size].hex()


def _fault(outcome: Outcome) -> dict[str, Any] | None:
    """Return the fault in the vectors format."""
    vector, code, cr2 = outcome.fault
    if vector == _DONE:
        return None
    fault: dict[str, Any] = {
        "vector": _VECTORS.get(vector, f"vector {vector}"),
        "error_code": code if vector in _WITH_ERROR_CODE else None,
        "rule": None,
    }
    if vector == _PAGE_FAULT:
        fault["address"] = show(cr2)
    return fault
