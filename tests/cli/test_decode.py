"""``fpstate decode``: cores of the corpus, of this kernel and of gdb, and what the command says of broken ones."""

from __future__ import annotations

import contextlib
import gzip
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elfcores as cores
import fpstate
from corpus import MISSING, corpus_files, corpus_folder
from decoding import document, run
from fpstate.errors import FpstateError
from fpstate.registers import abridged_tags
from fpstate.report import decode as report
from fpstate.sources import elfcore
from fpstate.sources.decoded import place
from fpstate.sources.input import Input

ZMM3, ZMM17 = bytes(range(64)), bytes(range(64, 128))
STATE = cores.image({"zmm3": ZMM3, "zmm17": ZMM17, "k1": bytes(range(8)), "mxcsr": b"\xa0\x1f\0\0"})


@pytest.fixture(autouse=True)
def _folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")


def write(data: bytes, name: str = "app.core") -> None:
    pathlib.Path(name).write_bytes(data)


# -- the corpus ------------------------------------------------------------------------------------------------------


def corpus_cores() -> pathlib.Path:
    folder = corpus_folder()
    if folder is None:
        pytest.skip(MISSING)
    return folder / "cores"


def test_lldb_s_own_test_asserts_the_same_registers(capsys: pytest.CaptureFixture[str]) -> None:
    folder = corpus_cores()
    expected = json.loads((folder / "expected.json").read_text())["lldb/linux-fpr_sse_x86_64.core"]
    (thread,) = document(str(folder / "linux-fpr_sse_x86_64.core"), capsys)["threads"]
    assert (thread["tid"], thread["xcr0"], thread["xstate_bv"], thread["size"]) == (
        expected["lwp"],
        expected["xcr0"],
        expected["xstate_bv"],
        expected["note_size"],
    )
    for name, value in expected["registers"].items():
        ours = thread["registers"].get(name.partition("(")[0])
        if name == "mxcsrmask":
            continue  # no register
        if name.startswith(("st", "xmm")):
            assert ours == value, name
        else:
            mine = int.from_bytes(bytes.fromhex(ours), "little")
            assert mine == int(value, 16), name


@pytest.mark.parametrize(
    ("file", "states"),
    [("linux-x86_64.core", ["0x0"]), ("linux-i386.core", ["0x0"]), ("thread_crash-linux-x86_64.core", ["0x6"] * 3)],
)
def test_headers_are_what_the_corpus_expects(file: str, states: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = document(str(corpus_cores() / file), capsys)
    assert [thread["xstate_bv"] for thread in found["threads"]] == states
    assert {thread["xcr0"] for thread in found["threads"]} == {"0x7"}
    assert {state["state"] for state in found["threads"][0]["components"] if state["bit"] == 0} == {"init"}


@pytest.mark.parametrize("path", corpus_files("cores/*.core"))
def test_gdb_prints_the_same_registers(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = json.loads((path.parent / "gdb13_registers.json").read_text())[path.name]["gdb_thread"]
    threads = document(str(path), capsys)["threads"]
    for number, values in printed.items():
        ours = threads[int(number) - 1]["registers"]
        assert set(values) <= set(ours)
        for name, value in values.items():
            mine = int.from_bytes(bytes.fromhex(ours[name]), "little")
            theirs = int(value, 16) if value.startswith("0x") else int.from_bytes(bytes.fromhex(value), "little")
            assert mine == (abridged_tags(theirs) if name == "ftag" else theirs), name


def test_the_thread_that_got_netbsd_s_signal_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(str(corpus_cores() / "2lwp_t2_SIGSEGV.amd64.core"), capsys)
    assert status == 0
    assert "thread 2 (2lwp_t2_SIGSEGV.), x86-64\nfxsave, 512 bytes" in out


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_one_screen_shows_header_components_and_what_is_not_initial(capsys: pytest.CaptureFixture[str]) -> None:
    write(cores.core([cores.thread(7, STATE), cores.prpsinfo(b"app"), cores.thread(8, STATE), cores.layout_of()]))
    status, out, _ = run("app.core", capsys)
    assert status == 0
    assert "app.core: elf-core, 2 threads (all of them: --all-threads)\n\nthread 7 (app), x86-64" in out
    assert "places from the layout note" in out
    assert "\n  7  Hi16_ZMM   in-use    1408  1024\n" in out
    assert "absent: BNDREGS, BNDCSR, PKRU" in out
    assert f"zmm17     {ZMM17[:32].hex()}\n          {ZMM17[32:].hex()}" in out
    assert "zmm4" not in out
    assert len(out.splitlines()) <= 40


def test_full_registers_are_cut_at_a_screen_and_v_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    full = cores.image({f"zmm{i}": bytes([i + 1]) * 64 for i in range(32)})
    write(cores.core([cores.thread(7, full), cores.layout_of()]))
    short, long = run("app.core", capsys)[1], run("app.core -v", capsys)[1]
    assert len(short.splitlines()) <= 45
    assert "more registers that differ from their initial values (-v)" in short
    assert "zmm31     " + "20" * 32 in long
    assert "PKRU       absent" in long
    assert "st7       " in long


def test_all_threads_shows_equal_ones_once(capsys: pytest.CaptureFixture[str]) -> None:
    other = cores.image({"k2": b"\1" + bytes(7)})
    write(cores.core([cores.thread(1, STATE), cores.thread(2, other), cores.thread(3, STATE), cores.layout_of()]))
    out = run("app.core --all-threads", capsys)[1]
    assert "2 threads with the same state: 1, 3; x86-64" in out
    assert "thread 2, x86-64" in out
    assert out.count("zmm17") == 1


def test_one_thread_is_shown_by_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    write(cores.core([cores.thread(1, STATE), cores.thread(2, cores.image()), cores.layout_of()]))
    assert [t["tid"] for t in document("app.core --thread 2", capsys)["threads"]] == [2]
    status, _, err = run("app.core --thread 3", capsys)
    assert (status, err) == (2, "fpstate: app.core has no thread 3; it has 1, 2\n")


def test_the_shadow_stack_pointer_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    ssp = cores.note(cores.LINUX, 0x204, (0x7FFFF000).to_bytes(8, "little"))
    write(cores.core([cores.thread(1, STATE, extra=ssp), cores.layout_of()]))
    assert "\nssp       0x7ffff000\n" in run("app.core", capsys)[1]
    assert document("app.core", capsys)["threads"][0]["values"] == {"ssp": "0x7ffff000"}


def test_zen_4_registers_are_right_where_gdb_13_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    """gdb 13 guesses Intel's layout, finds no CPU that writes 2432 bytes, and shows no ymm, zmm or k register."""
    write(cores.core(cores.thread(1, STATE)))
    (thread,) = document("app.core --strict", capsys)["threads"]
    assert thread["layout"]["from"] == "deduced"
    assert "zen4" in thread["layout"]["candidates"][0]
    assert (thread["registers"]["zmm17"], thread["registers"]["k1"]) == (ZMM17.hex(), bytes(range(8)).hex())


@pytest.mark.parametrize("how", ["--cpu zen4", "cpu.json"])
def test_the_cpu_is_named_as_for_other_verbs(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    leaf = {str(i): list(r) for (n, i), r in fpstate.cpu_by_name("zen4").leaves.items() if n == 0xD}
    pathlib.Path("cpu.json").write_text(json.dumps({"leafD": leaf}))
    write(cores.core(cores.thread(1, STATE)))
    (thread,) = document(f"app.core {how}", capsys)["threads"]
    assert (thread["layout"]["from"], thread["registers"]["zmm17"]) == ("cpu", ZMM17.hex())


def test_strict_refuses_what_leaves_a_choice(capsys: pytest.CaptureFixture[str]) -> None:
    image = bytearray(cores.image({}, "ice-lake", 0x2E7))
    image[464:472] = bytes(8)
    write(cores.core(cores.thread(1, bytes(image))))
    status, out, err = run("app.core --strict", capsys)
    assert (status, out) == (3, "")
    assert "name the CPU that made it with --cpu" in err
    assert run("app.core", capsys)[1].count("  or as ") >= 1


def test_a_document_of_a_thousand_threads_is_as_one_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    write(cores.many(1000, STATE, extra=cores.layout_of()))
    threads = document("app.core", capsys)["threads"]
    assert [t["tid"] for t in threads] == list(range(1000, 2000))
    assert all(t["registers"]["zmm17"] == ZMM17.hex() for t in threads)
    assert [int.from_bytes(bytes.fromhex(t["registers"]["xmm0"][:8]), "little") for t in threads] == [
        t["tid"] for t in threads
    ]


# -- broken sources --------------------------------------------------------------------------------------------------


def test_a_damaged_header_exits_1_and_shows_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    damaged = bytearray(STATE)
    damaged[520] = 1
    data = cores.core([cores.thread(5, bytes(damaged)), cores.layout_of()])
    write(data)
    status, out, _ = run("app.core", capsys)
    assert status == 1
    place = data.index(bytes(damaged)) + 520
    assert f"header.standard-header (byte {place}): thread 5, offset 520 of its image: XCOMP_BV" in out
    assert "zmm17" in out


def test_damage_of_a_thread_that_is_not_shown_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    write(cores.core([cores.thread(1, STATE), cores.layout_of(), cores.thread(2, STATE)])[:-500])
    status, out, _ = run("app.core", capsys)
    assert status == 1
    assert "elf.note-truncated" in out
    assert document("app.core", capsys, 1)["findings"][2]["tids"] == [2]


def test_what_cannot_be_read_exits_2_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    write(b"\x7fELF\2\1")
    status, out, err = run("app.core", capsys)
    assert (status, out, len(err.splitlines())) == (2, "", 1)


def test_control_characters_of_a_name_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    write(cores.core([cores.thread(1, STATE), cores.prpsinfo(b"\x1b]0;x\7"), cores.layout_of()]))
    assert "\x1b" not in run("app.core", capsys)[1]


_WHOLE = cores.core([cores.thread(1, STATE), cores.prpsinfo(b"fuzz"), cores.thread(2, STATE), cores.layout_of()])
_FIELDS = [i for i in range(len(_WHOLE)) if i < 200 or _WHOLE[i : i + 5] in {b"CORE\0", b"LINUX"}]
_HEADERS = [i for i in range(len(_WHOLE)) if _WHOLE[i : i + len(STATE)] == STATE]


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_a_damaged_core_is_shown_or_refused_in_words(data: st.DataObject) -> None:
    damaged = bytearray(_WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        note = data.draw(st.sampled_from(_FIELDS)) - data.draw(st.integers(0, 12))
        header = data.draw(st.sampled_from(_HEADERS)) + data.draw(st.integers(464, 576))
        at = max(0, data.draw(st.sampled_from([note, header])))
        value = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, bytes(8)])))
        damaged[at : at + len(value)] = value
    try:
        found = place(elfcore.read(Input("a core", bytes(damaged))))
        threads = found.threads
    except FpstateError:
        return
    for everything in (True, False):
        assert report.text(found, threads, everything=everything)
    again = json.loads(report.json_text(report.document(found, threads)))
    assert len(again["threads"]) == len(threads)
    legacy = [t for t in again["threads"] if t["size"] >= 160 and t["format"] != "compacted"]
    assert all("st0" in thread["registers"] for thread in legacy)


# -- this kernel, and gdb --------------------------------------------------------------------------------------------

_THREADS = r"""
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>
static uint8_t area[3][16384] __attribute__((aligned(64)));
static pthread_barrier_t ready;
extern const uint8_t image[]; extern const unsigned image_size; extern const uint64_t mask;
static void *run(void *which) {
    long n = (long)which;
    for (unsigned i = 0; i < image_size; i++) area[n][i] = image[i];
    area[n][160] = (uint8_t)(0xA0 + n);
    uint32_t low = (uint32_t)mask, high = (uint32_t)(mask >> 32);
    if (n == 2) { pthread_barrier_wait(&ready); usleep(200000); }
    /* Then wait, or dump, with every register as the image has it. */
    if (n == 2) {
        __asm__ volatile("xrstor64 (%0)\n\tud2" :: "r"(area[n]), "a"(low), "d"(high) : "memory");
    } else {
        pthread_barrier_wait(&ready);
        __asm__ volatile("xrstor64 (%0)\n1:\tpause\n\tjmp 1b" :: "r"(area[n]), "a"(low), "d"(high) : "memory");
    }
    return 0;
}
int main(void) {
    pthread_t t[3];
    pthread_barrier_init(&ready, 0, 3);
    for (long n = 0; n < 3; n++) pthread_create(&t[n], 0, run, (void *)n);
    for (;;) pause();
}
"""
HOST_VALUES = {
    **{f"xmm{i}": bytes([0x10 + i]) * 16 for i in range(1, 16)},
    **{f"ymm{i}h": bytes([0x30 + i]) * 16 for i in range(16)},
    **{f"zmm{i}h": bytes([0x50 + i]) * 32 for i in range(16)},
    **{f"zmm{i}": bytes([0x70 + i]) * 64 for i in range(16, 32)},
    **{f"k{i}": bytes([0x90 + i]) * 8 for i in range(8)},
    **{f"st{i}": bytes([i + 1]) * 7 + b"\x80\x00\x40" for i in range(8)},
    "ftag": b"\xff",
    "mxcsr": b"\xa0\x1f\0\0",
}
"""A value of its own for every register that a CPU with AVX-512 has; the rest is left out on one that has not."""
_LOADED = 0xE7
"""x87, SSE, AVX and AVX-512: what the program loads."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, bytes]]:
    """A program of three threads whose registers are known, and the values."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    try:
        cpu = fpstate.this_host()
    except fpstate.FpstateError as missing:
        pytest.skip(str(missing))
    values = {n: v for n, v in HOST_VALUES.items() if not fpstate.REGISTERS[n].components & ~(cpu.xcr0_mask & _LOADED)}
    image = fpstate.encode_image(cpu, values)
    folder = tmp_path_factory.mktemp("program")
    data = f"const unsigned char image[] = {{{','.join(map(str, image))}}};\n"
    data += f"const unsigned image_size = {len(image)}; const unsigned long mask = {cpu.xcr0_mask & _LOADED};\n"
    (folder / "threads.c").write_text("#include <stdint.h>\n" + data + _THREADS)
    made = folder / "threads"
    done = subprocess.run(
        [compiler, "-O1", "-pthread", "-o", made, folder / "threads.c"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"the C compiler cannot make a program: {done.stderr.decode(errors='replace')[:200]}")
    return made, values


def kernel_core(program: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Run *program* until it dumps core into *folder*."""
    import resource

    def allow() -> None:
        with contextlib.suppress(ValueError):
            _, most = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (most, most))

    subprocess.run([program], cwd=folder, preexec_fn=allow, timeout=30, check=False)
    found = list(folder.glob("core*"))
    if not found:
        pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii").strip()
        pytest.skip(f"the kernel left no core: core_pattern is {pattern!r}, or RLIMIT_CORE forbids it")
    return found[0]


def hold_the_values(threads: list[dict[str, Any]], values: Mapping[str, bytes]) -> None:
    """Check the three threads that loaded *values*; each has its number in the first byte of XMM0."""
    loaded = [t for t in threads if t["registers"]["xmm0"][:2] in {"a0", "a1", "a2"}]
    assert sorted(t["registers"]["xmm0"][:2] for t in loaded) == ["a0", "a1", "a2"]
    for thread in loaded:
        registers = thread["registers"]
        for name, value in values.items():
            if name.endswith("h"):
                whole = registers[name[:-1]]
                assert whole[-2 * len(value) :] == value.hex(), name
            else:
                assert registers[name] == value.hex(), name


@pytest.mark.host
def test_a_core_of_this_kernel_holds_every_register_of_every_thread(
    program: tuple[pathlib.Path, dict[str, bytes]], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, values = program
    path = kernel_core(made, tmp_path)
    found = document(str(path), capsys)
    assert len(found["threads"]) == 4
    hold_the_values(found["threads"], values)
    assert found["threads"][0]["registers"]["xmm0"][:2] == "a2"  # the one that dumped
    with gzip.open("again.gz", "wb") as packed, path.open("rb") as file:
        shutil.copyfileobj(file, packed)
    again = document("again.gz", capsys)
    assert again["threads"] == found["threads"]


_I386 = """
.globl _start
_start: mov ${low}, %eax
        xor %edx, %edx
        xrstor image
        ud2
.data
.balign 64
image: .byte {image}
"""


@pytest.mark.host
def test_a_core_of_an_i386_program_holds_the_registers_that_its_mode_has(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    try:
        cpu = fpstate.this_host()
    except fpstate.FpstateError as missing:
        pytest.skip(str(missing))
    loaded = cpu.xcr0_mask & _LOADED
    there = {n: r for n, r in fpstate.REGISTERS.items() if not r.long_mode and not r.components & ~loaded}
    values = {n: v for n, v in HOST_VALUES.items() if n in there}
    image = fpstate.encode_image(cpu, values)
    (tmp_path / "i386.s").write_text(_I386.format(low=loaded, image=",".join(map(str, image))))
    command = [compiler, "-m32", "-nostdlib", "-static", "-no-pie", "-o", f"{tmp_path}/i386", f"{tmp_path}/i386.s"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the C compiler makes no i386 program: {done.stderr.decode(errors='replace')[:200]}")
    try:
        path = kernel_core(tmp_path / "i386", tmp_path)
    except OSError as refused:
        pytest.skip(f"the kernel runs no i386 program: {refused}")
    (thread,) = document(str(path), capsys)["threads"]
    assert (thread["abi"], thread["format"]) == ("i386", "standard")
    for name, value in values.items():
        shown = thread["registers"][name.removesuffix("h")]
        assert shown.endswith(value.hex()) if name.endswith("h") else shown.startswith(value.hex()), name
    assert "xmm8" not in thread["registers"]


@pytest.mark.host
def test_a_core_of_gcore_holds_every_register_of_every_thread(
    program: tuple[pathlib.Path, dict[str, bytes]], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("there is no gdb")
    made, values = program
    script = ["-ex", "set pagination off", "-ex", "run", "-ex", f"generate-core-file {tmp_path}/g.core", "-ex", "kill"]
    done = subprocess.run([gdb, "-nx", "-batch", *script, made], capture_output=True, timeout=60, check=False)
    if not (tmp_path / "g.core").exists():
        pytest.skip(f"gdb made no core: {done.stderr.decode(errors='replace')[-200:]}")
    found = document("g.core", capsys)
    assert not found["findings"]
    layout = found["threads"][0]["layout"]
    if layout["confidence"] == "low":  # gdb 13 scrambles AVX-512 of an AMD: what it could not is right
        assert "gdb 13" in layout["candidates"][-1]
        values = {n: v for n, v in values.items() if not fpstate.REGISTERS[n].components & ~7}
    hold_the_values(found["threads"], values)


def test_the_command_itself_takes_a_pipe(tmp_path: pathlib.Path) -> None:
    write(cores.core([cores.thread(7, STATE), cores.layout_of()], memory=bytes(8 << 20)))
    command = f"cat app.core | {sys.executable} -m fpstate decode - --json"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["threads"][0]["registers"]["zmm17"] == ZMM17.hex()
    assert not done.stderr
