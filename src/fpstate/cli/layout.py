"""``fpstate layout``: where components lie."""

from __future__ import annotations

import argparse

from fpstate.cli.source import add_output, add_source, emit, load_several
from fpstate.cpu.model import Cpu
from fpstate.errors import CannotTell, UsageError
from fpstate.layout import layouts
from fpstate.report import SCHEMA, Document
from fpstate.report import layout as report

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_source(parser, several=True)
    parser.add_argument(
        "--mask",
        metavar="MASK",
        action="append",
        help="components, as hex, as names (AVX|PKRU), or all; given twice: show the difference",
    )
    parser.add_argument("--explain", action="store_true", help="print the sum that makes each size")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the layouts of each CPU and mask, and with two of them what makes the difference."""
    cases = [(cpu, _mask(cpu, mask)) for cpu in load_several(args) for mask in args.mask or [None]]
    if len(cases) > 2:
        raise UsageError(f"at most two layouts can be held against each other, not {len(cases)}")
    shown = [(cpu, cpu.mask if mask is None else mask, layouts(cpu, mask)) for cpu, mask in cases]
    documents = [report.document(*case) for case in shown]
    texts = [report.text(*case, explain=args.explain) for case in shown]
    if len(shown) == 1:
        emit(args, documents[0], texts[0])
        return 0
    pairs = [
        (first, second)
        for first, second in zip(shown[0][2], shown[1][2], strict=True)
        if not isinstance(first, CannotTell) and not isinstance(second, CannotTell)
    ]
    document: Document = {
        "schema": SCHEMA,
        "layouts": documents,
        "difference": {first.format: report.difference_document(first, second) for first, second in pairs},
    }
    emit(args, document, "\n\n".join([*texts, "\n".join(report.difference_text(*pair) for pair in pairs)]))
    return 0


def _mask(cpu: Cpu, text: str | None) -> int | None:
    return None if text is None else cpu.catalogue.parse_mask(text, everything=cpu.mask)
