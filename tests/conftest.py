from __future__ import annotations

import pathlib

import pytest

from corpus import MISSING, corpus_folder


@pytest.fixture
def corpus() -> pathlib.Path:
    folder = corpus_folder()
    if folder is None:
        pytest.skip(MISSING)
    return folder
