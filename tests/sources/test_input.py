"""The bytes of a source: mapped, piped, unpacked; and no more of them than is asked for."""

from __future__ import annotations

import gzip
import io
import itertools
import lzma
import os
import pathlib
import random
import sys
import threading
from collections.abc import Callable

import pytest
import zstandard

import elfcores as cores
from fpstate.errors import UnreadableInput
from fpstate.sources.input import Input, open_input
from fpstate.sources.open import open_source

STATE = cores.image({"zmm3": bytes(range(64))})
CORE = cores.core(cores.thread(7, STATE))
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


def through_pipe(data: bytes, use: Callable[[], object]) -> None:
    """Call *use* while *data* comes in on standard input's descriptor."""
    reader, writer = os.pipe()

    def feed() -> None:
        with open(writer, "wb") as file:  # noqa: PTH123  a descriptor
            try:
                file.write(data)
            except BrokenPipeError:
                return

    feeder = threading.Thread(target=feed)
    feeder.start()
    kept, sys.stdin = sys.stdin, open(reader, encoding="latin-1")  # noqa: PTH123, SIM115  closed below
    try:
        use()
    finally:
        sys.stdin.close()
        sys.stdin = kept
        feeder.join(10)


def images() -> list[bytes]:
    return [bytes(thread.image) for thread in open_source("-").threads]


def test_a_file_is_mapped_and_not_copied(tmp_path: pathlib.Path) -> None:
    (tmp_path / "core").write_bytes(CORE)
    found = open_input(str(tmp_path / "core"))
    assert found.whole
    assert type(found.upto(1).obj).__name__ == "mmap"
    assert found.upto(1 << 60) == CORE


@pytest.mark.parametrize("kind", PACK)
def test_a_compressed_core_is_unpacked(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / f"core.{kind}"
    path.write_bytes(PACK[kind](CORE))
    (thread,) = open_source(str(path)).threads
    assert bytes(thread.image) == STATE


@pytest.mark.parametrize("kind", ["plain", *PACK])
def test_standard_input_is_read_like_a_file(kind: str) -> None:
    data = PACK.get(kind, bytes)(CORE)
    through_pipe(data, lambda: check(images() == [STATE]))


def check(holds: bool) -> None:
    assert holds


def test_a_stand_in_for_standard_input_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CORE)))
    assert images() == [STATE]


def test_of_a_piped_core_the_memory_is_not_read() -> None:
    memory = bytes(64 << 20)
    taken: list[int] = []

    def read() -> None:
        source = open_input("-")
        taken.append(len(source.upto(len(CORE))))

    through_pipe(cores.core(cores.thread(7, STATE), memory=memory), read)
    assert taken[0] < 4 << 20


def test_of_a_compressed_core_the_memory_is_not_unpacked(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "core.gz"
    path.write_bytes(gzip.compress(cores.core(cores.thread(7, STATE), memory=bytes(64 << 20)), 1))
    found = open_input(str(path))
    assert len(found.upto(len(CORE))) < 2 << 20


@pytest.mark.parametrize("kind", PACK)
def test_compressed_data_that_ends_too_early_gives_what_there_is(kind: str, tmp_path: pathlib.Path) -> None:
    noise = random.Random(1).randbytes(400_000)  # noqa: S311  no secret
    packed = PACK[kind](cores.core([cores.thread(7, STATE), cores.note(b"CORE", 9, noise), cores.thread(8, STATE)]))
    path = tmp_path / f"core.{kind}"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    capture = open_source(str(path))
    assert [(t.tid, bytes(t.image)) for t in capture.threads] == [(7, STATE)]
    assert "source.unpack" in [d.rule for d in capture.damage]


def test_a_core_that_hides_its_notes_behind_its_memory_is_refused_in_words(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fpstate.sources.input.MOST_READ", 1 << 20)
    data = bytearray(CORE)
    data[64 + 8 : 64 + 16] = (4 << 20).to_bytes(8, "little")  # p_offset of PT_NOTE
    path = tmp_path / "core.gz"
    path.write_bytes(gzip.compress(bytes(data) + bytes(4 << 20), 1))
    with pytest.raises(UnreadableInput, match="give it as a file, not compressed"):
        open_source(str(path))


def test_what_is_compressed_twice_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "core.gz.xz"
    path.write_bytes(lzma.compress(gzip.compress(CORE)))
    with pytest.raises(UnreadableInput, match="compressed twice"):
        open_source(str(path))


@pytest.mark.parametrize(("path", "why"), [("/dev/zero", "device"), ("/", "directory"), ("/no/such", "No such file")])
def test_what_is_no_file_is_refused(path: str, why: str) -> None:
    with pytest.raises(UnreadableInput, match=why):
        open_source(path)


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000])
def test_a_name_that_no_file_can_have_is_refused(path: str) -> None:
    with pytest.raises(UnreadableInput, match="cannot read"):
        open_source(path)


@pytest.mark.parametrize("data", [b"", gzip.compress(b"")], ids=["empty", "gz of nothing"])
def test_an_empty_file_is_refused(data: bytes, tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").write_bytes(data)
    with pytest.raises(UnreadableInput, match="is empty"):
        open_source(str(tmp_path / "empty"))


def test_what_no_reader_knows_is_refused_with_what_is_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "poem").write_bytes(b"%PDF-1.7 once upon a time")
    with pytest.raises(UnreadableInput, match="an ELF core"):
        open_source(str(tmp_path / "poem"))


def test_everything_is_read_of_what_comes_in_pieces() -> None:
    assert bytes(Input("it", b"a", iter([b"b", b"cd"])).everything()) == b"abcd"


def test_everything_of_a_pipe_without_end_is_refused() -> None:
    endless = itertools.repeat(bytes(64 << 20))
    with pytest.raises(UnreadableInput, match="first 256 MiB; give it as a file, not compressed"):
        Input("it", b"", endless).everything()
