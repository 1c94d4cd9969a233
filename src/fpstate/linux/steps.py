"""What can happen to the machine: user instructions, kernel entries, and what the kernel may do, one step each.

A step is taken at once: user code between two events, or one region that the kernel protects (fpregs_lock(), or
interrupts off).  Between any two steps a CPU may switch tasks or be used by the kernel, and the other CPUs may do
anything: that is preemption at nearly every point where the kernel allows it.  `exec_`,
`sigreturn_ia32`, `sigreturn_refused` and KVM's ioctls hold several regions, and are not left in between.

A step's docstring says what happens, its parameters which CPU and tasks take part.  It begins with what must hold for
it to be possible; the rest is a call of the kernel, what the specification learns, and what the step must have come to
(`World.ensures`): a kernel that does nothing leaks nothing.
"""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fpstate.linux.kernel import FREE, GUEST, KERNEL, NULL, USER, Cpu, Fpstate, Guest, Kernel, Specification, Task
from fpstate.linux.kernel.sets import GUEST_PERM_LOCKED
from fpstate.xfeatures import AVX, LEGACY, SSE, XTILEDATA

__all__ = ["STEPS", "Assumptions", "Spec", "Step", "World", "step_of"]


class Spec(Specification, Protocol):
    """What a run is held against: who wrote what last, and who may see what.  *who* is a `Task` or a `Guest`."""

    def needs(self, condition: Any, why: str) -> None:
        """The step is possible only if *condition* holds; *why* says so in words."""

    def ensures(self, name: str, condition: Any) -> None:
        """A property: after the step *condition* must hold.  If it does not, things take their course all the same."""

    def writes(self, cpu: Cpu, who: Task | Guest, mask: int) -> None:
        """Registers of *mask* change by instructions of *who*, or on its behalf: they are its newest state now."""

    def initialises(self, cpu: Cpu, who: Task | Guest, mask: int) -> None:
        """*who* puts registers of *mask* into their initial configuration (VZEROALL, TILERELEASE, XRSTOR with 0)."""

    def runs(self, cpu: Cpu, who: Task | Guest) -> None:
        """*who* runs with the registers as they are: they must hold its newest state."""

    def shows(self, image: Any, who: Task | Guest) -> None:
        """A user image of *who* is readable: it must hold the newest state of *who*, or initial values."""

    def makes_image(self, who: Task | Guest, mask: int) -> Any:
        """User space makes an image with components of *mask* for *who*: its newest state, once it is accepted."""

    def makes_initial_image(self, who: Task | Guest, mask: int) -> Any:
        """User space makes an image with nothing in it for *who*."""

    def forgets(self, who: Task | Guest, mask: int) -> None:
        """By the ABI, *mask* of *who* becomes initial; PKRU what the kernel starts programs with."""

    def disowns(self, who: Task | Guest, mask: int) -> None:
        """By the ABI, *mask* of *who* may become initial at any time."""

    def uses(self, who: Task, mask: int) -> Any:
        """Whether *mask* of *who* is in use by the ABI."""

    def is_initial(self, who: Task | Guest, mask: int) -> Any:
        """Whether *mask* of *who* is initial by the ABI."""

    def starts(self, who: Task | Guest) -> None:
        """*who* begins with everything in its initial configuration."""

    def ends(self, who: Task | Guest) -> None:
        """*who* is no more: what is left of its values anywhere is nobody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What is taken for granted about the kernel and its users; a verdict names those that it needs.

    Attributes:
        host_sss: the host uses supervisor shadow stacks itself, so that returning to user mode takes PL0_SSP as it is.
        fred: FRED is on, without which Linux cannot have them.
        softirq_fpu: the kernel uses vector registers in softirqs, so at any moment in kernel mode.
        nested: guests run guests, whose IA32_XSS differs from what their hypervisor runs with.
        msrs_first: user space restores a vCPU's MSRs before its XSAVE image.
    """

    host_sss: bool = False
    fred: bool = True
    softirq_fpu: bool = True
    nested: bool = False
    msrs_first: bool = True


@dataclass(slots=True, kw_only=True)
class World:
    """CPUs, tasks and vCPUs under one kernel.

    Attributes:
        kernel, cpus, tasks: they.
        spec: what a run is held against.
        assumptions: what is taken for granted.
        streams: what was read of vCPUs for live migration, by the number of the task.
    """

    kernel: Kernel
    cpus: list[Cpu]
    tasks: list[Task]
    spec: Spec
    assumptions: Assumptions
    streams: dict[int, Any] = field(default_factory=dict)

    def in_user_mode(self, cpu: Cpu, task: Task) -> None:
        """Need *task* to run in user mode on *cpu*."""
        self.spec.needs(cpu.curr == task.ref, "it must be the current task of that CPU")
        self.spec.needs(task.mode == USER, "it must be in user mode")

    def in_kernel(self, cpu: Cpu, task: Task) -> None:
        """Need *task* to be in the kernel on *cpu*, where it may be preempted."""
        self.spec.needs(cpu.curr == task.ref, "it must be the current task of that CPU")
        self.spec.needs(task.mode == KERNEL, "it must be in the kernel")
        self.spec.needs(cpu.in_kernel_fpu == 0, "the kernel is using the FPU: preemption is off")

    def in_syscall(self, cpu: Cpu, task: Task) -> None:
        """Need *task* to be in the kernel for itself, not within KVM_RUN."""
        self.in_kernel(cpu, task)
        self.spec.needs(task.plugged == 0, "it is within KVM_RUN")
        if task.guest is not None:
            self.spec.needs(task.guest.loaded == 0, "it is within KVM_RUN")

    def in_kvm_run(self, cpu: Cpu, task: Task) -> Guest:
        """Need *task* to be in the kernel within KVM_RUN."""
        self.in_kernel(cpu, task)
        guest = self.vcpu(task)
        self.spec.needs(task.plugged == 1, "it must be within KVM_RUN")
        return guest

    def in_guest(self, cpu: Cpu, task: Task) -> Guest:
        """Need the guest of *task* to run on *cpu*."""
        self.spec.needs(cpu.curr == task.ref, "it must be the current task of that CPU")
        guest = self.vcpu(task)
        self.spec.needs(task.mode == GUEST, "its guest must be running")
        return guest

    def has_no_vcpu(self, task: Task) -> Any:
        """Tell whether *task* has no vCPU."""
        return task.guest is None or task.guest.exists == 0

    def vcpu(self, task: Task) -> Guest:
        """Need *task* to have a vCPU."""
        guest = task.guest
        self.spec.needs(guest is not None and guest.exists == 1, "it must have a vCPU")
        assert guest is not None  # noqa: S101  for the type checker: needs() does not return otherwise
        return guest

    def stopped(self, task: Task) -> None:
        """Need *task* to be stopped: in the kernel, on no CPU."""
        self.spec.needs(task.mode == KERNEL, "it must be stopped in the kernel")
        self.spec.needs(task.on_cpu == 0, "it must be on no CPU")
        self.spec.needs(task.plugged == 0, "it is within KVM_RUN")

    def idle(self, cpu: Cpu) -> None:
        """Need *cpu* to be idle."""
        self.spec.needs(cpu.curr == NULL, "the CPU must be idle")
        self.spec.needs(cpu.in_kernel_fpu == 0, "the kernel is using the FPU")

    def ensures(self, condition: Any) -> None:
        """After the step *condition* holds: that is what the step is for."""
        self.spec.ensures("STEP", condition)

    def switched(self, cpu: Cpu, prev: Task | None, succ: Task | None) -> None:
        """After the step *succ* is on *cpu* in place of *prev*; None is the idle thread."""
        self.ensures(cpu.curr == (NULL if succ is None else succ.ref))
        if prev is not None:
            self.ensures(prev.on_cpu == 0)
        if succ is not None:
            self.ensures(succ.on_cpu == 1)

    def sized(self, fpstate: Fpstate) -> None:
        """After the step the sizes of *fpstate* are those of its components."""
        hw = self.kernel.hw
        self.spec.ensures("P4", fpstate.size == hw.size(fpstate.xfeatures))
        self.spec.ensures("P4", fpstate.user_size == hw.user_size(fpstate.user_xfeatures))

    def grown(self, fpstate: Fpstate, error: int | None) -> None:
        """After the step *fpstate* has the dynamic components, and user space sees them, unless *error* says no."""
        dynamic = self.kernel.sets.dynamic
        if error == 0:
            self.ensures(fpstate.xfeatures & fpstate.user_xfeatures & dynamic == dynamic)
            self.spec.ensures("P4", fpstate.user_size == self.kernel.hw.user_size(fpstate.user_xfeatures))


# -- user mode --------------------------------------------------------------------------------------------------------


def user_writes(w: World, cpu: Cpu, task: Task) -> None:
    """A program writes its registers."""
    w.in_user_mode(cpu, task)
    mask = w.kernel.sets.user_writable & ~cpu.xfd
    w.spec.needs(mask != 0, "XFD is armed: it would raise #NM")
    w.spec.writes(cpu, task, mask)


def user_initialises(w: World, cpu: Cpu, task: Task) -> None:
    """A program puts its registers into their initial configuration."""
    w.in_user_mode(cpu, task)
    mask = w.kernel.sets.user_writable & ~cpu.xfd
    w.spec.needs(mask != 0, "XFD is armed: it would raise #NM")
    w.spec.initialises(cpu, task, mask)


def user_uses_dynamic(w: World, cpu: Cpu, task: Task) -> None:
    """A program uses a dynamic component that XFD disables: #NM, after which interrupts are on."""
    w.in_user_mode(cpu, task)
    w.spec.needs(cpu.xfd & w.kernel.sets.dynamic != 0, "XFD must be armed")
    task.mode = KERNEL


def handle_xfd_event(w: World, cpu: Cpu, task: Task) -> None:
    """The rest of #NM by XFD: a larger fpstate, or a signal if the process has no permission."""
    w.in_syscall(cpu, task)
    dynamic = w.kernel.sets.dynamic
    if dynamic:
        w.spec.needs(task.own.xfeatures & dynamic == 0, "it has the component already")
        error = w.kernel.handle_xfd_event(cpu, task, dynamic)
        w.ensures((error == 0) == (task.state_perm & dynamic == dynamic))
        w.grown(task.own, error)
    else:  # the component is not looked at, but what its arrival does to the others is
        w.spec.needs(w.kernel.sets.projected, "the CPU must have AMX")
        w.kernel.fpstate_realloc(cpu, task, 0, task.own.size, guest=False)


def enter_kernel(w: World, cpu: Cpu, task: Task) -> None:
    """A system call, an exception, or an interrupt after which the kernel may reschedule."""
    w.in_user_mode(cpu, task)
    task.mode = KERNEL


def exit_to_user_mode(w: World, cpu: Cpu, task: Task) -> None:
    """The kernel returns to user mode."""
    w.in_syscall(cpu, task)
    w.kernel.exit_to_user_mode(cpu, task)
    w.ensures(task.mode == USER)
    w.spec.runs(cpu, task)


# -- the scheduler, interrupts, CPUs ----------------------------------------------------------------------------------


def context_switch(w: World, cpu: Cpu, task: Task, other: Task) -> None:
    """The CPU switches from one task to another."""
    w.in_kernel(cpu, task)
    w.spec.needs(other.mode == KERNEL, "it must be in the kernel, ready to run")
    w.spec.needs(other.on_cpu == 0, "it must be on no CPU")
    w.kernel.context_switch(cpu, task, other)
    w.switched(cpu, task, other)


def switch_to_idle(w: World, cpu: Cpu, task: Task) -> None:
    """The task blocks, and nothing else is ready."""
    w.in_kernel(cpu, task)
    w.kernel.context_switch(cpu, task, None)
    w.switched(cpu, task, None)


def switch_from_idle(w: World, cpu: Cpu, task: Task) -> None:
    """A task runs on an idle CPU."""
    w.idle(cpu)
    w.spec.needs(task.mode == KERNEL, "it must be in the kernel, ready to run")
    w.spec.needs(task.on_cpu == 0, "it must be on no CPU")
    w.kernel.context_switch(cpu, None, task)
    w.switched(cpu, None, task)


def kernel_fpu_begin(w: World, cpu: Cpu, task: Task) -> None:
    """The kernel takes the registers, in a system call or a softirq, and overwrites them."""
    w.spec.needs(w.assumptions.softirq_fpu, "the kernel uses no FPU in softirqs")
    w.spec.needs(cpu.curr == task.ref, "it must be the current task of that CPU")
    w.spec.needs(task.mode == KERNEL, "it must be in the kernel")
    w.spec.needs(w.kernel.irq_fpu_usable(cpu), "the kernel is using the FPU already")
    w.kernel.kernel_fpu_begin(cpu, task)
    w.ensures(cpu.in_kernel_fpu == 1)
    w.kernel.hw.kernel_code(cpu)


def kernel_fpu_begin_idle(w: World, cpu: Cpu) -> None:
    """The same on an idle CPU."""
    w.spec.needs(w.assumptions.softirq_fpu, "the kernel uses no FPU in softirqs")
    w.idle(cpu)
    w.kernel.kernel_fpu_begin(cpu, None)
    w.ensures(cpu.in_kernel_fpu == 1)
    w.kernel.hw.kernel_code(cpu)


def kernel_fpu_end(w: World, cpu: Cpu) -> None:
    """The kernel gives the registers back."""
    w.spec.needs(cpu.in_kernel_fpu == 1, "the kernel is not using the FPU")
    w.kernel.kernel_fpu_end(cpu)
    w.ensures(cpu.in_kernel_fpu == 0)


def fpu_idle_fpregs(w: World, cpu: Cpu) -> None:
    """The idle driver releases tiles before a deep C-state."""
    w.idle(cpu)
    w.spec.needs(w.kernel.sets.dynamic != 0 or w.kernel.sets.projected, "the CPU must have AMX")
    w.kernel.fpu_idle_fpregs(cpu)


def cpu_down_up(w: World, cpu: Cpu) -> None:
    """A CPU is taken down and comes up again."""
    w.idle(cpu)
    w.kernel.native_cpu_up(cpu)


# -- processes --------------------------------------------------------------------------------------------------------


def fork(w: World, cpu: Cpu, task: Task, other: Task) -> None:
    """A task makes another: its slot was free."""
    w.in_syscall(cpu, task)
    w.spec.needs(other.mode == FREE, "the child's slot must be free")
    w.kernel.copy_thread(cpu, task, other)
    _is_born(w, task, other)


def _is_born(w: World, task: Task, child: Task) -> None:
    """Ensure that *child* is ready to run, with the permissions of its parent."""
    w.ensures(child.mode == KERNEL)
    w.sized(child.own)
    if w.kernel.sets.dynamic:  # else there are no permissions but those of boot
        w.ensures((child.state_perm == task.state_perm) & (child.state_size == task.state_size))
        w.ensures((child.guest_perm == task.guest_perm) & (child.guest_size == task.guest_size))


def clone_shstk(w: World, cpu: Cpu, task: Task, other: Task) -> None:
    """clone(2) by a task with a shadow stack: the child gets a shadow stack of its own."""
    w.in_syscall(cpu, task)
    w.spec.needs(w.kernel.sets.cet_user != 0 or w.kernel.sets.projected, "the kernel must manage CET_U")
    w.spec.needs(other.mode == FREE, "the child's slot must be free")
    w.spec.needs(w.spec.uses(task, w.kernel.sets.cet_user), "it must have a shadow stack")
    w.kernel.copy_thread(cpu, task, other, new_stack=w.kernel.sets.cet_user != 0)
    _is_born(w, task, other)


def fork_kernel_thread(w: World, cpu: Cpu, task: Task, other: Task) -> None:
    """The kernel makes a thread of its own, whose way to user mode is execve(2)."""
    w.in_syscall(cpu, task)
    w.spec.needs(other.mode == FREE, "the thread's slot must be free")
    w.kernel.copy_thread(cpu, task, other, kernel_thread=True)
    w.spec.starts(other)
    w.ensures(other.mode == KERNEL)
    w.sized(other.own)


def exec_(w: World, cpu: Cpu, task: Task) -> None:
    """execve(2)."""
    w.in_syscall(cpu, task)
    w.spec.needs(w.has_no_vcpu(task), "its vCPU must be closed first")
    w.kernel.flush_thread(cpu, task)
    sets, hw = w.kernel.sets, w.kernel.hw
    w.sized(task.own)
    w.ensures((task.own.xfeatures == sets.default) & (task.state_perm == sets.default))
    w.ensures(task.guest_perm == sets.guest_default)
    w.spec.ensures("P4", (task.state_size == hw.size(sets.default)) & (task.guest_size == hw.size(sets.guest_default)))
    w.spec.forgets(task, w.kernel.sets.maximum)


def exit_(w: World, cpu: Cpu, task: Task) -> None:
    """exit(2)."""
    w.in_syscall(cpu, task)
    w.spec.needs(w.has_no_vcpu(task), "its vCPU must be closed first")
    w.kernel.exit_thread(cpu, task)
    w.switched(cpu, task, None)
    w.ensures(task.mode == FREE)
    w.spec.ends(task)


# -- signals, ptrace, core dumps, shadow stacks -----------------------------------------------------------------------


def copy_fpstate_to_sigframe(w: World, cpu: Cpu, task: Task) -> None:
    """A signal is delivered: the frame gets the registers."""
    w.in_syscall(cpu, task)
    w.spec.shows(w.kernel.copy_fpstate_to_sigframe(cpu, task), task)


def fpu_clear_user_states(w: World, cpu: Cpu, task: Task) -> None:
    """A signal is delivered, and its frame written: the handler starts with initial registers."""
    w.in_syscall(cpu, task)
    w.kernel.fpu_clear_user_states(cpu, task)
    w.spec.forgets(task, w.kernel.sets.signal_clears)


def sigreturn(w: World, cpu: Cpu, task: Task) -> None:
    """rt_sigreturn(2), 64-bit, of a frame that has registers in it."""
    w.in_syscall(cpu, task)
    image = w.spec.makes_image(task, w.kernel.user_features(task))
    w.kernel.restore_fpregs_from_user(cpu, task, image)


def sigreturn_initial(w: World, cpu: Cpu, task: Task) -> None:
    """rt_sigreturn(2), 64-bit, of a frame with XSTATE_BV 0."""
    w.in_syscall(cpu, task)
    image = w.spec.makes_initial_image(task, w.kernel.user_features(task))
    w.kernel.restore_fpregs_from_user(cpu, task, image)


def sigreturn_fx_only(w: World, cpu: Cpu, task: Task) -> None:
    """rt_sigreturn(2), 64-bit, of a frame without its magic words: x87 and SSE count, all else becomes initial."""
    w.in_syscall(cpu, task)
    # To x87 and SSE this is what `sigreturn` is to any component, so that no class of the verifier is about them alone.
    legacy = w.kernel.user_features(task) & LEGACY
    w.spec.makes_initial_image(task, w.kernel.user_features(task) & ~legacy)
    image = w.spec.makes_image(task, legacy)
    w.kernel.restore_fpregs_from_user(cpu, task, image, legacy, fx_only=True)


def sigreturn_faults(w: World, cpu: Cpu, task: Task) -> None:
    """rt_sigreturn(2): a page of the frame is missing; XRSTOR has changed some registers by then."""
    w.in_syscall(cpu, task)
    w.kernel.sigreturn_faults(cpu, task)
    w.ensures((cpu.xfd_state ^ task.own.xfd) & w.kernel.sets.dynamic == 0)
    w.spec.disowns(task, w.kernel.sets.user_restore)


def sigreturn_ia32(w: World, cpu: Cpu, task: Task) -> None:
    """Sigreturn of an ia32 frame: the slow path, by way of the fpstate."""
    w.in_syscall(cpu, task)
    image = w.spec.makes_image(task, w.kernel.user_features(task))
    w.kernel.fpu_restore_sig_slow(cpu, task, image)


def sigreturn_refused(w: World, cpu: Cpu, task: Task) -> None:
    """Sigreturn of an ia32 frame whose header has every component and is refused: the task gets initial registers."""
    w.in_syscall(cpu, task)
    image = w.spec.makes_image(task, w.kernel.sets.user_maximum)
    w.kernel.fpu_restore_sig_refused(cpu, task, image)
    w.spec.forgets(task, w.kernel.sets.signal_clears)


def ptrace_getregset(w: World, task: Task) -> None:
    """A debugger reads NT_X86_XSTATE of a stopped task."""
    w.stopped(task)
    w.spec.shows(w.kernel.xstateregs_get(task), task)


def ptrace_setregset(w: World, task: Task) -> None:
    """A debugger writes NT_X86_XSTATE of a stopped task."""
    w.stopped(task)
    image = w.spec.makes_image(task, task.own.user_xfeatures)
    w.kernel.xstateregs_set(task, image)


def ptrace_setregset_initial(w: World, task: Task) -> None:
    """A debugger writes NT_X86_XSTATE with XSTATE_BV 0."""
    w.stopped(task)
    image = w.spec.makes_initial_image(task, task.own.user_xfeatures)
    w.kernel.xstateregs_set(task, image)


def coredump(w: World, cpu: Cpu, task: Task) -> None:
    """The current task dumps core: NT_X86_XSTATE goes to the file."""
    w.in_syscall(cpu, task)
    w.spec.shows(w.kernel.xstateregs_get_current(cpu, task), task)


def shstk_setup(w: World, cpu: Cpu, task: Task) -> None:
    """arch_prctl(ARCH_SHSTK_ENABLE) and the like: the kernel writes U_CET and PL3_SSP for the task."""
    w.in_syscall(cpu, task)
    w.spec.needs(w.kernel.sets.cet_user != 0 or w.kernel.sets.projected, "the kernel must manage CET_U")
    w.kernel.fpregs_lock_and_load(cpu, task)
    task.shstk = True
    w.spec.writes(cpu, task, w.kernel.sets.cet_user)


def host_sss_setup(w: World, cpu: Cpu, task: Task) -> None:
    """The kernel gives the task a supervisor shadow stack of its own, in PL0_SSP."""
    w.in_syscall(cpu, task)
    w.spec.needs(w.assumptions.host_sss and w.assumptions.fred, "the host uses no supervisor shadow stacks")
    w.spec.needs(w.kernel.sets.cet_kernel != 0, "the CPU must have CET_S")
    w.kernel.fpregs_lock_and_load(cpu, task)
    w.spec.writes(cpu, task, w.kernel.sets.cet_kernel)


# -- dynamic components -----------------------------------------------------------------------------------------------


def request_perm(w: World, cpu: Cpu, task: Task) -> None:
    """arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)."""
    w.in_syscall(cpu, task)
    w.spec.needs(w.kernel.sets.dynamic != 0, "the CPU must have AMX")
    error = w.kernel.xstate_request_perm(task, XTILEDATA, guest=False)
    w.ensures(error == 0)
    w.ensures(task.state_perm & w.kernel.sets.dynamic == w.kernel.sets.dynamic)


def request_perm_refused(w: World, cpu: Cpu, task: Task) -> None:
    """arch_prctl(ARCH_REQ_XCOMP_PERM) of a component that needs no permission, and of a number beyond all."""
    w.in_syscall(cpu, task)
    w.ensures(w.kernel.xstate_request_perm(task, AVX.bit_length() - 1, guest=False) == errno.EOPNOTSUPP)
    w.ensures(w.kernel.xstate_request_perm(task, w.kernel.policy.xfeature_max, guest=False) == errno.EINVAL)


def request_guest_perm(w: World, cpu: Cpu, task: Task) -> None:
    """arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)."""
    w.in_syscall(cpu, task)
    w.spec.needs(w.kernel.sets.dynamic != 0, "the CPU must have AMX")
    before, dynamic = task.guest_perm, w.kernel.sets.dynamic
    error = w.kernel.xstate_request_perm(task, XTILEDATA, guest=True)
    w.spec.require("P18", (before & GUEST_PERM_LOCKED == 0) | (task.guest_perm == before))
    w.ensures((error == 0) == (task.guest_perm & dynamic == dynamic))
    w.ensures((before & GUEST_PERM_LOCKED != 0) | (task.guest_perm & dynamic == dynamic))


# -- KVM --------------------------------------------------------------------------------------------------------------


def kvm_create_vcpu(w: World, cpu: Cpu, task: Task) -> None:
    """KVM_CREATE_VCPU."""
    w.in_syscall(cpu, task)
    guest = task.guest
    w.spec.needs(guest is not None and guest.exists == 0, "it must have no vCPU yet")
    if guest is not None:
        _vzalloc(guest)
        w.kernel.kvm_create_vcpu(task, guest)
        w.ensures((guest.exists == 1) & (guest.xfd_intercepted == 1) & (guest.uabi_size != 0))
        _has_fpstate(w, guest.fpstate)
        w.spec.starts(guest)


def _vzalloc(guest: Guest) -> None:
    """A new vCPU's memory is zeroed; its image and features are made whatever was there before."""
    fpstate = guest.fpstate
    fpstate.allocated = fpstate.size = fpstate.user_size = fpstate.is_guest = guest.uabi_size = 0


def _has_fpstate(w: World, fpstate: Fpstate) -> None:
    """A new vCPU's fpstate is one of a guest, has what boot gives to every guest, and nothing that needs permission."""
    w.ensures((fpstate.is_guest == 1) & (fpstate.xfeatures & w.kernel.sets.dynamic == 0))
    w.ensures(w.kernel.hw.fits(fpstate.allocated, w.kernel.sets.guest_allocated))
    w.sized(fpstate)


def kvm_destroy_vcpu(w: World, cpu: Cpu, task: Task) -> None:
    """The last reference to the vCPU goes."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    w.kernel.kvm_destroy_vcpu(guest)
    w.ensures(guest.exists == 0)
    w.spec.ends(guest)


def kvm_run(w: World, cpu: Cpu, task: Task) -> None:
    """KVM_RUN begins: vcpu_load(), then the guest FPU."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    w.kernel.kvm_run_begins(cpu, task, guest)
    w.spec.require("P13", (task.plugged == 1) & (guest.loaded == 1))


def kvm_run_ends(w: World, cpu: Cpu, task: Task) -> None:
    """KVM_RUN goes back to user space."""
    guest = w.in_kvm_run(cpu, task)
    w.kernel.kvm_run_ends(cpu, task, guest)
    w.spec.require("P13", (task.plugged == 0) & (guest.loaded == 0))


def vm_entry(w: World, cpu: Cpu, task: Task) -> None:
    """The guest runs."""
    guest = w.in_kvm_run(cpu, task)
    w.kernel.vm_entry(cpu, task, guest)
    w.spec.runs(cpu, guest)


def vm_exit(w: World, cpu: Cpu, task: Task) -> None:
    """The guest exits to KVM."""
    guest = w.in_guest(cpu, task)
    w.kernel.vm_exit(cpu, task, guest)


def guest_writes(w: World, cpu: Cpu, task: Task) -> None:
    """The guest writes its registers: vectors, tiles, PL0_SSP."""
    guest = w.in_guest(cpu, task)
    mask = w.kernel.guest_writable(guest) & ~cpu.xfd
    w.spec.needs(mask != 0, "the guest has no such component, or XFD is armed")
    w.spec.writes(cpu, guest, mask)


def guest_initialises(w: World, cpu: Cpu, task: Task) -> None:
    """The guest puts its registers into their initial configuration."""
    guest = w.in_guest(cpu, task)
    mask = w.kernel.guest_writable(guest) & ~cpu.xfd
    w.spec.needs(mask != 0, "the guest has no such component, or XFD is armed")
    w.spec.initialises(cpu, guest, mask)


def guest_writes_xfd(w: World, cpu: Cpu, task: Task) -> None:
    """The guest writes IA32_XFD, and KVM does not intercept it."""
    guest = w.in_guest(cpu, task)
    w.spec.needs(guest.xfd_intercepted == 0, "the write exits to KVM: kvm_emulates_xfd")
    w.spec.needs(w.kernel.guest_dynamic(guest) != 0, "the guest must have a dynamic component")
    w.kernel.hw.write_xfd(cpu, cpu.xfd ^ w.kernel.guest_dynamic(guest))
    w.spec.disowns(guest, cpu.xfd)


def _set_xfd(w: World, cpu: Cpu, task: Task, xfd: int) -> None:
    """KVM carries out a write of the guest's IA32_XFD."""
    guest = w.vcpu(task)
    w.kernel.kvm_set_xfd(cpu, task, guest, xfd)
    w.spec.require("P8", guest.fpstate.xfd == xfd)


def kvm_arms_xfd(w: World, cpu: Cpu, task: Task) -> None:
    """The guest sets IA32_XFD; the write exits, and KVM carries it out."""
    guest = w.in_kvm_run(cpu, task)
    w.spec.needs(w.kernel.guest_dynamic(guest) != 0, "the guest must have a dynamic component")
    _set_xfd(w, cpu, task, w.kernel.guest_dynamic(guest))
    w.ensures(guest.xfd_intercepted == 0)
    w.spec.disowns(guest, w.kernel.guest_dynamic(guest))


def kvm_disarms_xfd(w: World, cpu: Cpu, task: Task) -> None:
    """The guest clears IA32_XFD; the write exits, and KVM carries it out."""
    guest = w.in_kvm_run(cpu, task)
    w.spec.needs(w.kernel.guest_dynamic(guest) != 0, "the guest must have a dynamic component")
    before = guest.xfd_intercepted
    _set_xfd(w, cpu, task, 0)
    w.ensures(guest.xfd_intercepted == before)


def kvm_set_msrs_xfd(w: World, cpu: Cpu, task: Task) -> None:
    """KVM_SET_MSRS of IA32_XFD, not 0, as live migration restores it."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    w.spec.needs(w.kernel.guest_dynamic(guest) != 0, "the guest must have a dynamic component")
    if w.assumptions.msrs_first:
        w.spec.needs(w.kernel.hw.in_image(guest.fpstate, w.kernel.guest_dynamic(guest)) == 0, "MSRs come before XSAVE")
    _set_xfd(w, cpu, task, w.kernel.guest_dynamic(guest))
    w.ensures(guest.xfd_intercepted == 0)
    w.spec.disowns(guest, w.kernel.guest_dynamic(guest))


def kvm_set_msr_cet(w: World, cpu: Cpu, task: Task) -> None:
    """KVM writes U_CET or PLx_SSP of the guest, for user space or for an intercepted WRMSR."""
    guest = w.in_kvm_run(cpu, task)
    mask = w.kernel.guest_writable(guest) & w.kernel.sets.cet
    w.spec.needs(mask != 0, "the guest must have shadow stacks")
    w.kernel.kvm_access_xstate_msr(cpu, task, guest)
    w.spec.writes(cpu, guest, mask)


def kvm_get_msr_cet(w: World, cpu: Cpu, task: Task) -> None:
    """KVM reads U_CET or PLx_SSP of the guest."""
    guest = w.in_kvm_run(cpu, task)
    mask = w.kernel.guest_writable(guest) & w.kernel.sets.cet
    w.spec.needs(mask != 0, "the guest must have shadow stacks")
    w.kernel.kvm_access_xstate_msr(cpu, task, guest)
    w.spec.runs(cpu, guest)


def kvm_msrs_cet(w: World, cpu: Cpu, task: Task) -> None:
    """KVM_GET_MSRS, then KVM_SET_MSRS, of U_CET and PLx_SSP, outside KVM_RUN."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    mask = w.kernel.guest_writable(guest) & w.kernel.sets.cet
    w.spec.needs(mask != 0, "the guest must have shadow stacks")
    w.kernel.msr_io_begins(cpu, task, guest)
    w.kernel.kvm_access_xstate_msr(cpu, task, guest)
    w.spec.runs(cpu, guest)
    w.spec.writes(cpu, guest, mask)
    w.kernel.msr_io_ends(cpu, task, guest)
    w.spec.require("P13", (task.plugged == 0) & (guest.loaded == 0))


def kvm_emulates_avx(w: World, cpu: Cpu, task: Task) -> None:
    """KVM emulates an instruction of the guest that reads and writes vector registers."""
    guest = w.in_kvm_run(cpu, task)
    mask = w.kernel.guest_writable(guest) & (SSE | AVX)
    w.spec.needs(mask != 0, "the guest must have vector registers")
    w.kernel.kvm_fpu_get(cpu, task)
    w.spec.runs(cpu, guest)
    w.spec.writes(cpu, guest, mask)


def kvm_get_xsave(w: World, cpu: Cpu, task: Task) -> None:
    """KVM_GET_XSAVE2."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    w.spec.shows(w.kernel.kvm_get_xsave(guest), guest)


def kvm_set_xsave(w: World, cpu: Cpu, task: Task) -> None:
    """KVM_SET_XSAVE of an image with registers in it; what the guest's IA32_XFD disables is dropped from it."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    image = w.spec.makes_image(guest, guest.fpstate.user_xfeatures & w.kernel.sets.kvm)
    w.kernel.kvm_set_xsave(guest, image)
    w.spec.disowns(guest, guest.fpstate.xfd)


def kvm_set_cpuid(w: World, cpu: Cpu, task: Task) -> None:
    """KVM_SET_CPUID2 offers a dynamic component to a vCPU that has not run."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    w.spec.needs(w.kernel.sets.dynamic & w.kernel.sets.kvm != 0, "KVM must offer a dynamic component")
    w.spec.needs(w.kernel.hw.in_image(guest.fpstate, w.kernel.sets.tracked) == 0, "the vCPU has state already")
    dynamic = w.kernel.sets.dynamic & w.kernel.sets.kvm
    had, permitted = guest.fpstate.xfeatures & dynamic == dynamic, task.guest_perm & dynamic == dynamic
    error = w.kernel.fpu_enable_guest_xfd_features(cpu, task, dynamic)
    if had:
        w.ensures(error == 0)
    else:
        w.ensures((error == 0) == permitted)
        w.grown(guest.fpstate, error)
        w.ensures((error != 0) | (guest.uabi_size == guest.fpstate.user_size))


def kvm_init_vcpu(w: World, cpu: Cpu, task: Task) -> None:
    """The vCPU gets an INIT, during KVM_RUN."""
    guest = w.in_kvm_run(cpu, task)
    w.spec.needs(w.kernel.sets.reset_by_init != 0, "the guest has nothing that INIT resets")
    w.kernel.kvm_xstate_reset(cpu, task, guest, wants_to_run=1)
    w.spec.require("P13", task.plugged == 1)
    w.spec.forgets(guest, w.kernel.sets.reset_by_init)


def kvm_get_mpstate(w: World, cpu: Cpu, task: Task) -> None:
    """KVM_GET_MP_STATE of a vCPU that was sent an INIT: it is taken outside KVM_RUN."""
    w.in_syscall(cpu, task)
    guest = w.vcpu(task)
    w.spec.needs(w.kernel.sets.reset_by_init != 0, "the guest has nothing that INIT resets")
    w.kernel.kvm_get_mpstate(cpu, task, guest)
    w.spec.require("P13", (task.plugged == 0) & (guest.loaded == 0))
    w.spec.forgets(guest, w.kernel.sets.reset_by_init)


# -- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        name: what traces and scenarios call it.
        run: the function.
        parameters: of ``cpu``, ``task`` and ``other``, those that it takes; of a call, numbers too.
        text: one sentence.
    """

    name: str
    run: Callable[..., object]
    parameters: tuple[str, ...]
    text: str


def step_of(function: Callable[..., object]) -> Step:
    """Return the step that *function* is; it takes the world first."""
    parameters = tuple(inspect.signature(function).parameters)[1:]
    return Step(function.__name__.rstrip("_"), function, parameters, (function.__doc__ or "").strip())


_FUNCTIONS: Final[tuple[Callable[..., None], ...]] = (
    user_writes,
    user_initialises,
    user_uses_dynamic,
    handle_xfd_event,
    enter_kernel,
    exit_to_user_mode,
    context_switch,
    switch_to_idle,
    switch_from_idle,
    kernel_fpu_begin,
    kernel_fpu_begin_idle,
    kernel_fpu_end,
    fpu_idle_fpregs,
    cpu_down_up,
    fork,
    clone_shstk,
    fork_kernel_thread,
    exec_,
    exit_,
    copy_fpstate_to_sigframe,
    fpu_clear_user_states,
    sigreturn,
    sigreturn_initial,
    sigreturn_fx_only,
    sigreturn_faults,
    sigreturn_ia32,
    sigreturn_refused,
    ptrace_getregset,
    ptrace_setregset,
    ptrace_setregset_initial,
    coredump,
    shstk_setup,
    host_sss_setup,
    request_perm,
    request_perm_refused,
    request_guest_perm,
    kvm_create_vcpu,
    kvm_destroy_vcpu,
    kvm_run,
    kvm_run_ends,
    vm_entry,
    vm_exit,
    guest_writes,
    guest_initialises,
    guest_writes_xfd,
    kvm_arms_xfd,
    kvm_disarms_xfd,
    kvm_set_msrs_xfd,
    kvm_set_msr_cet,
    kvm_get_msr_cet,
    kvm_msrs_cet,
    kvm_emulates_avx,
    kvm_get_xsave,
    kvm_set_xsave,
    kvm_set_cpuid,
    kvm_init_vcpu,
    kvm_get_mpstate,
)
STEPS: Final[dict[str, Step]] = {step.name: step for step in map(step_of, _FUNCTIONS)}
"""Every step by name."""
