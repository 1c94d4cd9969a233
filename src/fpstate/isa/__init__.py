"""The XSAVE instruction family: what each instruction does to every byte, register and MSR of one logical processor.

`execute` runs one instruction by its name; the functions it calls read like the manual's steps.  `fpstate.batch`
has the same rules over a million images at once, with these as its reference.  Every name below is imported when it is
first used: who only reads an image needs two of the modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fpstate.isa.capabilities import Capabilities
    from fpstate.isa.control import rdmsr, wrmsr, xgetbv, xsetbv
    from fpstate.isa.instructions import AREA_INSTRUCTIONS, CONTROL_INSTRUCTIONS, INSTRUCTIONS, execute
    from fpstate.isa.legacy import fxrstor, fxsave
    from fpstate.isa.memory import Memory
    from fpstate.isa.processor import Processor
    from fpstate.isa.profile import Profile
    from fpstate.isa.restore import xrstor, xrstors
    from fpstate.isa.rules import RULES, Fault, Rule
    from fpstate.isa.save import xsave, xsavec, xsaveopt, xsaves

__all__ = [
    "AREA_INSTRUCTIONS",
    "CONTROL_INSTRUCTIONS",
    "INSTRUCTIONS",
    "RULES",
    "Capabilities",
    "Fault",
    "Memory",
    "Processor",
    "Profile",
    "Rule",
    "execute",
    "fxrstor",
    "fxsave",
    "rdmsr",
    "wrmsr",
    "xgetbv",
    "xrstor",
    "xrstors",
    "xsave",
    "xsavec",
    "xsaveopt",
    "xsaves",
    "xsetbv",
]

_HOMES: Final[dict[str, tuple[str, ...]]] = {
    "capabilities": ("Capabilities",),
    "control": ("rdmsr", "wrmsr", "xgetbv", "xsetbv"),
    "instructions": ("AREA_INSTRUCTIONS", "CONTROL_INSTRUCTIONS", "INSTRUCTIONS", "execute"),
    "legacy": ("fxrstor", "fxsave"),
    "memory": ("Memory",),
    "processor": ("Processor",),
    "profile": ("Profile",),
    "restore": ("xrstor", "xrstors"),
    "rules": ("RULES", "Fault", "Rule"),
    "save": ("xsave", "xsavec", "xsaveopt", "xsaves"),
}
"""Where each name lives."""


def __getattr__(name: str) -> Any:
    import importlib  # noqa: PLC0415  only the first use of a name pays for it

    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'fpstate.isa' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fpstate.isa.{home}"), name)
    globals()[name] = value
    return value
