"""``fpstate encode``: an image from registers by name."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fpstate import image as images
from fpstate import registers as regs
from fpstate.cli.image import assignments, read_as, read_image, write_image
from fpstate.cli.source import add_source, load
from fpstate.errors import UnreadableInput
from fpstate.isa import Capabilities
from fpstate.vectors import fields

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_source(parser)
    parser.add_argument(
        "--set", metavar="REG=VALUE", action="append", default=[], help="a register; may be given again"
    )
    parser.add_argument("--registers", metavar="JSON", help="registers, as 'fpstate show --json' prints them")
    parser.add_argument(
        "--image", metavar="IMAGE", help="what the other registers hold (default: their initial values)"
    )
    parser.add_argument("--format", choices=("standard", "compacted"), help="standard (default) or compacted")
    parser.add_argument("--mask", metavar="MASK", help="give a place to these components")
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="where to write (default: standard output)")


def run(args: argparse.Namespace) -> int:
    """Write the image."""
    caps = Capabilities(load(args))
    start = None if args.image is None else read_as(args.image, caps)
    layout = args.format or (start.format if start is not None else "standard")
    components = None
    if args.mask is not None:
        everything = caps.user | (caps.supervisor if layout == "compacted" else 0)
        components = caps.cpu.catalogue.parse_mask(args.mask, everything=everything)
    elif start is not None and start.format == layout:
        components = start.components
    listed, in_use = _from_file(args.registers, caps)
    named = assignments(args.set, caps.sizes)
    if in_use is not None:
        in_use |= start.xstate_bv if start is not None else 0
        for name in named:
            in_use |= regs.find(name, caps.sizes).components
    values = {**listed, **named}
    write_image(args.output, images.encode(caps, values, layout, components=components, start=start, in_use=in_use))
    return 0


def _from_file(path: str | None, caps: Capabilities) -> tuple[dict[str, bytes], int | None]:
    """Read the registers of a JSON document, and its XSTATE_BV if it has one.

    Raises:
        UnreadableInput: it is none, or has no field ``registers``.
    """
    if path is None:
        return {}, None
    try:
        document: Any = json.loads(read_image(path).decode("utf-8-sig"), object_pairs_hook=fields.once)
    except RecursionError as error:
        raise UnreadableInput(f"{path} is nested too deeply") from error
    except UnreadableInput:
        raise
    except ValueError as error:
        raise UnreadableInput(f"{path} is not JSON: {error}") from error
    listed = document.get("registers") if isinstance(document, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(value, str) for value in listed.values()):
        raise UnreadableInput(f'{path} must hold {{"registers": {{"xmm3": "hex", ...}}}}')
    in_use = document.get("xstate_bv")
    values = assignments([f"{name}={value}" for name, value in listed.items()], caps.sizes)
    if in_use is None:
        return values, None
    mask = fields.hex_number(in_use, "xstate_bv")
    beyond = mask & ~(caps.user | caps.supervisor)
    if beyond:
        raise UnreadableInput(
            f"{path}: xstate_bv has {caps.cpu.catalogue.names(beyond)}, which {caps.cpu.name} has not"
        )
    return values, mask
