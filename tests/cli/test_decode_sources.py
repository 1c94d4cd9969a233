"""``fpstate decode``: live processes, signal frames, files that are no cores, and what is shown of each."""

from __future__ import annotations

import gzip
import json
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elfcores as cores
import fpstate
from corpus import corpus_files
from decoding import run
from fpstate import cli
from fpstate.cpu.host import why_not_x86_64
from fpstate.errors import FpstateError
from fpstate.image import read
from fpstate.isa import Capabilities
from fpstate.report import decode as report
from fpstate.report.image_picture import svg
from fpstate.sources.decoded import place
from fpstate.sources.input import Input
from fpstate.sources.open import reader_of
from fpstate.sources.process import threads_of
from known import known
from sources.test_sniffing import SAMPLES
from tracees import Program

ZMM3 = bytes(range(64))
STATE = cores.image({"zmm3": ZMM3, "k1": bytes(range(8))})
TILES = {"tilecfg": bytes([1, *bytes(15), 8, *bytes(31), 2, *bytes(15)]), "tmm0": bytes(range(1, 9)) + bytes(1016)}
"""Palette 1; tile 0 has two rows of 8 bytes, and the first is 1 to 8."""
host = pytest.mark.skipif(why_not_x86_64() is not None, reason=str(why_not_x86_64()))


@pytest.fixture(autouse=True)
def _folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    pathlib.Path("app.core").write_bytes(cores.core([cores.thread(7, STATE), cores.layout_of()]))
    pathlib.Path("fx.bin").write_bytes(STATE[:512])


def said(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    status, out, err = run(command, capsys)
    assert (status, err) == (0, "")
    return out


def image(values: dict[str, bytes], cpu: str = "sapphire-rapids") -> None:
    """Write a bare image with *values* as ``image.bin``."""
    pathlib.Path("image.bin").write_bytes(fpstate.encode_image(fpstate.cpu_by_name(cpu), values))


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", SAMPLES)
def test_a_file_of_each_kind_is_shown(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    pathlib.Path("file.gz").write_bytes(gzip.compress(SAMPLES[module]))
    status, out, err = run("file.gz --all-threads", capsys)
    assert status in {0, 1}
    assert out.startswith("file.gz: ")
    assert not err
    assert json.loads(run("file.gz --json", capsys)[1])["kind"] in out


@pytest.mark.parametrize("file", corpus_files("minidump/*.dmp"))
def test_the_shadow_stack_of_a_real_minidump(file: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breakpad's README: U_CET 1, PL3_SSP 0xcbc83fefc8, in a compacted chunk with CET_U alone."""
    out = said(f"{file} --reg u_cet,pl3_ssp", capsys)
    assert out == "u_cet    0x1\n  bit 0  SH_STK_EN     shadow stacks\npl3_ssp  0x000000cbc83fefc8\n"
    assert "compacted, 592 bytes; places as the source tells" in said(f"{file}", capsys)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "cannot read 'missing': No such file"),
        (".", "cannot read '.': Is a directory"),
        ("/dev/zero", "cannot read '/dev/zero': it is a device; give a file"),
        ("empty", "empty is empty"),
        ("prose", "prose holds no image: it shows no bytes in a form that fpstate knows; give an ELF core"),
        (sys.executable, "not a core (4); give a core"),
    ],
)
def test_what_is_no_source_exits_2_with_a_line_that_helps(
    name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pathlib.Path("empty").touch()
    pathlib.Path("prose").write_text("Dear all, see the core.\n", encoding="utf-8")
    status, out, err = run(name, capsys)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert words in err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "decode needs a SOURCE, --pid or --tid"),
        ("app.core cpu.json --pid 5", "SOURCE and --pid or --tid do not go together"),
        ("app.core --pid 5", "with --pid or --tid 'app.core' is the CPU's FILE: no CPUID leaves"),
        ("fx.bin --frames", "fx.bin is no ELF core; frames are looked for in a core or a process"),
        ("fx.bin --thread 3", "fx.bin has no thread 3; what it has is without numbers: --all-threads"),
        ("--pid 1 --tid 2", "not allowed with argument"),
        ("--pid x", "'x' must be the number of a thread"),
        ("app.core --as f32", "--as goes with --reg"),
        (
            "app.core --reg k1 --as u128",
            "k1: 8 bytes are no whole number of u128 lanes, 16 bytes each; types that fit are u8",
        ),
        ("app.core --reg , --as u8", "--reg names no register"),
        ("app.core --reg zmm3 --as f33", "there is no type 'f33'"),
        ("app.core --reg zmm99", "there is no register 'zmm99'"),
        ("app.core --frames --thread 7", "--frames and --thread do not go together"),
        ("app.core --svg -", "--svg must name a file"),
        ("app.core --frames --svg x.svg", "--svg has no image to draw; choose a thread that has one"),
        ("--pid 4294967295", "there is no process or thread 4294967295"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(
    command: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(command, capsys)
    assert (status, out) == (2, "")
    assert words in err


def test_a_core_does_not_import_what_reads_other_sources() -> None:
    """`decode CORE` promises 60 ms of CPU over a bare interpreter."""
    script = "import sys; from fpstate import cli; cli.main(['decode', 'app.core']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "fpstate.sources.elfcore" in loaded
    others = {f"fpstate.sources.{name}" for name in (*SAMPLES, "process", "stacks", "rawimage") if name != "elfcore"}
    assert not loaded & (others | {"ctypes", "json", "fpstate.report.registers_view"})


_PLACES = {name: [i for i in range(len(data)) if i < 700 or data[i]] for name, data in SAMPLES.items()}
"""Bytes whose change can matter: headers, and what is not zero."""


@pytest.mark.parametrize("module", SAMPLES)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_a_damaged_file_of_each_kind_is_shown_or_refused_in_words(module: str, data: st.DataObject) -> None:
    damaged = bytearray(SAMPLES[module])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from(_PLACES[module]))
        value = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, bytes(8)])))
        damaged[at : at + len(value)] = value
    end = data.draw(st.one_of(st.none(), st.integers(0, len(damaged))))
    source = Input("a file", bytes(damaged[:end]))
    try:
        found = place(reader_of(source).read(source))
        threads = found.threads
    except FpstateError:
        return
    for everything in (True, False):
        assert report.text(found, threads, everything=everything)
    assert len(json.loads(report.json_text(report.document(found, threads)))["threads"]) == len(threads)
    report.bytes_text(found, threads)
    report.registers_text(found, threads, ["tmm0", "zmm3", "pkru", "u_cet", "st0"])
    for placed in threads:
        assert placed.image is None or svg(placed.image)


# -- views -----------------------------------------------------------------------------------------------------------


def test_chosen_registers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert said("app.core --reg k1", capsys) == "k1        0x706050403020100\n"
    assert said("app.core --reg k1,xmm3 --reg k2", capsys).count("\n") == 3
    assert cli.main(["decode", "app.core", "--reg", "K1, k2,"]) == 0
    assert capsys.readouterr().out == "k1        0x706050403020100\nk2        0x0\n"


def test_lanes_of_a_register(capsys: pytest.CaptureFixture[str]) -> None:
    assert said("app.core --reg xmm3 --as u32", capsys).split()[-4:] == [
        "50462976",
        "117835012",
        "185207048",
        "252579084",
    ]


def test_a_register_that_the_thread_lacks_is_said_to_be_absent(capsys: pytest.CaptureFixture[str]) -> None:
    assert said("app.core --reg k1,pkru", capsys).splitlines()[1] == "pkru      not there: PKRU absent"


def test_chosen_registers_of_all_threads_are_shown_once_where_they_are_equal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = cores.image({"k1": bytes(range(8))})
    threads = [cores.thread(1, STATE), cores.thread(2, other), cores.layout_of()]
    pathlib.Path("app.core").write_bytes(cores.core(threads))
    out = said("app.core --reg k1 --all-threads", capsys)
    assert out == "2 threads with the same state: 1, 2; x86-64\nk1        0x706050403020100\n"


def test_json_has_the_chosen_registers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    (thread,) = json.loads(said("app.core --reg zmm3,pkru --json", capsys))["threads"]
    assert thread["registers"] == {"zmm3": ZMM3.hex()}


def test_json_has_the_lanes_of_chosen_registers(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said("app.core --reg k1,xmm3,pkru --as u32 --json", capsys))
    assert found["type"] == "u32"
    lanes = found["threads"][0]["lanes"]
    assert lanes == {"k1": ["50462976", "117835012"], "xmm3": ["50462976", "117835012", "185207048", "252579084"]}


def test_json_has_a_tile_row_by_row(capsys: pytest.CaptureFixture[str]) -> None:
    image(TILES)
    (thread,) = json.loads(said("image.bin --cpu sapphire-rapids --reg tmm0,tmm1 --as u8 --json", capsys))["threads"]
    assert thread["lanes"] == {"tmm0": [[str(i) for i in range(1, 9)], ["0"] * 8], "tmm1": []}


def test_json_has_every_byte_of_an_image_once(capsys: pytest.CaptureFixture[str]) -> None:
    (thread,) = json.loads(said("app.core --bytes --json", capsys))["threads"]
    assert "".join(field["value"] for field in thread["fields"]) == STATE.hex()
    assert {"offset": 512, "size": 8, "name": "XSTATE_BV", "value": "6600000000000000"} in thread["fields"]


def test_a_tile_is_a_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    image(TILES)
    out = said("image.bin --cpu sapphire-rapids --reg tmm0 --as u8", capsys)
    assert out.splitlines()[:2] == ["tmm0 as u8, 2 x 8 (palette 1)", "  [ 0]  1 2 3 4 5 6 7 8"]
    assert "tmm0 as i32, 2 x 2 (palette 1)" in said("image.bin --cpu sapphire-rapids -v", capsys)


def test_pkru_is_a_table_of_keys(capsys: pytest.CaptureFixture[str]) -> None:
    image({"pkru": b"\x08\0\0\0"})
    for command in ("--reg pkru", "-v"):
        out = said(f"image.bin --cpu sapphire-rapids {command}", capsys)
        assert "\n  1   0   1  read\n  2   0   0  read, write\n" in out


def test_every_byte_of_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    out = said("app.core --bytes", capsys)
    assert "\n   512      8  XSTATE_BV         6600000000000000\n" in out
    rows = [line.split()[:2] for line in out.splitlines()[2:]]
    assert sum(int(size) for _, size in rows) == len(STATE)


def test_what_is_kept_beside_an_image_is_shown_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    notes = [cores.prstatus(7), cores.note(cores.LINUX, 0x204, b"\x10" + bytes(7))]
    pathlib.Path("app.core").write_bytes(cores.core(notes))
    status, out, _ = run("app.core", capsys)
    assert status == 1
    assert "\n\nssp       0x10\n\nimage.none: " in out
    assert "absent" not in out


def test_a_byte_of_a_compressed_source_is_said_to_be_unpacked(capsys: pytest.CaptureFixture[str]) -> None:
    cut = cores.core([cores.thread(7, STATE), cores.layout_of()])[:-100]
    pathlib.Path("cut.core").write_bytes(cut)
    pathlib.Path("cut.core.gz").write_bytes(gzip.compress(cut))
    assert "elf.segment-truncated (byte 176): " in run("cut.core", capsys)[1]
    for command in ("cut.core.gz", "cut.core.gz --reg k1", "cut.core.gz --explain", "app.core --diff cut.core.gz"):
        assert "elf.segment-truncated (byte 176, unpacked): " in run(command, capsys)[1]


def test_the_bytes_of_fxsave_have_no_header(capsys: pytest.CaptureFixture[str]) -> None:
    pathlib.Path("fx.bin").write_bytes(STATE[:512])
    assert "XSTATE_BV" not in said("fx.bin --bytes", capsys)


def test_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    said("app.core --svg image.svg", capsys)
    assert pathlib.Path("image.svg").read_text(encoding="utf-8").startswith("<svg ")


# -- live processes and signal frames --------------------------------------------------------------------------------


@host
@pytest.mark.host
def test_every_thread_of_a_live_process(
    program: Program, caps: Capabilities, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = json.loads(said(f"--pid {program.pid} --json", capsys))["threads"]
    assert [t["tid"] for t in threads] == threads_of(program.pid)
    loaded = {read(known(caps, seed), caps).register("xmm7").hex() for seed in (1, 2)}
    assert loaded <= {t["registers"]["xmm7"] for t in threads}


@host
@pytest.mark.host
def test_one_live_thread(program: Program, caps: Capabilities, capsys: pytest.CaptureFixture[str]) -> None:
    tid = max(threads_of(program.pid))
    (thread,) = json.loads(said(f"--tid {tid} --reg xmm7 --json", capsys))["threads"]
    assert (thread["tid"], thread["registers"]) == (tid, {"xmm7": read(known(caps, 2), caps).register("xmm7").hex()})


@host
@pytest.mark.host
def test_a_live_thread_is_compared_with_another_one(
    program: Program, caps: Capabilities, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = sorted(threads_of(program.pid))[1:3]
    status, out, err = run(f"--tid {one} --diff-tid {other} --json", capsys)
    found = json.loads(out)
    assert (status, err, found["b"]["source"]) == (1, "", f"tid {other}")
    first, second = (read(known(caps, seed), caps).register("mxcsr") for seed in (1, 2))
    differs = found["threads"][0]["registers"]
    assert ("mxcsr" in differs) == (first != second)
    assert any(name.endswith("mm7") for name in differs)
    assert run(f"--tid {one} --diff-pid {program.pid} --thread {one}", capsys)[0] == 0


@host
@pytest.mark.host
def test_a_process_without_a_handler_has_no_frames(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(f"--pid {program.pid} --frames", capsys).startswith(f"pid {program.pid}: sigframe, 0 signal frames")


def test_the_signal_frames_in_a_core(capsys: pytest.CaptureFixture[str]) -> None:
    memory = bytes(1024) + SAMPLES["sigframe"]
    pathlib.Path("app.core").write_bytes(cores.core([cores.thread(7, STATE), cores.layout_of()], memory=memory))
    out = said("app.core --frames", capsys)
    assert out.startswith("app.core: sigframe, 1 signal frame\n")
    assert "places from the layout note" in out
    assert "zmm3      000102030405" in out
