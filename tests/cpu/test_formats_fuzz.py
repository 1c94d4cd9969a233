"""Whatever is thrown at the readers, they answer with dumps or with a refusal, and soon."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cpuid_text
from fpstate.cpu.dump import Dump
from fpstate.cpu.formats import MAX_INPUT, open_source, read
from fpstate.errors import FpstateError

SMALL: cpuid_text.Leaves = {(0, 0): (0xD, 1, 2, 3), (0xD, 0): (7, 832, 832, 0), (0xD, 2): (256, 576, 0, 0)}
TEXTS = """\
CPU#000 AffMask: 0x1
CPUID 0000000D: 00000007-00000340-00000340-00000000
CPUID 0000000D: 00000100-00000240-00000000-00000000
%
_____ Logical CPU #0 ____
basic_cpuid[13]=000000ff 00000a80 00000a80 00000000
intel_fn4[1]=3c004122 01c0003f 0000003f 00000000
%
x86/fpu: xstate_offset[2]: 0240, xstate_sizes[2]: 0100
x86/fpu: Enabled xstate features 0x7, context size is 0x340 bytes, using 'standard' format.
%
(XEN) xstate: size: 0x340 (uncompressed 0x440) and states: 0x1f
xsave: enabled xstate_bv 0x7, cntxt size 0x340
%
{"cpuid_modifiers": [{"leaf": "0xd", "subleaf": "0x0", "modifiers": [{"register": "eax", "bitmap": "0bx10"}]}]}
%
[{"leafD": {"0": ["7", "340", "340", "0"]}, "sources": {"libcpuid": [1, "a"]}}]
"""
VALID = [
    *(render(SMALL).encode() for render in cpuid_text.ALL.values()),
    *(text.encode() for text in TEXTS.split("%\n")),
    bytes.fromhex("0d00000047656e756e74656c696e6549") * 2,
    bytes.fromhex("07000000400300004003000000000000") * 3,
]


def judge(data: bytes) -> list[Dump] | None:
    """Read *data*; return the dumps, or None if it is refused as it should be."""
    try:
        dumps = read(data, name="fuzz")
    except FpstateError as error:
        refusal = str(error)
    else:
        return _sound(dumps)
    assert "\n" not in refusal
    return None


def _sound(dumps: list[Dump]) -> list[Dump]:
    assert dumps
    assert [dump.index for dump in dumps] == list(range(len(dumps)))
    for dump in dumps:
        assert dump.leaves or dump.boot_log or dump.modifiers
        for (leaf, subleaf), values in dump.leaves.items():
            assert all(0 <= each < 1 << 32 for each in (leaf, subleaf, *values))
        hash((dump.label, dump.notes))
    return dumps


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    judge(data)


@given(
    st.lists(st.sampled_from(sorted({word for text in VALID for word in text.split()})), max_size=40),
    st.sampled_from([b" ", b"\n", b""]),
)
def test_arbitrary_words_of_real_inputs_are_read_or_refused(words: list[bytes], between: bytes) -> None:
    judge(between.join(words))


@pytest.mark.parametrize("valid", VALID, ids=range(len(VALID)))
def test_inputs_cut_off_anywhere_are_read_or_refused(valid: bytes) -> None:
    for end in range(len(valid)):
        judge(valid[:end])
        judge(valid[end:])


@given(st.sampled_from(VALID), st.data())
def test_damaged_inputs_are_read_or_refused(valid: bytes, data: st.DataObject) -> None:
    damaged = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        if not damaged:
            break
    judge(bytes(damaged))


@given(st.lists(st.sampled_from(VALID), min_size=2, max_size=4))
def test_inputs_one_after_another_are_read_or_refused(parts: list[bytes]) -> None:
    judge(b"".join(parts))


_KEYS = (
    *("cpuid", "cpuid_raw", "cpuid_source", "boot_lines", "reset", "xcr0_all", "xcr0", "xss", "label", "d.0", "d.1"),
    *("leafD", "leaf_d", "sources", "0", "entries", "function", "index", "eax", "ebx", "ecx", "edx"),
    *("guest_cpu_config", "cpuid_modifiers", "modifiers", "leaf", "subleaf", "register", "bitmap"),
)
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["0xd", "0b1x0", "eax"])
)
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=20,
)


@given(_json)
def test_arbitrary_json_is_read_or_refused(value: object) -> None:
    judge(json.dumps(value).encode())


@given(st.sampled_from([b"\x1f\x8b\x08\x00", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=200))
def test_arbitrary_compressed_data_is_read_or_refused(magic: bytes, data: bytes) -> None:
    try:
        open_source("-", stdin=io.BytesIO(magic + data))
    except FpstateError:
        return


HOSTILE: dict[str, Callable[[], bytes]] = {
    "record starts": lambda: b"CPUID 00000000\nx\ny\nz\n",
    "open brackets": lambda: b"CPUID 0000000D: 00000007-00000340-00000340-00000000 " + b"[" * 300 + b"\n",
    "half records": lambda: b"   0x0000000d 0x01: eax=0x0000000f ebx=\nfoo\nbar\n",
    "numbers": lambda: b"eax= 1 2 3: ",
    "half elements": lambda: b"<cpuid ",
    "half comments": lambda: b"<cpuid><!-- ",
    "half attributes": lambda: b"<cpuid a = '",
    "escapes": lambda: b"cpuid \x1b]\x1b[",
    "entities": lambda: b"cpuid &amp;",
    "soft breaks": lambda: b"cpuid=3D0000000 =\n",
    "half boots": lambda: b"x86/fpu: Enabled xstate features\nfoo\nbar\n",
    "blanks": lambda: b"xstate_offset[2]:" + b" " * 4000,
    "one row": lambda: b"CPUID 0000000D: 00000007-00000340-00000340-00000000\n",
    "nested JSON": lambda: b'{"cpuid":',
    "empty objects": lambda: b'{"function":1,"cpuid":2},',
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_as_large_as_it_may_be_takes_linear_time(unit: Callable[[], bytes]) -> None:
    def seconds(size: int) -> float:
        data = unit() * (size // len(unit()))
        began = time.process_time()
        judge(data)
        return time.process_time() - began

    assert seconds(MAX_INPUT // 8) < 2


@settings(max_examples=30)
@given(st.sampled_from(sorted(HOSTILE)), st.sampled_from(sorted(HOSTILE)), st.integers(1, 200))
def test_hostile_texts_mixed_are_read_or_refused(one: str, other: str, times: int) -> None:
    judge((HOSTILE[one]() + HOSTILE[other]()) * times)
