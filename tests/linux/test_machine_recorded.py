"""The machine does what real kernels did: tracepoints, signal frames, regsets, refused images, AMX, core notes.

Each test builds the machine from what CPUID said on that boot and its command line, takes the steps that the recorder's
programs took, and compares what user space saw.  The kernel was Linux 7.2.13 on an emulated CPU; what an emulator gets
wrong is in its profile (`fpstate.isa.Profile`), or said in the test.
"""

from __future__ import annotations

import pathlib
import re

import pytest

from recorded import CHILD, PARENT, RECORDINGS, STATES, Recording, StoppedChild

WRITTEN = [name for name in STATES if name not in {"amx"}]


@pytest.fixture(params=RECORDINGS)
def real(request: pytest.FixtureRequest) -> Recording:
    path: pathlib.Path = request.param
    recording = Recording(path)
    if not recording.record["reached_init"]:
        pytest.skip("this boot died before user space")
    return recording


# -- NT_X86_XSTATE ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", WRITTEN)
def test_a_stopped_child_shows_the_components_that_it_uses(real: Recording, state: str) -> None:
    shown = real.numbers(f"PTRACE.{state}")
    child = StoppedChild(real)
    child.fork()
    child.load(CHILD, state)
    child.stop()
    error, image = child.calls.getregset(CHILD)
    words = {
        "size": len(image),
        "sw_xfeatures": int.from_bytes(image[464:472], "little"),
        "sw464": int.from_bytes(image[464:472], "little") << 320 | int.from_bytes(image[472:512], "little"),
        "xstate_bv": int.from_bytes(image[512:520], "little"),
        "xcomp_bv": int.from_bytes(image[520:528], "little"),
    }
    assert error == 0
    assert {name: shown[name] for name in words} == words
