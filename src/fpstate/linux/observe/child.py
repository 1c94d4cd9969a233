"""Helper processes: what must not happen inside the caller happens in a short-lived Python of its own.

Taking a signal frame, tracing a process, entering a private mount namespace and running a guest all change the process
that does them, and may kill it.  A helper imports one module of this package, calls its ``measure(seconds)`` and prints
the answer as one JSON object.  It ends when its parent does, and lets go of what it holds when it is told to stop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, cast

from fpstate.errors import CannotTell
from fpstate.linux.observe.fact import FAILURES, Observation, Probe, why
from fpstate.linux.observe.libc import end_with_parent

if TYPE_CHECKING:
    from subprocess import Popen

__all__ = ["Answer", "ask", "asked_of_helper", "main"]

Answer = Mapping[str, int | str]
"""What a helper found out: fact to its value, or to the reason (text) why it has none."""

_BOOTSTRAP: Final = "import sys; sys.path.insert(0, sys.argv[1]); from fpstate.linux.observe.child import main; main()"
_GRACE: Final = 5.0
"""Seconds that a helper which was told to stop gets for letting go of what it holds."""


def asked_of_helper(module: str, how: Mapping[str, str]) -> Probe:
    """Return the probe of the facts in *how* that ``measure`` of *module* answers, in a helper process."""

    def read(seconds: float) -> Iterable[Observation]:
        answer = ask(module, seconds)
        for fact, place in how.items():
            said = answer.get(fact, "the helper process did not say")
            value, why_not = (None, said) if isinstance(said, str) else (said, None)
            yield Observation(fact, value, place, why_not)

    return Probe(how, read)


def ask(module: str, seconds: float) -> Answer:
    """Run ``measure(seconds)`` of *module* of this package in a helper process.

    Raises:
        CannotTell: the helper cannot be started, died, did not answer in time, or says that it cannot tell.
    """
    import json  # noqa: PLC0415 - see the package: importing it stays cheap
    import subprocess  # noqa: PLC0415 - likewise

    if not sys.executable:
        raise CannotTell("needs a helper process, and this Python does not know its own executable")
    # -I and -S: neither the environment nor the current folder nor site-packages decides what the helper imports.
    command = [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, str(Path(__file__).parents[3]), module, str(seconds)]
    try:
        helper = subprocess.Popen(  # noqa: S603 - our own interpreter on our own text
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise CannotTell(f"the helper process cannot be started: {why(error, sys.executable)}") from error
    with helper:
        try:
            output, complaint = helper.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise CannotTell(f"the helper process gave no answer within {seconds:g} s") from None
        finally:
            _stop(helper)
    try:
        answer = json.loads(output)
        why_not = answer.pop("why_not", None)
    except (ValueError, AttributeError):
        raise CannotTell(f"the helper process {_ending(helper.returncode, complaint)}") from None
    if why_not:
        raise CannotTell(str(why_not))
    return cast("Answer", answer)


def _stop(helper: Popen[bytes]) -> None:
    """Tell a helper that is still running to let go and end; kill it and its own children if it does not."""
    import subprocess  # noqa: PLC0415 - see ask

    if helper.poll() is not None:
        return
    helper.terminate()
    try:
        helper.wait(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(helper.pid, signal.SIGKILL)


def _ending(code: int, complaint: bytes) -> str:
    """Say how a helper ended that gave no answer."""
    if code < 0:
        return f"was killed: {signal.strsignal(-code) or f'signal {-code}'}"
    lines = complaint.decode(errors="replace").strip().splitlines()
    return f"failed: {lines[-1]}" if lines else f"ended with code {code} and no answer"


def main() -> NoReturn:
    """Be a helper: ``sys.argv[2:]`` are the module whose ``measure`` to call and the seconds it has."""
    import importlib  # noqa: PLC0415 - the helper's own business
    import json  # noqa: PLC0415 - likewise

    _end_in_order()
    module, seconds = sys.argv[2], float(sys.argv[3])
    answer: Answer
    try:
        answer = importlib.import_module(f"fpstate.linux.observe.{module}").measure(seconds)
    except FAILURES as error:
        answer = {"why_not": why(error, "reading it")}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


def _end_in_order() -> None:
    """Turn a request to stop, which the kernel sends too when the parent dies, into an orderly end."""

    def stop(_number: int, _frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end must not be interrupted by a second request
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, stop)
    end_with_parent(signal.SIGTERM)
