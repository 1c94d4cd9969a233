"""The command's streams: closed, full, gone, of an odd encoding, and what may pass through them to a terminal."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

FPSTATE = [sys.executable, "-m", "fpstate"]


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run *command* in a shell; ``$fpstate`` is the command line under test."""
    env = {**os.environ, "fpstate": " ".join(FPSTATE), **environment}
    return subprocess.run(
        ["bash", "-c", command], env=env, capture_output=True, text=True, errors="replace", timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("$fpstate layout - <&-", "fpstate: standard input is closed; give a file\n"),
        ("$fpstate layout --cpu zen4 >&-", "fpstate: standard output is closed\n"),
        (
            "$fpstate layout --cpu zen4 >/dev/full",
            "fpstate: cannot write to standard output: No space left on device\n",
        ),
        ("$fpstate --help >/dev/full", "fpstate: cannot write to standard output: No space left on device\n"),
        ("$fpstate layout nowhere 2>&-", ""),
        ("$fpstate layout nowhere 2>/dev/full", ""),
        ("$fpstate layout --frobnicate 2>/dev/full", ""),
    ],
)
def test_a_stream_that_cannot_be_used_is_one_line_at_most_and_exit_2(command: str, words: str) -> None:
    done = shell(command)
    assert (done.returncode, done.stderr) == (2, words)


def test_a_reader_that_goes_away_does_not_change_the_answer(tmp_path: pathlib.Path) -> None:
    dump = tmp_path / "dump"
    dump.write_text("   0x0000000d 0x00: eax=0x00000003 ebx=0x00000240 ecx=0x00000999 edx=0x00000000\n")
    for verb, status in (("lint", 1), ("layout", 0)):
        done = shell(f"$fpstate {verb} {dump} | true; exit ${{PIPESTATUS[0]}}")
        assert (done.returncode, done.stderr) == (status, ""), verb


def test_a_name_that_the_encoding_lacks_is_escaped(tmp_path: pathlib.Path) -> None:
    (tmp_path / "päste").write_text("x86/fpu: Enabled xstate features 0x7, context size is 832 bytes.\n")
    done = shell(f"cd {tmp_path}; $fpstate layout p*ste", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(r"p\xe4ste: 0x7 x87|SSE|AVX")


@pytest.mark.parametrize("verb", ["layout", "config", "compare", "lint"])
def test_no_control_character_of_an_input_reaches_the_terminal(tmp_path: pathlib.Path, verb: str) -> None:
    dump = tmp_path / "bad\x1b]0;title\x07name"
    record = {"leaf": 0xD, "subleaf": 0, "eax": 7, "ebx": 832, "ecx": 832, "edx": 0}
    dump.write_text(json.dumps({"label": "evil\x1b[31m\nline2\x07\ud800", "entries": [record]}))
    done = subprocess.run([*FPSTATE, verb, str(dump)], capture_output=True, text=True, check=False)
    shown = done.stdout + done.stderr
    assert shown.replace("\n", "").isprintable()
    assert "Traceback" not in shown
