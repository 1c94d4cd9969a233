"""From a JSON object to the `Case` that it describes, and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from fpstate import cpu as cpus
from fpstate import registers as regs
from fpstate.cpu import xcr0
from fpstate.cpu.dump import Dump, Registers
from fpstate.errors import CannotTell, UnreadableInput, UsageError
from fpstate.isa import CONTROL_INSTRUCTIONS, INSTRUCTIONS, Capabilities, Processor
from fpstate.isa import profile as profiles
from fpstate.isa.case import Case
from fpstate.isa.masks import complement
from fpstate.isa.memory import PAGE, Access
from fpstate.isa.processor import CONTROL, NOT_TRACKED
from fpstate.vectors.changes import changed
from fpstate.vectors.fields import Document, hex_bytes, hex_number, quoted, text
from fpstate.xfeatures import LEGACY, bits

__all__ = ["READS", "decode", "encode"]

READS: Final = ("xgetbv", "rdmsr")
"""The instructions that return a value."""

_LARGEST_MEMORY: Final = 1 << 20
_FLAGS: Final = ("ts", "em", "am", "ac", "osxsave", "osfxsr", "non_root")


def decode(document: Mapping[str, Any]) -> Case:
    """Return the case that a JSON object holds.

    Raises:
        FpstateError: a field is missing, unknown or malformed; names it.
    """
    unknown = sorted(set(document) - _FIELDS)
    if unknown:
        raise UnreadableInput(
            f"a case has no field {quoted(unknown[0])}", cure=f"fields are {', '.join(sorted(_FIELDS))}"
        )
    op = document.get("op")
    if not isinstance(op, str) or op not in INSTRUCTIONS:
        raise UnreadableInput(f"op must be an instruction, not {quoted(op)}", cure=", ".join(INSTRUCTIONS))
    caps = _capabilities(document.get("cpu"), document.get("leaves"))
    name = document.get("profile")
    profile = profiles.of_cpu(caps.cpu) if name is None else profiles.find(text(name, "profile"))
    case = Case(caps=caps, op=op, profile=profile, id=document.get("id"))
    case.control = {key: hex_number(document[key], key) for key in ("xcr0", "xss", "xfd") if key in document}
    case.control.setdefault("xcr0", 1)
    _check_control(case)
    case.modes = _modes(document)
    _decode_registers(case, document.get("registers", {}))
    if "xinuse" in document:
        case.used = hex_number(document["xinuse"], "xinuse")
    if op in CONTROL_INSTRUCTIONS:
        case.ecx = hex_number(document.get("ecx", "0"), "ecx")
        case.value = hex_number(document.get("value", "0"), "value")
    else:
        _decode_area(case, document)
    return case


_FIELDS: Final = frozenset(
    (
        "id", "cpu", "leaves", "profile", "cpl", "mode", *_FLAGS,
        "xcr0", "xss", "xfd", "registers", "xinuse",
        "op", "rfbm", "address", "memory", "unmapped", "readonly", "ecx", "value",
    )
)  # fmt: skip
"""Every field of a case."""


def _check_control(case: Case) -> None:
    """Refuse values that no processor of this CPU holds.

    Raises:
        UsageError: names the bit.
        CannotTell: where an enabled component lies is not known.
    """
    caps = case.caps
    for name, allowed in (("xcr0", caps.user), ("xss", caps.supervisor), ("xfd", caps.xfd)):
        beyond = case.control.get(name, 0) & complement(allowed)
        if beyond:
            raise UsageError(f"{name} sets bit {next(bits(beyond))}, which {caps.cpu.name} has not")
    broken = xcr0.fault(case.control["xcr0"])
    if broken is not None:
        raise UsageError(f"xcr0 is {case.control['xcr0']:#x}: {broken.text}")
    enabled = (case.control["xcr0"] | case.control.get("xss", 0)) & ~LEGACY
    unknown = [bit for bit in bits(enabled) if bit not in caps.sizes]
    if unknown:
        raise CannotTell(f"{caps.cpu.name} does not show sub-leaf {unknown[0]} of leaf 0DH", cure="give all sub-leaves")
    caps.standard(case.control["xcr0"])


def _decode_area(case: Case, document: Mapping[str, Any]) -> None:
    case.mask = hex_number(document.get("rfbm", "0"), "rfbm")
    case.address = hex_number(document.get("address", "0"), "address")
    case.memory = hex_bytes(document.get("memory", ""), "memory")
    if len(case.memory) > _LARGEST_MEMORY:
        raise UnreadableInput(f"memory must be at most {_LARGEST_MEMORY >> 20} MiB, not {len(case.memory)} bytes")
    if case.modes.get("mode") == 32 and case.address >> 32:
        raise UnreadableInput(f"address must fit into 32 bits in mode 32, not {case.address:#x}")
    pages: dict[int, Access] = {}
    for key, access in (("readonly", "r"), ("unmapped", "none")):
        listed = document.get(key, [])
        if not isinstance(listed, list) or len(listed) > 4096:
            raise UnreadableInput(f"{key} must be an array of addresses, at most 4096")
        for each in listed:
            pages[hex_number(each, key) // PAGE] = "r" if access == "r" else "none"
    case.pages = pages


def _modes(document: Mapping[str, Any]) -> dict[str, int]:
    modes: dict[str, int] = {}
    for key in _FLAGS:
        if key in document:
            value = document[key]
            if not isinstance(value, bool):
                raise UnreadableInput(f"{key} must be true or false, not {quoted(value)}")
            modes[key] = value
    for key, allowed in (("cpl", (0, 1, 2, 3)), ("mode", (64, 32))):
        if key in document:
            value = document[key]
            if type(value) is not int or value not in allowed:
                raise UnreadableInput(f"{key} must be one of {', '.join(map(str, allowed))}, not {quoted(value)}")
            modes[key] = value
    return modes


def _decode_registers(case: Case, values: object) -> None:
    """Put the registers of a case into its state.

    Raises:
        FpstateError: a name or value is none, or two names of the same bytes have different values.
    """
    if not isinstance(values, Mapping):
        raise UnreadableInput(f"registers must be an object, not {quoted(values)}")
    p = case.processor()
    control: dict[str, int] = dict(case.control)
    named: dict[str, bytes] = {}
    components = used = 0
    for name, given in values.items():
        if name in _CONTROL_NAMES:
            control[name] = hex_number(given, name)
            continue
        register = regs.find(name, case.caps.sizes)
        number = register.number and type(given) is int and 0 <= given < 1 << 64
        named[register.name] = register.parse(f"{given:x}" if number else text(given, name))
        p.write(register.name, named[register.name])
        components |= register.components
        used |= 0 if register.name in NOT_TRACKED else register.components
    for name, value in named.items():
        if p.read(name) != value:
            raise UnreadableInput(f"registers: {name} has another value under another name")
    _check_mxcsr(p.mxcsr, p.profile.mxcsr_legal)
    case.control = {**control, "fcs": p.fcs, "fds": p.fds}
    case.state = {bit: bytes(p.sections[bit]) for bit in bits(components | 1) if bit != 1}
    case.used = used if p.profile.xinuse == "sticky" else None


_CONTROL_NAMES: Final = frozenset(CONTROL) - {"fcs", "fds", "xcr0", "xss", "xfd"}


def _check_mxcsr(mxcsr: int, mask: int) -> None:
    if mxcsr & ~mask:
        raise UsageError(f"mxcsr {mxcsr:#x} sets bits outside MXCSR_MASK {mask:#x}: no processor holds that")


@lru_cache(maxsize=64)
def _named_cpu(name: str) -> Capabilities:
    return Capabilities(cpus.this_host() if name == "host" else cpus.by_name(name))


@lru_cache(maxsize=64)
def _cpu_of_leaves(leaves: tuple[tuple[tuple[int, int], Registers], ...]) -> Capabilities:
    dump = Dump(format="vectors", leaves=dict(leaves))
    return Capabilities(cpus.conclude(dump, name="the case's CPU", source="leaf_d of the case"))


def _capabilities(value: object, others: object) -> Capabilities:
    """Return the CPU of a case: a name, or ``{"leaf_d": {"0": [eax, ebx, ecx, edx], ...}}`` with any other leaves."""
    if isinstance(value, str):
        if others is not None:
            raise UnreadableInput("leaves goes with a cpu that is given by its leaf_d, not with a name")
        return _named_cpu(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("leaf_d"), Mapping):
        raise UnreadableInput('cpu must be a name or {"leaf_d": {"0": [eax, ebx, ecx, edx], ...}}')
    leaves: list[tuple[tuple[int, int], Registers]] = []
    for subleaf, registers in value["leaf_d"].items():
        if not subleaf.isdecimal() or not subleaf.isascii() or int(subleaf[:4]) > 63:
            raise UnreadableInput(f"cpu.leaf_d: a sub-leaf is a number from 0 to 63, not {quoted(subleaf)}")
        leaves.append(((0xD, int(subleaf)), _registers(registers, f"cpu.leaf_d.{subleaf}")))
    if others is not None and not isinstance(others, Mapping):
        raise UnreadableInput('leaves must be an object: {"7.0": [eax, ebx, ecx, edx], ...}, leaf and sub-leaf in hex')
    for key, registers in (others or {}).items():
        leaf, _, subleaf = key.partition(".")
        leaves.append(
            (
                (hex_number(leaf, "leaves"), hex_number(subleaf or "0", "leaves")),
                _registers(registers, f"leaves.{key[:20]}"),
            )
        )
    return _cpu_of_leaves(tuple(leaves))


def _registers(value: object, what: str) -> Registers:
    if not isinstance(value, list) or len(value) != 4:
        raise UnreadableInput(f"{what} must be [eax, ebx, ecx, edx], not {quoted(value)}")
    eax, ebx, ecx, edx = (hex_number(each, what, width=32) for each in value)
    return eax, ebx, ecx, edx


def encode(case: Case, cpu: object) -> Document:
    """Return *case* as a JSON object; *cpu* is what stands in its field ``cpu``."""
    document: Document = {} if case.id is None else {"id": case.id}
    document |= {"cpu": cpu, "profile": (case.profile or profiles.of_cpu(case.caps.cpu)).name}
    document |= {name: bool(value) if name in _FLAGS else value for name, value in case.modes.items()}
    document |= {name: f"{case.control.get(name, 0):#x}" for name in ("xcr0", "xss", "xfd")}
    p = case.processor()
    initial = Case(caps=case.caps, op=case.op, profile=case.profile).processor()
    document["registers"] = changed(initial.sections, p.sections, p.xcr0 | p.xss) | _control_set(case, p)
    if p.used or p.profile.xinuse == "sticky":
        document["xinuse"] = f"{p.used:#x}"
    document["op"] = case.op
    if case.op in CONTROL_INSTRUCTIONS:
        document["ecx"] = f"{case.ecx:#x}"
        return document | ({} if case.op in READS else {"value": f"{case.value:#x}"})
    document |= {"rfbm": f"{case.mask:#x}", "address": f"{case.address:#x}", "memory": case.memory.hex()}
    for key, wanted in (("readonly", "r"), ("unmapped", "none")):
        pages = [f"{page * PAGE:#x}" for page, access in case.pages.items() if access == wanted]
        if pages:
            document[key] = pages
    return document


def _control_set(case: Case, p: Processor) -> dict[str, str]:
    found = {name: f"{case.control[name]:#x}" for name in sorted(_CONTROL_NAMES) if case.control.get(name)}
    found |= {name: f"{value:#x}" for name, value in (("fiseg", p.fcs), ("foseg", p.fds)) if value}
    return found
