"""From the text of a kernel to compiled code that later processes find again.

Numba caches what comes from a file, so the text is written to one, named by its content: below NUMBA_CACHE_DIR, else in
the user's cache directory.  Where neither can be written the kernel is compiled once a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, Final

import numba
import numpy as np

from fpstate.batch import source, words
from fpstate.batch.source import CONVERT_ARGUMENTS, REGISTER_ARGUMENTS, SIGRETURN_ARGUMENTS, Machine
from fpstate.isa import masks
from fpstate.xfeatures import COMPACTED

__all__ = ["compiled", "kernel"]

_ARRAYS: Final = {"used": "uint64[::1]", "modified": "uint64[::1]", "outcome": "uint8[::1]"}
_MASKS: Final = frozenset({"rfbm", "features", "keep", "add"})


def _signature(arguments: str) -> str:
    kinds = (_ARRAYS.get(name, "uint64" if name in _MASKS else "int64") for name in arguments.split(", "))
    return f"void({', '.join(kinds)})"


_ARGUMENTS: Final = {"convert": CONVERT_ARGUMENTS, "check_sigreturn": SIGRETURN_ARGUMENTS}
_SIGNATURES: Final = {name: _signature(_ARGUMENTS.get(name, REGISTER_ARGUMENTS)) for name in source.KERNELS}


def compiled(function: Callable[..., Any], signature: str | None = None, *, cached: bool = False) -> Callable[..., Any]:
    """Return *function* compiled; it lets other threads run.  Without a place for Numba's files it is not *cached*."""
    if cached:
        with contextlib.suppress(OSError, RuntimeError):
            kept: Callable[..., Any] = numba.njit(signature, nogil=True, cache=True)(function)
            return kept
    made: Callable[..., Any] = numba.njit(signature, nogil=True)(function)
    return made


def _tilecfg_accepted(address: int, palette: int, tiles: int, row: int, rows: int) -> bool:
    """Tell whether LDTILECFG accepts the 64 bytes at *address* (`fpstate.isa.values.tilecfg_supported`)."""
    if words.load8(address) != np.uint64(palette):
        return False
    if words.any_set(address + 2, 14):  # type: ignore[call-arg]  # an intrinsic has no context to give
        return False
    for t in range(16):
        columns, height = words.load16(address + 16 + 2 * t), words.load8(address + 48 + t)
        if (
            columns > np.uint64(row)
            or height > np.uint64(rows)
            or (columns == np.uint64(0)) != (height == np.uint64(0))
        ):
            return False
        if t >= tiles and columns != np.uint64(0):
            return False
    return True


@cache
def _scope() -> dict[str, Any]:
    """Return the names that the text of a kernel uses: `fpstate.batch.words`, and `fpstate.isa.masks` compiled."""
    scope: dict[str, Any] = {"ALL": np.uint64(masks.ALL), "COMPACTED": np.uint64(COMPACTED), "__name__": masks.__name__}
    scope |= {name: getattr(words, name) for name in words.__all__}
    scope |= {"u64": np.uint64, "i64": np.int64, "tilecfg_accepted": compiled(_tilecfg_accepted)}
    for name, function in vars(masks).items():
        if isinstance(function, FunctionType) and name in masks.__all__:
            scope[name] = compiled(FunctionType(function.__code__, scope, name))
    return scope


@cache
def _fingerprint() -> bytes:
    """Return what a cached kernel depends on beside its own text."""
    here = pathlib.Path(__file__).parent
    files = [pathlib.Path(masks.__file__), here / "words.py", here / "jit.py"]
    return b"".join(file.read_bytes() for file in files)


def _folder() -> pathlib.Path:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return pathlib.Path(chosen) / "fpstate"
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "fpstate" / "batch"


def _file(text: str) -> pathlib.Path:
    """Write *text* to its file, whole or not at all.

    Raises:
        OSError, RuntimeError: it cannot be written, or the user has no home.
    """
    digest = hashlib.sha256(text.encode() + _fingerprint()).hexdigest()[:24]
    path = _folder() / f"kernel_{digest}.py"
    if not path.is_file() or path.read_text("ascii") != text:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="ascii") as made:
            made.write(text)
        pathlib.Path(made.name).replace(path)
    return path


@cache
def _compile(name: str, text: str) -> Callable[..., None]:
    path = None
    with contextlib.suppress(OSError, RuntimeError):
        path = _file(text)
    module = ModuleType(f"fpstate.batch.{path.stem if path else 'kernel'}")
    module.__dict__.update({**_scope(), "__name__": module.__name__})
    exec(compile(text, str(path or "<kernel>"), "exec"), module.__dict__)  # noqa: S102 - the text is our own
    function = getattr(module, name)
    if path is not None:
        sys.modules[module.__name__] = module  # Numba imports it when it loads the cached code
    return compiled(function, _SIGNATURES[name], cached=path is not None)


def kernel(machine: Machine, name: str) -> Callable[..., None]:
    """Return kernel *name* for *machine*, compiled; later calls with an equal text find it again."""
    return _compile(name, source.module(machine, name))
