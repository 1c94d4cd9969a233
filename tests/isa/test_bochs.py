"""Recordings of Bochs 3.1 in ring 0 (``make goldens``; conformance/bochs/README.md: how, and what Bochs does wrong).

A line without a tag must be what the model says.  A tag ``free-...`` names a freedom of the architecture: then only
what both must have in common is compared.  Any other tag is a defect of Bochs, which the rule beside it outvotes.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fpstate.vectors import result
from fpstate.vectors.fields import Document

FILES = sorted((Path(__file__).parent / "goldens").glob("bochs_*.jsonl.gz"))

COMPARED = {
    "free-page-fault": ("vector",),
    "free-partial-restore": ("vector", "error_code", "address"),
    "free-fault-order": (),
    "free-osfxsr": (),
    "free-alignment-check": (),
    "free-fxsave-probe": (),
    "free-la57": (),
}
"""The fields of a fault that must agree; the rest of the result is free."""

OTHER_ORDER = ["fault vector is #GP, must be #PF"]
"""Bochs looks at MXCSR before it reaches for a page that is missing (free-fault-order, beside another freedom)."""

OUTVOTED = {
    "tile-in-use": "SDM volume 1, 13.6",
    "tilecfg-swapped": "SDM volume 2, LDTILECFG",
    "tile-rows": "CPUID.(1DH,1): 16 rows",
    "tiles-cleared": "SDM volume 1, 13.8: outside RFBM nothing changes",
    "xstate-bv-63": "a Zen 4's #GP",
    "xinuse-mxcsr": "SDM volume 1, 13.6; a Zen 4",
}


def _lines(path: Path) -> Iterator[Document]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _fault(line: Document, fields: tuple[str, ...]) -> Document:
    fault = line["result"]["fault"] or {}
    return {"case": line["case"], "result": {"fault": {key: fault.get(key) for key in fields}}}


def test_there_are_recordings() -> None:
    assert len(FILES) == 7


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.split(".")[0])
def test_the_model_does_what_bochs_did(path: Path) -> None:
    compared, wrong = 0, []
    for line in _lines(path):
        tag = line.get("defect")
        if tag is None:
            differences = result.check(line)
        elif COMPARED.get(tag):
            differences = result.check(_fault(line, COMPARED[tag]))
            differences = [] if differences == OTHER_ORDER else differences
        else:
            continue
        compared += 1
        if differences:
            wrong.append((line["case"]["id"], differences))
    assert wrong == []
    assert compared > 200


@pytest.mark.parametrize("defect", OUTVOTED)
def test_a_known_defect_is_one_that_the_model_has_not(defect: str) -> None:
    tagged = [line for path in FILES for line in _lines(path) if line.get("defect") == defect]
    assert tagged
    assert any(result.check(line) for line in tagged), OUTVOTED[defect]


def test_no_tag_is_unknown() -> None:
    tags = {line["defect"] for path in FILES for line in _lines(path) if "defect" in line}
    assert tags <= {*COMPARED, *OUTVOTED}
