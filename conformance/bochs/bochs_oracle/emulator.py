"""Bochs in a folder of its own: install it there, assemble the guest, run a table of cases.

The distribution's stable release has an older Bochs, whose XSAVEC and XSAVES are wrong; the one of Debian sid needs
sid's C library.  So sid goes into a folder, by debootstrap, and Bochs runs there by chroot.  Both want root.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Final

from bochs_oracle.errors import OracleError

__all__ = ["VERSION", "Emulator"]

VERSION: Final = "3.1+dfsg-1"
"""The package by which the goldens were made."""

_FOLDER_VARIABLE: Final = "FPSTATE_SID"
_HERE: Final = pathlib.Path(__file__).resolve().parent.parent
_DEFAULT_FOLDER: Final = _HERE.parent.parent / "build" / "sid"
_GUEST: Final = _HERE / "guest.asm"

# bochs depends on one of four displays and on two BIOSes: these are the smallest.  The guest needs none of them.
_PACKAGES: Final = ("bochs", "bochs-term", "bochsbios", "vgabios", "nasm")

_ROM: Final = 4 << 20  # from CASES of guest.asm to 4 GiB; Bochs takes no larger one
_SECONDS: Final = 900

_CONFIGURATION: Final = """\
cpu: model={model}, ignore_bad_msrs=0, reset_on_triple_fault=0
memory: guest=32, host=32
romimage: file={folder}/rom.bin
vgaromimage: file={folder}/vga.bin
display_library: rfb, options="timeout=0"
port_e9_hack: enabled=1
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
clock: sync=none
sound: waveoutdrv=dummy
log: {folder}/log.txt
"""


class Emulator:
    """Bochs, ready to run.

    Attributes:
        folder: the root of the Debian sid that holds it.
        room: bytes that a table may have.
    """

    def __init__(self) -> None:
        self.folder = pathlib.Path(os.environ.get(_FOLDER_VARIABLE) or _DEFAULT_FOLDER).resolve()
        if os.geteuid() != 0:
            raise OracleError("debootstrap and chroot need root; run this as root")
        if not (self.folder / "usr/bin/bochs").exists():
            _install(self.folder)
        self._guest = self._assemble()
        self.room = _ROM - len(self._guest)

    def version(self) -> str:
        """Return the version of the Bochs package."""
        return self._inside("dpkg-query", "--show", "--showformat=${Version}", "bochs").strip()

    def run(self, model: str, table: bytes) -> list[str]:
        """Return the lines that the guest prints when it runs *table* on the CPU *model*.

        Raises:
            OracleError: Bochs does not start or does not end, or the guest gives up.
        """
        if len(table) > self.room:
            raise OracleError(f"a table of {len(table)} bytes does not fit into {self.room}; run fewer cases")
        with tempfile.TemporaryDirectory(dir=self.folder / "tmp") as work:
            place = pathlib.Path(work)
            inside = f"/tmp/{place.name}"  # noqa: S108 - the private folder made above, as seen inside the chroot
            (place / "rom.bin").write_bytes(table.ljust(self.room, b"\0") + self._guest)
            (place / "vga.bin").write_bytes(bytes(0x8000))  # without a VGA ROM Bochs does not start
            (place / "commands").write_text("c\nq\n")  # the package is built with the debugger: continue, quit
            (place / "bochsrc").write_text(_CONFIGURATION.format(model=model, folder=inside))
            # Bochs ends with status 1 when the guest writes "Shutdown": the last line tells whether all went well
            text = self._inside("bochs", "-q", "-f", f"{inside}/bochsrc", "-rc", f"{inside}/commands", check=False)
        return _guest_lines(model, text)

    def _assemble(self) -> bytes:
        """Return the ROM."""
        with tempfile.TemporaryDirectory(dir=self.folder / "tmp") as work:
            place = pathlib.Path(work)
            inside = f"/tmp/{place.name}"  # noqa: S108 - as in run
            shutil.copy(_GUEST, place / "guest.asm")
            self._inside("nasm", "-f", "bin", "-o", f"{inside}/guest.bin", f"{inside}/guest.asm")
            return (place / "guest.bin").read_bytes()

    def _inside(self, *command: str, check: bool = True) -> str:
        """Return what *command* prints inside the folder."""
        return _run("chroot", str(self.folder), *command, check=check)


def _guest_lines(model: str, text: str) -> list[str]:
    """Return the guest's lines out of all that Bochs printed."""
    lines = [line for line in text.splitlines() if line[1:2] == " " or line in {"E", "Z"}]
    for line in lines:
        if line.startswith("! "):
            case = next((last for last in reversed(lines) if last.startswith("C ")), "before the first case")
            raise OracleError(f"{model}: exception outside the instruction under test ({case}): {line}")
    if "Z" not in lines:
        raise OracleError(f"{model}: the guest did not reach its end; Bochs said:\n{text[-2000:]}")
    return lines


def _install(folder: pathlib.Path) -> None:
    """Make *folder* a small Debian sid with Bochs in it."""
    if not shutil.which("debootstrap"):
        raise OracleError("debootstrap is missing; apt-get install debootstrap")
    print(f"installing Debian sid and Bochs into {folder} (a minute or two)", flush=True)
    part = folder.with_name(folder.name + ".part")  # so that what an interrupted run leaves is never taken for whole
    _run("rm", "-rf", "--one-file-system", str(part))
    part.parent.mkdir(parents=True, exist_ok=True)
    _run("debootstrap", "--variant=minbase", "sid", str(part))
    policy = part / "usr/sbin/policy-rc.d"  # no package may start a service
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    # no apt-get update: debootstrap has left the list of packages that it used, whose date it does not mind
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "
    _run("chroot", str(part), "sh", "-c", install + " ".join(_PACKAGES) + " && apt-get clean")
    part.rename(folder)


def _run(*command: str, check: bool = True) -> str:
    """Return what *command* prints.

    Raises:
        OracleError: it cannot be run, takes too long, or (with *check*) fails.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False, errors="replace"
        )
    except FileNotFoundError as missing:
        raise OracleError(f"{command[0]} is missing; install the package that has it") from missing
    except subprocess.TimeoutExpired as late:
        raise OracleError(f"{_words(command)} did not end within {_SECONDS} seconds") from late
    if check and done.returncode:
        raise OracleError(f"{_words(command)} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _words(command: Sequence[str]) -> str:
    """Return *command* as a person would type it."""
    return " ".join(command)
