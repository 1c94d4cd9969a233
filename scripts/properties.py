"""Write docs/reference/properties.md: every property of the verifier, from its own table.

    python scripts/properties.py [--check]

With --check nothing is written; exit 1 if the page is not what the table says.
"""

from __future__ import annotations

import pathlib
import sys

from fpstate.linux.machine import JUDGED
from fpstate.verify.history import BEYOND
from fpstate.verify.properties import PROPERTIES

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "reference" / "properties.md"

HEAD = """\
# Properties

What [`fpstate verify`](cli.md#fpstate-verify) decides about a policy, and what
[`fpstate simulate`](cli.md#fpstate-simulate) can find.
The page is made by scripts/properties.py.

`over bytes` says whether a step over real bytes can be found to break the property, so that `expect` in a
[scenario](../howto/play-a-scenario.md#the-keys-of-a-file) may name it.
The others are about every state or about the sets alone, and only `fpstate verify` looks at them.
`yes, in part` is what the verifier looks at in every state, and a scenario in some steps only.

"""
FINDINGS = """
## Findings over bytes

Beside the properties above a finding has one of these names, and `expect` takes them:

| finding | meaning |
|---|---|
| `WARN: NAME` | the kernel's WARN in that function is reached |
| `FAULT: RULE` | an instruction of the kernel faults, by a [rule of the instructions](isa-rules.md) |
| `REFUSED: RULE` | the kernel refuses the image that a step hands to it, by a [rule of the kernel](isa-rules.md) |

## Beyond the properties

`fpstate verify --history` knows a bug that breaks a rule of which no property speaks:

| rule | what must hold |
|---|---|
"""
PARTS = frozenset({"P3", "P4", "P8", "P13", "P18"})
"""Those with a clause about every state, or about sizes alone, that no step shows."""
BY_NAME = {"WARN": "by name", "FAULT": "by name", "P16": "as a WARN"}


def page() -> str:
    """Return the page."""
    rows = ["| property | what must hold | source | over bytes |", "|---|---|---|---|"]
    for known in PROPERTIES.values():
        judged = "yes" if known.id in JUDGED else BY_NAME.get(known.id, "no")
        seen = "yes, in part" if known.id in PARTS else judged
        rows.append(f"| `{known.id}` | {_cell(known.text)} | {_cell(known.source)} | {seen} |")
    beyond = [f"| `{name}` | {_cell(text)} |" for name, text in BEYOND.items()]
    return "".join((HEAD, "\n".join(rows), "\n", FINDINGS, "\n".join(beyond), "\n"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the page, or say whether it is right."""
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{PAGE} is not what the table of properties says: run scripts/properties.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
