"""``fpstate explain``: what an instruction, or the kernel, would make of an image."""

from __future__ import annotations

import argparse

from fpstate.cli.image import add_machine, machine, read_image
from fpstate.cli.source import add_output, add_source, emit, load
from fpstate.errors import UsageError
from fpstate.isa.verdict import RESTORES, judge
from fpstate.linux import policy as policies
from fpstate.linux.handin import WAYS, hand_in
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
    parser.add_argument("--rfbm", metavar="MASK", default="all", help="the instruction mask, EDX:EAX (default: all)")
    parser.add_argument("--cpl", metavar="N", type=int, choices=range(4), default=0, help="CPL (default: 0)")
    parser.add_argument("--features", metavar="MASK", help="ptrace, kvm, sigreturn: user features of the task or vCPU")
    parser.add_argument("--policy", metavar="NAME", default=policies.DEFAULT, help="ptrace, kvm, sigreturn: the kernel")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the verdict: exit 1 if it faults or is refused."""
    if args.op not in {*RESTORES, *WAYS}:
        raise UsageError(f"--op {args.op[:40]!r} reads no image", cure=f"it is one of {', '.join((*RESTORES, *WAYS))}")
    if args.image == "-" and args.file == "-":
        raise UsageError("IMAGE and FILE cannot both be standard input")
    cpu = load(args)
    p = machine(args, cpu)
    p.cpl = args.cpl
    image = read_image(args.image)
    if args.op in WAYS:
        features = None if args.features is None else cpu.catalogue.parse_mask(args.features, everything=p.caps.user)
        policy = policies.find(args.policy, policies.table(None, cpu.catalogue))
        finding = hand_in(p, args.op, image, policy, features=features)
        emit(args, report.finding_document(p, args.op, policy, finding), report.finding_text(args.op, policy, finding))
        return 1 if finding else 0
    mask = cpu.catalogue.parse_mask(args.rfbm, everything=p.enabled)
    verdict = judge(p, args.op, image, mask)
    emit(args, report.document(verdict), report.text(verdict))
    return 1 if verdict.fault else 0
