from __future__ import annotations

import pathlib

import pytest
from hypothesis import settings

from corpus import MISSING, corpus_folder

# Examples share the machine with the other workers: how long one takes says nothing.
settings.register_profile("fpstate", deadline=None)
settings.load_profile("fpstate")


@pytest.fixture
def corpus() -> pathlib.Path:
    folder = corpus_folder()
    if folder is None:
        pytest.skip(MISSING)
    return folder
