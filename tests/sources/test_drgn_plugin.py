"""The drgn helper, run by drgn itself on memory and types laid out as Linux has them; no kernel is read here."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from fpstate import cpu as cpus
from fpstate.errors import UnreadableInput
from fpstate.image import encode, read
from fpstate.isa import Capabilities

drgn = pytest.importorskip("drgn", reason="drgn is not installed")

from fpstate.plugins.drgn import thread_of  # noqa: E402  it needs drgn

ZEN4 = Capabilities(cpus.by_name("zen4"))
IMAGE = encode(ZEN4, {"ymm3": bytes(range(32)), "pl3_ssp": bytes(8)}, "compacted")
TASK, FPSTATE, REGS = 0xFFFF888000010000, 0xFFFF888000020000, 64


def kernel(*, behind: bool, size: int = len(IMAGE), old: bool = False) -> Any:
    """Return a task_struct pointer: ``struct fpu`` behind it as since 6.16, or in its thread as before."""
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64, drgn.PlatformFlags(3)))
    u32 = prog.int_type("unsigned int", 4, False)
    u64 = prog.int_type("unsigned long", 8, False)
    char = prog.int_type("char", 1, True)
    member = drgn.TypeMember
    regs = prog.union_type("fpregs_state", 4096, (member(prog.array_type(char, 4096), "__padding"),))
    fields = [(u32, "size", 0), (u32, "user_size", 4), (u64, "xfeatures", 8), (u64, "user_xfeatures", 16)]
    fields += [(u64, "xfd", 24), (regs, "regs", REGS)]
    fpstate = prog.struct_type("fpstate", 4160, tuple(member(t, name, 8 * at) for t, name, at in fields))
    name = "state" if old else "fpstate"
    fpu = prog.struct_type("fpu", 16, (member(prog.pointer_type(fpstate), name, 64),))
    thread = prog.struct_type("thread_struct", 32, () if behind else (member(fpu, "fpu", 64),))
    members = (member(u32, "pid"), member(prog.array_type(char, 16), "comm", 32), member(thread, "thread", 256))
    task = prog.struct_type("task_struct", 64, members)
    memory = bytearray(struct.pack("<I16s", 17, b"worker").ljust(80, b"\0"))
    struct.pack_into("<Q", memory, 72 if behind else 48, FPSTATE)
    state = struct.pack("<IIQQQ", size, 2432, 0x1AE7, 0xE7, 1 << 18).ljust(REGS, b"\0") + IMAGE
    for start, data in ((TASK, bytes(memory)), (FPSTATE, state)):
        prog.add_memory_segment(start, len(data), lambda _, n, at, __, data=data: data[at : at + n])
    prog.register_type_finder("here", lambda *_: fpu, enable_index=0)
    return drgn.Object(prog, prog.pointer_type(task), TASK)


@pytest.mark.parametrize("behind", [True, False], ids=["since 6.16", "before"])
def test_the_image_is_the_fpstates(behind: bool) -> None:
    thread = thread_of(kernel(behind=behind))
    assert (thread.tid, thread.name, bytes(thread.image)) == (17, "worker", IMAGE)
    assert thread.values == {"xfeatures": 0x1AE7, "user_xfeatures": 0xE7, "xfd": 1 << 18}
    assert read(bytes(thread.image), ZEN4).register("ymm3") == bytes(range(32))


def test_a_task_by_value_is_the_same() -> None:
    assert bytes(thread_of(kernel(behind=True)[0]).image) == IMAGE


@pytest.mark.parametrize("size", [0, 575, 1 << 31])
def test_a_size_that_no_image_has_is_refused(size: int) -> None:
    with pytest.raises(UnreadableInput, match=f"has {size} bytes: it is damaged"):
        thread_of(kernel(behind=True, size=size))


def test_memory_that_the_dump_lacks_is_named() -> None:
    with pytest.raises(UnreadableInput, match="cannot be read"):
        thread_of(kernel(behind=True, size=len(IMAGE) + 64))


def test_a_kernel_before_fpstate_is_refused() -> None:
    with pytest.raises(UnreadableInput, match=r"no struct fpstate: .*Linux 5\.16 or later"):
        thread_of(kernel(behind=True, old=True))
