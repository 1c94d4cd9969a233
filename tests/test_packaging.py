"""What ships beside the code: man pages, completions, tables, locks."""

import pathlib
import subprocess
import sys

import pytest

import fpstate
from fpstate import cli

ROOT = pathlib.Path(__file__).parent.parent


def test_man_pages_and_completions_are_what_the_parser_says() -> None:
    command = [sys.executable, "scripts/manual.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_a_man_page(verb: str) -> None:
    assert (ROOT / f"share/man/man1/fpstate-{verb}.1").is_file()


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_a_lock_pins_by_hash_and_names_no_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    pins = [line for line in text.splitlines() if "==" in line]
    assert pins
    assert all(line.rstrip().endswith("\\") for line in pins), "each pin goes on with its hashes"


def test_every_public_name_can_be_imported_and_has_a_docstring() -> None:
    for name in fpstate.__all__:
        value = getattr(fpstate, name)
        assert name == "CATALOGUE" or value.__doc__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fpstate' has no attribute 'frobnicate'"):
        fpstate.frobnicate  # noqa: B018


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src/fpstate/py.typed").is_file()


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import sys, fpstate; print(*(m for m in sys.modules if m.startswith('fpstate.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_docstrings_example_is_true() -> None:
    cpu = fpstate.cpu_by_name("zen4")
    mask = cpu.catalogue.parse_mask("AVX|CET", everything=cpu.mask)
    assert fpstate.compacted(cpu, mask).size == 872
    assert fpstate.boot(cpu, fpstate.policy("linux-6.18")).kernel.default_size == 2456


@pytest.mark.parametrize(
    ("words", "completion"),
    [
        ("lint pyp", "pyproject.toml"),
        ("config --policies pyp", "pyproject.toml"),
        ("layout --cpu sapphire-rapids-", "sapphire-rapids-sp"),
        ("config --policy linux-6.18", "linux-6.18"),
        ("compare --component XTILED", "XTILEDATA"),
    ],
)
def test_bash_completes_files_and_names(words: str, completion: str) -> None:
    script = ROOT / "share/bash-completion/completions/fpstate"
    code = f"source {script}; COMP_WORDS=(fpstate {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_fpstate"
    done = subprocess.run(
        ["bash", "-c", f"{code} 2>/dev/null; printf '%s\\n' \"${{COMPREPLY[@]}}\""],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [completion]
