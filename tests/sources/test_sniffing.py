"""Every file is known by one reader at most, and what holds no image by none."""

from __future__ import annotations

import gzip
import pathlib
from types import ModuleType

import pytest

from corpus import corpus_files
from fpstate.sources import criu, firecracker, hextext, minidump, qemu, rawimage
from sources import dumps
from sources.test_firecracker_state import WHOLE as FIRECRACKER
from sources.test_hextext import IMAGE, rows

HERE = pathlib.Path(__file__).parent
READERS: tuple[ModuleType, ...] = (minidump, criu, qemu, firecracker, rawimage, hextext)
SAMPLES: dict[ModuleType, bytes] = {
    minidump: bytes(dumps.Dump()),
    criu: gzip.decompress((HERE / "criu-3.17-core-4242.img.gz").read_bytes()),
    qemu: gzip.decompress((HERE / "qemu-7.2-tcg.stream.gz").read_bytes()),
    firecracker: FIRECRACKER,
    rawimage: IMAGE,
    hextext: "\n".join(rows()).encode(),
}


def known_by(data: bytes) -> list[ModuleType]:
    return [reader for reader in READERS if reader.sniff(memoryview(data))]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__.rpartition(".")[2])
def test_a_source_is_known_by_its_own_reader_alone(reader: ModuleType) -> None:
    assert known_by(SAMPLES[reader]) == [reader]


@pytest.mark.parametrize("data", [b"", b"\0", b"MDM", bytes(4096), bytes(7)])
def test_what_is_too_short_or_empty_is_known_by_none(data: bytes) -> None:
    assert known_by(data) == []


@pytest.mark.parametrize("file", corpus_files("cpuid/*/*", "cores/*.core", "bootlogs/*", "zen4/*"))
def test_dumps_logs_and_cores_are_no_images(file: pathlib.Path) -> None:
    data = file.read_bytes()
    assert known_by(gzip.decompress(data) if file.suffix == ".gz" else data) == []
