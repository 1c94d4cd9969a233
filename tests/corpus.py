"""Where the real inputs are: FPSTATE_CORPUS names a folder with cpuid/, bootlogs/, realkernel/, ..."""

from __future__ import annotations

import os
import pathlib

import pytest

MISSING = "FPSTATE_CORPUS is not set: the folder of real inputs is missing"


def corpus_folder() -> pathlib.Path | None:
    folder = os.environ.get("FPSTATE_CORPUS")
    return pathlib.Path(folder) if folder else None


def corpus_files(*patterns: str) -> list[object]:
    """Return one pytest parameter for each file that matches, or one that skips where there is no corpus."""
    folder = corpus_folder()
    if folder is None:
        return [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="no-corpus")]
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    assert files, f"the corpus has no {' or '.join(patterns)}"
    return [pytest.param(file, id=str(file.relative_to(folder))) for file in files]
