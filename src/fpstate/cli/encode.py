"""``fpstate encode``: an image from registers by name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from fpstate import image as images
from fpstate import registers as regs
from fpstate.cli.image import read_as, read_image, write_image
from fpstate.cli.source import add_source, load
from fpstate.errors import UnreadableInput, UsageError
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
    values = {**_from_file(args.registers, caps.sizes), **_assignments(args.set, caps.sizes)}
    write_image(args.output, images.encode(caps, values, layout, components=components, start=start))
    return 0


def _assignments(texts: list[str], sizes: Mapping[int, int]) -> dict[str, bytes]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text[:40]!r} must be REG=VALUE")
        register = regs.find(name.strip(), sizes)
        if register.name in found:
            raise UsageError(f"{register.name} is set twice")
        found[register.name] = register.parse(value)
    return found


def _from_file(path: str | None, sizes: Mapping[int, int]) -> dict[str, bytes]:
    """Read the registers of a JSON document.

    Raises:
        UnreadableInput: it is none, or has no field ``registers``.
    """
    if path is None:
        return {}
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
    return _assignments([f"{name}={value}" for name, value in listed.items()], sizes)
