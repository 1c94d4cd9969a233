"""A comparison of policies as text and as a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fpstate.linux.compare import Column, Comparison
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.tables import bold, columns_that_fit, table, warn, wrapped

__all__ = ["Run", "document", "text"]


Verified = Mapping[str, Document]
"""By policy the document of `fpstate.report.verify`; a policy that was not verified has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The costs of a recorded run, as `fpstate.report.cost` shows them.

    Attributes:
        document: all of it.
        rows: of the text's table: a label, then a cell a policy.
        assumptions: sentences.
    """

    document: Document
    rows: list[list[str]]
    assumptions: list[str]


def document(comparison: Comparison, verified: Verified | None = None, run: Run | None = None) -> Document:
    """Return the table, one entry a policy, and the verdict; with *run* also what that costs under each."""
    verified = verified or {}
    found = _document(comparison, verified)
    if run is not None:
        found["cost"] = run.document
    return found


def _document(comparison: Comparison, verified: Verified) -> Document:
    return {
        "schema": SCHEMA,
        "cpu": comparison.cpu.name,
        "source": comparison.cpu.source,
        "component": {
            "bit": comparison.component,
            "name": comparison.name,
            "size": comparison.size,
            "present": comparison.present,
        },
        "policies": {
            column.policy.name: _column(column) | {"verification": _verification(verified.get(column.policy.name))}
            for column in comparison.columns
        },
        "verdict": list(comparison.verdict()),
        "assumptions": sorted({a for c in comparison.columns for a in c.config.assumptions}),
        "notes": list(comparison.cpu.remarks),
    }


def _column(column: Column) -> Document:
    config = column.config
    return {
        "title": column.policy.title,
        "home": column.home,
        "xss": hexmask(config.xss),
        "xcr0": hexmask(config.xcr0),
        "max_features": hexmask(config.kernel.max_features),
        "context_size": config.kernel.max_size,
        "task_features": hexmask(config.kernel.default_features),
        "task_xcomp_bv": hexmask(config.task_xcomp_bv),
        "task_size": column.task_size,
        "task_slab": column.task_slab,
        "guest_features": hexmask(config.guest.features),
        "guest_xcomp_bv": hexmask(config.guest_xcomp_bv),
        "guest_size": column.guest_size,
        "guest_allocation": column.kvm.allocation,
        "guest_overrun": column.kvm.overrun,
        "component_in_task": column.task_cost,
        "component_in_guest": column.guest_cost,
        "component_in_task_slab": column.slab_cost,
        "hidden_by_alignment": {"task": column.task_hidden, "guest": column.guest_hidden},
        "save_rfbm": hexmask(config.save_rfbm),
        "restore_rfbm": hexmask(config.restore_rfbm),
        "guest_save_rfbm": hexmask(config.guest_save_rfbm),
        "guest_restore_rfbm": hexmask(config.guest_restore_rfbm),
        "registers_after_guest_to_host": column.after_load,
        "msr_reads": column.msr_reads,
        "msr_writes": column.msr_writes,
        "extra_xsaves": column.extra_xsaves,
        "kvm_get_xsave": column.kvm_get_xsave,
        "guest_may_use": column.guest_may_use,
        "max_sigframe": column.abi.max_sigframe,
        "fate": config.fate,
        "xsave_disabled": config.xsave_disabled,
        "panic": config.panic,
        "objections": list(column.policy.objections),
        "policy_source": column.policy.source,
    }


def _verification(found: Document | None) -> Document | None:
    """Return what the verdict says of the component, and what isolation and integrity of its values need."""
    if found is None:
        return None
    values = [entry for entry in found["properties"] if _about_values(entry["id"])]
    return {
        "verdict": found["verdict"],
        "needs": sorted({need for entry in values for need in entry["needs"]}),
        "violated": [entry["id"] for entry in found["properties"] if entry["verdict"] == "violated"],
    }


def _about_values(name: str) -> bool:
    return name.startswith(("ISO-", "INT-"))


def text(comparison: Comparison, verified: Verified | None = None, run: Run | None = None) -> str:
    """Return the table, what is the same everywhere, the costs of *run*, the verdict and the objections.

    In a row, what differs from most of the others is marked with ``*`` and, on a terminal, in colour.
    """
    columns = comparison.columns
    name = comparison.name
    heading = f"{bold(comparison.cpu.name)}: where {name} lives"
    if comparison.present:
        heading += f" ({comparison.size} bytes, component {comparison.component})"
    differing, common = _compared(columns, name, verified)
    parts = [heading, *_tables(differing, [c.policy.name for c in columns])]
    if common:
        same = "\n".join(f"  {label}: {cell}" for label, cell in common)
        parts.append(f"the same under every policy:\n{same}")
    if run is not None:
        parts += ["the recorded run:", *_tables(run.rows, [c.policy.name for c in columns])]
    sentences = [*comparison.verdict(), *(_proofs(name, verified) if verified else [])]
    parts.append("verdict:\n" + "\n".join(map(wrapped, sentences)))
    if comparison.present:
        parts.append("objections:\n" + "\n".join(_objections(columns)))
    remarks = sorted({a for c in columns for a in c.config.assumptions} | set(comparison.cpu.remarks))
    if remarks or run:
        remarks += run.assumptions if run else []
        parts.append("taken for granted:\n" + "\n".join(map(wrapped, remarks)))
    return "\n\n".join(parts)


def _compared(
    columns: tuple[Column, ...], name: str, verified: Verified | None
) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Return the rows in which the policies differ, and those in which they do not."""
    differing: list[list[str]] = []
    common: list[tuple[str, str]] = []
    rows = [*_ROWS, *([("kept apart", _kept_apart(verified))] if verified else [])]
    for label, value in rows:
        cells = [value(c) for c in columns]
        title = label.format(name=name)
        if len(set(cells)) > 1 or len(columns) == 1:
            differing.append([title, *_marked(cells)])
        else:
            common.append((title, cells[0]))
    return differing, common


def _kept_apart(verified: Verified) -> Callable[[Column], str]:
    def cell(column: Column) -> str:
        said = _verification(verified.get(column.policy.name))
        if said is None:
            return "-"
        if said["violated"]:
            return f"no: {', '.join(filter(_about_values, said['violated'])) or ', '.join(said['violated'])}"
        needs = f" if {', '.join(said['needs'])}" if said["needs"] else ""
        if said["verdict"] == "proven" and needs:
            return needs.strip()
        return f"{said['verdict']}{needs}"

    return cell


def _proofs(name: str, verified: Verified) -> list[str]:
    """Say what was verified; policies of which the same is to be said share a sentence."""
    sentences: dict[str, list[str]] = {}
    for policy, found in verified.items():
        sentences.setdefault(_proof(name, found), []).append(policy)
    return [f"{', '.join(policies)}: {words}" for words, policies in sentences.items()]


def _proof(name: str, found: Document) -> str:
    """Say what holds of the component under one policy: no more than was shown."""
    said = _verification(found) or {}
    if said["violated"]:
        broken = ", ".join(said["violated"])
        verb = "is" if len(said["violated"]) == 1 else "are"
        reasons = [p["reason"] for p in found["properties"] if p["verdict"] == "violated" and p["reason"]]
        why = f" ({'; '.join(reasons)})" if reasons else ""
        return f"{name} is not kept apart: {broken} {verb} violated{why}."
    if said["verdict"] == "unknown":
        return f"whether {name} is kept apart could not be decided."
    shape = found["shape"]
    needs = f", as long as {' and '.join(said['needs'])}" if said["needs"] else ""
    if said["verdict"] == "proven":
        return f"no {name} leaks or is lost, for any number of CPUs, tasks and vCPUs{needs}."
    visited = f"at most {shape['cpus']} CPUs, {shape['tasks']} tasks and {shape['vcpus']} vCPUs"
    return f"no {name} leaks or is lost in any state visited, of {visited}{needs}; that is no proof for more of them."


def _tables(rows: list[list[str]], names: list[str]) -> list[str]:
    if not rows:
        return []
    columns = [[name, *(row[i + 1] for row in rows)] for i, name in enumerate(names)]
    runs = columns_that_fit([row[0] for row in rows], columns)
    return [
        table(("", *(names[i] for i in run)), [[row[0], *(row[i + 1] for i in run)] for row in rows]) for run in runs
    ]


def _marked(cells: list[str]) -> list[str]:
    usual, count = Counter(cells).most_common(1)[0]
    if count == 1:
        return cells
    return [cell if cell == usual else warn(f"{cell} *") for cell in cells]


def _objections(columns: tuple[Column, ...]) -> list[str]:
    lines = []
    for column in columns:
        lines += [wrapped(f"{column.policy.name}: {words}") for words in column.policy.objections]
    return lines or ["  none recorded"]


def _boot(column: Column) -> str:
    return "XSAVE" if column.config.fate == "xsave" else f"no XSAVE ({column.config.fate})"


def _share(cost: int, hidden: int) -> str:
    if not hidden:
        return str(cost)
    return f"{cost} ({hidden} hidden)" if hidden > 0 else f"{cost} ({-hidden} alignment)"


def _carried(column: Column) -> str:
    if column.kvm_get_xsave:
        return "yes"
    return "no" if column.home == "nowhere" else "no, as MSRs"


_ROWS: Final[tuple[tuple[str, Callable[[Column], str]], ...]] = (
    ("boots with", _boot),
    ("{name} lives in", lambda c: c.home),
    ("host IA32_XSS", lambda c: hexmask(c.config.xss)),
    ("kernel max features", lambda c: hexmask(c.config.kernel.max_features)),
    ("context size (boot log)", lambda c: str(c.config.kernel.max_size)),
    ("task features", lambda c: hexmask(c.config.kernel.default_features)),
    ("task XCOMP_BV", lambda c: hexmask(c.config.task_xcomp_bv)),
    ("task fpstate, bytes", lambda c: str(c.task_size)),
    ("task: bytes of {name}", lambda c: _share(c.task_cost, c.task_hidden)),
    ("task_struct's slab share", lambda c: str(c.task_slab)),
    ("guest features", lambda c: hexmask(c.config.guest.features)),
    ("guest fpstate, bytes", lambda c: str(c.guest_size)),
    ("guest: bytes of {name}", lambda c: _share(c.guest_cost, c.guest_hidden)),
    ("guest buffer, bytes", lambda c: f"{c.kvm.allocation}{' (too small)' if c.kvm.overrun else ''}"),
    ("save RFBM, task", lambda c: hexmask(c.config.save_rfbm)),
    ("save RFBM, guest", lambda c: hexmask(c.config.guest_save_rfbm)),
    ("restore RFBM, task", lambda c: hexmask(c.config.restore_rfbm)),
    ("restore RFBM, guest", lambda c: hexmask(c.config.guest_restore_rfbm)),
    ("{name} after guest->host", lambda c: c.after_load),
    ("RDMSR per round trip", lambda c: str(c.msr_reads)),
    ("WRMSR per round trip", lambda c: str(c.msr_writes)),
    ("more XSAVES/XRSTORS", lambda c: str(c.extra_xsaves)),
    ("KVM_GET_XSAVE carries it", _carried),
    ("a guest may use it", lambda c: "yes" if c.guest_may_use else "no"),
    ("largest signal frame", lambda c: str(c.abi.max_sigframe)),
)
