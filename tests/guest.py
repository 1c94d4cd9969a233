"""A real vCPU of this machine's KVM, without memory or code: its registers are all that is asked of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator

import pytest

from fpstate.errors import CannotTell
from fpstate.linux.observe.kvm import open_kvm

KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_CHECK_EXTENSION = 0xAE01, 0xAE41, 0xAE03  # <linux/kvm.h>
KVM_GET_SUPPORTED_CPUID, KVM_SET_CPUID2, KVM_SET_XCRS = 0xC008AE05, 0x4008AE90, 0x4188AEA7
KVM_CAP_XSAVE2 = 208


@contextlib.contextmanager
def vcpu() -> Iterator[int]:
    """Yield a vCPU's descriptor; skip where there can be none."""
    with contextlib.ExitStack() as held:
        try:
            machine = fcntl.ioctl(held.enter_context(open_kvm()), KVM_CREATE_VM, 0)
        except (CannotTell, OSError) as missing:
            pytest.skip(f"needs KVM: {missing}")
        held.callback(os.close, machine)
        made = fcntl.ioctl(machine, KVM_CREATE_VCPU, 0)
        held.callback(os.close, made)
        yield made


def enable_everything(made: int) -> int:
    """Give a vCPU the CPUID that KVM supports, without which it has x87 and SSE alone, and the XCR0 of that; return it.

    The image that KVM hands out is cut to what the vCPU's CPUID has (Linux kvm_vcpu_ioctl_x86_get_xsave2).
    """
    table = bytearray(struct.pack("=II", 256, 0) + bytes(256 * 40))  # struct kvm_cpuid2
    with open_kvm() as device:
        fcntl.ioctl(device, KVM_GET_SUPPORTED_CPUID, table)
    fcntl.ioctl(made, KVM_SET_CPUID2, table)
    (count,) = struct.unpack_from("=I", table)
    entries = [struct.unpack_from("=7I", table, 8 + 40 * i) for i in range(count)]
    xcr0 = next(eax for leaf, subleaf, _, eax, *_ in entries if (leaf, subleaf) == (0xD, 0))
    xcrs = struct.pack("=IIIIQ", 1, 0, 0, 0, xcr0).ljust(0x188, b"\0")  # struct kvm_xcrs
    fcntl.ioctl(made, KVM_SET_XCRS, xcrs)
    return int(xcr0)


def xsave2_size() -> int:
    """Return what KVM_CAP_XSAVE2 says in bytes."""
    with open_kvm() as device:
        return fcntl.ioctl(device, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2)
