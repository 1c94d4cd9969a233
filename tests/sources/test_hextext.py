"""Pasted images.  xxd, hexdump and gdb themselves print what is read here, where they are installed."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import struct
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstate.errors import UnreadableInput
from fpstate.sources import hextext
from fpstate.sources.capture import Capture
from fpstate.sources.input import Input


def sample() -> bytes:
    """Return an image of 832 bytes: x87 and SSE initial but XMM3, then long runs of zeros, then YMM_H."""
    data = bytearray(832)
    struct.pack_into("<H22xII", data, 0, 0x37F, 0x1F80, 0x2FFFF)
    data[208:224] = bytes(range(0x61, 0x71))  # letters, so that the text column looks like digits: abcdef...
    struct.pack_into("<Q", data, 512, 7)
    data[576:832] = bytes(range(256))
    return bytes(data)


IMAGE = sample()


def read(text: str | bytes) -> Capture:
    return hextext.read(Input("a paste", memoryview(text.encode() if isinstance(text, str) else text)))


def only(text: str | bytes) -> bytes:
    (thread,) = read(text).threads
    return bytes(thread.image)


def printed(tmp_path: pathlib.Path, *command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    file = tmp_path / "image.bin"
    file.write_bytes(IMAGE)
    return subprocess.run([*command, str(file)], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "command",
    [
        ("xxd",),
        ("xxd", "-a"),
        ("xxd", "-g1"),
        ("xxd", "-c", "8", "-g", "4"),
        ("xxd", "-u"),
        ("xxd", "-p"),
        ("xxd", "-i"),
        ("hexdump", "-C"),
        ("hexdump", "-Cv"),
        ("hexdump",),
        ("od", "-A", "x", "-t", "x1"),
        ("od", "-v", "-t", "x1"),
    ],
    ids=" ".join,
)
def test_what_the_tool_prints_is_read(tmp_path: pathlib.Path, command: tuple[str, ...]) -> None:
    assert only(printed(tmp_path, *command)) == IMAGE


@pytest.mark.parametrize("unit", ["832xb", "416xh", "208xw", "104xg"])
def test_what_gdb_prints_is_read(tmp_path: pathlib.Path, unit: str) -> None:
    for tool in ("gdb", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    source, program = tmp_path / "held.c", tmp_path / "held"
    source.write_text(f"unsigned char held[] = {{{','.join(map(str, IMAGE))}}}; int main(void) {{ return held[0]; }}")
    subprocess.run(["gcc", "-o", program, source], check=True)
    command = ["gdb", "-nx", "-batch", "-ex", f"x/{unit} &held", str(program)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "<held" in text
    assert only(f"(gdb) x/{unit} &held\n{text}(gdb) quit\n") == IMAGE


def c_array(kind: str, width: int) -> str:
    numbers = [int.from_bytes(IMAGE[i : i + width], "little") for i in range(0, len(IMAGE), width)]
    rows = [", ".join(f"{n:#0{2 * width + 2}x}" for n in numbers[i : i + 8]) for i in range(0, len(numbers), 8)]
    return f"static const {kind} image[{len(numbers)}] = {{\n  /* XSAVE */\n  " + ",\n  ".join(rows) + "\n};\n"


@pytest.mark.parametrize(
    ("kind", "width"),
    [("unsigned char", 1), ("uint8_t", 1), ("u16", 2), ("uint32_t", 4), ("unsigned int", 4), ("__u64", 8), ("int", 4)],
)
def test_a_c_array_is_little_endian_by_element(kind: str, width: int) -> None:
    assert only(c_array(kind, width)) == IMAGE


def test_an_array_without_a_type_is_guessed_and_said() -> None:
    text = c_array("T", 4)
    capture = read(text)
    assert bytes(capture.threads[0].image) == IMAGE
    assert any("no type is shown" in note for note in capture.notes)


def test_decimal_elements_are_numbers_as_well() -> None:
    assert only(f"byte image[] = {{{', '.join(map(str, IMAGE))}}};") == IMAGE


def test_numbers_with_commas_need_no_braces() -> None:
    assert only(",\n".join(", ".join(f"0x{b:02x}" for b in IMAGE[i : i + 16]) for i in range(0, 832, 16))) == IMAGE


def test_a_string_of_escapes_is_read() -> None:
    assert only('char *p = "' + "".join(f"\\x{b:02x}" for b in IMAGE) + '";') == IMAGE


@pytest.mark.parametrize("group", [1, 2, 4, 8, 832])
def test_bare_digits_stand_in_memory_order(group: int) -> None:
    assert only(" ".join(IMAGE[i : i + group].hex() for i in range(0, 832, group))) == IMAGE


def rows() -> list[str]:
    return [f"{at:08x}  {IMAGE[at : at + 16].hex(' ')}  |................|" for at in range(0, 832, 16)]


def test_quoted_mail_with_prompts_and_talk_is_read_and_what_was_skipped_is_said() -> None:
    text = "Hi,\n> $ hexdump -Cv image.bin\n" + "".join(f"> > {row}\n" for row in rows()) + "> 00000340\n-- \nme\n"
    capture = read(text)
    assert bytes(capture.threads[0].image) == IMAGE
    assert "4 lines show no bytes and were skipped, such as 'Hi,'" in capture.notes[-1]


def test_lines_that_a_mail_program_wrapped_are_joined() -> None:
    text = "".join(f"{row[:48]}\n{row[48:]}\n" for row in rows())
    assert only(text) == IMAGE


def test_a_kernels_hex_dump_in_a_log_is_read() -> None:
    lines = [
        f"[   12.34] xsave: {at:08x}: {IMAGE[at : at + 16].hex(' ')}  ................" for at in range(0, 832, 16)
    ]
    assert only("\n".join(lines)) == IMAGE


def test_lldbs_memory_read_is_read() -> None:
    lines = [f"0x7ffeefbff{at:03x}: {IMAGE[at : at + 16].hex(' ')}  ................" for at in range(0, 832, 16)]
    assert only("\n".join(lines)) == IMAGE


def test_a_missing_line_is_taken_for_zeros_and_is_damage() -> None:
    lines = rows()
    del lines[13]  # XMM3
    (thread,) = read("\n".join(lines)).threads
    assert thread.damage[0].rule == "text.gap"
    assert "16 bytes are missing behind the first 208" in thread.damage[0].text
    assert bytes(thread.image[208:224]) == bytes(16)
    assert bytes(thread.image[224:]) == IMAGE[224:]


def test_two_dumps_are_two_images() -> None:
    assert [bytes(thread.image) for thread in read("\n".join([*rows(), *rows()])).threads] == [IMAGE, IMAGE]


def test_text_whose_bytes_are_no_image_is_refused_with_the_rule() -> None:
    with pytest.raises(UnreadableInput, match="XSTATE_BV sets bit 40"):
        read((IMAGE[:28] + bytes(4) + IMAGE[32:512] + (1 << 40).to_bytes(8, "little") + IMAGE[520:]).hex())


def test_an_image_with_a_damaged_header_is_read() -> None:
    """Known by what stands around XSTATE_BV, see test_rawimage."""
    damaged = IMAGE[:512] + (1 << 40).to_bytes(8, "little") + IMAGE[520:]
    assert [bytes(thread.image) for thread in read(damaged.hex()).threads] == [damaged]


@pytest.mark.parametrize(
    "text", ["", "CPUID 00000000: 00000016-756E6547-6C65746E-49656E69", "deadbeef", "hello\n" * 99]
)
def test_other_text_is_none(text: str) -> None:
    assert not hextext.sniff(Input("it", memoryview(text.encode())))
    with pytest.raises(UnreadableInput, match="holds no image"):
        read(text)


def test_an_image_itself_is_no_text() -> None:
    assert not hextext.sniff(Input("it", memoryview(IMAGE)))


@pytest.mark.parametrize(
    "text",
    [
        "00000000: 00\n*\n7fffffff: 00\n" * 2000,
        "0x" + "1" * 900_000 + ",",
        "{" * 300_000,
        "a" * 1_000_000 + "{1",
        "0x1" + " " * 900_000 + "!",
        ("0x10: " + "0x00 " * 150 + "g\n") * 300,
        "/* " * 300_000,
        "00000000: 0000\n" + "*\n" * 200_000 + "z\n" * 200_000,
        "00000000: 0000\n" + "00\n" * 300_000,
    ],
    ids=["gaps", "long-number", "braces", "words", "spaces", "nearly", "comments", "repeats", "continued"],
)
def test_hostile_text_is_neither_slow_nor_large(text: str) -> None:
    start = time.process_time()
    assert not hextext.sniff(Input("it", memoryview(text.encode())))
    assert time.process_time() - start < 2


HEX = st.text(alphabet="0123456789abcdefx:|*,{} \n\t\\", max_size=200)


@settings(derandomize=True)
@given(st.lists(st.one_of(HEX, st.sampled_from(rows())), max_size=60))
def test_no_text_breaks_the_reader(pieces: list[str]) -> None:
    with contextlib.suppress(UnreadableInput):
        assert read("\n".join(pieces)).threads


@settings(max_examples=30, derandomize=True)
@given(st.integers(0, 831), st.integers(1, 64))
def test_wherever_an_image_is_broken_into_lines_it_is_read(first: int, width: int) -> None:
    digits = IMAGE.hex()
    pieces = [digits[: 2 * first], *(digits[i : i + 2 * width] for i in range(2 * first, len(digits), 2 * width))]
    assert only("\n".join(pieces)) == IMAGE
