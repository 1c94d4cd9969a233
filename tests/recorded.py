"""Boots of real kernels in the corpus, each with the machine that is built from its CPUID and command line."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest

from corpus import MISSING, corpus_folder
from fpstate import cpu as cpus
from fpstate.isa import Profile
from fpstate.isa.profile import find as find_profile
from fpstate.linux.machine import Machine
from fpstate.linux.machine.userspace import UserSpace
from fpstate.linux.policy import find
from fpstate.xfeatures import AVX, AVX512, LEGACY, PKRU, SSE, bits

__all__ = ["CHILD", "PARENT", "STATES", "Recording", "StoppedChild", "recorded"]

PARENT, CHILD = 0, 1

STATES = {
    "none": 0,
    "x87": 1,
    "sse": SSE,
    "avx": SSE | AVX,
    "avx512": SSE | AVX | AVX512,
    "pkru": 1 << PKRU,
    "all": LEGACY | AVX | AVX512 | 1 << PKRU,
    "mxcsr": 0,
}
"""What the recorder's child wrote before it stopped, by the name of the state: instructions of these components.
``mxcsr`` sets MXCSR alone.  What the C library had left in opmask and upper ZMM registers stays where nothing is
written."""
MXCSR_SET = 0x1FA0
"""An MXCSR that is not the initial one; which one the recorder's child wrote is not recorded."""


class Recording:
    """One boot.

    Attributes:
        name: of the file.
        user: what user space printed, by key: lists of lines.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.name = path, path.stem
        self.record: dict[str, Any] = json.loads(path.read_text())
        self.user: dict[str, list[str]] = self.record["userspace"]

    def lines(self, key: str) -> list[str]:
        return self.user[key]

    @property
    def judges(self) -> bool:
        """Whether the machine can do the same: no boot that died before user space, no kernel that uses FXSAVE."""
        return bool(self.record["reached_init"]) and "x86/fpu: Enabled xstate" in " ".join(self.record["boot_lines"])

    def numbers(self, key: str) -> dict[str, int]:
        """Return every ``name=hex`` of the lines of *key*, later ones first; sizes are decimal."""
        found: dict[str, int] = {}
        for line in self.lines(key):
            for name, value in re.findall(r"(\w+)=([0-9a-f]+)", line):
                found.setdefault(name, int(value, 10 if "size" in name or name in {"ret", "errno", "len"} else 16))
        return found

    def image(self, key: str, size: int) -> bytes:
        """Return the bytes of the rows of *key*; the recorder leaves out rows of 16 that are all zero."""
        data = bytearray(size)
        for line in self.lines(key):
            at, row = line.split()
            start, part = int(at, 16), bytes.fromhex(row)
            assert start + len(part) <= size, line
            data[start : start + len(part)] = part
        return bytes(data)

    @property
    def profile(self) -> Profile:
        """How the emulator uses the freedom of the architecture."""
        if self.record["emulator"].startswith("QEMU"):
            return find_profile("qemu")
        return find_profile("bochs-amd" if self.record["cpu_model"] == "ryzen" else "bochs")

    def machine(self, **options: Any) -> Machine:
        """Return the machine: one CPU, two tasks and a slot."""
        shape: dict[str, Any] = {"cpus": 1, "tasks": 3, "vcpus": 0, "cmdline": self.record["cmdline"]}
        return Machine(cpus.load(str(self.path)), find("linux-6.18"), profile=self.profile, **(shape | options))


@cache
def _recordings() -> list[Recording]:
    folder = corpus_folder()
    paths = sorted(folder.glob("realkernel/*.json")) if folder else []
    return [recording for recording in map(Recording, paths) if recording.judges]


def recorded(key: str, names: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Parametrize a test over the recordings that have lines of *key*, with each of *names* in its place of *key*."""
    if corpus_folder() is None:
        missing = pytest.mark.skip(reason=MISSING)
        return pytest.mark.parametrize(
            ("real", "name") if names else ("real",),
            [pytest.param(*((None, None) if names else (None,)), marks=missing, id="no-corpus")],
        )
    if not names:
        found = [pytest.param(each, id=each.name) for each in _recordings() if each.user.get(key)]
        assert found, f"no recording has {key}"
        return pytest.mark.parametrize("real", found)
    cases = [(each, name) for name in names for each in _recordings() if each.user.get(key.format(name))]
    assert cases, f"no recording has {key}"
    return pytest.mark.parametrize(
        ("real", "name"), [pytest.param(each, name, id=f"{each.name}-{name}") for each, name in cases]
    )


class StoppedChild:
    """A machine with a parent in user mode and, once it has forked, a child that does what the recorder's did."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.machine = recording.machine()
        self.calls = UserSpace(self.machine)
        for step in ("switch_from_idle", "exit"):
            self.step(step, cpu=0, task=CHILD)  # its slot is free
        self.step("switch_from_idle", cpu=0, task=PARENT)
        self.step("exit_to_user_mode", cpu=0, task=PARENT)
        self.left = self._left_by_libc()
        self.events: list[str] = []

    def step(self, name: str, **params: int) -> list[str]:
        """Take a step; return its tracepoints as the recorder prints them, the pointer replaced by the task."""
        return [str(trace) for trace in self.machine.step(name, **params).traces]

    @property
    def size(self) -> int:
        return self.machine.config.user.max_size

    def _left_by_libc(self) -> bytes:
        """The registers of a child that wrote nothing: recorded, but where there is no recording initial ones."""
        return self.recording.image("PTRACE.none.hex", self.size)

    @property
    def mxcsr_counts(self) -> int:
        """SSE, where a child that changed MXCSR alone has it in use though the manual says no (SDM 13.6).

        MXCSR counts for XSAVEC and XSAVES.  Bochs counts it for XSAVEOPT as well.
        """
        bochs = self.machine.hw.profile.name.startswith("bochs")
        return SSE if bochs and not self.machine.config.compacted else 0

    def fork(self) -> list[str]:
        """The parent, with SSE in use, forks and waits; the child starts to run."""
        self.load(PARENT, "sse")
        self.step("enter_kernel", cpu=0, task=PARENT)
        self.step("fork", cpu=0, task=PARENT, other=CHILD)
        switched = self.step("context_switch", cpu=0, task=PARENT, other=CHILD)
        return switched + self.step("exit_to_user_mode", cpu=0, task=CHILD)

    def stop(self) -> None:
        """The child stops, and the parent runs."""
        self.step("enter_kernel", cpu=0, task=CHILD)
        self.step("context_switch", cpu=0, task=CHILD, other=PARENT)
        self.step("exit_to_user_mode", cpu=0, task=PARENT)

    def resume(self) -> list[str]:
        """The parent lets the child run and waits."""
        self.step("enter_kernel", cpu=0, task=PARENT)
        switched = self.step("context_switch", cpu=0, task=PARENT, other=CHILD)
        return switched + self.step("exit_to_user_mode", cpu=0, task=CHILD)

    def load(self, task: int, state: str) -> None:
        """*task* brings its registers into *state*."""
        self.calls.xrstor(0, task, self.state(state))

    def state(self, name: str) -> bytes:
        """Return the image of a state: what the C library left, with what the child wrote over it."""
        data = bytearray(self.left)
        written = self.recording.image("PTRACE.all.hex", self.size)
        mask = STATES[name] & self.machine.sets.user_default
        bv = int.from_bytes(data[512:520], "little") | mask
        for start, end in self.spans(mask):
            data[start:end] = written[start:end]
        if name == "mxcsr":
            data[24:28] = MXCSR_SET.to_bytes(4, "little")
            bv |= SSE
        data[512:520] = bv.to_bytes(8, "little")
        data[464:512] = bytes(48)
        return bytes(data)

    def spans(self, mask: int) -> list[tuple[int, int]]:
        """Return where the components of *mask* lie in a standard image."""
        legacy = [(0, 24), (32, 160)] if mask & 1 else []
        legacy += [(160, 416)] if mask & SSE else []
        places = self.machine.hw.caps.standard(mask & ~LEGACY).slots
        return legacy + [(at, at + size) for bit, at, size in places if bit in set(bits(mask))]
