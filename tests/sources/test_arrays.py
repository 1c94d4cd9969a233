"""All threads as arrays: views of the file where that can be, and the values that the threads have one by one."""

from __future__ import annotations

import pathlib
import struct

import pytest

import elfcores as cores
import fpstate
from fpstate.errors import CannotTell, UsageError

np = pytest.importorskip("numpy", reason="fpstate[batch] is not installed")

STATE = cores.image({"zmm3": bytes(range(64)), "zmm17": bytes(range(64, 128)), "k1": bytes(range(8))})


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "app.core"


def arrays(path: pathlib.Path, data: bytes) -> fpstate.Arrays:
    path.write_bytes(data)
    return fpstate.decode(path).as_arrays()


def test_the_images_of_a_core_are_views_of_the_file(path: pathlib.Path) -> None:
    found = arrays(path, cores.many(100, STATE, extra=cores.layout_of()))
    assert not found.copied
    assert not found.images.flags.owndata
    assert not found.images.flags.writeable
    assert (found.images.shape, found.images.strides[1]) == ((100, 2432), 1)
    assert found.tids == list(range(1000, 1100))
    assert found.images[:, 160:164].copy().view("<u4")[:, 0].tolist() == found.tids


@pytest.mark.parametrize("name", ["zmm3", "zmm17", "ymm3", "xmm3", "k1", "st0", "mxcsr", "fctrl"])
def test_a_register_has_the_values_of_the_threads(name: str, path: pathlib.Path) -> None:
    path.write_bytes(cores.many(5, STATE, extra=cores.layout_of()))
    decoded = fpstate.decode(path)
    column = decoded.as_arrays().register(name)
    assert [bytes(row).hex() for row in column] == [p.hexadecimal()[name] for p in decoded.threads]


def test_header_and_mxcsr_are_numbers(path: pathlib.Path) -> None:
    found = arrays(path, cores.many(3, STATE))
    assert found.xstate_bv.tolist() == [struct.unpack_from("<Q", STATE, 512)[0]] * 3
    assert found.mxcsr.tolist() == [0x1F80] * 3
    assert found.in_use("opmask").tolist() == [True] * 3
    assert found.in_use(0).tolist() == [False] * 3


@pytest.mark.parametrize("name", ["k1", "zmm17", "st0", "fctrl", "ymm3"])
def test_stale_bytes_of_an_initial_component_read_as_initial(name: str, path: pathlib.Path) -> None:
    stale = bytearray(STATE)
    stale[:24], stale[32:160] = b"\x55" * 24, b"\x55" * 128
    stale[512:520] = bytes(8)
    path.write_bytes(cores.core([cores.thread(1, STATE), cores.thread(2, bytes(stale)), cores.layout_of()]))
    decoded = fpstate.decode(path)
    column = decoded.as_arrays().register(name)
    assert [bytes(row).hex() for row in column] == [p.hexadecimal()[name] for p in decoded.threads]


def test_a_component_is_a_view_while_no_stale_byte_forbids_it(path: pathlib.Path) -> None:
    found = arrays(path, cores.core([cores.thread(1, STATE), cores.thread(2, cores.image()), cores.layout_of()]))
    assert np.shares_memory(found.component("Hi16_ZMM"), found.images)


def test_images_that_lie_irregularly_are_copied(path: pathlib.Path) -> None:
    between = cores.note(cores.CORE, 0x1234, bytes(40))
    threads = [cores.thread(1, STATE), cores.thread(2, STATE, extra=between), cores.thread(3, STATE)]
    found = arrays(path, cores.core([*threads, cores.layout_of()]))
    assert found.copied
    assert [bytes(row) for row in found.images] == [STATE] * 3


@pytest.mark.parametrize(
    ("second", "why"),
    [(cores.image(xcr0=7), "one size"), (STATE[:464] + b"\7" + STATE[465:], "differ in XCR0")],
    ids=["size", "xcr0"],
)
def test_threads_that_differ_in_layout_are_no_array(second: bytes, why: str, path: pathlib.Path) -> None:
    with pytest.raises(CannotTell, match=why):
        arrays(path, cores.core([cores.thread(1, STATE), cores.thread(2, second)]))


def test_fxsave_images_are_no_array(path: pathlib.Path) -> None:
    with pytest.raises(CannotTell, match="standard format"):
        arrays(path, cores.core([cores.prstatus(1), cores.note(cores.CORE, 2, STATE[:512])]))


def test_a_component_without_a_place_is_refused(path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="component 9 has no place"):
        arrays(path, cores.many(2, STATE)).component("PKRU")
