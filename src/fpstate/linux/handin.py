"""What Linux would say to an image that user space hands in, given the CPU and the kernel: the numbers for `copyin`."""

from __future__ import annotations

from fpstate.cpu.model import Cpu
from fpstate.isa import Processor
from fpstate.linux.boot import boot
from fpstate.linux.config import BootConfig
from fpstate.linux.copyin import Finding, check_kvm, check_ptrace, check_sigreturn
from fpstate.linux.kvm import XSAVE_IOCTL_SIZE
from fpstate.linux.policy import Policy

__all__ = ["WAYS", "hand_in", "kvm_size", "user_features"]

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
    if way == "sigreturn":
        size = _user_size(config, p.cpu, features)
        return check_sigreturn(
            image, caps=p.caps, xcr0=p.xcr0, user_xfeatures=features, user_size=size, mxcsr_mask=p.profile.mxcsr_legal
        )
    return check_kvm(
        image,
        supported_xcr0=config.user.max_features & policy.kvm_xcr0,
        features=features,
        uabi_size=_uabi_size(config, p.cpu, features),
        mxcsr_mask=mxcsr_mask,
        xfd=p.xfd if policy.kvm_drops_xfd else 0,
    )


def kvm_size(cpu: Cpu, policy: Policy, features: int) -> int:
    """Return the bytes that KVM_SET_XSAVE reads for a vCPU with the user *features*: KVM_CAP_XSAVE2's answer."""
    return _uabi_size(boot(cpu, policy), cpu, features)


def _user_size(config: BootConfig, cpu: Cpu, features: int) -> int:
    return max(config.user.default_size, cpu.standard_size(features))


def _uabi_size(config: BootConfig, cpu: Cpu, features: int) -> int:
    return max(XSAVE_IOCTL_SIZE, _user_size(config, cpu, features))
