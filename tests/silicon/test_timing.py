"""Timing by the time stamp counter: structure and arithmetic, never how fast this machine is."""

from __future__ import annotations

import pytest

from fpstate.errors import UsageError
from fpstate.silicon import Executor, encode
from fpstate.silicon.encode import RAX, RSI
from fpstate.silicon.executor import MOST_SAMPLES
from fpstate.silicon.timing import CHAIN, NOTHING, assemble_timing


def test_the_new_instructions_are_encoded_as_nasm_does() -> None:
    # nasm 2.16: rdtsc; lfence; sub eax, esi; sub rax, rsi
    assert (encode.RDTSC.hex(), encode.LFENCE.hex()) == ("0f31", "0faee8")
    assert encode.subtract(RAX, RSI, wide=False).hex() == "2bc6"
    assert encode.subtract(RAX, RSI).hex() == "482bc6"


def test_each_execution_is_followed_by_a_fence() -> None:
    xsave = bytes.fromhex("480faea700000000")  # xsave64 [rdi+0]
    code = assemble_timing("xsave64", 3, 0x1000, 0x2000).code
    assert (xsave + encode.LFENCE) * 3 in code
    assert code.count(xsave) == 3
    assert code.count(encode.RDTSC) == 2


@pytest.mark.host
def test_as_many_samples_come_back_as_were_asked_for(executor: Executor) -> None:
    for samples in (1, 7, MOST_SAMPLES):
        found = executor.time(NOTHING, 0, executor.initial, b"", samples=samples, repeats=1)
        assert len(found) == samples
        assert all(0 < ticks < 1 << 32 for ticks in found)


@pytest.mark.host
def test_what_is_timed_is_really_executed(executor: Executor) -> None:
    """A save that was timed has left its image behind: seen by a restore that would fault without it."""
    registers = bytearray(executor.initial)
    registers[160:416] = b"\x5a" * 256
    registers[512] = 2
    executor.time("xsave64", 2, bytes(registers), b"\xff" * 512 + bytes(64), samples=1, repeats=1)
    left = executor._arena.view[:576]
    assert left[160:416] == b"\x5a" * 256
    assert left[512] == 2
    assert left[0] == 0xFF  # x87 was not in RFBM


@pytest.mark.host
def test_an_instruction_that_faults_is_refused_and_the_next_one_runs(executor: Executor) -> None:
    bad = bytes(512) + b"\0" * 8 + b"\1" + bytes(55)  # XCOMP_BV 1 in standard format: #GP (SDM 13.8.1)
    with pytest.raises(UsageError, match="xrstor64 faults"):
        executor.time("xrstor64", 3, executor.initial, bad, samples=2, repeats=2)
    assert executor.time(CHAIN, 0, executor.initial, b"", samples=2, repeats=1)


@pytest.mark.host
@pytest.mark.parametrize(
    ("op", "samples", "repeats"),
    [("hlt", 1, 1), ("xsave64", 0, 1), ("xsave64", MOST_SAMPLES + 1, 1), ("xsave64", 1, 0), ("xsave64", 1, 257)],
)
def test_what_cannot_be_timed_is_refused(executor: Executor, op: str, samples: int, repeats: int) -> None:
    with pytest.raises(UsageError, match="cannot be timed"):
        executor.time(op, 3, executor.initial, b"", samples=samples, repeats=repeats)
