"""``fpstate decode``: the extended state that a file or a live process holds, thread by thread."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fpstate.cli.source import add_output, add_source, load
from fpstate.cli.streams import put
from fpstate.cli.views import add_views, check_views, view
from fpstate.errors import UsageError
from fpstate.report import decode as report
from fpstate.sources.capture import Capture
from fpstate.sources.decoded import Decoded, place
from fpstate.sources.input import open_input
from fpstate.sources.open import open_source
from fpstate.sources.placement import Placed

__all__ = ["INTERMIXED", "configure", "run"]

INTERMIXED = True
"""The CPU's FILE may come after options."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    _add_what(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--thread", metavar="TID", type=_number, help="only this thread")
    which.add_argument("--all-threads", action="store_true", help="every thread; those with the same state once")
    _add_views(parser)
    add_source(parser, default="what SOURCE tells, else deduced,")
    add_output(parser)


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="a core, minidump, migration stream, snapshot, image or hex text, compressed or not; - is standard input",
    )
    live = parser.add_mutually_exclusive_group()
    live.add_argument("--pid", metavar="PID", type=_number, help="a live process in place of SOURCE")
    live.add_argument("--tid", metavar="TID", type=_number, help="one live thread in place of SOURCE")
    parser.add_argument("--frames", action="store_true", help="the signal frames on the stacks, of a process or a core")


def _add_views(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="initial registers and absent components as well")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--reg", metavar="NAME[,NAME]", action="append", help="only these registers; may be given again")
    one.add_argument("--bytes", action="store_true", help="every byte of the image, field by field")
    parser.add_argument(
        "--as", dest="lanes", metavar="TYPE", help="the lanes of --reg: u8, i8, ... u64, i64, u128, bf16, f16, f32, f64"
    )
    parser.add_argument("--svg", metavar="SVG", help="write a picture of the image too")
    add_views(parser, one)


def _number(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 10:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} must be the number of a thread")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Print the state; exit 1 if something is wrong with the source."""
    _settle(args)
    named = args.file is not None or args.cpu is not None or args.host
    cpu = load(args) if named else None
    found = place(_capture(args), cpu=cpu, strict=args.strict)
    threads = _wanted(args, found)
    if args.svg is not None:
        _draw(args.svg, threads)
    status = view(args, found, threads, cpu)
    if status is not None:
        return status
    put(_shown(args, found, threads))
    return 1 if found.findings else 0


def _settle(args: argparse.Namespace) -> None:
    """Refuse options that do not go together; a live process has no SOURCE, so the first name is the CPU's FILE."""
    if args.pid is not None or args.tid is not None:
        if args.file is not None:
            raise UsageError("SOURCE and --pid or --tid do not go together", cure="give one of them")
        args.source, args.file = None, args.source
    elif args.source is None:
        raise UsageError("decode needs a SOURCE, --pid or --tid")
    if args.source == "-" and args.file == "-":
        raise UsageError("standard input can be SOURCE or the CPU's FILE, not both")
    check_views(args)
    if args.frames and args.thread is not None:
        raise UsageError("--frames and --thread do not go together", cure="of a live thread: --frames --tid TID")
    if args.lanes is not None and (not args.reg or args.json):
        raise UsageError("--as goes with --reg, and not with --json", cure="registers in JSON are hex in memory order")
    if args.bytes and args.json:
        raise UsageError("--bytes and --json do not go together")
    if args.svg == "-":
        raise UsageError("--svg must name a file: standard output is for the text", cure="give --svg FILE")


def _capture(args: argparse.Namespace) -> Capture:
    """Read what the arguments name; what reads live processes and stacks is imported only for these."""
    if args.source is not None and not args.frames:
        return open_source(args.source)
    from fpstate.sources import process, stacks  # noqa: PLC0415

    if args.source is not None:
        return stacks.frames_of_core(open_input(args.source))
    if args.pid is not None:
        return stacks.frames_of_process(args.pid) if args.frames else process.capture_process(args.pid)
    return stacks.frames_of_thread(args.tid) if args.frames else process.capture_thread(args.tid)


def _wanted(args: argparse.Namespace, found: Decoded) -> list[Placed]:
    if args.thread is not None:
        return [found.thread(args.thread)]
    return list(found.threads if args.json or args.all_threads or args.frames else found.threads[:1])


def _shown(args: argparse.Namespace, found: Decoded, threads: Sequence[Placed]) -> str:
    names = [name for given in args.reg or () for name in given.split(",")]
    if args.json:
        return report.json_text(report.document(found, threads, names))
    if names:
        return report.registers_text(found, threads, names, args.lanes)
    if args.bytes:
        return report.bytes_text(found, threads)
    return report.text(found, threads, everything=args.verbose)


def _draw(path: str, threads: Sequence[Placed]) -> None:
    """Write the picture of the one image in *threads*."""
    from fpstate.cli.image import write_image  # noqa: PLC0415  only a picture needs it
    from fpstate.report.image_picture import svg  # noqa: PLC0415

    images = [placed.image for placed in threads if placed.image is not None]
    if len(threads) > 1:
        raise UsageError(f"--svg draws one image, and there are {len(threads)}", cure="choose one with --thread TID")
    if not images:
        raise UsageError("there is no image to draw")
    write_image(path, svg(images[0]).encode())
