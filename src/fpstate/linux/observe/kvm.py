"""What KVM offers its guests, asked of /dev/kvm itself; no virtual machine is made for it.

Sources: Linux ``Documentation/virt/kvm/api.rst``, ``<linux/kvm.h>``, ``<asm/kvm.h>``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Iterator
from typing import Final

from fpstate.cpu.dump import Leaves
from fpstate.errors import CannotTell
from fpstate.linux.observe.fact import FAILURES, Observation, Probe, Value, why

__all__ = ["PROBE", "open_kvm"]

# <linux/kvm.h>: _IO, _IOW and _IOWR numbers of KVMIO = 0xae
_KVM_CHECK_EXTENSION: Final = 0xAE03
_KVM_GET_SUPPORTED_CPUID: Final = 0xC008AE05
_KVM_GET_DEVICE_ATTR: Final = 0x4018AEE2
_KVM_CAP_XSAVE2: Final = 208
_KVM_X86_GRP_SYSTEM, _KVM_X86_XCOMP_GUEST_SUPP = 0, 0  # <asm/kvm.h>

_CPUID2_HEADER, _CPUID_ENTRY = 8, 40  # sizeof struct kvm_cpuid2 without entries, struct kvm_cpuid_entry2
_ENTRIES: Final = (256, 4096)
"""Room offered for CPUID entries, tried in turn: the kernel's own limit is 256 today."""


@contextlib.contextmanager
def open_kvm() -> Iterator[int]:
    """Yield a descriptor of /dev/kvm.

    Raises:
        CannotTell: the device is missing, or we may not open it.
    """
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except PermissionError as error:
        raise CannotTell(
            f"/dev/kvm: {error.strerror}", cure="run as root or join the group that owns /dev/kvm"
        ) from error
    except OSError as error:
        raise CannotTell(why(error, "/dev/kvm")) from error
    try:
        yield device
    finally:
        os.close(device)


def _xsave2(device: int) -> int:
    import fcntl  # noqa: PLC0415 - not there on every platform

    size = fcntl.ioctl(device, _KVM_CHECK_EXTENSION, _KVM_CAP_XSAVE2)
    if size <= 0:
        raise CannotTell("this KVM has no KVM_CAP_XSAVE2: Linux before 5.17 does not have it")
    return size


def _guest_supp(device: int) -> int:
    import ctypes  # noqa: PLC0415 - see the package: importing it stays cheap
    import fcntl  # noqa: PLC0415 - not there on every platform

    mask = ctypes.c_uint64(0)
    # struct kvm_device_attr: flags, group, attr, addr
    attribute = struct.pack("=IIQQ", 0, _KVM_X86_GRP_SYSTEM, _KVM_X86_XCOMP_GUEST_SUPP, ctypes.addressof(mask))
    try:
        fcntl.ioctl(device, _KVM_GET_DEVICE_ATTR, attribute)
    except OSError as error:
        raise CannotTell(f"{error.strerror}: Linux before 5.17 does not have it") from error
    return mask.value


def _supported_cpuid(device: int) -> Leaves:
    """Return what KVM_GET_SUPPORTED_CPUID lists."""
    import fcntl  # noqa: PLC0415 - not there on every platform

    for room in _ENTRIES:
        table = bytearray(_CPUID2_HEADER + room * _CPUID_ENTRY)
        struct.pack_into("=I", table, 0, room)
        try:
            fcntl.ioctl(device, _KVM_GET_SUPPORTED_CPUID, table)
        except OSError as error:
            if error.errno == errno.E2BIG:
                continue
            raise
        (count,) = struct.unpack_from("=I", table)
        leaves = {}
        for at in range(_CPUID2_HEADER, _CPUID2_HEADER + min(count, room) * _CPUID_ENTRY, _CPUID_ENTRY):
            leaf, subleaf, _flags, eax, ebx, ecx, edx = struct.unpack_from("=7I", table, at)
            leaves[leaf, subleaf] = eax, ebx, ecx, edx
        return leaves
    raise CannotTell(f"KVM lists more than {_ENTRIES[-1]} CPUID entries")


def _leaf_d(device: int, subleaf: int) -> tuple[int, int, int, int]:
    registers = _supported_cpuid(device).get((0xD, subleaf))
    if registers is None:
        raise CannotTell(f"KVM offers its guests no CPUID.(0DH,{subleaf}): XSAVE is off")
    return registers


def _leaf_d_text(device: int, subleaf: int) -> str:
    names = ("eax", "ebx", "ecx", "edx")
    return " ".join(f"{name}={value:#x}" for name, value in zip(names, _leaf_d(device, subleaf), strict=True))


def _xss_bits(device: int) -> int:
    _, _, low, high = _leaf_d(device, 1)
    return high << 32 | low


_QUESTIONS: Final[dict[str, tuple[str, Callable[[int], Value]]]] = {
    "kvm_xsave2": ("KVM_CHECK_EXTENSION(KVM_CAP_XSAVE2)", _xsave2),
    "kvm_guest_supp": ("KVM_GET_DEVICE_ATTR(KVM_X86_XCOMP_GUEST_SUPP)", _guest_supp),
    "kvm_cpuid_d0": ("KVM_GET_SUPPORTED_CPUID, (0DH,0)", lambda device: _leaf_d_text(device, 0)),
    "kvm_cpuid_d1": ("KVM_GET_SUPPORTED_CPUID, (0DH,1)", lambda device: _leaf_d_text(device, 1)),
    "kvm_xss_bits": ("KVM_GET_SUPPORTED_CPUID, (0DH,1) EDX:ECX", _xss_bits),
}


def _ask_kvm(_seconds: float) -> list[Observation]:
    found = []
    with open_kvm() as device:
        for fact, (how, question) in _QUESTIONS.items():
            value, why_not = None, None
            try:
                value = question(device)
            except FAILURES as error:
                why_not = why(error, how)
            found.append(Observation(fact, value, how, why_not))
    return found


PROBE: Final = Probe({fact: how for fact, (how, _) in _QUESTIONS.items()}, _ask_kvm)
