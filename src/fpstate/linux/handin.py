"""What Linux would say to an image that user space hands in, given the CPU and the kernel: the numbers for `copyin`."""

from __future__ import annotations

from fpstate.cpu.model import Cpu
from fpstate.isa import Processor
from fpstate.linux.boot import boot
from fpstate.linux.copyin import Finding, check_kvm, check_ptrace, check_sigreturn
from fpstate.linux.kvm import XSAVE_IOCTL_SIZE
from fpstate.linux.policy import Policy

__all__ = ["WAYS", "hand_in", "user_features"]

WAYS = ("ptrace", "kvm", "sigreturn")
"""PTRACE_SETREGSET(NT_X86_XSTATE); KVM_SET_XSAVE, with KVM_CAP_XSAVE2's size; rt_sigreturn of a 64-bit frame."""


def user_features(cpu: Cpu, policy: Policy, permitted: int | None) -> int:
    """Return the ``user_xfeatures`` of a task on *cpu*.

    Args:
        cpu: the CPU.
        policy: the kernel.
        permitted: what it was permitted and has used; None for one without any permission.
    """
    user = boot(cpu, policy).user
    return user.default_features if permitted is None else permitted & user.max_features


def hand_in(p: Processor, way: str, image: bytes, policy: Policy, *, features: int) -> Finding | None:
    """Return the first rule that *image* breaks on the way into the kernel, or None.

    Args:
        p: the processor: its CPU, XCR0, IA32_XFD and profile count.
        way: one of `WAYS`.
        image: for sigreturn with magic2 behind it.
        policy: the kernel.
        features: the user features of the task or the vCPU, see `user_features`.
    """
    config = boot(p.cpu, policy)
    mxcsr_mask = p.profile.mxcsr_mask
    if way == "ptrace":
        return check_ptrace(image, features=features, size=config.user.max_size, mxcsr_mask=mxcsr_mask)
    size = max(config.user.default_size, p.cpu.standard_size(features))
    if way == "sigreturn":
        return check_sigreturn(
            image, caps=p.caps, xcr0=p.xcr0, user_xfeatures=features, user_size=size, mxcsr_mask=p.profile.mxcsr_legal
        )
    return check_kvm(
        image,
        supported_xcr0=config.user.max_features & policy.kvm_xcr0,
        features=features,
        uabi_size=max(XSAVE_IOCTL_SIZE, size),
        mxcsr_mask=mxcsr_mask,
        xfd=p.xfd if policy.kvm_drops_xfd else 0,
    )
