"""Real children of the running kernel, with known registers: what it shows of them and takes back.

This is a program of its own: `run` starts it and hands it jobs as JSON.  Each job forks a child that loads its
registers with one XRSTOR, enters the kernel by kill(2), and saves them with one XSAVE once it is back.  Between the
two, user code is a few bytes of machine code; so is the signal handler, which copies its frame out and a changed one
in.  Sources: the System V x86-64 ABI; Linux ``<asm/unistd_64.h>``, ``<asm/sigcontext.h>``, ``<asm/ucontext.h>``,
``<linux/elf.h>``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["MXCSR_BEFORE", "SLOT", "run"]

MXCSR_BEFORE = 0x1FBF
"""MXCSR of every child before it loads its registers: all exception flags, which arithmetic does not clear."""

SLOT = 1 << 14
"""Bytes for an image."""
IN, OUT, FRAME_OUT, FRAME_IN, COUNT = (i * SLOT for i in range(5))
"""Where the shared memory has: what XRSTOR loads, what XSAVE saved, the frame as it was, the frame to put in its place,
and how many bytes of that."""
NR_SIGACTION, NR_KILL, NR_ARCH_PRCTL = 13, 62, 158
ARCH_REQ_XCOMP_PERM, ARCH_REQ_XCOMP_GUEST_PERM = 0x1023, 0x1025
SA_SIGINFO, SA_RESTORER = 4, 0x04000000
PTRACE_TRACEME, PTRACE_CONT, PTRACE_GETREGSET, PTRACE_SETREGSET = 0, 7, 0x4204, 0x4205
NT_PRFPREG, NT_X86_XSTATE = 2, 0x202

# void go(void *in, void *out, uint64_t mask, int signal, int pid)
GO = bytes.fromhex(
    "f30f1efa"  #   endbr64
    "4989d1"  #     mov r9, rdx
    "89d0"  #       mov eax, edx
    "48c1ea20"  #   shr rdx, 32
    "480fae2f"  #   xrstor64 [rdi]
    "4989f2"  #     mov r10, rsi
    "4c89c7"  #     mov rdi, r8
    "4889ce"  #     mov rsi, rcx
    "b83e000000"  # mov eax, 62: kill
    "0f05"  #       syscall
    "4489c8"  #     mov eax, r9d
    "4c89ca"  #     mov rdx, r9
    "48c1ea20"  #   shr rdx, 32
    "490fae22"  #   xsave64 [r10]
    "dbe3"  #       fninit
    "c3"  #         ret
)
LDMXCSR = bytes.fromhex("f30f1efa0fae17c3")  # endbr64; ldmxcsr [rdi]; ret
RESTORER = bytes.fromhex("b80f0000000f05")  # mov eax, 15: rt_sigreturn; syscall


def handler(memory: int, frame: int) -> bytes:
    """Return the code of a handler that copies *frame* bytes out, and as many in as ``COUNT`` says."""
    code = bytes.fromhex("f30f1efa4c8b82e00000004c89c6")  # endbr64; mov r8, [rdx+224]; mov rsi, r8
    code += b"\x48\xbf" + (memory + FRAME_OUT).to_bytes(8, "little")  # mov rdi, FRAME_OUT
    code += b"\xb9" + frame.to_bytes(4, "little") + b"\xf3\xa4"  # mov ecx, frame; rep movsb
    code += b"\x48\xb8" + (memory + COUNT).to_bytes(8, "little") + bytes.fromhex("488b08")  # mov rcx, [COUNT]
    code += b"\x4c\x89\xc7\x48\xbe" + (memory + FRAME_IN).to_bytes(8, "little")  # mov rdi, r8; mov rsi, FRAME_IN
    return code + b"\xf3\xa4\xc3"  # rep movsb; ret


class IoVec(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))


class Program:
    """Memory shared with children, and their code."""

    def __init__(self, mask: int, frame: int) -> None:
        self.mask = mask
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
        self.libc.ptrace.restype = ctypes.c_long
        self.memory = mmap.mmap(-1, 6 * SLOT)
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.code = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.code))
        self.go, self.handler, self.restorer, self.ldmxcsr = (start + 256 * i for i in range(4))
        for at, code in ((0, GO), (256, handler(self.at, frame)), (512, RESTORER), (768, LDMXCSR)):
            self.code[at : at + len(code)] = code
        refused = self.libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(mmap.PAGESIZE), 5)
        if refused:
            raise OSError(ctypes.get_errno(), "executable memory is refused")

    def put(self, at: int, data: bytes) -> None:
        self.memory[at : at + SLOT] = data.ljust(SLOT, b"\0")

    def take(self, at: int, size: int) -> str:
        return self.memory[at : at + size].hex()

    def run(self, number: int) -> None:
        """In a child: load, send signal *number* to itself, save."""
        go = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 5)(self.go)
        go(self.at + IN, self.at + OUT, self.mask, number, os.getpid())

    def catch(self, number: int) -> None:
        action = struct.pack("<4Q", self.handler, SA_SIGINFO | SA_RESTORER, self.restorer, 0)
        self.libc.syscall(NR_SIGACTION, number, action, None, 8)

    def child(self, job: dict[str, Any], body: Any) -> int:
        """Fork, run *body* in the child, and return its process id."""
        self.put(IN, bytes.fromhex(job["image"]))
        self.put(OUT, b"")
        self.put(FRAME_OUT, b"")
        changed = bytes.fromhex(job.get("change") or "")
        self.put(FRAME_IN, changed)
        self.put(COUNT, len(changed).to_bytes(8, "little"))
        before = ctypes.c_uint32(MXCSR_BEFORE)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.ldmxcsr)(ctypes.addressof(before))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                body()
                code = 0
            finally:
                os._exit(code)
        return pid

    # -- jobs -----------------------------------------------------------------------------------------------------

    def signal(self, job: dict[str, Any]) -> dict[str, Any]:
        """The child takes a signal; its handler puts ``change`` over the frame, if there is one."""

        def body() -> None:
            self.catch(signal.SIGUSR1)
            self.run(signal.SIGUSR1)

        _, status = os.waitpid(self.child(job, body), 0)
        return {
            "frame": self.take(FRAME_OUT, SLOT),
            "out": self.take(OUT, SLOT),
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        }

    def ptrace(self, job: dict[str, Any]) -> dict[str, Any]:
        """The child stops; its regsets are read, ``change`` is written if there is one, and they are read again."""

        def body() -> None:
            self.libc.ptrace(PTRACE_TRACEME, 0, None, None)
            self.run(signal.SIGSTOP)

        pid = self.child(job, body)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise OSError(0, "a child cannot be traced")
        found: dict[str, Any] = {"before": self.get(pid, NT_X86_XSTATE), "fx": self.get(pid, NT_PRFPREG), "errno": 0}
        if job.get("change") is not None:
            found["errno"] = self.set(pid, bytes.fromhex(job["change"]))
        found["after"] = self.get(pid, NT_X86_XSTATE)
        self.libc.ptrace(PTRACE_CONT, pid, None, None)
        os.waitpid(pid, 0)
        return {**found, "out": self.take(OUT, SLOT)}

    def get(self, pid: int, note: int) -> str:
        image = ctypes.create_string_buffer(SLOT)
        vector = IoVec(iov_base=ctypes.addressof(image), iov_len=SLOT)
        if self.libc.ptrace(PTRACE_GETREGSET, pid, note, ctypes.byref(vector)):
            raise OSError(ctypes.get_errno(), "PTRACE_GETREGSET")
        return image.raw[: vector.iov_len].hex()

    def set(self, pid: int, data: bytes) -> int:
        image = ctypes.create_string_buffer(data, len(data))
        vector = IoVec(iov_base=ctypes.addressof(image), iov_len=len(data))
        return ctypes.get_errno() if self.libc.ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, ctypes.byref(vector)) else 0

    def core(self, job: dict[str, Any]) -> dict[str, Any]:
        """The child dumps core into a folder of its own: the notes by type."""
        with tempfile.TemporaryDirectory() as folder:

            def body() -> None:
                os.chdir(folder)
                _, most = resource.getrlimit(resource.RLIMIT_CORE)
                resource.setrlimit(resource.RLIMIT_CORE, (most, most))
                self.run(signal.SIGABRT)

            os.waitpid(self.child(job, body), 0)
            cores = list(Path(folder).iterdir())
            if not cores:
                pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii").strip()
                return {"why_not": f"no core was left: core_pattern is {pattern!r}, or RLIMIT_CORE forbids it"}
            return {str(kind): data.hex() for kind, data in notes(cores[0].read_bytes())}

    def altstack(self, job: dict[str, Any]) -> dict[str, Any]:
        """The errno of sigaltstack(2) with a stack of ``size`` bytes."""
        stack = struct.pack("<QiiQ", self.at, 0, 0, job["size"])
        failed = self.libc.sigaltstack(stack, None)
        return {"errno": ctypes.get_errno() if failed else 0}

    def permission(self, job: dict[str, Any]) -> dict[str, Any]:
        """The errno of a permission request."""
        option = ARCH_REQ_XCOMP_GUEST_PERM if job["guest"] else ARCH_REQ_XCOMP_PERM
        failed = self.libc.syscall(NR_ARCH_PRCTL, option, ctypes.c_ulong(job["number"]))
        return {"errno": ctypes.get_errno() if failed else 0}


def notes(core: bytes) -> list[tuple[int, bytes]]:
    """Return type and contents of the notes of an ELF core called LINUX."""
    found = []
    (start,) = struct.unpack_from("<Q", core, 32)
    size, count = struct.unpack_from("<HH", core, 54)
    for i in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", core, start + i * size)
        end = offset + length
        while kind == 4 and offset < end:
            name, length, note = struct.unpack_from("<III", core, offset)
            data = offset + 12 + (name + 3 & ~3)
            if core[offset + 12 : offset + 17] == b"LINUX":
                found.append((note, core[data : data + length]))
            offset = data + (length + 3 & ~3)
    return found


def main() -> None:
    asked = json.load(sys.stdin)
    answers = []
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    program = Program(asked["mask"], asked["frame"])
    for job in asked["jobs"]:
        try:
            answers.append(getattr(program, job["do"])(job))
        except OSError as error:
            answers.append({"why_not": str(error)})
    json.dump(answers, sys.stdout)


def run(mask: int, frame: int, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Do *jobs* with RFBM *mask* and frames of *frame* bytes, and return what came of each."""
    asked = json.dumps({"mask": mask, "frame": frame, "jobs": jobs})
    done = subprocess.run(  # our own interpreter on this file
        [sys.executable, __file__], input=asked, capture_output=True, text=True, check=True, timeout=60
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


if __name__ == "__main__":
    main()
