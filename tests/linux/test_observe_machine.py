"""Every fact about the running machine: read for real, and held against the others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from fpstate.cpu.host import read_host, why_not_x86_64
from fpstate.errors import CannotTell
from fpstate.linux.observe import Observation, cmdline, kernel_release, observe
from fpstate.linux.observe.child import ask
from fpstate.xfeatures import CATALOGUE, COMPACTED, mask_of

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(why_not_x86_64() is not None, reason=str(why_not_x86_64())),
]

FACTS = [
    "boot_log",
    "xcr0",
    "xcomp_supp",
    "xcomp_perm",
    "xcomp_guest_perm",
    "minsigstksz",
    "sigframe_magic1",
    "sigframe_extended_size",
    "sigframe_xfeatures",
    "sigframe_xstate_size",
    "sigframe_magic2",
    "ptrace_xstate_size",
    "ptrace_sw_xfeatures",
    "kvm_xsave2",
    "kvm_guest_supp",
    "kvm_cpuid_d0",
    "kvm_cpuid_d1",
    "kvm_xss_bits",
    "task_xcomp_bv",
    "guest_xcomp_bv",
    "task_struct_slab",
]
USER = mask_of(row.bit for row in CATALOGUE if not row.supervisor)
USER_DYNAMIC = mask_of(row.bit for row in CATALOGUE if row.role == "user-dynamic")
CET_KERNEL = 1 << 12
PATIENT = 30.0

# Without privileges, and with all modules loaded before they go: the interpreter itself may lie where only its owner
# can read it.
AS_NOBODY = """
import contextlib, ctypes, fcntl, json, mmap, os, shutil, struct, subprocess, sys
from fpstate.cpu.host import read_host
from fpstate.linux.observe import boot, frame, kvm, observe, regset, slab, task, tracing
if os.geteuid() == 0:
    with contextlib.suppress(OSError):  # a root that may not do this has no privileges either
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
print(json.dumps([[x.fact, x.value, x.how, x.why_not] for x in observe(seconds=30)]))
"""

# Whoever was killed while tracing could not have removed its instance: look at them all, in a namespace of our own.
LIST_INSTANCES = """
mount --make-rprivate / && { test -d /sys/kernel/tracing/instances || mount -t tracefs none /sys/kernel/tracing; } &&
ls /sys/kernel/tracing/instances
"""


@pytest.fixture(scope="module")
def machine() -> dict[str, Observation]:
    return {observation.fact: observation for observation in observe(seconds=PATIENT)}


def number(machine: dict[str, Observation], fact: str) -> int:
    observation = machine[fact]
    if observation.value is None:
        pytest.skip(f"{fact}: {observation.why_not}")
    assert isinstance(observation.value, int)
    return observation.value


def instances() -> set[str]:
    if os.geteuid() or not shutil.which("unshare"):  # then nobody here could make one, or we cannot look
        return set()
    done = subprocess.run(["unshare", "-m", "sh", "-c", LIST_INSTANCES], capture_output=True, text=True, check=False)
    return {name for name in done.stdout.split() if name.startswith("fpstate-")}


def children() -> str:
    listed = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return listed.read_text() if listed.exists() else "CONFIG_PROC_CHILDREN is off"


def tracefs_mounts() -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - tracefs " in line]


def abandoned_instances() -> set[str]:
    left = {name for name in instances() if not Path("/proc", name.removeprefix("fpstate-")).exists()}
    return left & instances()  # one that another test was just about to remove is gone by now


def test_every_fact_is_reported_once_and_in_order(machine: dict[str, Observation]) -> None:
    assert list(machine) == FACTS


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_has_a_value_or_a_reason_and_a_place(machine: dict[str, Observation], fact: str) -> None:
    observation = machine[fact]
    assert (observation.value is None) == bool(observation.why_not)
    assert observation.how


def test_the_boot_log_ends_its_list_with_the_mask_that_xcr0_is_part_of(machine: dict[str, Observation]) -> None:
    log = machine["boot_log"].value
    if not isinstance(log, tuple):
        pytest.skip(str(machine["boot_log"].why_not))
    enabled = re.search(r"Enabled xstate features (0x[0-9a-f]+), context size is \d+ bytes", "\n".join(log))
    if enabled is None:
        pytest.skip("the kernel has XSAVE off")
    assert int(enabled[1], 16) & USER == number(machine, "xcr0")


def test_the_kernel_supports_xcr0_and_permits_all_but_the_dynamic_part(machine: dict[str, Observation]) -> None:
    xcr0 = number(machine, "xcr0")
    assert number(machine, "xcomp_supp") == xcr0
    assert xcr0 & ~USER_DYNAMIC == number(machine, "xcomp_perm") & ~USER_DYNAMIC
    assert number(machine, "xcomp_guest_perm") & ~xcr0 == 0


def test_the_signal_frame_holds_xcr0_without_what_nobody_asked_for(machine: dict[str, Observation]) -> None:
    leaves = read_host().leaves
    features = number(machine, "sigframe_xfeatures")
    assert features == number(machine, "xcr0") & ~USER_DYNAMIC
    ends = [leaves[0xD, bit][0] + leaves[0xD, bit][1] for bit in range(2, 63) if features >> bit & 1]
    assert number(machine, "sigframe_xstate_size") == max([576, *ends])
    assert number(machine, "sigframe_extended_size") == number(machine, "sigframe_xstate_size") + 4


def test_the_signal_frame_is_signed_at_both_ends(machine: dict[str, Observation]) -> None:
    assert number(machine, "sigframe_magic1") == 0x46505853
    assert number(machine, "sigframe_magic2") == 0x46505845


def test_the_smallest_signal_stack_holds_the_frame(machine: dict[str, Observation]) -> None:
    assert number(machine, "minsigstksz") >= number(machine, "sigframe_extended_size")


def test_ptrace_hands_out_the_whole_standard_image(machine: dict[str, Observation]) -> None:
    assert number(machine, "ptrace_xstate_size") == read_host().leaves[0xD, 0][1]
    assert number(machine, "ptrace_sw_xfeatures") == number(machine, "xcr0")


def test_kvm_offers_no_user_component_that_the_host_has_not(machine: dict[str, Observation]) -> None:
    supported = number(machine, "kvm_guest_supp")
    if machine["kvm_cpuid_d0"].value is None:
        pytest.skip(str(machine["kvm_cpuid_d0"].why_not))
    assert supported & ~number(machine, "xcr0") == 0
    words = dict(word.split("=") for word in str(machine["kvm_cpuid_d0"].value).split())
    assert int(words["edx"], 16) << 32 | int(words["eax"], 16) == supported & number(machine, "xcomp_guest_perm")


def test_kvms_xsave_buffer_is_never_smaller_than_the_old_one(machine: dict[str, Observation]) -> None:
    assert number(machine, "kvm_xsave2") >= 4096  # sizeof(struct kvm_xsave)


def test_a_task_that_runs_has_no_component_that_only_guests_have(machine: dict[str, Observation]) -> None:
    task = number(machine, "task_xcomp_bv")
    assert task & CET_KERNEL == 0
    if task:  # 0 with the standard format
        assert task & COMPACTED
        assert task & USER == number(machine, "xcomp_perm") & ~USER_DYNAMIC


def test_a_guest_that_runs_has_the_guest_only_component_besides(machine: dict[str, Observation]) -> None:
    task, guest = number(machine, "task_xcomp_bv"), number(machine, "guest_xcomp_bv")
    release = tuple(int(part) for part in re.findall(r"\d+", kernel_release())[:2])
    log = machine["boot_log"].value
    if release < (6, 17) or not isinstance(log, tuple) or not any("(KVM only)" in line for line in log):
        assert guest & ~CET_KERNEL == task & ~CET_KERNEL
    else:
        assert guest ^ task == CET_KERNEL


def test_a_task_struct_is_larger_than_the_image_in_it(machine: dict[str, Observation]) -> None:
    assert number(machine, "task_struct_slab") > number(machine, "sigframe_xstate_size")


def test_nothing_is_left_behind() -> None:
    before = tracefs_mounts(), children(), os.sched_getaffinity(0)
    observe(seconds=PATIENT)
    assert (tracefs_mounts(), children(), os.sched_getaffinity(0)) == before
    assert not abandoned_instances()


def test_a_helper_that_is_stopped_half_way_removes_its_instance() -> None:
    before = children()
    for milliseconds in range(60, 260, 20):
        with contextlib.suppress(CannotTell):  # the quick ones finish
            ask("tracing", milliseconds / 1000)
    assert children() == before
    assert not abandoned_instances()


def test_a_helper_that_gets_no_time_is_the_reason() -> None:
    found = {observation.fact: observation for observation in observe(seconds=0.001)}
    assert list(found) == FACTS
    assert found["sigframe_xfeatures"].why_not == "the helper process gave no answer within 0.001 s"
    assert found["ptrace_xstate_size"].why_not == "the helper process gave no answer within 0.001 s"


def test_an_unprivileged_user_gets_every_fact_or_its_reason() -> None:
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {fact: Observation(fact, value, how, why_not) for fact, value, how, why_not in json.loads(done.stdout)}
    assert list(found) == FACTS
    assert all((observation.value is None) == bool(observation.why_not) for observation in found.values())
    assert found["xcr0"].value == read_host().xcr0
    assert found["minsigstksz"].value or "5.14" in str(found["minsigstksz"].why_not)


def test_importing_it_loads_nothing_that_reads() -> None:
    script = "import sys, fpstate.linux.observe; print({'ctypes', 'subprocess', 'json', 'mmap'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=False, env=paths()
    )
    assert done.stdout == "set()\n", done.stderr


def paths() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_the_kernels_release_and_command_line_are_its_own() -> None:
    assert kernel_release() == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert cmdline() == Path("/proc/cmdline").read_text().strip()


def test_a_host_of_another_architecture_is_every_facts_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    found = observe()
    assert [observation.fact for observation in found] == FACTS
    assert {observation.why_not for observation in found} == {"this host is not x86-64 (aarch64)"}
