from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest
from hypothesis import settings

from corpus import MISSING, corpus_folder
from fpstate import cpu as cpus
from fpstate.isa import Capabilities
from known import known
from tracees import Program

# What is kept from run to run is kept beside pytest's own cache, not in the user's.
os.environ["XDG_CACHE_HOME"] = str(pathlib.Path(__file__).parent.parent / ".pytest_cache" / "kept")

# Examples share the machine with the other workers: how long one takes says nothing.
settings.register_profile("fpstate", deadline=None)
settings.load_profile("fpstate")


@pytest.fixture
def corpus() -> pathlib.Path:
    folder = corpus_folder()
    if folder is None:
        pytest.skip(MISSING)
    return folder


@pytest.fixture(scope="module")
def caps() -> Capabilities:
    """Return what this host has."""
    return Capabilities(cpus.this_host())


@pytest.fixture
def program(caps: Capabilities) -> Iterator[Program]:
    """A process with two threads of known registers."""
    try:
        made = Program("registers", [known(caps, 1), known(caps, 2)])
    except OSError as refused:
        pytest.skip(str(refused))
    with made:
        yield made
