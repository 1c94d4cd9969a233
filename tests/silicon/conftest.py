from __future__ import annotations

from collections.abc import Iterator

import pytest

from fpstate.cpu import this_host
from fpstate.errors import UnreadableInput
from fpstate.silicon import Executor


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    try:
        executor = Executor()
    except UnreadableInput as refused:
        pytest.skip(str(refused))
    with executor:
        yield executor


@pytest.fixture
def zen4(executor: Executor) -> Executor:
    """The executor, on a CPU for which the recordings of AMD Zen 4 hold."""
    cpu = this_host()
    family = (cpu.leaves[1, 0][0] >> 8 & 0xF) + (cpu.leaves[1, 0][0] >> 20 & 0xFF)
    amd = cpu.leaves[0, 0][1] == int.from_bytes(b"Auth", "little")
    if not amd or family != 0x19 or executor.xcr0 != 0xE7:
        pytest.skip("the expected values were recorded on an AMD Zen 4 with XCR0 0xE7, and this CPU is another")
    return executor
