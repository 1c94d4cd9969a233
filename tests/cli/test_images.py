"""The verbs about one image, as a user calls them; places are the SDM's, the CPU's those of its dump."""

from __future__ import annotations

import io
import json
import pathlib
import subprocess
import sys

import pytest

from fpstate import cli

YMM = bytes(range(32)).hex()


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    assert _run(f"encode --cpu zen4 --set ymm3={YMM} --set k1=0x7 -o user.img") == 0
    assert _run("encode --cpu zen4 --format compacted --set pl0_ssp=0x1000 --set mxcsr=0x1fa0 -o guest.img") == 0
    return tmp_path


def _run(command: str) -> int:
    return cli.main(command.split())


def _json(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    _run(f"{command} --json")
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


# encode and show


def test_an_encoded_register_lies_where_the_cpu_puts_it(folder: pathlib.Path) -> None:
    data = (folder / "user.img").read_bytes()
    assert len(data) == 2440
    assert data[160 + 48 : 160 + 64] == bytes(range(16))
    assert data[576 + 48 : 576 + 64] == bytes(range(16, 32))
    assert data[832 + 8] == 7
    assert int.from_bytes(data[512:520], "little") == 0x26
    assert int.from_bytes(data[24:28], "little") == 0x1F80


def test_a_compacted_image_has_what_is_in_use(folder: pathlib.Path) -> None:
    data = (folder / "guest.img").read_bytes()
    assert len(data) == 576 + 24
    assert int.from_bytes(data[520:528], "little") == 1 << 63 | 0x1002


@pytest.mark.usefixtures("folder")
def test_show_and_encode_are_inverse(capsys: pytest.CaptureFixture[str]) -> None:
    pathlib.Path("user.json").write_text(json.dumps(_json("show user.img --cpu zen4 --all", capsys)), encoding="utf-8")
    assert _run("encode --cpu zen4 --registers user.json -o again.img") == 0
    assert pathlib.Path("again.img").read_bytes() == pathlib.Path("user.img").read_bytes()


@pytest.mark.usefixtures("folder")
def test_show_names_the_registers_that_are_not_initial(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json("show user.img --cpu zen4", capsys)
    assert found["registers"] == {"zmm3": YMM + "00" * 32, "k1": "0x7"}
    found = _json("show user.img --cpu zen4 --reg xmm3", capsys)
    assert found["registers"] == {"xmm3": YMM[:32]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--set xmm99=00", "no register 'xmm99'"),
        ("--set xmm1", "must be REG=VALUE"),
        ("--set xmm1=00", "must be 16 bytes"),
        ("--set tmm0=" + "00" * 1024, "component 18"),
        ("--set pl0_ssp=0x1000", "CET_S"),
        (f"--set ymm1={YMM} --set xmm1={'00' * 16}", "another value under another name"),
        ("--set k1=1 --mask AVX", "opmask"),
        ("--image nofile", "nofile"),
    ],
)
def test_what_cannot_be_encoded_is_refused(
    arguments: str, message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(f"encode --cpu zen4 {arguments} -o {tmp_path}/x.img") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.img").exists()


# convert and diff


@pytest.mark.usefixtures("folder")
def test_converting_there_and_back_keeps_the_state() -> None:
    assert _run("convert user.img --cpu zen4 --to compacted -o c.img") == 0
    assert _run("convert c.img --cpu zen4 --to standard -o s.img") == 0
    assert _run("diff user.img c.img --cpu zen4") == 0
    assert _run("diff user.img s.img --cpu zen4") == 0


@pytest.mark.usefixtures("folder")
def test_supervisor_state_is_not_dropped_without_being_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("convert guest.img --cpu zen4 --to standard -o s.img") == 2
    assert "CET_S" in capsys.readouterr().err
    assert not pathlib.Path("s.img").exists()
    assert _run("convert guest.img --cpu zen4 --strip CET_S --to standard -o s.img") == 0
    found = _json("diff guest.img s.img --cpu zen4", capsys)
    assert found["registers"] == {"pl0_ssp": {"a": "0x1000", "b": "0x0"}}


@pytest.mark.usefixtures("folder")
def test_an_image_can_be_laid_out_for_another_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("convert user.img --cpu zen4 --for-cpu ice-lake -o intel.img") == 0
    assert pathlib.Path("intel.img").stat().st_size == 2696
    assert _run("diff user.img intel.img --cpu zen4 --b-cpu ice-lake") == 0
    assert _run("diff user.img intel.img --cpu zen4") == 1
    assert "k1" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_init_fill_leaves_nothing_of_the_past(capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(pathlib.Path("user.img").read_bytes())
    data[896:1408] = b"\xee" * 512  # ZMM_Hi256 is absent: its bytes mean nothing
    pathlib.Path("dirty.img").write_bytes(data)
    assert _run("diff user.img dirty.img --cpu zen4") == 0
    assert _run("convert dirty.img --cpu zen4 --init-fill -o clean.img") == 0
    assert b"\xee" not in pathlib.Path("clean.img").read_bytes()
    capsys.readouterr()


def test_an_image_goes_through_pipes(folder: pathlib.Path) -> None:
    command = [sys.executable, "-m", "fpstate", "convert", "-", "--cpu", "zen4", "--to", "compacted"]
    found = subprocess.run(command, input=(folder / "user.img").read_bytes(), capture_output=True, check=True)
    assert found.stdout[520:528] == (1 << 63 | 0x2E7).to_bytes(8, "little")
    assert found.stderr.startswith(b"standard, 2440 bytes")


# explain


@pytest.mark.parametrize(
    ("command", "status", "rule"),
    [
        ("user.img --op xrstor64", 0, None),
        ("user.img --op xrstors64", 1, "xcomp-bv-format"),
        ("guest.img --op xrstors64", 0, None),
        ("guest.img --op xrstor64", 1, "xcomp-bv"),
        ("user.img --op xrstor64 --xcr0 x87,SSE", 1, "standard-xstate-bv"),
        ("user.img --op xrstors64 --cpl 3", 1, "cpl"),
        ("user.img --op fxrstor", 0, None),
    ],
)
@pytest.mark.usefixtures("folder")
def test_explain_tells_whether_it_runs(
    command: str, status: int, rule: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _json(f"explain {command} --cpu zen4", capsys)
    fault = found["fault"]
    assert (fault["rule"] if isinstance(fault, dict) else None) == rule
    assert found["outcome"] == ("faults" if rule else "runs")
    assert _run(f"explain {command} --cpu zen4") == status


@pytest.mark.usefixtures("folder")
def test_explain_says_where_a_truncated_image_ends(capsys: pytest.CaptureFixture[str]) -> None:
    pathlib.Path("short.img").write_bytes(pathlib.Path("user.img").read_bytes()[:700])
    assert _run("explain short.img --op xrstor64 --cpu zen4") == 1
    assert "the image ends after 700 bytes" in capsys.readouterr().out
    pathlib.Path("stub.img").write_bytes(bytes(100))
    assert _run("explain stub.img --op xrstor64 --cpu zen4") == 2
    assert "legacy region and header" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("op", "change", "status", "effect"),
    [
        ("ptrace", None, 0, None),
        ("ptrace", (512, 0x800), 1, "EINVAL"),
        ("ptrace", (520, 1 << 63), 1, "EINVAL"),
        ("ptrace", (560, 1), 1, "EINVAL"),
        ("kvm", (24, 1 << 31), 1, "EINVAL"),
        ("sigreturn", None, 1, "fx-only"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_explain_asks_the_kernel(
    op: str, change: tuple[int, int] | None, status: int, effect: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    # linux-fpu.md 12.2 and 12.4: a real 6.18 gave these
    data = bytearray(pathlib.Path("user.img").read_bytes()).ljust(4096, b"\0")
    if change is not None:
        at, value = change
        data[at : at + 8] = (int.from_bytes(data[at : at + 8], "little") | value).to_bytes(8, "little")
    pathlib.Path("in.img").write_bytes(data)
    assert _run(f"explain in.img --op {op} --cpu zen4") == status
    found = _json(f"explain in.img --op {op} --cpu zen4", capsys)
    assert found["effect"] == effect


@pytest.mark.parametrize(
    "command",
    [
        "explain user.img --op no-such --cpu zen4",
        "explain user.img --op xrstor --cpu zen4 --xcr0 0x60007",
        "explain - --op xrstor -",
        "explain user.img --op xrstor --cpu core2",
        "explain . --op xrstor --cpu zen4",
        "show empty.img --cpu zen4",
        "diff user.img nofile --cpu zen4",
        "diff - - --cpu zen4",
        "convert user.img --cpu zen4 --to compacted -o nofolder/x.img",
        "convert user.img --cpu zen4 --json",
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_done_is_refused_in_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    pathlib.Path("empty.img").write_bytes(b"")
    assert _run(command) == 2
    assert capsys.readouterr().err.count("\n") == 1


# vectors


def _lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_generated_cases_run_and_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run("vectors generate --cpu ice-lake --count 12 --seed 3") == 0
    cases = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO(cases))
    assert _run("vectors run -") == 0
    results = _lines(capsys.readouterr().out)
    assert [result["id"] for result in results] == [case["id"] for case in _lines(cases)]
    both = "\n".join(json.dumps({"case": c, "result": r}) for c, r in zip(_lines(cases), results, strict=True))
    monkeypatch.setattr(sys, "stdin", io.StringIO(both))
    assert _run("vectors check -") == 0
    assert capsys.readouterr().err == "12 results checked, 0 differ\n"


def test_a_line_that_is_no_case_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = '{"id": 2, "cpu": "zen4", "op": "xgetbv", "ecx": "0"}'
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"id": 1, "op": "nop"}\n' + good))
    assert _run("vectors run -") == 2
    first, second = _lines(capsys.readouterr().out)
    assert "op must be an instruction" in str(first["error"])
    assert second["value"] == "0x1"


def test_one_rule_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("vectors generate --cpu ice-lake --rule mxcsr --count 3 --results") == 0
    for line in _lines(capsys.readouterr().out):
        result = line["result"]
        assert isinstance(result, dict)
        assert result["fault"]["rule"] == "mxcsr"
    assert _run("vectors generate --cpu zen4 --rule xfd --count 1") == 3


@pytest.mark.usefixtures("folder")
def test_a_component_without_registers_is_shown_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    for name, byte in (("a", "11"), ("b", "22")):
        assert _run(f"encode --cpu bulldozer --set bit62={byte * 128} -o {name}.img") == 0
    assert _run("diff a.img b.img --cpu bulldozer") == 1
    assert "bit62" in capsys.readouterr().out
    assert _json("show a.img --cpu bulldozer", capsys)["registers"] == {"bit62": "11" * 128}


@pytest.mark.usefixtures("folder")
def test_mxcsr_bits_that_the_other_cpu_lacks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("encode --cpu zen4 --set mxcsr=0x21f80 -o misaligned.img") == 0
    assert _run("convert misaligned.img --cpu zen4 --for-cpu ice-lake -o x.img") == 2
    assert "sets bit 17" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_a_device_is_written_to_and_not_replaced() -> None:
    assert _run("convert user.img --cpu zen4 -o /dev/null") == 0
    assert pathlib.Path("/dev/null").is_char_device()


@pytest.mark.usefixtures("folder")
def test_the_cpu_may_come_behind_the_options(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cpu.json").write_text('{"leafD": {"0": [7, 832, 832, 0], "1": [15, 0, 0, 0], "2": [256, 576, 0, 0]}}')
    assert _run("encode --cpu haswell --set k1=0 -o x.img") == 2
    assert _run("encode --cpu haswell -o x.img") == 0
    assert _run("explain x.img --op xrstor64 cpu.json") == 0
    assert _run("explain x.img cpu.json --op xrstor64") == 0


@pytest.mark.usefixtures("folder")
def test_an_image_of_another_cpu_is_suspected(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("encode --cpu sapphire-rapids --set k1=0xff -o spr.img") == 0
    found = _json("show spr.img --cpu zen4", capsys)
    assert isinstance(found["notes"], list)
    assert "another CPU's image?" in found["notes"][0]
    assert _run("show spr.img --cpu zen4") == 0
    assert "note: spr.img: it has 11008 bytes" in capsys.readouterr().err
    assert _json("show spr.img --cpu sapphire-rapids", capsys)["notes"] == []


def test_software_bytes_may_name_features_that_the_cpu_lacks(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((folder / "user.img").read_bytes())
    data[464:472] = (0x602E7).to_bytes(8, "little")
    pathlib.Path("amx.img").write_bytes(data)
    assert _run("show amx.img --cpu zen4") == 0
    assert "of which zen4 has not XTILECFG|XTILEDATA" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("head", "kind"), [(b"\x7fELF", "an ELF file"), (b"MDMP", "a minidump"), (b"\x1f\x8b", "compressed")]
)
def test_a_file_that_holds_images_is_none(
    folder: pathlib.Path, head: bytes, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "other").write_bytes(head + bytes(4096))
    assert _run("show other --cpu zen4") == 2
    assert kind in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        "--mask x87,SSE --add AVX",
        "--mask x87,SSE --strip AVX",
        "--add opmask --strip opmask",
        "--for-cpu no-such-cpu",
    ],
)
@pytest.mark.usefixtures("folder")
def test_options_that_contradict_each_other_are_refused(arguments: str) -> None:
    assert _run(f"convert user.img --cpu zen4 {arguments} -o x.img") == 2


@pytest.mark.usefixtures("folder")
def test_what_a_mask_leaves_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("convert user.img --cpu zen4 --mask x87,SSE,AVX -o x.img") == 0
    assert "left out: opmask" in capsys.readouterr().out


@pytest.mark.parametrize("mask", ["-1", "0xffffffffffffffff", "all"])
@pytest.mark.usefixtures("folder")
def test_every_bit_of_the_instruction_mask(mask: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _json(f"explain user.img --op xrstor64 --cpu zen4 --rfbm={mask}", capsys)["rfbm"] == "0x2e7"


@pytest.mark.parametrize(
    "arguments",
    ["--op ptrace --rfbm 1", "--op kvm --cpl 3", "--op xrstor --features all", "--op ptrace --features CET_S"],
)
@pytest.mark.usefixtures("folder")
def test_options_that_do_not_apply_are_refused(arguments: str) -> None:
    assert _run(f"explain user.img --cpu zen4 {arguments}") == 2


@pytest.mark.parametrize(
    "command",
    ["show - --cpu zen4", "vectors run -", "vectors check -", "encode --registers - --cpu zen4 -o y"],
)
@pytest.mark.usefixtures("folder")
def test_closed_standard_input_is_said(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert _run(command) == 2
    assert "standard input is closed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["", '{"case": {"cpu": "zen4", "op": "xgetbv"}, "result": {}}', '{"case": {}, "result": {"memori": ""}}'],
)
def test_nothing_to_check_is_no_success(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(line))
    assert _run("vectors check -") == 2


def test_a_name_that_stands_twice_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"cpu": "zen4", "op": "xgetbv", "xcr0": "7", "xcr0": "3"}'))
    assert _run("vectors run -") == 2
    assert "'xcr0' stands twice" in capsys.readouterr().err
    assert _run("encode --cpu zen4 --set k1=1 --set k1=2 -o /dev/null") == 2


@pytest.mark.usefixtures("folder")
def test_mxcsr_alone_survives_the_way_through_json_to_compacted_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("encode --cpu zen4 --set fctrl=0x27f --set mxcsr=0x1fa0 -o a.img") == 0
    data = bytearray(pathlib.Path("a.img").read_bytes())
    data[512] = 1  # as XSAVE leaves it while every XMM register is 0
    pathlib.Path("a.img").write_bytes(data)
    pathlib.Path("a.json").write_text(json.dumps(_json("show a.img --cpu zen4", capsys)), encoding="utf-8")
    assert _run("encode --cpu zen4 --registers a.json --format compacted -o b.img") == 0
    assert _run("diff a.img b.img --cpu zen4") == 0


@pytest.mark.parametrize(
    "result",
    [
        '{"value": "0x1"}',
        '{"fault": {}}',
        '{"fault": {"vector": "#PF", "adress": "0x12"}}',
    ],
)
def test_a_result_that_cannot_be_compared_is_refused(result: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = '{"cpu": "zen4", "op": "xsave64", "xcr0": "0x7", "rfbm": "0x7", "address": "8", "memory": "00"}'
    monkeypatch.setattr(sys, "stdin", io.StringIO(f'{{"case": {case}, "result": {result}}}'))
    assert _run("vectors check -") == 2
