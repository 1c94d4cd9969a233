"""Text as it is pasted: what mail, terminals and editors do to a dump does not change what it says."""

from __future__ import annotations

import html
import quopri
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cpuid_text
from fpstate.cpu.formats import read
from fpstate.cpu.formats.text import decode, plain_lines

BOOT = """\
x86/fpu: Supporting XSAVE feature 0x1000: 'Control-flow Kernel registers (KVM only)'
x86/fpu: xstate_offset[2]:  576, xstate_sizes[2]:  256
x86/fpu: xstate_offset[12]:  832, xstate_sizes[12]:   24
x86/fpu: Enabled xstate features 0x1007, context size is 856 bytes, using 'compacted' format.
xsave: enabled xstate_bv 0x1f, cntxt size 0x440 using standard form
(XEN) xstate: size: 0x340 (uncompressed 0x440) and states: 0x2ff
"""


def leaves_of(text: str) -> object:
    return [dict(dump.leaves) for dump in read(text.encode())]


def boots_of(text: str) -> object:
    return [dump.boot_log for dump in read(text.encode())]


@pytest.mark.parametrize("render", cpuid_text.ALL.values(), ids=cpuid_text.ALL)
@given(leaves=cpuid_text.leaves)
def test_every_format_gives_back_the_leaves_written_in_it(
    render: Callable[[cpuid_text.Leaves], str], leaves: cpuid_text.Leaves
) -> None:
    assert leaves_of(render(leaves)) == [leaves]


@pytest.mark.parametrize("render", cpuid_text.LINES.values(), ids=cpuid_text.LINES)
@given(
    leaves=cpuid_text.leaves,
    width=st.integers(60, 100),
    wrap=st.sampled_from([cpuid_text.cut, cpuid_text.wrapped, lambda text, _width: text]),
    prefix=st.sampled_from([cpuid_text.stamped, str]),
    marks=st.sampled_from(["", "> ", "> > ", ">>>", "| ", "    "]),
)
def test_quoting_wrapping_and_timestamps_do_not_change_the_leaves(
    render: Callable[[cpuid_text.Leaves], str],
    *,
    leaves: cpuid_text.Leaves,
    width: int,
    wrap: Callable[[str, int], str],
    prefix: Callable[[str], str],
    marks: str,
) -> None:
    text = cpuid_text.quoted(wrap(prefix(render(leaves)), width), marks)
    assert leaves_of(text) == [leaves]


@given(
    width=st.integers(56, 100),
    wrap=st.sampled_from([cpuid_text.cut, cpuid_text.wrapped]),
    prefix=st.sampled_from([cpuid_text.stamped, cpuid_text.syslog, str]),
    marks=st.sampled_from(["", "> > "]),
)
def test_quoting_wrapping_and_timestamps_do_not_change_boot_lines(
    width: int, wrap: Callable[[str, int], str], prefix: Callable[[str], str], marks: str
) -> None:
    assert boots_of(cpuid_text.quoted(wrap(prefix(BOOT), width), marks)) == boots_of(BOOT)


ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "serial console": lambda text: text.replace("\n", "\r\r\n").encode(),
    "old Mac": lambda text: text.replace("\n", "\r").encode(),
    "double spaced": lambda text: text.replace("\n", "\n\n").encode(),
    "UTF-8 with BOM": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16BE": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "Latin-1 beside it": lambda text: b"Gr\xfc\xdfe\n" + text.encode(),
    "non-breaking spaces": lambda text: text.replace(" ", "\xa0").encode(),
    "zero bytes before it": lambda text: b"\0\0" + text.encode(),
    "colours": lambda text: cpuid_text.coloured(text).encode(),
    "HTML": lambda text: html.escape(text).encode(),
    "quoted-printable": lambda text: quopri.encodestring(text.encode()),
    "quoted-printable quotation": lambda text: quopri.encodestring(cpuid_text.quoted(text).encode()),
    "typographic quotes": lambda text: text.replace("'", "\u2019").encode(),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("render", cpuid_text.LINES.values(), ids=cpuid_text.LINES)
def test_encodings_do_not_change_the_leaves(
    render: Callable[[cpuid_text.Leaves], str], encode: Callable[[str], bytes]
) -> None:
    # Values that begin with 3D look like the escape of '=' in quoted-printable text.
    leaves = {(0xD, 0): (0x602E7, 0x2B00, 0x2B00, 0), (0xD, 17): (0x3D3D3D3D, 0x3D000000, 2, 0)}
    assert [dict(dump.leaves) for dump in read(encode(render(leaves)))] == [leaves]


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_encodings_do_not_change_boot_lines(encode: Callable[[str], bytes]) -> None:
    assert [dump.boot_log for dump in read(encode(BOOT))] == boots_of(BOOT)


def test_soft_line_breaks_left_in_half_decoded_mail_are_undone() -> None:
    # As archives of xen-devel show some messages: the escapes are decoded, the breaks are not.
    text = "a = b\n>>>> (XEN) CPU0: xstate: size: 0x440 (uncompressed 0x440) and states: 0x1=\nf\n"
    assert boots_of(text) == boots_of("xstate: size: 0x440 and states: 0x1f")


def test_a_value_cut_right_after_its_equals_sign_is_no_soft_line_break() -> None:
    text = "   0x0000000d 0x00: eax=0x000000e7 ebx=0x00000a80 ecx=0x00000a80 edx=\n0x00000000\n"
    assert leaves_of(text) == [{(0xD, 0): (0xE7, 0xA80, 0xA80, 0)}]


def test_wrapped_quoted_printable_of_a_real_mail_is_read() -> None:
    # As mails carry 'cpuid -r' before anybody decodes them.
    text = (
        "   0x0000000d 0x00: eax=3D0x000000e7 ebx=3D0x00000a80 ecx=3D0x00000a80 edx=\n=3D0x00000000\n"
        "   0x0000000d 0x01: eax=3D0x0000000b ebx=3D0x00000980 ecx=3D0x00000000 edx=\n=3D0x00000000\n"
    )
    assert leaves_of(text) == [{(0xD, 0): (0xE7, 0xA80, 0xA80, 0), (0xD, 1): (0xB, 0x980, 0, 0)}]


def test_registers_in_upper_case_are_no_quoted_printable() -> None:
    text = "0x0000000d: EAX=3D000000, EBX=00000000, ECX=00000000, EDX=00000000\n"
    assert leaves_of(text) == [{(0xD, 0): (0x3D000000, 0, 0, 0)}]


@pytest.mark.parametrize(
    ("first", "rest", "subleaf"),
    [
        ("CPUID 0000000D: 00000040-00000AC0-00000002-00000000", "[SL 11]", 17),
        ("CPUID 0000000D: 00000040-00000AC0-00000002-00000000 [SL", "11] [TILECFG]", 17),
        ("CPUID 0000000D: 00000040-00000AC0-00000002-00000000 [SL 1", "1] [TILECFG]", 17),
        ("CPUID 0000000D: 00000040-00000AC0-00000002-00000000 [SL 11] [TILE", "CFG]", 17),
        ("CPUID 0000000D: 00000040-00000AC0-00000002-", "00000000 [SL 11]", 17),
        ("CPUID 0000000D: 00000040-00000AC0-00000002-0000", "0000 [SL 11]", 17),
        ("CPUID 0000000D:", "00000040-00000AC0-00000002-00000000 [SL 11]", 17),
        ("CPUID 0000000D: 00000040-00000AC0-00000002-00000000", "MSR 0000001B: 0000-0000-FEE0-0C00", 0),
        ("CPUID 0000000D: 00000040-00000AC0-00000002-00000000 [open", "1234", 0),
    ],
)
def test_a_subleaf_number_may_be_cut_off_or_in_two(first: str, rest: str, subleaf: int) -> None:
    assert leaves_of(f"{first}\n{rest}\n") == [{(0xD, subleaf): (0x40, 0xAC0, 2, 0)}]


def test_a_line_after_a_whole_number_is_not_taken_for_its_digits() -> None:
    offsets = "xstate_offset[2]:  576, xstate_sizes[2]:  256\n"
    text = f"{offsets}0000:00:1f.2: BAR 5\nxsave: enabled xstate_bv 0x7, cntxt size 0x340\n"
    assert "components={2: (576, 256)}" in str(boots_of(text))


def test_records_that_stay_incomplete_do_not_swallow_the_next() -> None:
    text = "CPUID[0d, 00]: eax=00000007 ebx=\nCPUID[0d, 01]: eax=0000000f ebx=00000340 ecx=00000000 edx=00000000\n"
    assert leaves_of(text) == [{(0xD, 1): (0xF, 0x340, 0, 0)}]


@given(st.text())
def test_plain_lines_are_never_blank_nor_quoted(text: str) -> None:
    for line in plain_lines(text):
        assert line.strip()
        assert line[0] not in " \t>|"


@given(st.binary())
def test_any_bytes_are_some_text(data: bytes) -> None:
    assert isinstance(decode(data), str)
