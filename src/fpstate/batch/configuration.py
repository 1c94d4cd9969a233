"""The machine configuration that all rows of a batch share, and what an array must be to hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fpstate.batch.jit import kernel
from fpstate.batch.registers import Bytes, RegisterLayout, aligned
from fpstate.batch.source import Machine
from fpstate.cpu.model import Cpu
from fpstate.errors import CannotTell, UsageError
from fpstate.isa import Capabilities, Fault, Processor, Profile, wrmsr, xsetbv
from fpstate.isa.control import IA32_XFD, IA32_XSS
from fpstate.isa.masks import ALL
from fpstate.xfeatures import LEGACY, bits

__all__ = ["NO_COLUMN", "Column", "Configuration", "Outcomes", "column", "require", "rows"]

Outcomes: TypeAlias = NDArray[np.uint8]
"""One a row: 0 is success, else a rule; see `fpstate.batch.rule`."""
Column: TypeAlias = NDArray[np.uint64]
"""One a row: a mask of components."""

NO_COLUMN: Final = np.zeros(0, np.uint64)


class Configuration:
    """A CPU, its control registers and its freedoms.

    Attributes:
        layout: where the registers lie in a row of a register file.
        caps, profile: the CPU and its freedoms.
        xcr0, xss, xfd: the control registers.
    """

    def __init__(
        self,
        cpu: Cpu | Capabilities,
        *,
        xcr0: int,
        xss: int = 0,
        xfd: int = 0,
        profile: Profile | None = None,
    ) -> None:
        self.caps = cpu if isinstance(cpu, Capabilities) else Capabilities(cpu)
        self.xcr0, self.xss, self.xfd = xcr0, xss, xfd
        p = Processor(self.caps, profile)
        self.profile = p.profile
        try:
            xsetbv(p, 0, xcr0)
            if xss:
                wrmsr(p, IA32_XSS, xss)
            if xfd:
                wrmsr(p, IA32_XFD, xfd)
        except Fault as fault:
            raise UsageError(f"no {self.caps.cpu.name} can be in this state: {fault}") from fault
        self._require_places()
        self._machines = {wide: Machine(self.caps, self.profile, xcr0, xss, xfd, wide) for wide in (False, True)}
        self._kernels: dict[tuple[str, bool], Callable[..., None]] = {}
        self.layout: RegisterLayout = self._machines[True].registers

    def _require_places(self) -> None:
        for bit in bits((self.xcr0 | self.xss) & ~LEGACY):
            component = self.caps.cpu.components.get(bit)
            user = bool(self.xcr0 >> bit & 1)
            if component is None or component.supervisor is user or (user and component.offset is None):
                raise CannotTell(f"the place of component {bit} is not known for {self.caps.cpu.name}")

    def kernel(self, name: str, *, wide: bool = True) -> Callable[..., None]:
        """Return a compiled kernel for this machine, one of `fpstate.batch.source.KERNELS`."""
        found = self._kernels.get((name, wide))
        if found is None:
            found = self._kernels[name, wide] = kernel(self._machines[wide], name)
        return found

    @property
    def enabled(self) -> int:
        """XCR0 | IA32_XSS."""
        return self.xcr0 | self.xss

    def image_size(self, components: int = ALL, *, compacted: bool = False) -> int:
        """Return the bytes of an image with the enabled components among *components*."""
        if compacted:
            return self.caps.compacted((self.xcr0 | self.xss) & components).end
        return self.caps.standard(self.xcr0 & components).end

    def images(self, rows: int, size: int | None = None) -> Bytes:
        """Return zeroed images with room for every enabled component, in either format; or of *size* bytes."""
        both = max(self.image_size(), self.image_size(compacted=True))
        return aligned(rows, (both + 63) & -64 if size is None else size)

    def registers(self, rows: int) -> Bytes:
        """Return the register files of *rows* processors in their initial configuration."""
        made = aligned(rows, self.layout.size)
        if rows:
            self.layout.pack(self.processor(), made[0])
            made[1:] = made[0]
        return made

    def processor(self, row: Bytes | None = None, used: int = 0) -> Processor:
        """Return one processor of this machine, with the registers of *row*."""
        p = Processor(self.caps, self.profile)
        p.xcr0, p.xss, p.xfd, p.used = self.xcr0, self.xss, self.xfd, used
        if row is not None:
            self.layout.unpack(row, p)
        return p


def require(holds: bool, message: str) -> None:
    """Raise UsageError unless a condition *holds*."""
    if not holds:
        raise UsageError(message)


def rows(name: str, array: Any, size: int) -> tuple[int, int]:
    """Return the address of the first row and the distance of two.

    Raises:
        UsageError: *array* is not rows of at least *size* bytes.
    """
    good = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 2
    require(good, f"{name} must be a two-dimensional array of uint8")
    require(array.shape[1] >= size, f"{name} have {array.shape[1]} bytes a row, {size} are needed")
    in_one_piece = array.strides[1] == 1 or array.shape[1] < 2
    rows_apart = len(array) < 2 or array.strides[0] >= array.shape[1]
    require(in_one_piece and rows_apart, f"{name} must have contiguous rows that do not overlap")
    return array.ctypes.data, array.strides[0]


def column(name: str, given: Any, count: int) -> Column:
    """Return a column of *count* words that a kernel may change, or `NO_COLUMN` for None.

    Raises:
        UsageError: *given* is something else.
    """
    if given is None:
        return NO_COLUMN
    good = isinstance(given, np.ndarray) and given.dtype == np.uint64 and given.shape == (count,)
    require(good and given.flags.c_contiguous and given.flags.writeable, f"{name} must be {count} writable uint64")
    checked: Column = given
    return checked
