"""Bytes moved are those that the model of the instruction writes and reads; expected sums are from the manual."""

from __future__ import annotations

import pytest

from fpstate.cpu import by_name
from fpstate.pricing.footprint import Footprint

ZEN4 = by_name("zen4")
ALL = 0x18E7
"""XCR0 0xe7 and IA32_XSS 0x1800."""
HEADER, X87, SSE, MXCSR, AVX, AVX512, CET_U, CET_S = 16, 24 + 128, 256, 8, 256, 64 + 512 + 1024, 16, 24
"""Bytes (SDM 13.4.1, 13.5): XSTATE_BV and XCOMP_BV; bytes 0 to 23 and ST0 to ST7; XMM0 to 15; MXCSR and its mask."""


@pytest.fixture(scope="module")
def moved() -> Footprint:
    return Footprint(ZEN4, 0xE7, 0x1800)


@pytest.mark.parametrize(
    ("rfbm", "in_use", "expected"),
    [
        (ALL, 0, HEADER),  # SDM 13.11: the header is written whatever is in use
        (ALL, 0b01, HEADER + X87),
        (ALL, 0b10, HEADER + SSE + MXCSR),
        (ALL, 0x7, HEADER + X87 + SSE + MXCSR + AVX),
        (ALL, ALL, HEADER + X87 + SSE + MXCSR + AVX + AVX512 + CET_U + CET_S),
        (0x8E7, ALL, HEADER + X87 + SSE + MXCSR + AVX + AVX512 + CET_U),  # in use, but not in RFBM
        (0x1000, 0x1000, HEADER + CET_S),
    ],
)
def test_xsaves_writes_its_header_and_what_is_in_rfbm_and_in_use(
    moved: Footprint, rfbm: int, in_use: int, expected: int
) -> None:
    assert moved.saved("XSAVES", rfbm, in_use) == expected


def test_xsave_has_no_init_optimisation(moved: Footprint) -> None:
    # SDM 13.7: XSTATE_BV alone of the header, and every component of RFBM
    everything = 8 + X87 + SSE + MXCSR + AVX + AVX512
    assert moved.saved("XSAVE", 0xE7, 0) == moved.saved("XSAVE", 0xE7, 0xE7) == everything


def test_xsaveopt_writes_mxcsr_even_if_nothing_is_in_use(moved: Footprint) -> None:
    assert moved.saved("XSAVEOPT", 0xE7, 0) == 8 + MXCSR  # SDM 13.9


def test_xrstors_reads_the_header_and_what_xstate_bv_has(moved: Footprint) -> None:
    def read(mask: int) -> int:
        return moved.restored("XRSTORS", "XSAVES", 0x8E7, ALL, mask)

    assert read(0) == 64
    assert read(0b10) == 64 + SSE + 4  # MXCSR without its mask
    assert read(0x806) - read(0x6) == CET_U
    assert read(0x6) - read(0x2) == AVX


def test_what_the_buffer_lacks_is_initialised_and_not_read(moved: Footprint) -> None:
    without = moved.restored("XRSTORS", "XSAVES", 0x8E7, ALL, 0x2)
    assert moved.restored("XRSTORS", "XSAVES", ALL, ALL, 0x2) == without
    assert moved.restored("XRSTORS", "XSAVES", ALL, ALL, 0x1002) == without + CET_S
