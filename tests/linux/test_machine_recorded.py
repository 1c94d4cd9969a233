"""The machine does what real kernels did: tracepoints, signal frames, regsets, refused images, AMX, core notes.

Each test builds the machine from what CPUID said on that boot and its command line, takes the steps that the recorder's
programs took, and compares what user space saw.  The kernel was Linux 7.2.13 on an emulated CPU; what an emulator gets
wrong is in its profile (`fpstate.isa.Profile`), or said in the test.
"""

from __future__ import annotations

import re
import struct
from itertools import groupby

from fpstate.linux.abi import MAGIC2_SIZE
from fpstate.linux.machine.userspace import NT_PRFPREG, NT_X86_SHSTK, NT_X86_XSAVE_LAYOUT, NT_X86_XSTATE
from fpstate.xfeatures import LEGACY, XTILE
from recorded import CHILD, PARENT, STATES, Recording, StoppedChild, recorded
from tampered import FRAMES, TAMPERED, u64

ENODEV = 19
SIGILL, SIGSEGV = 4, 11
CET_U = 1 << 11
BNDCSR = 1 << 4
XTILEDATA = 18


def header(image: bytes) -> dict[str, int]:
    """What the recorder prints of a regset."""
    return {
        "size": len(image),
        "sw_xfeatures": u64(image, 464),
        "xstate_bv": u64(image, 512),
        "xcomp_bv": u64(image, 520),
    }


def stopped_in(real: Recording, state: str) -> StoppedChild:
    child = StoppedChild(real)
    child.fork()
    child.load(CHILD, state)
    child.stop()
    return child


def in_kernel(real: Recording, image: bytes) -> StoppedChild:
    """A child that has loaded *image* and is in a system call."""
    child = StoppedChild(real)
    child.fork()
    child.calls.xrstor(0, CHILD, image.ljust(child.size, b"\0"))
    child.step("enter_kernel", cpu=0, task=CHILD)
    return child


# -- tracepoints ------------------------------------------------------------------------------------------------------


def told_of(events: list[str], task: str) -> list[str]:
    """Return what *events* say of *task*: repetitions once, for an interrupted task is activated again."""
    said = [re.sub(r"x86/fpu: \S+ ", "", event) for event in events if f" {task} " in event]
    return [event for event, _ in groupby(said)]


def recorded_events(real: Recording, key: str) -> tuple[list[str], list[str]]:
    """Return what the recorder saw of the child, and of its parent.

    It filters by process id: it sees the parent's deactivation in the switch to the child, and not the child's own.
    Whether the parent is switched to the child directly, so that it is seen, is not determined.
    """
    events = [line for line in real.lines(key) if line.startswith("x86_fpu")]
    (child,) = {line.split()[2] for line in events if "regs_activated" in line}
    parent = {line.split()[2] for line in events} - {child}
    seen_of_parent = told_of(events, *parent) if parent else []
    return told_of(events, child), seen_of_parent


@recorded("TRACE.{}", STATES)
def test_tracepoints_of_a_child_that_stops_once(real: Recording, name: str) -> None:
    of_child, of_parent = recorded_events(real, f"TRACE.{name}")
    child = StoppedChild(real)
    events = child.fork()
    child.load(CHILD, name)
    child.stop()
    events += child.resume()
    expected = told_of(events, f"task{CHILD}")
    if name == "mxcsr" and child.mxcsr_counts:
        expected = [event.replace("xfeatures: 0 ", "xfeatures: 2 ") for event in expected]
        expected = [event for event, _ in groupby(expected)]
    assert of_child == expected
    assert of_parent in ([], told_of(events, f"task{PARENT}"))


@recorded("SHSTK.sigframe")
def test_tracepoints_of_a_child_with_a_shadow_stack_that_takes_a_signal(real: Recording) -> None:
    of_child, _ = recorded_events(real, "TRACE.shstk")
    child = StoppedChild(real)
    events = child.fork()
    child.step("enter_kernel", cpu=0, task=CHILD)
    child.step("shstk_setup", cpu=0, task=CHILD)
    child.step("exit_to_user_mode", cpu=0, task=CHILD)
    child.stop()
    events += child.resume()
    child.load(CHILD, "none")
    child.stop()
    events += child.resume()
    child.step("enter_kernel", cpu=0, task=CHILD)
    events += child.step("copy_fpstate_to_sigframe", cpu=0, task=CHILD)
    events += child.step("fpu_clear_user_states", cpu=0, task=CHILD)
    child.step("exit_to_user_mode", cpu=0, task=CHILD)
    child.step("enter_kernel", cpu=0, task=CHILD)
    events += child.step("sigreturn", cpu=0, task=CHILD)
    assert of_child == told_of(events, f"task{CHILD}")


@recorded("TRACE.amx.perm")
def test_tracepoints_of_a_child_that_uses_tiles(real: Recording) -> None:
    of_child, _ = recorded_events(real, "TRACE.amx.perm")
    child = with_tiles(real)
    child.events += child.resume()
    assert of_child == told_of(child.events, f"task{CHILD}")


# -- signal frames ----------------------------------------------------------------------------------------------------


def frame_words(frame: bytes) -> dict[str, int]:
    """What the recorder prints of a frame."""
    magic1, extended_size, xfeatures, xstate_size = struct.unpack_from("<IIQI", frame, 464)
    return {
        "magic1": magic1,
        "extended_size": extended_size,
        "xfeatures": xfeatures,
        "xstate_size": xstate_size,
        "xstate_bv": u64(frame, 512),
        "xcomp_bv": u64(frame, 520),
        "magic2": int.from_bytes(frame[xstate_size : xstate_size + MAGIC2_SIZE], "little"),
    }


def written_by_the_kernel(child: StoppedChild, components: int) -> list[tuple[int, int]]:
    """Return the bytes of a frame that the kernel writes; elsewhere is what was on the stack before.

    Of BNDCSR, 64 bytes with 16 in use, QEMU writes the 16.
    """
    size = child.machine.world.tasks[CHILD].own.user_size
    spans = child.spans(components & ~LEGACY & ~BNDCSR)
    bndcsr = [(start, start + 16) for start, _ in child.spans(components & BNDCSR)]
    return [(0, 416), (464, 576), *spans, *bndcsr, (size, size + MAGIC2_SIZE)]


def assert_frames_are_equal(child: StoppedChild, frame: bytes, bytes_of_real: bytes, components: int) -> None:
    assert len(frame) == len(bytes_of_real)
    for start, end in written_by_the_kernel(child, components):
        assert frame[start:end].hex(" ", 8) == bytes_of_real[start:end].hex(" ", 8), f"bytes {start} to {end - 1}"


def recorded_frame(real: Recording, key: str) -> bytes:
    return real.image(f"{key}.hex", real.numbers(key)["extended_size"])


@recorded("{}", ["SIGFRAME.initial", "SIGFRAME.all"])
def test_the_words_of_a_signal_frame(real: Recording, name: str) -> None:
    shown = real.numbers(name)
    left = recorded_frame(real, "SIGFRAME.all") if name == "SIGFRAME.all" else None
    child = in_kernel(real, left or StoppedChild(real).state("none"))
    words = frame_words(child.calls.signal(0, CHILD))
    assert {name: shown[name] for name in words} == words


@recorded("SIGFRAME.all.hex")
def test_every_byte_that_the_kernel_writes_of_a_signal_frame(real: Recording) -> None:
    seen = recorded_frame(real, "SIGFRAME.all")
    child = in_kernel(real, seen)
    written = child.machine.sets.user_default & ~XTILE  # tiles that are not in use are not written
    assert_frames_are_equal(child, child.calls.signal(0, CHILD), seen, written)


@recorded("SIGFRAME.initial")
def test_a_frame_lies_where_an_image_and_its_magic_end_below_the_red_zone(real: Recording) -> None:
    # get_sigframe(), fpu__alloc_mathframe(): 128 bytes red zone, room for image and magic2, aligned down on 64
    shown, fp = real.numbers("SIGFRAME.initial"), int(real.lines("SIGFRAME.initial")[1].split()[0][3:], 16)
    below = int(re.findall(r"rsp_minus_fp=(\d+)", real.lines("SIGFRAME.initial")[1])[0])
    child = in_kernel(real, StoppedChild(real).state("none"))
    size = len(child.calls.signal(0, CHILD))
    assert shown["fp_align64"] == 0
    assert fp == (fp + below - 128 - size) & ~63


@recorded("AUXV")
def test_at_minsigstksz_is_the_largest_frame(real: Recording) -> None:
    (line,) = real.lines("AUXV")
    machine = real.machine()
    largest = machine.hw.largest_sigframe
    assert line.startswith(f"AT_MINSIGSTKSZ={largest} ")


# -- NT_X86_XSTATE, NT_PRFPREG, NT_X86_SHSTK --------------------------------------------------------------------------


@recorded("PTRACE.{}", STATES)
def test_a_stopped_child_shows_the_components_that_it_uses(real: Recording, name: str) -> None:
    shown = real.numbers(f"PTRACE.{name}")
    child = stopped_in(real, name)
    error, image = child.calls.getregset(CHILD)
    words = header(image)
    if name == "mxcsr":
        words["xstate_bv"] |= child.mxcsr_counts
    assert error == 0
    assert {name: shown[name] for name in words} == words


@recorded("PTRACE.{}.hex", ["none", "pkru", "all"])
def test_every_byte_of_a_stopped_childs_regset(real: Recording, name: str) -> None:
    seen = real.image(f"PTRACE.{name}.hex", real.numbers(f"PTRACE.{name}")["size"])
    child = StoppedChild(real)
    child.fork()
    child.calls.xrstor(0, CHILD, seen[:464] + bytes(48) + seen[512:])
    child.stop()
    _, image = child.calls.getregset(CHILD)
    assert image.hex(" ", 8) == seen.hex(" ", 8)


@recorded("PTRACE.all")
def test_the_fxsave_regset_has_512_bytes(real: Recording) -> None:
    shown = re.findall(r"NT_PRFPREG ret=(\d+) errno=(\d+) len=(\d+)", " ".join(real.lines("PTRACE.all")))
    error, image = stopped_in(real, "all").calls.getregset(CHILD, NT_PRFPREG)
    assert shown == [("0", str(error), str(len(image)))]


@recorded("PTRACE.all")
def test_a_child_without_a_shadow_stack_has_no_such_regset(real: Recording) -> None:
    shown = re.findall(r"NT_X86_SHSTK ret=(\S+) errno=(\d+)", " ".join(real.lines("PTRACE.all")))
    error, _ = stopped_in(real, "all").calls.getregset(CHILD, NT_X86_SHSTK)
    assert shown == [("-1", str(error))]
    assert error == ENODEV


@recorded("SHSTK.ptrace")
def test_a_child_with_a_shadow_stack_shows_its_pointer(real: Recording) -> None:
    seen = real.numbers("SHSTK.ptrace")["ssp"]
    child = StoppedChild(real)
    child.fork()
    child.step("enter_kernel", cpu=0, task=CHILD)
    child.step("shstk_setup", cpu=0, task=CHILD)
    child.machine.world.cpus[0].regs.write("pl3_ssp", seen)
    child.step("context_switch", cpu=0, task=CHILD, other=PARENT)
    assert child.calls.getregset(CHILD, NT_X86_SHSTK) == (0, seen.to_bytes(8, "little"))


@recorded("SHSTK.ptrace.hex")
def test_a_shadow_stack_is_not_in_a_debuggers_image(real: Recording) -> None:
    seen = real.image("SHSTK.ptrace.hex", real.numbers("SHSTK.ptrace")["size"])
    child = StoppedChild(real)
    child.fork()
    child.step("enter_kernel", cpu=0, task=CHILD)
    child.step("shstk_setup", cpu=0, task=CHILD)
    child.step("exit_to_user_mode", cpu=0, task=CHILD)
    child.calls.xrstor(0, CHILD, seen[:464] + bytes(48) + seen[512:])
    child.stop()
    assert child.machine.world.tasks[CHILD].own.image.xstate_bv & CET_U
    assert child.calls.getregset(CHILD)[1].hex(" ", 8) == seen.hex(" ", 8)


@recorded("SHSTK.sigframe")
def test_a_shadow_stack_is_not_in_a_signal_frame(real: Recording) -> None:
    shown = real.numbers("SHSTK.sigframe")
    child = StoppedChild(real)
    child.fork()
    child.step("enter_kernel", cpu=0, task=CHILD)
    child.step("shstk_setup", cpu=0, task=CHILD)
    child.step("exit_to_user_mode", cpu=0, task=CHILD)
    child.load(CHILD, "none")
    child.step("enter_kernel", cpu=0, task=CHILD)
    assert frame_words(child.calls.signal(0, CHILD)).items() <= shown.items()


# -- PTRACE_SETREGSET -------------------------------------------------------------------------------------------------


@recorded("SETREG")
def test_the_table_of_tampered_images_is_the_recorders(real: Recording) -> None:
    assert [line.split()[0] for line in real.lines("SETREG")] == list(TAMPERED)


@recorded("SETREG", TAMPERED)
def test_a_debuggers_image_is_taken_or_refused_and_read_back(real: Recording, name: str) -> None:
    (line,) = [line for line in real.lines("SETREG") if line.startswith(f"{name} ")]
    child = stopped_in(real, "all")
    _, image = child.calls.getregset(CHILD)
    error = child.calls.setregset(CHILD, TAMPERED[name](image))
    _, after = child.calls.getregset(CHILD)
    avx = [start for start, _ in child.spans(child.machine.sets.user_default & 1 << 2)]
    ymmh3 = u64(after, avx[0] + 3 * 16) if avx else 0
    pkrus = [start for start, _ in child.spans(child.machine.sets.user_default & 1 << 9)]
    pkru = int.from_bytes(after[pkrus[0] : pkrus[0] + 4], "little") if pkrus else 0
    mxcsr = int.from_bytes(after[24:28], "little")
    said = f"{name} ret={-1 if error else 0} errno={error} then get=0 xstate_bv={u64(after, 512):x}"
    assert line == f"{said} mxcsr={mxcsr:x} ymmh3={ymmh3:x} pkru={pkru:x}"


# -- rt_sigreturn -----------------------------------------------------------------------------------------------------


def registers(child: StoppedChild) -> str:
    """The registers, as the recorder prints them."""
    p = child.machine.world.cpus[0].regs
    xcr0 = child.machine.sets.xcr0
    xmm = p.legacy[160:416]
    ymmh = p.sections[2] if xcr0 & 4 else bytes(256)
    zmm = p.sections[7] if xcr0 & 1 << 7 else bytes(1024)
    k = p.sections[5] if xcr0 & 1 << 5 else bytes(64)
    parts = {
        "xmm7": u64(xmm, 7 * 16),
        "ymm3lo": u64(xmm, 3 * 16),
        "ymm3hi": u64(ymmh, 3 * 16),
        "zmm20": u64(zmm, 4 * 64),
        "k2": u64(k, 16),
        "pkru": child.machine.hw.rdpkru(child.machine.world.cpus[0]),
        "mxcsr": p.mxcsr,
        "ftw": full_tag_word(p.legacy),
    }
    return " ".join(f"{name}={value:x}" for name, value in parts.items())


def full_tag_word(legacy: bytes | bytearray) -> int:
    """FNSTENV's tag word of registers that hold valid numbers where they are not empty: 0 is valid, 3 is empty."""
    top = legacy[3] >> 3 & 7
    word = 0
    for physical in range(8):
        if not legacy[4] >> physical & 1:
            word |= 3 << 2 * physical
        elif legacy[32 + 16 * ((physical - top) % 8) :][:10] == bytes(10):
            word |= 1 << 2 * physical
    return word


@recorded("SIGRET")
def test_the_table_of_tampered_frames_is_the_recorders(real: Recording) -> None:
    assert [line.split()[0] for line in real.lines("SIGRET")] == list(FRAMES)


@recorded("SIGRET", FRAMES)
def test_a_frame_is_taken_or_refused_and_leaves_these_registers(real: Recording, name: str) -> None:
    (line,) = [line for line in real.lines("SIGRET") if line.startswith(f"{name} ")]
    child = in_kernel(real, StoppedChild(real).state("all"))
    frame = child.calls.signal(0, CHILD)
    child.step("exit_to_user_mode", cpu=0, task=CHILD)
    child.step("enter_kernel", cpu=0, task=CHILD)
    number = child.calls.rt_sigreturn(0, CHILD, FRAMES[name](frame))
    assert line == f"{name} " + (f"status=b (sig {number})" if number else f"ok {registers(child)}")


# -- AMX --------------------------------------------------------------------------------------------------------------


def with_permission(real: Recording) -> StoppedChild:
    """A parent with the permission and its child."""
    child = StoppedChild(real)
    child.step("enter_kernel", cpu=0, task=PARENT)
    assert child.calls.request_perm(PARENT, XTILEDATA) == 0
    child.step("exit_to_user_mode", cpu=0, task=PARENT)
    child.events = child.fork()
    return child


def tiles(real: Recording) -> bytes:
    """The recorded image of a child with a tile in use."""
    image = real.image("PTRACE.amx.perm.hex", real.numbers("PTRACE.amx.perm")["size"])
    return image[:464] + bytes(48) + image[512:]


def with_tiles(real: Recording) -> StoppedChild:
    """A stopped child that has loaded a tile."""
    child = with_permission(real)
    assert child.calls.use_dynamic(0, CHILD) == 0
    child.calls.xrstor(0, CHILD, tiles(real))
    child.stop()
    return child


def prctl(real: Recording, key: str) -> list[int]:
    """Return what ARCH_GET_XCOMP_PERM and _GUEST_PERM gave."""
    return [int(line.split("val=")[1], 16) for line in real.lines(key)[1:]]


@recorded("AMX.SAS.perm")
def test_a_request_with_too_small_an_alternate_stack_is_refused(real: Recording) -> None:
    requests = re.findall(r"perm with (\d+) sigaltstack: sas=0 ret=\S+ errno=(\d+)", " ".join(real.lines("AMX")))
    assert requests
    for size, error in requests:
        calls = StoppedChild(real).calls
        assert calls.sigaltstack(PARENT, int(size)) == 0
        assert calls.request_perm(PARENT, XTILEDATA) == int(error)


@recorded("{}", ["REQ_PERM", "REQ_GUEST_PERM"])
def test_permission_requests_and_their_errnos(real: Recording, name: str) -> None:
    guest = name == "REQ_GUEST_PERM"
    for line in real.lines(name):
        match = re.fullmatch(r"(\d+) ret=-?\d errno=(\d+)", line)
        assert match
        assert StoppedChild(real).calls.request_perm(PARENT, int(match[1]), guest=guest) == int(match[2]), line


@recorded("AMX.prctl.perm")
def test_permission_is_asked_for_hosts_and_guests_apart(real: Recording) -> None:
    child = with_permission(real)
    assert prctl(real, "AMX.prctl.perm") == [child.calls.permissions(CHILD), child.calls.permissions(CHILD, guest=True)]
    assert child.calls.request_perm(CHILD, XTILEDATA, guest=True) == 0
    assert prctl(real, "REQ18.both") == [child.calls.permissions(CHILD), child.calls.permissions(CHILD, guest=True)]


def smallest_stack(child: StoppedChild, task: int) -> int:
    return next(size for size in range(1 << 16) if child.calls.sigaltstack(task, size) == 0)


@recorded("SAS")
def test_the_smallest_alternate_stack(real: Recording) -> None:
    assert real.lines("SAS") == [f"sigaltstack_min_accepted={smallest_stack(StoppedChild(real), PARENT)}"]


@recorded("AMX.SAS.perm")
def test_the_smallest_alternate_stack_with_permission(real: Recording) -> None:
    shown = real.lines("AMX.SAS.perm")
    assert shown == [f"sigaltstack_min_accepted={smallest_stack(with_permission(real), PARENT)}"]


@recorded("AMX.SAS.forked")
def test_the_smallest_alternate_stack_of_a_child_of_one_with_permission(real: Recording) -> None:
    shown = real.lines("AMX.SAS.forked")
    assert shown == [f"sigaltstack_min_accepted={smallest_stack(with_permission(real), CHILD)}"]


@recorded("AMX.SAS.perm")
def test_tiles_without_permission_are_an_illegal_instruction(real: Recording) -> None:
    assert real.lines("AMX")[0] == f"noperm status={SIGILL} sig={SIGILL}"
    child = StoppedChild(real)
    child.fork()
    assert child.calls.use_dynamic(0, CHILD) == SIGILL


@recorded("PTRACE.amx.perm.hex")
def test_a_stopped_child_shows_its_tiles(real: Recording) -> None:
    seen = real.image("PTRACE.amx.perm.hex", real.numbers("PTRACE.amx.perm")["size"])
    assert with_tiles(real).calls.getregset(CHILD)[1].hex(" ", 64) == seen.hex(" ", 64)


@recorded("PTRACE.amx.perm.afterrelease")
def test_released_tiles_are_not_in_use(real: Recording) -> None:
    shown = real.numbers("PTRACE.amx.perm.afterrelease")
    child = with_tiles(real)
    child.resume()
    child.calls.xrstor(0, CHILD, bytes(child.size), XTILE)
    child.stop()
    assert header(child.calls.getregset(CHILD)[1]).items() <= shown.items()


@recorded("AMX.SIGFRAME.permonly")
def test_a_frame_with_permission_alone_has_no_room_for_tiles(real: Recording) -> None:
    shown = real.numbers("AMX.SIGFRAME.permonly")
    child = with_permission(real)
    child.load(CHILD, "none")
    child.step("enter_kernel", cpu=0, task=CHILD)
    assert frame_words(child.calls.signal(0, CHILD)).items() <= shown.items()


@recorded("AMX.SIGFRAME.tile.hex")
def test_every_byte_of_a_frame_with_a_tile_in_use(real: Recording) -> None:
    seen = recorded_frame(real, "AMX.SIGFRAME.tile")
    child = with_tiles(real)
    child.resume()
    child.calls.xrstor(0, CHILD, seen)
    child.step("enter_kernel", cpu=0, task=CHILD)
    assert_frames_are_equal(child, child.calls.signal(0, CHILD), seen, child.machine.sets.user_maximum)


@recorded("AMX.SIGFRAME.released")
def test_a_frame_after_release_has_room_for_tiles_and_says_that_they_are_initial(real: Recording) -> None:
    shown = real.numbers("AMX.SIGFRAME.released")
    child = with_tiles(real)
    child.resume()
    child.load(CHILD, "none")
    child.calls.xrstor(0, CHILD, bytes(child.size), XTILE)
    child.step("enter_kernel", cpu=0, task=CHILD)
    assert frame_words(child.calls.signal(0, CHILD)).items() <= shown.items()


@recorded("AMX.prctl.used")
def test_use_of_tiles_changes_no_permission(real: Recording) -> None:
    child = with_tiles(real)
    assert prctl(real, "AMX.prctl.used") == [child.calls.permissions(CHILD), child.calls.permissions(CHILD, guest=True)]


@recorded("AMX.SIGFRAME.forked")
def test_a_child_of_one_with_tiles_keeps_the_permission_and_has_a_small_frame(real: Recording) -> None:
    shown = real.numbers("AMX.SIGFRAME.forked")
    grandchild = 2
    child = with_tiles(real)
    child.step("enter_kernel", cpu=0, task=PARENT)
    child.step("context_switch", cpu=0, task=PARENT, other=grandchild)
    child.step("exit", cpu=0, task=grandchild)
    child.step("switch_from_idle", cpu=0, task=CHILD)
    child.step("fork", cpu=0, task=CHILD, other=grandchild)
    child.step("context_switch", cpu=0, task=CHILD, other=grandchild)
    assert prctl(real, "AMX.prctl.forked")[0] == child.calls.permissions(grandchild)
    child.step("exit_to_user_mode", cpu=0, task=grandchild)
    child.load(grandchild, "none")
    child.step("enter_kernel", cpu=0, task=grandchild)
    assert frame_words(child.calls.signal(0, grandchild)).items() <= shown.items()


# -- core dumps -------------------------------------------------------------------------------------------------------


def core_of(real: Recording, key: str) -> StoppedChild:
    """A child that is about to dump core."""
    if key == "CORE.all":
        return in_kernel(real, StoppedChild(real).state("all"))
    child = with_permission(real)
    if key == "CORE.amx.perm":
        assert child.calls.use_dynamic(0, CHILD) == 0
        child.calls.xrstor(0, CHILD, tiles(real))
    else:
        child.load(CHILD, "all")
    child.step("enter_kernel", cpu=0, task=CHILD)
    return child


@recorded("{}", ["CORE.all", "CORE.all.perm", "CORE.amx.perm"])
def test_the_notes_of_a_core(real: Recording, name: str) -> None:
    shown = " ".join(real.lines(name))
    notes = core_of(real, name).calls.coredump(0, CHILD)
    sizes = {int(note, 16): int(size) for note, size in re.findall(r"name=LINUX type=(\w+) descsz=(\d+)", shown)}
    assert sizes == {note: len(data) for note, data in notes.items()}
    words = header(notes[NT_X86_XSTATE])
    assert f"xstate size={words['size']} sw_xfeatures={words['sw_xfeatures']:x}" in shown
    assert f"xstate_bv={words['xstate_bv']:x} xcomp_bv={words['xcomp_bv']:x}" in shown


@recorded("{}.layout", ["CORE.all", "CORE.all.perm", "CORE.amx.perm"])
def test_the_layout_note_of_a_core(real: Recording, name: str) -> None:
    shown = real.lines(f"{name}.layout")
    note = core_of(real, name).calls.coredump(0, CHILD)[NT_X86_XSAVE_LAYOUT]
    rows = struct.iter_unpack("<4I", note)
    assert shown == [f"type={bit} size={size} offset={offset} flags={flags}" for bit, size, offset, flags in rows]
