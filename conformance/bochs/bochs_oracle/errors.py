"""The one error of the oracle."""

from __future__ import annotations

__all__ = ["OracleError"]


class OracleError(Exception):
    """The oracle cannot be built, or cannot run a case; the message says what is missing and the cure."""
