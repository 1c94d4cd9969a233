"""Spin counts the same states, and comes to the same verdict, on the text that is exported."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from fpstate import cpu_by_name, policy
from fpstate.linux.boot import boot
from fpstate.linux.kernel import Cpu, Kernel
from fpstate.linux.steps import Assumptions
from fpstate.verify.check import subjects
from fpstate.verify.invariants import invariants
from fpstate.verify.model import Model, Shape, build
from fpstate.verify.promela import promela
from fpstate.verify.properties import property_of
from fpstate.verify.search import Limits, search

SPR = cpu_by_name("sapphire-rapids")
MISSING = [name for name in ("spin", "gcc") if shutil.which(name) is None]
needs_spin = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")


class KeepsOwner(Kernel):
    def cpu_invalidate_fpregs_state(self, cpu: Cpu) -> None:
        pass


def model(component: str, shape: Shape, focus: str, kernel: type[Kernel] = Kernel, name: str = "repaired") -> Model:
    found = subjects(boot(SPR, policy(name)), Assumptions(), kernel)
    subject = next(subject for kind, _, subject in found if kind.name == component)
    return build(subject, shape, focus, lambda w: (c for c in invariants(w) if property_of(c[0])))


@dataclass(frozen=True)
class Answer:
    states: int
    transitions: int
    errors: int


def spin(text: str, folder: Path) -> Answer:
    (folder / "model.pml").write_text(text)
    subprocess.run(["spin", "-a", "model.pml"], cwd=folder, check=True, capture_output=True)
    build_pan = ["gcc", "-O1", "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c"]
    subprocess.run(build_pan, cwd=folder, check=True, capture_output=True)
    made = subprocess.run(
        ["./pan", "-m2000000", "-c0", "-n"], cwd=folder, check=False, capture_output=True, text=True
    ).stdout
    assert "max search depth too small" not in made
    return Answer(
        *(_number(pattern, made) for pattern in (r"(\d+) states, stored", r"(\d+) transitions", r"errors: (\d+)"))
    )


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    assert match is not None, text
    return int(match[1])


@needs_spin
@pytest.mark.parametrize(
    ("component", "shape", "focus"),
    [
        ("user", Shape(1, 1, 1), "guest0"),
        ("user", Shape(1, 2, 1), "task0"),
        ("user", Shape(2, 2, 1), "guest0"),
        ("cet-kernel", Shape(1, 2, 1), "task1"),
        ("cet-kernel", Shape(2, 2, 1), "guest0"),
        ("pkru", Shape(1, 1, 1), "task0"),
        ("pkru", Shape(1, 2, 1), "guest0"),
        ("user-dynamic", Shape(1, 1, 1), "guest0"),
    ],
)
def test_spin_counts_the_same_states_and_steps(tmp_path: Path, component: str, shape: Shape, focus: str) -> None:
    made = model(component, shape, focus)
    ours = search(made, Limits(symmetry=False, liveness=False))
    theirs = spin(promela(made), tmp_path)
    assert ours.complete
    assert theirs.states == ours.states
    assert theirs.transitions == ours.edges + 1  # Spin counts the arrival in the initial state
    assert not ours.broken
    assert theirs.errors == 0


@needs_spin
@pytest.mark.parametrize(
    ("name", "component", "kernel"), [("repaired", "user", KeepsOwner), ("linux-6.18", "user-dynamic", Kernel)]
)
def test_spin_finds_what_is_broken(tmp_path: Path, name: str, component: str, kernel: type[Kernel]) -> None:
    shape = Shape(2, 2, 1) if kernel is KeepsOwner else Shape(1, 1, 1)
    made = model(component, shape, "task0", kernel, name)
    ours = search(made, Limits(symmetry=False, liveness=False))
    theirs = spin(promela(made), tmp_path)
    assert theirs.states == ours.states
    assert ours.broken
    assert theirs.errors > 0


def test_the_text_names_what_happens_and_is_the_same_every_time() -> None:
    text = promela(model("user", Shape(1, 2, 1), "guest0"))
    assert text == promela(model("user", Shape(1, 2, 1), "guest0"))
    assert "/* context_switch(cpu 0, task 0, other 1) */" in text
    assert "/* kvm_run(cpu 0, task 0) */" in text
    assert "/* ISO-RUN */" in text
    assert text.isascii()


def test_what_reads_what_another_assigns_is_computed_first() -> None:
    text = promela(model("user", Shape(2, 2, 1), "guest0"))
    steps = [line for line in text.splitlines() if "task0_image = cpu0_regs" in line and "cpu0_regs = " in line]
    for line in steps:
        assert line.index("task0_image = cpu0_regs") < line.index("; cpu0_regs = ")
