"""fpstate: the toolkit for x86 extended state.

The registers that XSAVE moves, and the rules by which Linux and KVM decide which of them live in which buffer:

    >>> import fpstate
    >>> cpu = fpstate.cpu_by_name("zen4")
    >>> fpstate.compacted(cpu, cpu.catalogue.parse_mask("AVX|CET", everything=cpu.mask)).size
    872
    >>> fpstate.boot(cpu, fpstate.policy("linux-6.18")).kernel.default_size
    2456

Every name below is imported when it is first used; ``import fpstate`` itself loads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fpstate.batch import Batch
    from fpstate.cpu import by_name as cpu_by_name
    from fpstate.cpu import load as load_cpu
    from fpstate.cpu import load_all as load_cpus
    from fpstate.cpu import this_host
    from fpstate.cpu.model import Component, Cpu
    from fpstate.errors import CannotTell, FpstateError, UnreadableInput, UsageError
    from fpstate.image import Image
    from fpstate.image import convert as convert_image
    from fpstate.image import encode as encode_image
    from fpstate.image import read as read_image
    from fpstate.image import register_differences as image_differences
    from fpstate.isa import Fault, Memory, Processor, Profile, Rule, execute, rdmsr, wrmsr, xgetbv, xsetbv
    from fpstate.isa.profile import find as profile
    from fpstate.isa.profile import shipped as profiles
    from fpstate.layout import Hole, Layout, Slot, Term, compacted, difference, layouts, standard
    from fpstate.linux.abi import Frame, UserAbi, permission_errno, user_abi
    from fpstate.linux.boot import boot
    from fpstate.linux.check import Check, check
    from fpstate.linux.compare import Column, Comparison, compare
    from fpstate.linux.config import BootConfig, GuestConfig, StateConfig
    from fpstate.linux.kvm import KvmView, kvm_view
    from fpstate.linux.lint import Finding, Report, lint
    from fpstate.linux.policy import Policy
    from fpstate.linux.policy import find as policy
    from fpstate.linux.policy import load_file as load_policies
    from fpstate.linux.policy import shipped as policies
    from fpstate.registers import REGISTERS, Register
    from fpstate.sources.arrays import Arrays
    from fpstate.sources.decoded import Decoded, decode
    from fpstate.vectors.result import run_document as run_vector
    from fpstate.xfeatures import CATALOGUE, Catalogue, Xfeature

__version__ = "0.1.0"

__all__ = [
    "CATALOGUE",
    "REGISTERS",
    "Arrays",
    "Batch",
    "BootConfig",
    "CannotTell",
    "Catalogue",
    "Check",
    "Column",
    "Comparison",
    "Component",
    "Cpu",
    "Decoded",
    "Fault",
    "Finding",
    "FpstateError",
    "Frame",
    "GuestConfig",
    "Hole",
    "Image",
    "KvmView",
    "Layout",
    "Memory",
    "Policy",
    "Processor",
    "Profile",
    "Register",
    "Report",
    "Rule",
    "Slot",
    "StateConfig",
    "Term",
    "UnreadableInput",
    "UsageError",
    "UserAbi",
    "Xfeature",
    "boot",
    "check",
    "compacted",
    "compare",
    "convert_image",
    "cpu_by_name",
    "decode",
    "difference",
    "encode_image",
    "execute",
    "image_differences",
    "kvm_view",
    "layouts",
    "lint",
    "load_cpu",
    "load_cpus",
    "load_policies",
    "permission_errno",
    "policies",
    "policy",
    "profile",
    "profiles",
    "rdmsr",
    "read_image",
    "run_vector",
    "standard",
    "this_host",
    "user_abi",
    "wrmsr",
    "xgetbv",
    "xsetbv",
]

_HOMES: Final[dict[str, tuple[str, ...]]] = {
    "fpstate.cpu": ("this_host",),
    "fpstate.cpu.model": ("Component", "Cpu"),
    "fpstate.errors": ("CannotTell", "FpstateError", "UnreadableInput", "UsageError"),
    "fpstate.batch": ("Batch",),
    "fpstate.image": ("Image",),
    "fpstate.isa": (
        "Fault",
        "Memory",
        "Processor",
        "Profile",
        "Rule",
        "execute",
        "rdmsr",
        "wrmsr",
        "xgetbv",
        "xsetbv",
    ),
    "fpstate.layout": ("Hole", "Layout", "Slot", "Term", "compacted", "difference", "layouts", "standard"),
    "fpstate.linux.abi": ("Frame", "UserAbi", "permission_errno", "user_abi"),
    "fpstate.linux.boot": ("boot",),
    "fpstate.linux.check": ("Check", "check"),
    "fpstate.linux.compare": ("Column", "Comparison", "compare"),
    "fpstate.linux.config": ("BootConfig", "GuestConfig", "StateConfig"),
    "fpstate.linux.kvm": ("KvmView", "kvm_view"),
    "fpstate.linux.lint": ("Finding", "Report", "lint"),
    "fpstate.linux.policy": ("Policy",),
    "fpstate.sources.arrays": ("Arrays",),
    "fpstate.sources.decoded": ("Decoded", "decode"),
    "fpstate.registers": ("REGISTERS", "Register"),
    "fpstate.xfeatures": ("CATALOGUE", "Catalogue", "Xfeature"),
}
"""Where each public name lives."""

_RENAMED: Final[dict[str, tuple[str, str]]] = {
    "convert_image": ("fpstate.image", "convert"),
    "cpu_by_name": ("fpstate.cpu", "by_name"),
    "encode_image": ("fpstate.image", "encode"),
    "image_differences": ("fpstate.image", "register_differences"),
    "load_cpu": ("fpstate.cpu", "load"),
    "load_cpus": ("fpstate.cpu", "load_all"),
    "load_policies": ("fpstate.linux.policy", "load_file"),
    "policies": ("fpstate.linux.policy", "shipped"),
    "policy": ("fpstate.linux.policy", "find"),
    "profile": ("fpstate.isa.profile", "find"),
    "profiles": ("fpstate.isa.profile", "shipped"),
    "read_image": ("fpstate.image", "read"),
    "run_vector": ("fpstate.vectors.result", "run_document"),
}
"""Public names that are called otherwise at home, where the module's name says the rest."""


def __getattr__(name: str) -> Any:
    import importlib  # noqa: PLC0415  only the first use of a name pays for it

    if name in _RENAMED:
        module, inner = _RENAMED[name]
    else:
        module, inner = next((module for module, names in _HOMES.items() if name in names), ""), name
    if not module:
        raise AttributeError(f"module 'fpstate' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), inner)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
