"""What a program or a debugger does with bytes of its own: instructions and system calls of one machine.

The steps use values that say whose they are, and choose nothing.  Here the caller brings the bytes and gets the
kernel's: registers as XRSTOR loads them, signal frames, regsets, notes of a core.  This is how the machine is held
against what real kernels did (tests/linux/test_machine_recorded.py, test_machine_live.py).  Nothing here tells the
specification who wrote what, so that what it finds afterwards means nothing.
"""

from __future__ import annotations

import errno
import signal
import struct
from typing import Final

from fpstate.isa import Fault
from fpstate.linux import abi
from fpstate.linux.copyin import check_xstate_in_sigframe
from fpstate.linux.kernel import Cpu, Task
from fpstate.linux.machine import Machine
from fpstate.linux.machine.area import Area
from fpstate.linux.machine.hardware import Refused
from fpstate.linux.notes import NT_PRFPREG, NT_X86_SHSTK, NT_X86_XSAVE_LAYOUT, NT_X86_XSTATE
from fpstate.xfeatures import LEGACY, SOFTWARE

__all__ = [
    "NT_PRFPREG",
    "NT_X86_SHSTK",
    "NT_X86_XSAVE_LAYOUT",
    "NT_X86_XSTATE",
    "UserSpace",
]

_XFEATURES: Final = slice(SOFTWARE + 8, SOFTWARE + 16)


class UserSpace:
    """User space of one machine; CPUs and tasks go by number.

    Attributes:
        machine: the machine.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def _cpu(self, cpu: int) -> Cpu:
        return self.machine.world.cpus[cpu]

    def _task(self, task: int) -> Task:
        return self.machine.world.tasks[task]

    def _image(self, data: bytes) -> Area:
        area = self.machine.hw.areas.user(len(data))
        area.data[: len(data)] = data
        return area

    # -- instructions ---------------------------------------------------------------------------------------------

    def xrstor(self, cpu: int, task: int, image: bytes, mask: int = -1) -> None:
        """The program of *task* executes XRSTOR64 of *image*, *mask* in EDX:EAX.

        Raises:
            Fault: it does, as a CPU would.
        """
        self.machine.world.in_user_mode(self._cpu(cpu), self._task(task))
        self.machine.hw.xrstor_from_user(self._cpu(cpu), self._image(image), mask & self.machine.sets.xcr0)

    # -- signals --------------------------------------------------------------------------------------------------

    def signal(self, cpu: int, task: int) -> bytes:
        """Deliver a signal to *task*, and return its frame from ``uc_mcontext.fpstate`` on, magic2 included."""
        c, t = self._cpu(cpu), self._task(task)
        self.machine.world.in_syscall(c, t)
        frame: Area = self.machine.world.kernel.copy_fpstate_to_sigframe(c, t)
        self.machine.world.kernel.fpu_clear_user_states(c, t)
        return bytes(frame.data)

    def rt_sigreturn(self, cpu: int, task: int, frame: bytes) -> int:
        """Return from a signal by *frame*, of a 64-bit program: 0, or SIGSEGV (__fpu_restore_sig() and its caller)."""
        c, t = self._cpu(cpu), self._task(task)
        self.machine.world.in_syscall(c, t)
        if not self._restored(c, t, frame):
            self.machine.world.kernel.fpu_restore_sig_failed(c, t)
            return int(signal.SIGSEGV)
        return 0

    def _restored(self, cpu: Cpu, task: Task, frame: bytes) -> bool:
        found = check_xstate_in_sigframe(frame, task.fpstate.user_size)
        if found is not None and found.effect == "SIGSEGV":
            return False
        fx_only = found is not None
        xrestore = LEGACY if fx_only else int.from_bytes(frame[_XFEATURES], "little")
        kernel = self.machine.world.kernel
        try:
            kernel.restore_fpregs_from_user(cpu, task, self._image(frame), xrestore, fx_only=fx_only)
        except Fault:
            return False
        return True

    def sigaltstack(self, task: int, size: int) -> int:
        """Give *task* an alternate signal stack of *size* bytes: return 0 or an errno."""
        return self.machine.world.kernel.do_sigaltstack(self._task(task), size)

    # -- dynamic components -----------------------------------------------------------------------------------------

    def request_perm(self, task: int, number: int, *, guest: bool = False) -> int:
        """ARCH_REQ_XCOMP_PERM or ARCH_REQ_XCOMP_GUEST_PERM: return 0 or an errno."""
        option = abi.ARCH_REQ_XCOMP_GUEST_PERM if guest else abi.ARCH_REQ_XCOMP_PERM
        return self.machine.world.kernel.fpu_xstate_prctl(self._task(task), option, number)[0]

    def permissions(self, task: int, *, guest: bool = False) -> int:
        """ARCH_GET_XCOMP_PERM or ARCH_GET_XCOMP_GUEST_PERM: return the mask that is stored."""
        option = abi.ARCH_GET_XCOMP_GUEST_PERM if guest else abi.ARCH_GET_XCOMP_PERM
        return self.machine.world.kernel.fpu_xstate_prctl(self._task(task), option, 0)[1] or 0

    def use_dynamic(self, cpu: int, task: int) -> int:
        """#NM by XFD, from user mode: return 0 where the program goes on, or the signal that it gets."""
        c, t = self._cpu(cpu), self._task(task)
        self.machine.step("user_uses_dynamic", cpu=cpu, task=task)
        refused = self.machine.world.kernel.handle_xfd_event(c, t, self.machine.sets.dynamic)
        if refused:
            return int(signal.SIGILL if refused == errno.EPERM else signal.SIGSEGV)
        self.machine.step("exit_to_user_mode", cpu=cpu, task=task)
        return 0

    # -- ptrace and core dumps ---------------------------------------------------------------------------------------

    def getregset(self, task: int, note: int = NT_X86_XSTATE) -> tuple[int, bytes]:
        """PTRACE_GETREGSET of a stopped task: an errno, or 0 and the bytes."""
        t, kernel = self._task(task), self.machine.world.kernel
        self.machine.world.stopped(t)
        if note == NT_X86_SHSTK:
            return kernel.ssp_get(t)
        if note == NT_PRFPREG:
            return 0, bytes(kernel.xfpregs_get(t))
        return 0, bytes(kernel.xstateregs_get(t).data)

    def setregset(self, task: int, data: bytes) -> int:
        """PTRACE_SETREGSET(NT_X86_XSTATE) of a stopped task: return 0 or an errno."""
        t = self._task(task)
        self.machine.world.stopped(t)
        area = Area(bytearray(data), self._image(b"").address, self.machine.hw.caps)
        try:
            self.machine.world.kernel.xstateregs_set(t, area)
        except Refused as refusal:
            return int(getattr(errno, refusal.finding.effect))
        return 0

    def coredump(self, cpu: int, task: int) -> dict[int, bytes]:
        """The current task dumps core: return its notes about extended state, by type."""
        c, t, kernel = self._cpu(cpu), self._task(task), self.machine.world.kernel
        self.machine.world.in_syscall(c, t)
        image: Area = kernel.xstateregs_get_current(c, t)
        layout = b"".join(struct.pack("<4I", *row) for row in kernel.dump_xsave_layout_desc())
        return {NT_X86_XSTATE: bytes(image.data), NT_X86_XSAVE_LAYOUT: layout}
