"""What is known of Bochs 3.1 that the architecture says otherwise, or leaves free: README.md has the words.

A name that begins with ``free-`` is no defect: the architecture lets a processor do that, and Bochs' way is one of
many.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bochs_oracle.machine import HEADER_END, Machine
from bochs_oracle.registers import TILES, normalised

__all__ = ["DEFECTS", "defect"]

_SSE_BIT: Final = 1 << 1
_XTILECFG, _XTILEDATA = 1 << 17, 1 << 18
_BIT_63: Final = 1 << 63
_MXCSR_INITIAL: Final = 0x1F80
_FXSAVE_USED: Final = 416
_HALF_OF_ALL_ROWS: Final = 8


@dataclasses.dataclass(frozen=True)
class _Judged:
    """A case and its result, with what the predicates ask for."""

    machine: Machine
    case: Mapping[str, Any]
    result: Mapping[str, Any]

    @functools.cached_property
    def op(self) -> str:
        """The instruction without its form."""
        name: str = self.case["op"]
        return name.removesuffix("64")

    @property
    def vector(self) -> str | None:
        """The fault's vector."""
        fault = self.result["fault"]
        return fault["vector"] if fault else None

    def number(self, key: str) -> int:
        """A field of the case."""
        return int(self.case.get(key, "0"), 0)

    @functools.cached_property
    def memory(self) -> bytes:
        """The area before."""
        return bytes.fromhex(self.case.get("memory", ""))

    @property
    def rfbm(self) -> int:
        """EDX:EAX, as far as XCR0 and IA32_XSS have its bits."""
        enabled = self.number("xcr0") | (self.number("xss") if self.op in {"xsaves", "xrstors"} else 0)
        return self.number("rfbm") & enabled

    def header(self, at: int) -> int:
        """A number of the header before."""
        return int.from_bytes(self.memory[512 + at : 520 + at], "little")

    @property
    def saves(self) -> bool:
        """Say whether this is a save with RFBM."""
        return self.op in {"xsave", "xsaveopt", "xsavec", "xsaves"}

    @property
    def restores(self) -> bool:
        """Say whether this is a restore with RFBM."""
        return self.op in {"xrstor", "xrstors"}

    def tiles(self, state: Mapping[str, str], first_row: int = 0) -> bool:
        """Say whether a tile of *state* holds something from *first_row* on."""
        return any(int(state.get(name, "0")[128 * first_row :] or "0", 16) for name in TILES)


def _tile_in_use(j: _Judged) -> bool:
    asks = j.saves or (j.op == "xgetbv" and j.number("ecx") == 1)
    mask = j.rfbm if j.saves else j.number("xcr0")
    return bool(asks and j.vector is None and mask & _XTILEDATA)


def _tilecfg_swapped(j: _Judged) -> bool:
    held = "tilecfg" in j.case.get("registers", {})
    return bool(j.saves and j.vector is None and j.rfbm & _XTILECFG and held)


def _tile_rows(j: _Judged) -> bool:
    loads = j.restores and j.vector is None and j.rfbm & _XTILEDATA and j.header(0) & _XTILEDATA
    if not loads:
        return False
    compacted = j.header(8) & _BIT_63
    places = j.machine.compacted(j.header(8) & ~_BIT_63)[0] if compacted else {18: j.machine.offset(18)}
    rows = range(_HALF_OF_ALL_ROWS * 64, 1024)
    in_image = any(j.memory[places[18] + 1024 * n + at] for n in range(8) for at in rows)
    return in_image or j.tiles(j.case.get("registers", {}), _HALF_OF_ALL_ROWS)


def _tiles_cleared(j: _Judged) -> bool:
    alone = j.restores and j.vector is None and j.rfbm & _XTILECFG and not j.rfbm & _XTILEDATA
    return bool(alone and j.tiles(j.case.get("registers", {})))


def _xstate_bv_63(j: _Judged) -> bool:
    return bool(j.restores and j.vector is None and j.header(0) & _BIT_63 and j.header(8) & _BIT_63)


def _xinuse_mxcsr(j: _Judged) -> bool:
    if j.op not in {"xsave", "xsaveopt"} or j.vector is not None or not j.rfbm & _SSE_BIT:
        return False
    state = normalised(j.machine, j.case["registers"])
    reached = range(8 if j.case.get("mode") == 32 else 16)
    xmm = any(int(value[:32], 16) for name, value in state.items() if name[1:3] == "mm" and _number_of(name) in reached)
    return int(state["mxcsr"], 0) != _MXCSR_INITIAL and not xmm


def _number_of(name: str) -> int | None:
    """Return the number of a vector register."""
    return int(name[3:]) if name[:3] in {"xmm", "ymm", "zmm"} else None


def _fault_order(j: _Judged) -> bool:
    beyond = 1 << j.machine.linear_bits - 1
    if j.vector == "#PF":
        return beyond <= j.number("address") < (1 << 64) - beyond  # the first byte is not canonical, the last one is
    mxcsr = int.from_bytes(j.memory[24:28], "little") >> 16
    return bool(j.op == "xrstor" and j.vector == "#GP" and mxcsr and len(j.memory) < j.machine.standard_size(j.rfbm))


def _partial_restore(j: _Judged) -> bool:
    return bool(j.restores and j.vector is not None and j.result["registers"])


def _page_fault(j: _Judged) -> bool:
    return j.vector == "#PF"


def _osfxsr(j: _Judged) -> bool:
    return j.op in {"fxsave", "fxrstor"} and j.case.get("osfxsr") is False and j.vector is None


def _alignment_check(j: _Judged) -> bool:
    checked = j.case.get("am") and j.case.get("ac") and j.case.get("cpl") == 3
    return bool(j.op in {"fxsave", "fxrstor"} and checked and j.number("address") & 15)


def _fxsave_probe(j: _Judged) -> bool:
    return j.op in {"fxsave", "fxrstor"} and j.vector is None and _FXSAVE_USED <= len(j.memory) < HEADER_END - 64


def _la57(j: _Judged) -> bool:
    wide = j.machine.linear_bits > 48
    return wide and j.number("address") == 1 << 47 and j.vector in {"#GP", "#AC"}


DEFECTS: Final[Sequence[tuple[str, Callable[[_Judged], bool]]]] = (
    ("tile-in-use", _tile_in_use),
    ("tilecfg-swapped", _tilecfg_swapped),
    ("tile-rows", _tile_rows),
    ("tiles-cleared", _tiles_cleared),
    ("xstate-bv-63", _xstate_bv_63),
    ("xinuse-mxcsr", _xinuse_mxcsr),
    ("free-fault-order", _fault_order),
    ("free-partial-restore", _partial_restore),
    ("free-page-fault", _page_fault),
    ("free-osfxsr", _osfxsr),
    ("free-alignment-check", _alignment_check),
    ("free-fxsave-probe", _fxsave_probe),
    ("free-la57", _la57),
)
"""By name, most specific first: a golden bears the first that fits."""


def defect(machine: Machine, case: Mapping[str, Any], result: Mapping[str, Any]) -> str | None:
    """Return the name of what shows in *result*, if something does."""
    judged = _Judged(machine, case, result)
    return next((name for name, shows in DEFECTS if shows(judged)), None)
