from __future__ import annotations

from dataclasses import replace

import pytest

from fpstate.cpu import by_name
from fpstate.errors import UnreadableInput
from fpstate.silicon import Executor, context
from fpstate.silicon.context import PAGE, Facts, Places
from fpstate.silicon.encode import RDPKRU, VZEROALL, WRPKRU, XGETBV, Assembler
from fpstate.silicon.program import assemble, emit_entry, emit_epilogue
from fpstate.silicon.signals import emit_handler


def _facts(cpu: str, xcr0: int) -> Facts:
    return context._facts(by_name(cpu), xcr0)


def _page_0(facts: Facts) -> bytes:
    code = Assembler(0x10000)
    code.label("epilogue")
    emit_epilogue(code, 0x20000, Places.of(facts.layout.size), facts)
    emit_handler(code, 0x20000, (0x11000, 0x12000), "epilogue")
    return code.finish()


def _page_1(facts: Facts) -> bytes:
    code = Assembler(0x11000)
    emit_entry(code, 0x20000, Places.of(facts.layout.size), facts)
    return code.finish()


@pytest.mark.parametrize(("cpu", "xcr0"), [("spr", 0x602E7), ("zen4", 0xE7), ("haswell", 7), ("skx", 0x2FF)])
def test_what_is_written_once_fits_its_pages(cpu: str, xcr0: int) -> None:
    facts = _facts(cpu, xcr0)
    assert len(_page_0(facts)) <= PAGE
    assert len(_page_1(facts)) <= PAGE


def test_protection_keys_are_opened_before_memory_is_touched() -> None:
    facts = replace(_facts("spr", 0x602E7), has_rdpkru=True)
    code = _page_0(facts)
    # SDM volume 3, 4.6.2: an address whose key PKRU denies faults, and XRSTOR may have loaded any PKRU
    first_access = code.index(bytes.fromhex("488ba3"))  # mov rsp, [rbx + ...]
    assert 0 < code.index(RDPKRU) < code.index(WRPKRU) < first_access
    assert code.rindex(WRPKRU) > first_access


def test_xgetbv_1_is_not_executed_without_it() -> None:
    facts = replace(_facts("haswell", 7), has_xgetbv1=False)
    assert XGETBV not in _page_0(facts) + _page_1(facts)


def test_xsave_reads_only_what_nothing_else_does() -> None:
    xsave_out = bytes.fromhex("480faea3")  # xsave64 [rbx + ...]
    assert xsave_out not in _page_0(_facts("zen4", 0xE7))
    assert xsave_out in _page_0(_facts("spr", 0x600E7))


def test_program_knows_where_each_step_begins() -> None:
    program = assemble([("vzeroall", 64), ("xgetbv", 64), ("vzeroall", 64)], 0x40000, 0x30000, ac=False)
    assert program.starts[0] == 0x40000
    assert program.starts[1] == 0x40000 + len(VZEROALL)
    assert program.code[program.starts[2] - 0x40000 :].startswith(VZEROALL)
    assert program.first_xgetbv == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("why_not_x86_64", lambda: "this host is not x86-64 (aarch64)", "this host is not x86-64"),
        ("this_host", lambda: by_name("nehalem"), "OSXSAVE is 0"),
    ],
)
def test_executor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, name: str, value: object, message: str) -> None:
    monkeypatch.setattr(context, "why_not_x86_64", lambda: None)
    monkeypatch.setattr(context, name, value)
    with pytest.raises(UnreadableInput, match=message):
        Executor()
