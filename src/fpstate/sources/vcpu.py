"""The extended state of a vCPU: from its file descriptor, or from a file with what KVM_GET_XSAVE gave.

KVM hands out user components in the standard format of the host, with XCR0 and the MSRs apart: supervisor components
are never in the image (Linux ``kvm_vcpu_ioctl_x86_get_xsave2``, ``copy_xstate_to_uabi_buf``).  It cuts the image to
what the vCPU's CPUID has, to x87 and SSE before KVM_SET_CPUID2; what XCR0 of the guest has not can be in it.

Sources: Linux ``Documentation/virt/kvm/api.rst`` (4.42, 4.43, 4.68, 4.134), ``<linux/kvm.h>``, ``<asm/kvm.h>``.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

from fpstate import registers as regs
from fpstate.errors import CannotTell, UnreadableInput, UsageError
from fpstate.isa.control import MSRS
from fpstate.linux.kvm import XSAVE_IOCTL_SIZE
from fpstate.sources.capture import Capture, Thread
from fpstate.sources.input import Input
from fpstate.sources.process import host_cpu, require_linux
from fpstate.xfeatures import CET, LEGACY, LEGACY_SIZE, MIN_SIZE, SOFTWARE, USER, XTILEDATA, bits

__all__ = ["capture_vcpu", "read", "set_xsave", "sniff"]

# <linux/kvm.h>: _IOR, _IOW and _IOWR numbers of KVMIO = 0xae
_KVM_GET_XSAVE, _KVM_SET_XSAVE, _KVM_GET_XSAVE2 = 0x9000AEA4, 0x5000AEA5, 0x9000AECF
_KVM_GET_XCRS: Final = 0x8188AEA6
_KVM_GET_MSRS: Final = 0xC008AE88
_KVM_GET_ONE_REG: Final = 0x4010AEAB
_KVM_REG_GUEST_SSP: Final = 0x2030000300000000  # KVM_X86_REG_KVM(KVM_REG_GUEST_SSP), Linux 6.18
_SIZEOF_XCRS, _XCR = 0x188, 16  # struct kvm_xcrs, struct kvm_xcr

_LARGEST: Final = 1 << 16
"""Bytes offered to KVM_GET_XSAVE2: five times what any CPU's components take."""
_MXCSR_MASKS: Final = range(regs.MXCSR_MASK_DEFAULT, 1 << 18)


def capture_vcpu(fd: int, *, name: str = "vCPU") -> Capture:
    """Return the state of the vCPU with descriptor *fd*: one thread.

    Its `enabled` is the guest's XCR0; `values` has those of ``xss``, ``xfd``, ``xfd_err``, ``s_cet``, ``u_cet``,
    ``pl0_ssp`` to ``pl3_ssp``, ``interrupt_ssp_table`` and ``ssp`` that KVM tells of this vCPU.  The ioctls wait while
    another thread is inside KVM_RUN.

    Args:
        fd: what KVM_CREATE_VCPU returned, in the process that made it.
        name: what to call it.

    Raises:
        UsageError: the descriptor is no vCPU's, or another process made it.
        CannotTell: KVM refuses the state, as it does of a confidential guest.
    """
    require_linux()
    image = _xsave(fd)
    xcr0 = _xcr0(fd)
    values = _msrs(fd)
    cpu, notes = host_cpu()
    found = int.from_bytes(image[SOFTWARE : SOFTWARE + 8], "little") if xcr0 is None else xcr0
    thread = Thread(None, memoryview(image), name=name, enabled=found or None, values=values)
    return Capture(name, "vcpu", [thread], cpu, notes=notes)


def set_xsave(fd: int, image: bytes) -> None:
    """Hand *image* to a vCPU: KVM_SET_XSAVE, which reads what KVM_GET_XSAVE2 gives in bytes; zeros are added.

    Raises:
        OSError: KVM refuses; `fpstate.linux.copyin.check_kvm` says by which rule.
        UsageError: the descriptor is no vCPU's, or another process made it.
    """
    import fcntl  # noqa: PLC0415 - not there on every platform

    size = len(_xsave(fd))
    fcntl.ioctl(fd, _KVM_SET_XSAVE, bytearray(image.ljust(max(size, XSAVE_IOCTL_SIZE), b"\0")))


def _ioctl(fd: int, request: int, argument: bytearray) -> int:
    """Call ioctl(2); *argument* is changed in place.

    Raises:
        OSError: KVM does not do that for this vCPU.
        UsageError: the descriptor is no vCPU's, or another process made it.
    """
    import fcntl  # noqa: PLC0415 - not there on every platform

    try:
        return int(fcntl.ioctl(fd, request, argument, True))
    except ValueError as error:
        raise UsageError(f"{fd} is no file descriptor") from error
    except OSError as error:
        if error.errno in {errno.ENOTTY, errno.EBADF}:
            raise UsageError(f"descriptor {fd} is no vCPU's", cure="give what KVM_CREATE_VCPU returned") from error
        if error.errno == errno.EIO:
            raise UsageError(
                f"descriptor {fd} is a vCPU that another process made, and KVM answers only that one",
                cure="call this in the process of the VMM",
            ) from error
        raise


def _xsave(fd: int) -> bytes:
    """Return what KVM_GET_XSAVE2 gives, or KVM_GET_XSAVE of Linux before 5.17.

    How much that is only the machine's descriptor tells (KVM_CAP_XSAVE2).  So it is read twice, over different bytes:
    what still has them was not written.
    """
    try:
        buffers = [bytearray([fill]) * _LARGEST for fill in (0xFF, 0)]
        for buffer in buffers:
            _ioctl(fd, _KVM_GET_XSAVE2, buffer)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTTY}:
            raise _refused(error) from error
        return _old_xsave(fd)
    unwritten = len(buffers[0]) - len(buffers[0].rstrip(b"\xff"))
    unwritten = min(unwritten, len(buffers[1]) - len(buffers[1].rstrip(b"\0")))
    return bytes(buffers[1][: max(_LARGEST - unwritten, XSAVE_IOCTL_SIZE)])


def _old_xsave(fd: int) -> bytes:
    buffer = bytearray(XSAVE_IOCTL_SIZE)
    try:
        _ioctl(fd, _KVM_GET_XSAVE, buffer)
    except OSError as error:
        raise _refused(error) from error
    return bytes(buffer)


def _refused(error: OSError) -> CannotTell:
    return CannotTell(
        f"KVM_GET_XSAVE2: {error.strerror}: a confidential guest's state is not the host's to read, and one that is "
        "larger than 4096 bytes needs Linux 5.17"
    )


def _xcr0(fd: int) -> int | None:
    """Return the guest's XCR0; None where KVM has none (a host without XSAVE, a confidential guest)."""
    xcrs = bytearray(_SIZEOF_XCRS)
    try:
        _ioctl(fd, _KVM_GET_XCRS, xcrs)
    except OSError:
        return None
    (count,) = struct.unpack_from("=I", xcrs)
    for i in range(min(count, 16)):
        number, _, value = struct.unpack_from("=IIQ", xcrs, 8 + _XCR * i)
        if number == 0:
            return int(value)
    return None


def _msrs(fd: int) -> dict[str, int]:
    """Return the MSRs around extended state that KVM tells, each asked on its own: KVM stops at the first unknown."""
    names = {number: name for number, (name, _) in MSRS.items()}
    names |= {r.msr: r.name for bit in bits(CET) for r in regs.of_component(bit) if r.msr is not None}
    found = {}
    for number, name in sorted(names.items()):
        request = bytearray(struct.pack("=IIIIQ", 1, 0, number, 0, 0))  # struct kvm_msrs with one kvm_msr_entry
        try:
            if _ioctl(fd, _KVM_GET_MSRS, request) == 1:
                (found[name],) = struct.unpack_from("=Q", request, 16)
        except OSError:  # this vCPU has it not
            continue
    ssp = _ssp(fd)
    return found if ssp is None else {**found, "ssp": ssp}


def _ssp(fd: int) -> int | None:
    """Return the guest's SSP (KVM_GET_ONE_REG, Linux 6.18); None where it has none."""
    import ctypes  # noqa: PLC0415 - loaded by what reads the CPU

    value = ctypes.c_uint64(0)
    try:
        _ioctl(fd, _KVM_GET_ONE_REG, bytearray(struct.pack("=QQ", _KVM_REG_GUEST_SSP, ctypes.addressof(value))))
    except OSError:
        return None
    return value.value


# -- files -----------------------------------------------------------------------------------------------------------


def sniff(source: Input) -> bool:
    """Tell whether *source* is what KVM_GET_XSAVE or KVM_GET_XSAVE2 gave: by its size, and by what KVM writes into it.

    4096 bytes, or, with AMX alone, more: then PTRACE_GETREGSET would have given the same.  The header is a standard
    one, without a component that the software bytes do not name (they name none in Linux before 5.16).
    """
    data = source.upto(_LARGEST + 1)
    if len(data) < XSAVE_IOCTL_SIZE or len(data) > _LARGEST or len(data) % 8:
        return False
    xstate_bv, xcomp_bv = struct.unpack_from("<QQ", data, LEGACY_SIZE)
    (mxcsr_mask,) = struct.unpack_from("<I", data, 28)
    (named,) = struct.unpack_from("<Q", data, SOFTWARE)
    if xcomp_bv or any(data[LEGACY_SIZE + 16 : MIN_SIZE]) or mxcsr_mask not in _MXCSR_MASKS:
        return False
    if named and (named & LEGACY != LEGACY or named & ~USER):
        return False
    if len(data) > XSAVE_IOCTL_SIZE and not named >> XTILEDATA & 1:
        return False
    return not xstate_bv & ~((named or USER) | LEGACY)


def read(source: Input) -> Capture:
    """Return the one vCPU of a file that `sniff` knows.

    Raises:
        UnreadableInput: it has less than 576 bytes.
    """
    name, data = source.name, source.upto(_LARGEST)[:_LARGEST]
    if len(data) < MIN_SIZE:
        raise UnreadableInput(f"{name} has {len(data)} bytes, and KVM_GET_XSAVE gives {XSAVE_IOCTL_SIZE}")
    (named,) = struct.unpack_from("<Q", data, SOFTWARE)
    notes = ["the layout is that of the host on which KVM_GET_XSAVE was called"]
    if len(data) > XSAVE_IOCTL_SIZE:
        notes.append("PTRACE_GETREGSET of a task gives the same bytes: it may be no vCPU's")
    thread = Thread(None, data, name="vCPU", offset=0, enabled=named or None)
    return Capture(name, "kvm-xsave", [thread], notes=tuple(notes))
