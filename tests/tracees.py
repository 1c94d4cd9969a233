"""Real processes to look into: threads with known registers, and processes in every state that a tracer can meet.

This is a program of its own: `Program` starts it.  Its threads load their registers with one XRSTOR and then run a few
bytes of machine code that touch none of them, until they are told to save them with one XSAVE.  Sources: the System V
x86-64 ABI, Linux ``<asm/unistd_64.h>``.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Self

__all__ = ["SLOT", "Program"]

SLOT = 1 << 14
"""Bytes for an image."""

# void go(void *in, void *out, volatile uint32_t flags[2])
GO = bytes.fromhex(
    "f30f1efa"  #     endbr64
    "4989d0"  #       mov r8, rdx
    "4989f1"  #       mov r9, rsi
    "b8ffffffff"  #   mov eax, -1
    "baffffffff"  #   mov edx, -1
    "480fae2f"  #     xrstor64 [rdi]
    "41c70001000000"  # mov dword [r8], 1
    "b818000000"  # again: mov eax, 24: sched_yield
    "0f05"  #         syscall
    "4183780400"  #   cmp dword [r8+4], 0
    "74f2"  #         je again
    "b8ffffffff"  #   mov eax, -1
    "baffffffff"  #   mov edx, -1
    "490fae21"  #     xsave64 [r9]
    "dbe3"  #         fninit
    "68801f0000"  #   push 0x1f80
    "0fae1424"  #     ldmxcsr [rsp]
    "58"  #           pop rax
    "c5f877"  #       vzeroupper
    "c3"  #           ret
)
# the parent of vfork(2) sleeps uninterruptibly until its child, which pauses for ever, ends
VFORK = bytes.fromhex("b83a0000000f0585c07509b8220000000f05ebf7c3")


def counter(at: int) -> bytes:
    """Return the code of a signal handler that counts at address *at*."""
    return b"\xf3\x0f\x1e\xfa\x48\xb8" + at.to_bytes(8, "little") + bytes.fromhex("f0ff00c3")  # lock inc dword [rax]


class Program:
    """A running process of this file; use it in a ``with``.

    Args:
        job: what it does: ``registers``, ``count``, ``handler``, ``vfork``.
        images: of its threads' registers, for ``registers`` and ``handler``.
        folder: where it runs; there the kernel leaves its core.
    """

    def __init__(self, job: str, images: Sequence[bytes] = (), *, folder: str | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=folder,
        )
        self.pid = self._process.pid
        try:
            self.tell([image.hex() for image in images])
            self.answer = self.hear()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            if self._process.poll() is None:
                os.killpg(self.pid, signal.SIGKILL)

    def tell(self, what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OSError(0, "the process cannot run its machine code here")
        return json.loads(line)

    def saved(self) -> list[bytes]:
        """Let the threads of ``registers`` save their registers and end; return the images."""
        self.tell(0)
        return [bytes.fromhex(text) for text in self.hear()]

    def wait_for(self, state: str, tid: int | None = None) -> None:
        """Wait until the first thread, or *tid*, is in *state* (proc(5))."""
        deadline = time.monotonic() + 10
        while self.state(tid) != state:
            assert time.monotonic() < deadline, f"it is in state {self.state(tid)}"
            time.sleep(0.001)

    def state(self, tid: int | None = None) -> str:
        with open(f"/proc/{tid or self.pid}/stat", encoding="ascii") as file:  # noqa: PTH123  polled
            return file.read().rpartition(") ")[2][:1]

    def kill(self) -> int:
        """Kill it and return its exit code."""
        self._process.kill()
        return self.ended()

    def ended(self) -> int:
        """Wait for its end and return its exit code, as its parent collects it."""
        return self._process.wait(timeout=10)


def put(code: bytes) -> tuple[mmap.mmap, int]:
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[: len(code)] = code
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(start), ctypes.c_size_t(mmap.PAGESIZE), 5):
        sys.exit(1)
    return memory, start


def say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def registers(images: list[str]) -> None:
    """Run a thread for each image; its registers are those of the image until the next line comes."""
    _kept, code = put(GO)
    go = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)(code)
    memory = mmap.mmap(-1, (2 * len(images) + 1) * SLOT)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    threads = []
    for i, image in enumerate(images):
        slot, flags = 2 * i * SLOT, 2 * len(images) * SLOT + 8 * i
        memory[slot : slot + len(image) // 2] = bytes.fromhex(image)
        threads.append(threading.Thread(target=go, args=(start + slot, start + slot + SLOT, start + flags)))
        threads[-1].start()
        while not memory[flags]:
            time.sleep(0.001)
    say([thread.native_id for thread in threads])
    sys.stdin.readline()
    for i in range(len(images)):
        memory[2 * len(images) * SLOT + 8 * i + 4] = 1
    for thread in threads:
        thread.join()
    say([memory[(2 * i + 1) * SLOT : (2 * i + 2) * SLOT].hex() for i in range(len(images))])


def count(_: list[str]) -> None:
    """Count the SIGRTMINs that come while a thread runs, until the next line comes."""
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    _kept, code = put(counter(ctypes.addressof(ctypes.c_char.from_buffer(memory))))
    handle = ctypes.CDLL(None).signal
    handle.argtypes = (ctypes.c_int, ctypes.c_void_p)
    handle(signal.SIGRTMIN, code)
    say(0)
    sys.stdin.readline()
    say(int.from_bytes(memory[:4], "little"))


def handler(images: list[str]) -> None:
    """Take SIGUSR1 while the registers are those of the first image, and stay in the handler for ever."""
    _kept, code = put(GO)
    _also, pause = put(bytes.fromhex("f30f1efab8220000000f05ebf7"))  # pause(2), again and again
    handle = ctypes.CDLL(None).signal
    handle.argtypes = (ctypes.c_int, ctypes.c_void_p)
    handle(signal.SIGUSR1, pause)
    memory = mmap.mmap(-1, 3 * SLOT)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    memory[: len(images[0]) // 2] = bytes.fromhex(images[0])
    say(code)
    ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 3)(code)(start, start + SLOT, start + 2 * SLOT)


def vfork(_: list[str]) -> None:
    _kept, code = put(VFORK)
    say(0)
    ctypes.CFUNCTYPE(None)(code)()


if __name__ == "__main__":
    {"registers": registers, "count": count, "handler": handler, "vfork": vfork}[sys.argv[1]](
        json.loads(sys.stdin.readline())
    )
    sys.stdin.readline()
