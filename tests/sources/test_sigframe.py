"""Signal frames: found where they are, checked as sigreturn checks them, on real stacks and in real cores."""

from __future__ import annotations

import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elfcores
from fpstate import cpu as cpus
from fpstate.cpu.host import why_not_x86_64
from fpstate.errors import UnreadableInput
from fpstate.image import read as read_image
from fpstate.image import register_differences
from fpstate.isa import Capabilities
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2
from fpstate.sources.capture import Thread
from fpstate.sources.input import Input
from fpstate.sources.sigframe import MOST_FRAMES, Memory, find, read, sniff
from fpstate.sources.stacks import core_memory, frames_of_core, frames_of_process
from known import known
from tracees import Program

ZEN4 = Capabilities(cpus.by_name("zen4"))
SIZE, FEATURES = 2432, 0xE7
MAGIC1, EXTENDED, XFEATURES, XSTATE_SIZE = (464, "I"), (468, "I"), (472, "Q"), (480, "I")


def frame(*changes: tuple[int, str, int], extended: int = SIZE + 4) -> bytes:
    """A frame as Linux 6.18 wrote it on a Zen 4 without PKU: the software bytes of section 12.2 of its notes."""
    data = bytearray(known(ZEN4, 1)[:SIZE].ljust(SIZE + 4, b"\0"))
    for at, kind, value in [
        (*MAGIC1, FP_XSTATE_MAGIC1),
        (*EXTENDED, extended),
        (*XFEATURES, FEATURES),
        (*XSTATE_SIZE, SIZE),
        (SIZE, "I", FP_XSTATE_MAGIC2),
        *changes,
    ]:
        struct.pack_into(f"<{kind}", data, at, value)
    return bytes(data)


def only(data: bytes) -> Thread:
    (thread,) = read(Input("frame", memoryview(data))).threads
    return thread


def test_a_sound_frame_is_its_image() -> None:
    assert sniff(Input("it", memoryview(frame())))
    thread = only(frame() + b"what lies above it")
    assert (thread.form, thread.abi, thread.enabled, thread.offset) == ("xsave", "x86-64", FEATURES, 0)
    assert bytes(thread.image) == frame()[:SIZE]
    assert thread.damage == ()


def test_a_32_bit_frame_may_begin_with_its_fsave_part() -> None:
    data = bytes(112) + frame(extended=SIZE + 4 + 112)
    assert sniff(Input("it", memoryview(data)))
    thread = only(data)
    assert (thread.abi, thread.offset, thread.damage) == ("i386", 112, ())


# What a real 6.18 made of these frames: section 12.3 of the notes, and tests/linux/test_copyin.py.
@pytest.mark.parametrize(
    ("change", "rule", "offset", "form"),
    [
        ((SIZE, "I", 0), "sigreturn-magic2", SIZE, "fxsave"),
        ((*XSTATE_SIZE, SIZE - 64), "sigreturn-magic2", SIZE - 64, "fxsave"),
        ((*XSTATE_SIZE, 512), "sigreturn-size", 480, "fxsave"),
        ((*XSTATE_SIZE, 0xFFFFFFFF), "sigreturn-size", 480, "fxsave"),
        ((*EXTENDED, SIZE - 4), "sigreturn-size", 480, "fxsave"),
        ((512, "Q", 0xE7 | 1 << 11), "sigreturn-header", 513, "xsave"),
        ((520, "Q", 1 << 63), "sigreturn-header", None, "xsave"),
        ((528, "B", 1), "sigreturn-header", 528, "xsave"),
        ((24, "I", 1 << 31), "sigreturn-mxcsr", 27, "xsave"),
    ],
)
def test_damage_is_what_sigreturn_would_say(
    change: tuple[int, str, int], rule: str, offset: int | None, form: str
) -> None:
    thread = only(frame(change))
    (damage,) = thread.damage
    assert (damage.rule, thread.form) == (rule, form)
    assert offset is None or damage.offset == offset
    expected = "sigreturn restores x87 and SSE alone" if form == "fxsave" else "sigreturn kills with SIGSEGV"
    assert damage.text.startswith(expected)
    assert damage.cure
    assert len(thread.image) == (512 if form == "fxsave" else SIZE)


@pytest.mark.parametrize("change", [(*XFEATURES, 3), (512, "Q", 0), (575, "B", 1), (520, "Q", 1 << 63 | FEATURES)])
def test_what_sigreturn_accepts_is_no_damage(change: tuple[int, str, int]) -> None:
    assert only(frame(change)).damage == ()


def test_a_32_bit_frame_is_held_to_the_rules_of_the_copy() -> None:
    # the slow path rejects what the fast path's XRSTOR would ignore: header bytes 24 to 63
    (damage,) = only(frame((575, "B", 1), extended=SIZE + 116)).damage
    assert (damage.rule, damage.offset) == ("ptrace-reserved", 575)
    assert damage.text.startswith("sigreturn kills with SIGSEGV")


def test_a_frame_whose_legacy_part_alone_was_copied() -> None:
    # Clozure/ccl PR #556: the marker is left, what stands behind it is not the frame's
    (thread,) = find([Memory(0x7000, memoryview(frame()[:512] + b"\xcc" * 4096))])[0]
    assert (thread.form, thread.damage[0].rule) == ("fxsave", "sigreturn-magic2")


def test_a_truncated_frame_says_so() -> None:
    (damage,) = only(frame()[: SIZE - 100]).damage
    assert (damage.rule, "the frame has 2332 bytes of 2436" in damage.text) == ("sigreturn-read", True)


def test_frames_are_found_by_address_and_64_divides_it() -> None:
    stack = bytearray(16384)
    stack[4160 : 4160 + SIZE + 4] = frame()
    stack[10008 : 10008 + SIZE + 4] = frame()  # a copy: no kernel put it there
    (found,), notes = find([Memory(0x7FFF0000, memoryview(bytes(stack)), offset=100)], tid=9)
    assert (found.tid, found.offset, found.values["address"]) == (9, 4260, 0x7FFF0000 + 4160)
    assert (found.name, notes) == ("signal frame at 0x7fff1040", ())


def test_no_more_frames_are_given_than_a_stack_can_hold() -> None:
    many = (frame()[:512] * (MOST_FRAMES + 1)).ljust(1 << 20, b"\0")
    found, notes = find([Memory(0, memoryview(many))])
    assert (len(found), notes) == (MOST_FRAMES, (f"only the first {MOST_FRAMES} frames are given",))


@pytest.mark.parametrize("data", [b"", bytes(4096), frame()[:480]], ids=lambda data: str(len(data)))
def test_other_bytes_are_no_frame(data: bytes) -> None:
    assert not sniff(Input("it", memoryview(data)))
    with pytest.raises(UnreadableInput, match=r"magic1 .* is not at 464"):
        read(Input("junk", memoryview(data)))


@settings(max_examples=200)
@given(st.integers(460, 600), st.binary(min_size=1, max_size=40), st.integers(0, SIZE + 4))
def test_any_bytes_are_answered(at: int, junk: bytes, end: int) -> None:
    data = bytearray(frame())
    data[at : at + len(junk)] = junk
    view = memoryview(bytes(data[:end]))
    if sniff(Input("it", view)):
        (thread,) = read(Input("junk", view)).threads
        assert len(thread.image) <= len(view)
    for thread in find([Memory(0, view)])[0]:
        assert len(thread.image) <= len(view)


# -- real ones -------------------------------------------------------------------------------------------------------


@pytest.fixture
def host() -> Capabilities:
    if reason := why_not_x86_64():
        pytest.skip(reason)
    return Capabilities(cpus.this_host())


@pytest.fixture
def inside_handler(host: Capabilities, tmp_path: pathlib.Path) -> Iterator[Program]:
    """A process that took SIGUSR1 with the registers of `known(host, 5)`, and is still in the handler."""
    try:
        program = Program("handler", [known(host, 5)], folder=str(tmp_path))
    except OSError as refused:
        pytest.skip(str(refused))
    with program:
        time.sleep(0.05)  # until it runs what changes no register
        os.kill(program.pid, signal.SIGUSR1)
        program.wait_for("S")
        yield program


@pytest.mark.host
def test_the_frame_on_a_stack_holds_what_the_signal_interrupted(inside_handler: Program, host: Capabilities) -> None:
    capture = frames_of_process(inside_handler.pid)
    (thread,) = [thread for thread in capture.threads if not thread.damage]
    image = read_image(bytes(thread.image), host)
    assert register_differences(image, read_image(known(host, 5), host)) == []
    assert (thread.tid, thread.abi, thread.form) == (inside_handler.pid, "x86-64", "xsave")
    code = inside_handler.answer
    assert code < thread.values["rip"] < code + 100  # in the loop
    assert thread.values["rsp"] > thread.values["address"]


@pytest.mark.host
def test_a_process_outside_of_handlers_has_no_frame(host: Capabilities) -> None:
    with Program("registers", [known(host, 1)]) as program:
        assert [thread for thread in frames_of_process(program.pid).threads if not thread.damage] == []


@pytest.mark.host
@pytest.mark.parametrize("by", ["the kernel", "gdb"])
def test_the_frame_in_a_core(inside_handler: Program, host: Capabilities, tmp_path: pathlib.Path, by: str) -> None:
    core = dumped_by_gdb(inside_handler, tmp_path) if by == "gdb" else dumped_by_kernel(inside_handler, tmp_path)
    data = core.read_bytes()
    sound = [thread for thread in frames_of_core(Input("core", data)).threads if not thread.damage]
    interrupted = [thread for thread in sound if "rip" in thread.values]
    frame_of_handler = min(interrupted, key=lambda thread: -thread.values["address"])
    image = read_image(bytes(frame_of_handler.image), host)
    assert register_differences(image, read_image(known(host, 5), host)) == []
    at = frame_of_handler.offset
    assert at is not None
    assert data[at : at + SIZE] == bytes(frame_of_handler.image)[:SIZE]


def dumped_by_gdb(program: Program, folder: pathlib.Path) -> pathlib.Path:
    if shutil.which("gcore") is None:
        pytest.skip("gdb's gcore is missing")
    subprocess.run(["gcore", "-o", str(folder / "core"), str(program.pid)], capture_output=True, check=True)
    return folder / f"core.{program.pid}"


def dumped_by_kernel(program: Program, folder: pathlib.Path) -> pathlib.Path:
    pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text("ascii").strip()
    if pattern != "core":
        pytest.skip(f"core_pattern is {pattern!r}: the kernel does not leave cores in the working directory")
    resource.prlimit(program.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os.kill(program.pid, signal.SIGQUIT)
    program.ended()
    return next(folder.glob("core*"))


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(10), b"\x7fELF\x02\x01" + bytes(100)])
def test_what_is_no_core_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableInput, match=r"no ELF core|no whole ELF file|not for x86"):
        frames_of_core(Input("file", data))


def test_program_headers_beyond_65534_are_counted_in_a_section_header() -> None:
    """gABI, e_phnum PN_XNUM: what lies behind the two there are is no program header."""
    looks_like_one = struct.pack("<IIQQQQQQ", 1, 6, 0, 0x2000, 0, 64, 64, 0)
    data = elfcores.core(looks_like_one * 2, memory=bytes(100), extended=True)
    assert [(run.address, len(run.data)) for run in core_memory(Input("core", data))] == [(0x1000, 100)]


@given(st.binary(max_size=200), st.booleans())
def test_any_program_headers_are_answered(junk: bytes, wide: bool) -> None:
    data = b"\x7fELF" + (b"\x02" if wide else b"\x01") + b"\x01" + bytes(10) + b"\x04\x00" + junk
    try:
        frames_of_core(Input("junk", data))
    except UnreadableInput:
        return
