"""What XRSTOR, XRSTORS and Linux would say to each image."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from fpstate.batch import linux
from fpstate.batch.configuration import NO_COLUMN, Configuration, Outcomes, require, rows
from fpstate.batch.registers import Bytes
from fpstate.batch.source import CODES, FX_ONLY
from fpstate.errors import UsageError
from fpstate.isa import RULES, Rule
from fpstate.isa.access import NEEDS
from fpstate.isa.masks import ALL, complement, disabled
from fpstate.linux import copyin
from fpstate.linux.kvm import XSAVE_IOCTL_SIZE
from fpstate.xfeatures import LEGACY_SIZE, MIN_SIZE

__all__ = ["AGAINST", "Against", "Validation", "rule"]

Against = Literal["xrstor", "xrstors", "ptrace", "kvm", "sigreturn"]
AGAINST: Final = ("xrstor", "xrstors", "ptrace", "kvm", "sigreturn")
"""What `Validation.validate` can ask."""


def _sigreturn_codes() -> Outcomes:
    """Return, by the code of the kernel, the code of the rule of Linux."""
    codes = np.zeros(256, np.uint8)
    own = {"mxcsr": "sigreturn-mxcsr", "page-read": "sigreturn-read"}
    for name, code in CODES.items():
        codes[code] = linux.CODES[own.get(name, "sigreturn-header")]
    for index, name in enumerate(("sigreturn-magic1", "sigreturn-size", "sigreturn-magic2")):
        codes[FX_ONLY + index] = linux.CODES[name]
    return codes


_SIGRETURN: Final = _sigreturn_codes()


def rule(code: int, against: Against = "xrstor") -> Rule | None:
    """Return the rule that an outcome stands for; None for success.

    Args:
        code: the outcome.
        against: what `Validation.validate` was asked; what an instruction returns is of "xrstor".
    """
    rules = list((copyin.RULES if against in {"ptrace", "kvm", "sigreturn"} else RULES).values())
    if not 0 <= code <= len(rules):
        raise UsageError(f"{code} is no outcome of {against}")
    return rules[code - 1] if code else None


class Validation(Configuration):
    """Checks of images that change nothing."""

    def validate(
        self,
        images: Bytes,
        against: Against,
        *,
        rfbm: int = ALL,
        features: int | None = None,
        size: int | None = None,
        supported_xcr0: int | None = None,
    ) -> Outcomes:
        """Return the first rule that each image breaks.

        Args:
            images: the images; for "sigreturn" with magic2 behind them.
            against: "xrstor" and "xrstors": a processor in its initial configuration; "ptrace", "kvm" and "sigreturn":
                the rules of `fpstate.linux.copyin`.
            rfbm: EDX:EAX of the instruction.
            features: ``user_xfeatures`` of the task or the vCPU; None: XCR0 without what XFD disables.
            size: bytes of the regset, of KVM_CAP_XSAVE2, or the task's ``user_size``; None: as Linux computes them.
            supported_xcr0: what KVM supports; None: XCR0.
        """
        if against in {"xrstor", "xrstors"}:
            return self._by_instruction(images, against, rfbm)
        chosen = self.xcr0 & complement(disabled(self.xcr0, self.xfd)) if features is None else features & ALL
        require(size is None or size >= 0, f"size must not be negative: {size}")
        if against == "sigreturn":
            return self._sigreturn(images, chosen & self.xcr0, size)
        if against == "ptrace":
            return self._ptrace(images, chosen, self.image_size() if size is None else size)
        if against != "kvm":
            raise UsageError(f"images cannot be validated against {against!r}", cure=", ".join(AGAINST))
        size = max(XSAVE_IOCTL_SIZE, self.image_size(chosen)) if size is None else size
        return self._kvm(images, chosen, size, self.xcr0 if supported_xcr0 is None else supported_xcr0)

    def _by_instruction(self, images: Bytes, op: str, rfbm: int) -> Outcomes:
        memory = (*rows("images", images, MIN_SIZE), images.shape[1])
        if not self.caps.has(NEEDS[op]):
            return np.full(len(images), CODES["cpuid"], np.uint8)
        mask = rfbm & (self.xcr0 if op == "xrstor" else self.enabled)
        outcome = np.zeros(len(images), np.uint8)
        run = self.kernel(f"check_{op}")
        run(len(images), *memory, 0, 0, NO_COLUMN, NO_COLUMN, outcome, np.uint64(mask), self.image_size(mask))
        return outcome

    def _ptrace(self, images: Bytes, features: int, size: int) -> Outcomes:
        rows("images", images, 0)
        for broken, name in ((images.shape[1] % 8, "ptrace-length"), (images.shape[1] < size, "ptrace-size")):
            if broken:
                return np.full(len(images), linux.CODES[name], np.uint8)
        return self._copyin(images, "ptrace-length", 0, ALL, features)

    def _kvm(self, images: Bytes, features: int, size: int, supported: int) -> Outcomes:
        rows("images", images, 0)
        if images.shape[1] < size:
            return np.full(len(images), linux.CODES["kvm-size"], np.uint8)
        return self._copyin(images, "kvm-size", self.xfd, supported, features)

    def _copyin(self, images: Bytes, first: str, cleared: int, supported: int, features: int) -> Outcomes:
        memory = rows("images", images, MIN_SIZE)
        outcome = np.zeros(len(images), np.uint8)
        bad_mxcsr = 0xFFFFFFFF & complement(self.profile.mxcsr_mask)
        masks = (np.uint64(mask) for mask in (cleared, supported, features, bad_mxcsr))
        linux.copyin_kernel()(len(images), *memory, outcome, *masks, linux.CODES[first])
        return outcome

    def _sigreturn(self, images: Bytes, features: int, size: int | None) -> Outcomes:
        user_size = self.image_size(features) if size is None else size
        memory = (*rows("images", images, 0), images.shape[1])
        if images.shape[1] < LEGACY_SIZE:
            return np.full(len(images), linux.CODES["sigreturn-read"], np.uint8)
        outcome = np.zeros(len(images), np.uint8)
        run = self.kernel("check_sigreturn")
        run(len(images), *memory, 0, 0, NO_COLUMN, NO_COLUMN, outcome, np.uint64(features), user_size)
        return np.take(_SIGRETURN, outcome)
