"""JSON inputs: Firecracker, fpstate's own, leaf 0DH alone, KVM's entries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fpstate.cpu.dump import BootLog, Dump, Modifier
from fpstate.cpu.formats import read
from fpstate.errors import UnreadableInput


def parse(value: object) -> list[Dump]:
    return read(json.dumps(value).encode(), name="input.json")


def one(value: object) -> Dump:
    dumps = parse(value)
    assert len(dumps) == 1
    return dumps[0]


def modifiers(leaf: str, subleaf: str, **bitmaps: str) -> dict[str, Any]:
    registers = [{"register": register, "bitmap": bitmap} for register, bitmap in bitmaps.items()]
    return {"leaf": leaf, "subleaf": subleaf, "flags": 1, "modifiers": registers}


ZEROS = "0b" + "0" * 32
FULL = modifiers(
    "0xd", "0x11", eax="0b" + f"{0x40:032b}", ebx="0b" + f"{0xAC0:032b}", ecx="0b" + f"{2:032b}", edx=ZEROS
)


# Firecracker


def test_a_fingerprint_is_a_cpu() -> None:
    fingerprint = {
        "firecracker_version": "1.16.0-dev",
        "kernel_version": "6.1.172",
        "microcode_version": "0xa101158",
        "guest_cpu_config": {"kvm_capabilities": [], "cpuid_modifiers": [FULL], "msr_modifiers": []},
    }
    dump = one(fingerprint)
    assert dump.leaves == {(0xD, 17): (0x40, 0xAC0, 2, 0)}
    assert (dump.format, dump.modifiers) == ("firecracker", ())
    assert dump.label == "Firecracker guest, host kernel 6.1.172, microcode 0xa101158"


def test_a_template_is_the_bits_that_it_forces() -> None:
    # Firecracker tests/data/custom_cpu_templates/C3.json, leaf 0xd
    dump = one({"cpuid_modifiers": [modifiers("0xd", "0x0", eax="0bxxxxxxxxxxxxxxxxxxxxxx0x00000xxx")]})
    assert dump.modifiers == (Modifier(0xD, 0, 0, 0b10_1111_1000, 0),)
    assert (dump.format, dump.leaves) == ("firecracker-template", {})


def test_bare_modifiers_are_a_template_even_if_they_force_every_bit() -> None:
    dump = one({"cpuid_modifiers": [FULL]})
    assert dump.leaves == {}
    assert dump.modifiers[1] == Modifier(0xD, 17, 1, 0xFFFF_FFFF, 0xAC0)


def test_one_x_makes_a_guest_config_a_template() -> None:
    almost = modifiers("0xd", "0x0", eax="0b" + "x" + "0" * 31, ebx=ZEROS, ecx=ZEROS, edx=ZEROS)
    assert one({"guest_cpu_config": {"cpuid_modifiers": [FULL, almost]}}).format == "firecracker-template"


def test_a_register_left_out_makes_a_guest_config_a_template() -> None:
    assert one({"guest_cpu_config": {"cpuid_modifiers": [modifiers("0xd", "0x0", eax=ZEROS)]}}).leaves == {}


@pytest.mark.parametrize(
    ("bitmap", "mask", "value"),
    [
        ("0b1x0", 0b101, 0b100),
        ("1x0", 0b101, 0b100),
        ("0x1f", 0xFFFF_FFFF, 0x1F),
        ("0x10", 0xFFFF_FFFF, 0x10),
        ("0xx1", 0b1001, 0b0001),
        ("0B1X", 0b10, 0b10),
        ("0x" + "1" * 30, 0xBFFF_FFFF, 0x3FFF_FFFF),
    ],
)
def test_bitmaps_are_right_aligned_and_may_be_hex(bitmap: str, mask: int, value: int) -> None:
    dump = one({"cpuid_modifiers": [modifiers("0xd", "0x0", eax=bitmap)]})
    assert (dump.modifiers[0].mask, dump.modifiers[0].value) == (mask, value)


def test_short_bitmaps_of_a_fingerprint_are_numbers() -> None:
    short = modifiers("0xd", "0x0", eax="0b111", ebx="0b1001000000", ecx="0b0", edx="0b0")
    assert one({"guest_cpu_config": {"cpuid_modifiers": [short]}}).leaves == {(0xD, 0): (7, 576, 0, 0)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"cpuid_modifiers": []}, "input.json: cpuid_modifiers must be a list with at least one leaf"),
        ({"cpuid_modifiers": [{}]}, r"cpuid_modifiers\[0\] must have leaf, subleaf and a list of modifiers"),
        ({"cpuid_modifiers": [modifiers("0xd", "q", eax="1")]}, "subleaf must be a number or hex digits, not 'q'"),
        ({"cpuid_modifiers": [modifiers("0xd", "0x0", rax="1")]}, "each modifier must name eax, ebx, ecx or edx"),
        ({"cpuid_modifiers": [modifiers("0xd", "0x0", eax="0b2")]}, "eax: a bitmap must be up to 32 of 0, 1 and x"),
        ({"cpuid_modifiers": [modifiers("0xd", "0x0", eax="1" * 33)]}, "eax: a bitmap must be up to 32 of 0, 1 and x"),
        ({"cpuid_modifiers": [modifiers("0xd", "0x0", eax="1")] * 65537}, "more than 65536 registers"),
        ({"guest_cpu_config": {"reg_modifiers": [], "cpuid": 0}}, "a Firecracker CPU template for Arm"),
    ],
)
def test_a_broken_template_is_refused_by_its_place(value: object, message: str) -> None:
    with pytest.raises(UnreadableInput, match=message):
        parse(value)


# fpstate's own


def test_both_numbers_of_a_call_are_hex() -> None:
    dump = one({"cpuid": {"d.11": [0x40, 0xAC0, 2, 0], "80000001.0": ["0x0", "00000121", "2c100800", 0]}})
    assert dump.leaves == {(0xD, 17): (0x40, 0xAC0, 2, 0), (0x8000_0001, 0): (0, 0x121, 0x2C10_0800, 0)}
    assert (dump.format, dump.os_linux, dump.xcr0, dump.xss) == ("fpstate-json", False, None, None)


def test_a_dump_printed_under_linux_says_so() -> None:
    source = "printed by init under Linux (XCR0/XSS as the kernel set them)"
    assert one({"cpuid": {"d.0": [7, 832, 832, 0]}, "cpuid_source": source}).os_linux
    boot_sector = "boot-sector dump (reset state); the kernel did not reach init"
    assert not one({"cpuid": {"d.0": [7, 832, 832, 0]}, "cpuid_source": boot_sector}).os_linux


RESET = {"d.0": [0x2E7, 576, 2696, 0], "d.1": [15, 576, 0x1800, 0]}
XCR0_ALL = {"d.0": [0x2E7, 2696, 2696, 0], "d.1": [15, 2440, 0x1800, 0]}
XSS_ALL = {"d.0": [0x2E7, 2696, 2696, 0], "d.1": [15, 2480, 0x1800, 0]}


def test_raw_states_are_told_by_xcr0_and_xss() -> None:
    dump = one({"cpuid": XSS_ALL, "cpuid_raw": {"reset": RESET, "xcr0_all": XCR0_ALL, "xcr0_xss_all": XSS_ALL}})
    assert {state: leaves[0xD, 1][1] for state, leaves in dump.other_states.items()} == {
        (1, 0): 576,
        (0x2E7, 0): 2440,
        (0x2E7, 0x1800): 2480,
    }
    assert (dump.xcr0, dump.xss) == (None, None)


def test_leaves_of_the_reset_state_tell_xcr0_and_xss() -> None:
    dump = one({"cpuid": RESET, "cpuid_raw": {"reset": RESET, "xcr0_all": XCR0_ALL}})
    assert (dump.xcr0, dump.xss) == (1, 0)


def test_xcr0_xss_and_a_label_may_be_stated() -> None:
    dump = one({"cpuid": RESET, "xcr0": "0x2e7", "xss": 0x1800, "label": "my CPU"})
    assert (dump.xcr0, dump.xss, dump.label) == (0x2E7, 0x1800, "my CPU")


def test_boot_lines_beside_the_leaves_are_attached() -> None:
    lines = [
        "x86/fpu: xstate_offset[2]:  576, xstate_sizes[2]:  256",
        "x86/fpu: Enabled xstate features 0x7, context size is 832 bytes, using 'standard' format.",
    ]
    dump = one({"cpuid": {"d.0": [7, 832, 832, 0]}, "boot_lines": lines})
    assert dump.boot_log == BootLog(7, 832, compacted=False, components={2: (576, 256)})


# Leaf 0DH alone


@pytest.mark.parametrize("key", ["leafD", "leaf_d"])
def test_subleaves_of_leaf_0xd_alone_are_decimal(key: str) -> None:
    subleaves = {"0": ["000602E7", "00002B00", "00002B00", "00000000"], "17": ["00000040", "00000AC0", "00000002", "0"]}
    dump = one({key: subleaves})
    assert dump.leaves == {(0xD, 0): (0x602E7, 0x2B00, 0x2B00, 0), (0xD, 17): (0x40, 0xAC0, 2, 0)}


def test_a_list_gives_one_dump_for_each_entry() -> None:
    zero = ["00000007", "00000340", "00000340", "00000000"]
    dumps = parse(
        [
            {"leafD": {"0": zero, "1": ["1", "0", "0", "0"]}, "sources": {"instlatx64": [2, "AuthenticAMD/x.txt"]}},
            {"leafD": {"0": zero}, "sources": {"firecracker": [1, "fingerprint.json"]}},
        ]
    )
    assert [(d.index, d.label, d.zeros_unread) for d in dumps] == [
        (0, "AuthenticAMD/x.txt", True),
        (1, "fingerprint.json", False),
    ]


# KVM


def test_kvm_entries_are_read_as_vmms_write_them() -> None:
    entry = {
        "function": 13,
        "index": 1,
        "flags": 1,
        "eax": 15,
        "ebx": "0x3c0",
        "ecx": 0,
        "edx": 0,
        "padding": [0, 0, 0],
    }
    for value in ([entry], {"cpuid": [entry]}, {"entries": [entry]}):
        dump = one(value)
        assert (dump.format, dump.leaves) == ("kvm-cpuid", {(0xD, 1): (15, 0x3C0, 0, 0)})


def test_kvm_entries_of_two_vcpus_are_two_dumps() -> None:
    vcpu = [{"function": leaf, "eax": 13, "ebx": 0, "ecx": 0, "edx": 0} for leaf in (0, 1, 13)]
    assert len(parse(vcpu + vcpu)) == 2


# All of them


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"cpuid": {"d": [1, 2, 3, 4]}}, "a key must be LEAF.SUBLEAF in hex, such as d.1, not 'd'"),
        ({"cpuid": {"d.0": [1, 2, 3]}}, r"d.0 must be \[eax, ebx, ecx, edx\], not an array of 3"),
        ({"cpuid": {"d.0": [1, 2, 3, -4]}}, "d.0, edx must be a number or hex digits, not -4"),
        ({"cpuid": {"d.0": [1, 2, 3, True]}}, "d.0, edx must be a number or hex digits, not True"),
        ({"cpuid": {"d.0": [1, 2, 3.5, 4]}}, "d.0, ecx must be a number or hex digits, not 3.5"),
        ({"cpuid": {"d.0": [1, 2, 1 << 32, 4]}}, "d.0, ecx must fit into 32 bits, not 4294967296"),
        ({"cpuid": {"d.0": [1, 2, 10**400, 4]}}, "d.0, ecx must be a number or hex digits, not a larger number"),
        ({"cpuid": {"d.0": [1, 2, 3, "x" * 99]}}, "not 'xxxxxxxxxx"),
        ({"cpuid": {}}, "input.json, cpuid is empty"),
        ({"leafD": {"0": ["g", "0", "0", "0"]}}, "sub-leaf 0, eax must be a number or hex digits, not 'g'"),
        ({"leafD": {"b": ["0", "0", "0", "0"]}}, "a sub-leaf must be 0 to 63 in decimal, not 'b'"),
        ({"leafD": {"1": ["0", "0", "0", "0"]}}, "sub-leaf 0 is missing"),
        ([{"function": 13, "eax": 1}], r"input.json, CPUID entry 0, ebx must be a number or hex digits, not None"),
        ([{"function": 13, "eax": 1, "ebx": 1, "ecx": 1, "edx": 1}, 5], "no CPUID leaves"),
        (
            [{"function": 13, "eax": 1, "ebx": 1, "ecx": 1, "edx": 1}, {}],
            "CPUID entry 1 must have function, index, eax",
        ),
        ([{"cpuid": {"d.0": [1, 1, 1, 1]}}, {"x": 1}], "no CPUID leaves"),
        ([{"leafD": {"0": [1, 1, 1, 1]}}] * 8193, "more than 8192 CPUs in one input"),
        ({"cpuid": 5}, "no CPUID leaves"),
        ({"guest_cpu_config": 5, "x": "cpuid"}, "no CPUID leaves"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_json_that_is_not_of_the_shape_is_refused_by_its_place(value: object, message: str) -> None:
    with pytest.raises(UnreadableInput, match=message):
        parse(value)


def test_broken_json_is_called_json() -> None:
    with pytest.raises(UnreadableInput, match="it looks like JSON, but Expecting ',' delimiter: line 1 column"):
        read(b'{"cpuid": {"d.0": [7, 832, 832, 0] "d.1": []}}')


def test_json_nested_beyond_reason_is_refused() -> None:
    with pytest.raises(UnreadableInput, match="it looks like JSON, but nested too deeply"):
        read(b'{"cpuid":' * 100_000)


def test_json_quoted_in_mail_is_read() -> None:
    text = json.dumps({"cpuid": {"d.0": [7, 832, 832, 0]}}, indent=1)
    quoted = "".join(f"> {line}\n" for line in text.splitlines())
    assert read(quoted.encode())[0].leaves == {(0xD, 0): (7, 832, 832, 0)}
