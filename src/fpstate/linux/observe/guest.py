"""The smallest KVM guest: one page of real-mode code that leaves the guest at every second instruction.

It exists to make a thread of ours do what a VMM's thread does: each KVM_RUN plugs the guest's fpstate in and out.
Sources: Linux ``Documentation/virt/kvm/api.rst``, ``<linux/kvm.h>``, ``<asm/kvm.h>``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from typing import Final

__all__ = ["run"]

# <linux/kvm.h>: _IO, _IOW and _IOR numbers of KVMIO = 0xae
_KVM_CREATE_VM: Final = 0xAE01
_KVM_CREATE_VCPU: Final = 0xAE41
_KVM_SET_TSS_ADDR: Final = 0xAE47
_KVM_RUN: Final = 0xAE80
_KVM_SET_USER_MEMORY_REGION: Final = 0x4020AE46
_KVM_SET_REGS: Final = 0x4090AE82
_KVM_GET_SREGS: Final = 0x8138AE83
_KVM_SET_SREGS: Final = 0x4138AE84
_SIZEOF_REGS, _SIZEOF_SREGS = 0x90, 0x138
_RIP, _RFLAGS = 0x80, 0x88  # struct kvm_regs
_CS_BASE, _CS_SELECTOR = 0, 12  # struct kvm_sregs begins with cs

_TSS_ADDRESS: Final = 0x10000000
"""Three pages that Intel CPUs without unrestricted guests need for real mode; anywhere outside the guest's memory."""
_PAGE: Final = 4096
_CODE: Final = bytes.fromhex(
    "e610"  # out 0x10, al: an exit to us
    "ebfc"  # jmp to it
)


def run(device: int, times: int) -> None:
    """Enter the guest *times* times through *device*, a descriptor of /dev/kvm.

    Raises:
        OSError: an ioctl fails; its ``filename`` is the ioctl's name.
    """
    with contextlib.ExitStack() as held:
        memory = held.enter_context(mmap.mmap(-1, _PAGE))
        memory.write(_CODE)
        machine = _ioctl(device, "KVM_CREATE_VM", _KVM_CREATE_VM, 0)
        held.callback(os.close, machine)
        _ioctl(machine, "KVM_SET_TSS_ADDR", _KVM_SET_TSS_ADDR, _TSS_ADDRESS)
        # struct kvm_userspace_memory_region: slot, flags, guest_phys_addr, memory_size, userspace_addr
        region = struct.pack("=IIQQQ", 0, 0, 0, _PAGE, _address(memory))
        _ioctl(machine, "KVM_SET_USER_MEMORY_REGION", _KVM_SET_USER_MEMORY_REGION, region)
        vcpu = _ioctl(machine, "KVM_CREATE_VCPU", _KVM_CREATE_VCPU, 0)
        held.callback(os.close, vcpu)
        _start_at_zero(vcpu)
        for _ in range(times):
            with contextlib.suppress(InterruptedError):  # the state was plugged in and out all the same
                _ioctl(vcpu, "KVM_RUN", _KVM_RUN, 0)


def _start_at_zero(vcpu: int) -> None:
    """Point the vCPU, which starts as hardware does at the end of memory, to guest address 0."""
    special = bytearray(_SIZEOF_SREGS)
    _ioctl(vcpu, "KVM_GET_SREGS", _KVM_GET_SREGS, special)
    struct.pack_into("=Q", special, _CS_BASE, 0)
    struct.pack_into("=H", special, _CS_SELECTOR, 0)
    _ioctl(vcpu, "KVM_SET_SREGS", _KVM_SET_SREGS, special)
    general = bytearray(_SIZEOF_REGS)
    struct.pack_into("=Q", general, _RIP, 0)
    struct.pack_into("=Q", general, _RFLAGS, 2)
    _ioctl(vcpu, "KVM_SET_REGS", _KVM_SET_REGS, general)


def _ioctl(descriptor: int, name: str, request: int, argument: int | bytes | bytearray) -> int:
    import fcntl  # noqa: PLC0415 - not there on every platform

    try:
        answer = fcntl.ioctl(descriptor, request, argument)
    except OSError as error:
        error.filename = name
        raise
    return answer if isinstance(answer, int) else 0


def _address(memory: mmap.mmap) -> int:
    import ctypes  # noqa: PLC0415 - see the package: importing it stays cheap

    view = ctypes.c_char.from_buffer(memory)
    try:
        return ctypes.addressof(view)
    finally:
        del view  # the mapping cannot be closed while a view of it lives
