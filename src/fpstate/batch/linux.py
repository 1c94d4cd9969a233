"""The checks of `fpstate.linux.copyin` over columns of images: what ptrace and KVM look at, compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np

from fpstate.batch.jit import compiled
from fpstate.batch.words import any_set, load32, load64
from fpstate.linux.copyin import MXCSR_USERS, RULES

__all__ = ["CODES", "copyin_kernel"]

CODES: Final = {rule: index + 1 for index, rule in enumerate(RULES)}
"""Rule of the kernel to outcome: its place in `fpstate.linux.copyin.RULES`, from 1."""

_COPY: Final = 2
"""Where the four rules of copy_uabi_to_xstate() begin, from the first of ptrace or KVM: the same for both."""
_MXCSR_USERS: Final = np.uint64(MXCSR_USERS)


def _copyin(  # noqa: PLR0917 - a kernel is called by position
    n: int, images: int, stride: int, outcome: Any, cleared: Any, supported: Any, features: Any, bad: Any, first: int
) -> None:
    """Check every row; *first* is the code of the way's first rule, *bad* the bits that MXCSR has not."""
    for i in range(n):
        a = images + i * stride
        xstate_bv = load64(a + 512) & ~cleared
        if xstate_bv & ~supported:
            outcome[i] = first + 1
        elif xstate_bv & ~features:
            outcome[i] = first + _COPY
        elif load64(a + 520):
            outcome[i] = first + _COPY + 1
        elif any_set(a + 528, 48):  # type: ignore[call-arg]  # an intrinsic has no context to give
            outcome[i] = first + _COPY + 2
        elif xstate_bv & _MXCSR_USERS and load32(a + 24) & bad:
            outcome[i] = first + _COPY + 3


@cache
def copyin_kernel() -> Callable[..., None]:
    """Return the checks of ptrace and KVM, compiled; for ptrace everything is supported and nothing cleared."""
    mask = ", ".join(["uint64"] * 4)
    return compiled(_copyin, f"void(int64, int64, int64, uint8[::1], {mask}, int64)", cached=True)
