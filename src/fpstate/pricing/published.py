"""Published costs: rows of ``data/published.toml``, of what user mode cannot measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fpstate import toml

__all__ = ["Figure", "shipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One cost, as somebody published it; the head of ``data/published.toml`` explains each key."""

    title: str
    each: str
    low: int | None = None
    high: int | None = None
    unit: str
    source: str
    date: str
    weak: bool


@cache
def shipped() -> Mapping[str, Figure]:
    """Return the figures of the package by name."""
    path = Path(__file__).parent.parent / "data" / "published.toml"
    return {name: Figure(**row) for name, row in toml.load(str(path), "published costs").items()}
