"""Live processes: what ptrace gives is what their threads loaded, and they go on as if nobody had looked."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from fpstate import cpu as cpus
from fpstate.cpu.host import why_not_x86_64
from fpstate.errors import CannotTell, FpstateError, UnreadableInput, UsageError
from fpstate.image import read, register_differences
from fpstate.isa import Capabilities
from fpstate.linux import tracee, whytrace
from fpstate.linux.tracee import in_tracer, stopped
from fpstate.sources.process import capture_process, capture_thread, is_x32
from known import known
from tracees import Program

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(why_not_x86_64() is not None, reason=str(why_not_x86_64())),
]


@pytest.fixture(scope="module")
def caps() -> Capabilities:
    host = cpus.this_host()
    enabled = host.dump.xcr0
    if not host.has_xsave or enabled is None:
        pytest.skip("XSAVE is off")
    return Capabilities(host)


@pytest.fixture
def program(caps: Capabilities) -> Iterator[Program]:
    try:
        made = Program("registers", [known(caps, seed) for seed in range(1, 4)])
    except OSError as refused:
        pytest.skip(str(refused))
    with made:
        yield made


def test_every_thread_holds_what_it_loaded(program: Program, caps: Capabilities) -> None:
    capture = capture_process(program.pid)
    assert (capture.kind, capture.source) == ("process", f"pid {program.pid}")
    assert [thread.tid for thread in capture.threads] == [program.pid, *program.answer]
    for seed, thread in enumerate(capture.threads[1:], 1):
        assert register_differences(read(bytes(thread.image), caps), read(known(caps, seed), caps)) == []
        assert (thread.form, thread.abi, thread.enabled) == ("xsave", "x86-64", caps.cpu.dump.xcr0)
        assert thread.name == pathlib.Path(f"/proc/{program.pid}/task/{thread.tid}/comm").read_text("ascii").strip()


def test_the_threads_end_with_the_registers_that_they_had_before_the_look(program: Program, caps: Capabilities) -> None:
    for _ in range(20):
        capture_process(program.pid)
    for seed, saved in enumerate(program.saved(), 1):
        assert register_differences(read(saved, caps), read(known(caps, seed), caps)) == []


def test_a_thread_alone_by_its_number(program: Program, caps: Capabilities) -> None:
    capture = capture_thread(program.answer[1])
    (thread,) = capture.threads
    assert thread.tid == program.answer[1]
    assert register_differences(read(bytes(thread.image), caps), read(known(caps, 2), caps)) == []
    assert capture.notes[0].startswith(f"thread {thread.tid} was stopped for ")


def test_the_number_of_a_later_thread_means_its_process(program: Program) -> None:
    capture = capture_process(program.answer[0])
    assert len(capture.threads) == 4
    assert f"{program.answer[0]} is a thread of process {program.pid}" in capture.notes


def test_the_layout_is_this_hosts(program: Program, caps: Capabilities) -> None:
    cpu = capture_thread(program.pid).cpu
    assert cpu is not None
    assert cpu.components == caps.cpu.components


def test_a_process_that_job_control_stopped_stays_stopped(program: Program) -> None:
    os.kill(program.pid, signal.SIGSTOP)
    program.wait_for("T")
    capture = capture_process(program.pid)
    assert len(capture.threads) == 4
    assert capture.notes[0].endswith("job control's stop is left as it was")
    for thread in capture.threads:
        program.wait_for("T", thread.tid)
    os.kill(program.pid, signal.SIGCONT)
    assert len(program.saved()) == 3


def test_no_signal_is_lost_and_none_is_added() -> None:
    sent = 0
    with Program("count") as program:
        looking = threading.Event()

        def look() -> None:
            while not looking.is_set():
                capture_thread(program.pid)

        looker = threading.Thread(target=look)
        looker.start()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            os.kill(program.pid, signal.SIGRTMIN)  # queued, each of them
            sent += 1
            time.sleep(0.0001)
        looking.set()
        looker.join()
        program.tell(0)
        assert program.hear() == sent


def test_a_signal_met_on_its_way_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    real = tracee.ptrace
    counts = Program("count")

    def late(request: int, tid: int, address: int = 0, data: int = 0) -> int:
        done = real(request, tid, address, data)
        if request == tracee._PTRACE_SEIZE:  # the signal comes just now, and stops the thread before we can
            os.kill(tid, signal.SIGRTMIN)
            counts.wait_for("t")
        return done

    def meet() -> int:
        with stopped(counts.pid) as met:
            return met.signal

    monkeypatch.setattr(tracee, "ptrace", late)
    with counts:
        assert [in_tracer(meet) for _ in range(10)] == [signal.SIGRTMIN] * 10
        counts.tell(0)
        assert counts.hear() == 10


def test_a_process_that_ends_is_its_parents_to_collect(program: Program) -> None:
    errors: list[FpstateError] = []

    def look() -> None:
        while not errors:
            try:
                capture_process(program.pid)
            except UnreadableInput as error:
                errors.append(error)

    looker = threading.Thread(target=look)
    looker.start()
    time.sleep(0.05)
    os.kill(program.pid, signal.SIGKILL)
    looker.join()
    assert program.ended() == -signal.SIGKILL


def test_a_stop_that_another_thread_of_the_reader_is_told_of_is_read_all_the_same(program: Program) -> None:
    told: list[int] = []
    waiter = threading.Thread(target=lambda: told.append(os.waitpid(program.pid, 0)[1]))
    waiter.start()
    while waiter.is_alive():  # the kernel tells the tracer or the waiter
        assert len(capture_process(program.pid).threads) == 4
    assert os.WIFSTOPPED(told[0])
    assert os.WSTOPSIG(told[0]) == signal.SIGTRAP
    assert len(program.saved()) == 3


def test_a_zombie_has_no_registers() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        while pathlib.Path(f"/proc/{process.pid}/stat").read_text("ascii").rpartition(") ")[2][0] != "Z":
            time.sleep(0.001)
        with pytest.raises(UnreadableInput, match="has exited, and only its status is left"):
            capture_process(process.pid)


def test_a_thread_that_does_not_stop_is_let_go() -> None:
    with Program("vfork") as program:
        program.wait_for("D")

        def wait() -> None:
            with stopped(program.pid, patience=0.1):
                pass

        with pytest.raises(CannotTell, match=r"did not stop within 0\.1 s: it is in state D"):
            in_tracer(wait)
        deadline = time.monotonic() + 5
        while whytrace.status_of(program.pid)["TracerPid"] != "0":
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_a_second_tracer_is_told_of_the_first(program: Program) -> None:
    holding, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with stopped(program.pid):
            holding.set()
            enough.wait()

    holder = threading.Thread(target=in_tracer, args=(hold,))
    holder.start()
    holding.wait()
    try:
        with pytest.raises(UnreadableInput, match=r"is already traced by \d+ \(.+\), and can have one tracer"):
            capture_thread(program.pid)
        assert len(capture_process(program.pid).threads) == 3  # the others are read all the same
    finally:
        enough.set()
        holder.join()


def test_nobody_may_not_look_at_root() -> None:
    if os.geteuid():
        pytest.skip("needs root, to become somebody else")
    script = (
        "import os; from fpstate.cpu import host; import ctypes; from fpstate.sources import process\n"
        "from fpstate.linux.tracee import ptrace; from fpstate.errors import FpstateError\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: process.capture_process(os.getppid())\n"
        "except FpstateError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "belongs to user 0, not to us; run as root" in said


@pytest.mark.parametrize(("pid", "kind"), [(0, UsageError), (-1, UsageError), (1 << 30, UnreadableInput)])
def test_a_number_that_is_no_process(pid: int, kind: type[Exception]) -> None:
    for capture in (capture_process, capture_thread):
        with pytest.raises(kind, match=str(pid)):
            capture(pid)


def test_this_process_is_refused() -> None:
    with pytest.raises(UnreadableInput, match="one of fpstate's own process"):
        capture_process(os.getpid())


def test_kernel_threads_are_refused() -> None:
    if whytrace.status_of(2).get("Name") != "kthreadd":
        pytest.skip("no kernel thread is visible here")
    with pytest.raises(UnreadableInput, match="is a kernel thread: it has no user registers"):
        capture_process(2)


@pytest.mark.parametrize(
    ("yama", "capabilities", "uid", "reason"),
    [
        (3, "1ffffffffff", "0", "forbids it to everybody until the next boot"),
        (2, "0", "1000", "ptrace_scope is 2, only CAP_SYS_PTRACE may"),
        (1, "0", "1000", "ptrace_scope is 1, and it is no descendant"),
        (1, "0", "0", "belongs to user 0, not to us"),
        (0, "0", "1000", "not dumpable"),
        (1, "80000", "1000", "although we have CAP_SYS_PTRACE"),
    ],
)
def test_the_reason_is_the_one_that_documentation_gives(yama: int, capabilities: str, uid: str, reason: str) -> None:
    # Documentation/admin-guide/LSM/Yama.rst and ptrace(2); the fields as proc(5) has them
    own = {"Name": "fpstate", "Tgid": "7", "Uid": "1000\t1000\t1000\t1000", "CapEff": capabilities}
    target = {"Name": "victim", "Tgid": "9", "Uid": f"{uid}\t{uid}\t{uid}\t{uid}", "TracerPid": "0", "State": "S (x)"}
    assert reason in str(whytrace.explain(9, target, own, yama=yama))


I386 = """
__attribute__((aligned(16))) static const unsigned char value[16] = "a 32-bit program";
void _start(void) {
    __asm__ volatile("movups %0, %%xmm5\\n\\tfldpi\\n1:\\tmov $29, %%eax\\n\\tint $0x80\\n\\tjmp 1b" :: "m"(value));
}
"""


def compiled(tmp_path: pathlib.Path, *flags: str) -> pathlib.Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing")
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(I386, encoding="ascii")
    command = ["gcc", "-static", "-nostdlib", "-O1", "-msse2", *flags, "-o", str(program), str(source)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"this gcc cannot build with {' '.join(flags)}")
    return program


def test_a_32_bit_process(tmp_path: pathlib.Path, caps: Capabilities) -> None:
    program = compiled(tmp_path, "-m32")
    try:
        process = subprocess.Popen([program])
    except OSError as refused:
        pytest.skip(f"this kernel runs no 32-bit program: {refused}")
    with process:
        try:
            time.sleep(0.1)
            (thread,) = capture_process(process.pid).threads
        finally:
            process.kill()
    image = read(bytes(thread.image), caps)
    assert (thread.abi, thread.form, thread.name) == ("i386", "xsave", "program")
    assert image.register("xmm5") == b"a 32-bit program"
    assert image.register("st0").hex() == "35c26821a2da0fc90040"  # pi, as FLDPI rounds it


def test_an_x32_program_is_told_by_its_file(tmp_path: pathlib.Path) -> None:
    assert is_x32(compiled(tmp_path, "-mx32", "-c").read_bytes()[:20])
    assert not is_x32(pathlib.Path(sys.executable).read_bytes()[:20])
    assert not is_x32(b"")
