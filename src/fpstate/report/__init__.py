"""Text and JSON of results: one module a kind of result, each with ``text`` and ``document``.

A document is a tree of plain values that ``json`` can write; masks are hex strings.  Nothing here decides anything.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["SCHEMA", "hexmask"]

SCHEMA: Final = 1
"""Version of every document; raised when a field changes its meaning or goes."""

Document = dict[str, Any]


def hexmask(mask: int) -> str:
    """Return *mask* as documents write it."""
    return f"{mask:#x}"
