"""The lines in which a Linux or Xen boot says what extended state it enabled.

=================  ==================================================================================================
Linux 4.4 and on   ``x86/fpu: xstate_offset[2]:  576, xstate_sizes[2]:  256``,
                   ``x86/fpu: Enabled xstate features 0x7, context size is 832 bytes, using 'standard' format.``
Linux 4.2, 4.3     the same in hex: ``xstate_offset[2]: 0240, xstate_sizes[2]: 0100``, ``context size is 0x340 bytes``
Linux 2.6 to 4.1   ``xsave: enabled xstate_bv 0x7, cntxt size 0x340``, then also ``using standard form``
Xen                ``xstate: size: 0x340 (uncompressed 0x440) and states: 0x1f``
=================  ==================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fpstate.cpu.dump import BootLog, Dump
from fpstate.cpu.formats.text import rejoin
from fpstate.errors import UnreadableInput
from fpstate.xfeatures import CATALOGUE, LAST, LEGACY, MIN_SIZE, bits

__all__ = ["Boot", "dumps_of", "parse_boots", "sniff"]

_PARTIAL: Final = "read from boot lines: partial knowledge, no CPUID leaves"
_MOST_BOOTS: Final = 1024

_SUPPORTING: Final = re.compile(r"Supporting XSAVE feature 0x([0-9a-f]{1,16})")
_OFFSET: Final = re.compile(
    r"xstate_offset\[(?P<bit>[0-9]{1,2})\]:\s*([0-9a-f]{1,8}),\s*xstate_sizes\[(?P=bit)\]:\s*([0-9a-f]{1,8})\b"
)
_ENABLED: Final = re.compile(
    r"Enabled xstate features 0x([0-9a-f]{1,16}), context size is (0x[0-9a-f]{1,8}|[0-9]{1,8}) bytes"
    r"(?:, using '(compacted|standard)' format)?"
)
_XSTATE_BV: Final = re.compile(
    r"enabled xstate_bv 0x([0-9a-f]{1,16}), cntxt size (0x[0-9a-f]{1,8})(?: using (compacted|standard) form)?"
)
_XEN: Final = re.compile(
    r"xstate: size: (0x[0-9a-f]{1,8})(?: \(uncompressed (0x[0-9a-f]{1,8})\))? and states: 0x([0-9a-f]{1,16})"
)
_CPU_NAME: Final = re.compile(r"CPU0: (\S.{0,99}?) \(fam(?:ily)?: ")

_START: Final = re.compile(
    r"x86/fpu: |xsave(?:/xrstor)?: |xstate_offset\[|Enabled xstate|enabled xstate_bv|\bxstate:(?: size|$)"
)
_WHOLE: Final = re.compile(
    rf"{_SUPPORTING.pattern}: '[^']*'|{_OFFSET.pattern}"
    r"|Enabled xstate features 0x[0-9a-f]+, context size is \w+ bytes(?:\.|, using '\w+' format)"
    rf"|{_XSTATE_BV.pattern}|{_XEN.pattern}"
)


@dataclass(slots=True)
class Boot:
    """One boot of one kernel.

    Attributes:
        log: what they say.
        xen: True if the lines are Xen's, False if Linux's.
        label: the CPU's name, if the log has it.
        guesses: what the lines left open, and how it was taken.
        notes: other remarks for the user.
    """

    log: BootLog
    xen: bool = False
    label: str | None = None
    guesses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Pending:
    """The lines of a boot that come before the one with the size."""

    supporting: int = 0
    components: dict[int, tuple[str, str]] = field(default_factory=dict)

    def numbers(self) -> dict[int, tuple[int, int]]:
        """Return offsets and sizes by component: hex if any is padded with zeros or has letters, else decimal."""
        printed = [number for pair in self.components.values() for number in pair]
        decimal = all(number.isdecimal() and not (number[0] == "0" and len(number) > 1) for number in printed)
        base = 10 if decimal else 16
        return {bit: (int(offset, base), int(size, base)) for bit, (offset, size) in self.components.items()}

    def guess(self) -> BootLog | None:
        """Return the log that these lines make without the line with the size; None if they do not suffice."""
        components = self.numbers()
        features = self.supporting
        for bit in components:
            features |= 1 << bit
        if not features or any(bit not in components for bit in bits(features & ~LEGACY)):
            return None
        size = max((offset + size for offset, size in components.values()), default=MIN_SIZE)
        return BootLog(features | LEGACY, size, _format(components), components)


def _format(components: Mapping[int, tuple[int, int]]) -> bool | None:
    """Say whether offsets are those of the compacted format; None if they fit both or neither."""
    end = MIN_SIZE
    compacted = standard = True
    for bit, (offset, size) in sorted(components.items()):
        row = CATALOGUE.get(bit)
        compacted &= offset in {end, (end + 63) & ~63}
        standard &= row is not None and offset in {place.offset for place in row.placements}
        end = offset + size
    return None if compacted == standard else compacted


def sniff(body: str) -> bool:
    """Say whether *body*, a whole plain text, has such lines."""
    return _START.search(body) is not None


def dumps_of(boots: Sequence[Boot]) -> list[Dump]:
    """Return *boots* as dumps without leaves."""
    return [
        Dump(
            format="boot-log",
            label=boot.label,
            index=index,
            os_linux=not boot.xen,
            boot_log=boot.log,
            guesses=tuple(boot.guesses),
            notes=(_PARTIAL, *boot.notes),
        )
        for index, boot in enumerate(boots)
    ]


def parse_boots(lines: Sequence[str]) -> list[Boot]:
    """Return the boots that *lines* tell of, in file order; one that repeats an earlier one is left out.

    Raises:
        UnreadableInput: there are more different ones than any log has.
    """
    boots: dict[object, Boot] = {}
    pending = _Pending()
    latest: Boot | None = None
    for line in rejoin(lines, _START, _WHOLE):
        if "xst" in line or "XSAVE" in line:
            if boot := _read(line, pending):
                pending = pending if boot.xen else _Pending()
                latest = boots.setdefault(_content(boot), boot)
        elif "CPU0: " in line and latest and not latest.label and (named := _CPU_NAME.search(line)):
            latest.label = named[1]
        if len(boots) > _MOST_BOOTS:
            raise UnreadableInput(f"more than {_MOST_BOOTS} different boots in one input")
    if guess := pending.guess():
        note = "the line with the size is missing: taken from the end of the last component"
        boot = Boot(guess, guesses=[note])
        boots.setdefault(_content(boot), boot)
    return list(boots.values())


def _content(boot: Boot) -> object:
    """Return what makes two boots the same."""
    log = boot.log
    return boot.xen, log.features, log.context_size, log.compacted, tuple(log.components.items())


def _number(text: str) -> int:
    return int(text, 16) if text.startswith("0x") else int(text)


def _read(line: str, pending: _Pending) -> Boot | None:
    """Take one line into *pending*; if it is the one with the size, return the boot."""
    if match := _OFFSET.search(line):
        if int(match[1]) <= LAST:
            pending.components[int(match[1])] = (match[2], match[3])
    elif match := _SUPPORTING.search(line):
        pending.supporting |= int(match[1], 16)
    elif match := _ENABLED.search(line) or _XSTATE_BV.search(line):
        compacted = None if match[3] is None else match[3] == "compacted"
        return Boot(BootLog(int(match[1], 16), _number(match[2]), compacted, pending.numbers()))
    elif match := _XEN.search(line):
        boot = Boot(BootLog(int(match[3], 16), int(match[1], 16), None), xen=True)
        boot.guesses.append("Xen's line: it does not say in which format the size is")
        if match[2] and int(match[2], 16) != int(match[1], 16):
            boot.notes.append(f"uncompressed, Xen says, the size is {int(match[2], 16)} bytes")
        return boot
    return None
