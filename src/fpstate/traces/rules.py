"""What Linux promises about the events of its FPU code, a row each: `fpstate.traces.check` holds recordings to it.

The wording is what Linux 6.18 was seen to keep over millions of events; where it keeps less than one would expect, the
row says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["RULES", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A promise.

    Attributes:
        name: a stable id.
        text: what holds.
        source: the function that keeps it; of Linux 6.18 unless it says otherwise.
    """

    name: str
    text: str
    source: str


_ROWS: Final = (
    Rule(
        "xcomp-format",
        "XCOMP_BV has bit 63 in every fpstate, or is 0 in every one: a kernel uses one format",
        "xstate_init_xcomp_bv()",
    ),
    Rule(
        "xstate-subset",
        "XSTATE_BV names only components that XCOMP_BV gives a place",
        "SDM volume 1, 13.8.1 and 13.12: XRSTOR and XRSTORS fault otherwise",
    ),
    Rule(
        "unknown-component",
        "masks name only components that the kernel enabled",
        "fpu__init_system_xstate(): fpu_kernel_cfg.max_features",
    ),
    Rule(
        "guest-only",
        "a guest-only component is in no ordinary task's fpstate",
        "fpu__init_system_xstate(): fpu_kernel_cfg.default_features leaves out XFEATURE_MASK_GUEST_SUPERVISOR",
    ),
    Rule(
        "task-xcomp",
        "a task's XCOMP_BV is the default features, and the dynamic ones that it has used",
        "fpstate_reset(), fpstate_realloc()",
    ),
    Rule(
        "guest-xcomp",
        "a guest's XCOMP_BV is the guest default features, and the dynamic ones that its VMM enabled",
        "fpu_alloc_guest_fpstate(), fpu_enable_guest_xfd_features()",
    ),
    Rule(
        "child-xcomp",
        "a forked task's XCOMP_BV is the default features: dynamic components are not inherited",
        "fpu_clone()",
    ),
    Rule(
        "not-owner",
        "what is saved on a CPU is the state that was last loaded there: no other was loaded or dropped in between",
        "switch_fpu(), fpregs_state_valid()",
    ),
    Rule(
        "lazy-restore",
        "a state that was last in another CPU's registers is loaded before it is saved: loading is skipped only where "
        "owner and last CPU agree",
        "fpregs_state_valid()",
    ),
    Rule(
        "never-loaded",
        "a forked task's state is loaded before it is saved",
        "fpu_clone(): last_cpu = -1, TIF_NEED_FPU_LOAD",
    ),
    Rule(
        "dropped-alone",
        "an exiting task's registers are given up (deactivated) on the CPU where they are, and then dropped",
        "fpu__drop()",
    ),
    Rule(
        "after-dropped",
        "of a dropped state nothing comes but its last save, on the same CPU, when its dead task is switched out; then "
        "its memory is another task's, from copy_dst or activated on",
        "fpu__drop() leaves TIF_NEED_FPU_LOAD clear, so that switch_fpu() saves once more",
    ),
    Rule(
        "sync-pair",
        "before_save and after_save of an fpstate follow one another on one CPU",
        "fpu_sync_fpstate()",
    ),
    Rule(
        "kvm-balance",
        "a thread's kvm_fpu load and unload alternate",
        "kvm_load_guest_fpu(), kvm_put_guest_fpu()",
    ),
    Rule(
        "swap-activated",
        "each kvm_fpu load and unload follows an activated of its thread: the swap loaded the registers",
        "fpu_swap_kvm_fpstate(); 5.2 and later",
    ),
)

RULES: Final = {rule.name: rule for rule in _ROWS}
"""By id, the masks' rules first."""
