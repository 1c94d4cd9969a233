"""The instructions over rows of images and register files.

Nothing is copied: kernels work in place on the caller's arrays, so that a call needs one byte a row, its outcomes,
beside them.  They let other threads run; one thread uses most of the memory's bandwidth.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fpstate.batch.configuration import Column, Configuration, Outcomes, column, require, rows
from fpstate.batch.registers import Bytes
from fpstate.batch.source import CODES
from fpstate.errors import UsageError
from fpstate.isa import Fault, Memory, execute
from fpstate.isa.access import NEEDS
from fpstate.xfeatures import MIN_SIZE

__all__ = ["Instructions"]

_BASE: Final = 1 << 16
"""Where `Instructions.explain` maps an image."""


class Instructions(Configuration):
    """What the CPU does with each row.

    RFBM is EDX:EAX, as in the instruction; *wide* is REX.W, the form with 64-bit x87 pointers.  *used* is
    `fpstate.isa.Processor.used` of each row: saving needs it where the profile's XINUSE is sticky and looks at it where
    that is tracked; restoring updates it.  *modified* is XMODIFIED of rows that were last restored from the same area;
    without it they were from another.
    """

    def xsave(
        self, registers: Bytes, rfbm: int, out: Bytes, *, wide: bool = True, used: Column | None = None
    ) -> Outcomes:
        """Execute XSAVE for each row."""
        return self._save("xsave", registers, rfbm & self.xcr0, out, wide=wide, used=used)

    def xsaveopt(
        self,
        registers: Bytes,
        rfbm: int,
        out: Bytes,
        *,
        wide: bool = True,
        used: Column | None = None,
        modified: Column | None = None,
    ) -> Outcomes:
        """Execute XSAVEOPT for each row."""
        return self._save("xsaveopt", registers, rfbm & self.xcr0, out, wide=wide, used=used, modified=modified)

    def xsavec(
        self, registers: Bytes, rfbm: int, out: Bytes, *, wide: bool = True, used: Column | None = None
    ) -> Outcomes:
        """Execute XSAVEC for each row."""
        return self._save("xsavec", registers, rfbm & self.xcr0, out, wide=wide, used=used)

    def xsaves(
        self,
        registers: Bytes,
        rfbm: int,
        out: Bytes,
        *,
        wide: bool = True,
        used: Column | None = None,
        modified: Column | None = None,
    ) -> Outcomes:
        """Execute XSAVES for each row; *registers* and *modified* change where saving changes registers."""
        return self._save("xsaves", registers, rfbm & self.enabled, out, wide=wide, used=used, modified=modified)

    def _save(
        self,
        op: str,
        registers: Bytes,
        rfbm: int,
        out: Bytes,
        *,
        wide: bool,
        used: Column | None,
        modified: Column | None = None,
    ) -> Outcomes:
        if self.profile.xinuse == "sticky" and used is None:
            raise UsageError(f"XINUSE is sticky with profile {self.profile.name}", cure="give the column used")
        compacted = op in {"xsavec", "xsaves"}
        rows("images", out, self.image_size(rfbm, compacted=compacted))
        require(out.flags.writeable, "images are read-only")
        require(op != "xsaves" or registers.flags.writeable, "registers are read-only, and XSAVES may change them")
        return self._execute(op, out, rfbm, registers, wide=wide, used=used, modified=modified)

    def xrstor(
        self, images: Bytes, rfbm: int, registers: Bytes, *, wide: bool = True, used: Column | None = None
    ) -> Outcomes:
        """Execute XRSTOR for each row; the registers of one that faults do not change."""
        require(registers.flags.writeable, "registers are read-only")
        return self._execute("xrstor", images, rfbm & self.xcr0, registers, wide=wide, used=used)

    def xrstors(
        self, images: Bytes, rfbm: int, registers: Bytes, *, wide: bool = True, used: Column | None = None
    ) -> Outcomes:
        """Execute XRSTORS for each row; the registers of one that faults do not change."""
        require(registers.flags.writeable, "registers are read-only")
        return self._execute("xrstors", images, rfbm & self.enabled, registers, wide=wide, used=used)

    def _execute(
        self,
        op: str,
        images: Bytes,
        rfbm: int,
        registers: Bytes,
        *,
        wide: bool,
        used: Column | None,
        modified: Column | None = None,
    ) -> Outcomes:
        count = len(images)
        memory = (*rows("images", images, MIN_SIZE), images.shape[1])
        files = rows("registers", registers, self.layout.size)
        require(count == len(registers), f"{count} images and {len(registers)} register files")
        require(not np.may_share_memory(images, registers), "images and registers overlap")
        in_use, changed = column("used", used, count), column("modified", modified, count)
        outcome = np.zeros(count, np.uint8)
        if not self.caps.has(NEEDS[op]):
            outcome[:] = CODES["cpuid"]
            return outcome
        run = self.kernel(op, wide=wide)
        run(count, *memory, *files, in_use, changed, outcome, np.uint64(rfbm), self.image_size(rfbm))
        return outcome

    def explain(
        self, op: str, image: Bytes, rfbm: int, row: Bytes | None = None, *, wide: bool = True, used: int = 0
    ) -> Fault | None:
        """Return the fault of instruction *op* with one image, as the scalar engine finds it; None if there is none.

        Args:
            op: its mnemonic in lower case.
            image: one row.
            rfbm: EDX:EAX.
            row: the register file; None: the initial configuration.
            wide: REX.W.
            used: what is in use, where that is sticky or tracked.
        """
        require(image.ndim == 1, "image must be one row")
        p, name = self.processor(row, used), op.removesuffix("64")
        try:
            execute(p, f"{name}64" if wide else name, Memory(bytearray(image.tobytes()), _BASE), _BASE, rfbm)
        except Fault as fault:
            return fault
        return None
