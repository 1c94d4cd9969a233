"""Outcomes kept from one process to the next, by the content of everything that they depend on.

The key is a hash of the rules, which are source files, and of the question: the masks that the component meets, and the
rules of the policy that do.  So two CPUs, or two policies, that do not differ on it share an outcome.  A cache that
cannot be written or read is no error: the outcome is worked out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from fpstate.verify.result import Outcome

__all__ = ["load", "save"]

_RULES: Final = ("linux/kernel", "linux/steps.py", "verify", "isa/masks.py", "isa/rules.py", "xfeatures.py")


@cache
def _rules() -> bytes:
    """Return a hash of the source files that an outcome depends on."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for name in _RULES:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.digest()


def _file(key: tuple[object, ...]) -> Path:
    """Return where the outcome of *key* is kept.

    Raises:
        OSError, RuntimeError: the user has no home.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fpstate" / "verify"
    return folder / f"{hashlib.sha256(_rules() + repr(key).encode()).hexdigest()[:32]}.json"


def load(key: tuple[object, ...]) -> Outcome | None:
    """Return the outcome of *key*, None if none is kept."""
    with contextlib.suppress(OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        return Outcome.of_plain(json.loads(_file(key).read_text("utf-8")))
    return None


def save(key: tuple[object, ...], outcome: Outcome) -> None:
    """Keep *outcome*, whole or not at all."""
    with contextlib.suppress(OSError, RuntimeError):
        file = _file(key)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".tmp", delete=False, encoding="utf-8") as made:
            json.dump(outcome.plain(), made)
        Path(made.name).replace(file)
