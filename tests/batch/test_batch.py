"""The package itself: what it needs, where kernels are kept, what a machine may be."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("numba", reason="fpstate[batch] is not installed")

import numpy as np

from batch.cases import machine
from fpstate.batch import Batch
from fpstate.cpu import by_name
from fpstate.errors import CannotTell, UsageError
from fpstate.isa.masks import ALL


@pytest.mark.parametrize("missing", ["numpy", "numba"])
def test_a_missing_package_is_named_with_the_command_that_adds_it(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from fpstate.errors import CannotTell\n"
        "try:\n    import fpstate.batch\nexcept CannotTell as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == f"fpstate.batch needs NumPy and Numba, and {missing} is missing; pip install 'fpstate[batch]'\n"


def kernel_files(folder: pathlib.Path, home: pathlib.Path, code: str) -> tuple[str, list[str]]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "HOME": str(home), "XDG_CACHE_HOME": ""}
    if not folder.name:
        del environment["NUMBA_CACHE_DIR"]
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout, sorted(path.name for path in folder.rglob("*.nbc"))


CODE = """
from fpstate.batch import Batch
from fpstate.cpu import by_name
batch = Batch(by_name("zen"), xcr0=3)
print(batch.xsavec(batch.registers(2), 3, batch.images(2)))
"""


def test_kernels_are_kept_for_the_next_process(tmp_path: pathlib.Path) -> None:
    said, files = kernel_files(tmp_path / "cache", tmp_path, CODE)
    assert said == "[0 0]\n"
    assert len(files) == 1
    assert kernel_files(tmp_path / "cache", tmp_path, CODE) == (said, files)


def test_kernels_work_where_nothing_can_be_kept(tmp_path: pathlib.Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    said, files = kernel_files(nowhere / "cache", nowhere / "home", CODE)
    assert (said, files) == ("[0 0]\n", [])


def test_a_machine_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="no zen4 can be in this state: #GP: XCR0 would be 0x5"):
        Batch(by_name("zen4"), xcr0=5)
    with pytest.raises(UsageError, match="IA32_XSS would be 0x100, which sets bit 8"):
        Batch(by_name("zen4"), xcr0=7, xss=0x100)
    with pytest.raises(UsageError, match="genoa has no MSR 0x1c4"):
        Batch(by_name("genoa"), xcr0=7, xfd=1 << 18)


def test_a_machine_whose_layout_is_not_known_is_refused() -> None:
    cpu = by_name("zen4").with_components((), by_name("zen4").catalogue)
    object.__setattr__(cpu, "components", {2: cpu.components[2]})
    with pytest.raises(CannotTell, match="the place of component 5 is not known for zen4"):
        Batch(cpu, xcr0=0xE7)


def test_a_row_is_a_processor_and_back() -> None:
    batch = machine("zen4")
    p = batch.processor()
    p.write("ymm15", bytes(range(32)))
    p.write("mxcsr", 0x1FA0)
    p.fcs = 0x1234
    row = batch.registers(1)[0]
    batch.layout.pack(p, row)
    view = row.view(batch.layout.dtype)[0]
    assert (view["mxcsr"], view["fcs"]) == (0x1FA0, 0x1234)
    assert bytes(view["c2"])[240:] == bytes(range(16, 32))
    again = batch.processor(row)
    assert again.read("ymm15") == bytes(range(32))
    assert (again.legacy, again.fcs) == (p.legacy, 0x1234)


def test_sections_begin_on_64_bytes_in_ascending_order() -> None:
    layout = machine("spr").layout
    assert list(layout.sections) == [2, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 17, 18]
    assert all(offset % 64 == 0 for offset, _ in layout.sections.values())
    assert layout.sections[2] == (448, 256)
    assert layout.size % 64 == 0


def test_threads_may_share_the_rows() -> None:
    from concurrent.futures import ThreadPoolExecutor

    batch = machine("zen4")
    registers, images = batch.registers(1000), batch.images(1000)
    registers[:, 160:416] = np.arange(1000, dtype=np.uint8)[:, None]
    parts = [slice(at, at + 250) for at in range(0, 1000, 250)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda part: batch.xsave(registers[part], ALL, images[part]), parts))
    alone = batch.images(1000)
    batch.xsave(registers, ALL, alone)
    assert (images == alone).all()
