"""Kernel traces: what Linux's tracepoints said of extended state, in columns.

`open_trace` recognises a recording by its content and gives a `Trace`: events in order of time, in blocks that are
bounded however long the recording is.  What is concluded from them (`check`, `report`, `cost`) takes block after block.

The package needs NumPy and Numba, for files of columns PyArrow too: ``pip install 'fpstate[trace]'``.
"""

from __future__ import annotations

from fpstate.errors import CannotTell

try:
    import numpy as np  # noqa: F401
except ImportError as missing:
    raise CannotTell("fpstate.traces needs NumPy, which is missing", cure="pip install 'fpstate[trace]'") from missing
