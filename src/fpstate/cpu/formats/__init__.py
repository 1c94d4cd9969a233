"""Readers of everything that shows a CPU's leaf 0DH: dumps, logs, templates, devices.

`open_source` takes a path, `read` takes bytes; both return one `fpstate.cpu.dump.Dump` for each logical CPU.
"""

from __future__ import annotations

from fpstate.cpu.formats.registry import read
from fpstate.cpu.formats.source import MAX_INPUT, load_bytes, open_source, read_device

__all__ = ["MAX_INPUT", "load_bytes", "open_source", "read", "read_device"]
