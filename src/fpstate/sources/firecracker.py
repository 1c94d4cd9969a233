"""Firecracker snapshots: the state file, not guest memory.

The state is a tree of Rust structures in bincode, without names or lengths for most of them, and it changes with every
release.  So nothing is walked: what stands next to each other in every release is looked for.  VcpuState ends with

    xcrs, 392 bytes of ``struct kvm_xcrs`` behind their length;
    xsave, 4096 bytes of ``struct kvm_xsave`` behind their length (to 1.11), or 4104 of ``kvm_xsave2``, which begins
    with the number of further 32-bit words, and then those words behind their number (from 1.12).

A place is taken for a vCPU if the lengths fit, XCR0 is one that XSETBV accepts, and the image breaks no rule.  Releases
that write bitcode (2026 and later) keep the structures elsewhere; such a file is refused with that reason.

Sources: Firecracker ``src/vmm/src/snapshot/mod.rs`` (magic, version), ``vstate/vcpu`` (VcpuState), pull requests 4230
(serde and bincode), 5129 (bincode 2, fixed integers) and 5617 (bitcode); kvm-bindings ``serialize.rs`` (a structure is
its bytes behind their length) and ``fam_wrappers.rs`` (Xsave); Linux ``struct kvm_xcrs``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from fpstate.cpu import xcr0
from fpstate.errors import UnreadableInput
from fpstate.sources import rawimage
from fpstate.sources.capture import Capture, Damage, Thread
from fpstate.sources.input import Input

__all__ = ["crc64", "read", "sniff"]

_MAGIC: Final = 0x0710_1984_8664_0000
"""Of x86-64; the lower 16 bits are 0 with bincode, and were the storage version with versionize."""
_ARM: Final = 0x0710_1984_AAAA_0000
_XCRS: Final = 8 + 16 * 16 + 16 * 8
_XSAVE: Final = 4096
_LONGEST_VERSION: Final = 64
_LONGEST: Final = 10_000_000
"""Bytes: Firecracker itself reads no longer state."""
_MOST_VCPUS: Final = 1024
_MOST_WORDS: Final = 1 << 16
_POLYNOMIAL: Final = 0x95AC_9329_AC4B_C9B5
_PATTERN: Final = struct.pack("<QIIII", _XCRS, 1, 0, 0, 0)
"""The length of ``struct kvm_xcrs``, one register, no flags, XCR0, a reserved word: what KVM_GET_XCRS writes."""


def sniff(source: Input) -> bool:
    """Tell whether *source* begins with Firecracker's magic number, of x86-64 or Arm."""
    return int.from_bytes(source.head[:8], "little") & ~0xFFFF in {_MAGIC, _ARM}


def read(source: Input) -> Capture:
    """Return the vCPUs of a state file.

    Raises:
        UnreadableInput: it is an Arm guest's, too large, or no vCPU can be found in it.
    """
    name, data = source.name, source.upto(_LONGEST + 1)
    magic = int.from_bytes(data[:8], "little")
    if magic & ~0xFFFF != _MAGIC:
        raise UnreadableInput(f"{name} is no Firecracker snapshot of an x86-64 guest")
    if len(data) > _LONGEST:
        raise UnreadableInput(
            f"{name} has more than {_LONGEST} bytes: is it the guest's memory?", cure="give the state file"
        )
    version = _version(data)
    state = bytes(data)
    threads = [_thread(number, data, found) for number, found in enumerate(_vcpus(state))]
    if not threads:
        raise UnreadableInput(
            f"{name} is a Firecracker snapshot, {version}, in which no vCPU's XCR0 and XSAVE area stand together",
            cure="versionize (before 1.6) and bitcode (2026 and later) are not read; nor is one made without XSAVE",
        )
    notes = (
        f"Firecracker snapshot, {version}",
        "vCPUs are found by what stands next to each other, in the file's order; MSRs are not read",
    )
    return Capture(name, "firecracker", tuple(threads), damage=_checked(state), notes=notes)


def _version(data: memoryview) -> str:
    """Return the version of the format, which semver writes as a text behind its length."""
    length = int.from_bytes(data[8:16], "little")
    text = bytes(data[16 : 16 + length]) if length <= _LONGEST_VERSION else b""
    if re.fullmatch(rb"\d+\.\d+\.\d+[-+.\w]*", text) is None:
        return "of no version that bincode wrote"
    return f"format {text.decode()}"


class _Vcpu(NamedTuple):
    """Where a vCPU's image lies.

    Attributes:
        xcr0: its XCR0.
        at: where the 4096 bytes begin.
        more: where what follows them begins, and how many bytes; 0 for none.
    """

    xcr0: int
    at: int
    more: tuple[int, int]


def _vcpus(state: bytes) -> Iterator[_Vcpu]:
    at = state.find(_PATTERN)
    count = 0
    while at >= 0 and count < _MOST_VCPUS:
        found = _vcpu(state, at)
        if found is not None:
            yield found
            count += 1
        at = state.find(_PATTERN, found.at if found is not None else at + 1)


def _vcpu(state: bytes, at: int) -> _Vcpu | None:
    """Return the vCPU whose xcrs begin at *at*, if what follows them is an XSAVE area."""
    end = at + 8 + _XCRS
    if end + 8 + _XSAVE > len(state):
        return None
    enabled = int.from_bytes(state[at + 24 : at + 32], "little")
    if xcr0.fault(enabled) is not None:
        return None
    length = int.from_bytes(state[end : end + 8], "little")
    if length == _XSAVE:
        found = _Vcpu(enabled, end + 8, (0, 0))
    elif length == 8 + _XSAVE:
        image = end + 16
        words = int.from_bytes(state[end + 8 : image], "little")
        rest = image + _XSAVE
        if words > _MOST_WORDS or int.from_bytes(state[rest : rest + 8], "little") != words:
            return None
        if rest + 8 + 4 * words > len(state):
            return None
        found = _Vcpu(enabled, image, (rest + 8, 4 * words))
    else:
        return None
    head = memoryview(state)[found.at : found.at + _XSAVE]
    return None if any(head[:576]) and rawimage.implausible(head) else found


def _thread(number: int, data: memoryview, found: _Vcpu) -> Thread:
    image: memoryview = data[found.at : found.at + _XSAVE]
    offset: int | None = found.at
    start, size = found.more
    if size:  # the length of the rest stands between: only a copy is in one piece
        image, offset = memoryview(bytes(image) + bytes(data[start : start + size])), None
    return Thread(number, image, name=f"vCPU {number}", offset=offset, enabled=found.xcr0)


def _checked(state: bytes) -> tuple[Damage, ...]:
    """Check the CRC-64 over everything before it, which the file ends with (``snapshot/crc.rs``)."""
    stored, computed = int.from_bytes(state[-8:], "little"), crc64(state[:-8])
    if stored == computed:
        return ()
    text = f"the file ends with CRC-64 {stored:#x}, and its bytes have {computed:#x}"
    return (Damage("firecracker.crc", text, len(state) - 8, "copy the file again"),)


@cache
def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


def crc64(data: bytes) -> int:
    """Return the CRC-64 of Jones, reflected and from 0, as Redis and the crate ``crc64`` compute it."""
    table, value = _table(), 0
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value
