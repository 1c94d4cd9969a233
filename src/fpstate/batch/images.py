"""Images in another format, or with other components: `fpstate.image` over rows."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from fpstate.batch.configuration import Configuration, Outcomes, require, rows
from fpstate.batch.registers import Bytes
from fpstate.errors import UsageError
from fpstate.image import Format
from fpstate.isa.masks import ALL, complement
from fpstate.xfeatures import COMPACTED, MIN_SIZE, bits

__all__ = ["Images"]

_FORMS: Final = {"same": 0, "standard": 1, "compacted": 2}


class Images(Configuration):
    """Operations on images of either format, also mixed.

    Each returns the results and the outcomes; *out* is where to put the former, and may be the images themselves.  A
    row that is refused does not change.  *software* keeps bytes 464 to 511.
    """

    def convert(
        self,
        images: Bytes,
        to: Format,
        *,
        components: int | None = None,
        out: Bytes | None = None,
        software: bool = True,
    ) -> tuple[Bytes, Outcomes]:
        """Return the images in another format; `fpstate.image.convert` says what that means.

        Args:
            images: the images.
            to: "standard" or "compacted".
            components: those that get a place; what else an image holds is left out.  None: every enabled one, and an
                image with another is refused.
            out: where to put the result.
            software: keep bytes 464 to 511.
        """
        if to not in {"standard", "compacted"}:
            raise UsageError(f"there is no format {to!r}", cure="standard or compacted")
        enabled = self.enabled if to == "compacted" else self.xcr0
        mask = enabled if components is None else components
        _require_within(mask, enabled, to)
        made = self._out(images, out)
        return self._build(images, made, (0, mask), to, strict=components is None, fill=False, software=software)

    def strip(
        self, images: Bytes, mask: int, *, out: Bytes | None = None, software: bool = True
    ) -> tuple[Bytes, Outcomes]:
        """Return the images without the components in *mask*: no data, and in compacted format no place either."""
        made = self._out(images, out, images.shape[1])
        return self._build(images, made, (complement(mask & ALL & ~COMPACTED), 0), software=software)

    def add(
        self, images: Bytes, mask: int, *, out: Bytes | None = None, software: bool = True
    ) -> tuple[Bytes, Outcomes]:
        """Return the images with a place for the components in *mask* as well, in the initial configuration."""
        _require_within(mask, self.enabled, "compacted")
        return self._build(images, self._out(images, out), (ALL, mask), software=software)

    def init_fill(self, images: Bytes, *, out: Bytes | None = None, software: bool = True) -> tuple[Bytes, Outcomes]:
        """Return the images with initial bytes where XSTATE_BV is 0, and zeros where no component lies."""
        made = self._out(images, out, images.shape[1])
        return self._build(images, made, (ALL, 0), fill=True, software=software)

    def _out(self, images: Bytes, out: Bytes | None, size: int | None = None) -> Bytes:
        return self.images(len(images), size) if out is None else out

    def _build(
        self,
        images: Bytes,
        out: Bytes,
        target: tuple[int, int],
        to: Literal["same", "standard", "compacted"] = "same",
        *,
        strict: bool = False,
        fill: bool = False,
        software: bool,
    ) -> tuple[Bytes, Outcomes]:
        """Build each image with its components in the first mask of *target*, and those in the second."""
        memory = rows("images", images, MIN_SIZE)
        made = rows("out", out, MIN_SIZE)
        require(len(out) == len(images), f"{len(images)} images and {len(out)} rows for them")
        require(out.flags.writeable, "out is read-only")
        in_place = np.may_share_memory(images, out)
        require(not in_place or made == memory, "images and out overlap and are not the same")
        flags = (_FORMS[to], int(strict), int(fill), int(software))
        outcome = np.zeros(len(images), np.uint8)
        keep, add = (np.uint64(mask) for mask in target)
        scratch = np.zeros(out.shape[1] if in_place else 0, np.uint8)
        address = scratch.ctypes.data if in_place else 0
        run = self.kernel("convert")
        run(len(images), *memory, images.shape[1], *made, out.shape[1], outcome, keep, add, *flags, address)
        return out, outcome


def _require_within(components: int, enabled: int, layout: str) -> None:
    wrong = components & complement(enabled)
    if wrong:
        bit = next(bits(wrong))
        raise UsageError(f"component {bit} is not enabled for {layout} images", cure="enable it in xcr0 or xss")
