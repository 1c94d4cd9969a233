"""Real trace.dat files, and what is known to be in them."""

from __future__ import annotations

import json
import pathlib

import pytest

np = pytest.importorskip("numpy", reason="NumPy is missing: pip install 'fpstate[trace]'")

from corpus import corpus_files  # noqa: E402
from fpstate.traces.columns import CODES, Block  # noqa: E402
from fpstate.traces.open import open_trace  # noqa: E402
from fpstate.traces.trace import Trace  # noqa: E402

FILES = corpus_files("traces/*.dat")


def counts(trace: Trace, rows: Block) -> dict[str, int]:
    return {trace.names[code]: n for code, n in enumerate(np.bincount(rows.code).tolist()) if n}


def everything(path: pathlib.Path) -> tuple[Trace, Block]:
    trace = open_trace(str(path))
    return trace, Block.join(list(trace.blocks()))


@pytest.mark.parametrize("path", FILES)
def test_events_are_counted_as_expected(path: pathlib.Path) -> None:
    expected = json.loads((path.parent / "expected.json").read_text(encoding="utf-8"))[path.name]
    trace, rows = everything(path)
    assert trace.format == f"trace.dat v{expected['version']} ({expected['compression']})"
    assert trace.clock == expected["buffers"][0][1]
    assert len(rows) == expected["events"]
    assert counts(trace, rows) == dict(expected["top"])
    assert len(np.unique(rows.cpu)) == expected["cpus_with_data"]
    assert not trace.damage


@pytest.mark.parametrize("path", FILES)
def test_loads_and_unloads_of_kvm_take_turns(path: pathlib.Path) -> None:
    _, rows = everything(path)
    fpu = rows.take(rows.code == CODES["kvm_fpu"])
    for pid in np.unique(fpu.pid):
        flags = fpu.flag[fpu.pid == pid]
        assert (flags[1:] != flags[:-1]).all()


@pytest.mark.parametrize("path", FILES)
def test_the_file_names_the_threads_and_the_kernel(path: pathlib.Path) -> None:
    trace, rows = everything(path)
    assert trace.facts.release == "6.5.0-18-generic"
    assert {trace.comms[pid] for pid in np.unique(rows.pid).tolist()} == {"qemu-system-x86"}
