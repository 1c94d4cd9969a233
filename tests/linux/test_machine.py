"""The machine over bytes: what the kernel's functions do to registers and buffers, and what is held against them."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from fpstate import cpu_by_name, policy
from fpstate.errors import UsageError
from fpstate.isa import Capabilities, Memory, Processor, execute
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, user_abi
from fpstate.linux.kernel import Cpu, Kernel, Task
from fpstate.linux.machine import Event, Instruction, Machine, NotPossible
from fpstate.linux.machine.hardware import PKRU_DEFAULT
from fpstate.linux.machine.userspace import UserSpace
from fpstate.linux.machine.values import Ledger, Owner, component, put
from fpstate.linux.steps import Assumptions
from fpstate.xfeatures import AVX, LEGACY, PKRU, XTILEDATA, bits
from walks import walk

AMX = 1 << XTILEDATA
CET_S = 1 << 12


def machine(name: str = "linux-6.18", cpu: str = "sapphire-rapids", **options: Any) -> Machine:
    shape: dict[str, Any] = {"cpus": 2, "tasks": 3, "vcpus": 2}
    return Machine(cpu_by_name(cpu), policy(name), **(shape | options))


def take(m: Machine, *steps: str) -> Event:
    """Take steps written as ``name cpu task other``, and return what the last did."""
    event = None
    for step in steps:
        name, *numbers = step.split()
        kinds = ("task",) if name.startswith("ptrace") else ("cpu", "task", "other")
        event = m.step(name, **dict(zip(kinds, map(int, numbers), strict=False)))
    assert event is not None
    return event


def ran(event: Event, name: str) -> list[Instruction]:
    return [each for each in event.instructions if each.name.startswith(name)]


def registers(m: Machine, cpu: int, bit: int) -> bytes:
    return bytes(component(m.world.cpus[cpu].regs, bit))


RUNNING = ("switch_from_idle 0 0", "exit_to_user_mode 0 0")
IN_GUEST = ("switch_from_idle 0 0", "kvm_create_vcpu 0 0", "kvm_run 0 0", "vm_entry 0 0")
TILES = (
    "switch_from_idle 0 0",
    "request_perm 0 0",
    "exit_to_user_mode 0 0",
    "user_uses_dynamic 0 0",
    "handle_xfd_event 0 0",
    "exit_to_user_mode 0 0",
)


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sapphire-rapids", "zen4", "skylake", "diamond-rapids"])
def test_a_value_says_which_write_it_is_of(name: str) -> None:
    ledger = Ledger(Capabilities(cpu_by_name(name)), PKRU_DEFAULT.to_bytes(4, "little"))
    owner = Owner("somebody")
    everything = (1 << 63) - 1
    number = [ledger.fresh(owner, everything) for _ in range(300)][-1]
    for bit in ledger.bits(everything):
        origin = ledger.origin(bit, ledger.value(bit, number))
        assert (origin.kind, origin.owner, origin.number) == ("written", owner, number)


def test_a_value_of_two_writes_is_torn() -> None:
    ledger = Ledger(Capabilities(cpu_by_name("zen4")), bytes(4))
    first, second = (ledger.value(2, ledger.fresh(Owner("a"), AVX)) for _ in range(2))
    assert ledger.origin(2, first[:128] + second[128:]).kind == "torn"


def test_a_value_of_a_component_that_was_not_in_the_write_is_nobodys() -> None:
    ledger = Ledger(Capabilities(cpu_by_name("zen4")), bytes(4))
    number = ledger.fresh(Owner("a"), LEGACY)
    assert ledger.origin(2, ledger.value(2, number)).kind == "torn"


@pytest.mark.parametrize("name", ["sapphire-rapids", "zen4"])
def test_every_value_goes_through_a_save_and_a_restore_unchanged(name: str) -> None:
    m = machine(cpu=name)
    p, ledger = m.hw.processor(), m.hw.ledger
    mask = p.enabled & ~m.sets.initial_xfd
    number = ledger.fresh(Owner("a"), mask)
    for bit in ledger.bits(mask):
        put(p, bit, ledger.value(bit, number))
    p.touch(mask)
    memory = Memory(bytearray(16384), 1 << 20)
    execute(p, "xsaves64", memory, 1 << 20, mask)
    other = Processor(p.caps)
    other.xcr0, other.xss = p.xcr0, p.xss
    execute(other, "xrstors64", memory, 1 << 20, mask)
    assert [component(other, bit) for bit in bits(mask)] == [component(p, bit) for bit in bits(mask)]


# -- saving and restoring ---------------------------------------------------------------------------------------------


def test_a_context_switch_saves_what_the_fpstate_has_room_for() -> None:
    m = machine()
    event = take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0", "context_switch 0 0 1")
    (save,) = [each for each in ran(event, "XSAVES") if each.operand == "task 0"]
    assert save.rfbm == m.config.save_rfbm
    assert m.world.tasks[0].own.image.component(2) == registers(m, 0, 2)


def test_a_save_that_follows_its_restore_leaves_out_what_was_not_modified() -> None:
    m = machine()
    event = take(m, *RUNNING, "enter_kernel 0 0", "context_switch 0 0 1")
    (save,) = [each for each in ran(event, "XSAVES") if each.operand == "task 0"]
    assert save.moved < sum(len(m.hw.ledger.initial[bit]) for bit in bits(m.config.save_rfbm))


def test_loading_a_task_initialises_what_its_fpstate_has_no_room_for() -> None:
    m = machine()
    event = take(m, *IN_GUEST, "guest_writes 0 0", "vm_exit 0 0", "context_switch 0 0 2", "exit_to_user_mode 0 2")
    (load,) = [each for each in ran(event, "XRSTORS") if each.operand == "task 2"]
    assert load.initialised & CET_S
    assert registers(m, 0, 12) == bytes(24)


def test_a_design_that_leaves_guest_only_state_resident_leaves_it_in_the_registers() -> None:
    m = machine("resident")
    take(m, *IN_GUEST, "guest_writes 0 0", "vm_exit 0 0", "context_switch 0 0 2", "exit_to_user_mode 0 2")
    assert registers(m, 0, 12) != bytes(24)


def test_a_task_that_comes_back_finds_its_registers_and_loads_nothing() -> None:
    m = machine()
    take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0", "context_switch 0 0 1", "context_switch 0 1 0")
    event = take(m, "exit_to_user_mode 0 0")
    assert event.instructions == ()
    assert event.findings == ()


def test_a_task_that_migrates_loads_what_it_saved() -> None:
    m = machine()
    take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0")
    written = registers(m, 0, 7)
    event = take(m, "switch_to_idle 0 0", "switch_from_idle 1 0", "exit_to_user_mode 1 0")
    assert registers(m, 1, 7) == written
    assert event.findings == ()


def test_without_xsaves_the_images_are_in_standard_format() -> None:
    m = machine(cpu="haswell")
    event = take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0", "switch_to_idle 0 0")
    assert [each.name for each in event.instructions] == ["XSAVEOPT64"]
    assert m.world.tasks[0].own.image.xcomp_bv == 0


def test_kernel_code_overwrites_the_vector_registers_and_nothing_else() -> None:
    m = machine()
    take(m, *RUNNING, "user_writes 0 0")
    before = {bit: registers(m, 0, bit) for bit in (2, 9, 11)}
    take(m, "enter_kernel 0 0", "kernel_fpu_begin 0 0")
    assert {bit for bit, data in before.items() if registers(m, 0, bit) != data} == {2}


def test_a_cpu_that_comes_up_again_has_nothing_of_before_in_its_registers() -> None:
    m = machine()
    take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0", "switch_to_idle 0 0", "cpu_down_up 0")
    assert [whose for whose, _ in m.state().cpus[0].registers] == ["initial"]
    assert m.world.cpus[0].regs.xfd == m.sets.initial_xfd


# -- dynamic components -----------------------------------------------------------------------------------------------


def test_first_use_of_tiles_makes_the_image_larger_and_disarms_xfd() -> None:
    m = machine()
    take(m, *TILES)
    assert m.world.tasks[0].own.size == 10752
    assert m.world.cpus[0].regs.xfd == 0


def test_first_use_without_permission_changes_nothing() -> None:
    m = machine()
    take(m, *RUNNING, "user_uses_dynamic 0 0", "handle_xfd_event 0 0")
    assert m.world.tasks[0].own.size == m.config.kernel.default_size
    assert m.world.cpus[0].regs.xfd == AMX


def test_under_xfd_a_program_changes_everything_but_tiles() -> None:
    m = machine()
    take(m, *RUNNING, "user_writes 0 0")
    assert registers(m, 0, XTILEDATA) == bytes(8192)
    assert registers(m, 0, 17) != bytes(64)


# -- guests -----------------------------------------------------------------------------------------------------------


def test_in_a_guest_the_processor_has_the_guests_xcr0() -> None:
    m = machine()
    take(m, *IN_GUEST)
    assert m.hw.enabled(m.world.cpus[0]) == 1


def test_a_guest_that_migrates_finds_what_it_wrote() -> None:
    m = machine()
    take(m, *IN_GUEST, "guest_writes 0 0")
    written = registers(m, 0, 12)
    event = take(m, "vm_exit 0 0", "switch_to_idle 0 0", "switch_from_idle 1 0", "vm_entry 1 0")
    assert registers(m, 1, 12) == written != bytes(24)
    assert event.findings == ()


def test_a_design_of_raw_msrs_moves_three_msrs_each_way() -> None:
    m = machine("raw-msr")
    event = take(m, *IN_GUEST, "guest_writes 0 0", "vm_exit 0 0", "kvm_run_ends 0 0")
    assert [each.operand for each in ran(event, "RDMSR")] == ["0x6a4", "0x6a5", "0x6a6"]
    assert [each.after for each in ran(event, "WRMSR")][-3:] == [0, 0, 0]


def test_an_independent_design_saves_the_component_to_a_buffer_of_its_own() -> None:
    m = machine("independent")
    event = take(m, *IN_GUEST, "guest_writes 0 0", "vm_exit 0 0", "switch_to_idle 0 0")
    assert CET_S in [each.rfbm for each in ran(event, "XSAVES") if each.operand == "independent buffer"]


def test_a_guest_buffer_sized_by_the_user_image_is_too_small_on_zen_4() -> None:
    event = take(machine("linux-6.7", "zen4"), *IN_GUEST, "vm_exit 0 0", "kvm_run_ends 0 0")
    assert [finding.property for finding in event.findings] == ["P3"]


def test_on_sapphire_rapids_it_is_large_enough() -> None:
    event = take(machine("linux-6.7"), *IN_GUEST, "vm_exit 0 0", "kvm_run_ends 0 0")
    assert event.findings == ()


MIGRATION = (
    "switch_from_idle 0 0",
    "request_guest_perm 0 0",
    "kvm_create_vcpu 0 0",
    "kvm_set_cpuid 0 0",
    "kvm_set_msrs_xfd 0 0",
    "kvm_set_xsave 0 0",
    "kvm_run 0 0",
)


def test_before_january_2026_tile_data_under_xfd_made_the_host_fault() -> None:
    event = take(machine("linux-6.16"), *MIGRATION)
    assert [finding.property for finding in event.findings] == ["FAULT: xfd"]


def test_since_then_it_is_dropped() -> None:
    m = machine("linux-6.18")
    assert take(m, *MIGRATION).findings == ()
    assert registers(m, 0, XTILEDATA) == bytes(8192)


# -- user images ------------------------------------------------------------------------------------------------------


def test_a_signal_frame_says_what_it_holds() -> None:
    m = machine()
    take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0")
    frame = m.hw.xsave_to_user(m.world.cpus[0], m.world.tasks[0].own)
    assert int.from_bytes(frame.data[464:468], "little") == FP_XSTATE_MAGIC1
    assert frame.xstate_bv == m.config.user.default_features
    assert frame.data[m.config.user.default_size :] == FP_XSTATE_MAGIC2.to_bytes(4, "little")


def test_the_handler_starts_with_initial_registers() -> None:
    m = machine()
    take(
        m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0", "copy_fpstate_to_sigframe 0 0", "fpu_clear_user_states 0 0"
    )
    assert registers(m, 0, 2) == bytes(256)
    assert m.hw.rdpkru(m.world.cpus[0]) == PKRU_DEFAULT


def test_a_frame_without_its_magic_brings_x87_and_sse_and_initialises_the_rest() -> None:
    m = machine()
    event = take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0", "sigreturn_fx_only 0 0", "exit_to_user_mode 0 0")
    assert event.findings == ()
    assert registers(m, 0, 1) != bytes(256)
    assert registers(m, 0, 2) == bytes(256)
    assert registers(m, 0, PKRU) == bytes(4)


def test_with_strict_sas_size_every_alternate_stack_must_hold_a_frame() -> None:
    m = machine(cmdline="strict_sas_sizeon")
    smallest = user_abi(m.config).altstack_min
    calls = UserSpace(m)
    assert smallest > 2048
    assert calls.sigaltstack(0, smallest - 1) == errno.ENOMEM
    assert calls.sigaltstack(0, smallest) == 0


def test_an_alternate_stack_is_inherited_and_goes_with_exec() -> None:
    m = machine()
    assert UserSpace(m).sigaltstack(0, 4096) == 0
    take(m, "switch_from_idle 1 2", "exit 1 2", "switch_from_idle 0 0", "fork 0 0 2", "exec 0 0")
    assert [m.world.tasks[n].sas_size for n in (0, 2)] == [0, 4096]


def test_a_debugger_cannot_change_supervisor_components() -> None:
    m = machine()
    take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0", "switch_to_idle 0 0")
    before = bytes(m.world.tasks[0].own.image.component(11))
    take(m, "ptrace_setregset 0")
    assert m.world.tasks[0].own.image.component(11) == before


def test_what_a_debugger_writes_is_what_runs() -> None:
    m = machine()
    take(m, "ptrace_setregset 0")
    assert take(m, *RUNNING).findings == ()
    assert registers(m, 0, 2) != bytes(256)


def test_a_regset_shows_pkru_only_where_xstate_bv_has_it() -> None:
    # copy_xstate_to_uabi_buf() replaces the value, not the bit: after exec the image is empty, and PKRU is not 0.
    m = machine()
    event = take(m, *RUNNING, "enter_kernel 0 0", "exec 0 0", "switch_to_idle 0 0", "ptrace_getregset 0")
    (finding,) = event.findings
    assert (finding.property, finding.components) == ("INT-BUF", 1 << PKRU)


def test_a_child_gets_the_registers_of_its_parent_but_tiles() -> None:
    m = machine()
    take(m, *TILES, "user_writes 0 0", "enter_kernel 0 0")
    take(m, "switch_to_idle 0 0", "switch_from_idle 1 2", "exit 1 2", "switch_from_idle 0 0")
    event = take(m, "fork 0 0 2")
    image = m.world.tasks[2].own.image
    assert event.findings == ()
    assert image.component(2) is not None
    assert image.component(XTILEDATA) is None


# -- findings ---------------------------------------------------------------------------------------------------------


def test_a_fault_that_nothing_catches_is_a_finding() -> None:
    m = machine()
    m.world.tasks[0].own.image.xstate_bv = 1 << 40
    event = take(m, "switch_from_idle 0 0", "sigreturn 0 0")
    assert [finding.property for finding in event.findings] == ["FAULT: xstate-bv"]


class HandsInTooMuch(Kernel):
    """A debugger's image goes to a task that has no room for tiles."""

    def xstateregs_set(self, task: Task, image: Any) -> None:
        image.xstate_bv |= AMX
        super().xstateregs_set(task, image)


def test_an_image_that_the_kernel_refuses_is_a_finding() -> None:
    event = take(machine(kernel=HandsInTooMuch), "ptrace_setregset 0")
    assert [finding.property for finding in event.findings] == ["REFUSED: ptrace-features"]


class ForgetsTheOwner(Kernel):
    """kernel_fpu_begin() leaves the registers to whom they were."""

    def cpu_invalidate_fpregs_state(self, cpu: Cpu) -> None:
        pass


class ForgetsToSave(Kernel):
    """switch_fpu() saves nothing."""

    def switch_fpu(self, cpu: Cpu, prev: Task) -> None:
        prev.need_fpu_load = 1
        prev.last_cpu = cpu.ref


SOFTIRQ = ("kernel_fpu_begin 0 0", "kernel_fpu_end 0", "exit_to_user_mode 0 0")


def test_registers_of_the_kernel_in_user_mode_break_isolation() -> None:
    m = machine(kernel=ForgetsTheOwner)
    event = take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0", *SOFTIRQ)
    (finding,) = event.findings
    assert finding.property == "ISO-RUN"
    assert "the kernel" in finding.text


def test_an_older_value_of_its_own_breaks_integrity() -> None:
    m = machine(kernel=ForgetsToSave)
    take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0", "switch_to_idle 0 0")
    event = take(m, "switch_from_idle 1 0", "exit_to_user_mode 1 0")
    assert {finding.property for finding in event.findings} == {"INT-RUN"}


def test_what_a_task_leaves_behind_is_nobodys_once_it_is_gone() -> None:
    m = machine()
    take(m, *RUNNING, "user_writes 0 0", "enter_kernel 0 0", "exit 0 0")
    assert m.state().cpus[0].registers[0][0] == "task 0 (gone)"


def test_another_tasks_tiles_can_be_read_after_a_sigreturn() -> None:
    m = machine()
    take(m, *TILES, "user_writes 0 0", "enter_kernel 0 0", "context_switch 0 0 1", "request_perm 0 1")
    take(m, "sigreturn 0 1", "exit_to_user_mode 0 1", "user_uses_dynamic 0 1", "handle_xfd_event 0 1")
    (finding,) = take(m, "exit_to_user_mode 0 1").findings
    assert (finding.property, finding.components, finding.context) == ("ISO-RUN", AMX, "task 1")


def test_guest_only_state_is_not_for_a_host_with_supervisor_shadow_stacks() -> None:
    m = machine(assumptions=Assumptions(host_sss=True))
    take(m, "switch_from_idle 0 0", "host_sss_setup 0 0", "switch_to_idle 0 0", "switch_from_idle 1 0")
    event = take(m, "exit_to_user_mode 1 0")
    assert [(f.property, f.components) for f in event.findings] == [("INT-RUN", CET_S)]


@pytest.mark.parametrize(
    "name", ["repaired", "linux-6.18", "default-on", "independent", "raw-msr", "resident", "cet-v8"]
)
@pytest.mark.parametrize("cpu", ["zen4", "haswell"])
def test_without_tiles_nothing_is_ever_wrong_but_pkru_in_images(name: str, cpu: str) -> None:
    found = [f for _, _, fs in walk(machine(name, cpu, record=False), 1, 1500) for f in fs]
    assert {(f.property, f.components) for f in found} <= {("INT-BUF", 1 << PKRU)}


def test_with_tiles_nothing_is_wrong_under_the_repaired_kernel() -> None:
    found = [f for _, _, fs in walk(machine("repaired", record=False), 2, 6000) for f in fs]
    assert {(f.property, f.components) for f in found} <= {("INT-BUF", 1 << PKRU)}


# -- the interface ----------------------------------------------------------------------------------------------------


def test_a_step_that_is_not_possible_changes_nothing_and_says_why() -> None:
    m = machine()
    before = m.state()
    with pytest.raises(NotPossible, match=r"vm_entry is not possible: it must be the current task of that CPU"):
        m.step("vm_entry", cpu=0, task=0)
    assert m.state() == before
    assert m.events == []


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("vm_enter", {}, "there is no step 'vm_enter'"),
        ("vm_entry", {"cpu": 0}, "vm_entry lacks 'task'"),
        ("kernel_fpu_end", {"cpu": 0, "task": 1}, "unknown parameter 'task'; kernel_fpu_end takes cpu"),
        ("vm_entry", {"cpu": 2, "task": 0}, "cpu must be the number of a cpu, 0 to 1"),
        ("fork", {"cpu": 0, "task": 1, "other": 1}, "other must be another task"),
    ],
)
def test_a_step_that_cannot_be_meant_is_refused(name: str, params: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        machine().step(name, **params)


@pytest.mark.parametrize("shape", [{"cpus": 0}, {"tasks": 65}, {"vcpus": 4}])
def test_a_machine_has_a_shape(shape: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        machine(**shape)


def test_a_cpu_without_xsave_is_refused() -> None:
    with pytest.raises(UsageError, match="does not use XSAVE"):
        machine(cpu="core2")


def test_without_recording_a_step_says_findings_alone() -> None:
    m = machine(record=False)
    event = m.step("switch_from_idle", cpu=0, task=0)
    assert (event.instructions, event.traces, event.state, m.events) == ((), (), None, [])


def test_tracepoints_are_spelt_as_the_kernel_spells_them() -> None:
    event = take(machine(), *RUNNING)
    line = "x86_fpu_regs_activated: x86/fpu: task0 load: 1 xfeatures: 0 xcomp_bv: 8000000000020ee7"
    assert [str(trace) for trace in event.traces] == [line]


def test_a_record_says_whose_values_every_buffer_holds() -> None:
    m = machine()
    take(m, *IN_GUEST, "guest_writes 0 0", "vm_exit 0 0", "switch_to_idle 0 0")
    held = {buffer.name: dict(buffer.holds) for buffer in m.state().buffers}
    assert held["guest 0"]["guest 0"] & CET_S
    assert "guest 0" not in held["task 0"]


def test_a_guest_image_has_its_own_size_in_a_buffer_that_has_room_to_spare() -> None:
    sized_by_the_user_format = replace(policy("linux-6.18"), guest_allocation="user-default")
    m = Machine(cpu_by_name("sapphire-rapids"), sized_by_the_user_format)
    assert m.hw.size(m.sets.guest_default) == m.config.guest.size < m.config.guest.allocated
