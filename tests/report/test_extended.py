"""x87 values as decimals: golden encodings of the SDM (vol. 1, table 4-3), and the C library's reading as oracle."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate.report.extended import decimal_of


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, "0"),
        (1 << 79, "-0"),
        (0x3FFF_8000_0000_0000_0000, "1"),
        (0x4000_C90F_DAA2_2168_C235, "3.1415926535897932385"),  # what FLDPI loads
        (0xC000_8000_0000_0000_0000, "-2"),
        (0x3FFB_CCCC_CCCC_CCCC_CCCD, "0.1"),
        (0x7FFF_8000_0000_0000_0000, "inf"),
        (0xFFFF_8000_0000_0000_0000, "-inf"),
        (0xFFFF_C000_0000_0000_0000, "nan(0xffffc000000000000000)"),  # the default QNaN
        (0x7FFE_FFFF_FFFF_FFFF_FFFF, "1.189731495357231765e+4932"),  # the largest finite value
        (0x0000_0000_0000_0000_0001, "4e-4951"),  # the smallest denormal
        (0x3FFF_0000_0000_0000_0001, "unsupported(0x3fff0000000000000001)"),  # an unnormal
    ],
)
def test_an_encoding_is_shown_by_its_value(bits: int, text: str) -> None:
    assert decimal_of(bits.to_bytes(10, "little")) == text


@given(st.integers(0, (1 << 80) - 1))
def test_the_c_library_reads_the_same_value_back(bits: int) -> None:
    text = decimal_of(bits.to_bytes(10, "little"))
    if "(" in text:
        return
    value = ctypes.create_string_buffer(16)  # ctypes makes a long double a float of 53 bits: so it is stored
    assert ctypes.CDLL(None).sscanf(text.encode(), b"%Lf", value) == 1
    pseudo_denormal = bits >> 63 == 1  # has the value of exponent 1, and is stored so
    assert int.from_bytes(value.raw[:10], "little") == (bits | pseudo_denormal << 64)
