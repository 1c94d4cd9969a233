"""How an implementation uses the freedom that the architecture leaves: `Profile`, a row of ``data/profiles.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from fpstate.cpu.model import Cpu
from fpstate.errors import UsageError

__all__ = ["Profile", "find", "of_cpu", "shipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one implementation does where others differ; the head of ``data/profiles.toml`` explains each key."""

    name: str
    title: str
    vendors: tuple[str, ...]
    models: tuple[tuple[int, int, int], ...]
    xinuse: Literal["by-value", "tracked", "sticky", "always"]
    xinuse_by_mode: bool
    bndregs_tracked: bool
    modified: bool
    x87_pointers: Literal["always", "pending", "unwritten"]
    pointer_bits: int
    fcw_keep: int
    fcw_set: int
    mxcsr_mask: int
    mxcsr_checked: bool
    alignment_check: Literal["never", "fxsave", "always"]
    probe_empty: bool
    pkru_bytes: int
    fault_order: Literal["header-page-mxcsr", "page-header-mxcsr"]
    probe_compacted: bool
    unconfirmed: tuple[str, ...]
    source: str

    @property
    def mxcsr_legal(self) -> int:
        """The bits of MXCSR that can be restored without a fault."""
        return self.mxcsr_mask if self.mxcsr_checked else 0xFFFFFFFF


@cache
def shipped() -> Mapping[str, Profile]:
    """Return the profiles of the package by name."""
    import tomllib  # noqa: PLC0415  reading an image does without
    from importlib import resources  # noqa: PLC0415  likewise: 10 ms

    text = resources.files("fpstate").joinpath("data/profiles.toml").read_text("utf-8")
    rows = tomllib.loads(text)
    found: dict[str, Profile] = {}
    for name, row in rows.items():
        merged = {**_based(rows, row), "vendors": [], "models": [], **row}
        merged.pop("base", None)
        for key in ("vendors", "unconfirmed"):
            merged[key] = tuple(merged[key])
        merged["models"] = tuple((family, low, high) for family, low, high in merged["models"])
        found[name] = Profile(name=name, **merged)
    return found


def _based(rows: Mapping[str, Mapping[str, object]], row: Mapping[str, object]) -> dict[str, object]:
    """Return the keys that *row* takes from its base, and that from its own."""
    base = rows.get(str(row.get("base")), {})
    return {**_based(rows, base), **base} if base else {}


def find(name: str) -> Profile:
    """Return the profile called *name*.

    Raises:
        UsageError: there is none.
    """
    try:
        return shipped()[name]
    except KeyError:
        raise UsageError(f"there is no profile {name[:40]!r}", cure=f"profiles are {', '.join(shipped())}") from None


def of_cpu(cpu: Cpu) -> Profile:
    """Return the profile of *cpu*, by its vendor and model; the architecture's if none is for it."""
    leaf0 = cpu.register(0, 0)
    if leaf0 is None:
        return shipped()["sdm"]
    vendor = b"".join(leaf0[i].to_bytes(4, "little") for i in (1, 3, 2)).decode("latin-1")
    family, model = _model((cpu.register(1, 0) or (0, 0, 0, 0))[0])
    by_vendor = [profile for profile in shipped().values() if vendor in profile.vendors]
    for profile in by_vendor:
        if any(family == f and low <= model <= high for f, low, high in profile.models):
            return profile
    return next((profile for profile in by_vendor if not profile.models), shipped()["sdm"])


def _model(signature: int) -> tuple[int, int]:
    """Return family and model of CPUID.1:EAX (SDM volume 2, CPUID, figure 3-6)."""
    family = signature >> 8 & 0xF
    if family == 0xF:
        family += signature >> 20 & 0xFF
    return family, signature >> 4 & 0xF | (signature >> 16 & 0xF) << 4
