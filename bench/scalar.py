"""Instructions a second of the scalar engine, one processor, every component in use.

    python bench/scalar.py [ROUNDS]

CPU time.  The promise is 100,000 instructions a second over the user-mode instructions of this host's layout.
"""

from __future__ import annotations

import statistics
import sys
import time

from fpstate import cpu as cpus
from fpstate.isa import AREA_INSTRUCTIONS, Fault, Memory, Processor, execute, xgetbv

PROMISED = 100_000
COUNT = 10_000
ALL = (1 << 64) - 1


def processor(name: str) -> Processor:
    """Return a processor with something in every register that takes anything."""
    p = Processor(cpus.by_name(name))
    p.xcr0, p.xss = p.caps.user, p.caps.supervisor
    for bit, section in p.sections.items():
        if bit in {2, 5, 6, 7, 18}:
            section[:] = b"\x11" * len(section)
    p.legacy[160:416] = b"\x11" * 256
    p.touch(0b11100111)
    return p


def rate(p: Processor, op: str) -> float:
    """Return executions a second of CPU time."""
    memory = Memory(bytearray(16384), 0x10000)
    source = {"xrstor": "xsave64", "xrstors": "xsaves64", "fxrstor": "fxsave64"}.get(op.removesuffix("64"))
    if source is not None:
        execute(p, source, memory, 0x10000, ALL)
    start = time.process_time()
    for _ in range(COUNT):
        execute(p, op, memory, 0x10000, ALL)
    return COUNT / (time.process_time() - start)


def main() -> int:
    """Measure and print; exit 1 if the promise is broken."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    broken = False
    for name in ("zen4", "sapphire-rapids"):
        p = processor(name)
        print(f"{name}: XCR0 {p.xcr0:#x}, IA32_XSS {p.xss:#x}, in use {xgetbv(p, 1):#x}")
        user_mode = []
        for op in AREA_INSTRUCTIONS:
            try:
                taken = [rate(p, op) for _ in range(rounds)]
            except Fault as fault:
                print(f"  {op:10} {fault}")
                continue
            middle = statistics.median(taken)
            print(f"  {op:10} {middle:10,.0f} a second ({min(taken):,.0f} to {max(taken):,.0f})")
            if op.endswith("64") and op not in {"xsaves64", "xrstors64"}:
                user_mode.append(1 / middle)
        mix = len(user_mode) / sum(user_mode)
        print(f"  the user-mode 64-bit forms in turn: {mix:,.0f} a second")
        broken |= name == "zen4" and mix < PROMISED
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
