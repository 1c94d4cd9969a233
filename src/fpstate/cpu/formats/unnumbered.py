"""Rows of CPUID leaf 0DH that an input prints without saying which sub-leaf each one is.

Old AIDA and InstLatx64 dumps do so, and leave out sub-leaves that are all zeros: after ``00000007-00000340-...`` the
row ``00000100-00000240-...`` is sub-leaf 2 (AVX), not 1 (AuthenticAMD0600F01_K15_Bulldozer, GenuineIntel00206A6).
"""

from __future__ import annotations

from collections.abc import Sequence

from fpstate.cpu.dump import Registers
from fpstate.xfeatures import CATALOGUE, LEGACY, bits, component_mask

__all__ = ["number_leaf_d"]

_SUBLEAVES = 64


def number_leaf_d(rows: Sequence[Registers]) -> list[int]:
    """Return the sub-leaf of each of *rows*, one or more, by what is in them; rows past the 64th get none.

    The rule: the first row is sub-leaf 0, the rows ascend, and

    1. the next row is sub-leaf 1 if EAX has no bit above 5 (its flags end there; components that small are rare) and
       the row is not what some real CPU has for a component that sub-leaf 0 enumerates;
    2. if rows of zeros follow and each other row's position is the number of an enumerated component, the input shows
       absent sub-leaves too: position is number;
    3. else each row is the next enumerated component that it fits: by size and offset as some real CPU has them, else
       by being user (enumerated by sub-leaf 0) or supervisor (by sub-leaf 1).  A supervisor component of known size
       need not be enumerated: CentaurHauls0040672_CNS_04 has two, and no bit for them in sub-leaf 1.
    """
    rows = rows[:_SUBLEAVES]
    xcr0 = component_mask(rows[0][0], rows[0][3]) & ~LEGACY
    numbers = [0]
    xss = 0
    if len(rows) > 1 and rows[1][0] < 1 << 6 and not any(_is_known_as(bit, rows[1]) for bit in bits(xcr0)):
        numbers.append(1)
        xss = component_mask(rows[1][2], rows[1][3]) & ~LEGACY
    rest = rows[len(numbers) :]
    if len(numbers) == 2 and not all(map(any, rest)):
        positions = range(2, len(rows))
        if all((xcr0 | xss) >> at & 1 for at, row in zip(positions, rest, strict=True) if any(row)):
            return [*numbers, *positions]
    left = list(bits(xcr0 | xss))
    for row in rest:
        bit = _next_bit(row, left, xcr0, numbers[-1])
        if bit >= _SUBLEAVES:
            break
        left = [later for later in left if later > bit]
        numbers.append(bit)
    return numbers


def _is_known_as(bit: int, row: Registers) -> bool:
    """Say whether *row* is the size and standard offset that some real CPU has for component *bit*."""
    known = CATALOGUE.get(bit)
    if known is None:
        return False
    if known.supervisor:
        return row[:2] == (known.size, 0) and bool(row[2] & 1)
    return any(row[:2] == (place.size, place.offset) for place in known.placements)


def _next_bit(row: Registers, left: Sequence[int], xcr0: int, last: int) -> int:
    """Return the component that *row* is: one of those *left*, or, where none is, the number after *last*."""
    supervisor = bool(row[2] & 1)
    unlisted = [known.bit for known in CATALOGUE if known.bit > last] if supervisor else []
    for bit in (*left, *unlisted):
        if _is_known_as(bit, row):
            return bit
    for bit in left:
        if supervisor is not bool(xcr0 >> bit & 1):
            return bit
    return left[0] if left else max(last, 1) + 1
