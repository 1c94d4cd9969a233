"""The extended state in a real signal frame, as its handler finds it.

``measure`` runs in a helper process: it sends itself a signal.  Sources: Linux ``<asm/sigcontext.h>``
(``struct _fpx_sw_bytes``, ``struct sigcontext_64``), ``<asm/ucontext.h>``.
"""

from __future__ import annotations

import signal
import struct
from typing import Final

from fpstate.errors import CannotTell
from fpstate.linux.abi import FP_XSTATE_MAGIC1, MAGIC2_SIZE
from fpstate.linux.observe.child import Answer, asked_of_helper
from fpstate.linux.observe.libc import demand, libc
from fpstate.xfeatures import LEGACY_SIZE, SOFTWARE

__all__ = ["PROBE", "measure", "software_bytes"]

_UC_FPSTATE: Final = 40 + 8 * 23
"""Offset of ``uc_mcontext.fpstate`` in ``struct ucontext``: 23 registers and other words stand before it."""
_SA_SIGINFO: Final = 4  # <asm/signal.h>


def measure(_seconds: float) -> Answer:
    """Take a signal and read the software bytes of its frame.

    Raises:
        CannotTell: the handler did not run, or its frame holds no extended state.
        OSError: sigaction(2) fails.
    """
    import ctypes  # noqa: PLC0415 - see the package: importing it stays cheap

    class SigAction(ctypes.Structure):
        """``struct sigaction`` of glibc and of musl on x86-64."""

        _fields_ = (
            ("sa_sigaction", ctypes.c_void_p),
            ("sa_mask", ctypes.c_ubyte * 128),
            ("sa_flags", ctypes.c_int),
            ("sa_restorer", ctypes.c_void_p),
        )

    seen: list[dict[str, int | str]] = []

    def handler(_number: int, _info: int, context: int) -> None:
        at = ctypes.c_uint64.from_address(context + _UC_FPSTATE).value
        if at:
            found = software_bytes(ctypes.string_at(at, LEGACY_SIZE))
            size, end = found["sigframe_xstate_size"], found["sigframe_extended_size"]
            if isinstance(size, int) and isinstance(end, int):
                found["sigframe_magic2"] = (
                    ctypes.c_uint32.from_address(at + size).value
                    if size + MAGIC2_SIZE <= end
                    else f"xstate_size {size} leaves no room for it in extended_size {end}"
                )
            seen.append(found)

    callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(handler)
    action = SigAction(sa_sigaction=ctypes.cast(callback, ctypes.c_void_p).value, sa_flags=_SA_SIGINFO)
    library = libc()
    demand(library.sigaction(int(signal.SIGUSR1), ctypes.byref(action), None), "sigaction")
    library["raise"](int(signal.SIGUSR1))
    if not seen:
        raise CannotTell("the signal frame holds no FPU state (uc_mcontext.fpstate is NULL)")
    return seen[0]


def software_bytes(image: bytes) -> dict[str, int | str]:
    """Return what the 48 software bytes of a frame's FXSAVE *image* say; the reason instead, if nobody wrote them."""
    magic1, extended_size, xfeatures, xstate_size = struct.unpack_from("<IIQI", image, SOFTWARE)
    found: dict[str, int | str] = {"sigframe_magic1": magic1}
    if magic1 == FP_XSTATE_MAGIC1:
        found["sigframe_extended_size"] = extended_size
        found["sigframe_xfeatures"] = xfeatures
        found["sigframe_xstate_size"] = xstate_size
        return found
    why_not = f"the kernel wrote no software bytes: magic1 is {magic1:#x}, not {FP_XSTATE_MAGIC1:#x}"
    return found | dict.fromkeys(list(PROBE.how)[1:], why_not)


PROBE: Final = asked_of_helper(
    "frame",
    {
        "sigframe_magic1": "fpstate + 464 of a signal frame",
        "sigframe_extended_size": "fpstate + 468 of a signal frame",
        "sigframe_xfeatures": "fpstate + 472 of a signal frame",
        "sigframe_xstate_size": "fpstate + 480 of a signal frame",
        "sigframe_magic2": "fpstate + xstate_size of a signal frame",
    },
)
