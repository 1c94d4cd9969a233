"""Tasks: ``arch/x86/kernel/process_64.c``, ``process.c``, and the entry code's way back to user mode."""

from __future__ import annotations

from fpstate.linux.kernel.regset import Regset
from fpstate.linux.kernel.state import FREE, KERNEL, NULL, USER, Cpu, Task

__all__ = ["Process"]


class Process(Regset):
    """Context switch, fork, exec, exit, and the return to user mode."""

    def switch_to(self, cpu: Cpu, prev: Task | None, succ: Task | None) -> None:
        """__switch_to(): *succ* replaces *prev*; None is the idle thread, which has no FPU state."""
        if prev is not None:
            self.switch_fpu(cpu, prev)
            self.pkru_save(cpu, prev)
            prev.on_cpu = 0
        cpu.curr = NULL
        if succ is not None:
            cpu.curr = succ.ref
            succ.on_cpu = 1
            self.switch_fpu_finish(succ)
            self.pkru_load(cpu, succ)

    def pkru_save(self, cpu: Cpu, prev: Task) -> None:
        """x86_pkru_load(), first half: what user space wrote is only in the register."""
        prev.pkru = self.hw.rdpkru(cpu)

    def pkru_load(self, cpu: Cpu, succ: Task) -> None:
        """x86_pkru_load(), second half."""
        self.hw.wrpkru(cpu, succ.pkru)

    def exit_to_user_mode(self, cpu: Cpu, task: Task) -> None:
        """arch_exit_to_user_mode_prepare()."""
        self.fpregs_assert_state_consistent(cpu, task)
        if task.need_fpu_load:
            self.switch_fpu_return(cpu, task)
        task.mode = USER

    def copy_thread(
        self, cpu: Cpu, parent: Task, child: Task, *, kernel_thread: bool = False, new_stack: bool = False
    ) -> None:
        """Fork or clone: *child*'s slot was free; a kernel thread gets no state, and runs a program by execve(2)."""
        child.pkru = self.hw.pkru_default if kernel_thread else self.hw.rdpkru(cpu)
        self.fpu_clone(cpu, parent, child, minimal=kernel_thread, new_stack=new_stack)
        child.lbr = self.hw.nothing
        child.shstk, child.sas_size = parent.shstk, parent.sas_size
        child.mode = KERNEL

    def flush_thread(self, cpu: Cpu, task: Task) -> None:
        """execve(2)."""
        task.shstk, task.sas_size = False, 0
        self.fpu_flush_thread(cpu, task)

    def exit_thread(self, cpu: Cpu, task: Task) -> None:
        """exit(2): the task leaves its CPU to the idle thread and its slot is free."""
        self.fpu_drop(cpu, task)
        task.on_cpu = 0
        cpu.curr = NULL
        task.mode = FREE

    def native_cpu_up(self, cpu: Cpu) -> None:
        """A CPU that was taken down comes up again; its idle thread is current."""
        self.hw.reset(cpu)
        self.cpu_disable_lazy_restore(cpu)
        self.fpu_init_cpu(cpu)

    # -- perf's LBR call stacks (arch/x86/events/intel/lbr.c) ------------------------------------------------------

    def lbr_sched_out(self, cpu: Cpu, task: Task) -> None:
        """intel_pmu_arch_lbr_xsaves()."""
        if self.sets.independent & ~self.sets.kvm_own:
            task.lbr = self.independent_xsaves(cpu, task.lbr, self.sets.independent & ~self.sets.kvm_own)

    def lbr_sched_in(self, cpu: Cpu, task: Task) -> None:
        """intel_pmu_arch_lbr_xrstors()."""
        if self.sets.independent & ~self.sets.kvm_own:
            self.independent_xrstors(cpu, task.lbr, self.sets.independent & ~self.sets.kvm_own)
