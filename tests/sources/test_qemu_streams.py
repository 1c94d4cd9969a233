"""QEMU migration streams: real ones of QEMU 7.2, whose monitor said what the registers were, and built ones."""

from __future__ import annotations

import contextlib
import gzip
import pathlib
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstate.cpu.model import Cpu
from fpstate.errors import UnreadableInput
from fpstate.image import Image
from fpstate.image import read as read_image
from fpstate.sources import qemu
from fpstate.sources.capture import Thread
from fpstate.sources.input import Input
from sources.migration import Field, cpu, number, stream, words

HERE = pathlib.Path(__file__).parent
REAL = gzip.decompress((HERE / "qemu-7.2-tcg.stream.gz").read_bytes())
REAL_KVM = gzip.decompress((HERE / "qemu-7.2-kvm.stream.gz").read_bytes())
"""What a QEMU with accel=kvm sent after it had received a stream with these values: they have been in the kernel."""


def image_of(thread: Thread) -> Image:
    assert thread.layout is not None
    mask = 3 | sum(1 << bit for bit in thread.layout)
    return read_image(
        bytes(thread.image),
        Cpu(name="a guest", source="", components=thread.layout, xcr0_mask=mask, flags=frozenset({"XSAVE"})),
    )


# What "info registers" of QEMU 7.2.22 printed for the vCPU whose stream this is, under TCG.
PRINTED = {
    "fctrl": 0x037F,
    "fstat": 0x3000,
    "ftag": 0xC0,
    "mxcsr": 0x1FA0,
    "st0": 0x4000_C90F_DAA2_2168_C235,  # FPR6, with TOP 6: pi
    "st1": 0x3FFF_8000_0000_0000_0000,  # FPR7: 1.0
    "st2": 0,
    "ymm3": 0xFEDCBA9876543210_0123456789ABCDEF_99AABBCCDDEEFF00_1122334455667788,
    "ymm4": 0,
}


@pytest.mark.parametrize("name", PRINTED)
def test_a_real_stream_has_what_the_monitor_printed(name: str) -> None:
    (thread,) = qemu.read(Input("a stream", memoryview(REAL))).threads
    value = image_of(thread).register(name)
    assert value == PRINTED[name].to_bytes(len(value), "little")


def test_a_real_stream_tells_xcr0() -> None:
    (thread,) = qemu.read(Input("a stream", memoryview(REAL))).threads
    assert thread.enabled == 0x21F  # the guest executes XSETBV with CPUID.0DH.0:EAX


def quadwords(*values: int) -> int:
    """Return the number that these make, the lowest first."""
    return sum(value << 64 * i for i, value in enumerate(values))


# Likewise under KVM, on a Zen 4.  Its FPR0 is ST0 there: the monitor prints the array as KVM filled it.
PRINTED_KVM = {
    "fstat": 0x3000,
    "ftag": 0xC0,
    "mxcsr": 0x1FA0,
    "st0": 0x4000_C90F_DAA2_2168_C235,
    "st1": 0x3FFF_8000_0000_0000_0000,
    "k4": 0x5004,
    "zmm3": quadwords(0x1003, 0x2003, 0x3003, 0x4003, 0x6030, 0x6031, 0x6032, 0x6033),
    "zmm17": quadwords(0x70110, 0x70111, 0x70112, 0x70113, 0x70114, 0x70115, 0x70116, 0x70117),
}


@pytest.mark.parametrize("name", PRINTED_KVM)
def test_a_real_kvm_stream_has_what_the_monitor_printed(name: str) -> None:
    (thread,) = qemu.read(Input("a stream", memoryview(REAL_KVM))).threads
    value = image_of(thread).register(name)
    assert value == PRINTED_KVM[name].to_bytes(len(value), "little")
    assert (thread.enabled, image_of(thread).xstate_bv) == (0xE7, 0xE7)


def test_a_stream_is_known_by_magic_and_version() -> None:
    assert qemu.sniff(Input("it", memoryview(REAL)))
    assert not qemu.sniff(Input("it", memoryview(b"QEVM\0\0\0\2")))


def fields(xstate_bv: int, fpus: int = 0) -> list[Field]:
    registers = b"".join(struct.pack(">QH", i, i) for i in range(8))
    inner = {"vmsd_name": "fpreg_tmp", "fields": [number("tmp_mant", 0, 8)[0], number("tmp_exp", 0, 2)[0]]}
    fpreg = {"vmsd_name": "fpreg", "fields": [{"name": "tmp", "type": "tmp", "size": 10, **inner}]}
    stack = {"name": "env.fpregs", "array_len": 8, "type": "struct", "struct": fpreg, "size": 10}
    return [
        number("env.fpuc", 0x37F, 2),
        number("env.fpus_vmstate", fpus, 2),
        number("env.fptag_vmstate", 0xFF, 2),
        (stack, registers),
        number("env.mxcsr", 0x1F80, 4),
        words("env.xmm_regs[0]", [0x0101010101010101 * i for i in range(32)], structure="xmm_reg"),
        number("env.xcr0", 0x602E7, 8),
        number("env.xstate_bv", xstate_bv, 8),
        words("env.xmm_regs[1]", [2] * 32, structure="ymmh_reg"),
    ]


AVX512: list[Field] = [
    words("env.opmask_regs", list(range(8))),
    words("env.xmm_regs[2]", [3] * 64, structure="zmmh_reg"),
    words("env.xmm_regs[3]", [4] * 128, structure="hi16_zmm_reg"),
]
AMX: list[Field] = [
    ({"name": "env.xtilecfg", "type": "buffer", "size": 64}, bytes(range(64))),
    ({"name": "env.xtiledata", "type": "buffer", "size": 8192}, bytes(range(256)) * 32),
]
PARTS = {
    "cpu/avx512": AVX512,
    "cpu/xss": [number("env.xss", 0x1800, 8)],
    "cpu/pkru": [number("env.pkru", 0x55555554, 4)],
    "cpu/intel_amx_xtile": AMX,
}


def test_subsections_hold_avx_512_amx_pkru_and_xss() -> None:
    data = stream([cpu(fields(0x602E7), PARTS)])
    (thread,) = qemu.read(Input("a stream", memoryview(data))).threads
    image = image_of(thread)
    assert image.xstate_bv == 0x602E7
    assert image.register("k5") == (5).to_bytes(8, "little")
    assert image.register("zmm3h") == (3).to_bytes(8, "little") * 4
    assert image.register("zmm17") == (4).to_bytes(8, "little") * 8
    assert image.register("pkru") == (0x55555554).to_bytes(4, "little")
    assert image.component(17) == bytes(range(64))
    assert thread.values["xss"] == 0x1800


def test_kvm_hands_the_stack_over_st0_first() -> None:
    """x86_cpu_xrstor_all_areas() copies it as it is; TCG keeps it by physical number."""
    data = stream([cpu(fields(3, fpus=6 << 11), {})])
    (thread,) = qemu.read(Input("a stream", memoryview(data))).threads
    assert image_of(thread).register("st0") == bytes(10)


def test_what_qemu_does_not_send_because_it_is_zero_is_in_use_all_the_same() -> None:
    (thread,) = qemu.read(Input("a stream", memoryview(stream([cpu(fields(0x207), {})])))).threads
    assert image_of(thread).xstate_bv == 0x207


def test_every_vcpu_is_a_thread() -> None:
    data = stream([cpu(fields(7), {}), cpu(fields(3), {})])
    assert [thread.tid for thread in qemu.read(Input("a stream", memoryview(data))).threads] == [0, 1]


def test_guest_memory_that_looks_like_a_section_is_not_looked_at() -> None:
    section = stream([cpu(fields(7), {})])[8:]
    data = stream([cpu(fields(3), {})], memory=section)
    (thread,) = qemu.read(Input("a stream", memoryview(data))).threads
    assert thread.values["qemu_xstate_bv"] == 3


def test_a_stream_without_its_end_is_refused_with_the_reason() -> None:
    with pytest.raises(UnreadableInput, match="without the description of its fields"):
        qemu.read(Input("a stream", memoryview(REAL[:-100])))


def test_a_section_that_does_not_end_where_it_must_is_damage_at_its_offset() -> None:
    data = bytearray(stream([cpu(fields(3), {}), cpu(fields(3), {})]))
    at = data.index(b"\x7e\0\0\0\2")
    data[at + 4] = 9
    capture = qemu.read(Input("a stream", memoryview(bytes(data))))
    assert [(damage.rule, damage.offset) for damage in capture.damage] == [("qemu.section", 8)]
    assert [thread.tid for thread in capture.threads] == [1]


def test_another_architectures_stream_is_refused() -> None:
    with pytest.raises(UnreadableInput, match="without an x86 CPU"):
        qemu.read(Input("a stream", memoryview(stream([cpu([number("env.nip", 0, 8)], {})]))))


MUCH = {"name": "much", "type": "struct", "size": 16, "struct": {"fields": [{"size": 0, "array_len": 1 << 20}]}}


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ({"name": "less", "type": "buffer", "size": -8}, "-8 is no size"),
        (MUCH, "a field of 16 bytes has more numbers"),
    ],
    ids=["backwards", "numbers"],
)
def test_fields_that_are_larger_than_their_section_cost_no_memory(field: dict[str, object], why: str) -> None:
    """A device without a vmsd_name says its size itself, and its fields may say another."""
    told, data = number("env.fpuc", 0x37F, 2)
    device = {"size": 64, "fields": [told, *[{**field, "name": f"f{i}"} for i in range(2000)]]}
    whole = stream([(device, data.ljust(64, b"\0"))]) + b" " * (1 << 20)  # what lies behind the section
    at = whole.index(b"\0\6") + 2
    whole = whole[:at] + struct.pack(">I", len(whole) - at - 4) + whole[at + 4 :]
    tracemalloc.start()
    capture = qemu.read(Input("a stream", memoryview(whole)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert [why in damage.text for damage in capture.damage] == [True]


WHOLE = stream([cpu(fields(0x602E7), PARTS)])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=5),
    st.lists(st.tuples(st.sampled_from(["8", "64", "16", "1", "{", "]", "uint64", "struct"]), st.integers(0, 200))),
)
def test_no_stream_breaks_the_reader(changes: list[tuple[int, int]], words_changed: list[tuple[str, int]]) -> None:
    at = WHOLE.index(b'{"page_size"')
    text = WHOLE[at:]
    for word, which in words_changed[:4]:
        pieces = text.split(word.encode())
        if len(pieces) > 1:
            cut = which % (len(pieces) - 1) + 1
            text = word.encode().join(pieces[:cut]) + b"-1" + word.encode().join(pieces[cut:])
    data = bytearray(WHOLE[: at - 4] + struct.pack(">I", len(text)) + text)
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(UnreadableInput):
        capture = qemu.read(Input("a stream", memoryview(bytes(data))))
        assert sum(len(thread.image) for thread in capture.threads) < 3 * len(WHOLE)
