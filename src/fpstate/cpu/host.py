"""The CPU under us: CPUID and XGETBV, executed.

Python has no CPUID instruction, so a few bytes of machine code are put into a page of memory, which is made executable
only once it can no longer be written (a hardened kernel refuses memory that is both).  Where even that is refused, the
kernel's cpuid driver answers in its place; it cannot execute XGETBV, so XCR0 then stays unknown.

Sources: Intel SDM volume 2, CPUID, for the ends of the sub-leaf lists; AMD APM volume 3, appendix E, for 8000_001DH;
the System V x86-64 ABI for the registers; Linux ``arch/x86/kernel/cpuid.c`` and ``msr.c`` for the drivers' offsets.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Final

from fpstate.cpu.dump import Dump, Leaves, Registers
from fpstate.errors import UnreadableInput

__all__ = ["OSXSAVE", "read_host", "walk", "why_not_x86_64"]

OSXSAVE: Final = 1 << 27
"""CPUID.1:ECX[27]: the kernel has set CR4.OSXSAVE, so that XGETBV and XCR0 exist."""

_Cpuid = Callable[[int, int], Registers]

_PAGE: Final = 4096
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4  # <asm-generic/mman-common.h>
_MAP_PRIVATE_ANONYMOUS: Final = 0x02 | 0x20  # <asm-generic/mman.h>

# void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
_CPUID_CODE: Final = bytes.fromhex(
    "f30f1efa"  # endbr64: the page may be called with indirect branch tracking on
    "53"  #       push rbx: CPUID overwrites it, the ABI keeps it
    "89f8"  #     mov eax, edi
    "89f1"  #     mov ecx, esi
    "4989d0"  #   mov r8, rdx
    "0fa2"  #     cpuid
    "418900"  #   mov [r8], eax
    "41895804"  # mov [r8+4], ebx
    "41894808"  # mov [r8+8], ecx
    "4189500c"  # mov [r8+12], edx
    "5b"  #       pop rbx
    "c3"  #       ret
)
# uint64_t xgetbv(uint32_t index)
_XGETBV_CODE: Final = bytes.fromhex(
    "f30f1efa"  # endbr64
    "89f9"  #     mov ecx, edi
    "0f01d0"  #   xgetbv
    "48c1e220"  # shl rdx, 32
    "4809d0"  #   or rax, rdx
    "c3"  #       ret
)
_XGETBV_AT: Final = 64

_HYPERVISOR: Final = 1 << 31  # CPUID.1:ECX
_XSAVES: Final = 1 << 3  # CPUID.(0DH,1):EAX
_IA32_XSS: Final = 0xDA0

_MOST_SUBLEAVES: Final = 64
_LARGEST_INDEX: Final = 0xFF
"""Leaves read of one range at most: a hypervisor that claims four thousand million of them gets no more."""

_LAST_SUBLEAF_IN_EAX: Final = frozenset({0x7, 0x14, 0x1D, 0x1E, 0x24})
_ENDS_AT: Final[dict[int, tuple[int, int]]] = {
    # leaf: (register, field that is 0 in the first sub-leaf that means nothing)
    0x4: (0, 0x1F),
    0xB: (2, 0xFF00),
    0x1F: (2, 0xFF00),
    0x8000_001D: (0, 0x1F),
}


def why_not_x86_64() -> str | None:
    """Say why nothing about x86 state can be read here; None on 64-bit x86 Linux."""
    if sys.platform != "linux":
        return f"this host does not run Linux ({sys.platform})"
    machine = os.uname().machine
    if machine != "x86_64":
        return f"this host is not x86-64 ({machine})"
    if sys.maxsize < 1 << 32:
        return "this Python is a 32-bit program"
    return None


def read_host() -> Dump:
    """Read CPUID, XCR0 and, where the msr driver lets us, IA32_XSS of one CPU of this host.

    Raises:
        UnreadableInput: the host is not x86-64 Linux, or neither executable memory nor the cpuid driver can be had.
    """
    refusal = why_not_x86_64()
    if refusal:
        raise UnreadableInput(refusal, cure="give --cpu NAME or a CPUID file")
    with _pinned() as cpu:
        try:
            leaves, xcr0 = _read_by_execution()
            notes: tuple[str, ...] = ()
        except (OSError, ImportError, MemoryError) as refused:
            leaves, xcr0 = _read_by_driver(cpu, refused), None
            notes = (f"read from /dev/cpu/{cpu}/cpuid, which does not tell XCR0: executable memory is refused",)
        xss = _read_xss(cpu) if leaves.get((0xD, 1), (0, 0, 0, 0))[0] & _XSAVES else None
    return Dump(format="host", leaves=leaves, label="this host", xcr0=xcr0, xss=xss, os_linux=True, notes=notes)


@contextlib.contextmanager
def _pinned() -> Iterator[int]:
    """Keep the calling thread on one of its CPUs: the leaves must all be one CPU's.

    Yields:
        The CPU's number; 0 where the kernel does not let us choose.
    """
    try:
        allowed = os.sched_getaffinity(0)
        cpu = min(allowed)
        os.sched_setaffinity(0, {cpu})
    except OSError:
        yield 0
        return
    try:
        yield cpu
    finally:
        with contextlib.suppress(OSError):  # the CPUs may have been taken away meanwhile
            os.sched_setaffinity(0, allowed)


def _read_by_execution() -> tuple[Leaves, int | None]:
    """Return the leaves and XCR0 by running the machine code.

    Raises:
        OSError: the memory is refused.
        ImportError, MemoryError: ctypes is missing, or is itself refused the executable memory that it asks for.
    """
    import ctypes  # noqa: PLC0415 - costs more than the reading itself

    with _executable(_CPUID_CODE.ljust(_XGETBV_AT, b"\xcc") + _XGETBV_CODE) as address:
        registers = (ctypes.c_uint32 * 4)()
        run = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(address)
        xgetbv = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint32)(address + _XGETBV_AT)

        def cpuid(leaf: int, subleaf: int) -> Registers:
            run(leaf, subleaf, ctypes.addressof(registers))
            eax, ebx, ecx, edx = registers
            return eax, ebx, ecx, edx

        leaves = walk(cpuid)
        enabled = leaves.get((1, 0), (0, 0, 0, 0))[2] & OSXSAVE
        return leaves, int(xgetbv(0)) if enabled else None


@contextlib.contextmanager
def _executable(code: bytes) -> Iterator[int]:
    """Yield the address of a page that holds *code*, written first and executable, no longer writable, after that.

    Raises:
        OSError: the kernel or a security module refuses the memory.
    """
    import ctypes  # noqa: PLC0415 - see _read_by_execution

    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype = pointer
    libc.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    libc.mprotect.argtypes = (pointer, size, number)
    libc.munmap.argtypes = (pointer, size)
    address = libc.mmap(None, _PAGE, _PROT_READ | _PROT_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    if address in {None, pointer(-1).value}:
        raise OSError(ctypes.get_errno(), "mmap is refused")
    try:
        ctypes.memmove(address, code, len(code))
        if libc.mprotect(address, _PAGE, _PROT_READ | _PROT_EXEC):
            raise OSError(ctypes.get_errno(), "mprotect(PROT_EXEC) is refused")
        yield address
    finally:
        libc.munmap(address, _PAGE)


def _read_by_driver(cpu: int, refused: BaseException) -> Leaves:
    """Return the leaves as the kernel's cpuid driver reads them, where *refused* kept us from doing it."""
    path = f"/dev/cpu/{cpu}/cpuid"
    try:
        with open(path, "rb", buffering=0) as device:  # noqa: PTH123 - a device, read at offsets

            def cpuid(leaf: int, subleaf: int) -> Registers:
                answer = os.pread(device.fileno(), 16, subleaf << 32 | leaf)
                eax, ebx, ecx, edx = (int.from_bytes(answer[at : at + 4], "little") for at in range(0, 16, 4))
                return eax, ebx, ecx, edx

            return walk(cpuid)
    except OSError as closed:
        raise UnreadableInput(
            f"CPUID of this host cannot be read: executing it needs executable memory ({refused}), and {path} "
            f"cannot be read ({closed.strerror})",
            cure="run as root with the cpuid driver loaded, or give --cpu NAME or a CPUID file",
        ) from closed


def _read_xss(cpu: int) -> int | None:
    """Return IA32_XSS; None without the msr driver, the right to read it, or where a hypervisor refuses the MSR."""
    try:
        with open(f"/dev/cpu/{cpu}/msr", "rb", buffering=0) as device:  # noqa: PTH123 - a device, read at an offset
            return int.from_bytes(os.pread(device.fileno(), 8, _IA32_XSS), "little")
    except OSError:
        return None


def walk(cpuid: _Cpuid) -> Leaves:
    """Return the basic, extended and hypervisor leaves, each with the sub-leaves that its rule gives it."""
    leaves: dict[tuple[int, int], Registers] = {}
    for base in (0, 0x8000_0000):
        greatest = cpuid(base, 0)[0]
        if greatest < base:  # a CPU without extended leaves answers with something else
            continue
        for leaf in range(base, min(greatest, base + _LARGEST_INDEX) + 1):
            _read_leaf(cpuid, leaf, leaves)
    if leaves.get((1, 0), (0, 0, 0, 0))[2] & _HYPERVISOR:
        for leaf in (0x4000_0000, 0x4000_0001):
            leaves[leaf, 0] = cpuid(leaf, 0)
    return leaves


def _read_leaf(cpuid: _Cpuid, leaf: int, leaves: dict[tuple[int, int], Registers]) -> None:
    """Add *leaf* to *leaves*, sub-leaf 0 first, then as far as its own rule says."""
    first = leaves[leaf, 0] = cpuid(leaf, 0)
    if leaf == 0xD:
        last = _MOST_SUBLEAVES - 1
    elif leaf in _LAST_SUBLEAF_IN_EAX:
        last = min(first[0], _MOST_SUBLEAVES - 1)
    elif leaf in _ENDS_AT:
        last = _MOST_SUBLEAVES - 1
    else:
        return
    register, field = _ENDS_AT.get(leaf, (0, 0))
    for subleaf in range(1, last + 1):
        if field and not leaves[leaf, subleaf - 1][register] & field:
            break
        leaves[leaf, subleaf] = cpuid(leaf, subleaf)
