"""CRIU's ``core-TID.img``: the registers of one thread, in protobuf.

CRIU keeps the components apart, as the kernel's ``struct xregs_state`` has them.  Every array is written whatever the
CPU had: XSTATE_BV says which are in use, and nothing says which the CPU lacks.

Sources: CRIU ``images/core.proto`` and ``images/core-x86.proto`` (field numbers as CRIU 3.17.1 has them; 3.13 and older
stop at ``ymmh_space``), ``criu/include/magic.h``, ``criu/arch/x86/crtools.c`` (``save_task_regs()``).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from fpstate.errors import UnreadableInput, printable
from fpstate.sources.assemble import NOTE, assemble, fxsave
from fpstate.sources.capture import Abi, Capture, Damage, Thread
from fpstate.sources.input import Input
from fpstate.sources.protobuf import Message, message, numbers
from fpstate.sources.window import Broken, unpack, view
from fpstate.xfeatures import CATALOGUE, LEGACY, bits

__all__ = ["read", "sniff"]

_COMMON, _CORE = 0x54564319, 0x55053847
"""IMG_COMMON_MAGIC, which images since 1.1 begin with, and CORE_MAGIC."""
_LARGEST: Final = 1 << 20
_X86_64: Final = 1
_COMPAT: Final = 2

_MTYPE, _THREAD_INFO, _TC = 1, 2, 3
_COMM: Final = 6
_GPREGS, _FPREGS = 2, 3
_MODE: Final = 28
_CWD, _SWD, _TWD, _FOP, _RIP, _RDP, _MXCSR, _MXCSR_MASK, _ST, _XMM, _XSAVE = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13
_XSTATE_BV: Final = 1


class _Array(NamedTuple):
    """A repeated field of ``user_x86_xsave_entry``.

    Attributes:
        bit: the component.
        width: bytes of each number.
        length: how many numbers a whole one has.
    """

    bit: int
    width: int
    length: int


_ARRAYS: Final[Mapping[int, _Array]] = {
    2: _Array(2, 4, 64),
    3: _Array(3, 8, 8),
    4: _Array(4, 8, 2),
    5: _Array(5, 8, 8),
    6: _Array(6, 8, 64),
    7: _Array(7, 8, 128),
    8: _Array(9, 4, 2),
}
"""Field number to what it holds: ymmh_space, bndreg_state, bndcsr_state, opmask_reg, zmm_upper, hi16_zmm, pkru."""


def sniff(source: Input) -> bool:
    """Tell whether *source* begins with CRIU's magic numbers of a core image."""
    return _start(source.head) is not None


def _start(head: bytes) -> int | None:
    """Return where the entry begins: behind one magic number or two."""
    if head[:8] == struct.pack("<II", _COMMON, _CORE):
        return 8
    return 4 if head[:4] == struct.pack("<I", _CORE) else None


def read(source: Input) -> Capture:
    """Return the thread of a core image; the number in a name ``core-TID.img`` is the thread's.

    Raises:
        UnreadableInput: it is no core image, of another architecture, or damaged before the registers.
    """
    name, data = source.name, source.everything()
    start = _start(source.head)
    if start is None:
        raise UnreadableInput(f"{name} is no CRIU core image")
    try:
        (size,) = unpack("<I", data, start, rule="criu.entry", what="the entry's size")
        if size > _LARGEST:
            raise UnreadableInput(f"{name}: the entry at byte {start} says {size} bytes, and no thread has so many")
        entry = view(data, start + 4, size, rule="criu.entry", what="the entry")
        core = message(entry, start + 4)
        if numbers(core, _MTYPE)[:1] != [_X86_64]:
            raise UnreadableInput(f"{name} is a CRIU core image of another architecture than x86-64")
        info = _inner(core, _THREAD_INFO, start + 4)
        thread, notes = _thread(_tid(name), _comm(core), info, start + 4)
    except Broken as broken:
        raise UnreadableInput(f"{name}: {broken}") from broken
    rest = len(data) - start - 4 - size
    damage = (Damage("criu.trailing", f"{rest} bytes follow the entry", start + 4 + size),) if rest else ()
    return Capture(name, "criu", (thread,), damage=damage, notes=notes)


def _inner(outer: Message, field: int, base: int) -> Message:
    """Return the message in a field; an empty one if it is not there."""
    values = outer.get(field, ())
    inner = values[-1] if values else memoryview(b"")  # the last one counts, says the reference
    return {} if isinstance(inner, int) else message(inner, base)


def _tid(name: str) -> int | None:
    found = re.search(r"core-(\d{1,10})\.img", name)
    return int(found[1]) if found else None


def _comm(core: Message) -> str:
    task = _inner(core, _TC, 0)
    values = task.get(_COMM, ())
    text = values[-1] if values else b""
    return "" if isinstance(text, int) else printable(bytes(text)[:64].decode("utf-8", "replace"))


def _thread(tid: int | None, comm: str, info: Message, base: int) -> tuple[Thread, tuple[str, ...]]:
    registers, fpregs = _inner(info, _GPREGS, base), _inner(info, _FPREGS, base)
    abi: Abi = "i386" if numbers(registers, _MODE)[-1:] == [_COMPAT] else "x86-64"
    if not fpregs:
        return Thread(tid, memoryview(b""), "none", name=comm, abi=abi), ("the image has no fpregs",)

    def value(field: int) -> int:
        return (numbers(fpregs, field) or [0])[-1]

    legacy = fxsave(
        control=value(_CWD) & 0xFFFF,
        status=value(_SWD) & 0xFFFF,
        tags=value(_TWD) & 0xFF,
        opcode=value(_FOP) & 0xFFFF,
        ip=value(_RIP),
        dp=value(_RDP),
        mxcsr=value(_MXCSR) & 0xFFFFFFFF,
        mxcsr_mask=value(_MXCSR_MASK) & 0xFFFFFFFF,
        stack=_bytes(numbers(fpregs, _ST)[:32], 4),
        xmm=_bytes(numbers(fpregs, _XMM)[:64], 4),
    )
    if _XSAVE not in fpregs:
        return Thread(tid, memoryview(bytes(legacy)), "fxsave", name=comm, abi=abi), ()
    xsave = _inner(fpregs, _XSAVE, base)
    components, damage = _components(xsave)
    xstate_bv = (numbers(xsave, _XSTATE_BV) or [0])[-1]
    lost = xstate_bv & ~LEGACY & ~sum(1 << bit for bit in components)
    for bit in bits(lost):
        text = f"XSTATE_BV {xstate_bv:#x} has component {bit} ({CATALOGUE.name(bit)}), of which the image keeps nothing"
        damage.append(Damage("criu.component-lost", text))
    image, layout = assemble(legacy, components, xstate_bv)
    notes = [NOTE]
    newer = sorted(set(xsave) - set(_ARRAYS) - {_XSTATE_BV})
    if newer:
        notes.append(f"user_x86_xsave_entry has fields {newer[:8]}, which CRIU 3.17 does not: they are not read")
    values = {"criu_xstate_bv": xstate_bv}
    thread = Thread(tid, image, name=comm, abi=abi, layout=layout, values=values, damage=tuple(damage))
    return thread, tuple(notes)


def _components(xsave: Message) -> tuple[dict[int, bytes], list[Damage]]:
    """Return the bytes of each component that the image has, and which arrays are shorter than they must be."""
    found, damage = {}, []
    for field, array in _ARRAYS.items():
        values = numbers(xsave, field)
        if not values:
            continue
        if len(values) != array.length:
            text = f"field {field} of user_x86_xsave_entry ({CATALOGUE.name(array.bit)}) has {len(values)} numbers"
            damage.append(Damage("criu.array-length", f"{text}, not {array.length}"))
        found[array.bit] = _bytes(values[: array.length], array.width)
    return found, damage


def _bytes(values: list[int], width: int) -> bytes:
    mask = (1 << 8 * width) - 1
    return b"".join((value & mask).to_bytes(width, "little") for value in values)
