"""From a path to dumps: files, standard input, devices, compression, and the limits on all of them."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable

import pytest
import zstandard

from fpstate.cpu.formats import MAX_INPUT, load_bytes, open_source, read, read_device, source
from fpstate.errors import UnreadableInput

DUMP = b"CPUID 0000000D: 00000007-00000340-00000340-00000000 [SL 00]\n"
LEAVES = {(0xD, 0): (7, 0x340, 0x340, 0)}


class Endless(io.RawIOBase):
    """A stream without end."""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return b"a" * min(size, 65536)


class Trickle(io.BytesIO):
    """A pipe: gives a byte at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(1, size or 0))


def test_a_file_is_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "dump.txt").write_bytes(DUMP)
    assert open_source(str(tmp_path / "dump.txt"))[0].leaves == LEAVES


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_source("-", stdin=io.BytesIO(DUMP))[0].leaves == LEAVES
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(DUMP)))
    assert open_source("-")[0].leaves == LEAVES


def test_a_pipe_is_read_to_its_end() -> None:
    assert load_bytes("-", stdin=Trickle(DUMP)) == DUMP


def test_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UnreadableInput, match="standard input is closed"):
        load_bytes("-")


def test_an_endless_input_is_refused_with_the_limit() -> None:
    with pytest.raises(UnreadableInput, match="has more than 16 MiB, the most that fpstate reads"):
        load_bytes("-", stdin=Endless())  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_refused_before_it_is_opened(path: str) -> None:
    with pytest.raises(UnreadableInput, match=f"^cannot read '{path}': it is a device; give a file"):
        load_bytes(path)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnreadableInput, match="has more than 16 MiB"):
        load_bytes(str(tmp_path / "large"))


def test_a_file_of_exactly_the_limit_is_read(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_INPUT)
    assert len(load_bytes(str(tmp_path / "large"))) == MAX_INPUT


def test_what_cannot_be_opened_is_refused_with_the_reason(tmp_path: pathlib.Path) -> None:
    for path, reason in (
        (str(tmp_path), "Is a directory"),
        (str(tmp_path / "missing"), "No such file or directory"),
        (str(tmp_path / ("x" * 300)), "File name too long"),
        ("zero\0byte", "embedded null byte"),
    ):
        with pytest.raises(UnreadableInput, match=rf"^cannot read .*: {reason}$"):
            open_source(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_someone_else_is_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(DUMP)
    file.chmod(0)
    with pytest.raises(UnreadableInput, match="Permission denied"):
        open_source(str(file))


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_an_empty_input_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableInput, match=r"^x is empty$"):
        read(data, name="x")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x7fELF\x02\x01\x01" + bytes(57), "it is an ELF file"),
        (b"PK\x03\x04....", "it is a zip archive"),
        (b"BZh91AY&SY....", "it is a bzip2 file"),
        (gzip.compress(DUMP), "it is compressed with gzip"),
        (bytes(range(256)), "it is binary data"),
        (
            b"processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd evtstrm cpuid\nCPU implementer\t: 0x41\n",
            "it looks like /proc/cpuinfo of an Arm machine",
        ),
        (
            b"processor\t: 0\nvendor_id\t: GenuineIntel\ncpuid level\t: 13\n",
            "it looks like /proc/cpuinfo, which has names",
        ),
        (b'CPU:\n   vendor_id = "GenuineIntel"\n   feature information (1/edx):\n', "it is what cpuid prints in words"),
    ],
    ids=["elf", "zip", "bzip2", "gzip", "binary", "arm", "cpuinfo", "cpuid"],
)
def test_a_stranger_is_refused_in_one_sentence(data: bytes, what: str) -> None:
    message = (
        rf"^no CPUID leaves, boot lines or template found in x: {re.escape(what)}[^\n]*; give the output of [^\n]*$"
    )
    with pytest.raises(UnreadableInput, match=message):
        read(data, name="x")


@pytest.mark.parametrize("filling", [b"\0", b"a", b"The quick brown fox jumps over the lazy dog 0x12345678.\n"])
def test_junk_as_large_as_it_may_be_is_refused_at_once(filling: bytes) -> None:
    junk = filling * (MAX_INPUT // len(filling))
    began = time.process_time()
    with pytest.raises(UnreadableInput, match="no CPUID leaves"):
        read(junk)
    assert time.process_time() - began < 1


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}
compressed = pytest.mark.parametrize("kind", COMPRESSORS)


@compressed
def test_a_compressed_input_is_read(kind: str) -> None:
    assert open_source("-", stdin=io.BytesIO(COMPRESSORS[kind](DUMP)))[0].leaves == LEAVES


@compressed
def test_members_one_after_another_are_one_input(kind: str) -> None:
    data = b"".join(COMPRESSORS[kind](DUMP[at : at + 7]) for at in range(0, len(DUMP), 7))
    assert open_source("-", stdin=io.BytesIO(data))[0].leaves == LEAVES


@compressed
def test_padding_after_a_member_is_passed_over(kind: str) -> None:
    assert open_source("-", stdin=io.BytesIO(COMPRESSORS[kind](DUMP) + bytes(512)))[0].leaves == LEAVES


@compressed
def test_one_compressed_file_may_lie_within_another(kind: str) -> None:
    twice = gzip.compress(COMPRESSORS[kind](DUMP))
    assert open_source("-", stdin=io.BytesIO(twice))[0].leaves == LEAVES
    with pytest.raises(UnreadableInput, match=r"^standard input is compressed more than 2 times$"):
        open_source("-", stdin=io.BytesIO(gzip.compress(twice)))


@compressed
def test_a_bomb_is_refused(kind: str) -> None:
    bomb = COMPRESSORS[kind](bytes(MAX_INPUT + 1))
    assert len(bomb) < 1 << 15
    with pytest.raises(UnreadableInput, match=r"^standard input is larger than 16 MiB uncompressed$"):
        open_source("-", stdin=io.BytesIO(bomb))


@compressed
def test_a_compressed_input_cut_off_anywhere_is_refused(kind: str) -> None:
    data = COMPRESSORS[kind](DUMP)
    for end in range(6, len(data)):
        with pytest.raises(UnreadableInput, match=r"^standard input is damaged: "):
            open_source("-", stdin=io.BytesIO(data[:end]))


@compressed
def test_damage_is_refused(kind: str) -> None:
    data = bytearray(COMPRESSORS[kind](DUMP * 9))
    data[len(data) // 2 :] = bytes(255 - byte for byte in data[len(data) // 2 :])
    with pytest.raises(UnreadableInput, match=r"^standard input is damaged: "):
        open_source("-", stdin=io.BytesIO(bytes(data)))


def test_thousands_of_members_are_refused() -> None:
    with pytest.raises(UnreadableInput, match=r"^standard input has more than 1024 gzip members$"):
        open_source("-", stdin=io.BytesIO(gzip.compress(b"") * 2000))


@pytest.mark.parametrize(
    ("kind", "module", "cure"), [("zstd", "zstandard", "pip install zstandard"), ("xz", "lzma", "xz -d")]
)
def test_a_missing_decompressor_is_named_with_the_cure(
    kind: str, module: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    with pytest.raises(UnreadableInput, match=rf"is compressed with {kind}, which this Python cannot read.*{cure}"):
        open_source("-", stdin=io.BytesIO(COMPRESSORS[kind](DUMP)))


def test_importing_the_readers_imports_no_decompressor() -> None:
    import subprocess

    heavy = {"lzma", "zstandard", "gzip", "ctypes", "html", "xml"}
    code = f"import sys, fpstate.cpu.formats; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "set()\n"


def answer(offset: int) -> tuple[int, int, int, int]:
    """A CPU whose highest leaves are 0DH and 80000008H, and that has the components 0xE7."""
    leaf, subleaf = offset & 0xFFFF_FFFF, offset >> 32
    known = {
        (0, 0): (0xD, 0x756E6547, 0x6C65746E, 0x49656E69),
        (4, 0): (0x121, 0, 0, 0),
        (4, 1): (0x122, 0, 0, 0),
        (7, 0): (1, 0, 0, 0),
        (7, 1): (0x1C30, 0, 0, 0),
        (0xD, 0): (0xE7, 2688, 2688, 0),
        (0xD, 1): (0xF, 2432, 0, 0),
        (0xD, 7): (1024, 1664, 0, 0),
        (0x8000_0000, 0): (0x8000_0008, 0, 0, 0),
    }
    return known.get((leaf, subleaf), (0, 0, 0, 0))


def test_a_cpuid_device_is_read_at_leaf_and_subleaf(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "cpuid"
    device.touch()
    monkeypatch.setattr(
        os, "pread", lambda _fd, size, at: b"".join(each.to_bytes(4, "little") for each in answer(at))[:size]
    )
    monkeypatch.setattr(source, "_is_cpuid_device", lambda path: path == str(device))
    (dump,) = open_source(str(device))
    assert {(0, 0), (4, 1), (7, 1), (0xD, 7), (0xD, 63), (0x8000_0008, 0)} <= set(dump.leaves)
    assert dump.leaves[0xD, 7] == (1024, 1664, 0, 0)
    assert (dump.format, dump.label, dump.os_linux) == ("cpuid-device", str(device), True)


def test_a_device_that_answers_too_little_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cpuid").touch()
    with pytest.raises(UnreadableInput, match="answered leaf 0x0 with 0 bytes, not 16"):
        read_device(str(tmp_path / "cpuid"))


def test_a_device_that_cannot_be_opened_is_refused_with_the_cure(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        UnreadableInput, match=r"cannot read .*: No such file or directory; run as root, with .*modprobe cpuid"
    ):
        read_device(str(tmp_path / "cpuid"))


@pytest.mark.host
def test_the_cpuid_device_of_this_host_is_read() -> None:
    path = "/dev/cpu/0/cpuid"
    if not os.access(path, os.R_OK):
        pytest.skip(f"{path} is missing or not readable")
    (dump,) = open_source(path)
    assert dump.leaves[0, 0][0] >= 0xD or (0xD, 0) not in dump.leaves
