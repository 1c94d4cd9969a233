"""The documentation is held to what the program does: its examples are run, its references are complete.

In a page, ``<!-- file: my.toml -->`` above a block says that the reader has saved it under that name, and
``<!-- base64: my.core -->`` what it encodes;
``<!-- host -->`` that the output depends on the machine, so that only the exit status can be checked.  In a shown
output a line ``...`` stands for any number of lines.
"""

from __future__ import annotations

import argparse
import ast
import base64
import difflib
import doctest
import io
import pathlib
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

import pytest

import fpstate
from fpstate import cli, isa
from fpstate.components import _FIELDS as COMPONENT_FIELDS
from fpstate.cpu import xcr0
from fpstate.cpu.host import why_not_x86_64
from fpstate.isa.profile import Profile
from fpstate.linux import copyin, scenario
from fpstate.linux.machine import Event
from fpstate.linux.policy import Policy
from fpstate.linux.steps import Assumptions
from fpstate.registers import FAMILIES
from fpstate.vectors import case
from fpstate.verify.properties import PROPERTIES

ROOT: Final = pathlib.Path(__file__).parent.parent
SOURCE: Final = ROOT / "src" / "fpstate"
REFERENCE: Final = ROOT / "docs" / "reference"
PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the comment above it, where it starts, and its lines."""

    language: str
    mark: str
    line: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def is_session(self) -> bool:
        return self.language == "console" and bool(self.lines) and self.lines[0].startswith("$ fpstate ")


def blocks(page: pathlib.Path) -> list[Block]:
    found: list[Block] = []
    mark, language, start = "", None, 0
    body: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if language is not None:
            if line != "```":
                body.append(line)
                continue
            found.append(Block(language, mark, start, tuple(body)))
            mark, language, body = "", None, []
        elif line.startswith("```"):
            language, start = line[3:], number
        elif comment := re.fullmatch(r"<!-- (.+) -->", line):
            mark = comment[1]
        elif line.strip():
            mark = ""
    assert language is None, f"{page}:{start}: the block is not closed"
    return found


def pages_with(*, host: bool) -> list[Any]:
    """Return a parameter for each page that has sessions, those that depend on the host or the others."""
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in PAGES
        if any(block.is_session and (block.mark == "host") is host for block in blocks(page))
    ]


def save_files(page: pathlib.Path, folder: pathlib.Path) -> None:
    for block in blocks(page):
        if block.mark.startswith("file: "):
            (folder / block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
        elif block.mark.startswith("as in "):
            save_files(ROOT / block.mark.removeprefix("as in "), folder)
        elif block.mark.startswith("base64: "):
            (folder / block.mark.removeprefix("base64: ")).write_bytes(base64.b64decode(block.text))


class Shell:
    """As much of one as the examples need: ``fpstate ...``, ``< FILE``, ``> FILE`` and ``echo $?``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.status = 0

    def run(self, command: str) -> list[str]:
        """Run one line and return what it prints, as a terminal shows it."""
        words = shlex.split(command)
        if words == ["echo", "$?"]:
            return [str(self.status)]
        assert words[0] == "fpstate", f"an example cannot run {words[0]!r}"
        target = words[-1] if words[-2:-1] == [">"] else None
        words = words[:-2] if target else words
        given = pathlib.Path(words[words.index("<") + 1]).read_bytes() if "<" in words else b""
        words = words[1 : words.index("<")] if "<" in words else words[1:]
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        try:
            self.status = cli.main(words)
        except SystemExit as end:
            self.status = int(end.code or 0)
        shown = self.capsys.readouterr()
        if target:
            pathlib.Path(target).write_text(shown.out, encoding="utf-8")
        return [line.rstrip() for line in f"{'' if target else shown.out}{shown.err}".splitlines()]


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a session with the output that the page shows for it."""
    starts = [at for at, line in enumerate(block.lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(block.lines)], strict=True):
        yield block.lines[start][2:], [line.rstrip() for line in block.lines[start + 1 : end]]


def shows(expected: list[str], printed: list[str]) -> bool:
    """Tell whether *expected*, in which ``...`` stands for any lines, shows *printed*."""
    pattern = "".join("(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in expected)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


@pytest.fixture
def shell(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    return Shell(monkeypatch, capsys)


@pytest.mark.parametrize("page", pages_with(host=False))
def test_a_session_prints_what_the_page_shows(page: pathlib.Path, shell: Shell, tmp_path: pathlib.Path) -> None:
    save_files(page, tmp_path)
    for block in blocks(page):
        if not block.is_session or block.mark == "host":
            continue
        for command, expected in commands(block):
            printed = shell.run(command)
            if not shows(expected, printed):
                difference = "\n".join(difflib.ndiff(expected, printed))
                pytest.fail(f"{page.name}:{block.line}: $ {command}\n{difference}")


@pytest.mark.host
@pytest.mark.parametrize("page", pages_with(host=True))
def test_a_session_on_this_host_ends_with_an_answer(page: pathlib.Path, shell: Shell, tmp_path: pathlib.Path) -> None:
    try:
        fpstate.this_host()
    except fpstate.FpstateError as missing:
        pytest.skip(str(missing))
    save_files(page, tmp_path)
    for block in blocks(page):
        if block.is_session and block.mark == "host":
            for command, _ in commands(block):
                shell.run(command)
                assert shell.status in {0, 1}, f"{page.name}:{block.line}: $ {command}"


PYTHON_PAGES: Final = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_prints_what_the_page_shows(
    page: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "fpstate.Batch" in page.read_text(encoding="utf-8"):
        pytest.importorskip("numba", reason="fpstate[batch] is not installed")
    if "capture_process" in page.read_text(encoding="utf-8") and (reason := why_not_x86_64()):
        pytest.skip(reason)
    if ".as_arrays()" in page.read_text(encoding="utf-8"):
        pytest.importorskip("numpy", reason="fpstate[batch] is not installed")
    save_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for block in blocks(page):
        if block.language != "python":
            continue
        test = doctest.DocTestParser().get_doctest(block.text, names, page.name, str(page), block.line)
        if test.examples:
            runner.run(test, out=report.append, clear_globs=False)
            names = test.globs
        else:
            run_script(block, names, capsys)
    assert not report, "".join(report)


def run_script(block: Block, names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Run a block without prompts; what a ``print(...)`` line prints stands behind it as a comment."""
    exec(compile(block.text, "a script in the documentation", "exec"), names)  # noqa: S102 - it is our own page
    shown = [found[1] for line in block.lines if (found := re.search(r"^print\(.+\)  # (.+)$", line))]
    assert capsys.readouterr().out.splitlines() == shown


# -- every page ------------------------------------------------------------------------------------------------------


def headings(page: pathlib.Path) -> set[str]:
    """Return the anchors that a page's headings make."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_links_to_what_is_there(page: pathlib.Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in headings(other), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_plain_ascii(page: pathlib.Path) -> None:
    assert page.read_text(encoding="utf-8").isascii()


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    targets = re.findall(r"\]\(([^)\s#]+)", index.read_text(encoding="utf-8"))
    reached = {(index.parent / target).resolve() for target in targets if not re.match(r"[a-z]+:", target)}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {index} <= reached


# -- the references --------------------------------------------------------------------------------------------------


def words_of(page: str) -> set[str]:
    """Return what a page of the reference sets in code, outside of blocks."""
    text = re.sub(r"^```.*?^```", "", (REFERENCE / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in (code, *code.split())}


def verbs(parser: argparse.ArgumentParser | None = None) -> dict[str, argparse.ArgumentParser]:
    actions = (parser or cli.parser())._actions
    choices = [dict(action.choices) for action in actions if isinstance(action, argparse._SubParsersAction)]
    return choices[0] if choices else {}


def test_cli_page_names_every_verb_and_option_and_no_other() -> None:
    parsers = [cli.parser(), *verbs().values()]
    parsers += [action for parser in verbs().values() for action in verbs(parser).values()]
    options = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    written = words_of("cli.md")
    assert {f"fpstate {verb}" for verb in verbs()} <= written
    assert options == {word for word in written if re.fullmatch(r"--?[a-z][a-z0-9-]*", word)}


def test_lint_page_names_every_rule_and_no_other() -> None:
    rules: set[str] = set()
    for node in ast.walk(ast.parse((SOURCE / "linux" / "lint.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
            rule = node.args[0]
            if isinstance(rule, ast.Constant):
                rules.add(str(rule.value))
            else:
                assert ast.unparse(rule) == "f'xcr0-{rule.name}'"
                rules |= {f"xcr0-{rule.name}" for rule in xcr0.RULES[1:]}
    page = (REFERENCE / "lint-rules.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE)) == rules


def test_library_page_has_a_row_for_every_public_name_and_no_other() -> None:
    page = (REFERENCE / "library.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)", page, re.MULTILINE)) == set(fpstate.__all__)


def test_policies_page_names_every_field_and_shipped_policy() -> None:
    written = words_of("policies.md")
    assert {*Policy.__dataclass_fields__} - {"name"} <= written
    assert {"base", *fpstate.policies()} <= written


def test_components_page_names_every_field() -> None:
    assert set(COMPONENT_FIELDS) <= words_of("components.md")


def test_formats_page_names_every_reader() -> None:
    readers = {
        name
        for file in (SOURCE / "cpu" / "formats").glob("*.py")
        for name in re.findall(r'format="([a-z-]+[a-z0-9-]*)"', file.read_text(encoding="utf-8"))
    }
    assert readers
    assert readers <= words_of("formats.md")


def test_isa_rules_page_has_a_row_for_every_rule_and_profile_and_no_other() -> None:
    page = (REFERENCE / "isa-rules.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([a-z0-9-]+)` \| (?:#|E|S|f)[A-Za-z-]+ \|", page, re.MULTILINE))
    assert rows == {*isa.RULES, *copyin.RULES}
    for profile in fpstate.profiles().values():
        assert f"| `{profile.name}` | {profile.title} |" in page
    assert {*Profile.__slots__} - {"name", "title", "vendors", "models", "unconfirmed", "source"} <= words_of(
        "isa-rules.md"
    )


def test_registers_page_has_a_row_for_every_family() -> None:
    page = (REFERENCE / "registers.md").read_text(encoding="utf-8")
    for family in FAMILIES:
        first = next(family.registers()).name
        assert f"| `{first}`" in page


def test_properties_page_is_what_the_table_says() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "properties.py"))
    page = (REFERENCE / "properties.md").read_text(encoding="utf-8")
    assert page == script["page"](), "run scripts/properties.py"
    assert set(re.findall(r"^\| `([A-Z0-9-]+)` \|", page, re.MULTILINE)) == {*PROPERTIES, *script["BEYOND"]}


def test_scenario_page_names_every_key() -> None:
    written = {word.strip("`,") for word in (ROOT / "docs" / "howto" / "play-a-scenario.md").read_text().split()}
    keys = {*scenario._TEXTS, *scenario._NUMBERS}
    assert {*scenario._KEYS, "do", "note", "expect", "answer", *(key.upper() for key in keys)} <= written
    assert {field.name for field in fields(Assumptions)} | {*Event.__slots__} <= written


def test_vectors_page_names_every_field_of_a_case() -> None:
    assert words_of("vectors.md") >= case._FIELDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_row_of_a_table_has_the_columns_of_its_head(page: pathlib.Path) -> None:
    for rows in re.findall(r"(?:^\|.*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}
        assert len(columns) == 1, rows.splitlines()[0]
