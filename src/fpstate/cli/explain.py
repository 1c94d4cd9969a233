"""``fpstate explain``: what an instruction, or the kernel, would make of an image."""

from __future__ import annotations

import argparse

from fpstate.cli.image import add_machine, machine, read_image
from fpstate.cli.source import add_output, add_source, emit, load
from fpstate.cpu.model import Cpu
from fpstate.errors import UsageError
from fpstate.isa import Processor
from fpstate.isa.masks import ALL
from fpstate.isa.verdict import RESTORES, judge
from fpstate.linux import policy as policies
from fpstate.linux.handin import WAYS, hand_in, user_features
from fpstate.report import explain as report

__all__ = ["INTERMIXED", "configure", "run"]

INTERMIXED = True
"""The CPU's FILE may come after options."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("image", metavar="IMAGE", help="the bytes of an XSAVE area; - is standard input")
    parser.add_argument("--op", metavar="OP", required=True, help=f"what reads it: {', '.join((*RESTORES, *WAYS))}")
    add_source(parser)
    add_machine(parser)
    parser.add_argument("--rfbm", metavar="MASK", help="the instruction mask, EDX:EAX (default: all)")
    parser.add_argument("--cpl", metavar="N", type=int, choices=range(4), help="CPL (default: 0)")
    parser.add_argument("--features", metavar="MASK", help="ptrace, kvm, sigreturn: user features of the task or vCPU")
    parser.add_argument("--policy", metavar="NAME", help="ptrace, kvm, sigreturn: the kernel")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the verdict: exit 1 if it faults or is refused."""
    op = args.op.lower()
    if op not in {*RESTORES, *WAYS}:
        raise UsageError(f"--op {args.op[:40]!r} reads no image", cure=f"it is one of {', '.join((*RESTORES, *WAYS))}")
    idle = ("rfbm", "cpl") if op in WAYS else ("features", "policy", *(("rfbm",) if op.startswith("fx") else ()))
    for name in idle:
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} does not go with --op {op}")
    if args.image == "-" and args.file == "-":
        raise UsageError("IMAGE and FILE cannot both be standard input")
    cpu = load(args)
    p = machine(args, cpu)
    p.cpl = args.cpl or 0
    image = read_image(args.image)
    if op in WAYS:
        return _ask_the_kernel(args, op, p, image)
    mask = _instruction_mask(args.rfbm or "all", cpu)
    verdict = judge(p, op, image, mask)
    emit(args, report.document(verdict), report.text(verdict))
    return 1 if verdict.fault else 0


def _ask_the_kernel(args: argparse.Namespace, way: str, p: Processor, image: bytes) -> int:
    catalogue = p.cpu.catalogue
    policy = policies.find(args.policy or policies.DEFAULT, policies.table(None, catalogue))
    features = user_features(p.cpu, policy, None)
    if args.features is not None:
        most = user_features(p.cpu, policy, p.caps.user)
        asked = catalogue.parse_mask(args.features, everything=most)
        if asked & ~most:
            raise UsageError(f"--features has {catalogue.names(asked & ~most)}, which no task under {policy.name} has")
        features = asked
    finding = hand_in(p, way, image, policy, features=features)
    question = report.Question(p, way, policy, features, image)
    emit(args, report.finding_document(question, finding), report.finding_text(question, finding))
    return 1 if finding else 0


def _instruction_mask(text: str, cpu: Cpu) -> int:
    """Read EDX:EAX: components as everywhere, or all 64 bits as kernels pass them."""
    if text.strip().lower() in {"-1", "all", f"{ALL:#x}"}:
        return ALL
    return cpu.catalogue.parse_mask(text, everything=cpu.mask)
