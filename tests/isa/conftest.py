"""Processors of the built-in table, ready to execute."""

from __future__ import annotations

import pytest

from fpstate import cpu as cpus
from fpstate.isa import Capabilities, Processor
from fpstate.isa import profile as profiles


@pytest.fixture(scope="session")
def capabilities() -> dict[str, Capabilities]:
    return {name: Capabilities(cpus.by_name(name)) for name in ("zen4", "sapphire-rapids", "haswell", "skylake")}


@pytest.fixture
def zen4(capabilities: dict[str, Capabilities]) -> Processor:
    p = Processor(capabilities["zen4"])
    p.xcr0, p.xss = 0x2E7, 0x1800
    return p


@pytest.fixture
def intel(capabilities: dict[str, Capabilities]) -> Processor:
    p = Processor(capabilities["sapphire-rapids"])
    p.xcr0, p.xss = p.caps.user, p.caps.supervisor
    return p


@pytest.fixture
def exact(capabilities: dict[str, Capabilities]) -> Processor:
    """Return a Sapphire Rapids whose XINUSE goes by value."""
    p = Processor(capabilities["sapphire-rapids"], profiles.find("bochs"))
    p.xcr0, p.xss = p.caps.user, p.caps.supervisor
    return p
