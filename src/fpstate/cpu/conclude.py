"""From what an input says to a `Cpu`: every conclusion in one place.

What an input leaves out is either deduced, and marked so, from the places that real CPUs use and that fit the sizes
which the input does show, or it stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fpstate.cpu.dump import BootLog, Dump, log_only
from fpstate.cpu.model import Component, Cpu
from fpstate.cpu.places import choose
from fpstate.errors import CannotTell, printable
from fpstate.xfeatures import CATALOGUE, COMPACTED, LEGACY, XTILEDATA, Catalogue, Xfeature, bits, component_mask

__all__ = ["conclude"]


def conclude(
    dump: Dump,
    *,
    name: str,
    source: str,
    catalogue: Catalogue = CATALOGUE,
) -> Cpu:
    """Conclude a CPU from *dump*.

    Args:
        dump: CPUID leaves, or the lines of a boot log.
        name: what to call the CPU.
        source: where it comes from, in words.
        catalogue: the components known, with the user's own.

    Raises:
        CannotTell: the dump is a CPU template, or has no leaf 0DH although the CPU may have XSAVE.
    """
    name, source = printable(name), printable(source)
    if dump.modifiers:
        raise CannotTell(
            f"{name} is a CPU template: it changes a CPU, it is not one",
            cure="name the CPU that it is applied to: --base zen4, --base FILE",
        )
    if dump.boot_log and log_only(dump.leaves, dump.boot_log):
        return _from_boot_log(dump, dump.boot_log, name, source, catalogue)
    from fpstate.cpu import flags as cpu_flags  # noqa: PLC0415  what has no CPUID to conclude from does without

    present, unknown = cpu_flags.decode(dump.leaves)
    reaches = dump.leaves.get((0, 0), (0xD,))[0] >= 0xD
    if (0xD, 0) not in dump.leaves and "XSAVE" in present | unknown and reaches:
        raise CannotTell(f"{name} shows no CPUID leaf 0DH", cure="dump all leaves, with 'cpuid -1 -r' say")
    xcr0, xss, all_size = _masks(dump)
    shown, missing, unread = _read_subleaves(dump, (xcr0 | (xss or 0)) & ~LEGACY, xss or 0)
    deduced, guesses = _deduce(missing | unread, shown, xcr0, all_size, catalogue)
    if xss is None:
        guesses.insert(0, "supervisor components are not known: sub-leaf 1 is not in the input")
    return Cpu(
        name=name,
        source=source,
        leaves=dump.leaves,
        xcr0_mask=xcr0,
        xss_mask=xss,
        components=dict(sorted({**shown, **deduced}.items())),
        flags=present,
        flags_unknown=unknown,
        missing=missing,
        unread=unread,
        boot_log=dump.boot_log,
        dump=dump,
        guesses=(*dump.guesses, *guesses),
        notes=dump.notes,
        catalogue=catalogue,
    )


def _masks(dump: Dump) -> tuple[int, int | None, int]:
    """Return the XCR0 and IA32_XSS bits that CPUID enumerates (None if not shown) and CPUID.0DH.0:ECX."""
    eax, _, ecx, edx = dump.leaves.get((0xD, 0), (0, 0, 0, 0))
    xcr0 = component_mask(eax, edx)
    if (0xD, 0) not in dump.leaves:
        return xcr0, 0, ecx
    if (0xD, 1) not in dump.leaves:
        return xcr0, None, ecx
    sub1 = dump.leaves[0xD, 1]
    return xcr0, component_mask(sub1[2], sub1[3]), ecx


def _read_subleaves(dump: Dump, mask: int, xss: int) -> tuple[dict[int, Component], int, int]:
    """Return the components that *dump* shows, and the masks of those it misses and of those left unread."""
    shown: dict[int, Component] = {}
    missing = unread = 0
    for bit in bits(mask):
        registers = dump.leaves.get((0xD, bit))
        if registers is None:
            missing |= 1 << bit
        elif not any(registers) and dump.zeros_unread:
            unread |= 1 << bit
        else:
            size, offset, attributes, _ = registers
            supervisor = bool(attributes & 1) or bool(xss >> bit & 1 and not any(registers))
            place = None if supervisor or (xss >> bit & 1 and not offset) else offset
            shown[bit] = Component(bit, size, place, supervisor, bool(attributes & 2), bool(attributes & 4))
    return shown, missing, unread


def _deduce(
    wanted: int, shown: Mapping[int, Component], xcr0: int, all_size: int, catalogue: Catalogue
) -> tuple[dict[int, Component], list[str]]:
    """Place the components in *wanted*, which the input does not show, by what it does show.

    Returns the components and a guess for each, which says what it was taken from.
    """
    found: dict[int, Component] = {}
    guesses: list[str] = []
    user: list[Xfeature] = []
    for bit in bits(wanted):
        row = catalogue.get(bit)
        if row is None:
            guesses.append(f"component {bit}: not in the input, and fpstate does not know the component")
        elif xcr0 >> bit & 1:
            user.append(row)
        else:
            found[bit] = _by_catalogue(row)
            guesses.append(f"component {bit} ({row.name}): not in the input; {row.size} bytes as on known CPUs")
    places, rivals = choose(user, shown, all_size)
    for row, place in zip(user, places, strict=True):
        if place is None:
            found[row.bit] = _by_catalogue(row)
            guesses.append(f"component {row.bit} ({row.name}): not in the input; {row.size} bytes as on known CPUs")
            continue
        found[row.bit] = Component(
            row.bit, place.size, place.offset, row.supervisor, row.aligned, row.xfd, origin="deduced"
        )
        guess = f", a guess: {rivals} other layouts fit too" if rivals else ""
        guesses.append(
            f"component {row.bit} ({row.name}): not in the input; "
            f"{place.size} bytes at {place.offset} as on {place.who}{guess}"
        )
    return found, guesses


def _by_catalogue(row: Xfeature) -> Component:
    return Component(row.bit, row.size, None, row.supervisor, row.aligned, row.xfd, origin="catalogue")


def _from_boot_log(dump: Dump, log: BootLog, name: str, source: str, catalogue: Catalogue) -> Cpu:
    """Conclude what a boot log can tell: the enabled components, their sizes, and places in the log's own format."""
    known = {row.bit: row for row in catalogue}
    supervisor = sum(1 << bit for bit, row in known.items() if row.supervisor and log.features >> bit & 1)
    xcr0 = log.features & ~supervisor & ~COMPACTED
    printed_offsets_are_standard = log.compacted is False
    offsets = _only_places(xcr0, known, dump.label or "")
    shown: dict[int, Component] = {}
    for bit, (offset, size) in log.components.items():
        row = known.get(bit)
        shown[bit] = Component(
            bit,
            size,
            offset if printed_offsets_are_standard else offsets.get(bit),
            bool(row and row.supervisor),
            bool(row and row.aligned),
            bool(row and row.xfd),
            origin="boot log",
        )
    rest = log.features & ~LEGACY & ~sum(1 << bit for bit in shown)
    deduced, guesses = _deduce(rest, shown, xcr0, log.context_size if log.compacted is not True else 0, catalogue)
    deduced = {bit: replace(c, offset=offsets.get(bit)) if c.offset is None else c for bit, c in deduced.items()}
    components = dict(sorted({**shown, **deduced}.items()))
    gates = {known[bit].flag for bit in bits(log.features) if bit in known}
    if "OSPKE" in gates:
        gates.add("PKU")
    format_flags = {"XSAVEC"} if log.compacted else set()
    if supervisor:
        format_flags.add("XSAVES")
    if log.features >> XTILEDATA & 1:
        format_flags |= {"XGETBV1", "XSAVES", "XFD"}  # or the kernel would not have kept it
    return Cpu(
        name=name,
        source=source,
        xcr0_mask=xcr0,
        xss_mask=supervisor,
        components=components,
        flags=frozenset({"FPU", "FXSR", "XMM", "XSAVE", *format_flags, *(g for g in gates if g)}),
        flags_unknown=frozenset({"XSAVEOPT", "XGETBV1", "XSAVEC", "XSAVES", "XFD"} - format_flags),
        boot_log=log,
        dump=dump,
        guesses=(*dump.guesses, *guesses),
        notes=(
            *dump.notes,
            "a boot log shows only what the kernel enabled: other components of the CPU are not known",
        ),
        catalogue=catalogue,
    )


def _only_places(xcr0: int, known: Mapping[int, Xfeature], label: str) -> dict[int, int]:
    """Return the standard offsets that follow from the vendor in *label*, and from which components are there.

    MPX and AMX are Intel's, say.  Only if one family of layouts alone has a place for all of them; else just for those
    that lie alike everywhere.
    """
    rows = [known[bit] for bit in bits(xcr0) if bit in known]
    vendor = next((name for name in ("AMD", "Intel") if name in label), "")
    families = {place.layout for row in rows for place in row.placements if vendor in place.who} - {"all"}
    complete = [f for f in families if all(any(p.layout in {f, "all"} for p in row.placements) for row in rows)]
    allowed = {"all", *complete} if len(complete) == 1 else {"all"}
    return {row.bit: place.offset for row in rows for place in row.placements if place.layout in allowed}
