"""Find what is wrong with a CPU's leaf 0DH, and say what Linux does about it.

Each rule is a generator of findings; none repairs anything.  What Linux does is not guessed rule by rule: the CPU is
booted (`fpstate.linux.boot`), and a finding that can matter to the boot quotes its outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from fpstate.cpu import xcr0
from fpstate.cpu.flags import FLAGS
from fpstate.cpu.model import Cpu, compacted_size, standard_size
from fpstate.cpu.places import usual_size
from fpstate.cpu.sizes import explain_compacted, explain_standard
from fpstate.errors import CannotTell
from fpstate.linux.boot import boot
from fpstate.linux.config import BootConfig
from fpstate.linux.policy import Policy
from fpstate.xfeatures import APX, CATALOGUE, COMPACTED, LAST, LBR, LEGACY, MIN_SIZE, MPX, XTILEDATA, bits

__all__ = ["Finding", "Report", "Severity", "lint"]

Severity = Literal["error", "warning"]
"""``error``: leaf 0DH contradicts itself, the CPU's other leaves or what the SDM fixes, or Linux fails on it.
``warning``: the SDM leaves it open, but no known CPU does it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: a stable id.
        severity: see `Severity`.
        leaf: where: ``0DH.9:EBX``.
        message: the value, and why it cannot be right.
        linux: what Linux does: gives up and how, panics, drops a component, or accepts it without a word.
        source: where the rule is written.
    """

    rule: str
    severity: Severity
    leaf: str
    message: str
    linux: str
    source: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of `lint`.

    Attributes:
        findings: what is wrong, in the order of the leaves.
        unknown: parts of leaf 0DH that could not be judged, because the source does not show them.
        notes: what is legal but worth knowing, and rules left out because other leaves are not in the source.
    """

    findings: tuple[Finding, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Subject:
    """What the rules look at: the CPU and how Linux boots on it (None if that cannot be told)."""

    cpu: Cpu
    config: BootConfig | None

    def outcome(self) -> str:
        """Say how the boot ends, for a finding that it can depend on."""
        config = self.config
        if config is None:
            return "cannot be told from this source"
        if config.panic:
            reason = f"{config.xsave_disabled}; then " if config.xsave_disabled else ""
            return f"panics: {reason}{config.panic}"
        if config.xsave_disabled:
            return f"gives up XSAVE: {config.xsave_disabled}"
        return _SILENT

    def size_outcome(self, bit: int) -> str:
        """Say what Linux does about the size of component *bit*: its warning, and how the boot ends."""
        row = self.cpu.catalogue.get(bit)
        own = self.config.policy.boot_strings if self.config else {}
        name = own.get(bit) or (row.boot_string if row else None)
        lines = [line for line in (self.config.boot_log if self.config else ()) if line.startswith(f"[{name}]")]
        outcome = self.outcome()
        if not lines:
            return outcome
        return f"warns '{lines[0]}', then {'goes on' if outcome == _SILENT else outcome}"

    def name(self, bit: int) -> str:
        return self.cpu.catalogue.name(bit)


_NO_FLAGS: Final = "leaves 1 and 7 are not all in the source: not every component was held against its CPU flag"
_SILENT: Final = "accepts it without a word"
_SDM_CPUID: Final = "SDM volume 1, 13.2"
_SDM_LAYOUT: Final = "SDM volume 1, 13.4.3"


def lint(cpu: Cpu, policy: Policy, cmdline: str = "", *, debug_fpu: bool = True) -> Report:
    """Judge *cpu*'s leaf 0DH; *policy*, *cmdline* and *debug_fpu* say which Linux to quote."""
    try:
        config: BootConfig | None = boot(cpu, policy, cmdline, debug_fpu=debug_fpu)
    except CannotTell:
        config = None
    subject = _Subject(cpu, config)
    findings = [finding for rule in _RULES for finding in rule(subject)]
    findings += _unexplained_failure(subject, findings)
    silent = sorted(name for name in cpu.flags_unknown if FLAGS[name].leaf != 0xD)
    dropped = _dropped(cpu)
    notes = [_NO_FLAGS] if silent else []
    if any(component.origin == "user" for component in cpu.components.values()):
        notes.append("judged with your components in it: the sizes that leaf 0DH reports are set aside")
    return Report(tuple(findings), _unknown(cpu), (*dropped, *notes))


def _unknown(cpu: Cpu) -> tuple[str, ...]:
    """List what the source leaves open of leaf 0DH."""
    if cpu.log_only:
        return ("CPUID itself: a boot log shows only what the kernel made of it",)
    gaps = ["sub-leaf 1: XSAVEC, XSAVES and the IA32_XSS bits"] if cpu.xss_mask is None else []
    gaps += [f"sub-leaf {bit} ({cpu.catalogue.name(bit)})" for bit in bits(cpu.missing)]
    return tuple(gaps)


# -- rules, in the order of the leaves ---------------------------------------------------------------------------


def _max_leaf(s: _Subject) -> Iterator[Finding]:
    top = s.cpu.register(0, 0)
    if top and "XSAVE" in s.cpu.flags and top[0] < 0xD:
        yield Finding(
            "max-leaf",
            "error",
            "0:EAX",
            f"XSAVE is there, but the highest leaf is {top[0]:#x}, below 0xd",
            "drops XSAVE: CPU feature xsave disabled, no CPUID level 0xd",
            "Linux cpuid_dependent_features[]",
        )


def _xsave_without_leaf(s: _Subject) -> Iterator[Finding]:
    cpu = s.cpu
    if "XSAVE" in cpu.flags and (0xD, 0) in cpu.leaves and not cpu.xcr0_mask:
        message = "XSAVE is there (CPUID.1:ECX[26]), but no component is enumerated"
        yield Finding("no-components", "error", "0DH.0:EAX", message, s.outcome(), _SDM_CPUID)
    if "XSAVE" not in cpu.flags | cpu.flags_unknown and cpu.xcr0_mask:
        message = f"components {cpu.xcr0_mask:#x} are enumerated, but CPUID.1:ECX[26] says there is no XSAVE"
        yield Finding("no-xsave", "error", "0DH.0:EAX", message, "uses FXSAVE", _SDM_CPUID)


def _legacy(s: _Subject) -> Iterator[Finding]:
    absent = LEGACY & ~s.cpu.xcr0_mask
    if s.cpu.xcr0_mask and absent:
        message = f"{s.cpu.catalogue.names(absent)} must always be enumerated"
        yield Finding("legacy-bits", "error", "0DH.0:EAX", message, s.outcome(), _SDM_CPUID)


def _xcr0_rules(s: _Subject) -> Iterator[Finding]:
    for rule in xcr0.RULES[1:]:
        if rule.broken(s.cpu.xcr0_mask):
            message = f"XCR0 bits {s.cpu.xcr0_mask:#x} cannot be enabled together: {rule.text}"
            yield Finding(f"xcr0-{rule.name}", "error", "0DH.0:EAX", message, s.outcome(), "SDM volume 1, 13.3")


def _both_masks(s: _Subject) -> Iterator[Finding]:
    both = s.cpu.xcr0_mask & (s.cpu.xss_mask or 0)
    if both:
        message = f"{s.cpu.catalogue.names(both)} is enumerated for XCR0 and for IA32_XSS"
        yield Finding("both-masks", "error", "0DH.1:ECX", message, s.outcome(), _SDM_CPUID)


def _format_bit(s: _Subject) -> Iterator[Finding]:
    for subleaf, place in ((0, "0DH.0:EDX"), (1, "0DH.1:EDX")):
        registers = s.cpu.register(0xD, subleaf)
        if registers and registers[3] << 32 & COMPACTED:
            message = "bit 63 is XCOMP_BV's format flag and never a component"
            yield Finding("bit-63", "error", place, message, _SILENT, "SDM volume 1, 13.4.2")


def _unknown_components(s: _Subject) -> Iterator[Finding]:
    for bit in bits(s.cpu.mask):
        if s.cpu.catalogue.get(bit) is None:
            place = "0DH.1:ECX" if (s.cpu.xss_mask or 0) >> bit & 1 else "0DH.0:EAX"
            message = f"component {bit} is enumerated, and no CPU known to fpstate has it"
            yield Finding("unknown-component", "warning", place, message, "ignores the bit", "fpstate's catalogue")


def _standard_total(s: _Subject) -> Iterator[Finding]:
    registers = s.cpu.register(0xD, 0)
    if registers is None or not registers[0]:
        return
    try:
        total = s.cpu.standard_size(s.cpu.xcr0_mask)
    except CannotTell:
        return
    if registers[2] != total:
        message = f"size of all user components is {registers[2]}, but they end at {total}"
        yield Finding("standard-total", "error", "0DH.0:ECX", message, _SILENT, _SDM_LAYOUT)


def _standard_current(s: _Subject) -> Iterator[Finding]:
    why = explain_standard(s.cpu)
    if why.rule == "fixed" and s.cpu.xcr0_mask:
        effect = s.outcome()
        if effect == _SILENT:
            effect = "takes it for the size of the ptrace regset and of the largest signal frame, without a word"
        message = f"size for the enabled user components is {why.recorded}, which no legal XCR0 gives"
        yield Finding("standard-current", "error", "0DH.0:EBX", message, effect, _SDM_LAYOUT)


def _compacted_current(s: _Subject) -> Iterator[Finding]:
    why = explain_compacted(s.cpu)
    reasons = {
        "no alignment": "it is the sum without the 64-byte alignment that ECX[1] of the sub-leaves asks for",
        "architectural": "it is the sum for sub-leaves as every other CPU has them, not for this one's",
        "fixed": "no XCR0 and IA32_XSS that this CPU accepts give it",
    }
    if why.contradicts:
        message = f"compacted size is {why.recorded}: {reasons[why.rule]}"
        yield Finding("compacted-current", "error", "0DH.1:EBX", message, s.outcome(), _SDM_LAYOUT)


def _compacted_without_xsavec(s: _Subject) -> Iterator[Finding]:
    registers = s.cpu.register(0xD, 1)
    if registers and registers[1] and not registers[0] & 0b1010:
        message = f"compacted size is {registers[1]}, but the CPU has neither XSAVEC nor XSAVES: a host's number"
        yield Finding("compacted-without-xsavec", "warning", "0DH.1:EBX", message, "does not read it", _SDM_CPUID)


def _subfeatures(s: _Subject) -> Iterator[Finding]:
    registers = s.cpu.register(0xD, 1)
    if registers is None:
        return
    eax, _, ecx, edx = registers
    if eax >> 3 & 1 and not eax >> 1 & 1:
        message = f"XSAVES (bit 3) without XSAVEC (bit 1): {eax:#x}"
        yield Finding("xsaves-without-xsavec", "error", "0DH.1:EAX", message, _SILENT, _SDM_CPUID)
    if (ecx or edx) and not eax >> 3 & 1:
        message = f"IA32_XSS bits {ecx | edx << 32:#x} without XSAVES (EAX bit 3)"
        yield Finding("xss-without-xsaves", "error", "0DH.1:ECX", message, "drops them", _SDM_CPUID)


def _zero_subleaves(s: _Subject) -> Iterator[Finding]:
    for bit, component in s.cpu.components.items():
        registers = s.cpu.register(0xD, bit)
        if registers is None or registers[0]:
            continue
        unread = s.cpu.unread >> bit & 1
        hint = "; the tool that took this dump leaves sub-leaves out, and the total has room for it" if unread else ""
        effect = "was not shown this; if the CPU says so, it gives up XSAVE" if unread else s.size_outcome(bit)
        message = f"{s.name(component.bit)} is enumerated, but its size is 0{hint}"
        yield Finding("zero-size", "error", f"0DH.{bit}:EAX", message, effect, _SDM_CPUID)


def _sizes(s: _Subject) -> Iterator[Finding]:
    for bit, component in s.cpu.components.items():
        row = s.cpu.catalogue.get(bit)
        if component.origin != "cpuid" or row is None or not component.size or bit == LBR:
            continue
        expected = usual_size(component, row)
        if component.size != expected:
            message = f"{row.name} is {component.size} bytes; on every CPU known it is {expected}"
            yield Finding("size", "error", f"0DH.{bit}:EAX", message, s.size_outcome(bit), row.source)


def _kinds(s: _Subject) -> Iterator[Finding]:
    for bit, component in s.cpu.components.items():
        registers = s.cpu.register(0xD, bit)
        if registers is None or not any(registers):
            continue
        in_xss = bool((s.cpu.xss_mask or 0) >> bit & 1)
        if component.supervisor != in_xss:
            kind, other = ("supervisor", "XCR0") if component.supervisor else ("user", "IA32_XSS")
            message = f"{s.name(bit)} is a {kind} component by ECX[0], but enumerated for {other}"
            effect = s.outcome()
            if effect == _SILENT:
                effect = "takes ECX[0]'s word: it boots, and hung at the first signal with PKRU so marked; KVM warns"
            yield Finding("user-or-supervisor", "error", f"0DH.{bit}:ECX", message, effect, _SDM_CPUID)
        row = s.cpu.catalogue.get(bit)
        if row is not None and row.bit in CATALOGUE and row.supervisor != in_xss:
            mask, right = ("XCR0", "IA32_XSS") if row.supervisor else ("IA32_XSS", "XCR0")
            message = f"{row.name} is enumerated for {mask}; on every CPU known it belongs to {right}"
            yield Finding("wrong-mask", "error", f"0DH.{bit}", message, s.outcome(), row.source)
        if component.supervisor and registers[1]:
            message = f"{s.name(bit)} is supervisor and has no standard offset, but EBX is {registers[1]}"
            yield Finding("supervisor-offset", "warning", f"0DH.{bit}:EBX", message, "ignores it", _SDM_CPUID)
        if registers[2] >> 3 or registers[3]:
            message = f"reserved bits are set: ECX {registers[2]:#x}, EDX {registers[3]:#x}"
            yield Finding("reserved", "warning", f"0DH.{bit}:ECX", message, "ignores them", _SDM_CPUID)


def _attributes(s: _Subject) -> Iterator[Finding]:
    for bit, component in s.cpu.components.items():
        row = s.cpu.catalogue.get(bit)
        if row is None or component.origin != "cpuid" or not component.size:
            continue
        if component.aligned != row.aligned:
            state = "is" if component.aligned else "is not"
            message = f"{row.name} {state} aligned to 64 bytes in compacted format; on every CPU known it is otherwise"
            yield Finding("alignment", "error", f"0DH.{bit}:ECX", message, s.outcome(), row.source)
        if component.xfd != row.xfd and ("XFD" in s.cpu.flags or component.xfd):
            state = "can" if component.xfd else "cannot"
            message = f"{row.name} {state} be disabled by IA32_XFD; on every CPU known it is otherwise"
            yield Finding("xfd", "error", f"0DH.{bit}:ECX", message, s.outcome(), row.source)


def _places(s: _Subject) -> Iterator[Finding]:
    placed = sorted(
        ((c.offset, c.offset + c.size, bit) for bit, c in s.cpu.components.items() if c.offset is not None and c.size)
    )
    for start, _, bit in placed:
        if start < MIN_SIZE:
            message = f"{s.name(bit)} lies at {start}, inside the legacy region and header"
            yield Finding("offset", "error", f"0DH.{bit}:EBX", message, s.outcome(), _SDM_LAYOUT)
        row = s.cpu.catalogue.get(bit)
        if row and row.placements and start not in {place.offset for place in row.placements}:
            known = " or ".join(str(place.offset) for place in row.placements)
            message = f"{row.name} lies at {start}; on every CPU known it is at {known}"
            yield Finding("offset-moved", "warning", f"0DH.{bit}:EBX", message, s.outcome(), row.source)
    for (_, end, below), (start, _, above) in pairwise(placed):
        if start < end:
            if {below, above} <= {*bits(MPX), APX}:
                continue  # named by xcr0-apx
            message = f"{s.name(above)} at {start} lies over {s.name(below)}, which ends at {end}"
            yield Finding("overlap", "error", f"0DH.{above}:EBX", message, s.outcome(), _SDM_LAYOUT)


def _not_enumerated(s: _Subject) -> Iterator[Finding]:
    for (leaf, bit), registers in s.cpu.leaves.items():
        unjudged = s.cpu.xss_mask is None and registers[2] & 1
        if leaf == 0xD and 2 <= bit <= LAST and any(registers) and not s.cpu.mask >> bit & 1 and not unjudged:
            message = f"sub-leaf {bit} ({s.name(bit)}) is filled in, but the component is in neither mask"
            yield Finding("not-enumerated", "warning", f"0DH.{bit}", message, "ignores the sub-leaf", _SDM_CPUID)


def _flags_and_components(s: _Subject) -> Iterator[Finding]:
    cpu = s.cpu
    for bit, flag in _gates(cpu):
        if bit in _FLAG_NEEDS and flag in cpu.flags and not cpu.mask >> bit & 1:
            message = f"the CPU has {flag}, but {s.name(bit)} is not enumerated"
            effect = "leaves the flag set: user space that trusts it faults"
            yield Finding("flag-without-component", "error", f"0DH.{bit}", message, effect, _SDM_CPUID)


def _gates(cpu: Cpu) -> Iterator[tuple[int, str]]:
    """Yield each component and the CPUID flag that its registers belong to, where the source tells both."""
    for row in cpu.catalogue:
        if row.flag is None or row.bit <= 1 or row.bit not in CATALOGUE:
            continue
        flag = "PKU" if row.flag == "OSPKE" else row.flag
        if flag not in cpu.flags_unknown and not (row.supervisor and cpu.xss_mask is None):
            yield row.bit, flag


def _dropped(cpu: Cpu) -> tuple[str, ...]:
    """Say which components Linux leaves out for want of their flag: legal, and real CPUs do it (PKRU on Zen 2)."""
    if cpu.log_only:
        return ()  # a boot log shows what a kernel kept
    absent = [(bit, flag) for bit, flag in _gates(cpu) if cpu.mask >> bit & 1 and flag not in cpu.flags]
    return tuple(
        f"{cpu.catalogue.name(bit)} is enumerated, but the CPU has no {flag}: Linux drops the component"
        for bit, flag in absent
    )


_FLAG_NEEDS: Final = frozenset({2, 3, 4, 5, 6, 7, 9, 17, 18, 19})
"""User components that are their feature's registers: the flag promises them.  A hypervisor may well offer CET, PT or
ENQCMD without XSAVES."""


def _shadow_stack_without_xsaves(s: _Subject) -> Iterator[Finding]:
    cpu = s.cpu
    if cpu.xss_mask is None or not {"SHSTK", "XSAVE"} <= cpu.flags:
        return
    if "XSAVES" not in cpu.flags or not cpu.mask >> 11 & 1:
        message = "the CPU has SHSTK, but CET_U is not enumerated or there is no XSAVES to move it"
        effect = "offers user shadow stacks and saves none: the first user of one dies"
        yield Finding("shstk-without-cet", "error", "0DH.11", message, effect, "Linux 7.2 boots, X86_FEATURE_SHSTK")


def _xfd(s: _Subject) -> Iterator[Finding]:
    if s.cpu.xcr0_mask >> XTILEDATA & 1 and "XFD" not in s.cpu.flags | s.cpu.flags_unknown:
        message = "XTILEDATA is enumerated, but there is no XFD (EAX bit 4)"
        yield Finding("amx-without-xfd", "error", "0DH.1:EAX", message, s.outcome(), "SDM volume 1, 13.14")


def _tiles(s: _Subject) -> Iterator[Finding]:
    cpu = s.cpu
    data = cpu.components.get(XTILEDATA)
    top = cpu.register(0x1D, 0)
    if data is None or top is None:
        return
    if not top[0]:
        message = f"XTILEDATA is {data.size} bytes, but leaf 1DH has no palette"
        yield Finding("tiles", "error", "1DH.0:EAX", message, _tile_lines(s), "SDM volume 1, 18.2")
        return
    most = 0
    for p in cpu.palettes():
        most = max(most, p.tile * p.tiles)
        if p.total != p.tile * p.tiles or p.tile != p.row * p.rows:
            numbers = f"{p.tiles} tiles of {p.tile} bytes, {p.rows} rows of {p.row}, {p.total} bytes in all"
            message = f"palette {p.number}: {numbers}"
            yield Finding("tile-palette", "error", f"1DH.{p.number}", message, _SILENT, "SDM volume 1, 18.2")
    if most != data.size:
        message = f"the palettes' tiles take {most} bytes at most, XTILEDATA is {data.size} bytes"
        yield Finding("tiles", "error", "1DH", message, _tile_lines(s), "SDM volume 1, 18.2")


def _tile_lines(s: _Subject) -> str:
    lines = [line for line in (s.config.boot_log if s.config else ()) if "XTILE_DATA" in line]
    return f"goes on after '{lines[0]}'" if lines else s.outcome()


def _lbr(s: _Subject) -> Iterator[Finding]:
    component, depths = s.cpu.components.get(LBR), s.cpu.register(0x1C, 0)
    if component is None or component.origin != "cpuid" or depths is None or not depths[0] & 0xFF:
        return
    depth = 8 * (depths[0] & 0xFF).bit_length()
    if component.size != 40 + 24 * depth:
        message = f"LBR is {component.size} bytes; {depth} records (leaf 1CH) take {40 + 24 * depth}"
        effect = "warns in the LBR driver and uses MSRs"
        yield Finding("lbr-size", "error", "0DH.15:EAX", message, effect, "Linux events/intel/lbr.c")


def _unexplained_failure(s: _Subject, findings: list[Finding]) -> list[Finding]:
    """Return a finding if Linux fails on this CPU, with no help from a command line, and no rule has said why."""
    config = s.config
    failed = config is not None and (config.panic or (config.xsave_disabled and s.cpu.has_xsave))
    if not failed or (config and config.parameters.cleared) or any(f.linux.endswith(s.outcome()) for f in findings):
        return []
    message = "every sub-leaf looks sound by itself, but not with the CPU's flags or with one another"
    return [Finding("linux-fails", "error", "0DH", message, s.outcome(), "fpstate.linux.boot")]


def _boot_log(s: _Subject) -> Iterator[Finding]:
    log = s.cpu.boot_log
    if log is None or not s.cpu.log_only or not log.components:
        return
    size = compacted_size if log.compacted else standard_size
    try:
        total = size(s.cpu.components, log.features)
    except CannotTell:
        return
    if total != log.context_size:
        message = f"context size is {log.context_size} bytes, but the components printed add up to {total}"
        effect = "would not have booted with XSAVE like this: lines are missing or altered"
        yield Finding("log-total", "error", "boot log", message, effect, "Linux paranoid_xstate_size_valid()")


def _complaints(s: _Subject) -> Iterator[Finding]:
    for complaint in s.cpu.dump.complaints:
        leaf = "1DH" if "XTILE" in complaint else "0DH"
        effect = "gave up XSAVE" if complaint.startswith("XSAVE consistency problem") else "warned, and went on"
        message = f"the kernel that printed this said: {complaint}"
        yield Finding("kernel-complaint", "error", leaf, message, effect, "the log itself")


_RULES: Final[tuple[Callable[[_Subject], Iterator[Finding]], ...]] = (
    _max_leaf,
    _xsave_without_leaf,
    _legacy,
    _xcr0_rules,
    _both_masks,
    _format_bit,
    _unknown_components,
    _standard_total,
    _standard_current,
    _subfeatures,
    _compacted_current,
    _compacted_without_xsavec,
    _zero_subleaves,
    _sizes,
    _kinds,
    _attributes,
    _places,
    _not_enumerated,
    _flags_and_components,
    _shadow_stack_without_xsaves,
    _xfd,
    _tiles,
    _lbr,
    _boot_log,
    _complaints,
)
