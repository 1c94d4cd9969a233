"""What Linux checks of an image that user space hands in: PTRACE_SETREGSET, KVM_SET_XSAVE and rt_sigreturn.

The rules are rows, `RULES`; each ``check_`` function returns the first one that an image breaks, as a `Finding`, or
None.  Sources: Linux 7.2 ``arch/x86/kernel/fpu/xstate.c``, ``regset.c``, ``signal.c`` and ``core.c``; what a real 6.18
answered is in ``tests/linux/test_copyin.py``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from fpstate.isa import Capabilities, Fault, Rule, masks
from fpstate.isa.header import Header, check_compacted, check_standard
from fpstate.isa.mxcsr import check_mxcsr
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, MAGIC2_SIZE
from fpstate.xfeatures import AVX, COMPACTED, LEGACY, LEGACY_SIZE, MIN_SIZE, SOFTWARE, SSE, bits

__all__ = [
    "MXCSR_USERS",
    "RULES",
    "Finding",
    "check_kvm",
    "check_ptrace",
    "check_sigreturn",
    "check_xstate_in_sigframe",
]

MXCSR_USERS: Final = LEGACY | AVX
"""x87, SSE and AVX: where XSTATE_BV sets one of them, MXCSR is copied and checked."""


def _copy_rules(way: str, where: str) -> tuple[Rule, ...]:
    """Return the rules that ptrace and KVM share: copy_uabi_to_xstate()."""
    header = "validate_user_xstate_header()"
    return (
        Rule(
            f"{way}-features",
            "EINVAL",
            f"XSTATE_BV must set no bit outside the user features of {where}",
            header,
            "clear the bit; a dynamic feature needs permission and first use",
        ),
        Rule(
            f"{way}-xcomp-bv",
            "EINVAL",
            "XCOMP_BV must be 0: the format is the standard one",
            header,
            "convert the image to standard format",
        ),
        Rule(f"{way}-reserved", "EINVAL", "header bytes 16 to 63 must be 0", header, "zero the bytes"),
        Rule(
            f"{way}-mxcsr",
            "EINVAL",
            "MXCSR must set no bit outside MXCSR_MASK if XSTATE_BV sets x87, SSE or AVX",
            "copy_uabi_to_xstate()",
            "clear the bit",
        ),
    )


def _rows() -> tuple[Rule, ...]:
    ptrace, kvm = "xstateregs_set()", "fpu_copy_uabi_to_guest_fpstate()"
    frame, restore = "check_xstate_in_sigframe()", "restore_fpregs_from_user()"
    kept = "only x87 and SSE are restored, all else is initialised"
    return (
        Rule(
            "ptrace-length",
            "EINVAL",
            "the length must be a multiple of 8",
            "ptrace_regset()",
            "hand in the whole regset",
        ),
        Rule("ptrace-size", "EFAULT", "the length must reach the regset's size", ptrace, "hand in the whole image"),
        *_copy_rules("ptrace", "the task"),
        Rule(
            "kvm-size",
            "EFAULT",
            "the image must have the size of KVM_CAP_XSAVE2",
            "memdup_user()",
            "pad the image with zeros",
        ),
        Rule(
            "kvm-xcr0",
            "EINVAL",
            "XSTATE_BV must set no bit outside the XCR0 that KVM supports",
            kvm,
            "clear the bit: the guest loses the component",
        ),
        *_copy_rules("kvm", "the vCPU"),
        Rule("sigreturn-read", "SIGSEGV", "the frame must be readable", frame, "do not shorten the frame"),
        Rule(
            "sigreturn-magic1",
            "fx-only",
            f"magic1 must be {FP_XSTATE_MAGIC1:#x}: else {kept}",
            frame,
            "write what the kernel wrote there",
        ),
        Rule(
            "sigreturn-size",
            "fx-only",
            f"xstate_size must be 576 or more, and at most the task's and extended_size: else {kept}",
            frame,
            "restore the software bytes",
        ),
        Rule(
            "sigreturn-magic2",
            "fx-only",
            f"{FP_XSTATE_MAGIC2:#x} must stand at xstate_size: else {kept}",
            frame,
            "write what the kernel wrote there",
        ),
        Rule("sigreturn-header", "SIGSEGV", "XRSTOR must accept the header", restore, "restore the header"),
        Rule("sigreturn-mxcsr", "SIGSEGV", "MXCSR must set no bit outside MXCSR_MASK", restore, "clear the bit"),
    )


RULES: Final = {rule.id: rule for rule in _rows()}
"""Every rule by its id, in the order in which the kernel checks those of one way; ``vector`` is the errno or signal,
``source`` the kernel function."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that an image breaks.

    Attributes:
        rule: which.
        detail: what was found.
        bit: the offending bit of a field, or None.
        offset: the offending byte of the image, or None.
    """

    rule: Rule
    detail: str
    bit: int | None = None
    offset: int | None = None

    @property
    def effect(self) -> str:
        """What comes of it: an errno, a signal, or ``fx-only``."""
        return self.rule.vector

    def __str__(self) -> str:
        rule = self.rule
        return f"{rule.vector}: {self.detail}: {rule.text} ({rule.id}; Linux {rule.source}); {rule.cure}"


def _finding(rule: str, detail: str, bit: int | None = None, offset: int | None = None) -> Finding:
    return Finding(RULES[rule], detail, bit, offset)


def _of_fault(rule: str, fault: Fault) -> Finding:
    return Finding(RULES[rule], fault.detail, fault.bit, fault.offset)


def _header(image: bytes) -> Header:
    return Header(*struct.unpack_from("<QQ48s", image, LEGACY_SIZE))


def _bad_field(rule: str, name: str, offset: int, bad: int) -> Finding | None:
    if not bad:
        return None
    bit = next(bits(bad))
    return _finding(rule, f"{name} sets bit {bit}", bit, offset + bit // 8)


def _bad_mxcsr(rule: str, image: bytes, mask: int) -> Finding | None:
    try:
        check_mxcsr(struct.unpack_from("<I", image, 24)[0], mask)
    except Fault as fault:
        return _of_fault(rule, fault)
    return None


def _copy(way: str, image: bytes, header: Header, features: int, mxcsr_mask: int) -> Finding | None:
    """Check what copy_uabi_to_xstate() checks."""
    outside = masks.complement(features)
    found = _bad_field(f"{way}-features", "XSTATE_BV", LEGACY_SIZE, header.xstate_bv & outside)
    found = found or _bad_field(f"{way}-xcomp-bv", "XCOMP_BV", LEGACY_SIZE + 8, header.xcomp_bv)
    if found is None and any(header.reserved):
        index = 16 + next(i for i, byte in enumerate(header.reserved) if byte)
        found = _finding(f"{way}-reserved", f"header byte {index} is not 0", offset=LEGACY_SIZE + index)
    if found is None and header.xstate_bv & MXCSR_USERS:
        found = _bad_mxcsr(f"{way}-mxcsr", image, mxcsr_mask)
    return found


def check_ptrace(image: bytes, *, features: int, size: int, mxcsr_mask: int) -> Finding | None:
    """Return the first rule that PTRACE_SETREGSET(NT_X86_XSTATE) finds broken.

    Args:
        image: what iov_base and iov_len name.
        features: the task's ``user_xfeatures``.
        size: bytes of the regset: the largest user image, also for a task that has less.
        mxcsr_mask: the bits that MXCSR has.
    """
    if len(image) % 8:
        return _finding("ptrace-length", f"iov_len is {len(image)}")
    if len(image) < size:
        return _finding("ptrace-size", f"iov_len is {len(image)}, the regset has {size}")
    return _copy("ptrace", image, _header(image), features, mxcsr_mask)


def check_kvm(
    image: bytes, *, supported_xcr0: int, features: int, uabi_size: int, mxcsr_mask: int, xfd: int = 0
) -> Finding | None:
    """Return the first rule that KVM_SET_XSAVE finds broken.

    Args:
        image: what the ioctl points to.
        supported_xcr0: what KVM supports: KVM_X86_XCOMP_GUEST_SUPP.
        features: the ``user_xfeatures`` of the vCPU's buffer: without a dynamic feature that is not expanded.
        uabi_size: bytes that the ioctl reads: 4096, or what KVM_CAP_XSAVE2 says.
        mxcsr_mask: the bits that MXCSR has.
        xfd: the guest's IA32_XFD, whose components KVM drops from XSTATE_BV.
    """
    if len(image) < uabi_size:
        return _finding("kvm-size", f"the image has {len(image)} bytes of {uabi_size}")
    header = _header(image)
    header = header._replace(xstate_bv=header.xstate_bv & masks.complement(xfd))
    bad = header.xstate_bv & masks.complement(supported_xcr0)
    found = _bad_field("kvm-xcr0", "XSTATE_BV", LEGACY_SIZE, bad)
    return found or _copy("kvm", image, header, features, mxcsr_mask)


def check_sigreturn(
    image: bytes, *, caps: Capabilities | None, xcr0: int, user_xfeatures: int, user_size: int, mxcsr_mask: int
) -> Finding | None:
    """Return the first rule that rt_sigreturn finds broken in the image of a 64-bit frame.

    The kernel looks at the software bytes, the CPU at the rest.  XFD never strikes: what it disables is not in
    *user_xfeatures*.

    Args:
        image: the frame from ``uc_mcontext.fpstate`` on, magic2 included.
        caps: the CPU; None if it is not known: then one with XSAVEC, and no place of a component is looked at.
        xcr0: XCR0.
        user_xfeatures: the task's.
        user_size: bytes of its image.
        mxcsr_mask: the bits that MXCSR has.
    """
    found = check_xstate_in_sigframe(image, user_size)
    if found is not None and found.effect == "fx-only":
        return _bad_mxcsr("sigreturn-mxcsr", image, mxcsr_mask) or found
    if found is not None:
        return found
    (features,) = struct.unpack_from("<Q", image, SOFTWARE + 8)
    return _bad_for_xrstor(image, caps, xcr0, features & user_xfeatures, mxcsr_mask)


def check_xstate_in_sigframe(image: bytes, user_size: int) -> Finding | None:
    """Return the first rule that the software bytes around a frame's image break: what the kernel itself looks at."""
    if len(image) < LEGACY_SIZE:
        return _finding("sigreturn-read", f"the frame has {len(image)} bytes of {LEGACY_SIZE}")
    magic1, extended, _, xstate_size = struct.unpack_from("<IIQI", image, SOFTWARE)
    found = _bad_software_bytes(magic1, extended, xstate_size, user_size)
    if found is None and len(image) < user_size + MAGIC2_SIZE:
        return _finding("sigreturn-read", f"the frame has {len(image)} bytes of {user_size + MAGIC2_SIZE}")
    return found or _bad_magic2(image, xstate_size)


def _bad_for_xrstor(image: bytes, caps: Capabilities | None, xcr0: int, rfbm: int, mxcsr_mask: int) -> Finding | None:
    """Check what XRSTOR checks of the frame."""
    header = _header(image)
    loaded = masks.loaded(rfbm, header.xstate_bv)
    try:
        if not header.xcomp_bv & COMPACTED:
            check_standard(header, xcr0)
        elif caps is not None and not caps.has("XSAVEC"):
            return _finding("sigreturn-header", "XCOMP_BV[63] is 1, and the CPU has no XSAVEC", 63, 527)
        else:
            check_compacted(header, xcr0)
    except Fault as fault:
        return _of_fault("sigreturn-header", fault)
    if header.xcomp_bv and caps is not None:
        for bit, offset, size in caps.compacted(header.xcomp_bv & ~COMPACTED).slots:
            if loaded >> bit & 1 and offset + size > len(image):
                return _finding("sigreturn-read", f"component {bit} ends at {offset + size}", bit, offset)
    checked = loaded & SSE if header.xcomp_bv else rfbm & (SSE | AVX)
    return _bad_mxcsr("sigreturn-mxcsr", image, mxcsr_mask) if checked else None


def _bad_software_bytes(magic1: int, extended: int, size: int, user_size: int) -> Finding | None:
    if magic1 != FP_XSTATE_MAGIC1:
        return _finding("sigreturn-magic1", f"magic1 is {magic1:#x}", offset=SOFTWARE)
    if not MIN_SIZE <= size <= min(user_size, extended):
        detail = f"xstate_size is {size}, the task's {user_size}, extended_size {extended}"
        return _finding("sigreturn-size", detail, offset=SOFTWARE + 16)
    return None


def _bad_magic2(image: bytes, size: int) -> Finding | None:
    magic2 = int.from_bytes(image[size : size + MAGIC2_SIZE], "little")
    if magic2 != FP_XSTATE_MAGIC2:
        return _finding("sigreturn-magic2", f"the word at {size} is {magic2:#x}", offset=size)
    return None
