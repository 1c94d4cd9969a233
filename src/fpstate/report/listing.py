"""The tables that ship with fpstate, as text and as documents."""

from __future__ import annotations

from collections.abc import Sequence

from fpstate.cpu.table import TableRow
from fpstate.linux.policy import Policy
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.tables import table
from fpstate.xfeatures import Catalogue

__all__ = [
    "cpus_document",
    "cpus_text",
    "policies_document",
    "policies_text",
    "xfeatures_document",
    "xfeatures_text",
]

_RULES = (
    "restores_guest_only",
    "guest_allocation",
    "xfeature_max",
    "apx_excludes_mpx",
    "sizes_by_offset",
    "kvm_drops_xfd",
    "permission_keeps_supervisor",
    "sigreturn_initialises_dynamic",
    "guest_xfd_waits_for_load",
    "copies_pkru_always",
    "switch_marks_next",
    "signal_updates_xfd",
    "coredump_reads_pkru",
    "independent_needs_cpuid",
    "disable_message",
    "disable_line",
    "disable_oopses",
)
_SETS = ("user", "user_dynamic", "supervisor", "guest_only", "independent", "raw_msr", "unsupported")


def _masks(row: TableRow) -> tuple[int, int]:
    """Return the XCR0 and IA32_XSS bits that a CPU enumerates."""
    eax, _, _, edx = row.leaf_d.get(0, (0, 0, 0, 0))
    _, _, low, high = row.leaf_d.get(1, (0, 0, 0, 0))
    return eax | edx << 32, low | high << 32


def cpus_document(rows: Sequence[TableRow]) -> Document:
    """Return the CPUs of the table."""
    return {
        "schema": SCHEMA,
        "cpus": [
            {
                "name": row.name,
                "aliases": list(row.aliases),
                "title": row.title,
                "vendor": row.vendor,
                "family": row.family,
                "model": row.model,
                "stepping": row.stepping,
                "year": row.year,
                "flags": sorted(row.flags),
                "xcr0": hexmask(_masks(row)[0]),
                "xss": hexmask(_masks(row)[1]),
                "confidence": row.confidence,
                "source": row.source,
            }
            for row in rows
        ],
    }


def cpus_text(rows: Sequence[TableRow]) -> str:
    """Return the CPUs of the table, one a line."""
    cells = [
        (row.name, str(row.year), *(hexmask(m) for m in _masks(row)), row.confidence, row.title, ", ".join(row.aliases))
        for row in rows
    ]
    return table(("name", "year", "XCR0", "XSS", "confidence", "title", "also"), cells, right=(1, 2, 3))


def policies_document(policies: Sequence[Policy], catalogue: Catalogue) -> Document:
    """Return the policies with their sets."""
    return {
        "schema": SCHEMA,
        "policies": {
            policy.name: {
                "title": policy.title,
                "source": policy.source,
                "since": policy.since or None,
                "until": policy.until or None,
                **{name: hexmask(getattr(policy, name)) for name in (*_SETS, "never_restored", "kvm_xcr0", "kvm_xss")},
                **{name: getattr(policy, name) for name in _RULES},
                "boot_strings": {str(bit): words for bit, words in policy.boot_strings.items()},
                "gates": {str(bit): flag for bit, flag in policy.gates.items()},
                "forced": {str(bit): list(flags) for bit, flags in policy.forced.items()},
                "names": {name: catalogue.names(getattr(policy, name)) for name in _SETS},
                "objections": list(policy.objections),
            }
            for policy in policies
        },
    }


def policies_text(policies: Sequence[Policy], catalogue: Catalogue) -> str:
    """Return the policies, a paragraph each."""
    parts = []
    for policy in policies:
        sets = [(name, getattr(policy, name)) for name in _SETS]
        lines = [f"  {name:<12} {mask:#x} {catalogue.names(mask)}" for name, mask in sets if mask]
        loads = "every fpstate" if policy.restores_guest_only == "always" else "guest fpstates alone"
        lines += [f"  {'restores':<12} guest-only state with {loads}", f"  {'source':<12} {policy.source}"]
        parts.append("\n".join([f"{policy.name}: {policy.title}", *lines]))
    return "\n\n".join(parts)


def xfeatures_document(catalogue: Catalogue) -> Document:
    """Return the catalogue."""
    return {
        "schema": SCHEMA,
        "xfeatures": [
            {
                "bit": row.bit,
                "name": row.name,
                "kernel_name": row.kernel_name,
                "boot_string": row.boot_string,
                "size": row.size,
                "supervisor": row.supervisor,
                "aligned": row.aligned,
                "xfd": row.xfd,
                "flag": row.flag,
                "role": row.role,
                "placements": [
                    {"offset": place.offset, "size": place.size, "who": place.who} for place in row.placements
                ],
                "source": row.source,
            }
            for row in catalogue
        ],
    }


def xfeatures_text(catalogue: Catalogue) -> str:
    """Return the catalogue, one component a line."""
    cells = [
        (
            str(row.bit),
            row.name,
            row.kernel_name,
            str(row.size),
            "supervisor" if row.supervisor else "user",
            " ".join(word for word, on in (("aligned", row.aligned), ("XFD", row.xfd)) if on),
            row.flag or "",
            row.role,
            ", ".join(f"{place.offset} ({place.who})" for place in row.placements),
        )
        for row in catalogue
    ]
    headers = ("bit", "name", "Linux", "bytes", "kind", "", "flag", "role", "standard offset")
    return table(headers, cells, right=(0, 3))
