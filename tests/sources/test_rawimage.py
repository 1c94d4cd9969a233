"""Bare images: what is taken for one, and why the rest is not."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate.errors import UnreadableInput
from fpstate.sources import rawimage
from fpstate.sources.decoded import place
from fpstate.sources.input import Input


def image(
    xstate_bv: int = 7,
    xcomp_bv: int = 0,
    size: int = 832,
    mxcsr: int = 0x1F80,
    *,
    software: bytes = b"",
    mask: int = 0x2FFFF,
) -> bytearray:
    data = bytearray(size)
    struct.pack_into("<HxxxxxxxxxxxxxxxxxxxxxxII", data, 0, 0x37F, mxcsr, mask)
    data[464 : 464 + len(software)] = software
    if size >= 576:
        struct.pack_into("<QQ", data, 512, xstate_bv, xcomp_bv)
    return data


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (image(), "xsave"),
        (image(xstate_bv=0, size=4096), "xsave"),
        (image(xstate_bv=0x602E7, size=11008), "xsave"),
        (image(xstate_bv=3, xcomp_bv=1 << 63 | 0x1807, size=872), "xsave"),
        (image(size=512), "fxsave"),
    ],
    ids=["standard", "kvm", "amx", "compacted", "fxsave"],
)
def test_an_image_that_xrstor_could_accept_is_one(data: bytearray, form: str) -> None:
    assert rawimage.sniff(Input("it", memoryview(data)))
    (thread,) = rawimage.read(Input("a file", memoryview(data))).threads
    assert (thread.form, thread.offset, bytes(thread.image)) == (form, 0, bytes(data))


@pytest.mark.parametrize(
    ("data", "rule", "offset"),
    [
        (image(xstate_bv=7 | 1 << 40), "header.standard-xstate-bv", 517),
        (image(xcomp_bv=4), "header.standard-header", 520),
        (image(xcomp_bv=1 << 63 | 3), "header.xstate-bv", 512),
    ],
    ids=["unknown-component", "xcomp-bv", "not-in-xcomp-bv"],
)
def test_a_damaged_header_is_said_and_the_rest_of_the_image_shown(data: bytearray, rule: str, offset: int) -> None:
    """Known by MXCSR_MASK, MXCSR and the reserved bytes around it."""
    data[160] = 0x55
    found = place(rawimage.read(Input("a file", memoryview(data))))
    assert found.threads[0].hexadecimal()["xmm0"].startswith("55")
    damage = next(finding.damage for finding in found.findings if finding.damage.rule == rule)
    assert damage.offset == offset


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (image()[:575], "it has 575 bytes"),
        (bytearray(4096), "header and MXCSR are all 0"),
        (image(xstate_bv=0, mxcsr=0), "header and MXCSR are all 0"),
        (image(xstate_bv=1 << 40, mask=0), "XSTATE_BV sets bit 40 at byte 517"),
        (image(xcomp_bv=4, mask=0), r"XCOMP_BV sets bit 2 \(AVX\) at byte 520"),
        (image(xcomp_bv=1 << 63 | 3, mask=0), r"XSTATE_BV sets bit 2 \(AVX\) at byte 512"),
        (image(mxcsr=0x80001F80), "MXCSR 0x80001f80 sets bit 31 at byte 27"),
        (image(size=512, mxcsr=0x40000), "MXCSR 0x40000 sets bit 18"),
    ],
    ids=["short", "zeros", "no-mxcsr", "unknown-component", "xcomp-bv", "not-in-xcomp-bv", "mxcsr", "fxsave-mxcsr"],
)
def test_what_cannot_be_one_is_refused_by_rule_and_byte(data: bytearray, reason: str) -> None:
    assert not rawimage.sniff(Input("it", memoryview(data)))
    with pytest.raises(UnreadableInput, match=reason):
        rawimage.read(Input("a file", memoryview(data)))


def test_reserved_bytes_of_the_header_must_be_zero() -> None:
    data = image()
    data[570] = 1
    assert "reserved bytes" in str(rawimage.implausible(memoryview(data)))


def test_the_regsets_software_bytes_tell_xcr0() -> None:
    data = image(software=(0xE7).to_bytes(8, "little"), size=2440)
    capture = rawimage.read(Input("a file", memoryview(data)))
    assert capture.threads[0].enabled == 0xE7
    assert capture.notes == ("its software bytes name XCR0 0xe7",)


def test_a_signal_frames_software_bytes_tell_no_xcr0() -> None:
    data = image(software=struct.pack("<IIQI", 0x46505853, 836, 7, 832))
    capture = rawimage.read(Input("a file", memoryview(data)))
    assert capture.threads[0].enabled is None
    assert "signal frame" in capture.notes[0]


@given(st.binary(min_size=576, max_size=700))
def test_random_bytes_are_no_image(data: bytes) -> None:
    with contextlib.suppress(UnreadableInput):
        rawimage.read(Input("a file", memoryview(data)))
        assert not any(data[528:576])
