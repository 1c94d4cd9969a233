"""Kernel parameters that decide about xstate (Linux ``Documentation/admin-guide/kernel-parameters.txt``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from fpstate.cpu import flags as cpu_flags

__all__ = ["Parameters", "parse"]

_CLEARS: Final = {"noxsave": "XSAVE", "noxsaveopt": "XSAVEOPT", "noxsaves": "XSAVES"}
"""Words that clear one flag, with what depends on it.  The FPU code looks for them before parameters are parsed: a
word is what stands between white space, whatever quotes or ``--`` say (``cmdline_find_option_bool()``)."""

_WITHOUT_EFFECT: Final = {
    "setcpuid": "sets flags that CPUID lacks, which is not modelled",
    "strict_sas_size": "no effect; the kernel matches strict_sas_sizeon, without '='",
    "nofxsr": "no effect on a 64-bit kernel",
    "nousershstk": "turns user shadow stacks off; xfeatures 11 and 12 stay",
}
"""Parameters that one may take for more than they are, and what they do."""

_WORD: Final = re.compile(r'(?:[^\s"]|"[^"]*")+')


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a command line asks for.

    Attributes:
        text: the command line.
        cleared: the flags named, without what falls with them.
        strict_sas_size: None if not given.
        notes: words that look meant for xstate and have no effect, each with the reason.
    """

    text: str
    cleared: frozenset[str] = frozenset()
    strict_sas_size: bool | None = None
    notes: tuple[str, ...] = ()


def parse(text: str) -> Parameters:
    """Read what concerns xstate out of a whole kernel command line."""
    if not text:
        return _NONE
    cleared: set[str] = set()
    notes: list[str] = []
    early = text.split()
    cleared.update(flag for word, flag in _CLEARS.items() if word in early)
    lists = [word.partition("=")[2] for word in early if word.startswith("clearcpuid=")]
    if len(lists) > 1:
        notes.append("clearcpuid= is given more than once: the kernel takes the last one alone")
    for name in filter(None, lists[-1].split(",") if lists else ()):
        _clear(name, cleared, notes)
    strict: bool | None = None
    for word in _WORD.findall(text):
        if word == "--":
            break
        key, _, _ = word.replace('"', "").partition("=")
        if word == "nopku":
            cleared.add("PKU")
        elif key in {"strict_sas_sizeon", "strict_sas_sizeoff"}:
            strict = key.endswith("on")
        elif key in _WITHOUT_EFFECT:
            notes.append(f"{word}: {_WITHOUT_EFFECT[key]}")
    return Parameters(text, frozenset(cleared), strict, tuple(notes))


_NONE: Final = Parameters("")


def _clear(name: str, cleared: set[str], notes: list[str]) -> None:
    flag = cpu_flags.find(name)
    if flag is not None and flag.name == "OSPKE":
        notes.append(f"clearcpuid={name} has no effect: the kernel sets that flag itself, later; use clearcpuid=pku")
        return
    if flag is not None:
        cleared.add(flag.name)
        return
    unnamed = next((f for f in cpu_flags.FLAGS.values() if f.cpuinfo is None and f.name.lower() == name), None)
    if unnamed:
        notes.append(f"clearcpuid={name} has no effect: the kernel has no name for it; use clearcpuid={unnamed.number}")
    else:
        notes.append(f"clearcpuid={name}: not a flag that xstate depends on")
