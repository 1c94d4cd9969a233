"""The XSAVE rules over arrays: a million images, or register files, in one call.

`Batch` is one machine configuration.  What its methods do is what `fpstate.isa` does, row by row, with memory that is
all mapped, in 64-bit mode at CPL 0; the tests compare the two bit by bit.

    from fpstate.batch import Batch
    from fpstate.cpu import by_name

    batch = Batch(by_name("zen4"), xcr0=0x2E7, xss=0x1800)
    registers = batch.registers(1_000_000)            # every processor in its initial configuration
    images = batch.images(1_000_000)                  # zeroed
    batch.xsave(registers, 0x2E7, images)
    outcomes = batch.xrstor(images, 0x2E7, registers)
    outcomes.any()                                    # 0 is success, else see `rule`

The package needs NumPy and Numba, and is imported only on demand: ``pip install 'fpstate[batch]'``.
"""

from __future__ import annotations

from fpstate.errors import CannotTell

try:
    import numba  # noqa: F401
    import numpy as np  # noqa: F401
except ImportError as missing:
    raise CannotTell(
        f"fpstate.batch needs NumPy and Numba, and {missing.name} is missing", cure="pip install 'fpstate[batch]'"
    ) from missing

from fpstate.batch.images import Images
from fpstate.batch.instructions import Instructions
from fpstate.batch.registers import RegisterLayout, aligned
from fpstate.batch.validation import AGAINST, Against, Validation, rule

__all__ = ["AGAINST", "Against", "Batch", "RegisterLayout", "aligned", "rule"]


class Batch(Instructions, Validation, Images):
    """A machine configuration: a CPU, its control registers and its freedoms, and what it does with rows.

    Images are arrays of uint8, (N, bytes); rows may lie further apart than they are long, and need no alignment.
    Register files are arrays of uint8, (N, `layout`.size).  See the base classes for what the methods do.

    Attributes:
        layout: where the registers lie in a row of a register file.
        caps, profile: the CPU and its freedoms.
        xcr0, xss, xfd: the control registers.
    """
