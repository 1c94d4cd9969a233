"""Numbers of the ELF notes of a core, which are those of ptrace's regsets (Linux ``include/uapi/linux/elf.h``)."""

from __future__ import annotations

from typing import Final

__all__ = [
    "NT_PRFPREG",
    "NT_PRPSINFO",
    "NT_PRSTATUS",
    "NT_PRXFPREG",
    "NT_X86_SHSTK",
    "NT_X86_XSAVE_LAYOUT",
    "NT_X86_XSTATE",
]

NT_PRSTATUS: Final = 1
NT_PRFPREG: Final = 2
NT_PRPSINFO: Final = 3
NT_PRXFPREG: Final = 0x46E62B7F
NT_X86_XSTATE: Final = 0x202
NT_X86_SHSTK: Final = 0x204
"""203H in CET patches that were never merged."""
NT_X86_XSAVE_LAYOUT: Final = 0x205
