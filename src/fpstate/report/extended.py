"""x87's double extended-precision format as decimals (SDM vol. 1, 4.2.2 and 8.2).

Eighty bits: a significand of 64 whose integer bit is there, a biased exponent of 15, a sign.  So there are encodings
that the processor itself does not take: they are named, and shown as bits.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Final

__all__ = ["decimal_of"]

_BIAS: Final = 16383
_ONE: Final = 1 << 63
"""The integer bit."""
_MOST_DIGITS: Final = 21
"""Significant decimal digits that tell every two values apart."""
_PRECISION: Final = 17_000
"""Digits that hold every value exactly: the least denormal, 2 to the power of -16445, has 11,495."""


def decimal_of(data: bytes) -> str:
    """Return a value of 10 bytes, in memory order, as the shortest decimal that no other value is nearer to.

    NaNs have their bits behind them, ``nan(0xffffc000000000000000)``; so has what the processor refuses to work with,
    ``unsupported(0x...)``.
    """
    bits = int.from_bytes(data, "little")
    significand, exponent = bits & (1 << 64) - 1, bits >> 64 & 0x7FFF
    sign = "-" if bits >> 79 else ""
    if exponent and not significand & _ONE:
        return f"unsupported({bits:#022x})"
    if exponent == 0x7FFF:
        return f"nan({bits:#022x})" if significand != _ONE else f"{sign}inf"
    if not significand:
        return f"{sign}0"
    return sign + _shortest(significand, max(exponent, 1) - _BIAS - 63)


def _shortest(significand: int, exponent: int) -> str:
    """Return *significand* times 2 to the power of *exponent*."""
    with localcontext(prec=_PRECISION):
        unit = Decimal(2) ** exponent
        value = significand * unit
        near = unit / (4 if significand == _ONE else 2)  # below a power of two the next value is half as far
        for digits in range(1, _MOST_DIGITS):
            text = f"{value:.{digits}g}"
            if abs(Decimal(text) - value) < near:
                return text
        return f"{value:.{_MOST_DIGITS}g}"
