"""Holding a prediction against what a kernel shows."""

from dataclasses import replace

import pytest

from fpstate import cpu as cpus
from fpstate.linux.boot import boot
from fpstate.linux.check import check, judge
from fpstate.linux.config import BootConfig
from fpstate.linux.observe import Observation
from fpstate.linux.policy import find


@pytest.fixture
def config() -> BootConfig:
    return boot(cpus.by_name("genoa"), find("linux-6.18"))


def seen(fact: str, value: int | str | tuple[str, ...] | None, why_not: str | None = None) -> Observation:
    return Observation(fact=fact, value=value, how="test", why_not=why_not)


@pytest.mark.parametrize(
    ("fact", "value", "agrees"),
    [
        ("xcr0", 0x2E7, True),
        ("xcr0", 0xE7, False),
        ("minsigstksz", 3376, True),
        ("sigframe_xstate_size", 2440, True),
        ("kvm_xss_bits", 0, True),
        ("kvm_xss_bits", 0x1800, True),
        ("kvm_xss_bits", 0x8000, False),
        ("kvm_cpuid_d0", "eax=000002e7 ebx=00000240 ecx=00000988 edx=00000000", True),
        ("kvm_cpuid_d0", "eax=000000e7 ebx=00000240 ecx=00000988 edx=00000000", False),
        ("task_xcomp_bv", 0x8000000000000AE7, True),
        ("task_xcomp_bv", 0x8000000000001AE7, False),
        ("guest_xcomp_bv", 0x8000000000001AE7, True),
        ("guest_xcomp_bv", 0x8000000000000AE7, False),
        ("task_struct_slab", 2456 + 53 * 64, True),
        ("task_struct_slab", 2456 + 53 * 64 + 8, False),
        ("boot_log", (), False),
    ],
)
def test_a_fact_agrees_or_differs(
    config: BootConfig, fact: str, value: int | str | tuple[str, ...], *, agrees: bool
) -> None:
    (row,) = judge(config, [seen(fact, value)])
    assert row.agrees is agrees


def test_the_kernels_own_lines_agree(config: BootConfig) -> None:
    (row,) = judge(config, [seen("boot_log", config.boot_log)])
    assert row.agrees


def test_what_could_not_be_read_neither_agrees_nor_differs(config: BootConfig) -> None:
    (row,) = judge(config, [seen("guest_xcomp_bv", None, "needs root")])
    assert (row.agrees, row.why_not) == (None, "needs root")


def test_a_fact_that_nothing_is_predicted_of_gives_no_row(config: BootConfig) -> None:
    assert judge(config, [seen("phase_of_the_moon", 1)]) == ()


def test_without_xsave_there_is_no_regset_to_predict() -> None:
    nehalem = boot(cpus.by_name("nehalem"), find("linux-6.18"))
    assert judge(nehalem, [seen("ptrace_xstate_size", None), seen("sigframe_magic2", 0)]) == ()


@pytest.mark.host
def test_this_kernel_does_what_is_predicted() -> None:
    result = check(cpus.this_host(), None)
    differing = [row for row in result.rows if row.agrees is False]
    assert not differing, differing
    if result.remark:
        pytest.skip(result.remark)
    assert any(row.agrees for row in result.rows)


@pytest.mark.host
def test_a_wrong_policy_is_found_out_here() -> None:
    cpu = cpus.this_host()
    if not cpu.mask >> 12 & 1:
        pytest.skip("this CPU has no CET_S, on which the policies differ")
    right = check(cpu, None)
    if right.config.policy.name != "linux-6.18":
        pytest.skip(f"this kernel follows {right.config.policy.name}")
    if all(row.seen is None for row in right.rows if row.fact in {"boot_log", "task_xcomp_bv"}):
        pytest.skip("neither the boot log nor the tracepoints can be read here")
    assert not check(cpu, find("default-on")).agrees or not check(cpu, find("linux-6.7")).agrees


def test_a_check_agrees_if_nothing_differs(config: BootConfig) -> None:
    rows = judge(config, [seen("xcr0", 0x2E7), seen("guest_xcomp_bv", None, "needs root")])
    from fpstate.linux.check import Check

    good = Check(config=config, release="6.18", remark=None, rows=rows)
    assert good.agrees
    assert not replace(good, rows=judge(config, [seen("xcr0", 1)])).agrees
