"""The command line: what it prints, on which stream, and with which exit status."""

import io
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from fpstate import __version__, cli
from fpstate.cpu.named import dump_of
from fpstate.cpu.table import find

SPR_DUMP = "".join(
    f"   0x{leaf:08x} 0x{sub:02x}: eax=0x{r[0]:08x} ebx=0x{r[1]:08x} ecx=0x{r[2]:08x} edx=0x{r[3]:08x}\n"
    for (leaf, sub), r in dump_of(find("sapphire-rapids")).leaves.items()
)


class Result:
    """What one run of the command did."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def document(self) -> dict[str, Any]:
        assert self.status in {0, 1, 3}, self.err
        parsed: dict[str, Any] = json.loads(self.out)
        assert parsed["schema"] == 1
        return parsed


class Runner:
    """Runs the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *words: str, stdin: bytes = b"") -> Result:
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self.capsys.readouterr()
        try:
            status = cli.main(words)
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = self.capsys.readouterr()
        return Result(status, out, err)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


# -- the documents that others rely on -------------------------------------------------------------------------------


def test_layout_gives_both_formats(run: Runner) -> None:
    document = run("layout", "--cpu", "spr", "--mask", "0x61ee7", "--json").document
    assert document["standard"]["size"] == 11008
    assert document["compacted"]["size"] == 10752
    places = {c["bit"]: (c["name"], c["offset"], c["size"]) for c in document["compacted"]["components"]}
    assert places[12] == ("CET_S", 2464, 24)
    assert places[17] == ("XTILECFG", 2496, 64)
    assert 12 not in {c["bit"] for c in document["standard"]["components"]}, "supervisor: no place in it"


def test_config_gives_the_kernels_records(run: Runner) -> None:
    document = run("config", "--cpu", "spr", "--policy", "linux-6.18", "--cmdline", "quiet", "--json").document
    assert document["kernel"] == {
        "max_features": "0x61ee7",
        "default_features": "0x20ee7",
        "max_size": 10752,
        "default_size": 2560,
        "independent_features": "0x8000",
    }
    assert document["user"]["default_features"] == "0x202e7"
    assert document["guest"] == {"features": "0x21ee7", "size": 2560, "allocated": 2560}
    assert (document["xcr0"], document["xss"], document["compacted"]) == ("0x602e7", "0x9c00", True)
    assert document["xsave_disabled"] is None
    assert document["boot_log"][-1] == "signal: max sigframe size: 11952"


def test_compare_gives_one_entry_a_policy(run: Runner) -> None:
    policies = run("compare", "--cpu", "genoa", "--json").document["policies"]
    assert [*policies] == [
        "linux-6.7", "cet-v8", "linux-6.18", "default-on", "independent", "raw-msr", "resident",
    ]  # fmt: skip
    merged = policies["linux-6.18"]
    assert (merged["task_size"], merged["guest_size"]) == (2456, 2480)
    assert (merged["task_features"], merged["guest_features"]) == ("0xae7", "0x1ae7")
    assert (merged["save_rfbm"], merged["restore_rfbm"], merged["guest_save_rfbm"]) == ("0xae7", "0x18e7", "0x1ae7")
    assert merged["xss"] == "0x1800"


def test_lint_gives_findings_and_exit_1(run: Runner) -> None:
    broken = SPR_DUMP.replace("ebx=0x00002a80", "ebx=0x00002a50")
    result = run("lint", "-", "--json", stdin=broken.encode())
    assert result.status == 1
    (finding,) = result.document["findings"]
    assert finding["rule"] == "compacted-current"
    assert finding["severity"] == "error"
    assert finding["leaf"] == "0DH.1:EBX"
    assert "without the 64-byte alignment" in finding["message"]


def test_lint_of_a_sound_dump_is_exit_0_and_no_findings(run: Runner) -> None:
    result = run("lint", "-", "--json", stdin=SPR_DUMP.encode())
    assert (result.status, result.document["findings"]) == (0, [])


def test_lint_of_an_incomplete_dump_cannot_tell(run: Runner) -> None:
    partial = "\n".join(line for line in SPR_DUMP.splitlines() if "0x0000000d 0x09" not in line)
    result = run("lint", "-", "--json", stdin=partial.encode())
    assert (result.status, result.document["unknown"]) == (3, ["sub-leaf 9 (PKRU)"])


def test_two_layouts_come_with_their_difference(run: Runner) -> None:
    document = run("layout", "--cpu", "genoa", "--mask", "0x8e7", "--mask", "0x18e7", "--json").document
    assert document["difference"]["compacted"] == {
        "from": 2448,
        "to": 2472,
        "difference": 24,
        "terms": [{"size": 24, "what": "CET_S"}],
    }


@pytest.mark.parametrize("verb", ["cpus", "policies", "xfeatures"])
def test_the_tables_print_as_text_and_as_documents(run: Runner, verb: str) -> None:
    assert run(verb).out
    assert run(verb, "--json").document


# -- text ------------------------------------------------------------------------------------------------------------


def test_explain_prints_the_sum(run: Runner) -> None:
    out = run("layout", "--cpu", "spr", "--mask", "0x61ee7", "--explain").out
    assert (
        "10752 = 576 legacy region and header + 256 AVX + 64 opmask + 512 ZMM_Hi256 + 1024 Hi16_ZMM + 8 PKRU + 8 PASID"
        " + 16 CET_U + 24 CET_S + 8 alignment of XTILECFG to 64 bytes + 64 XTILECFG + 8192 XTILEDATA"
    ) in out


def test_compare_marks_what_differs_and_ends_with_a_verdict(run: Runner) -> None:
    out = run("compare", "--cpu", "genoa").out
    assert "2480 *" in out
    assert "default-on: CET_S is in every fpstate: 24 bytes a task" in out


def test_no_colour_reaches_a_pipe(run: Runner) -> None:
    assert "\x1b" not in run("compare", "--cpu", "genoa").out


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colour_comes_when_forced_and_never_with_no_color(environment: dict[str, str], *, coloured: bool) -> None:
    clean = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "NO_COLOR"}}
    command = [sys.executable, "-m", "fpstate", "compare", "--cpu", "genoa"]
    done = subprocess.run(command, env=clean | environment, capture_output=True, check=True, timeout=60)
    assert (b"\x1b[" in done.stdout) == coloured


# -- options ---------------------------------------------------------------------------------------------------------


def test_components_of_ones_own_reach_every_verb(run: Runner, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[[component]]\nbit = 20\nname = "WIDGET"\nsize = 64\nsupervisor = true\n')
    own = ("--components", str(file))
    assert "WIDGET" in run("layout", "--cpu", "genoa", *own).out
    assert "WIDGET" in run("config", "--cpu", "genoa", *own).out
    assert run("compare", "--cpu", "genoa", *own, "--json").document["policies"]["linux-6.18"]["task_size"] == 2520
    assert run("compare", "--cpu", "genoa", *own, "--component", "widget", "--json").document["component"]["size"] == 64
    assert run("lint", "--cpu", "genoa", *own).status == 0
    assert "WIDGET" in run("xfeatures", *own).out


def test_policies_of_ones_own_join_the_table(run: Runner, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[mine]\nbase = "resident"\ntitle = "mine"\n')
    assert [*run("compare", "--cpu", "genoa", "--policies", str(file), "--json").document["policies"]][-1] == "mine"
    assert run("config", "--cpu", "genoa", "--policies", str(file), "--policy", "mine", "--json").status == 0
    assert "mine" in run("policies", "--policies", str(file)).out


def test_all_policies_can_be_compared(run: Runner) -> None:
    assert len(run("compare", "--cpu", "genoa", "--policy", "all", "--json").document["policies"]) == 11


def test_strict_refuses_a_guess(run: Runner) -> None:
    partial = "\n".join(line for line in SPR_DUMP.splitlines() if "0x0000000d 0x09" not in line)
    result = run("layout", "-", "--strict", stdin=partial.encode())
    assert result.status == 3
    assert "leaves something to be guessed: component 9 (PKRU)" in result.err


def test_a_template_needs_and_takes_a_base(run: Runner, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "template.json"
    bitmap = "0b" + "x" * 13 + "00" + "x" * 7 + "0x00000xxx"
    file.write_text(json.dumps({"cpuid_modifiers": [{
        "leaf": "0xd", "subleaf": "0x0", "flags": 1, "modifiers": [{"register": "eax", "bitmap": bitmap}],
    }]}))  # fmt: skip
    assert run("lint", str(file)).status == 3
    document = run("layout", str(file), "--base", "spr", "--json").document
    assert {c["bit"] for c in document["standard"]["components"]} == {0, 1, 2}


def test_the_version_is_the_packages(run: Runner) -> None:
    result = run("--version")
    assert (result.status, result.out) == (0, f"fpstate {__version__}\n")


# -- refusals: one line on stderr, exit 2, nothing on stdout ---------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("frobnicate",),
        ("layout", "--cpu", "no-such-cpu"),
        ("layout", "--cpu", "zen4", "--mask", "AVY"),
        ("layout", "--cpu", "zen4", "--mask", "0xe0"),
        ("layout", "--cpu", "zen4", "--mask", "0x8000000000000000"),
        ("layout", "--cpu", "zen4", "--mask", ""),
        ("layout", "--cpu", "zen4", "--index", "-1"),
        ("layout", "--cpu", "zen4", "--cpu", "zen3", "--cpu", "zen2"),
        ("config", "--cpu", "zen4", "--policy", "linux-1.0"),
        ("config", "--cpu", "zen4", "--host"),
        ("config", "--cpu", "zen4", "--check"),
        ("compare", "--cpu", "zen4", "--policy", "linux-6.18,foo"),
        ("compare", "--cpu", "zen4", "--component", "cet"),
        ("compare", "--cpu", "zen4", "--policies", "/nowhere.toml"),
        ("compare", "--cpu", "zen4", "--components", "/nowhere.toml"),
        ("lint", "/nowhere"),
        ("lint", "/"),
        ("lint", "/dev/null"),
        ("lint", "/dev/zero"),
        ("lint", sys.executable),
        ("lint", "a\x00b"),
        ("lint", "--frobnicate"),
        ("lint", ""),
        ("layout", ""),
        ("config", "--cpu", ""),
        ("config", "--cpu", "zen4", "--policy", ""),
        ("config", "--cpu", "zen4", "--policies", ""),
        ("config", "--cpu", "zen4", "--components", ""),
        ("compare", "--cpu", "zen4", "--policy", ""),
        ("compare", "--cpu", "zen4", "--component", "x87"),
    ],
)
def test_what_cannot_be_done_is_one_line_on_stderr_and_exit_2(run: Runner, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.status == 2
    assert result.out == ""
    assert result.err.startswith("fpstate")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"\x7fELF\x02\x01\x01" + bytes(200), bytes(1 << 20), b"A" * (1 << 20), b"\xff" * 64, b"{}", b"[]",
     b"[" * 100_000, b'{"cpuid": 1}', b"<cpudata arch='x86'></cpudata>", b"processor\t: 0\nBogoMIPS\t: 50.00\n"],
)  # fmt: skip
def test_an_unreadable_input_is_one_line_and_exit_2(run: Runner, content: bytes) -> None:
    result = run("lint", "-", stdin=content)
    assert result.status == 2, result.err
    assert result.out == ""
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("verb", ["layout", "config", "compare", "lint"])
def test_a_cpus_name_in_the_place_of_a_file_is_told_from_a_missing_file(run: Runner, verb: str) -> None:
    assert run(verb, "zen4").err == "fpstate: there is no file 'zen4'; for the CPU of that name give --cpu zen4\n"


def test_a_row_without_a_dump_is_a_guess(run: Runner) -> None:
    assert "note: no dump of diamond-rapids is public: its row is announced" in run("layout", "--cpu", "dmr").out
    assert run("layout", "--cpu", "dmr", "--strict").status == 3


def test_lint_of_several_cpus_ends_with_a_summary(run: Runner) -> None:
    def cpu(number: int, ecx: int) -> str:
        return f"CPU {number}:\n   0x0000000d 0x00: eax=0x00000003 ebx=0x00000240 ecx=0x{ecx:08x} edx=0x00000000\n"

    result = run("lint", "-", stdin=(cpu(0, 0x240) + cpu(1, 0x999)).encode())
    assert result.status == 1
    assert result.out.splitlines()[-1] == "2 CPUs, findings on 1: CPU #1"


def test_a_near_miss_is_suggested(run: Runner) -> None:
    assert "did you mean " in run("layout", "--cpu", "saphire-rapids").err


# -- the process -----------------------------------------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m fpstate cpus --json | head -c 1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True, timeout=60)
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("words", "forbidden"),
    [
        (("layout", "--cpu", "zen4"), {"json", "ctypes", "fpstate.linux.boot", "zstandard", "lzma", "subprocess"}),
        (("layout", "--cpu", "zen4", "--json"), {"ctypes", "fpstate.linux.boot"}),
        (("config", "--cpu", "zen4"), {"ctypes", "fpstate.linux.observe", "subprocess"}),
        (("--version",), {"json", "ctypes", "fpstate.cpu", "tomllib"}),
    ],
)
def test_a_verb_loads_only_what_it_needs(words: tuple[str, ...], forbidden: set[str]) -> None:
    code = (
        "import sys\nfrom fpstate.cli import main\n"
        f"try: main({list(words)!r})\nexcept SystemExit: pass\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert not loaded & forbidden


# -- this host -------------------------------------------------------------------------------------------------------


@pytest.mark.host
def test_this_host_is_the_default_cpu(run: Runner) -> None:
    result = run("layout", "--json")
    if result.status == 2:
        pytest.skip(result.err)
    assert result.document["cpu"] == "this host"


@pytest.mark.host
def test_check_prints_a_row_a_fact_and_says_how_many_agree(run: Runner) -> None:
    text = run("config", "--host", "--check")
    if text.status == 2:
        pytest.skip(text.err)
    assert "facts agree" in text.out.splitlines()[-1]
    document = run("config", "--host", "--check", "--json").document
    assert {row["fact"] for row in document["rows"]} >= {"xcr0", "minsigstksz", "ptrace_xstate_size"}
    assert all(row["agrees"] is not None or row["why_not"] for row in document["rows"])


@pytest.mark.host
def test_a_wrong_policy_differs_with_exit_1_and_the_lines(run: Runner) -> None:
    right = run("config", "--host", "--check")
    if right.status or "CET_S" not in run("layout", "--host").out:
        pytest.skip("this host's CPU or kernel does not tell the policies apart")
    wrong = run("config", "--host", "--check", "--policy", "linux-6.7", "--cmdline", "noxsaves")
    assert wrong.status == 1
    assert "DIFFERS" in wrong.out


# -- files -----------------------------------------------------------------------------------------------------------


def test_every_distinct_cpu_of_a_file_is_judged(run: Runner, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "two.json"
    sound = {"leafD": {"0": ["7", "340", "340", "0"], "1": ["f", "340", "0", "0"], "2": ["100", "240", "0", "0"]}}
    broken = {"leafD": {**sound["leafD"], "0": ["7", "340", "341", "0"]}}
    file.write_text(json.dumps([sound, broken, sound]))
    document = run("lint", str(file), "--json").document
    assert [finding["rule"] for finding in document["findings"]] == ["standard-total"]
    assert len(document["cpus"]) == 2
    assert run("lint", str(file), "--index", "2").status == 0
    assert run("layout", str(file), "--index", "3").status == 2


def test_a_boot_log_without_offsets_shows_the_compacted_layout_alone(run: Runner) -> None:
    log = b"x86/fpu: Enabled xstate features 0x207, context size is 840 bytes, using 'compacted' format.\n"
    result = run("layout", "-", stdin=log)
    assert "standard format: where PKRU (component 9) lies in standard format is not known" in result.out
    assert run("layout", "-", "--json", stdin=log).document["standard"]["size"] is None
    assert run("config", "-", stdin=log).status == 3


# -- what a user may mean --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("lint", "x.json", "--host"),
        ("lint", "x.json", "--cpu", "zen4"),
        ("layout", "--cpu", "zen4", "--index", "1"),
        ("config", "--cpu", "zen4", "--base", "spr"),
    ],
)
def test_an_argument_that_would_be_ignored_is_refused(run: Runner, words: tuple[str, ...]) -> None:
    assert run(*words).status == 2


def test_base_is_for_templates(run: Runner, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "dump.txt"
    file.write_text(SPR_DUMP)
    assert "is no CPU template: --base goes with one" in run("layout", str(file), "--base", "zen4").err


def test_a_release_names_the_policy_of_its_kernels(run: Runner) -> None:
    assert run("config", "--cpu", "genoa", "--policy", "6.12.3", "--json").document["policy"] == "linux-6.12"


def test_a_mask_may_be_all_but_something(run: Runner) -> None:
    assert run("layout", "--cpu", "spr", "--mask", "~amx", "--json").document["mask"] == "0xdfe7"


def test_a_guest_under_a_template_boots_for_kvm_computes_its_sizes(run: Runner, tmp_path: pathlib.Path) -> None:
    # Firecracker's T2 takes AVX-512, MPX and PKRU away, and XSAVEC and XSAVES
    file = tmp_path / "t2.json"
    file.write_text(json.dumps({"cpuid_modifiers": [
        {"leaf": "0xd", "subleaf": "0x0", "flags": 1,
         "modifiers": [{"register": "eax", "bitmap": "0b" + "x" * 22 + "0x00000xxx"}]},
        {"leaf": "0xd", "subleaf": "0x1", "flags": 1,
         "modifiers": [{"register": "eax", "bitmap": "0b" + "x" * 28 + "000x"}]},
    ]}))  # fmt: skip
    document = run("config", str(file), "--base", "cascade-lake", "--json").document
    assert document["xsave_disabled"] is None
    assert document["kernel"]["max_size"] == 832


def test_a_dynamic_component_lives_where_it_was_permitted(run: Runner) -> None:
    document = run("compare", "--cpu", "spr", "--component", "XTILEDATA", "--policy", "linux-6.18", "--json").document
    assert document["policies"]["linux-6.18"]["home"] == "fpstates on permission"
    assert document["policies"]["linux-6.18"]["guest_may_use"]


def test_without_xsave_nothing_lives_anywhere(run: Runner) -> None:
    column = run("compare", "--cpu", "genoa", "--cmdline", "noxsave", "--policy", "default-on", "--json").document
    facts = column["policies"]["default-on"]
    assert (facts["home"], facts["save_rfbm"], facts["registers_after_guest_to_host"]) == (
        "nowhere",
        "0x0",
        "untouched",
    )
