"""The verb ``verify``, as its users run it."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from fpstate import cli, cpu_by_name, policy
from fpstate.cli import verify as cli_verify
from fpstate.linux.compare import compare
from fpstate.report import compare as compare_report
from fpstate.report import verify as report
from fpstate.verify.question import Options, Shape

pytest.importorskip("z3", reason="z3 is missing: pip install fpstate[verify]")

QUICK = ["--component", "cet-kernel", "--method", "induction"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = cli.main(["verify", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_proven_policy_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--policy", "linux-6.18", *QUICK)
    assert status == 0
    assert out.startswith("linux-6.18 on sapphire-rapids: proven")
    assert "of which the verdicts need: host-sss off" in out


def test_a_violated_policy_exits_with_1_and_tells_how(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--policy", "resident", *QUICK, "--assume", "host-sss=on")
    assert status == 1
    assert "how ISO-RUN" in out
    assert "[exit_to_user_mode]" in out


def test_the_document_has_the_fields_that_others_rely_on(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--policy", "resident", *QUICK, "--assume", "host-sss=on", "--json")
    document = json.loads(out)
    assert document["schema"] == 1
    assert document["policy"] == "resident"
    assert document["assumptions"]["host_sss"] is True
    entry = next(entry for entry in document["properties"] if entry["id"] == "ISO-RUN")
    assert {"id", "verdict", "method", "states", "seconds", "counterexample"} <= entry.keys()
    assert entry["verdict"] == "violated"
    assert entry["counterexample"]["steps"][0]["step"] == "switch_from_idle"


def test_several_policies_make_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--policy", "linux-6.18,default-on", *QUICK, "--json")
    assert [found["policy"] for found in json.loads(out)["policies"]] == ["linux-6.18", "default-on"]


def test_a_counterexample_is_replayed_over_real_bytes(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    run(capsys, "--policy", "resident", *QUICK, "--assume", "host-sss=on", "--scenarios", str(tmp_path))
    assert cli.main(["simulate", str(tmp_path / "resident-iso-run.toml"), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [found["property"] for found in document["steps"][-1]["findings"]] == ["ISO-RUN"]


def test_every_counterexample_about_values_breaks_its_property_over_bytes(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    run(capsys, "--component", "user-dynamic", "--method", "induction", "--scenarios", str(tmp_path))
    for name in ("iso-run", "iso-buf", "int-run", "int-buf"):
        assert cli.main(["simulate", str(tmp_path / f"linux-6.18-{name}.toml"), "--json"]) == 1
        document = json.loads(capsys.readouterr().out)
        found = {entry["property"] for step in document["steps"] for entry in step["findings"]}
        assert name.upper() in found


def test_a_counterexample_says_what_its_replay_does_not_show(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    run(capsys, "--component", "user-dynamic", "--method", "induction", "--scenarios", str(tmp_path))
    files = sorted(tmp_path.glob("*.toml"))
    assert {"linux-6.18-p12.toml", "linux-6.18-iso-run.toml"} <= {file.name for file in files}
    for file in files:
        cli.main(["simulate", str(file), "--json"])
        document = json.loads(capsys.readouterr().out)
        property_id = file.stem.removeprefix("linux-6.18-").upper()
        found = {entry["property"].partition(":")[0] for step in document["steps"] for entry in step["findings"]}
        assert ("over bytes" in document["text"]) is (property_id not in found)
        given = [step for step in document["steps"] if step["step"] in {"request_perm", "request_guest_perm"}]
        assert all("not of the run" in step["note"] for step in given)
    assert (
        "P12 is not looked at over bytes: the replay shows the run, and "
        in (tmp_path / "linux-6.18-p12.toml").read_text()
    )


def test_the_invariant_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--show-invariant")
    assert status == 0
    assert "P11" in out
    assert "cpu0.fpregs_owner_ctx" in out


def test_the_invariant_of_one_class_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--show-invariant", "--component", "pkru")
    assert {line.partition(",")[0] for line in out.splitlines() if line and line[0] != " "} == {"pkru"}


def test_policies_of_ones_own_are_verified_without_naming_them(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[mine]\nbase = "linux-6.18"\n[yours]\nbase = "resident"\n')
    _, out, _ = run(capsys, "--policies", str(file), *QUICK, "--json")
    assert [found["policy"] for found in json.loads(out)["policies"]] == ["mine", "yours"]


def test_a_proof_that_fails_alone_is_no_search(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--component", "user-dynamic", "--method", "proof", "--json")
    unknown = [entry for entry in json.loads(out)["properties"] if entry["verdict"] == "unknown"]
    assert status == 3
    assert {entry["method"] for entry in unknown} == {"induction"}


def test_help_says_which_cpu_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, cpu in (("verify", "sapphire-rapids"), ("simulate", "the scenario's, or this host")):
        with pytest.raises(SystemExit):
            cli.main([verb, "--help"])
        assert f"the CPU ({cpu} if none is given)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verdict", "entry", "said"),
    [
        ("proven", {}, "no CET_S leaks or is lost, for any number of CPUs, tasks and vCPUs, as long as host-sss off."),
        (
            "holds",
            {"verdict": "holds"},
            "no CET_S leaks or is lost in any state visited, of at most 2 CPUs, 2 tasks and",
        ),
        ("unknown", {"verdict": "unknown"}, "whether CET_S is kept apart could not be decided."),
        ("violated", {"verdict": "violated", "reason": "it is small"}, "not kept apart: P3 is violated (it is small)."),
    ],
)
def test_compare_says_no_more_than_was_shown(
    verdict: str, entry: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    result = compare(cpu_by_name("sapphire-rapids"), [policy("linux-6.18")])
    options = Options(shape=Shape(2, 2, 1), method="induction", classes=("cet-kernel",), cached=True)
    found = report.document(cli_verify.verify_all(result.cpu, [policy("linux-6.18")], options)[0])
    found["verdict"] = verdict
    next(p for p in found["properties"] if p["id"] == "P3").update(entry)
    out = " ".join(compare_report.text(result, {"linux-6.18": found}).split())
    assert said in out
    assert verdict == "proven" or "for any number" not in out
    shown = compare_report.document(result, {"linux-6.18": found})["policies"]["linux-6.18"]["verification"]
    assert shown == {"verdict": verdict, "needs": ["host-sss off"], "violated": ["P3"] if verdict == "violated" else []}


def test_a_failed_induction_is_shown_with_step_and_state(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--component", "user-dynamic", "--method", "induction", "--show-induction")
    assert "the induction fails for user-dynamic at clause" in out
    assert "in step sigreturn" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--assume", "weather=on"], "is not an assumption"),
        (["--component", "mmx"], "is no class of components"),
        (["--policy", "nonsense"], "is not a policy"),
        (["--cpu", "core2"], "does not use XSAVE"),
        (["--tasks", "1", "--vcpus", "2"], "no more vCPUs than tasks"),
        (["--export", "promela"], "--export is about one policy and one --component"),
        (["--cpus", "0"], "--cpus must be 1 to 64, not 0"),
        (["--tasks", "65"], "--tasks must be 1 to 64, not 65"),
        (["--focus", "task0"], "--focus goes with --export"),
        (["--history", "--mutations"], "--history and --mutations do not go together"),
        (["--history", "--scenarios", "x"], "--history and --scenarios do not go together"),
        (["--history", "--policy", "resident"], "--history and --policy do not go together"),
        (["--history", ""], "'' is not a bug of history"),
        (["--mutations", "--assume", "fred=off"], "--mutations and --assume do not go together"),
        (["--export", "promela", "--component", "pkru", "--json"], "--export and --json do not go together"),
        (["--show-invariant", "--json"], "--show-invariant and --json do not go together"),
        (["--show-invariant", "--policy", "all"], "--show-invariant is about one policy"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    status, _, err = run(capsys, *words)
    assert status == 2
    assert said in err


def test_a_host_that_cannot_boot_with_xsave_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "--cpu", "core2", "--show-invariant")
    assert status == 2
    assert "XSAVE" in err


def test_compare_shows_what_verify_says(capsys: pytest.CaptureFixture[str]) -> None:
    policies = "linux-6.18,default-on,independent"
    assert cli.main(["compare", "--cpu", "sapphire-rapids", "--policy", policies, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["policies"]
    assert found["default-on"]["verification"] == {"verdict": "proven", "needs": [], "violated": []}
    assert found["independent"]["verification"]["needs"] == ["host-sss off"]


def test_compare_leaves_it_out_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--cpu", "zen4", "--no-verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["policies"]
    assert {column["verification"] for column in found.values()} == {None}


def test_a_bug_of_history_is_told_as_a_story(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--history", "stale-xfd-shadow")
    assert status == 0
    assert "CVE-2024-35801" in out
    assert "[cpu_down_up]" in out


def test_a_bug_that_nobody_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "--history", "heartbleed")
    assert status == 2
    assert "is not a bug of history" in err


def test_mutations_are_tallied_by_the_property_that_notices_them(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--mutations", "Core.kernel_fpu_end", "--jobs", "1")
    assert status == 0
    assert re.search(r"^STEP +1$", out, re.MULTILINE)
    assert out.rstrip().endswith(" 0 unexplained.")


def test_mutations_that_go_unnoticed_are_given_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--mutations", "swap `task.last_cpu = cpu.ref`", "--json")
    assert status == 0
    document = json.loads(out)
    assert (document["noticed"], document["unexplained"]) == (0, 0)
    assert document["mutations"][0]["because"].startswith("equivalent because the two statements commute")


def test_a_mutation_that_nobody_explained_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fpstate.verify.mutate._COMMUTE", "")
    name = "Context.fpregs_mark_activate: swap `task.last_cpu = cpu.ref`"
    status, out, _ = run(capsys, "--mutations", name)
    assert status == 1
    assert "nobody has said why" in out
    assert name in out


def test_a_text_in_no_mutations_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "--mutations", "frobnicate")
    assert status == 2
    assert "no mutation has 'frobnicate' in its name" in err


def test_a_component_that_there_is_not_is_not_proven(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "--cpu", "genoa", "--component", "user-dynamic")
    assert (status, out) == (2, "")
    assert "nothing to verify: linux-6.18 on genoa has no user-dynamic" in err


def test_a_policy_without_the_component_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--policy", "linux-6.7,linux-6.18", "--component", "cet-kernel", "--method", "proof"]
    status, out, err = run(capsys, *words)
    assert status == 0
    assert "linux-6.7" not in out
    assert err == "fpstate: linux-6.7 on sapphire-rapids has no cet-kernel: not verified\n"
