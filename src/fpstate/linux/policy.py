"""Policies: how a Linux design splits the xfeatures into sets, and the few rules in which designs differ.

The shipped ones are rows of ``data/policies.toml``; a user's own file has the same form and may build on them.  A
`Policy` holds masks, so that every rule is arithmetic on them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from fpstate import toml
from fpstate.cpu.flags import FLAGS
from fpstate.errors import UnreadableInput, UsageError
from fpstate.xfeatures import CATALOGUE, Catalogue, Xfeature, bits

__all__ = ["DEFAULT", "Policy", "find", "for_release", "load_file", "own", "shipped", "table"]

DEFAULT: Final = "linux-6.18"
"""The policy that is meant if none is named."""

_SETS: Final = (
    "user",
    "user_dynamic",
    "supervisor",
    "guest_only",
    "independent",
    "raw_msr",
    "unsupported",
    "never_restored",
    "kvm_xcr0",
    "kvm_xss",
)
_FLAGS: Final = (
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
    "disable_line",
    "disable_oopses",
)
_CHOICES: Final = {"restores_guest_only": ("always", "guest"), "guest_allocation": ("guest", "user-default")}
_TEXTS: Final = ("title", "source", "disable_message", "since", "until")
_OWN: Final = frozenset({"title", "source", "objections", "since", "until"})
_TABLES: Final = ("boot_strings", "gates", "forced")
_OTHERS: Final = (*_TABLES, "base", "xfeature_max", "objections")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One design.  Masks are over component bits; what a CPU lacks drops out at `fpstate.linux.boot`.

    Attributes:
        name, title, source, objections: what it is, from whom, and what was said against it.
        user: XFEATURE_MASK_USER_SUPPORTED.
        user_dynamic: the part of *user* that waits for permission and first use (XFEATURE_MASK_USER_DYNAMIC).
        supervisor: supervisor components of every task's fpstate.
        guest_only: supervisor components of guest fpstates alone (KERNEL_DYNAMIC, then GUEST_SUPERVISOR).
        independent: enabled in IA32_XSS, in no fpstate (XFEATURE_MASK_INDEPENDENT).
        raw_msr: not enabled in IA32_XSS; KVM moves the MSRs itself.
        unsupported: known and masked out.
        never_restored: kept out of every XRSTOR of the core (PKRU, which is switched eagerly).
        kvm_xcr0, kvm_xss: KVM_SUPPORTED_XCR0 and KVM_SUPPORTED_XSS.
        restores_guest_only: ``"always"`` if loading a task's fpstate puts guest-only state into its initial state,
            ``"guest"`` if only guest fpstates restore it.
        xfeature_max: XFEATURE_MAX; the table of gating flags ends below it.
        boot_strings, gates: where this kernel's table differs from the catalogue's; gate None means no entry.
        forced: bits that are set again, unchecked, if any of their flags is set (v8 patch 02).
        apx_excludes_mpx: both enumerated disables XSAVE (6.16).
        sizes_by_offset: the component with the greatest standard offset ends the area (6.16), not the highest bit.
        kvm_drops_xfd: KVM_SET_XSAVE clears in XSTATE_BV what the guest's IA32_XFD disables (6.19, Jan 2026).
        permission_keeps_supervisor: ARCH_REQ_XCOMP_PERM leaves the supervisor components in ``__state_perm`` (6.16).
        sigreturn_initialises_dynamic: sigreturn initialises dynamic components that the task's fpstate has no room for
            (no release does: see docs/explanation/the-proof.md).
        guest_xfd_waits_for_load: a guest's new IA32_XFD goes to the MSR only while the guest's registers are loaded
            (no release waits).
        copies_pkru_always: regsets and KVM_GET_XSAVE show PKRU even if the image's XSTATE_BV lacks it (no release).
        switch_marks_next: a context switch sets TIF_NEED_FPU_LOAD of the task that comes (until 6.15), not of the
            one that goes.
        signal_updates_xfd: fpu__clear_user_states() writes IA32_XFD first (6.18, stable since Nov 2025).
        coredump_reads_pkru: a core dump takes PKRU of the register, not of ``thread.pkru`` (no release).
        independent_needs_cpuid: IA32_XSS gets an independent bit only if CPUID enumerates it (Aug 2024).
        guest_allocation: what the guest fpstate's buffer is sized by: ``"guest"`` its own features, or
            ``"user-default"`` the standard-format user size, which can be too small (until Feb 2025).
        disable_message: what older kernels append to the message of a disable path.
        disable_line: the disable path prints ``x86/fpu: XSAVE disabled`` (6.16).
        disable_oopses: with CONFIG_X86_DEBUG_FPU the disable path dereferences NULL (seen on 7.2.13).
        since, until: the releases whose kernels behave so; empty for designs that were never a release.
    """

    name: str
    title: str
    source: str
    objections: tuple[str, ...] = ()
    user: int
    user_dynamic: int
    supervisor: int
    guest_only: int
    independent: int
    raw_msr: int
    unsupported: int
    never_restored: int
    kvm_xcr0: int
    kvm_xss: int
    restores_guest_only: str
    xfeature_max: int
    boot_strings: Mapping[int, str]
    gates: Mapping[int, str | None]
    forced: Mapping[int, tuple[str, ...]]
    apx_excludes_mpx: bool
    sizes_by_offset: bool
    kvm_drops_xfd: bool
    permission_keeps_supervisor: bool
    sigreturn_initialises_dynamic: bool
    guest_xfd_waits_for_load: bool
    copies_pkru_always: bool
    switch_marks_next: bool
    signal_updates_xfd: bool
    coredump_reads_pkru: bool
    independent_needs_cpuid: bool
    guest_allocation: str
    disable_message: str
    disable_line: bool
    disable_oopses: bool
    since: str
    until: str

    @property
    def supervisor_supported(self) -> int:
        """XFEATURE_MASK_SUPERVISOR_SUPPORTED: what fpstates of either kind may hold."""
        return self.supervisor | self.guest_only

    @property
    def fpstate(self) -> int:
        """XFEATURE_MASK_FPSTATE: what a restore of an fpstate may touch."""
        return (self.user | self.supervisor_supported) & ~self.never_restored


def _rows(rows: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    for key, row in rows.items():
        if not isinstance(row, dict):
            raise UnreadableInput(f"{path}: {key} must be a table, [{key}]")
        split = next((name for name, value in row.items() if isinstance(value, dict) and name not in _TABLES), None)
        if split is not None:
            raise UnreadableInput(
                f"{path}: [{key}.{split}] is a table in a table",
                cure=f'a name with a dot needs quotes: ["{key}.{split}"]',
            )
    return rows


@cache
def _shipped_rows() -> dict[str, dict[str, Any]]:
    path = str(Path(__file__).parent.parent / "data" / "policies.toml")
    return _rows(toml.load(path, "policies"), path)


@cache
def shipped(catalogue: Catalogue = CATALOGUE) -> dict[str, Policy]:
    """Return the shipped policies by name, in the order of the debate."""
    rows = _shipped_rows()
    policies = (_build(key, rows, catalogue, "policies.toml") for key in rows)
    return {policy.name: policy for policy in policies}


def load_file(path: str | os.PathLike[str], catalogue: Catalogue = CATALOGUE) -> dict[str, Policy]:
    """Return the policies of a user's TOML file by name; they may name shipped ones as their ``base``.

    Raises:
        UnreadableInput: the file cannot be read or is not TOML.
        UsageError: it holds no policy, or a key, a component or a base is not known; names the policy and the key.
    """
    path = os.fspath(path)
    theirs = _rows(toml.load(path, "policies"), path)
    if not theirs:
        raise UsageError(f"{path} holds no policy", cure='give one as a table: ["my-policy"]')
    rows = {**_shipped_rows(), **theirs}
    policies = [_build(key, rows, catalogue, path) for key in theirs]
    return {policy.name: policy for policy in policies}


def own(path: str | None, catalogue: Catalogue = CATALOGUE) -> dict[str, Policy]:
    """Return the policies of the file at *path*, or none if it is None."""
    return load_file(path, catalogue) if path is not None else {}


def table(path: str | None, catalogue: Catalogue = CATALOGUE) -> dict[str, Policy]:
    """Return the shipped policies and those of the user's file at *path*, which replace shipped ones of their name."""
    return {**shipped(catalogue), **own(path, catalogue)}


def find(name: str, policies: Mapping[str, Policy] | None = None) -> Policy:
    """Return the policy called *name*; a release such as ``6.12`` names the one that its kernels follow.

    Raises:
        UsageError: there is none; names those there are.
    """
    known = shipped() if policies is None else policies
    folded = {key.lower().replace("_", "-"): policy for key, policy in known.items()}
    policy = folded.get(name.lower().replace("_", "-"))
    if policy is None and _version(name):
        nearest, _ = for_release(name)
        policy = known.get(nearest.name)  # with the user's components in it
    if policy is None:
        raise UsageError(f"{name!r} is not a policy", cure=f"policies are {', '.join(known)}")
    return policy


def for_release(release: str) -> tuple[Policy, str | None]:
    """Return the policy of a kernel *release* such as ``6.18.44-1``, and a remark if it is only the nearest.

    Raises:
        UsageError: *release* does not begin with a version number.
    """
    version = _version(release)
    if version is None:
        raise UsageError(f"{release!r} is not a kernel release: it must begin like 6.18")
    dated = [p for p in shipped().values() if p.since]
    for policy in dated:
        first, last = _version(policy.since), _version(policy.until)
        if first and last and first <= version <= last:
            return policy, None
    oldest = min(dated, key=lambda p: _version(p.since) or (0, 0))
    newest = max(dated, key=lambda p: _version(p.until) or (0, 0))
    if version < (_version(oldest.since) or (0, 0)):
        return oldest, f"kernel {release} is older than {oldest.since}: {oldest.name} is the nearest policy"
    return newest, f"kernel {release} is newer than {newest.until}: {newest.name} is the nearest policy"


def _version(release: str) -> tuple[int, int] | None:
    parts = release.split("-", 1)[0].split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    return int(parts[0]), int(parts[1])


def _build(key: str, rows: Mapping[str, Mapping[str, Any]], catalogue: Catalogue, where: str) -> Policy:
    merged = _merge(key, rows, where)
    unknown = set(merged) - {*_SETS, *_FLAGS, *_CHOICES, *_TEXTS, *_OTHERS}
    if unknown:
        raise UsageError(f"{where}: policy {key} has the unknown key {min(unknown)!r}")
    missing = {*_SETS, *_FLAGS, *_CHOICES, *_TEXTS, "xfeature_max"} - set(merged)
    if missing:
        raise UsageError(
            f"{where}: policy {key} lacks {min(missing)!r}", cure=f'take it from another: base = "{DEFAULT}"'
        )
    sets: dict[str, Any] = {name: _set(merged[name], catalogue, f"{where}: policy {key}, {name}") for name in _SETS}
    _typed(merged, key, where)
    policy = Policy(
        name=key,
        **sets,
        **{name: merged[name] for name in (*_FLAGS, *_CHOICES, *_TEXTS)},
        objections=tuple(map(str, merged.get("objections", ()))),
        xfeature_max=merged["xfeature_max"],
        boot_strings={_bit(c, catalogue, where): text for c, text in merged.get("boot_strings", {}).items()},
        gates={_bit(c, catalogue, where): flag or None for c, flag in merged.get("gates", {}).items()},
        forced={_bit(c, catalogue, where): tuple(flags) for c, flags in merged.get("forced", {}).items()},
    )
    _check(policy, where)
    _check_flags(policy, catalogue, where)
    return _with_roles(policy, catalogue)


def _merge(key: str, rows: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, Any]:
    chain: list[Mapping[str, Any]] = []
    seen: set[str] = set()
    at = key
    while True:
        if at not in rows:
            raise UsageError(f"{where}: policy {key} builds on {at!r}, which is not a policy")
        if at in seen:
            raise UsageError(f"{where}: policy {key} builds on itself")
        seen.add(at)
        chain.append(rows[at])
        base = rows[at].get("base")
        if base is None:
            break
        if not isinstance(base, str):
            raise UsageError(f"{where}: policy {key}, base must be the name of a policy, not {base!r}")
        at = base
    # What a design is called, who proposed it and what was said against it is not handed down.
    merged: dict[str, Any] = {"title": key, "source": where, "objections": [], "since": "", "until": ""}
    for row in reversed(chain[1:]):
        merged.update({name: value for name, value in row.items() if name not in _OWN})
    return {**merged, **rows[key]}


def _typed(merged: Mapping[str, Any], key: str, where: str) -> None:
    """Refuse a value of the wrong type, naming the key."""
    kinds: dict[str, tuple[type, str]] = dict.fromkeys(_FLAGS, (bool, "true or false"))
    kinds |= dict.fromkeys(_TEXTS, (str, "text"))
    kinds |= dict.fromkeys(_TABLES, (dict, "a table"))
    kinds |= {"objections": (list, "a list of texts"), "xfeature_max": (int, "a number")}
    for name, (kind, words) in kinds.items():
        if name in merged and not isinstance(merged[name], kind):
            raise UsageError(f"{where}: policy {key}, {name} must be {words}, not {merged[name]!r}")
    for name in _TABLES:
        for component, value in merged.get(name, {}).items():
            _typed_entry(name, value, f"{where}: policy {key}, {name}.{component}")
    for name, choices in _CHOICES.items():
        if merged[name] not in choices:
            raise UsageError(f"{where}: policy {key}, {name} must be {' or '.join(choices)}, not {merged[name]!r}")
    if not 2 <= merged["xfeature_max"] <= 63:
        raise UsageError(f"{where}: policy {key}, xfeature_max must be 2 to 63, not {merged['xfeature_max']}")


def _typed_entry(name: str, value: object, where: str) -> None:
    flags = value if name == "forced" else [value]
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        raise UsageError(f"{where} must be {'a list of flags' if name == 'forced' else 'text'}, not {value!r}")


def _set(names: object, catalogue: Catalogue, where: str) -> int:
    if not isinstance(names, list):
        raise UsageError(f"{where} must be a list of components, not {names!r}")
    mask = 0
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"{where}: {name!r} must be the name of a component")
        try:
            mask |= catalogue.parse_mask(name, everything=0)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
    return mask


def _bit(name: str, catalogue: Catalogue, where: str) -> int:
    try:
        return catalogue.parse_bit(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _check_flags(policy: Policy, catalogue: Catalogue, where: str) -> None:
    """Refuse a flag that no CPU can have: its component would never be there."""
    known = FLAGS.keys() | {row.flag for row in catalogue}
    named = {*policy.gates.values(), *(flag for flags in policy.forced.values() for flag in flags)}
    for flag in sorted(name for name in named if name is not None and name not in known):
        raise UsageError(
            f"{where}: policy {policy.name} names {flag!r}, which is no CPU flag",
            cure='write it as Linux does without X86_FEATURE_, such as "SHSTK"; "" is no gate',
        )


def _check(policy: Policy, where: str) -> None:
    """Refuse sets that contradict each other: a component has one home."""
    homes = ("user", "supervisor", "guest_only", "independent", "raw_msr", "unsupported")
    for i, first in enumerate(homes):
        for second in homes[i + 1 :]:
            both = getattr(policy, first) & getattr(policy, second)
            if both:
                bit = next(bits(both))
                raise UsageError(f"{where}: policy {policy.name} puts component {bit} into {first} and {second}")
    loose = policy.user_dynamic & ~policy.user
    if loose:
        raise UsageError(f"{where}: policy {policy.name}: user_dynamic component {next(bits(loose))} is not in user")


def _with_roles(policy: Policy, catalogue: Catalogue) -> Policy:
    """Add the user's own components to the set that their row names, where the policy is silent about them."""
    placed = policy.user | policy.supervisor_supported | policy.independent | policy.raw_msr | policy.unsupported
    own = [row for row in catalogue if not placed & row.mask and row.role != "unknown" and row.bit not in CATALOGUE]
    if not own:
        return policy
    for row in own:
        policy = replace(policy, **_placed(policy, row))
    return policy


def _placed(policy: Policy, row: Xfeature) -> dict[str, Any]:
    fields = {
        "user": ("user", "kvm_xcr0"),
        "user-dynamic": ("user", "user_dynamic", "kvm_xcr0"),
        "supervisor": ("supervisor",),
        "guest-only": ("guest_only", "kvm_xss"),
        "independent": ("independent",),
        "unsupported": ("unsupported",),
    }[row.role]
    changed = {name: getattr(policy, name) | row.mask for name in fields}
    changed["xfeature_max"] = max(policy.xfeature_max, row.bit + 1)
    return changed
