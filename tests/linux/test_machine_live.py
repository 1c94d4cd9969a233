"""The machine does what the kernel that runs here does: signal frames, regsets, refused images, core notes.

A real child loads its registers with XRSTOR and enters this kernel (tests/live.py); the machine is built from this
CPU's CPUID and from this kernel's release.  What is compared is bytes.
"""

from __future__ import annotations

import os
import struct
import subprocess
from functools import cache
from typing import Any

import pytest

import live
from fpstate.cpu import this_host
from fpstate.cpu.host import why_not_x86_64
from fpstate.errors import FpstateError
from fpstate.isa import Memory, execute
from fpstate.linux.abi import MAGIC2_SIZE
from fpstate.linux.machine import Machine
from fpstate.linux.machine.userspace import NT_PRFPREG, NT_X86_XSAVE_LAYOUT, UserSpace
from fpstate.linux.observe import cmdline, kernel_release
from fpstate.linux.policy import for_release
from fpstate.xfeatures import AVX, LEGACY, PKRU, SSE, XTILE, XTILEDATA, bits
from tampered import FRAMES, TAMPERED, bv, u64

TASK = 0
IMAGE_AT = 1 << 20
CHILDREN = 40
"""Enough that in one of them no component counts as in use by chance."""


@cache
def why_not() -> str | None:
    """Why there is nothing to compare with, if so."""
    if why_not_x86_64():
        return why_not_x86_64()
    try:
        calls()
        (answer,) = live.run(1, 8, [{"do": "altstack", "size": 1 << 20}])
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip().rpartition("\n")[2]
    except (FpstateError, OSError, ImportError) as error:
        return str(error)
    return answer.get("why_not")


@pytest.fixture(autouse=True)
def _here() -> None:
    reason = why_not()
    if reason:
        pytest.skip(f"no child of this kernel can be compared with: {reason}")


def calls() -> UserSpace:
    """A machine like this one, its task in user mode."""
    policy, _ = for_release(kernel_release())
    made = Machine(this_host(), policy, cpus=1, tasks=2, vcpus=0, cmdline=cmdline() or "")
    made.step("switch_from_idle", cpu=0, task=TASK)
    made.step("exit_to_user_mode", cpu=0, task=TASK)
    return UserSpace(made)


@cache
def facts() -> tuple[int, int, int]:
    """What programs can load, the size of the regset, and that of a frame."""
    made = calls().machine
    task = made.world.tasks[TASK].own
    return made.sets.user_default & made.sets.xcr0, made.config.user.max_size, task.user_size + MAGIC2_SIZE


def components() -> int:
    return facts()[0]


# -- registers --------------------------------------------------------------------------------------------------------


def image(mask: int, *, mxcsr: int = 0x1F80) -> bytes:
    """Return an image whose components of *mask* hold bytes of their own."""
    made = calls().machine
    data = bytearray(facts()[1])
    data[:24] = bytes.fromhex("7f03") + bytes(22)
    data[24:28] = mxcsr.to_bytes(4, "little")
    if mask & 1:
        data[:5] = bytes.fromhex("7f030010ff")  # TOP 2, no register empty; no pointers: not every CPU keeps them
        for i in range(8):
            data[32 + 16 * i : 42 + 16 * i] = struct.pack("<QH", 1 << 63 | i + 1, 0x3FFF + i)
    if mask & SSE:
        data[160:416] = bytes(1 + i % 250 for i in range(256))
    for bit, at, size in made.hw.caps.standard(mask & ~LEGACY).slots:
        data[at : at + size] = bytes((bit * 17 + i) % 251 + 1 for i in range(size))
        if bit == PKRU:
            data[at : at + size] = 0x55555550.to_bytes(size, "little")
        if 1 << bit & XTILE:
            data[at : at + size] = bytes(size)
    data[512:520] = (mask & ~XTILE).to_bytes(8, "little")
    return bytes(data)


def states() -> dict[str, bytes]:
    found = {"none": image(0), "all": image(components()), "mxcsr": image(0, mxcsr=0x1FA0)}
    found["mxcsr-loaded"] = image(SSE, mxcsr=0x1FA0)
    found |= {f"component-{bit}": image(1 << bit) for bit in bits(components())}
    return found


STATES = ["none", "all", "mxcsr", "mxcsr-loaded", *(f"component-{bit}" for bit in (0, 1, 2, 5, 6, 7, 9))]


def state(name: str) -> bytes:
    found = states().get(name)
    if found is None:
        pytest.skip(f"this CPU, or this kernel, has no {name}")
    return found


def do(name: str, loaded: bytes, **more: Any) -> dict[str, Any]:
    """Have a real child load an image, and return what came of it."""
    mask, _, frame = facts()
    (answer,) = live.run(mask, frame, [{"do": name, "image": loaded.hex(), **more}])
    if "why_not" in answer:
        pytest.skip(str(answer["why_not"]))
    return answer


def undisturbed(loaded: bytes) -> dict[str, Any]:
    """Return the regsets of one of several children: the one in which the fewest components were in use.

    Under a hypervisor a component may count as in use that holds nothing but zeros.  On a Zen 4 that was SSE, in no
    child of most programs and in six of ten of some.
    """
    mask, _, frame = facts()
    answers = live.run(mask, frame, [{"do": "ptrace", "image": loaded.hex()}] * CHILDREN)
    if "why_not" in answers[0]:
        pytest.skip(str(answers[0]["why_not"]))
    return min(answers, key=lambda answer: u64(bytes.fromhex(answer["before"]), 512).bit_count())


def in_kernel(loaded: bytes) -> UserSpace:
    """The machine's task was saved with the MXCSR that children start with, loads the same and is in the kernel."""
    made = calls()
    made.xrstor(0, TASK, image(SSE, mxcsr=live.MXCSR_BEFORE), components())
    for step in ("enter_kernel", "switch_to_idle", "switch_from_idle", "exit_to_user_mode"):
        made.machine.step(step, cpu=0, task=TASK)
    made.xrstor(0, TASK, loaded, components())
    made.machine.step("enter_kernel", cpu=0, task=TASK)
    return made


def stopped(loaded: bytes) -> UserSpace:
    made = in_kernel(loaded)
    made.machine.step("switch_to_idle", cpu=0, task=TASK)
    return made


def saved(made: UserSpace) -> bytes:
    """Return what XSAVE64 saves of the machine's registers over zeros."""
    cpu = made.machine.world.cpus[0]
    memory = Memory(bytearray(live.SLOT), IMAGE_AT)
    execute(cpu.regs, "xsave64", memory, IMAGE_AT, components())
    return bytes(memory.data)


def assert_same(mine: bytes, real: str, spans: list[tuple[int, int]] | None = None) -> None:
    theirs = bytes.fromhex(real)
    for start, end in spans or [(0, len(theirs))]:
        assert mine[start:end].hex(" ", 8) == theirs[start:end].hex(" ", 8), f"bytes {start} to {end - 1}"


# -- signals ----------------------------------------------------------------------------------------------------------


def written_by_the_kernel() -> list[tuple[int, int]]:
    """Return the bytes of a frame that the kernel writes; elsewhere is what was on the stack before."""
    made, (mask, _, frame) = calls().machine, facts()
    places = made.hw.caps.standard(mask & ~LEGACY & ~XTILE).slots
    return [(0, 416), (464, 576), *((at, at + size) for _, at, size in places), (frame - MAGIC2_SIZE, frame)]


@pytest.mark.parametrize("name", STATES)
def test_every_byte_that_the_kernel_writes_of_a_signal_frame(name: str) -> None:
    real = do("signal", state(name))
    assert_same(in_kernel(state(name)).signal(0, TASK), real["frame"], written_by_the_kernel())


@pytest.mark.parametrize("name", STATES)
def test_a_program_has_its_registers_back_after_a_signal(name: str) -> None:
    real = do("signal", state(name))
    made = in_kernel(state(name))
    assert made.rt_sigreturn(0, TASK, made.signal(0, TASK)) == real["signal"] == 0
    assert_same(saved(made), real["out"])


@pytest.mark.parametrize("name", FRAMES)
def test_a_changed_frame_is_taken_or_refused_and_leaves_these_registers(name: str) -> None:
    frame = bytes.fromhex(do("signal", state("all"))["frame"])[: facts()[2]]
    real = do("signal", state("all"), change=FRAMES[name](frame).hex())
    made = in_kernel(state("all"))
    assert made.rt_sigreturn(0, TASK, FRAMES[name](made.signal(0, TASK))) == real["signal"]
    if not real["signal"]:
        assert_same(saved(made), real["out"])


# -- ptrace -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATES)
def test_every_byte_of_a_stopped_childs_regset(name: str) -> None:
    real = undisturbed(state(name))
    error, mine = stopped(state(name)).getregset(TASK)
    assert (error, len(mine)) == (0, len(real["before"]) // 2)
    assert_same(mine, real["before"])


@pytest.mark.parametrize("name", STATES)
def test_every_byte_of_a_stopped_childs_fxsave_regset(name: str) -> None:
    real = undisturbed(state(name))
    assert_same(stopped(state(name)).getregset(TASK, NT_PRFPREG)[1], real["fx"])


def test_a_regset_shows_an_older_mxcsr_where_avx_is_in_use_and_sse_is_not() -> None:
    # XSAVEC and XSAVES write MXCSR with SSE alone; copy_xstate_to_uabi_buf() copies it with SSE or AVX.
    loaded = state("component-2")
    if not calls().machine.config.compacted:
        pytest.skip("this kernel saves in the standard format")
    _, mine = stopped(loaded).getregset(TASK)
    real = bytes.fromhex(undisturbed(loaded)["before"])
    assert mine[24:28] == real[24:28] == live.MXCSR_BEFORE.to_bytes(4, "little") != loaded[24:28]


def test_a_debugger_that_sets_sse_and_writes_back_what_it_read_brings_the_older_mxcsr_back() -> None:
    loaded = state("component-2")
    if not calls().machine.config.compacted:
        pytest.skip("this kernel saves in the standard format")
    made = stopped(loaded)
    handed_in = bv(lambda old: old | SSE)(made.getregset(TASK)[1])
    real = do("ptrace", loaded, change=handed_in.hex())
    assert made.setregset(TASK, handed_in) == real["errno"] == 0
    made.machine.step("switch_from_idle", cpu=0, task=TASK)
    made.machine.step("exit_to_user_mode", cpu=0, task=TASK)
    assert saved(made)[24:28] == bytes.fromhex(real["out"])[24:28] == live.MXCSR_BEFORE.to_bytes(4, "little")


def length_odd(whole: bytes) -> bytes:
    return whole[:-1]


@pytest.mark.parametrize("name", [*TAMPERED, "length-odd"])
def test_a_debuggers_image_is_taken_or_refused_and_read_back(name: str) -> None:
    change = TAMPERED.get(name, length_odd)
    made = stopped(state("all"))
    handed_in = change(made.getregset(TASK)[1])
    real = do("ptrace", state("all"), change=handed_in.hex())
    assert made.setregset(TASK, handed_in) == real["errno"]
    assert_same(made.getregset(TASK)[1], real["after"])
    made.machine.step("switch_from_idle", cpu=0, task=TASK)
    made.machine.step("exit_to_user_mode", cpu=0, task=TASK)
    assert_same(saved(made), real["out"])


@pytest.mark.parametrize("mask", [1, SSE, AVX, 1 | SSE, SSE | AVX])
def test_mxcsr_of_a_debuggers_image_counts_by_the_components_beside_it(mask: int) -> None:
    if mask & ~components():
        pytest.skip("this CPU has no AVX")
    made = stopped(state("all"))
    handed_in = bytearray(bv(lambda _: mask)(made.getregset(TASK)[1]))
    handed_in[24:28] = 0x1FA0.to_bytes(4, "little")
    real = do("ptrace", state("all"), change=handed_in.hex())
    assert made.setregset(TASK, bytes(handed_in)) == real["errno"]
    assert_same(made.getregset(TASK)[1], real["after"])
    made.machine.step("switch_from_idle", cpu=0, task=TASK)
    made.machine.step("exit_to_user_mode", cpu=0, task=TASK)
    assert_same(saved(made), real["out"])


# -- core dumps, alternate stacks, permissions ------------------------------------------------------------------------


def test_the_notes_of_a_core() -> None:
    real = do("core", state("all"))
    notes = in_kernel(state("all")).coredump(0, TASK)
    if str(NT_X86_XSAVE_LAYOUT) not in real:  # it came with Linux 6.12
        notes.pop(NT_X86_XSAVE_LAYOUT)
    ours = {str(kind): data.hex() for kind, data in notes.items()}
    assert {kind: real.get(kind) for kind in ours} == ours


def test_the_smallest_alternate_stack() -> None:
    sizes = [*range(2040, 2056), *range(facts()[2], facts()[2] + 2048, 64)]
    mask, _, frame = facts()
    real = live.run(mask, frame, [{"do": "altstack", "size": size} for size in sizes])
    made = calls()
    assert [made.sigaltstack(TASK, size) for size in sizes] == [answer["errno"] for answer in real]


@pytest.mark.parametrize("guest", [False, True])
def test_permission_requests_that_no_cpu_without_amx_grants(guest: bool) -> None:
    if components() & XTILE:
        pytest.skip("this CPU has AMX: a request changes what the next one is told")
    numbers = [0, 2, 9, 11, 17, XTILEDATA, 40, 63, 64]
    mask, _, frame = facts()
    real = live.run(mask, frame, [{"do": "permission", "number": n, "guest": guest} for n in numbers])
    assert [calls().request_perm(TASK, n, guest=guest) for n in numbers] == [answer["errno"] for answer in real]


def test_at_minsigstksz_is_the_largest_frame() -> None:
    assert os.sysconf("SC_MINSIGSTKSZ") == calls().machine.hw.largest_sigframe
