"""What the kernel prints, as text: boot lines, trace lines, slab lines, and the software bytes of a frame."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate.errors import CannotTell
from fpstate.linux.observe.boot import _without_stamp, select
from fpstate.linux.observe.fact import why
from fpstate.linux.observe.frame import software_bytes
from fpstate.linux.observe.slab import objsize
from fpstate.linux.observe.tracing import guest_xcomp_bv, read_events, task_xcomp_bv

# Linux 6.18.44 on a Zen 4 virtual machine, shortened.
BOOT = """\
Linux version 6.18.44
BIOS-provided physical RAM map:
x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'
x86/fpu: Supporting XSAVE feature 0x002: 'SSE registers'
x86/fpu: xstate_offset[2]:  576, xstate_sizes[2]:  256
x86/fpu: Enabled xstate features 0x18e7, context size is 2472 bytes, using 'compacted' format.
pid_max: default: 32768 minimum: 301
signal: max sigframe size: 3376
Freeing SMP alternatives memory: 40K
""".splitlines()
SAID = (*BOOT[2:6], BOOT[7])

# Linux 6.18.44 on a Zen 4 virtual machine: a thread that enters KVM_RUN twice.
TRACE = """\
# tracer: nop
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
    fpstate-7320-7320    [000] d....  1840.140645: x86_fpu_regs_activated: x86/fpu: 0000000000ad85c0 load: 1 \
xfeatures: a2 xcomp_bv: 80000000000008e7
    fpstate-7320-7320    [000] b....  1840.144380: x86_fpu_regs_activated: x86/fpu: 0000000000ad85c0 load: 0 \
xfeatures: 0 xcomp_bv: 80000000000018e7
    fpstate-7320-7320    [000] .....  1840.144382: kvm_fpu: load
    fpstate-7320-7320    [000] b....  1840.144457: x86_fpu_regs_activated: x86/fpu: 0000000000ad85c0 load: 0 \
xfeatures: a2 xcomp_bv: 80000000000008e7
    fpstate-7320-7320    [000] .....  1840.144457: kvm_fpu: unload
"""
TASK, GUEST = 0x80000000000008E7, 0x80000000000018E7


def test_a_whole_boot_log_gives_the_lines_about_the_fpu() -> None:
    assert select(iter(BOOT)) == SAID


def test_a_boot_log_that_lost_its_start_gives_all_of_them_or_none() -> None:
    for lost in range(len(BOOT) + 1):
        try:
            lines = select(iter(BOOT[lost:]))
        except CannotTell:
            assert lost > 1
        else:
            assert lines == (SAID if lost <= 1 else (BOOT[7],))


def test_a_boot_log_that_lost_its_start_says_so_with_the_cure() -> None:
    with pytest.raises(CannotTell, match=r"^it has lost the start of this boot; boot with a larger log_buf_len="):
        select(iter(BOOT[-1:]))


def test_a_whole_boot_log_without_the_lines_does_not_pass_for_a_lost_one() -> None:
    with pytest.raises(CannotTell, match=r"^the kernel printed no x86/fpu lines$"):
        select(iter(BOOT[:2]))


@pytest.mark.parametrize("stamp", ["", "[    0.251052] ", "[12345.678901] ", "[    0.251052] [    T0] ", "[1.5][C12] "])
def test_time_and_caller_are_taken_off_a_log_line(stamp: str) -> None:
    assert _without_stamp(stamp + SAID[0]) == SAID[0]


def test_what_only_looks_like_a_stamp_stays_on_a_log_line() -> None:
    assert _without_stamp("[    0.1] [mem 0x0-0xfff] usable") == "[mem 0x0-0xfff] usable"
    assert _without_stamp("[unclosed") == "[unclosed"


def test_the_mask_before_a_kvm_load_is_the_guests_and_before_an_unload_the_tasks() -> None:
    events = read_events(TRACE)
    assert [name for name, _ in events] == ["activated", "activated", "load", "activated", "unload"]
    assert task_xcomp_bv(events) == TASK
    assert guest_xcomp_bv(events, TASK) == GUEST


def test_without_kvm_events_the_guests_mask_is_the_one_that_differs() -> None:
    activated = [event for event in read_events(TRACE) if event[0] == "activated"]
    assert guest_xcomp_bv(activated, TASK) == GUEST
    assert guest_xcomp_bv(activated[:1], TASK) is None


def test_the_address_of_fpu_and_the_flags_of_the_line_do_not_matter() -> None:
    # The pointer unhashed (no_hash_pointers), latency format as in a mail of 2019, a standard-format kernel.
    text = (
        " qemu-system-x86-150750 [019] 16067.545774: x86_fpu_regs_activated: x86/fpu: 0xffff8f85750d4940 load: 1 "
        "xfeatures: 203 xcomp_bv: 8000000000000207\n"
        "  <idle>-0       1d...2.. 2563695127us : x86_fpu_regs_activated: x86/fpu: 00000000e2eb3eca initialized: 1 "
        "xfeatures: 2 xcomp_bv: 8000000000000007\n"
        " systemd-journal-435     [006] d..1.    63.884937: x86_fpu_regs_activated: x86/fpu: 00000000e86f3727 load: 1 "
        "xfeatures: 3 xcomp_bv: 0\n"
    )
    assert [value for _, value in read_events(text)] == [0x8000000000000207, 0x8000000000000007, 0]


@given(st.text())
def test_no_trace_text_breaks_the_reader(text: str) -> None:
    assert task_xcomp_bv(read_events(text)) is None


def test_the_size_of_a_task_is_the_third_number_of_its_slab_line() -> None:
    header = "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab>\n"
    line = (
        "task_struct          110    110   5888    5    8 : tunables    0    0    0 : slabdata     22     22      0\n"
    )
    assert objsize(header + line) == 5888
    assert objsize(header) is None


@given(st.text())
def test_no_slab_text_breaks_the_reader(text: str) -> None:
    assert objsize(text) is None


def test_the_software_bytes_of_a_frame_are_read_where_the_kernel_puts_them() -> None:
    image = bytes(464) + struct.pack("<IIQI", 0x46505853, 2436, 0xE7, 2432) + bytes(28)
    assert software_bytes(image) == {
        "sigframe_magic1": 0x46505853,
        "sigframe_extended_size": 2436,
        "sigframe_xfeatures": 0xE7,
        "sigframe_xstate_size": 2432,
    }


def test_a_frame_without_software_bytes_says_so_for_all_that_hangs_on_them() -> None:
    found = software_bytes(bytes(512))
    assert found.pop("sigframe_magic1") == 0
    assert set(found) == {
        "sigframe_extended_size",
        "sigframe_xfeatures",
        "sigframe_xstate_size",
        "sigframe_magic2",
    }
    assert set(found.values()) == {"the kernel wrote no software bytes: magic1 is 0x0, not 0x46505853"}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "/dev/kvm"), "no /dev/kvm"),
        (OSError(19, "No such device", "mounting tracefs"), "mounting tracefs: No such device"),
        (OSError(22, "Invalid argument"), "reading it: Invalid argument"),
        (MemoryError(), "this Python cannot call the system: its memory is refused"),
        (ImportError("No module named '_ctypes'"), "this Python cannot call the system: No module named '_ctypes'"),
        (CannotTell("none here", cure="look there"), "none here; look there"),
    ],
)
def test_a_failure_becomes_one_line(error: Exception, text: str) -> None:
    assert why(error, "reading it") == text
