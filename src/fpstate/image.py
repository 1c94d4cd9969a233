"""One XSAVE image: its header, where its components lie, and the same state in another format.

The meaning of an image is what XRSTOR loads from it, with every component in the instruction mask:

* A component whose bit in XSTATE_BV is 0 is in its initial configuration, whatever its bytes are.
* MXCSR belongs to SSE.  In standard format it is bytes 24 to 27, whatever XSTATE_BV says: XRSTOR loads them so (SDM
  13.8.1).  In compacted format it is those bytes if XSTATE_BV has SSE, else 1F80H (13.8.2).
* The reserved bytes, and those that software may use (464 to 511), mean nothing.

`convert` keeps that meaning.  Its result is what XRSTOR of the source and XSAVE, or XSAVEC, to a zeroed buffer give,
but that XSTATE_BV stays as the source has it, and x87 and SSE are copied byte by byte.  Three cases follow:

* A compacted image can only say that MXCSR is not 1F80H by setting XSTATE_BV[1]; that bit is set where needed.
* A standard image always gets an MXCSR, 1F80H if the source has none: zeros would unmask every exception.
* Leaving out SSE makes MXCSR 1F80H.

Source: Intel SDM volume 1, 13.4 and 13.8.  `fpstate.batch` does the same for a million images at once.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

from fpstate import registers as regs
from fpstate.cpu.model import Cpu
from fpstate.errors import UnreadableInput, UsageError
from fpstate.isa.capabilities import Capabilities, Places
from fpstate.isa.header import Header, check_compacted, check_standard
from fpstate.isa.masks import complement, xcomp_bv
from fpstate.isa.rules import Fault
from fpstate.registers import MXCSR_INIT, Register
from fpstate.xfeatures import COMPACTED, LEGACY, LEGACY_PLACES, LEGACY_SIZE, MIN_SIZE, SOFTWARE, SSE, bits

__all__ = [
    "Difference",
    "Format",
    "Image",
    "add",
    "convert",
    "encode",
    "init_fill",
    "patch",
    "read",
    "register_differences",
    "registers",
    "remarks",
    "strip",
]

Format = Literal["standard", "compacted"]

_X87: Final = (slice(24), slice(32, 160))
_MXCSR: Final = slice(24, 32)
"""MXCSR and MXCSR_MASK."""
_XMM: Final = slice(160, 416)
_SOFTWARE: Final = slice(SOFTWARE, LEGACY_SIZE)


@dataclass(frozen=True)
class Image:
    """An image whose header is sound and whose components are all there.

    Attributes:
        data: its bytes, maybe with more behind them.
        caps: the CPU that its places come from.
        xstate_bv, xcomp_bv: the header's fields.
    """

    data: bytes
    caps: Capabilities
    xstate_bv: int
    xcomp_bv: int

    @property
    def format(self) -> Format:
        """The format that XCOMP_BV[63] says."""
        return "compacted" if self.xcomp_bv & COMPACTED else "standard"

    @cached_property
    def components(self) -> int:
        """The components that have a place: in standard format every user component that lies within the bytes."""
        if self.xcomp_bv:
            return self.xcomp_bv & ~COMPACTED
        mask = LEGACY
        for bit, component in self.caps.cpu.components.items():
            fits = component.offset is not None and component.offset + component.size <= len(self.data)
            if fits and not component.supervisor and self.caps.user >> bit & 1:
                mask |= 1 << bit
        return mask

    @cached_property
    def places(self) -> Places:
        """Where the extended components lie."""
        return _places(self.caps, self.format, self.components)

    @property
    def mxcsr(self) -> int:
        """What XRSTOR loads into MXCSR."""
        if self.xcomp_bv and not self.xstate_bv & SSE:
            return MXCSR_INIT
        return int.from_bytes(self.data[24:28], "little")

    def component(self, bit: int) -> bytes:
        """Return the bytes of component *bit*, its initial ones if XSTATE_BV says so.

        Those of x87 are bytes 0 to 23 and 32 to 159, those of SSE the XMM registers.

        Raises:
            UsageError: the CPU has no such component.
        """
        present = self.xstate_bv >> bit & 1
        if bit == 0:
            x87 = self.data if present else regs.initial(0, 160)
            return x87[_X87[0]] + x87[_X87[1]]
        if bit == 1:
            return self.data[_XMM] if present else bytes(256)
        if bit not in self.caps.sizes:
            raise UsageError(f"{self.caps.cpu.name} has no component {bit}")
        if not present:
            return regs.initial(bit, self.caps.sizes[bit])
        offset, size = next((offset, size) for b, offset, size in self.places.slots if b == bit)
        return self.data[offset : offset + size]

    def register(self, register: Register | str) -> bytes:
        """Return the value of a register: its initial one where the image, or the CPU, has not its component."""
        if isinstance(register, str):
            register = regs.find(register, self.caps.sizes)
        if register.name == "mxcsr":
            return self.mxcsr.to_bytes(4, "little")
        return b"".join(self._part(part.bit, part.offset, part.size) for part in register.parts)

    def _part(self, bit: int, offset: int, size: int) -> bytes:
        if not self.xstate_bv >> bit & 1:
            return regs.initial(bit, offset + size)[offset:]
        start = 0 if bit < 2 else next(at for b, at, _ in self.places.slots if b == bit)
        return self.data[start + offset : start + offset + size]


def remarks(image: Image) -> list[str]:
    """Return what speaks against the CPU that the places come from, in words; empty if nothing does."""
    found = []
    caps, data = image.caps, image.data
    whole = caps.standard(caps.user).end
    if image.format == "standard" and any(data[whole:]):
        found.append(
            f"it has {len(data)} bytes, and beyond the {whole} of {caps.cpu.name}'s layout they are not all 0: "
            "is it another CPU's image?"
        )
    elif image.format == "standard" and len(data) > whole and len(data) % 4096:
        found.append(f"it has {len(data)} bytes, {caps.cpu.name}'s layout {whole}: is it another CPU's image?")
    named = int.from_bytes(data[SOFTWARE : SOFTWARE + 8], "little")  # struct user_xstateregs
    beyond = named & complement(caps.user)
    if named & LEGACY == LEGACY and not named >> 62 and beyond:
        found.append(
            f"its software bytes name the features {named:#x}, of which {caps.cpu.name} has not "
            f"{caps.cpu.catalogue.names(beyond)}"
        )
    return found


def _places(caps: Capabilities, layout: Format, mask: int) -> Places:
    if layout not in {"standard", "compacted"}:
        raise UsageError(f"there is no format {layout!r}", cure="standard or compacted")
    return caps.compacted(mask) if layout == "compacted" else caps.standard(mask)


def read(data: bytes, cpu: Cpu | Capabilities, enabled: int | None = None) -> Image:
    """Return the image in *data*.

    Args:
        data: from its first byte on; what follows it is ignored.
        cpu: the CPU that saved it.
        enabled: the components that may occur; None: all that the CPU has.

    Raises:
        UnreadableInput: it is truncated, its header is damaged, or it holds a component that is not *enabled*.
    """
    caps = cpu if isinstance(cpu, Capabilities) else Capabilities(cpu)
    enabled = caps.user | caps.supervisor if enabled is None else enabled
    if len(data) < MIN_SIZE:
        raise UnreadableInput(f"an XSAVE image has 576 bytes or more, this one {len(data)}", cure="give all of it")
    header = Header(*struct.unpack_from("<QQ48s", data, LEGACY_SIZE))
    image = Image(bytes(data), caps, header.xstate_bv, header.xcomp_bv)
    try:
        if header.xcomp_bv & COMPACTED:
            check_compacted(header, enabled)
        else:
            check_standard(header, enabled & caps.user)
    except Fault as fault:
        where = "" if fault.offset is None else f" at offset {fault.offset}"
        raise UnreadableInput(
            f"damaged XSAVE header{where}: {fault.detail}: {fault.rule.text} ({fault.rule.id})", cure=fault.rule.cure
        ) from fault
    _require_bytes(image)
    return image


def _require_bytes(image: Image) -> None:
    places = _places(image.caps, image.format, image.xcomp_bv & ~COMPACTED or image.xstate_bv)
    known = {bit for bit, _, _ in places.slots}
    for bit in bits(image.xstate_bv & ~LEGACY):
        if bit not in known:
            name = image.caps.cpu.catalogue.name(bit)
            raise UnreadableInput(f"XSTATE_BV sets bit {bit} ({name}), whose place {image.caps.cpu.name} does not tell")
    for bit, offset, size in places.slots:
        if image.xstate_bv >> bit & 1 and offset + size > len(image.data):
            name = image.caps.cpu.catalogue.name(bit)
            raise UnreadableInput(
                f"the image is truncated: component {bit} ({name}) ends at {offset + size}, the bytes at "
                f"{len(image.data)}",
                cure="give all of it",
            )


def convert(
    image: Image,
    to: Format,
    *,
    components: int | None = None,
    software: bool = True,
    caps: Cpu | Capabilities | None = None,
) -> bytes:
    """Return the state of *image* in another format, with other components, or laid out for another CPU.

    Args:
        image: the source.
        to: the format.
        components: those that get a place; the state of others is left out.  None: those of the source, which must
            then all have a place.
        software: keep bytes 464 to 511.
        caps: the CPU that the result is for; None: the source's.  Components that it has not get no place.

    Raises:
        UsageError: the CPU has no such component, or state would be lost that nobody named.
    """
    if isinstance(caps, Cpu):
        caps = Capabilities(caps)
    caps = image.caps if caps is None else caps
    target = image.components if components is None else components
    if components is not None:
        _require_known(caps, target, to)
    target &= caps.user if to == "standard" else caps.user | caps.supervisor
    lost = image.xstate_bv & complement(target)
    if lost and components is None:
        bit = next(bits(lost))
        raise UsageError(
            f"component {bit} ({image.caps.cpu.catalogue.name(bit)}) has no place in {to} format of {caps.cpu.name}",
            cure="strip it from the image, or name the components",
        )
    return _build(image, to, target, software=software, fill=False, caps=caps)


def encode(
    cpu: Cpu | Capabilities,
    values: Mapping[str, bytes],
    to: Format = "standard",
    *,
    components: int | None = None,
    start: Image | None = None,
    in_use: int | None = None,
) -> bytes:
    """Return an image that holds *values*, by register name.

    Args:
        cpu: the CPU that lays it out.
        values: each register's bytes; ``zmm3`` and ``xmm3`` must not contradict each other.
        to: the format, standard or compacted.
        components: those that get a place; None: all user components in standard format, those in use in compacted.
        start: what the registers not named hold; None: their initial values.
        in_use: XSTATE_BV; what is not in its initial configuration is added.  None: the components of *start* and of
            the registers named.  In compacted format SSE is added for MXCSR, see above.

    Raises:
        UsageError: a register does not exist or lies in a component without a place, or values contradict.
    """
    caps = cpu if isinstance(cpu, Capabilities) else Capabilities(cpu)
    sections = _sections(caps, start)
    used = start.xstate_bv if start is not None else 0
    for name, value in values.items():
        register = regs.find(name, caps.sizes)
        if len(value) != register.size:
            raise UsageError(f"{name} takes {register.size} bytes, not {len(value)}")
        regs.write(register, sections, value)
        used |= register.components
    for name, value in values.items():
        if regs.read(regs.find(name, caps.sizes), sections) != value:
            raise UsageError(f"{name} has another value under another name")
    if in_use is not None:
        used = in_use | _not_initial(caps, sections, used)
    if to == "compacted" and sections[0][24:28] != MXCSR_INIT.to_bytes(4, "little"):
        used |= SSE  # a compacted image has no other way to say it
    everything = caps.user if to == "standard" else used
    target = everything if components is None else components
    _require_known(caps, target, to)
    if used & complement(target):
        bit = next(bits(used & complement(target)))
        raise UsageError(f"component {bit} ({caps.cpu.catalogue.name(bit)}) has no place in the image")
    return _laid_out(caps, sections, to, target, used)


def _not_initial(caps: Capabilities, sections: Mapping[int, bytearray], components: int) -> int:
    """Return those of *components* that hold anything but their initial configuration."""
    from fpstate.isa.processor import Processor  # noqa: PLC0415  reading an image does without

    p = Processor(caps)
    mask = 0
    for bit in bits(components):
        section = p.sections[bit]
        section[:] = sections[bit][: len(section)]
        mask |= 0 if p.in_initial_configuration(bit) else 1 << bit
    return mask


def _sections(caps: Capabilities, start: Image | None) -> dict[int, bytearray]:
    """Return every component's bytes, as *start* has them; x87 and SSE share the legacy region."""
    legacy = bytearray(regs.initial(1, MIN_SIZE))
    legacy[:24] = regs.initial(0, 24)
    legacy[28:32] = _mxcsr_mask(caps).to_bytes(4, "little")
    if start is not None:
        x87 = start.component(0)
        legacy[:24], legacy[32:160], legacy[_XMM] = x87[:24], x87[24:], start.component(1)
        legacy[24:28] = start.mxcsr.to_bytes(4, "little")
        legacy[_SOFTWARE] = start.data[_SOFTWARE]
    sections = {0: legacy, 1: legacy}
    for bit, size in caps.sizes.items():
        has = start is not None and start.xstate_bv >> bit & 1
        sections[bit] = bytearray(start.component(bit) if start is not None and has else regs.initial(bit, size))
    return sections


def _laid_out(caps: Capabilities, sections: Mapping[int, bytearray], to: Format, target: int, used: int) -> bytes:
    places = _places(caps, to, target)
    made = bytearray(places.end)
    made[:LEGACY_SIZE] = sections[0][:LEGACY_SIZE]
    struct.pack_into("<QQ", made, LEGACY_SIZE, used, xcomp_bv(target) if to == "compacted" else 0)
    for bit, offset, size in places.slots:
        made[offset : offset + size] = sections[bit]
    return bytes(made)


def strip(image: Image, mask: int, *, software: bool = True) -> bytes:
    """Return *image* without the components in *mask*: no data, and in compacted format no place either."""
    return _build(image, image.format, image.components & complement(mask), software=software, fill=False)


def add(image: Image, mask: int, *, software: bool = True) -> bytes:
    """Return *image* with a place for the components in *mask* as well; new ones are in their initial configuration.

    Raises:
        UsageError: the CPU has no such component, or the format no place for it.
    """
    _require_known(image.caps, mask, image.format)
    return _build(image, image.format, image.components | mask, software=software, fill=False)


def init_fill(image: Image, *, software: bool = True) -> bytes:
    """Return *image* with initial bytes where XSTATE_BV is 0 and zeros where no component lies.

    Images of one format with the same XSTATE_BV can then be compared as bytes, and hold nothing of what their buffers
    held before.
    """
    built = _build(image, image.format, image.components, software=software, fill=True)
    return built.ljust(len(image.data), b"\0")


def patch(image: Image, values: Mapping[str, bytes]) -> bytes:
    """Return the bytes of *image* with *values* in the registers named, and every other byte as it is.

    XSTATE_BV gets the components of these registers.  One that was in its initial configuration is first filled with
    it, whatever its bytes were.

    Raises:
        UsageError: a register does not exist, has no place in the image or another size, or values contradict.
    """
    places = LEGACY_PLACES | {bit: (offset, size) for bit, offset, size in image.places.slots}
    wanted = {regs.find(name, image.caps.sizes): value for name, value in values.items()}
    made = bytearray(image.data)
    used = image.xstate_bv
    for register, value in wanted.items():
        if len(value) != register.size:
            raise UsageError(f"{register.name} takes {register.size} bytes, not {len(value)}")
        for bit in bits(register.components & complement(used)):
            if bit not in places:
                raise UsageError(f"{register.name} lies in component {bit}, which has no place in the image")
            _fill(made, bit, places[bit], image)
        used |= register.components
        _write(made, places, register, value)
    struct.pack_into("<Q", made, LEGACY_SIZE, used)
    patched = Image(bytes(made), image.caps, used, image.xcomp_bv)
    for register, value in wanted.items():
        if patched.register(register) != value:
            raise UsageError(f"{register.name} has another value under another name")
    return patched.data


def _fill(made: bytearray, bit: int, place: tuple[int, int], image: Image) -> None:
    """Put component *bit* of *made* into its initial configuration, MXCSR as *image* means it."""
    offset, size = place
    if bit == 0:
        for part in _X87:
            made[part] = regs.initial(0, 160)[part]
    else:
        made[offset : offset + size] = bytes(size) if bit == 1 else regs.initial(bit, size)
    if bit == 1:
        made[24:28] = image.mxcsr.to_bytes(4, "little")


def _write(made: bytearray, places: Mapping[int, tuple[int, int]], register: Register, value: bytes) -> None:
    start = 0
    for part in register.parts:
        at = part.offset + (0 if part.bit < 2 else places[part.bit][0])
        made[at : at + part.size] = value[start : start + part.size]
        start += part.size


def registers(components: int, sizes: Mapping[int, int]) -> list[Register]:
    """Return the registers in *components*, as `fpstate.registers.widest` does; a component without any is one itself.

    Args:
        components: a mask.
        sizes: component, 2 and up, to its bytes.
    """
    undivided = [bit for bit in bits(components & ~LEGACY) if not regs.of_component(bit) and bit in sizes]
    return [*regs.widest(components), *(regs.raw(bit, sizes[bit]) for bit in undivided)]


class Difference(NamedTuple):
    """A register that two images give different values."""

    register: Register
    a: bytes
    b: bytes

    @property
    def components(self) -> int:
        """The components in whose bytes it differs: of ZMM3 maybe the upper half of YMM3 alone."""
        mask = start = 0
        for part in self.register.parts:
            end = start + part.size
            mask |= (self.a[start:end] != self.b[start:end]) << part.bit
            start = end
        return mask


def register_differences(a: Image, b: Image, *, within: int | None = None) -> list[Difference]:
    """Return the registers in which two images, of any format and CPU, differ in meaning, each byte once.

    A register that lies in a component which one image has no place for is in its initial configuration there.

    Args:
        a: an image.
        b: the other.
        within: the components that are compared; None: all that either has a place for.
    """
    found = []
    both = a.components | b.components
    compared = both if within is None else both & within
    for register in registers(compared, {**b.caps.sizes, **a.caps.sizes}):
        values = a.register(register), b.register(register)
        if values[0] != values[1]:
            found.append(Difference(register, *values))
    return found


def _require_known(caps: Capabilities, mask: int, layout: Format) -> None:
    known = caps.user | (caps.supervisor if layout == "compacted" else 0)
    unknown = mask & complement(known)
    if unknown:
        bit = next(bits(unknown))
        why = "is a supervisor component" if caps.supervisor >> bit & 1 else f"is none of {caps.cpu.name}"
        raise UsageError(f"component {bit} ({caps.cpu.catalogue.name(bit)}) {why}: {layout} format has no place for it")


def _build(
    image: Image, to: Format, target: int, *, software: bool, fill: bool, caps: Capabilities | None = None
) -> bytes:
    """Return an image with places for *target*, on *image*'s CPU or another, and in them what *image* has."""
    caps = image.caps if caps is None else caps
    places = _places(caps, to, target)
    present = image.xstate_bv & target
    header = present
    if to == "compacted" and target & SSE and image.mxcsr != MXCSR_INIT:
        header |= SSE  # a compacted image has no other way to say it
    made = bytearray(places.end)
    if present & 1 or (fill and target & 1):
        source = image.data if present & 1 else regs.initial(0, 160)
        for part in _X87:
            made[part] = source[part]
    if present & SSE:
        made[_XMM] = image.data[_XMM]
    if to == "standard" or header & SSE or (fill and target & SSE):
        made[_MXCSR] = _mxcsr_bytes(image, target, caps)
    if software:
        made[_SOFTWARE] = image.data[_SOFTWARE]
    struct.pack_into("<QQ", made, LEGACY_SIZE, header, xcomp_bv(target) if to == "compacted" else 0)
    for bit, offset, size in places.slots:
        if present >> bit & 1 or fill:
            made[offset : offset + size] = image.component(bit).ljust(size, b"\0")[:size]
    return bytes(made)


def _mxcsr_mask(caps: Capabilities) -> int:
    from fpstate.isa.profile import of_cpu  # noqa: PLC0415  reading an image does without

    return of_cpu(caps.cpu).mxcsr_mask


def _mxcsr_bytes(image: Image, target: int, caps: Capabilities) -> bytes:
    """Return MXCSR and MXCSR_MASK, the latter that of *caps* where the image has none or another CPU's.

    Raises:
        UsageError: *caps* is another CPU than the image's, and has not the bits.
    """
    mask = _mxcsr_mask(caps)
    if not target & SSE or (image.xcomp_bv and not image.xstate_bv & SSE):
        return struct.pack("<II", MXCSR_INIT, mask)
    if caps is image.caps:
        return image.data[_MXCSR]
    beyond = image.mxcsr & complement(mask)
    if beyond:
        raise UsageError(f"MXCSR {image.mxcsr:#x} sets bit {next(bits(beyond))}, which {caps.cpu.name} has not")
    return struct.pack("<II", image.mxcsr, mask)
