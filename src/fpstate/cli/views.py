"""The views of ``fpstate decode`` that ask about its threads instead of showing them: --explain and --diff."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fpstate import cpu as cpus
from fpstate.cli.source import emit
from fpstate.cpu.model import Cpu
from fpstate.errors import UsageError
from fpstate.sources.decoded import Decoded, decode, place
from fpstate.sources.placement import Placed
from fpstate.xfeatures import CATALOGUE, Catalogue

__all__ = ["add_views", "check_views", "thread_number", "view"]


def add_views(parser: argparse.ArgumentParser, one: argparse._MutuallyExclusiveGroup) -> None:
    """Add the options; of the views in *one* a command shows one."""
    one.add_argument(
        "--explain",
        action="store_true",
        help="what XRSTOR, XRSTORS, ptrace, KVM and sigreturn would say to the image, and by which rule",
    )
    one.add_argument("--diff", metavar="OTHER", help="what differs from another source: each thread with its own")
    one.add_argument("--diff-pid", metavar="PID", type=thread_number, help="likewise from a live process")
    one.add_argument("--diff-tid", metavar="TID", type=thread_number, help="likewise from one live thread")
    parser.add_argument("--policy", metavar="NAME", help="with --explain: the kernel")
    parser.add_argument("--diff-cpu", metavar="NAME", help="the CPU that made OTHER: a name, a file, or host")
    parser.add_argument(
        "--diff-thread", metavar="TID", type=thread_number, help="that thread of OTHER, with the one of --thread"
    )


def thread_number(text: str) -> int:
    """Read the number of a process or thread."""
    if not text.isdecimal() or not text.isascii() or len(text) > 10:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} must be the number of a thread")
    return int(text)


def check_views(args: argparse.Namespace) -> None:
    """Refuse options that do not go together: before anything is read."""
    if args.policy is not None and not args.explain:
        raise UsageError("--policy goes with --explain")
    for option in ("diff_cpu", "diff_thread"):
        if getattr(args, option) is not None and not _differs(args):
            raise UsageError(f"--{option.replace('_', '-')} goes with --diff, --diff-pid or --diff-tid")
    if args.diff == "-" and "-" in {args.source, args.file}:
        raise UsageError("standard input can be one of SOURCE, OTHER and the CPU's FILE, not two")


def view(args: argparse.Namespace, found: Decoded, threads: Sequence[Placed], cpu: Cpu | None) -> int | None:
    """Print the view that *args* ask for and return the exit status; None if they ask for none.

    Args:
        args: those of the verb.
        found: the source.
        threads: those of its threads that are meant.
        cpu: the CPU that was named; None if none was.
    """
    if _differs(args):
        return _diff(args, found, cpu)
    return _explain(args, found, threads, CATALOGUE if cpu is None else cpu.catalogue) if args.explain else None


def _explain(args: argparse.Namespace, found: Decoded, threads: Sequence[Placed], catalogue: Catalogue) -> int:
    """Print the answers; what a reader says is no finding about the source, so only decode's own make it 1."""
    from fpstate.linux import policy as policies  # noqa: PLC0415  decode starts fast without
    from fpstate.report import verdicts as report  # noqa: PLC0415  likewise
    from fpstate.sources.verdicts import hear  # noqa: PLC0415  likewise

    policy = policies.find(args.policy or policies.DEFAULT, policies.table(None, catalogue))
    heard = [(placed, hear(placed, policy)) for placed in threads]
    emit(args, report.document(found, heard), report.text(found, heard))
    return 1 if found.findings else 0


def _differs(args: argparse.Namespace) -> bool:
    return args.diff is not None or args.diff_pid is not None or args.diff_tid is not None


def _other(args: argparse.Namespace, cpu: Cpu | None) -> Decoded:
    """Return OTHER; *cpu* is SOURCE's, which counts for a file, where no other is named."""
    named = None
    if args.diff_cpu is not None:
        named = cpus.named_or_file(args.diff_cpu, CATALOGUE if cpu is None else cpu.catalogue)
    if args.diff is not None:
        return decode(args.diff, cpu=named or cpu, strict=args.strict)
    from fpstate.sources import process  # noqa: PLC0415  files do without

    one = args.diff_tid is not None
    capture = process.capture_thread(args.diff_tid) if one else process.capture_process(args.diff_pid)
    return place(capture, cpu=named, strict=args.strict)


def _diff(args: argparse.Namespace, found: Decoded, cpu: Cpu | None) -> int:
    """Print what differs, of all threads or the one of --thread: exit 1 if anything does, or a source is damaged."""
    from fpstate.report import differences as report  # noqa: PLC0415  decode starts fast without
    from fpstate.sources.differences import compare  # noqa: PLC0415  likewise

    other = _other(args, cpu)
    if args.thread is not None:
        found.thread(args.thread)
    result = compare(found, other, tid=args.thread, other_tid=args.diff_thread)
    emit(args, report.document(result), report.text(result))
    return 0 if result.same and not found.findings and not other.findings else 1
