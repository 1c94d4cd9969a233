"""Memory at addresses that the machine code knows: below 2 GiB where the kernel has room there.

What Python writes through is a `mmap.mmap`, what only needs an address is that plus `address_of`.  Executable memory is
written first and executable, no longer writable, after that, as in `fpstate.cpu.host`.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Final

from fpstate.errors import UnreadableInput

__all__ = ["NONE", "READ", "READ_EXECUTE", "READ_WRITE", "address_of", "libc", "map_private", "map_shared", "protect"]

NONE: Final = 0
READ: Final = 1  # <asm-generic/mman-common.h>
READ_WRITE: Final = 1 | 2
READ_EXECUTE: Final = 1 | 4

_MAP_SHARED, _MAP_PRIVATE, _MAP_ANONYMOUS = 0x01, 0x02, 0x20  # <asm-generic/mman.h>
_MAP_32BIT: Final = 0x40  # <asm/mman.h>: an address below 2 GiB


@cache
def libc() -> ctypes.CDLL:
    """Return the C library, with the types of what is called in it.

    Raises:
        UnreadableInput: it is a C library without one of them.
    """
    library = ctypes.CDLL(None, use_errno=True)
    pointer, size, number, long = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_long
    types: dict[str, tuple[type, ...]] = {
        "mprotect": (number, pointer, size, number),  # the result first
        "sigaltstack": (number, pointer, pointer),
        "getauxval": (ctypes.c_ulong, ctypes.c_ulong),
        "syscall": (long, long, long, pointer, pointer, size),
    }
    for name, (result, *arguments) in types.items():
        function = getattr(library, name, None)
        if function is None:
            raise UnreadableInput(f"instructions cannot be run here: the C library has no {name}")
        function.restype, function.argtypes = result, arguments
    return library


def map_private(size: int, protection: int = READ_WRITE) -> mmap.mmap:
    """Return *size* bytes of zeros, below 2 GiB if possible."""
    return _map(-1, size, _MAP_PRIVATE | _MAP_ANONYMOUS, protection)


def map_shared(descriptor: int, size: int) -> mmap.mmap:
    """Return the first *size* bytes of a file, below 2 GiB if possible: a second view is the same memory."""
    return _map(descriptor, size, _MAP_SHARED, READ_WRITE)


def _map(descriptor: int, size: int, flags: int, protection: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, size, flags=flags | _MAP_32BIT, prot=protection)
    except OSError:  # the lowest 2 GiB are full; only 32-bit mode needs them
        return mmap.mmap(descriptor, size, flags=flags, prot=protection)


def address_of(view: mmap.mmap) -> int:
    """Return where *view* lies; it must be writable."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def protect(address: int, size: int, protection: int) -> None:
    """Change the protection of whole pages.

    Raises:
        OSError: the kernel or a security module refuses.
    """
    if libc().mprotect(address, size, protection):
        number = ctypes.get_errno()
        raise OSError(number, "mprotect is refused")
