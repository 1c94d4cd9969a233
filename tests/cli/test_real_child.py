"""Images of a real task: read from it, changed by name, and handed back to its kernel."""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

import elfcores as cores
from fpstate import cli

pytestmark = pytest.mark.host

PTRACE_TRACEME, PTRACE_GETREGSET, PTRACE_SETREGSET = 0, 0x4204, 0x4205  # <linux/ptrace.h>
NT_X86_XSTATE = 0x202
LARGEST = 1 << 16


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_STOPPED = """
import ctypes, os, signal, sys
if ctypes.CDLL(None).ptrace(0, 0, None, None):
    sys.exit(1)
os.kill(os.getpid(), signal.SIGSTOP)
"""


class Child:
    """A stopped child process, traced; OSError where that is not allowed."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = (ctypes.c_ulong, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
        self._libc.ptrace.restype = ctypes.c_long
        self._process = subprocess.Popen([sys.executable, "-c", _STOPPED])
        self.pid = self._process.pid
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._process.returncode = 1
            raise OSError("ptrace is refused")

    def read(self) -> bytes:
        buffer = ctypes.create_string_buffer(LARGEST)
        vector = _IoVec(ctypes.addressof(buffer), LARGEST)
        if self._libc.ptrace(PTRACE_GETREGSET, self.pid, NT_X86_XSTATE, ctypes.addressof(vector)):
            raise OSError(os.strerror(ctypes.get_errno()))
        return buffer.raw[: vector.length]

    def write(self, data: bytes) -> int:
        """Return the errno of PTRACE_SETREGSET; 0 is success."""
        buffer = ctypes.create_string_buffer(data, len(data))
        vector = _IoVec(ctypes.addressof(buffer), len(data))
        done = self._libc.ptrace(PTRACE_SETREGSET, self.pid, NT_X86_XSTATE, ctypes.addressof(vector))
        return ctypes.get_errno() if done else 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def child(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    monkeypatch.chdir(tmp_path)
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("needs x86-64 Linux")
    try:
        made = Child()
    except OSError as refused:
        pytest.skip(str(refused))
    try:
        (tmp_path / "real.img").write_bytes(made.read())
        if _run("explain real.img --op ptrace --host"):
            pytest.skip("the predicted kernel is not this one: its regset differs")
        yield made
    except OSError as refused:
        pytest.skip(f"NT_X86_XSTATE: {refused}")
    finally:
        made.close()


def _run(command: str) -> int:
    return cli.main(command.split())


def test_what_a_task_holds_shows_and_encodes_back(child: Child, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("show real.img --host --json") == 0
    pathlib.Path("real.json").write_text(capsys.readouterr().out, encoding="utf-8")
    assert _run("encode --host --registers real.json -o again.img") == 0
    assert _run("diff real.img again.img --host") == 0
    real, again = (pathlib.Path(name).read_bytes() for name in ("real.img", "again.img"))
    assert again[512:520] == real[512:520]
    assert child.pid


def test_the_kernel_takes_a_changed_register_and_gives_it_back(child: Child) -> None:
    assert (
        _run("encode --host --image real.img --set xmm9=" + "ab" * 16 + " --set st0=00000000000000800040 -o new.img")
        == 0
    )
    assert _run("explain new.img --op ptrace --host") == 0
    assert child.write(pathlib.Path("new.img").read_bytes()) == 0
    pathlib.Path("back.img").write_bytes(child.read())
    assert _run("diff new.img back.img --host") == 0
    assert _run("diff real.img back.img --host") == 1


@pytest.mark.parametrize(
    ("at", "value"), [(560, 1), (527, 0x80), (513, 0x08), (519, 0x80), (27, 0x80)], ids=lambda value: f"{value:#x}"
)
def test_the_kernel_refuses_what_explain_says_that_it_refuses(child: Child, at: int, value: int) -> None:
    data = bytearray(pathlib.Path("real.img").read_bytes())
    data[512] |= 3
    data[at] |= value
    pathlib.Path("bad.img").write_bytes(data)
    assert child.write(bytes(data)) == 22  # EINVAL
    assert _run("explain bad.img --op ptrace --host") == 1


@pytest.mark.parametrize(("at", "value"), [(0, 0), (560, 1), (527, 0x80), (27, 0x80)], ids=lambda value: f"{value:#x}")
def test_the_kernel_answers_as_decode_explains_of_a_core(
    child: Child, at: int, value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(pathlib.Path("real.img").read_bytes())
    data[512] |= 3
    data[at] |= value
    pathlib.Path("made.core").write_bytes(cores.core([cores.thread(child.pid, bytes(data))]))
    capsys.readouterr()
    _run("decode made.core --explain --host --json")
    (thread,) = json.loads(capsys.readouterr().out)["threads"]
    outcomes = {reader["reader"]: reader["outcome"] for reader in thread["readers"]}
    assert outcomes["PTRACE_SETREGSET"] == ("refused" if child.write(bytes(data)) else "accepted")


def test_what_was_written_to_a_task_is_what_decode_finds_different(
    child: Child, capsys: pytest.CaptureFixture[str]
) -> None:
    new = "encode --host --image real.img --set xmm9=" + "ab" * 16 + " --set mxcsr=0x9fc0 -o new.img"
    assert _run(new) == 0
    assert child.write(pathlib.Path("new.img").read_bytes()) == 0
    for name, image in (("before.core", pathlib.Path("real.img").read_bytes()), ("after.core", child.read())):
        pathlib.Path(name).write_bytes(cores.core([cores.thread(child.pid, image)]))
    capsys.readouterr()
    assert _run("decode before.core --diff after.core --host --json") == 1
    (thread,) = json.loads(capsys.readouterr().out)["threads"]
    assert {name[-1] for name in thread["registers"] if name != "mxcsr"} == {"9"}
    assert "mxcsr" in thread["registers"]
