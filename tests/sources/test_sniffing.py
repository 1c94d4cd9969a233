"""Every file goes to its own reader, and what holds no state to none."""

from __future__ import annotations

import gzip
import pathlib

import pytest

import elfcores as cores
from corpus import corpus_files
from fpstate.errors import UnreadableInput
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2
from fpstate.sources.input import Input
from fpstate.sources.open import READERS, open_source, reader_of
from sources import dumps
from sources.test_firecracker_state import WHOLE as FIRECRACKER
from sources.test_hextext import IMAGE, rows

HERE = pathlib.Path(__file__).parent
STATE = cores.image({"zmm3": bytes(range(64))})
MAGIC2 = FP_XSTATE_MAGIC2.to_bytes(4, "little")


def frame() -> bytes:
    """Return STATE as a signal frame has it: struct _fpx_sw_bytes at 464, magic2 behind."""
    made = bytearray(STATE + MAGIC2)
    fields = (FP_XSTATE_MAGIC1, 4), (len(made), 4), (cores.XCR0, 8), (len(STATE), 4)
    made[464:484] = b"".join(value.to_bytes(size, "little") for value, size in fields)
    return bytes(made)


def dump() -> bytes:
    """Return a minidump of one thread with CET_U, 16 bytes, in a compacted chunk."""
    cet_u = 1 << 11
    chunk = cet_u.to_bytes(8, "little") + (1 << 63 | cet_u).to_bytes(8, "little") + bytes(48) + b"\1" + bytes(15)
    thread = dumps.Context(flags=0x10_0048, fxsave=STATE[:512], chunk=chunk).record()
    return bytes(dumps.Dump(threads=[(5, thread)], features={11: (576, 16)}, enabled=1 << 63 | cet_u))


SAMPLES: dict[str, bytes] = {
    "elfcore": cores.core(cores.thread(7, STATE)),
    "minidump": dump(),
    "qemu": gzip.decompress((HERE / "qemu-7.2-tcg.stream.gz").read_bytes()),
    "firecracker": FIRECRACKER,
    "criu": gzip.decompress((HERE / "criu-3.17-core-4242.img.gz").read_bytes()),
    "sigframe": frame(),
    "vcpu": STATE.ljust(4096, b"\0"),
    "rawimage": IMAGE,
    "hextext": "\n".join(rows()).encode(),
}
KINDS = {"elfcore": "elf-core", "vcpu": "kvm-xsave", "rawimage": "image", "hextext": "text"}
"""What `Capture.kind` says, where that is not the module's name."""
ANYTHING = {"rawimage"}
"""Readers of bytes that are also a frame or a blob: they stand behind those."""


def known_by(data: bytes) -> list[str]:
    return [row.module for row in READERS if row.reader.sniff(Input("it", data))]


def test_there_is_a_sample_for_every_reader() -> None:
    assert list(SAMPLES) == [row.module for row in READERS]


@pytest.mark.parametrize("module", SAMPLES)
def test_a_source_is_known_by_its_own_reader_first(module: str) -> None:
    first, *rest = known_by(SAMPLES[module])
    assert first == module
    assert set(rest) <= ANYTHING


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("module", SAMPLES)
def test_a_file_of_each_kind_is_opened(module: str, packed: bool, tmp_path: pathlib.Path) -> None:
    data = gzip.compress(SAMPLES[module]) if packed else SAMPLES[module]
    (tmp_path / "file").write_bytes(data)
    found = open_source(str(tmp_path / "file"))
    assert found.kind == KINDS.get(module, module)
    assert len(found.threads) >= 1
    assert not found.damage


def test_what_broke_while_unpacking_is_said_beside_what_could_be_read(tmp_path: pathlib.Path) -> None:
    packed = gzip.compress(SAMPLES["sigframe"] + bytes(range(256)) * 64, compresslevel=0)
    (tmp_path / "cut.gz").write_bytes(packed[:-300])
    found = open_source(str(tmp_path / "cut.gz"))
    assert (found.kind, [damage.rule for damage in found.damage]) == ("sigframe", ["source.unpack"])


@pytest.mark.parametrize("data", [b"\0", b"MDM", bytes(4096), bytes(7)])
def test_what_is_too_short_or_empty_is_known_by_none(data: bytes) -> None:
    assert known_by(data) == []


@pytest.mark.parametrize("file", corpus_files("cpuid/*/*", "bootlogs/*", "zen4/*"))
def test_dumps_and_logs_are_no_images(file: pathlib.Path) -> None:
    data = file.read_bytes()
    assert known_by(gzip.decompress(data) if file.suffix == ".gz" else data) == []


@pytest.mark.parametrize("file", corpus_files("cores/*.core"))
def test_cores_are_cores_and_nothing_else(file: pathlib.Path) -> None:
    assert known_by(file.read_bytes()) == ["elfcore"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x01\x02" * 100 + bytes(4), "has 204 bytes: FXSAVE writes 512"),
        (STATE[:28] + bytes(4) + STATE[32:512] + b"\xff" * 8 + STATE[520:], r"\(standard-xstate-bv\)"),
        (bytes((1 << 20) + 1), "has more than 1048576 bytes"),
        (b"Dear all, the core is attached.\n", "it shows no bytes in a form that fpstate knows"),
    ],
    ids=["short", "a component that there is not", "large", "prose"],
)
def test_a_refusal_says_why_it_is_no_image_and_what_could_be_given(data: bytes, why: str) -> None:
    with pytest.raises(UnreadableInput, match=f"(?s){why}.*; give an ELF core, a Windows minidump,.* or "):
        reader_of(Input("a file", data))
