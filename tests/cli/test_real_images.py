"""What ``convert`` makes, the real kernel takes: PTRACE_SETREGSET on a real thread, KVM_SET_XSAVE on a real vCPU."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from fpstate import cli
from fpstate import cpu as cpus
from fpstate.cpu.host import why_not_x86_64
from fpstate.image import read, register_differences
from fpstate.isa import Capabilities
from fpstate.linux.tracee import NT_X86_XSTATE, in_tracer, stopped, write_regset
from fpstate.sources.process import capture_thread
from fpstate.sources.vcpu import capture_vcpu, set_xsave
from guest import enable_everything, vcpu
from known import known
from tracees import Program

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(why_not_x86_64() is not None, reason=str(why_not_x86_64())),
]

CONVERSIONS = {
    "compacted and back": ["--to compacted", "--to standard"],
    "stripped": ["--strip AVX512"],
    "stripped, and the place added again": ["--to compacted --strip AVX512", "--add AVX512 --to standard"],
    "init-filled": ["--strip AVX512", "--add AVX512 --init-fill"],
    "another CPU's layout and back": ["--for-cpu sapphire-rapids", "--cpu sapphire-rapids --for-cpu host"],
    "another CPU's, compacted": [
        "--for-cpu sapphire-rapids --to compacted",
        "--cpu sapphire-rapids --for-cpu host --to standard",
    ],
}
"""Arguments of one ``fpstate convert`` after the other; the last one's result is standard and this host's."""


@pytest.fixture(scope="module")
def caps() -> Capabilities:
    return Capabilities(cpus.this_host())


@pytest.fixture(params=list(CONVERSIONS.values()), ids=list(CONVERSIONS))
def converted(
    request: pytest.FixtureRequest, caps: Capabilities, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> bytes:
    """Return what the conversions make of known registers."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("0.img").write_bytes(known(caps, 7))
    steps = request.param
    for i, words in enumerate(steps):
        cpu = [] if "--cpu" in words else ["--host"]
        assert cli.main(["convert", f"{i}.img", *cpu, *words.split(), "-o", f"{i + 1}.img"]) == 0
    return pathlib.Path(f"{len(steps)}.img").read_bytes()


@pytest.fixture
def program(caps: Capabilities) -> Iterator[Program]:
    try:
        made = Program("registers", [known(caps, 1)])
    except OSError as refused:
        pytest.skip(str(refused))
    with made:
        yield made


def test_ptrace_takes_it_and_the_thread_has_it(converted: bytes, program: Program, caps: Capabilities) -> None:
    (tid,) = program.answer
    size = len(capture_thread(tid).threads[0].image)

    def write() -> None:
        with stopped(tid):
            write_regset(tid, NT_X86_XSTATE, converted.ljust(size, b"\0"))

    in_tracer(write)
    back = bytes(capture_thread(tid).threads[0].image)
    (saved,) = program.saved()
    for image in (back, saved):
        assert register_differences(read(image, caps), read(converted, caps)) == []


def test_kvm_takes_it_and_the_vcpu_has_it(converted: bytes, caps: Capabilities) -> None:
    with vcpu() as made:
        enable_everything(made)
        set_xsave(made, converted)
        (thread,) = capture_vcpu(made).threads
        assert register_differences(read(bytes(thread.image), caps), read(converted, caps)) == []


def test_without_a_strip_the_registers_are_those_of_the_start(converted: bytes, caps: Capabilities) -> None:
    names = {d.register.name for d in register_differences(read(converted, caps), read(known(caps, 7), caps))}
    assert not any(name.startswith("st") or name in {"mxcsr", "fctrl"} for name in names)
