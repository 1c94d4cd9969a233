"""Calls: what programs, guests and VMMs ask for with numbers, and the errno, #GP or value that they are told."""

from __future__ import annotations

from typing import Final

import pytest

from fpstate import policy
from fpstate.cpu import by_name as cpu_by_name
from fpstate.errors import UsageError
from fpstate.linux.machine import Machine, NotPossible
from fpstate.linux.steps import Assumptions
from fpstate.xfeatures import CET

CPU: Final = cpu_by_name("sapphire-rapids")
ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM, ARCH_REQ_XCOMP_PERM = 0x1021, 0x1022, 0x1023
ARCH_GET_XCOMP_GUEST_PERM, ARCH_REQ_XCOMP_GUEST_PERM = 0x1024, 0x1025
WITH_GUEST_CET: Final = ("linux-6.18", "repaired", "default-on", "independent", "raw-msr", "resident", "cet-v8")
SSP: Final = 0x7FFF_FFFF_F000


def machine(name: str = "linux-6.18", assumptions: Assumptions | None = None) -> Machine:
    """Task 0 runs on CPU 0, in the kernel."""
    made = Machine(CPU, policy(name), cpus=2, tasks=2, vcpus=2, assumptions=assumptions)
    made.step("switch_from_idle", cpu=0, task=0)
    return made


def told(m: Machine, call: str, task: int = 0, **numbers: int) -> str:
    """What *call* is told; nothing must be wrong."""
    event = m.step(call, cpu=task, task=task, **numbers)
    assert event.findings == ()
    return str(event.answer)


def in_kvm_run(name: str = "linux-6.18", assumptions: Assumptions | None = None) -> Machine:
    made = machine(name, assumptions)
    made.step("kvm_create_vcpu", cpu=0, task=0)
    made.step("kvm_run", cpu=0, task=0)
    return made


# -- arch_prctl -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "answer"),
    [
        (ARCH_GET_XCOMP_SUPP, 0, "0x602e7"),
        (ARCH_GET_XCOMP_PERM, 0, "0x202e7"),
        (ARCH_GET_XCOMP_GUEST_PERM, 0, "0x202e7"),
        (ARCH_REQ_XCOMP_PERM, 18, "done"),
        (ARCH_REQ_XCOMP_GUEST_PERM, 18, "done"),
        (ARCH_REQ_XCOMP_PERM, 17, "EOPNOTSUPP"),
        (ARCH_REQ_XCOMP_PERM, 12, "EOPNOTSUPP"),
        (ARCH_REQ_XCOMP_PERM, 20, "EINVAL"),
        (ARCH_REQ_XCOMP_PERM, (1 << 64) - 1, "EINVAL"),
        (0x1020, 0, "EINVAL"),
        (0x1026, 0, "EINVAL"),
    ],
)
def test_arch_prctl_answers_as_the_kernel_does(option: int, value: int, answer: str) -> None:
    assert told(machine(), "arch_prctl", option=option, value=value) == answer


def test_a_permission_shows_in_what_the_task_may_have_and_not_in_what_its_guests_may() -> None:
    m = machine()
    told(m, "arch_prctl", option=ARCH_REQ_XCOMP_PERM, value=18)
    assert told(m, "arch_prctl", option=ARCH_GET_XCOMP_PERM, value=0) == "0x602e7"
    assert told(m, "arch_prctl", option=ARCH_GET_XCOMP_GUEST_PERM, value=0) == "0x202e7"


def test_a_vcpu_locks_what_guests_may_have_and_what_is_granted_is_granted_again() -> None:
    m = machine()
    told(m, "arch_prctl", option=ARCH_REQ_XCOMP_GUEST_PERM, value=18)
    other = machine()
    for each in (m, other):
        each.step("kvm_create_vcpu", cpu=0, task=0)
    assert told(m, "arch_prctl", option=ARCH_REQ_XCOMP_GUEST_PERM, value=18) == "done"
    assert told(other, "arch_prctl", option=ARCH_REQ_XCOMP_GUEST_PERM, value=18) == "EBUSY"


def alone(m: Machine) -> Machine:
    """The slot of task 1 becomes free; task 0 is current again."""
    m.step("context_switch", cpu=0, task=0, other=1)
    m.step("exit", cpu=0, task=1)
    m.step("switch_from_idle", cpu=0, task=0)
    return m


def test_a_thread_with_a_shadow_stack_begins_on_one_of_its_own() -> None:
    m = machine()
    m.step("shstk_setup", cpu=0, task=0)
    assert alone(m).step("clone_shstk", cpu=0, task=0, other=1).findings == ()
    parent, child = (task.own.image.component(11) for task in m.world.tasks)
    assert parent[:8] == child[:8] != bytes(8)
    assert parent[8:] != child[8:]


def test_a_thread_without_a_shadow_stack_gets_none() -> None:
    with pytest.raises(NotPossible, match="it must have a shadow stack"):
        alone(machine()).step("clone_shstk", cpu=0, task=0, other=1)


# -- XCR0 and IA32_XSS of a guest -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (0x1, "done"),
        (0x7, "done"),
        (0x2E7, "done"),
        (0x0, "#GP"),
        (0x6, "#GP"),
        (0x5, "#GP"),
        (0x27, "#GP"),
        (0x60007, "#GP"),
        (0x8000000000000007, "#GP"),
    ],
)
def test_xsetbv_of_a_guest_follows_kvm_set_xcr(value: int, answer: str) -> None:
    m = in_kvm_run()
    assert told(m, "guest_xsetbv", value=value) == answer
    m.step("kvm_run_ends", cpu=0, task=0)
    assert told(m, "kvm_get_xcrs") == (f"{value:#x}" if answer == "done" else "0x1")


def test_tiles_in_xcr0_need_the_guests_cpuid() -> None:
    m = machine()
    told(m, "arch_prctl", option=ARCH_REQ_XCOMP_GUEST_PERM, value=18)
    m.step("kvm_create_vcpu", cpu=0, task=0)
    assert told(m, "kvm_set_xcrs", value=0x602E7) == "EINVAL"
    m.step("kvm_set_cpuid", cpu=0, task=0)
    assert told(m, "kvm_set_xcrs", value=0x602E7) == "done"


@pytest.mark.parametrize(("name", "answer"), [("linux-6.18", "done"), ("linux-6.17", "#GP")])
def test_ia32_xss_of_a_guest_has_what_kvm_offers(name: str, answer: str) -> None:
    assert told(in_kvm_run(name), "guest_wrmsr_xss", value=CET) == answer


def test_the_guest_runs_with_its_own_xcr0_and_xss_and_the_host_with_its_own() -> None:
    m = in_kvm_run()
    told(m, "guest_xsetbv", value=0x7)
    told(m, "guest_wrmsr_xss", value=CET)
    regs = m.world.cpus[0].regs
    host = regs.xcr0, regs.xss
    m.step("vm_entry", cpu=0, task=0)
    assert (regs.xcr0, regs.xss) == (0x7, CET)
    m.step("vm_exit", cpu=0, task=0)
    assert (regs.xcr0, regs.xss) == host


# -- SSP: SMM, ONE_REG, nested guests ---------------------------------------------------------------------------------


def with_ssp(assumptions: Assumptions | None = None) -> Machine:
    m = in_kvm_run(assumptions=assumptions)
    m.step("vm_entry", cpu=0, task=0)
    m.step("guest_sets_ssp", cpu=0, task=0, value=SSP)
    m.step("vm_exit", cpu=0, task=0)
    return m


def ssp(m: Machine) -> str:
    m.step("kvm_run_ends", cpu=0, task=0)
    return told(m, "kvm_get_one_reg_ssp")


def test_ssp_survives_smm_whatever_the_handler_does_with_it() -> None:
    m = with_ssp()
    told(m, "kvm_enter_smm")
    m.step("vm_entry", cpu=0, task=0)
    m.step("guest_sets_ssp", cpu=0, task=0, value=0x1000)
    m.step("vm_exit", cpu=0, task=0)
    told(m, "kvm_leave_smm")
    assert ssp(m) == f"{SSP:#x}"


def test_smm_in_smm_and_rsm_outside_it_are_not_possible() -> None:
    m = with_ssp()
    with pytest.raises(NotPossible, match="it must be in SMM"):
        m.step("kvm_leave_smm", cpu=0, task=0)
    told(m, "kvm_enter_smm")
    with pytest.raises(NotPossible, match="it must not be in SMM"):
        m.step("kvm_enter_smm", cpu=0, task=0)


@pytest.mark.parametrize(("value", "answer"), [(SSP, "done"), (SSP + 2, "EINVAL"), (1 << 47, "EINVAL"), (0, "done")])
def test_one_reg_takes_a_canonical_ssp_that_is_a_multiple_of_4(value: int, answer: str) -> None:
    m = machine()
    m.step("kvm_create_vcpu", cpu=0, task=0)
    assert told(m, "kvm_set_one_reg_ssp", value=value) == answer


def test_one_reg_knows_no_ssp_where_guests_have_no_shadow_stacks() -> None:
    m = machine("linux-6.17")
    m.step("kvm_create_vcpu", cpu=0, task=0)
    assert told(m, "kvm_get_one_reg_ssp") == "EINVAL"
    assert told(m, "kvm_set_one_reg_ssp", value=SSP) == "EINVAL"


def test_a_guest_has_its_ssp_back_when_its_own_guest_exits() -> None:
    m = with_ssp(Assumptions(nested=True))
    assert told(m, "nested_vm_entry", value=0x2001) == "VM-entry failure"
    assert told(m, "nested_vm_entry", value=0x2000) == "done"
    told(m, "nested_vm_exit")
    assert ssp(m) == f"{SSP:#x}"


def test_guests_run_no_guests_unless_that_is_assumed() -> None:
    with pytest.raises(NotPossible, match="no guest runs guests"):
        in_kvm_run().step("nested_vm_entry", cpu=0, task=0, value=0x2000)


# -- live migration ---------------------------------------------------------------------------------------------------


def migrate(name: str, assumptions: Assumptions | None = None, *, arm: bool = False) -> Machine:
    """The guest of task 0, on CPU 0, becomes that of task 1, on CPU 1."""
    m = machine(name, assumptions)
    m.step("request_guest_perm", cpu=0, task=0)
    for step in ("kvm_create_vcpu", "kvm_set_cpuid", "kvm_run", "vm_entry", "guest_writes", "vm_exit"):
        m.step(step, cpu=0, task=0)
    if arm:
        m.step("kvm_arms_xfd", cpu=0, task=0)
    m.step("kvm_run_ends", cpu=0, task=0)
    told(m, "vmm_saves")
    m.step("switch_from_idle", cpu=1, task=1)
    for step in ("request_guest_perm", "kvm_create_vcpu", "kvm_set_cpuid"):
        m.step(step, cpu=1, task=1)
    assert told(m, "vmm_restores", task=1, other=0) == "done"
    return m


@pytest.mark.parametrize("name", WITH_GUEST_CET)
@pytest.mark.parametrize("first", [True, False])
def test_a_guest_goes_on_elsewhere_with_every_register(name: str, first: bool) -> None:
    m = migrate(name, Assumptions(msrs_first=first))
    for step in ("kvm_run", "vm_entry"):
        assert m.step(step, cpu=1, task=1).findings == ()


def test_tiles_of_a_guest_with_xfd_armed_are_dropped_on_the_way() -> None:
    m = migrate("linux-6.18", arm=True)
    target = m.world.tasks[1].guest
    assert target is not None
    assert target.fpstate.xfd == 1 << 18
    assert target.fpstate.image.xstate_bv >> 18 & 1 == 0
    for step in ("kvm_run", "vm_entry"):
        assert m.step(step, cpu=1, task=1).findings == ()


def test_the_source_must_not_go_on_as_well() -> None:
    m = migrate("linux-6.18")
    m.step("kvm_run", cpu=0, task=0)
    assert {f.property for f in m.step("vm_entry", cpu=0, task=0).findings} == {"ISO-RUN"}


def test_a_vcpu_that_was_not_read_cannot_be_restored() -> None:
    m = machine()
    m.step("kvm_create_vcpu", cpu=0, task=0)
    with pytest.raises(NotPossible, match="nothing was read of the other vCPU"):
        m.step("vmm_restores", cpu=0, task=0, other=1)


# -- arguments --------------------------------------------------------------------------------------------------------


def test_a_number_has_64_bits() -> None:
    with pytest.raises(UsageError, match="value must be a number of 64 bits"):
        machine().step("arch_prctl", cpu=0, task=0, option=0x1021, value=1 << 64)


def test_a_step_is_told_nothing() -> None:
    assert machine().step("switch_to_idle", cpu=0, task=0).answer is None
