"""``fpstate`` inside a real gdb: what the selected thread holds, as it loaded it, or as its core has it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sysconfig

import pytest

import elfcores as cores
import fpstate
from fpstate.cpu.host import why_not_x86_64
from fpstate.image import read
from fpstate.isa import Capabilities
from known import known
from tracees import Program

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(why_not_x86_64() is not None, reason=str(why_not_x86_64())),
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is missing"),
]
PATHS = [str(pathlib.Path(fpstate.__file__).parents[1]), sysconfig.get_path("purelib")]


def inside_gdb(*commands: str) -> str:
    words = ["gdb", "-nx", "-batch", "-ex", "python import fpstate.plugins.gdb"]
    for command in commands:
        words += ["-ex", command]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS), "NO_COLOR": "1", "DEBUGINFOD_URLS": ""}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60, check=False)
    if "Python scripting is not supported" in done.stderr or "No module named" in done.stderr:
        pytest.skip(f"this gdb cannot import fpstate: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout + done.stderr


def test_the_selected_threads_registers(program: Program, caps: Capabilities) -> None:
    name = "zmm17" if caps.user >> 7 & 1 else "ymm7" if caps.user >> 2 & 1 else "xmm7"
    said = inside_gdb(f"attach {program.pid}", "thread find LWP", "thread 3", f"fpstate ${name}", "detach")
    value = read(known(caps, 2), caps).register(name).hex()
    assert "".join(said.split()).find(f"{name}{value}") >= 0, said


def test_all_of_it_with_header_and_components(program: Program) -> None:
    said = inside_gdb(f"attach {program.pid}", "thread 2", "fpstate", "detach")
    assert "standard format" in said
    assert "XSTATE_BV" in said
    assert "\nxmm0 " in said or "\nymm0 " in said or "\nzmm0 " in said


def test_without_a_thread_it_says_what_to_do() -> None:
    assert "fpstate: no thread is selected; start or attach to a process" in inside_gdb("fpstate")


ZMM17 = bytes(range(64))


@pytest.fixture
def core(tmp_path: pathlib.Path) -> pathlib.Path:
    """A core of a Zen 4 without PKU, with the layout note, two threads: of what gdb 13 shows no ZMM register."""
    first, second = cores.image({"k1": bytes(range(8))}), cores.image({"zmm17": ZMM17})
    (tmp_path / "app core").write_bytes(
        cores.core([cores.thread(5, first), cores.thread(9, second), cores.layout_of()])
    )
    return tmp_path / "app core"


def test_the_selected_thread_of_a_core(core: pathlib.Path) -> None:
    said = inside_gdb(f"core {core}", "thread find 9", "thread 2", "fpstate")
    assert "thread 9, x86-64" in said, said
    assert "places from the layout note" in said
    assert ZMM17.hex() in "".join(said.split())


def test_chosen_registers_of_a_core(core: pathlib.Path) -> None:
    said = inside_gdb(f"core {core}", "fpstate $k1 mxcsr")
    assert "\nk1        0x706050403020100\nmxcsr     0x1f80\n" in said, said


def test_gdb_itself_shows_no_zmm_of_that_core(core: pathlib.Path) -> None:
    """gdb 13.1 knows no layout of this size; a later one may."""
    said = inside_gdb(f"core {core}", "thread 2", "info registers zmm17")
    if "<unavailable>" not in said and "zmm17" in said:
        pytest.skip("this gdb reads the core itself")
    assert "in core file too small" in said
    assert "0x3f3e3d3c" not in said


def test_an_unknown_register_is_named(program: Program) -> None:
    said = inside_gdb(f"attach {program.pid}", "fpstate xmm99", "detach")
    assert "fpstate: there is no register 'xmm99'" in said
