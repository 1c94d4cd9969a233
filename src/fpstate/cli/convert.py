"""``fpstate convert``: the same state in another format, or with other components."""

from __future__ import annotations

import argparse

from fpstate import image as images
from fpstate.cli.image import other_cpu, read_as, write_image
from fpstate.cli.source import add_output, add_source, emit, load
from fpstate.cli.streams import complain
from fpstate.errors import UsageError
from fpstate.isa import Capabilities
from fpstate.report import convert as report

__all__ = ["INTERMIXED", "configure", "run"]

INTERMIXED = True
"""The CPU's FILE may come after options."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("image", metavar="IMAGE", help="the bytes of an XSAVE area; - is standard input")
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="where to write (default: standard output)")
    parser.add_argument("--to", metavar="FORMAT", choices=("standard", "compacted"), help="standard or compacted")
    parser.add_argument("--mask", metavar="MASK", help="give a place to these components and no others")
    parser.add_argument("--strip", metavar="MASK", help="leave these components out")
    parser.add_argument("--add", metavar="MASK", help="give these components a place, in their initial configuration")
    parser.add_argument("--init-fill", action="store_true", help="write initial bytes where XSTATE_BV is 0")
    parser.add_argument("--for-cpu", metavar="NAME", help="lay the image out for this CPU: a name, a file, or host")
    add_source(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Write the converted image; with --json also print what was done, which needs --output."""
    if args.json and args.output == "-":
        raise UsageError("--json and the image cannot both go to standard output", cure="give --output FILE")
    cpu = load(args)
    source = read_as(args.image, cpu)
    made = _converted(args, source)
    write_image(args.output, made.data)
    if args.output != "-":
        emit(args, report.document(source, made), report.text(source, made))
    else:
        complain(report.text(source, made))
    return 0


def _converted(args: argparse.Namespace, source: images.Image) -> images.Image:
    """Apply what the arguments ask for: strip, then add, then the rest.

    Raises:
        UsageError: the arguments contradict each other.
    """
    caps = source.caps
    if args.mask is not None and (args.strip or args.add):
        raise UsageError("--mask says which components have a place: --strip and --add cannot change that")

    def mask(text: str | None) -> int:
        return 0 if text is None else caps.cpu.catalogue.parse_mask(text, everything=source.components)

    both = mask(args.strip) & mask(args.add)
    if both:
        raise UsageError(f"--strip and --add both name {caps.cpu.catalogue.names(both)}")
    if args.strip:
        source = images.read(images.strip(source, mask(args.strip)), caps)
    if args.add:
        source = images.read(images.add(source, mask(args.add)), caps)
    components = None if args.mask is None else mask(args.mask)
    target = Capabilities(other_cpu(args.for_cpu, caps.cpu)) if args.for_cpu else caps
    data = images.convert(source, args.to or source.format, components=components, caps=target)
    made = images.read(data, target)
    return images.read(images.init_fill(made), target) if args.init_fill else made
