"""The scheduler's side of a context switch: ``kernel/sched/core.c``, with its notifiers."""

from __future__ import annotations

from fpstate.linux.kernel.kvm import Kvm
from fpstate.linux.kernel.state import Cpu, Task

__all__ = ["Sched"]


class Sched(Kvm):
    """What surrounds `switch_to`."""

    def context_switch(self, cpu: Cpu, prev: Task | None, succ: Task | None) -> None:
        """*succ* replaces *prev* on *cpu*; None is the idle thread."""
        if prev is not None:
            self.prepare_task_switch(cpu, prev)
        self.switch_to(cpu, prev, succ)
        if succ is not None:
            self.finish_task_switch(cpu, succ)

    def prepare_task_switch(self, cpu: Cpu, prev: Task) -> None:
        """perf_event_task_sched_out() and the preempt notifiers."""
        self.lbr_sched_out(cpu, prev)
        self.kvm_sched_out(cpu, prev)

    def finish_task_switch(self, cpu: Cpu, succ: Task) -> None:
        """perf_event_task_sched_in() and the preempt notifiers."""
        self.lbr_sched_in(cpu, succ)
        self.kvm_sched_in(cpu, succ)
