"""``fpstate decode``: the extended state that a file or a live process holds, thread by thread."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fpstate.cli.source import add_output, add_source, load
from fpstate.cli.streams import put
from fpstate.cli.views import add_views, check_views, thread_number, view
from fpstate.cpu.model import Cpu
from fpstate.errors import UnreadableInput, UsageError
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
    which.add_argument("--thread", metavar="TID", type=thread_number, help="only this thread")
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
    live.add_argument("--pid", metavar="PID", type=thread_number, help="a live process in place of SOURCE")
    live.add_argument("--tid", metavar="TID", type=thread_number, help="one live thread in place of SOURCE")
    parser.add_argument("--frames", action="store_true", help="the signal frames on the stacks, of a process or a core")


def _add_views(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="initial registers and absent components as well")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--reg", metavar="NAME[,NAME]", action="append", help="only these registers; may be given again")
    one.add_argument("--bytes", action="store_true", help="every byte of the image, field by field")
    parser.add_argument(
        "--as",
        dest="lanes",
        metavar="TYPE",
        help="the lanes of --reg: u8, i8, ... u64, i64, u128, bf16, f16, f32, f64, f80",
    )
    parser.add_argument("--svg", metavar="SVG", help="write a picture of the image too")
    add_views(parser, one)


def run(args: argparse.Namespace) -> int:
    """Print the state; exit 1 if something is wrong with the source."""
    _settle(args)
    cpu = _cpu(args)
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
    if args.lanes is not None and not args.reg:
        raise UsageError("--as goes with --reg", cure="name the registers: --reg zmm3 --as f32")
    if args.reg and not _names(args):
        raise UsageError("--reg names no register", cure="registers are st0, xmm3, zmm17, k1, mxcsr, pkru, tmm0, ...")
    if args.svg == "-":
        raise UsageError("--svg must name a file: standard output is for the text", cure="give --svg FILE")


def _cpu(args: argparse.Namespace) -> Cpu | None:
    """Return the CPU that the arguments name; None if they name none."""
    if args.file is None and args.cpu is None and not args.host:
        return None
    try:
        return load(args)
    except UnreadableInput as refusal:
        if args.pid is None and args.tid is None:
            raise
        text = f"with --pid or --tid {args.file!r} is the CPU's FILE: {refusal.args[0]}"
        raise UnreadableInput(text, cure="to decode that file, leave --pid and --tid out") from refusal


def _names(args: argparse.Namespace) -> list[str]:
    """Return the registers that --reg names."""
    given = (name.strip() for names in args.reg or () for name in names.split(","))
    return [name for name in given if name]


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
    names = _names(args)
    if args.json and args.bytes:
        return report.json_text(report.bytes_document(found, threads))
    if args.json and args.lanes is not None:
        return report.json_text(report.lanes_document(found, threads, names, args.lanes))
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
        raise UsageError("--svg has no image to draw", cure="choose a thread that has one with --thread TID")
    write_image(path, svg(images[0]).encode())
