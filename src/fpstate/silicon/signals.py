"""The fault handler, in machine code: a signal handler in Python would run too late, long after the fault.

A fault inside the executor's programs is written into the context, and the thread resumes in the epilogue.  The kernel
saves all registers at the signal and restores them after the handler, so that the epilogue sees them as the fault left
them.  Any other signal is passed on: the action that was there before is put back, and the faulting instruction is
executed again (or the signal sent again, if it was sent by ``kill``), so that what the process did on a real crash, it
still does.  `Actions.install` puts ours back before the next run.

Sources: Linux ``arch/x86/include/uapi/asm/sigcontext.h``, ``asm-generic/siginfo.h`` and ``ucontext.h`` for the offsets,
``arch/x86/entry/syscalls/syscall_64.tbl`` for the numbers of the system calls.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final

from fpstate.silicon import context, encode
from fpstate.silicon.encode import R8, R9, R10, RAX, RCX, RDI, RDX, RSI, Assembler, At
from fpstate.silicon.memory import address_of, libc, map_private
from fpstate.silicon.program import ALIGNMENT_CHECK, USER_CS, USER_DS

__all__ = ["SIGNALS", "Actions", "emit_handler"]

SIGNALS: Final = (11, 7, 4, 8)
"""SIGSEGV, SIGBUS, SIGILL and SIGFPE: what the CPU's exceptions become (numbers of x86 Linux)."""

_RT_SIGACTION, _RT_SIGRETURN, _GETPID, _GETTID, _TGKILL = 13, 15, 39, 186, 234  # numbers of system calls

# struct siginfo
_SI_CODE: Final = 8
_SI_ADDR: Final = 16
# struct ucontext, with its struct sigcontext
_UC_RIP: Final = 168
_UC_EFLAGS: Final = 176
_UC_CS: Final = 184
_UC_SS: Final = 190
_UC_ERR: Final = 192
_UC_TRAPNO: Final = 200
_UC_CR2: Final = 216

_ACTION: Final = struct.Struct("<QQQQ")
"""The kernel's struct sigaction: handler, flags, restorer, mask."""
_SA_SIGINFO, _SA_RESTORER, _SA_ONSTACK, _SA_NODEFER = 0x4, 0x0400_0000, 0x0800_0000, 0x4000_0000
_FLAGS: Final = _SA_SIGINFO | _SA_RESTORER | _SA_ONSTACK | _SA_NODEFER

_AT_MINSIGSTKSZ: Final = 51  # <linux/auxvec.h>: bytes of the greatest signal frame, AVX-512 and AMX included
_ROOM: Final = 65536
"""Bytes for what a handler that was there before ours may need on the stack."""


def emit_handler(code: Assembler, base: int, ours: tuple[int, int], epilogue: str) -> None:
    """Append ``handler`` and ``restorer``.

    Args:
        code: where to.
        base: the address of the context.
        ours: the first address of the code whose faults are ours, and the first behind it.
        epilogue: the label at which the thread resumes.
    """
    first, end = ours
    code.label("handler")  # RDI: signal, RSI: struct siginfo, RDX: struct ucontext
    code.emit(encode.ENDBR64, encode.set_number(RCX, base))
    code.emit(encode.compare(At(RSI, _SI_CODE), 0))
    code.jump(Assembler.JUMP_LESS_OR_EQUAL, "pass on")  # sent by a process, not by the CPU
    code.emit(encode.mov(RAX, At(RDX, _UC_RIP)), encode.set_number(R8, first), encode.compare_registers(RAX, R8))
    code.jump(Assembler.JUMP_BELOW, "pass on")
    code.emit(encode.set_number(R8, end - 1), encode.compare_registers(RAX, R8))
    code.jump(Assembler.JUMP_ABOVE, "pass on")
    _emit_record(code)
    _emit_resume(code, epilogue)
    _emit_pass_on(code)
    code.label("restorer")
    code.emit(encode.set_number(RAX, _RT_SIGRETURN), encode.SYSCALL)


def _emit_record(code: Assembler) -> None:
    """Append the copying of what is known of the fault to the context, at RCX; RAX is the faulting RIP."""
    code.emit(encode.store(At(RCX, context.RIP), RAX))
    code.emit(encode.mov(RDI, RDI, wide=False), encode.store(At(RCX, context.SIGNAL), RDI))
    code.emit(encode.mov(RAX, At(RSI, _SI_CODE), wide=False), encode.store(At(RCX, context.CODE), RAX))
    code.emit(encode.mov(RAX, At(RSI, _SI_ADDR)), encode.store(At(RCX, context.ADDRESS), RAX))
    fields = ((_UC_TRAPNO, context.TRAPNO), (_UC_ERR, context.ERROR_CODE), (_UC_CR2, context.CR2))
    for source, target in fields:
        code.emit(encode.mov(RAX, At(RDX, source)), encode.store(At(RCX, target), RAX))


def _emit_resume(code: Assembler, epilogue: str) -> None:
    """Append the change of the saved registers that makes the thread resume in the epilogue, in 64-bit mode."""
    code.emit(encode.set_number(RAX, code.address(epilogue)), encode.store(At(RDX, _UC_RIP), RAX))
    code.emit(encode.bits_and(At(RDX, _UC_EFLAGS), ~ALIGNMENT_CHECK & 0xFFFF_FFFF))
    code.emit(encode.store_word(At(RDX, _UC_CS), USER_CS), encode.store_word(At(RDX, _UC_SS), USER_DS), encode.RET)


def _emit_pass_on(code: Assembler) -> None:
    """Append the way for signals that are not ours."""
    code.label("pass on")
    code.emit(encode.store_number(At(RCX, context.PASSED_ON), 1))
    code.emit(encode.mov(R8, RDI), encode.mov(R9, RSI))  # system calls keep them
    code.emit(encode.mov(RSI, RDI), encode.shl(RSI, 5), encode.add(RSI, RCX))  # 32 bytes an action
    code.emit(encode.lea(RSI, At(RSI, context.PREVIOUS_ACTIONS)))
    code.emit(encode.clear(RDX), encode.set_number(R10, 8), encode.set_number(RAX, _RT_SIGACTION), encode.SYSCALL)
    code.emit(encode.compare(At(R9, _SI_CODE), 0))
    code.jump(Assembler.JUMP_GREATER, "again")  # the instruction will fault again
    code.emit(encode.set_number(RAX, _GETTID), encode.SYSCALL, encode.mov(RSI, RAX))
    code.emit(encode.set_number(RAX, _GETPID), encode.SYSCALL, encode.mov(RDI, RAX))
    code.emit(encode.mov(RDX, R8), encode.set_number(RAX, _TGKILL), encode.SYSCALL)
    code.label("again")
    code.emit(encode.RET)


class _Stack(ctypes.Structure):
    """stack_t of <signal.h>."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


class Actions:
    """The signal actions of this process and the signal stack of this thread, while ours are in place.

    Args:
        handler: the address of the handler.
        restorer: the address of the restorer.
        previous: the address in the context where the previous actions are kept.
    """

    def __init__(self, handler: int, restorer: int, previous: int) -> None:
        self._handler = handler
        self._previous = previous
        self._action = ctypes.create_string_buffer(_ACTION.pack(handler, _FLAGS, restorer, 0), _ACTION.size)
        size = libc().getauxval(_AT_MINSIGSTKSZ) + _ROOM
        self._stack = map_private(-(-size // context.PAGE) * context.PAGE)
        self._previous_stack = _Stack()

    def install(self) -> None:
        """Put our actions and our signal stack in place; keep those that were there."""
        stack = _Stack(address_of(self._stack), 0, len(self._stack))
        _sigaltstack(stack, self._previous_stack)
        for number in SIGNALS:
            _sigaction(number, ctypes.addressof(self._action), self._previous + _ACTION.size * number)

    def reinstall(self) -> None:
        """Put our actions in place again after one was passed on; those that were there before us are known."""
        for number in SIGNALS:
            _sigaction(number, ctypes.addressof(self._action), None)

    def remove(self) -> None:
        """Put back what was there; an action or a stack that came after ours stays."""
        for number in SIGNALS:
            now = ctypes.create_string_buffer(_ACTION.size)
            _sigaction(number, None, ctypes.addressof(now))
            if _ACTION.unpack(now.raw)[0] == self._handler:
                _sigaction(number, self._previous + _ACTION.size * number, None)
        current = _Stack()
        _sigaltstack(None, current)
        if current.sp == address_of(self._stack):
            _sigaltstack(self._previous_stack, None)
            self._stack.close()


def _sigaction(number: int, new: int | None, old: int | None) -> None:
    """Call rt_sigaction itself: libc's would bring its own restorer and a struct of its own."""
    if libc().syscall(_RT_SIGACTION, number, new, old, 8):
        raise OSError(ctypes.get_errno(), f"rt_sigaction is refused for signal {number}")


def _sigaltstack(new: _Stack | None, old: _Stack | None) -> None:
    if libc().sigaltstack(*(ctypes.byref(stack) if stack is not None else None for stack in (new, old))):
        raise OSError(ctypes.get_errno(), "sigaltstack is refused")
