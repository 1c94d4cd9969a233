from __future__ import annotations

import os
import pathlib

import pytest
from hypothesis import settings

from corpus import MISSING, corpus_folder

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
