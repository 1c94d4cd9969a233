"""Random cases: reproducible, of every instruction, and on demand breaking a given rule."""

from __future__ import annotations

import pytest

from fpstate.cpu import by_name
from fpstate.errors import CannotTell, UsageError
from fpstate.isa import INSTRUCTIONS, RULES, Capabilities
from fpstate.isa.case import run
from fpstate.isa.generate import Generator

CPUS = ("zen4", "sapphire-rapids", "arrow-lake", "ice-lake", "skylake", "haswell", "granite-rapids", "bulldozer")


def test_the_same_seed_gives_the_same_cases(capabilities: dict[str, Capabilities]) -> None:
    first, second = (Generator(capabilities["sapphire-rapids"], seed=5) for _ in range(2))
    for op in INSTRUCTIONS:
        assert first.case(op) == second.case(op)


@pytest.mark.parametrize("cpu", CPUS)
def test_whatever_comes_up_is_a_result_or_a_named_fault(cpu: str) -> None:
    generator = Generator(Capabilities(by_name(cpu)), seed=1)
    for op in INSTRUCTIONS:
        for _ in range(25):
            fault = run(generator.case(op)).fault
            assert fault is None or fault.rule.id in RULES


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_can_be_broken_on_some_cpu(rule: str) -> None:
    if rule == "xcr0-apx":
        pytest.skip("no CPU of the table has both APX and MPX")
    for cpu in CPUS:
        generator = Generator(Capabilities(by_name(cpu)), seed=2)
        for op in INSTRUCTIONS:
            try:
                case = generator.case(op, rule=rule)
            except CannotTell:
                continue
            fault = run(case).fault
            assert fault is not None
            assert fault.rule.id == rule
            return
    pytest.fail(f"nothing breaks {rule}")


def test_a_rule_that_a_cpu_cannot_break_is_said_to_be_one(capabilities: dict[str, Capabilities]) -> None:
    with pytest.raises(CannotTell, match="xfd"):
        Generator(capabilities["zen4"], seed=1).case("xrstor", rule="xfd")


@pytest.mark.parametrize(("op", "rule"), [("xsavex", None), ("xsave", "no-such-rule")])
def test_unknown_names_are_refused(capabilities: dict[str, Capabilities], op: str, rule: str | None) -> None:
    with pytest.raises(UsageError):
        Generator(capabilities["zen4"], seed=1).case(op, rule=rule)
