"""docs/reference/json.md is the contract of --json: each field that a verb prints, with its type, and no other.

In its tables ``[]`` is any item of a list and ``*`` any key.
"""

from __future__ import annotations

import json
import pathlib
import re
from dataclasses import replace
from typing import Any, Final

import pytest

import elfcores as cores
import fpstate
from fpstate import cli
from fpstate.image import Difference
from fpstate.isa import Capabilities
from fpstate.linux.check import Check, judge
from fpstate.linux.observe import Observation
from fpstate.linux.poke import poke
from fpstate.pricing import calibration
from fpstate.report import check as check_report
from fpstate.report import poke as poke_report
from known import known
from tracees import Program

PAGE: Final = pathlib.Path(__file__).parent.parent / "docs" / "reference" / "json.md"

PASTE: Final = """\
x86/fpu: xstate_offset[2]:  576, xstate_sizes[2]:  256
x86/fpu: xstate_offset[9]:  832, xstate_sizes[9]:    8
x86/fpu: Enabled xstate features 0x207, context size is 840 bytes, using 'compacted' format.
"""
UNEXPECTED: Final = """\
cpus = 1
tasks = 1
[[step]]
do = "switch_from_idle"
cpu = 0
task = 0
expect = ["ISO-RUN"]
"""
RUN: Final = """\
 vmm-901 [000] d..1. 100.000100: x86_fpu_regs_activated: x86/fpu: 0xffff888101a2b440 load: 0 xfeatures: 2 xcomp_bv: 80000000000018e7
 vmm-901 [000] ..... 100.000101: kvm_fpu: load
 vmm-901 [000] d..2. 100.000350: x86_fpu_regs_deactivated: x86/fpu: 0xffff888101a2b440 load: 1 xfeatures: 2 xcomp_bv: 80000000000018e7
  sh-733 [000] d..2. 100.000610: x86_fpu_regs_deactivated: x86/fpu: 0xffff8881036cd0c0 load: 1 xfeatures: 2 xcomp_bv: 80000000000008e7
"""  # noqa: E501 - lines as the kernel prints them
"""A guest plugged in, its thread switched out, then another: the room of a CPU without PKRU, which Zen 4 has."""
DEADLY: Final = """\
["deadly"]
base = "linux-6.18"
user = ["FP", "SSE", "YMM", "OPMASK", "PKRU"]
user_dynamic = []
"""
"""XSETBV with a part of AVX-512 faults: the kernel dies."""
LEAKY: Final = '{"leafD": {"0": [7, 832, 2696, 0], "1": [0, 2568, 0, 0], "2": [256, 576, 0, 0]}}'

SAMPLES: Final[dict[str, list[str]]] = {
    "fpstate compare": [
        "compare --cpu zen4",
        "compare --cpu zen4 --cmdline noxsave",
        "compare leaky.json",
        "compare --cpu zen4 --no-verify --trace run.txt",
    ],
    "fpstate trace cost": ["trace cost run.txt --cpu zen4", "trace cost run.txt --cpu zen4 --policies deadly.toml"],
    "fpstate config": [
        "config --cpu sapphire-rapids",
        "config --cpu core2",
        "config template.json --base sapphire-rapids",
    ],
    "fpstate layout, one layout": ["layout --cpu sapphire-rapids", "layout paste.txt"],
    "fpstate layout, two layouts": ["layout --cpu zen4 --cpu sapphire-rapids"],
    "fpstate explain, an instruction": [
        "explain image.bin --op xrstor64 --cpu zen4",
        "explain image.bin --op xrstors64 --cpu zen4",
        "explain damaged.bin --op xrstor --cpu zen4",
    ],
    "fpstate explain, the kernel": [
        "explain image.bin --op ptrace --cpu zen4",
        "explain damaged.bin --op ptrace --cpu zen4",
    ],
    "fpstate decode": [
        "decode app.core",
        "decode damaged.core",
        "decode plain.core",
        "decode app.core --reg k1",
        "decode image.bin",
    ],
    "fpstate decode --reg --as": ["decode app.core --reg k1,xmm3 --as u8", "decode app.core --reg ymm0 --as f64"],
    "fpstate decode --bytes": ["decode app.core --bytes", "decode plain.core --bytes"],
    "fpstate show": ["show image.bin --cpu zen4", "show initial.bin --cpu zen4"],
    "fpstate convert": ["convert image.bin --cpu zen4 --to compacted -o made.bin"],
    "fpstate diff": ["diff image.bin initial.bin --cpu zen4", "diff image.bin image.bin --cpu zen4"],
    "fpstate verify": [
        "verify --policy linux-6.18 --component user-dynamic --method induction --cpus 1 --tasks 2",
        "verify --policy linux-6.18 --component user-dynamic --method proof",
        "verify --policy linux-6.18 --component user-dynamic --method exhaustive --cpus 2 --tasks 3",
    ],
    "fpstate verify --history": ["verify --history"],
    "fpstate verify --mutations": ["verify --mutations Core.kernel_fpu_begin"],
    "fpstate simulate": [
        "simulate guest-xfd-race",
        "simulate sigreturn-tiles",
        "simulate guest-cet",
        "simulate unexpected.toml",
    ],
    "fpstate simulate --list": ["simulate --list"],
    "fpstate simulate --steps": ["simulate --steps"],
    "fpstate lint": ["lint leaky.json", "lint paste.txt"],
    "fpstate cpus": ["cpus"],
    "fpstate policies": ["policies"],
    "fpstate xfeatures": ["xfeatures"],
}
"""Commands, by section of json.md, whose documents hold every field between them."""
TEMPLATE: Final = """\
{"cpuid_modifiers": [{"leaf": "0xd", "subleaf": "0x1", "flags": 1,
 "modifiers": [{"register": "ebx", "bitmap": "0b00000000000000000000000000000001"}]}]}
"""
"""A compacted size that no CPU gives: the kernel gives up XSAVE."""

CONFORMS: Final[dict[str, Any]] = {
    "mask": lambda value: isinstance(value, str) and re.fullmatch(r"0x[0-9a-f]+", value),
    "text": lambda value: isinstance(value, str),
    "number": lambda value: type(value) is int,
    "real": lambda value: isinstance(value, float),
    "bool": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "document": lambda value: isinstance(value, dict) and "schema" in value,
    "list of texts": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "list of objects": lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
    "list of documents": lambda value: isinstance(value, list) and all("schema" in item for item in value),
}


def documented(section: str) -> dict[tuple[str, ...], str]:
    """Return the types that a section of json.md gives to paths; ``*`` is any key, ``[]`` any item."""
    text = PAGE.read_text(encoding="utf-8")
    part = text.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", part, re.MULTILINE)
    return {tuple(path.replace("[]", ".[]").split(".")): kind.strip() for path, kind in rows}


def matching(path: tuple[str, ...], fields: dict[tuple[str, ...], str]) -> tuple[str, ...] | None:
    return next(
        (f for f in fields if len(f) == len(path) and all(a in {"*", b} for a, b in zip(f, path, strict=True))), None
    )


def hold(value: Any, path: tuple[str, ...], fields: dict[tuple[str, ...], str]) -> set[tuple[str, ...]]:
    """Check a document's value against *fields* and return those that it used."""
    field = matching(path, fields)
    used = {field} if field else set()
    if field:
        kinds = fields[field].split(" or ")
        assert any(CONFORMS[kind](value) for kind in kinds), f"{'.'.join(path)} is {value!r}, not {fields[field]}"
        if "document" in fields[field]:
            return used
    if isinstance(value, dict):
        assert field or value or not path, f"{'.'.join(path)} is empty and not documented"
        for key, inner in value.items():
            used |= hold(inner, (*path, key), fields)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            used |= hold(inner, (*path, "[]"), fields)
    else:
        assert field, f"{'.'.join(path)} is not documented"
    return used


@pytest.mark.parametrize("section", SAMPLES)
def test_json_page_names_every_field_and_its_type(
    section: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("paste.txt", PASTE),
        ("leaky.json", LEAKY),
        ("template.json", TEMPLATE),
        ("unexpected.toml", UNEXPECTED),
        ("run.txt", RUN),
        ("deadly.toml", DEADLY),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    initial = fpstate.encode_image(fpstate.cpu_by_name("zen4"), {})
    (tmp_path / "initial.bin").write_bytes(initial)
    (tmp_path / "image.bin").write_bytes(fpstate.encode_image(fpstate.cpu_by_name("zen4"), {"k1": b"\x01" * 8}))
    (tmp_path / "damaged.bin").write_bytes(initial[:512] + b"\0\x08" + initial[514:])
    threads = [
        cores.thread(1, cores.image()),
        cores.thread(2, cores.image(), extra=cores.note(cores.LINUX, 0x204, bytes(8))),
    ]
    (tmp_path / "app.core").write_bytes(cores.core([*threads, cores.layout_of()]))
    (tmp_path / "damaged.core").write_bytes(cores.core(threads)[:-100])
    (tmp_path / "plain.core").write_bytes(cores.core([cores.prstatus(1), cores.note(cores.CORE, 2, bytes(512))]))
    fields = documented(section)
    used: set[tuple[str, ...]] = set()
    for command in SAMPLES[section]:
        cli.main([*command.split(), "--json"])
        used |= hold(json.loads(capsys.readouterr().out), (), fields)
    assert used == set(fields), "json.md names fields that no document has"


@pytest.mark.host
def test_json_page_names_every_field_of_a_poke() -> None:
    """The kernel keeps what was written (tests/cli/test_poke.py): what it keeps otherwise is put in."""
    try:
        child = Program("registers", [known(Capabilities(fpstate.this_host()), 1)])
    except (OSError, fpstate.FpstateError) as refused:
        pytest.skip(str(refused))
    mxcsr = fpstate.REGISTERS["mxcsr"]
    with child:
        done = poke(child.pid, {"mxcsr": b"\xa0\x1f\0\0"}, Capabilities(fpstate.this_host()), dry_run=True)
    different = replace(done, differences=(Difference(mxcsr, bytes(4), bytes(4)),))
    fields = documented("fpstate poke")
    assert hold(poke_report.document(different), (), fields) == set(fields)


def test_json_page_names_every_field_of_a_calibration() -> None:
    fields = documented("fpstate calibrate")
    assert hold(calibration.document(calibration.shipped()), (), fields) == set(fields)


def test_json_page_names_every_field_of_a_check() -> None:
    config = fpstate.boot(fpstate.cpu_by_name("zen4"), fpstate.policy("linux-6.18"))
    seen = [
        Observation("boot_log", ("a line",), "/dev/kmsg", None),
        Observation("xcr0", 0x2E7, "XGETBV(0)", None),
        Observation("kvm_cpuid_d0", "eax=2e7", "KVM_GET_SUPPORTED_CPUID", None),
        Observation("minsigstksz", None, "AT_MINSIGSTKSZ", "the auxiliary vector lacks it"),
    ]
    check = Check(config=config, release="6.18.1", remark=None, rows=judge(config, seen))
    fields = documented("fpstate config --check")
    assert hold(check_report.document(check), (), fields) == set(fields)
