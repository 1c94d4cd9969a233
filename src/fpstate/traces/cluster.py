"""Recordings analysed on a cluster, by Dask's scheduler: futures over `fpstate.traces.analyse.work`.

Each part of a recording is worked on by whoever is free; the analyses come back and are joined here in the parts'
order.  The workers must find the files under the same paths and have this fpstate.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from fpstate.errors import CannotTell, UnreadableInput
from fpstate.traces.analyse import Analysed, Analysis, Part, joined, work

__all__ = ["connected", "run_parts"]

A = TypeVar("A", bound=Analysis)

_PATIENCE: Final = 30
"""Seconds to wait for the scheduler."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Give a client of the scheduler at *address* (``tcp://host:8786``), and part from it at the end.

    Raises:
        CannotTell: Dask's scheduler is not installed.
        UnreadableInput: nothing answers there.
    """
    try:
        distributed: Any = importlib.import_module("distributed")  # here: it takes longer than most analyses
    except ImportError as missing:
        cure = "pip install 'fpstate[cluster]'"
        raise CannotTell("--cluster needs Dask's distributed, which is missing", cure=cure) from missing
    try:
        client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise UnreadableInput(
            f"no scheduler answers at {address}", cure="start one with 'dask scheduler', workers with 'dask worker'"
        ) from error
    with client:
        yield client


def run_parts(path: str, parts: Sequence[Part], factory: Callable[[], A], client: Any) -> Analysed[A]:
    """Analyse the parts of one recording.

    Args:
        path: what to call it.
        parts: of `parts_of`.
        factory: makes an analysis; it is sent to the workers, as the analyses are sent back.
        client: of `connected`.

    Raises:
        FpstateError: a part cannot be read.
        UnreadableInput: the cluster cannot do it.
    """
    futures = [client.submit(work, part, factory, pure=False) for part in parts]
    return joined(path, _results(futures))


def _results(futures: list[Any]) -> Iterator[Any]:
    """Give the results in order, and forget each here and there once it was given."""
    while futures:
        future = futures.pop(0)
        try:
            result = future.result()
        except Exception as error:
            raise UnreadableInput(
                f"the cluster failed: {type(error).__name__}: {error}", cure="its workers need this version of fpstate"
            ) from error
        yield result
