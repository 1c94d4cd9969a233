"""``fpstate calibrate``: what this CPU's XSAVE instructions cost, measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fpstate.cli.source import add_output, emit
from fpstate.errors import FpstateError

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("-o", "--output", metavar="FILE", help="write the calibration, as trace cost reads it")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, and print or write what was found."""
    from fpstate.pricing.calibration import document  # noqa: PLC0415  see fpstate.cli
    from fpstate.pricing.measure import measure  # noqa: PLC0415
    from fpstate.report.calibrate import text  # noqa: PLC0415

    calibration = measure()
    found = document(calibration)
    if args.output is not None:
        try:
            Path(args.output).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
            reason = error.strerror if isinstance(error, OSError) else error
            raise FpstateError(f"cannot write {args.output}: {reason}") from error
    emit(args, found, text(calibration))
    return 0
