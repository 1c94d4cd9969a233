"""``fpstate simulate``: shipped scenarios, files of one's own, reports and pictures."""

from __future__ import annotations

import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from fpstate.cli import main
from fpstate.linux import scenario as scenarios
from fpstate.linux.machine import JUDGED
from fpstate.linux.policy import shipped as policies
from fpstate.verify.properties import PROPERTIES

SHIPPED = list(scenarios.shipped())
HEAD = "cpus = 1\ntasks = 2\nvcpus = 0\ncpu = 'zen4'\n"
PLAYED = "machine.step('switch_from_idle', cpu=0, task=0)"
STEP = "[[step]]\ndo = 'switch_from_idle'\ncpu = 0\ntask = 0\n"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["simulate", *words])
    out, err = capsys.readouterr()
    return status, out, err


def document(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    _, out, _ = run(capsys, *words, "--json")
    found: dict[str, Any] = json.loads(out)
    return found


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> str:
    file = tmp_path / "own.toml"
    file.write_text(text)
    status, out, err = run(capsys, str(file))
    assert (status, out) == (2, "")
    return err


# -- the shipped ones -------------------------------------------------------------------------------------------------


def test_the_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[2:]] == SHIPPED
    assert {"guest-cet", "amx-first-use", "signal-in-between", "live-migration-xfd", "sigreturn-tiles"} <= {*SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("policy", ["linux-6.18", "repaired"])
def test_a_shipped_scenario_breaks_what_it_says_it_breaks(
    capsys: pytest.CaptureFixture[str], name: str, policy: str
) -> None:
    found = document(capsys, name, "--policy", policy)
    assert [step["expected_instead"] for step in found["steps"]] == [None] * len(found["steps"])


@pytest.mark.parametrize("policy", sorted(policies()))
def test_the_guest_keeps_its_shadow_stack_pointers_under_every_policy(
    capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    status, out, _ = run(capsys, "guest-cet", "--policy", policy)
    assert status == 0
    assert out.endswith("no finding\n")


def test_tiles_of_another_task_are_found_under_6_18(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "sigreturn-tiles", "--policy", "linux-6.18")
    assert status == 1
    assert "ISO-RUN: task 1 runs on CPU 0 with values of task 0 in XTILEDATA" in out


def test_and_not_under_the_repaired_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "sigreturn-tiles", "--policy", "repaired")[0] == 0


def test_the_race_about_a_guests_xfd_makes_the_kernel_warn(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "guest-xfd-race")
    assert [f["property"] for step in found["steps"] for f in step["findings"]] == ["WARN: xfd_validate_state"]


# -- reports ----------------------------------------------------------------------------------------------------------


def test_the_text_tells_each_instruction_with_its_masks(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "amx-first-use")
    assert "CPU 0 XSAVES64 task 0: RFBM 0x60ee7, XSTATE_BV 0x0 -> 0x60ae7 (10540 bytes)" in out
    assert "CPU 0 WRMSR IA32_XFD = 0x40000" in out


def test_the_document_has_every_step_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "guest-cet")
    assert (found["schema"], found["scenario"], found["policy"]) == (1, "guest-cet", "linux-6.18")
    assert [step["step"] for step in found["steps"]][:3] == ["switch_from_idle", "kvm_create_vcpu", "kvm_run"]
    assert found["final"] == found["steps"][-1]["state"]


def test_the_document_says_whose_values_are_in_the_registers(capsys: pytest.CaptureFixture[str]) -> None:
    step = document(capsys, "guest-cet")["steps"][4]
    assert int(step["state"]["cpus"][0]["registers"]["guest 0"], 16) >> 12 & 1


def test_the_picture_has_a_lane_for_each_cpu_and_a_mark_for_each_step(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "picture.svg"
    run(capsys, "guest-cet", "--svg", str(file))
    root = ET.fromstring(file.read_text())  # noqa: S314  it is ours
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("CPU 0") == texts.count("CPU 1") == 1
    assert {str(number) for number in range(1, 21)} <= {*texts}


def test_a_finding_is_red_in_the_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    run(capsys, "sigreturn-tiles", "--svg", str(file))
    assert "ISO-RUN: task 1 runs on CPU 0" in file.read_text()
    assert 'fill="#c00000"' in file.read_text()


def test_the_same_scenario_gives_the_same_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures = []
    for name in ("a.svg", "b.svg"):
        run(capsys, "amx-first-use", "--svg", str(tmp_path / name))
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]


def test_a_document_on_another_cpu_is_for_that_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert document(capsys, "signal-in-between", "--cpu", "zen4")["cpu"] == "zen4"


# -- one's own --------------------------------------------------------------------------------------------------------


def test_a_file_of_ones_own_is_played(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(HEAD + STEP)
    found = document(capsys, str(file))
    assert (found["scenario"], found["cpu"]) == ("own", "zen4")


def test_a_scenario_is_read_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((HEAD + STEP).encode())))
    assert run(capsys, "-")[0] == 0


def test_a_python_file_is_played(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    body = "    for cpu in range(2):\n        machine.step('switch_from_idle', cpu=cpu, task=cpu)\n"
    file.write_text(f"CPU = 'zen4'\nTITLE = 'two CPUs'\ndef scenario(machine):\n{body}")
    found = document(capsys, str(file))
    assert (found["title"], len(found["steps"])) == ("two CPUs", 2)


def test_a_python_file_that_fails_is_refused_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("CPU = 'zen4'\ndef scenario(machine):\n    1 / 0\n")
    status, _, err = run(capsys, str(file))
    assert (status, "ZeroDivisionError" in err) == (2, True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import nosuch", "line 1: it cannot be loaded: ModuleNotFoundError: No module named 'nosuch'"),
        ("\nnosuch", "line 2: it cannot be loaded: NameError"),
        ("raise BaseException('a\\nb')", "line 1: it cannot be loaded: BaseException: a b"),
        ("class E(Exception):\n    __str__ = None\nraise E", "line 3: it cannot be loaded: E\n"),
        ("import sys\nsys.exit(5)", "line 2: it cannot be loaded: SystemExit: 5"),
        (
            "def scenario(machine):\n    raise SystemExit",
            "line 2: scenario(machine) failed after 0 steps under linux-6.18",
        ),
        ("def scenario():\n    pass", "scenario(machine) failed after 0 steps under linux-6.18 on zen4: TypeError"),
        (f"def scenario(machine):\n    {PLAYED}\n    {PLAYED}", "line 3: machine.step call 2 under linux-6.18 on zen4"),
        (f"def scenario(machine):\n    {PLAYED.replace('0)', '0.5)')}", "task must be a number, not 0.5"),
        (f"def scenario(machine):\n    {PLAYED.replace('0)', 'None)')}", "task must be a number, not None"),
        (
            "def scenario(machine):\n    machine.step(5)",
            "line 2: machine.step call 1 under linux-6.18 on zen4: there is no",
        ),
        ("TITLE = '\\x00'\ndef scenario(machine):\n    pass", "title has the character '\\x00'"),
    ],
)
def test_what_a_python_file_does_wrong_is_one_line_that_says_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, body: str, message: str
) -> None:
    file = tmp_path / "own.py"
    file.write_text(f"{body}\nCPU = 'zen4'\n")
    status, out, err = run(capsys, str(file))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"fpstate: {file}")
    assert message in err


def test_what_steps_over_bytes_can_break_is_what_the_kernel_and_the_steps_name() -> None:
    linux = Path(scenarios.__file__).parent
    files = [linux / "steps.py", *(linux / "kernel").glob("*.py"), *(linux / "machine").glob("*.py")]
    text = "".join(file.read_text() for file in files)
    named = set(re.findall(r'(?:require|ensures|Finding)\("([A-Z0-9-]+)"', text))
    values = {f"{kind}-{where}" for kind in ("ISO", "INT") for where in ("RUN", "BUF")}
    assert named | values == {*JUDGED}
    assert {*JUDGED} <= PROPERTIES.keys()


def test_a_picture_is_well_formed_whatever_a_file_is_called(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, picture = tmp_path / "a\x1b<b>.toml", tmp_path / "picture.svg"
    file.write_text(HEAD + STEP)
    assert run(capsys, str(file), "--svg", str(picture))[0] == 0
    assert ET.fromstring(picture.read_text())[0].text == "a <b>"  # noqa: S314  it is ours


def test_what_was_expected_and_did_not_happen_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(HEAD + STEP + "expect = ['ISO-RUN']\n")
    status, out, _ = run(capsys, str(file))
    assert (status, "expected: ISO-RUN" in out) == (1, True)
    last = "no finding\nnot as the scenario expects:\n  step 1, switch_from_idle: expected ISO-RUN, found nothing\n"
    assert out.endswith(f"\n\n{last}")


def test_another_answer_than_expected_is_named_at_the_end(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    call = "[[step]]\ndo = 'arch_prctl'\ncpu = 0\ntask = 0\noption = 0x1021\nvalue = 0\nanswer = 'EBUSY'\n"
    file.write_text(HEAD + STEP + call)
    status, out, _ = run(capsys, str(file))
    assert status == 1
    assert "  step 2, arch_prctl: expected the answer EBUSY, was told " in out.partition("not as the scenario")[2]


def test_a_policy_of_ones_own_is_played(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text('[mine]\nbase = "linux-6.18"\nsigreturn_initialises_dynamic = true\n')
    assert run(capsys, "sigreturn-tiles", "--policies", str(file), "--policy", "mine")[0] == 0


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEAD + STEP.replace("switch_from_idle", "switch"),
            "step 1: do must name a step, not 'switch'; steps are user_",
        ),
        (HEAD + STEP.replace("task = 0", ""), "switch_from_idle lacks 'task'; it takes cpu, task"),
        (HEAD + STEP + "other = 1\n", "switch_from_idle has the unknown parameter 'other'"),
        (HEAD + STEP + "when = 1\n", "unknown key 'when'; keys of a step are do, cpu"),
        (HEAD + "colour = 1\n" + STEP, "unknown key 'colour'; keys of a scenario are title"),
        (HEAD + STEP + "expect = 'ISO-RUN'\n", "expect must be a list of properties"),
        (HEAD + STEP.replace("cpu = 0", "cpu = 1"), "cpu must be the number of a cpu, 0 to 0, not 1"),
        (HEAD + STEP + STEP, "step 2 of own under linux-6.18 on zen4: switch_from_idle is not possible: the CPU must"),
        (HEAD, "must have steps"),
        (HEAD + "assumptions = {nest = true}\n" + STEP, "unknown key 'nest'"),
        (HEAD.replace("tasks = 2", "tasks = 'two'") + STEP, "tasks must be a number, 1 to 64, not 'two'"),
        ("[[step", "is not a TOML file of a scenario"),
        (HEAD.replace("cpus = 1", "cpus = 0") + STEP, "own.toml: cpus must be a number, 1 to 64, not 0"),
        (HEAD.replace("vcpus = 0", "vcpus = 3") + STEP, "own.toml: vcpus must be 0 to 2, as there are tasks, not 3"),
        (HEAD + STEP.replace("task = 0", "task = 64"), "own.toml: step 1: task must be a number, 0 to 63, not 64"),
        (
            HEAD + STEP + "expect = ['ISORUN']\n",
            "own.toml: step 1: expect: there is no finding 'ISORUN'; findings are ISO",
        ),
        (HEAD + STEP + "expect = ['WARN']\n", "there is no finding 'WARN'"),
        (HEAD + STEP + "expect = ['FAULT: none']\n", "there is no finding 'FAULT: none'"),
        (HEAD + STEP + "expect = {repaired = ['P12']}\n", "expect.repaired: P12 is not looked at over bytes"),
        (HEAD + "title = 'a\\u001bb'\n".replace("'", '"') + STEP, "title has the character '\\x1b', which cannot be"),
        (HEAD + STEP + "note = 'a\\uffffb'\n".replace("'", '"'), "note has the character '\\uffff', which cannot be"),
    ],
)
def test_a_scenario_that_cannot_be_meant_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    assert message in refused(capsys, tmp_path, text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "simulate needs a SCENARIO; --list shows"),
        (("guest-cat",), "there is no scenario 'guest-cat'; scenarios are amx-first-use"),
        (("nowhere.toml",), "cannot read nowhere.toml"),
        (("nowhere.py",), "cannot read nowhere.py"),
        (("-", "-"), "cannot both be standard input"),
        (("--list", "--steps"), "--list and --steps do not go together"),
        (("--list", "guest-cet"), "--list and a SCENARIO do not go together"),
        (("--steps", "guest-cet"), "--steps and a SCENARIO do not go together"),
        (("guest-cet", "--svg", "-"), "--svg must name a file"),
        (("guest-cet", "--cpu", "core2"), "does not use XSAVE on core2"),
        (("amx-first-use", "--cpu", "zen4"), "request_perm is not possible: the CPU must have AMX"),
    ],
)
def test_what_cannot_be_played_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert message in err
