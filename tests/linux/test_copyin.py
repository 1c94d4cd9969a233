"""`fpstate.linux.copyin` against what a real Linux 6.18 answered, and `Batch.validate` against it.

The tables are those of a Zen 4 with XCR0 = E7H and without PKU; the machine is AMD's Genoa with that XCR0.
"""

from __future__ import annotations

import struct
from functools import partial

import pytest

pytest.importorskip("numba", reason="fpstate[batch] is not installed")

from batch.cases import MACHINES, image, machine, rows_of, seeded
from fpstate.batch import Batch, rule
from fpstate.cpu import by_name
from fpstate.isa.masks import complement, disabled
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2
from fpstate.linux.copyin import RULES, Finding, check_kvm, check_ptrace, check_sigreturn
from fpstate.xfeatures import COMPACTED

XCR0, SIZE = 0xE7, 2432
MXCSR_MASK = 0x2FFFF
GENOA = Batch(by_name("genoa"), xcr0=XCR0)
BAD_MXCSR = 1 << 16

Change = tuple[int, str, int]
"""Where in the image, the struct format, the value."""
XSTATE_BV, XCOMP_BV, MXCSR = (512, "Q"), (520, "Q"), (24, "I")
MAGIC1, EXTENDED, FEATURES, XSTATE_SIZE = (464, "I"), (468, "I"), (472, "Q"), (480, "I")


def changed(size: int, *changes: Change) -> bytes:
    """An image as the kernel writes it, with *changes*: XSTATE_BV, MXCSR and software bytes as in section 12.2."""
    data = bytearray(max(size, SIZE))
    start = [(*XSTATE_BV, 0xA3), (*MXCSR, 0x1F85), (*MAGIC1, FP_XSTATE_MAGIC1), (*EXTENDED, SIZE + 4)]
    start += [(*FEATURES, XCR0), (*XSTATE_SIZE, SIZE)]
    if size >= SIZE + 4:
        start.append((SIZE, "I", FP_XSTATE_MAGIC2))
    for at, kind, value in [*start, *changes]:
        struct.pack_into(f"<{kind}", data, at, value)
    return bytes(data[:size])


def ask(found: Finding | None) -> str:
    return "ok" if found is None else f"{found.effect} {found.rule.id}"


@pytest.mark.parametrize(
    ("size", "changes", "expected"),
    [
        (SIZE, [], "ok"),
        (SIZE + 64, [], "ok"),
        (2424, [], "EFAULT ptrace-size"),
        (576, [], "EFAULT ptrace-size"),
        (2431, [], "EINVAL ptrace-length"),
        (SIZE, [(*XSTATE_BV, 1 << 11)], "EINVAL ptrace-features"),
        (SIZE, [(*XSTATE_BV, 1 << 9)], "EINVAL ptrace-features"),
        (SIZE, [(*XSTATE_BV, 1 << 63)], "EINVAL ptrace-features"),
        (SIZE, [(*XCOMP_BV, COMPACTED)], "EINVAL ptrace-xcomp-bv"),
        (SIZE, [(528, "B", 1)], "EINVAL ptrace-reserved"),
        (SIZE, [(575, "B", 1)], "EINVAL ptrace-reserved"),
        *((SIZE, [(*MXCSR, BAD_MXCSR), (*XSTATE_BV, 1 << bit)], "EINVAL ptrace-mxcsr") for bit in range(3)),
        (SIZE, [(*MXCSR, BAD_MXCSR), (*XSTATE_BV, 0)], "ok"),
        (SIZE, [(*MXCSR, 0x1FA0), (*XSTATE_BV, 4)], "ok"),
    ],
)
def test_ptrace_answers_as_a_real_kernel(size: int, changes: list[Change], expected: str) -> None:
    data = changed(size, *changes)
    found = check_ptrace(data, features=XCR0, size=SIZE, mxcsr_mask=MXCSR_MASK)
    assert ask(found) == expected
    outcome = GENOA.validate(rows_of([bytearray(data)], size, size), "ptrace")
    assert rule(int(outcome[0]), "ptrace") == (found.rule if found else None)


@pytest.mark.parametrize(
    ("changes", "effect"),
    [
        ([], "ok"),
        ([(*MAGIC1, 0)], "fx-only sigreturn-magic1"),
        ([(SIZE, "I", 0)], "fx-only sigreturn-magic2"),
        ([(*XSTATE_SIZE, SIZE + 64)], "fx-only sigreturn-size"),
        ([(*XSTATE_SIZE, SIZE - 64)], "fx-only sigreturn-magic2"),
        ([(*XSTATE_SIZE, 512)], "fx-only sigreturn-size"),
        ([(*EXTENDED, SIZE - 4)], "fx-only sigreturn-size"),
        ([(*XSTATE_SIZE, 576), (576, "I", FP_XSTATE_MAGIC2)], "ok"),
        ([(*FEATURES, 3)], "ok"),
        ([(*FEATURES, XCR0 | 1 << 11 | 1 << 12 | 1 << 18)], "ok"),
        ([(*XSTATE_BV, 0)], "ok"),
        ([(*XSTATE_BV, 0xA3 | 1 << 11)], "SIGSEGV sigreturn-header"),
        ([(*XCOMP_BV, COMPACTED)], "SIGSEGV sigreturn-header"),
        ([(*XCOMP_BV, COMPACTED | XCR0)], "ok"),
        ([(528, "B", 1)], "SIGSEGV sigreturn-header"),
        ([(535, "B", 1)], "SIGSEGV sigreturn-header"),
        ([(536, "B", 1)], "ok"),
        ([(575, "B", 1)], "ok"),
        ([(*MXCSR, BAD_MXCSR | 0x1F80)], "SIGSEGV sigreturn-mxcsr"),
        ([(*MXCSR, BAD_MXCSR | 0x1F80), (*MAGIC1, 0)], "SIGSEGV sigreturn-mxcsr"),
    ],
)
def test_sigreturn_answers_as_a_real_kernel(changes: list[Change], effect: str) -> None:
    data = changed(SIZE + 4, *changes)
    found = check_sigreturn(
        data, caps=GENOA.caps, xcr0=XCR0, user_xfeatures=XCR0, user_size=SIZE, mxcsr_mask=MXCSR_MASK
    )
    assert ask(found) == effect
    outcome = GENOA.validate(rows_of([bytearray(data)], SIZE + 4, SIZE + 4), "sigreturn")
    assert rule(int(outcome[0]), "sigreturn") == (found.rule if found else None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([(*XSTATE_BV, 0)], "ok"),
        ([(*XSTATE_BV, 0xE7)], "ok"),
        ([(*XSTATE_BV, 1 << 11)], "EINVAL kvm-xcr0"),
        ([(*XSTATE_BV, 1 << 9)], "EINVAL kvm-xcr0"),
        ([(*XCOMP_BV, COMPACTED)], "EINVAL kvm-xcomp-bv"),
        ([(528, "B", 1)], "EINVAL kvm-reserved"),
        ([(*MXCSR, BAD_MXCSR)], "EINVAL kvm-mxcsr"),
    ],
)
def test_kvm_answers_as_a_real_kernel(changes: list[Change], expected: str) -> None:
    data = changed(4096, *changes)
    found = check_kvm(data, supported_xcr0=XCR0, features=XCR0, uabi_size=4096, mxcsr_mask=MXCSR_MASK)
    assert ask(found) == expected
    outcome = GENOA.validate(rows_of([bytearray(data)], 4096, 4096), "kvm")
    assert rule(int(outcome[0]), "kvm") == (found.rule if found else None)


def test_kvm_drops_what_the_guests_xfd_disables_before_it_looks() -> None:
    # Linux, January 2026: XSTATE_BV &= ~xfd in KVM_SET_XSAVE
    data = changed(16384, (*XSTATE_BV, 1 << 18))
    ask_kvm = partial(check_kvm, data, supported_xcr0=0x600E7, uabi_size=11008, mxcsr_mask=0xFFFF)
    assert ask(ask_kvm(features=0x200E7)) == "EINVAL kvm-features"
    assert ask(ask_kvm(features=0x200E7, xfd=1 << 18)) == "ok"


def test_a_finding_names_the_bit_the_byte_the_function_and_the_cure() -> None:
    found = check_ptrace(changed(SIZE, (*XSTATE_BV, 1 << 11)), features=XCR0, size=SIZE, mxcsr_mask=MXCSR_MASK)
    assert found is not None
    assert (found.bit, found.offset) == (11, 513)
    assert str(found) == (
        "EINVAL: XSTATE_BV sets bit 11: XSTATE_BV must set no bit outside the user features of the task "
        "(ptrace-features; Linux validate_user_xstate_header()); clear the bit; a dynamic feature needs permission and "
        "first use"
    )
    assert all(rule.source.endswith("()") and rule.cure for rule in RULES.values())


def test_a_frame_that_ends_early_is_not_read() -> None:
    ask_frame = partial(check_sigreturn, caps=GENOA.caps, xcr0=XCR0, user_xfeatures=XCR0, mxcsr_mask=MXCSR_MASK)
    assert ask(ask_frame(changed(SIZE), user_size=SIZE)) == "SIGSEGV sigreturn-read"
    compacted = (*XCOMP_BV, COMPACTED | XCR0), (*FEATURES, XCR0), (*XSTATE_SIZE, 1000), (1000, "I", FP_XSTATE_MAGIC2)
    assert ask(ask_frame(changed(SIZE, *compacted)[:1004], user_size=1000)) == "SIGSEGV sigreturn-read"


@pytest.mark.parametrize("name", MACHINES)
def test_a_batch_finds_what_the_scalar_checks_find(name: str) -> None:
    batch = machine(name)
    rng = seeded(f"copyin {name}")
    features = batch.xcr0 & complement(disabled(batch.xcr0, batch.xfd))
    user_size, width = batch.image_size(features), max(4096, batch.image_size()) + 64
    mask, caps, seen = batch.profile.mxcsr_mask, batch.caps, set[str]()
    checks = {
        "ptrace": partial(check_ptrace, features=features, size=batch.image_size(), mxcsr_mask=mask),
        "kvm": partial(
            check_kvm,
            supported_xcr0=batch.xcr0,
            features=features,
            uabi_size=max(4096, user_size),
            mxcsr_mask=mask,
            xfd=batch.xfd,
        ),
        "sigreturn": partial(
            check_sigreturn,
            caps=caps,
            xcr0=batch.xcr0,
            user_xfeatures=features,
            user_size=user_size,
            mxcsr_mask=batch.profile.mxcsr_legal,
        ),
    }
    images = [image(rng, batch, width, supervisor=False) for _ in range(400)]
    for data in images:
        size = rng.choice([user_size, user_size, user_size, 576, 575, user_size + 1])
        wanted = rng.choice([features, rng.getrandbits(64)])
        magic1 = rng.choice([FP_XSTATE_MAGIC1] * 9 + [0])
        struct.pack_into("<IIQI", data, 464, magic1, rng.choice([size + 4] * 9 + [100]), wanted, size)
        if rng.random() < 0.9:
            struct.pack_into("<I", data, user_size if size > user_size else max(size, 576), FP_XSTATE_MAGIC2)
    for against, check in checks.items():
        outcome = batch.validate(rows_of(images, width, width), against)  # type: ignore[arg-type]
        found = [check(bytes(data)) for data in images]
        assert [rule(int(code), "kvm") for code in outcome] == [f.rule if f else None for f in found]
        seen |= {ask(f) for f in found}
    assert len(seen) > 8


def test_a_way_can_be_asked_for_another_task_and_another_size() -> None:
    rows = rows_of([bytearray(changed(SIZE + 4, (*XSTATE_BV, 4)))], SIZE + 4, SIZE + 4)
    for against, keywords, expected in (
        ("ptrace", {"size": SIZE, "features": 3}, "ptrace-length"),
        ("kvm", {}, "kvm-size"),
        ("kvm", {"size": SIZE, "supported_xcr0": 3}, "kvm-xcr0"),
        ("kvm", {"size": SIZE, "features": 3}, "kvm-features"),
        ("sigreturn", {"size": SIZE + 1}, "sigreturn-read"),
    ):
        outcome = GENOA.validate(rows, against, **keywords)  # type: ignore[arg-type]
        assert rule(int(outcome[0]), "kvm") == RULES[expected]
