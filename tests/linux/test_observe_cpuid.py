"""The host CPUID reader: the instruction, the kernel's driver, and hosts that are neither."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fpstate.cpu.dump import Registers
from fpstate.cpu.host import read_host, walk, why_not_x86_64
from fpstate.errors import UnreadableInput
from fpstate.xfeatures import MIN_SIZE, bits

on_x86_64 = pytest.mark.skipif(why_not_x86_64() is not None, reason=str(why_not_x86_64()))
pytestmark = pytest.mark.host

# The kernel makes all memory of this process either writable or, from its start, executable (Linux 6.3 and later),
# which is what a hardened service manager asks for too.
REFUSE_EXECUTABLE_MEMORY = """
import ctypes, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
    sys.exit("this kernel has no PR_SET_MDWE")
from fpstate.cpu.host import read_host
from fpstate.errors import UnreadableInput
try:
    dump = read_host()
except UnreadableInput as error:
    print("refused", error)
else:
    print("read", dump.xcr0, sorted(dump.leaves) == sorted(%r), *dump.notes)
"""


def driver(cpu: int, leaf: int, subleaf: int) -> Registers:
    with Path(f"/dev/cpu/{cpu}/cpuid").open("rb", buffering=0) as device:
        answer = os.pread(device.fileno(), 16, subleaf << 32 | leaf)
    eax, ebx, ecx, edx = (int.from_bytes(answer[at : at + 4], "little") for at in range(0, 16, 4))
    return eax, ebx, ecx, edx


@on_x86_64
def test_the_instruction_and_the_kernels_cpuid_driver_agree_on_every_leaf() -> None:
    cpu = min(os.sched_getaffinity(0))
    if not os.access(f"/dev/cpu/{cpu}/cpuid", os.R_OK):
        pytest.skip(f"/dev/cpu/{cpu}/cpuid cannot be read")
    dump = read_host()
    assert dict(dump.leaves) == {(leaf, subleaf): driver(cpu, leaf, subleaf) for leaf, subleaf in dump.leaves}


@on_x86_64
def test_it_reads_all_leaves_that_the_host_has_and_all_sub_leaves_of_leaf_d() -> None:
    leaves = read_host().leaves
    for base in (0, 0x80000000):
        last = leaves[base, 0][0]
        assert {leaf for leaf, _ in leaves if base <= leaf <= last} == set(range(base, last + 1))
    if leaves[0, 0][0] >= 0xD:
        assert {subleaf for leaf, subleaf in leaves if leaf == 0xD} == set(range(64))
    assert {subleaf for leaf, subleaf in leaves if leaf == 7} == set(range(leaves[7, 0][0] + 1))


@on_x86_64
def test_xcr0_is_what_the_size_of_leaf_d_follows_from() -> None:
    dump = read_host()
    if dump.xcr0 is None:
        pytest.skip("XSAVE is off")
    ends = [dump.leaves[0xD, bit][0] + dump.leaves[0xD, bit][1] for bit in bits(dump.xcr0) if bit > 1]
    assert dump.xcr0 & ~(dump.leaves[0xD, 0][3] << 32 | dump.leaves[0xD, 0][0]) == 0
    assert dump.leaves[0xD, 0][1] == max([MIN_SIZE, *ends])


@on_x86_64
def test_it_names_itself_and_leaves_the_callers_cpus_as_they_were() -> None:
    before = os.sched_getaffinity(0)
    dump = read_host()
    assert (dump.format, dump.label, dump.os_linux) == ("host", "this host", True)
    assert os.sched_getaffinity(0) == before


@on_x86_64
def test_the_driver_answers_where_executable_memory_is_refused() -> None:
    expected = sorted(read_host().leaves)
    script = REFUSE_EXECUTABLE_MEMORY % (expected,)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if "PR_SET_MDWE" in done.stderr:
        pytest.skip("this kernel has no PR_SET_MDWE")
    if done.stdout.startswith("refused"):
        assert "CPUID of this host cannot be read: executing it needs executable memory" in done.stdout
        assert "give --cpu NAME or a CPUID file" in done.stdout
    else:
        assert done.stdout.startswith("read None True read from /dev/cpu/")


def test_a_host_of_another_architecture_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"), raising=False)
    with pytest.raises(
        UnreadableInput, match=r"^this host is not x86-64 \(aarch64\); give --cpu NAME or a CPUID file$"
    ):
        read_host()


def test_a_host_without_linux_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UnreadableInput, match=r"^this host does not run Linux \(darwin\); give --cpu"):
        read_host()


def test_a_hypervisor_that_claims_endless_leaves_is_read_to_a_limit() -> None:
    leaves = walk(lambda _leaf, _subleaf: (0xFFFFFFFF,) * 4)
    assert len(leaves) < 1500
    assert max(subleaf for _, subleaf in leaves) == 63


def test_a_cpu_without_extended_leaves_or_a_hypervisor_has_none_in_its_dump() -> None:
    leaves = walk(lambda leaf, _subleaf: (1, 0, 0, 0) if leaf < 2 else (0, 0, 0, 0))
    assert set(leaves) == {(0, 0), (1, 0)}
