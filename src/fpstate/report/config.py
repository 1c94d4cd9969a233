"""A boot's configuration as text and as a document."""

from __future__ import annotations

from fpstate.linux.abi import Frame, UserAbi, user_abi
from fpstate.linux.config import BootConfig, StateConfig
from fpstate.linux.kvm import KvmView, kvm_view
from fpstate.report import SCHEMA, Document, hexmask
from fpstate.report.tables import bold, table, warn, wrapped

__all__ = ["document", "text"]

FCW_INIT, MXCSR_INIT = 0x37F, 0x1F80
"""What init_fpstate holds besides zeros (Linux fpstate_init_user())."""


def document(config: BootConfig) -> Document:
    """Return everything about *config*."""
    abi, kvm = user_abi(config), kvm_view(config)
    return {
        "schema": SCHEMA,
        "cpu": config.cpu.name,
        "source": config.cpu.source,
        "policy": config.policy.name,
        "cmdline": config.parameters.text,
        "kernel": {
            **_state(config.kernel),
            "independent_features": hexmask(config.kernel.independent_features),
        },
        "user": {**_state(config.user), "legacy_features": hexmask(config.user.legacy_features)},
        "guest": {
            "features": hexmask(config.guest.features),
            "size": config.guest.size,
            "allocated": config.guest.allocated,
        },
        "xcr0": hexmask(config.xcr0),
        "xss": hexmask(config.xss),
        "xfd": hexmask(config.xfd),
        "compacted": config.compacted,
        "fate": config.fate,
        "xsave_disabled": config.xsave_disabled,
        "panic": config.panic,
        "instructions": {"save": config.save_instruction, "restore": config.restore_instruction},
        "rfbm": {
            "task_save": hexmask(config.save_rfbm),
            "task_restore": hexmask(config.restore_rfbm),
            "guest_save": hexmask(config.guest_save_rfbm),
            "guest_restore": hexmask(config.guest_restore_rfbm),
        },
        "init_fpstate": {
            "size": config.kernel.default_size,
            "xstate_bv": hexmask(0),
            "xcomp_bv": hexmask(config.task_xcomp_bv),
            "fcw": hexmask(FCW_INIT),
            "mxcsr": hexmask(MXCSR_INIT),
        },
        "task_xcomp_bv": hexmask(config.task_xcomp_bv),
        "guest_xcomp_bv": hexmask(config.guest_xcomp_bv),
        "user_abi": _abi(abi),
        "kvm": _kvm(kvm),
        "boot_log": list(config.boot_log),
        "assumptions": list(config.assumptions),
        "notes": list(config.cpu.remarks),
    }


def _state(state: StateConfig) -> Document:
    return {
        "max_features": hexmask(state.max_features),
        "default_features": hexmask(state.default_features),
        "max_size": state.max_size,
        "default_size": state.default_size,
    }


def _frame(frame: Frame | None) -> Document | None:
    if frame is None:
        return None
    return {
        "xfeatures": hexmask(frame.xfeatures),
        "xstate_size": frame.xstate_size,
        "extended_size": frame.extended_size,
    }


def _abi(abi: UserAbi) -> Document:
    return {
        "max_sigframe": abi.max_sigframe,
        "at_minsigstksz": abi.minsigstksz,
        "frame": _frame(abi.frame),
        "frame_dynamic": _frame(abi.frame_dynamic),
        "altstack_min": abi.altstack_min,
        "altstack_min_permitted": abi.altstack_min_permitted,
        "ptrace_regset_size": abi.regset_size,
        "ptrace_regset_xfeatures": hexmask(abi.regset_xfeatures),
        "xcomp_supp": hexmask(abi.xcomp_supp),
        "xcomp_perm": hexmask(abi.xcomp_perm),
        "xcomp_guest_perm": hexmask(abi.xcomp_guest_perm),
        "xcomp_perm_after": hexmask(abi.xcomp_perm_after),
    }


def _kvm(kvm: KvmView) -> Document:
    return {
        "supported_xcr0": hexmask(kvm.supported_xcr0),
        "permitted_xcr0": hexmask(kvm.permitted_xcr0),
        "supported_xss": hexmask(kvm.supported_xss),
        "cap_xsave2": kvm.cap_xsave2,
        "cap_xsave2_permitted": kvm.cap_xsave2_permitted,
        "allocation": kvm.allocation,
        "allocation_pages": kvm.allocation_pages,
        "overrun": kvm.overrun,
    }


def text(config: BootConfig) -> str:
    """Return the configuration as tables, and the boot log."""
    names = config.cpu.catalogue.names
    parts = [bold(f"{config.policy.name} on {config.cpu.name}") + f" ({config.policy.title})"]
    if config.xsave_disabled:
        parts.append(warn("XSAVE is not in use: ") + config.xsave_disabled)
    if config.panic:
        parts.append(warn("the kernel panics: ") + config.panic)
    kernel, user, guest = config.kernel, config.user, config.guest
    rows = [
        ("kernel maximum", hexmask(kernel.max_features), str(kernel.max_size), names(kernel.max_features)),
        ("kernel default: a task", hexmask(kernel.default_features), str(kernel.default_size), ""),
        ("guest default: a vCPU", hexmask(guest.features), str(guest.size), ""),
        ("user maximum", hexmask(user.max_features), str(user.max_size), names(user.max_features)),
        ("user default", hexmask(user.default_features), str(user.default_size), ""),
    ]
    parts.append(table(("set", "features", "bytes", ""), rows, right=(1, 2)))
    parts.append(table((), _facts(config)))
    parts.append("boot log:\n" + "\n".join(f"  {line}" for line in config.boot_log))
    remarks = (*config.assumptions, *config.cpu.remarks)
    if remarks:
        parts.append("taken for granted:\n" + "\n".join(map(wrapped, remarks)))
    return "\n\n".join(parts)


def _facts(config: BootConfig) -> list[tuple[str, str]]:
    abi, kvm = user_abi(config), kvm_view(config)
    names = config.cpu.catalogue.names
    form = "compacted" if config.compacted else "standard"
    rows = [
        ("XCR0", f"{config.xcr0:#x} {names(config.xcr0)}"),
        ("IA32_XSS", f"{config.xss:#x} {names(config.xss)}"),
        ("IA32_XFD at first", f"{config.xfd:#x} {names(config.xfd)}"),
        ("format", f"{form}, {config.save_instruction} and {config.restore_instruction}"),
        ("XCOMP_BV", f"task {config.task_xcomp_bv:#x}, guest {config.guest_xcomp_bv:#x}"),
        ("save RFBM", f"task {config.save_rfbm:#x}, guest {config.guest_save_rfbm:#x}"),
        ("restore RFBM", f"task {config.restore_rfbm:#x}, guest {config.guest_restore_rfbm:#x}"),
        ("signal frame", _frame_words(abi.frame)),
    ]
    if abi.frame_dynamic:
        rows.append(("  dynamic in use", _frame_words(abi.frame_dynamic)))
    rows += [
        ("largest frame", f"{abi.max_sigframe} bytes, also AT_MINSIGSTKSZ"),
        ("smallest altstack", _altstack(abi)),
        ("NT_X86_XSTATE", "none" if abi.regset_size is None else f"{abi.regset_size} bytes"),
        ("arch_prctl", f"SUPP {abi.xcomp_supp:#x}, PERM {abi.xcomp_perm:#x}, GUEST_PERM {abi.xcomp_guest_perm:#x}"),
        ("KVM_CAP_XSAVE2", _cap(kvm)),
        ("guest fpstate buffer", f"{kvm.allocation} bytes, {kvm.allocation_pages} page(s)"),
    ]
    if kvm.overrun:
        rows.append(("", warn(f"{kvm.overrun} bytes too small for the image")))
    return rows


def _frame_words(frame: Frame) -> str:
    return f"xfeatures {frame.xfeatures:#x}, xstate_size {frame.xstate_size}, extended_size {frame.extended_size}"


def _altstack(abi: UserAbi) -> str:
    after = f", {abi.altstack_min_permitted} once AMX is permitted" if abi.altstack_min_permitted else ""
    return f"{abi.altstack_min} bytes{after}"


def _cap(kvm: KvmView) -> str:
    permitted = f", {kvm.cap_xsave2_permitted} once AMX is permitted to guests"
    return f"{kvm.cap_xsave2}{permitted if kvm.cap_xsave2 != kvm.cap_xsave2_permitted else ''}"
