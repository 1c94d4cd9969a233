"""Windows minidumps: each thread's CONTEXT, and behind it CONTEXT_EX with the extended state.

CONTEXT holds x87 and SSE as FXSAVE writes them.  CONTEXT_EX, right behind it, says where the XSTATE chunk lies: an
XSAVE area without its legacy region, from the header on, in standard or compacted format.  Its header names extended
components alone; the image that is put together here also has bits 0 and 1, by ContextFlags.  MINIDUMP_MISC_INFO_5 has
the size and the place of each component.

Sources: Windows SDK ``minidumpapiset.h`` (streams, MINIDUMP_MISC_INFO_5, XSTATE_CONFIG_FEATURE_MSC_INFO) and
``winnt.h`` (CONTEXT, CONTEXT_EX, XSTATE_CONTEXT flags); Microsoft, "Working with XState Context".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from fpstate.cpu.model import Component
from fpstate.errors import UnreadableInput, printable
from fpstate.sources.capture import Abi, Capture, Damage, Form, Thread
from fpstate.sources.input import Input
from fpstate.sources.window import Broken, unpack, view
from fpstate.xfeatures import CATALOGUE, COMPACTED, FSAVE_SIZE, HEADER_SIZE, LEGACY, LEGACY_SIZE, MIN_SIZE, bits

__all__ = ["read", "sniff"]

_MAGIC: Final = b"MDMP"
_THREADS, _EXCEPTION, _SYSTEM, _MISC, _NAMES = 3, 6, 7, 15, 24
"""MINIDUMP_STREAM_TYPE."""
_THREAD_SIZE: Final = 48
_XSTATE_DATA: Final = 832
"""Offset of XStateData in MINIDUMP_MISC_INFO_5, which begins as MINIDUMP_MISC_INFO_4 does."""
_LARGEST_CHUNK: Final = 1 << 16
_LONGEST_NAME: Final = 256
_MOST_STREAMS: Final = 4096
_MOST_THREADS: Final = 1 << 16


class _Machine(NamedTuple):
    """How one architecture's CONTEXT is laid out.  Offsets and sizes are bytes.

    Attributes:
        abi: whose registers.
        flags: offset of ContextFlags.
        size: of CONTEXT; CONTEXT_EX follows it.
        fxsave: offset of the FXSAVE image.
        has_fxsave, has_fsave, has_xstate: bits of ContextFlags.
    """

    abi: Abi
    flags: int
    size: int
    fxsave: int
    has_fxsave: int
    has_fsave: int
    has_xstate: int


_MACHINES: Final = {
    0: _Machine("i386", 0, 716, 204, 0x20, 0x8, 0x40),
    9: _Machine("x86-64", 0x30, 1232, 0x100, 0x8, 0, 0x40),
}
"""By SYSTEM_INFO.ProcessorArchitecture: PROCESSOR_ARCHITECTURE_INTEL and _AMD64."""
_FLOAT_SAVE: Final = 28
"""FLOATING_SAVE_AREA of an x86 CONTEXT begins with what FNSAVE writes."""


class _Stream(NamedTuple):
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Features:
    """XSTATE_CONFIG_FEATURE_MSC_INFO: EnabledFeatures, and (offset, size) of each feature that has a size."""

    enabled: int
    places: dict[int, tuple[int, int]]


def sniff(source: Input) -> bool:
    """Tell whether *source* begins as a minidump does."""
    return source.head.startswith(_MAGIC)


def read(source: Input) -> Capture:
    """Return the threads of a minidump; the one that the exception stream names comes first.

    Raises:
        UnreadableInput: it has no thread list, or was made on another architecture.
    """
    name, data = source.name, source.everything()
    try:
        streams = _streams(data)
        machine = _machine(name, data, streams)
        found, damage = _thread_list(name, data, streams)
    except Broken as broken:
        raise UnreadableInput(f"{name}: {broken}") from broken
    features, more = _features(data, streams)
    names = _names(data, streams)
    reader = _Reader(data, machine, features, budget=2 * len(data) + _LARGEST_CHUNK)
    threads = [replace(reader.thread(tid, context), name=names.get(tid, "")) for tid, context in found]
    notes = [] if features is None else [_told(features)]
    if any(thread.form == "xsave" for thread in threads):
        notes.append("bytes 0 to 511 of an image are CONTEXT's FXSAVE area, what follows is the XSTATE chunk")
    crashed, culprit, odd = _exception(data, streams)
    if culprit is not None:
        own = replace(reader.thread(crashed, culprit), name=names.get(crashed, ""))
        threads = [own, *(thread for thread in threads if thread.tid != crashed)]
        notes.append(f"thread {crashed} raised the exception: its registers are those of the exception stream")
    return Capture(name, "minidump", threads, damage=(*damage, *more, *odd), notes=tuple(notes))


def _streams(data: memoryview) -> dict[int, _Stream]:
    """Return the first stream of each type (MINIDUMP_HEADER, MINIDUMP_DIRECTORY)."""
    _, _, count, directory = unpack("<4sIII", data, 0, rule="minidump.header", what="the header")
    count = min(count, len(data) // 12, _MOST_STREAMS)
    entries = view(data, directory, 12 * count, rule="minidump.directory", what="the stream directory")
    found: dict[int, _Stream] = {}
    for kind, size, offset in struct.iter_unpack("<III", entries):
        found.setdefault(kind, _Stream(size, offset))
    return found


def _machine(name: str, data: memoryview, streams: dict[int, _Stream]) -> _Machine:
    if _SYSTEM not in streams:
        raise UnreadableInput(f"{name} is a minidump without SystemInfoStream: whose registers it holds is not said")
    at = streams[_SYSTEM].offset
    (number,) = unpack("<H", data, at, rule="minidump.system-info", what="SystemInfoStream")
    if number not in _MACHINES:
        raise UnreadableInput(f"{name} is a minidump of processor architecture {number}, which is not x86")
    return _MACHINES[number]


def _thread_list(
    name: str, data: memoryview, streams: dict[int, _Stream]
) -> tuple[list[tuple[int, _Stream]], list[Damage]]:
    """Return (thread id, place of its CONTEXT) of every thread, and what is wrong with the list."""
    if _THREADS not in streams:
        raise UnreadableInput(f"{name} is a minidump without a thread list", cure="take one with MiniDumpNormal")
    stream = streams[_THREADS]
    (count,) = unpack("<I", data, stream.offset, rule="minidump.thread-list", what="ThreadListStream")
    start = stream.offset + (8 if stream.size == 8 + _THREAD_SIZE * count else 4)  # some writers align the list
    whole = min((min(stream.offset + stream.size, len(data)) - start) // _THREAD_SIZE, _MOST_THREADS)
    damage = []
    if count > whole:
        text = f"the thread list says {count} threads, and {max(whole, 0)} are read: there is no room for more"
        damage.append(Damage("minidump.thread-count", text, stream.offset, "give all of the dump"))
    found = []
    for i in range(max(min(count, whole), 0)):
        at = start + _THREAD_SIZE * i
        (tid,) = struct.unpack_from("<I", data, at)
        found.append((tid, _Stream(*struct.unpack_from("<II", data, at + 40))))
    return found, damage


def _exception(data: memoryview, streams: dict[int, _Stream]) -> tuple[int, _Stream | None, list[Damage]]:
    """Return the thread that raised the exception, and the place of its CONTEXT (MINIDUMP_EXCEPTION_STREAM)."""
    if _EXCEPTION not in streams:
        return 0, None, []
    at = streams[_EXCEPTION].offset
    try:
        tid, size, offset = unpack("<I156xII", data, at, rule="minidump.exception", what="ExceptionStream")
    except Broken as broken:
        return 0, None, [broken.damage]
    return tid, _Stream(size, offset) if size else None, []


def _features(data: memoryview, streams: dict[int, _Stream]) -> tuple[_Features | None, list[Damage]]:
    """Return XStateData of MINIDUMP_MISC_INFO_5, or None where the stream is older or empty."""
    stream = streams.get(_MISC)
    if stream is None or stream.size < _XSTATE_DATA + 528:
        return None, []
    at = stream.offset + _XSTATE_DATA
    try:
        fields = unpack("<IIQ128I", data, at, rule="minidump.misc-info", what="MISC_INFO_5.XStateData")
    except Broken as broken:
        return None, [broken.damage]
    enabled, rows = fields[2], fields[3:]
    places, damage = {}, []
    for bit in bits(enabled & ~(COMPACTED | LEGACY)):
        offset, size = rows[2 * bit], rows[2 * bit + 1]
        if size and offset >= MIN_SIZE and offset + size <= _LARGEST_CHUNK:
            places[bit] = (offset, size)
        elif size or offset:
            text = f"XStateData puts feature {bit} at {offset} with {size} bytes: it cannot lie there"
            damage.append(Damage("minidump.feature-place", text, at + 16 + 8 * bit))
    return (_Features(enabled, places) if enabled else None), damage


def _told(features: _Features) -> str:
    form = "compacted" if features.enabled & COMPACTED else "standard"
    names = CATALOGUE.names(features.enabled & ~COMPACTED)
    return f"MISC_INFO_5 says: {form} format, features {names}"


def _names(data: memoryview, streams: dict[int, _Stream]) -> dict[int, str]:
    """Return the names in ThreadNamesStream; damage there costs a name and nothing else."""
    found: dict[int, str] = {}
    stream = streams.get(_NAMES)
    if stream is None:
        return found
    try:
        (count,) = unpack("<I", data, stream.offset, rule="minidump.names", what="ThreadNamesStream")
        count = min(count, len(data) // 12, _MOST_THREADS)
        rows = view(data, stream.offset + 4, 12 * count, rule="minidump.names", what="ThreadNamesStream")
        for tid, at in struct.iter_unpack("<IQ", rows):
            (length,) = unpack("<I", data, at, rule="minidump.names", what="a thread name")
            size = min(length, 2 * _LONGEST_NAME) & ~1
            text = bytes(view(data, at + 4, size, rule="minidump.names", what="a thread name"))
            found[tid] = printable(text.decode("utf-16-le", "replace"))
    except Broken:
        return found
    return found


@dataclass(slots=True)
class _Reader:
    """What reads CONTEXT records.

    Attributes:
        data: the dump.
        machine: whose CONTEXT.
        features: what MISC_INFO_5 says.
        budget: bytes of images that may still be put together: records that lie over each other must not cost memory.
    """

    data: memoryview
    machine: _Machine
    features: _Features | None
    budget: int

    def thread(self, tid: int, context: _Stream) -> Thread:
        try:
            return self._thread(tid, context)
        except Broken as broken:
            return Thread(tid, memoryview(b""), "none", abi=self.machine.abi, damage=(broken.damage,))

    def _thread(self, tid: int, context: _Stream) -> Thread:
        machine = self.machine
        (flags,) = unpack("<I", self.data, context.offset + machine.flags, rule="minidump.context", what="CONTEXT")
        size = min(context.size, machine.size)
        view(self.data, context.offset, size, rule="minidump.context", what="CONTEXT")
        values = {"context_flags": flags}
        legacy, form, at = self._legacy(flags, context.offset, size)
        plain = Thread(tid, legacy, form, abi=machine.abi, offset=at, values=values)
        if not flags & machine.has_xstate:
            return plain
        try:
            return self._with_xstate(plain, context)
        except Broken as broken:
            return replace(plain, damage=(broken.damage,))

    def _legacy(self, flags: int, start: int, size: int) -> tuple[memoryview, Form, int | None]:
        """Return x87 and SSE as CONTEXT has them, what form that is, and where it lies."""
        machine = self.machine
        if flags & machine.has_fxsave and machine.fxsave + LEGACY_SIZE <= size:
            at = start + machine.fxsave
            return self.data[at : at + LEGACY_SIZE], "fxsave", at
        if flags & machine.has_fsave and size >= _FLOAT_SAVE + FSAVE_SIZE:
            at = start + _FLOAT_SAVE
            return self.data[at : at + FSAVE_SIZE], "fsave", at
        return memoryview(b""), "none", None

    def _with_xstate(self, plain: Thread, context: _Stream) -> Thread:
        chunk, at = self._chunk(context)
        xstate_bv, xcomp_bv = struct.unpack_from("<QQ", chunk, 0)
        legacy = LEGACY if plain.form == "fxsave" else 0
        self.budget -= LEGACY_SIZE + len(chunk)
        if self.budget < 0:
            text = "the CONTEXT records have more bytes than the dump: they lie over each other"
            raise Broken(Damage("minidump.contexts-overlap", text, at))
        image = bytearray(LEGACY_SIZE + len(chunk))
        if legacy:
            image[:LEGACY_SIZE] = plain.image
        image[LEGACY_SIZE:] = chunk
        struct.pack_into("<Q", image, LEGACY_SIZE, xstate_bv | legacy)
        if xcomp_bv & COMPACTED:
            struct.pack_into("<Q", image, LEGACY_SIZE + 8, xcomp_bv | LEGACY)
        values = {**plain.values, "chunk_xstate_bv": xstate_bv, "chunk_xcomp_bv": xcomp_bv, "chunk_offset": at}
        damage = self._unplaced(xcomp_bv & ~(COMPACTED | LEGACY) or xstate_bv & ~LEGACY, at)
        image_view = memoryview(bytes(image))
        layout = self._layout(xcomp_bv)
        return replace(plain, image=image_view, form="xsave", offset=None, layout=layout, values=values, damage=damage)

    def _chunk(self, context: _Stream) -> tuple[memoryview, int]:
        """Return the XSTATE chunk, which CONTEXT_EX.XState places from its own start on, and where it lies."""
        at = context.offset + self.machine.size
        fields = unpack("<iIiIiI", self.data, at, rule="minidump.context-ex", what="CONTEXT_EX")
        offset, size = fields[4], fields[5]
        start, end = at + offset, context.offset + context.size
        if size < HEADER_SIZE or size > _LARGEST_CHUNK or offset < 24:
            text = f"CONTEXT_EX.XState has offset {offset} and length {size}: no XSAVE header with components fits"
            raise Broken(Damage("minidump.xstate-length", text, at + 16))
        if start + size > end:
            text = f"the XSTATE chunk ends at byte {start + size}, its CONTEXT record at {end}"
            raise Broken(Damage("minidump.xstate-length", text, at + 16, "give the whole record"))
        return view(self.data, start, size, rule="minidump.xstate", what="the XSTATE chunk"), start

    def _layout(self, xcomp_bv: int) -> dict[int, Component] | None:
        """Return the components as MISC_INFO_5 has them; compacted ones have no offset, the header places them."""
        if self.features is None:
            return None
        found = {}
        for bit, (offset, size) in self.features.places.items():
            row = CATALOGUE.get(bit)
            supervisor = row is not None and row.supervisor
            place = None if supervisor or xcomp_bv & COMPACTED else offset
            aligned = row is not None and row.aligned
            found[bit] = Component(bit, size, place, supervisor, aligned, row is not None and row.xfd)
        return found

    def _unplaced(self, mask: int, at: int) -> tuple[Damage, ...]:
        known = self.features.places if self.features is not None else None
        missing = [] if known is None else [bit for bit in bits(mask & ~COMPACTED) if bit not in known]
        return tuple(
            Damage(
                "minidump.feature-unplaced",
                f"the XSTATE chunk has component {bit} ({CATALOGUE.name(bit)}), which MISC_INFO_5 does not place",
                at,
            )
            for bit in missing
        )
