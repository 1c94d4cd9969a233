"""Boot lines of Linux and Xen."""

from __future__ import annotations

import json
import pathlib
import textwrap
from collections.abc import Mapping
from typing import Any

import pytest

from fpstate.cpu import load
from fpstate.cpu.dump import BootLog, Dump
from fpstate.cpu.formats import read
from fpstate.errors import UnreadableInput


def parse(text: str) -> list[Dump]:
    return read(textwrap.dedent(text).encode())


def log(text: str) -> BootLog:
    (dump,) = parse(text)
    assert dump.boot_log is not None
    return dump.boot_log


TIGER_LAKE = """\
[    0.000000] x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'
[    0.000000] x86/fpu: Supporting XSAVE feature 0x002: 'SSE registers'
[    0.000000] x86/fpu: Supporting XSAVE feature 0x004: 'AVX registers'
[    0.000000] x86/fpu: Supporting XSAVE feature 0x200: 'Protection Keys User registers'
[    0.000000] x86/fpu: xstate_offset[2]:  576, xstate_sizes[2]:  256
[    0.000000] x86/fpu: xstate_offset[9]:  832, xstate_sizes[9]:    8
[    0.000000] x86/fpu: Enabled xstate features 0x207, context size is 840 bytes, using 'compacted' format.
[    0.100000] smpboot: CPU0: 11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz (family: 0x6, model: 0x8c, stepping: 0x1)
[    0.100000] signal: max sigframe size: 3632
"""


def test_linux_lines_give_features_size_format_and_components() -> None:
    assert log(TIGER_LAKE) == BootLog(0x207, 840, compacted=True, components={2: (576, 256), 9: (832, 8)})


def test_a_boot_log_is_partial_knowledge() -> None:
    (dump,) = parse(TIGER_LAKE)
    assert (dump.format, dump.leaves, dump.os_linux) == ("boot-log", {}, True)
    assert dump.label == "11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz"
    assert dump.notes == ("read from boot lines: partial knowledge, no CPUID leaves",)


def test_linux_4_2_prints_offsets_in_hex_without_saying_so() -> None:
    # Ubuntu 4.2.0-16-generic
    assert log("""
        [    0.000000] x86/fpu: xstate_offset[2]: 0240, xstate_sizes[2]: 0100
        [    0.000000] x86/fpu: xstate_offset[3]: 03c0, xstate_sizes[3]: 0040
        [    0.000000] x86/fpu: xstate_offset[4]: 0400, xstate_sizes[4]: 0040
        [    0.000000] x86/fpu: Enabled xstate features 0x1f, context size is 0x440 bytes, using 'standard' format.
        """) == BootLog(0x1F, 1088, compacted=False, components={2: (576, 256), 3: (960, 64), 4: (1024, 64)})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("xsave/xrstor: enabled xstate_bv 0x3, cntxt size 0x240", BootLog(3, 576, None)),
        ("xsave: enabled xstate_bv 0x7, cntxt size 0x340", BootLog(7, 832, None)),
        ("xsave: enabled xstate_bv 0x1f, cntxt size 0x440 using standard form", BootLog(0x1F, 1088, compacted=False)),
        ("xsave: enabled xstate_bv 0x7, cntxt size 0x340 using compacted form", BootLog(7, 832, compacted=True)),
        ("x86/fpu: Enabled xstate features 0x1f, context size is 1088 bytes.", BootLog(0x1F, 1088, None)),
        ("(XEN) xstate: size: 0xa88 and states: 0x2ff", BootLog(0x2FF, 2696, None)),
        ("(XEN) [    1.5] CPU0: xstate: size: 0x440 (uncompressed 0x440) and states: 0x1f", BootLog(0x1F, 1088, None)),
    ],
)
def test_the_one_line_of_older_kernels_and_of_xen(line: str, expected: BootLog) -> None:
    assert log(line) == expected


def test_xen_is_not_linux_and_does_not_say_the_format() -> None:
    (dump,) = parse("(XEN) xstate: size: 0x340 (uncompressed 0x440) and states: 0x1f")
    assert not dump.os_linux
    assert dump.guesses == ("Xen's line: it does not say in which format the size is",)
    assert dump.notes[1:] == ("uncompressed, Xen says, the size is 1088 bytes",)


def test_the_same_lines_of_each_cpu_or_boot_are_one_dump() -> None:
    assert len(parse(f"(XEN) CPU{0}: xstate: size: 0x440 and states: 0x1f\n" * 4)) == 1
    assert len(parse(TIGER_LAKE + TIGER_LAKE)) == 1


def test_xen_and_the_linux_above_it_are_two_dumps() -> None:
    dumps = parse("(XEN) xstate: size: 0xa88 and states: 0x2ff\n" + TIGER_LAKE)
    assert [(dump.index, dump.os_linux, dump.boot_log and dump.boot_log.features) for dump in dumps] == [
        (0, False, 0x2FF),
        (1, True, 0x207),
    ]


def test_without_the_line_with_the_size_the_last_component_gives_it() -> None:
    (dump,) = parse(TIGER_LAKE.replace("Enabled xstate", "..."))
    assert dump.boot_log == BootLog(0x207, 840, None, {2: (576, 256), 9: (832, 8)})
    assert dump.guesses == ("the line with the size is missing: taken from the end of the last component",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x86/fpu: Supporting XSAVE feature 0x004: 'AVX registers'", "lack the one with the size"),
        ("x86/fpu: x87 FPU will use FXSAVE", "without XSAVE there are no xfeatures"),
        ("XSAVE consistency problem: size 10752 != kernel_size 10736\nx86/fpu: XSAVE disabled", "gave up XSAVE"),
    ],
)
def test_boot_lines_that_do_not_suffice_are_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(UnreadableInput, match=why):
        parse(text)


def test_more_boots_than_any_log_has_are_refused() -> None:
    line = "xsave: enabled xstate_bv 0x7, cntxt size {:#x}\n"
    with pytest.raises(UnreadableInput, match="more than 1024 different boots"):
        parse("".join(line.format(size) for size in range(1100)))


def render(style: str, entry: Mapping[str, Any]) -> str:
    """Write a tuple of the corpus as the kernel of its style did."""
    features, size, form = entry["features"], entry["context_size"], entry["format"]
    places = [(bit, place["offset"], place["size"]) for bit, place in entry["components"].items()]
    if style.startswith("xen"):
        extra = f" (uncompressed {size:#x})" if "uncompressed" in form else ""
        return f"(XEN) xstate: size: {size:#x}{extra} and states: {features}\n"
    if style == "linux-3.x/xsave":
        return f"xsave: enabled xstate_bv {features}, cntxt size {size:#x} using {form} form\n"
    if style == "linux-4.2/hex":
        lines = [
            f"x86/fpu: xstate_offset[{bit}]: {at:04x}, xstate_sizes[{bit}]: {length:04x}\n"
            for bit, at, length in places
        ]
        shown = f"{size:#x}"
    else:
        lines = [
            f"x86/fpu: xstate_offset[{bit}]: {at:4d}, xstate_sizes[{bit}]: {length:4d}\n" for bit, at, length in places
        ]
        shown = str(size)
    enabled = f"x86/fpu: Enabled xstate features {features}, context size is {shown} bytes, using '{form}' format.\n"
    return "".join(lines) + enabled


def test_every_boot_of_the_corpus_is_read_as_it_was_printed(corpus: pathlib.Path) -> None:
    for entry in json.loads((corpus / "bootlogs/tuples.json").read_text()):
        style = entry["style"]
        if not style.startswith(("linux", "xen")):
            continue
        found = log(render(style, entry))
        assert (hex(found.features), found.context_size) == (entry["features"], entry["context_size"])
        if "xsave" not in style and "xen" not in style:
            assert found.compacted is (entry["format"] == "compacted")
            assert found.components == {int(b): (p["offset"], p["size"]) for b, p in entry["components"].items()}


def test_texts_quoted_in_the_corpus_are_read(corpus: pathlib.Path) -> None:
    read_texts = 0
    for entry in json.loads((corpus / "bootlogs/tuples.json").read_text()):
        for source in entry["sources"]:
            text = source.get("text", "")
            if text.startswith(("xsave:", "(XEN)")):
                found = log(text)
                assert (hex(found.features), found.context_size) == (entry["features"], entry["context_size"])
                read_texts += 1
    assert read_texts >= 3


def test_boot_lines_of_every_real_kernel_agree_with_what_its_cpuid_enumerates(corpus: pathlib.Path) -> None:
    read_logs = 0
    for file in sorted((corpus / "realkernel").glob("*.json")):
        boot = json.loads(file.read_text())
        lines = "\n".join(boot["boot_lines"])
        if "Enabled xstate" not in lines:
            continue
        found = log(lines)
        d0, d1 = boot["cpuid"]["d.0"], boot["cpuid"]["d.1"]
        assert found.features & ~(d0[0] | d1[2]) == 0
        assert set(found.components) == {bit for bit in range(2, 63) if found.features >> bit & 1}
        read_logs += 1
    assert read_logs >= 8


MPX = """\
x86/fpu: xstate_offset[2]:  576, xstate_sizes[2]:  256
x86/fpu: xstate_offset[3]:  {3}, xstate_sizes[3]:   64
x86/fpu: xstate_offset[4]:  {4}, xstate_sizes[4]:   64
"""


@pytest.mark.parametrize(
    ("text", "compacted"),
    [
        (MPX.format(0, 0, 0, 832, 896), True),
        (MPX.format(0, 0, 0, 960, 1024), False),
        (MPX.split("\n", maxsplit=1)[0], None),
    ],
)
def test_without_the_line_with_the_size_the_offsets_tell_the_format(text: str, compacted: bool | None) -> None:
    assert log(text).compacted is compacted


def test_a_size_padded_with_zeros_is_decimal() -> None:
    assert log("Enabled xstate features 0x7, context size is 0832 bytes, using 'standard' format.").context_size == 832


def boots(*sizes: int) -> str:
    line = "x86/fpu: Enabled xstate features 0x{:x}, context size is {} bytes, using 'compacted' format.\n"
    return "".join(line.format(7 if size == 832 else 0xE7, size) for size in sizes)


def test_of_several_boots_the_last_is_meant_and_a_note_says_so(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "dmesg"
    file.write_text(boots(2432, 832))
    cpu = load(file)
    assert cpu.xcr0_mask == 7
    assert f"{file} has 2 different boots; this is number 1, counted from 0 (--index)" in cpu.notes
    assert load(file, index=0).xcr0_mask == 0xE7
