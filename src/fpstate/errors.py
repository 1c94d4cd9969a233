"""What fpstate raises when it refuses.

    FpstateError
    ├── UsageError          the request cannot be meant: an unknown name, an impossible mask
    ├── UnreadableInput     the input cannot be read as anything fpstate knows
    └── CannotTell          the input is fine, but it does not hold the answer

Every message names the thing, the rule that it breaks and, where one is known, the cure.  The command line turns
each of them into one line on stderr and an exit code; nothing else is ever shown as a traceback.
"""

from __future__ import annotations

__all__ = ["CannotTell", "FpstateError", "UnreadableInput", "UsageError", "printable"]


def printable(text: str) -> str:
    """Return *text* without line breaks and control characters, which an input's words may bring in."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


class FpstateError(Exception):
    """Base of all expected refusals.

    Attributes:
        cure: what to do about it, or None.
        exit_code: the exit code of a command that ends with this error.
    """

    exit_code = 2

    def __init__(self, message: str, *, cure: str | None = None) -> None:
        super().__init__(message)
        self.cure = cure

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; {self.cure}" if self.cure else message


class UsageError(FpstateError, ValueError):
    """The request itself is wrong: an unknown CPU, policy or component, a mask no CPU accepts."""


class UnreadableInput(FpstateError, ValueError):
    """The input is empty, truncated, binary, too large, or of a kind that fpstate does not know."""


class CannotTell(FpstateError, LookupError):
    """The input is readable, but what was asked is not in it (a boot log has no standard offsets, say)."""

    exit_code = 3
