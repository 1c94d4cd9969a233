"""The debate in numbers: where one supervisor component lives under each policy, on one CPU.

`compare` boots every policy on the CPU and works out, from the sets and the sizes alone, what the designs argue
about.  The component is CET_S, unless another is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fpstate.cpu.model import Cpu
from fpstate.errors import UsageError
from fpstate.layout import hidden_by_alignment
from fpstate.linux.abi import UserAbi, user_abi
from fpstate.linux.boot import boot
from fpstate.linux.config import CACHE_LINE, BootConfig
from fpstate.linux.kvm import KvmView, kvm_view
from fpstate.linux.policy import Policy
from fpstate.xfeatures import LAST

__all__ = ["DEBATE", "Column", "Comparison", "Home", "compare"]

DEBATE: Final = ("linux-6.7", "cet-v8", "linux-6.18", "default-on", "independent", "raw-msr", "resident")
"""The policies that `compare` lays side by side if none are named."""

CET_S: Final = 12
MSR_SIZE: Final = 8

Home = Literal["nowhere", "every fpstate", "fpstates on permission", "guest fpstates", "own buffer", "MSRs"]
"""Where a component lives: in no buffer; in every task's and guest's; in those of processes that were permitted to use
it, and used it; in guests' alone; in a buffer outside the core's management; in registers that KVM reads and writes one
by one."""

After = Literal["initial", "the task's", "the guest's", "as KVM leaves them", "switched apart", "untouched"]
"""What the component's registers hold once a task's fpstate was loaded after a guest's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One policy's side of the table.  Sizes are bytes, masks are component bits.

    Attributes:
        policy, config, abi, kvm: what was booted, and what follows from it.
        home: where the component lives.
        task_size, guest_size: of a new task's and a new vCPU's fpstate image.
        task_cost, guest_cost: what the component adds to each.
        task_hidden, guest_hidden: bytes of the component that alignment of what comes after it swallows.
        task_slab: *task_size* rounded up to cache lines, as task_struct's slab object has it.
        slab_cost: what the component adds to that.
        after_load: what the component's registers hold after guest to host.
        msr_reads, msr_writes: RDMSR and WRMSR of the component's registers for a switch to the host's fpstate and back.
        extra_xsaves: XSAVES and XRSTORS beside the core's for such a switch.
        kvm_get_xsave: whether KVM_GET_XSAVE carries the component.
        guest_may_use: whether KVM can offer the component's bit in XCR0 or IA32_XSS to a guest.
    """

    policy: Policy
    config: BootConfig
    abi: UserAbi
    kvm: KvmView
    home: Home
    task_size: int
    guest_size: int
    task_cost: int
    guest_cost: int
    task_hidden: int
    guest_hidden: int
    task_slab: int
    slab_cost: int
    after_load: After
    msr_reads: int
    msr_writes: int
    extra_xsaves: int
    kvm_get_xsave: bool
    guest_may_use: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The table.

    Attributes:
        cpu: the CPU.
        component: the bit it is about.
        present: whether the CPU enumerates that component.
        columns: one a policy, in the order asked for.
    """

    cpu: Cpu
    component: int
    present: bool
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        """The component's name."""
        return self.cpu.catalogue.name(self.component)

    @property
    def size(self) -> int:
        """The component's bytes on this CPU; 0 if it has none."""
        component = self.cpu.components.get(self.component)
        return component.size if component and self.present else 0

    def verdict(self) -> tuple[str, ...]:
        """Say in words what the table shows, one sentence a point."""
        return tuple(_verdict(self))


def compare(
    cpu: Cpu, policies: Sequence[Policy], *, component: int = CET_S, cmdline: str = "", debug_fpu: bool = True
) -> Comparison:
    """Lay *policies* side by side on *cpu*.

    Args:
        cpu: the CPU.
        policies: the designs, one column each.
        component: the supervisor component that they differ about.
        cmdline: a kernel command line for all of them.
        debug_fpu: CONFIG_X86_DEBUG_FPU for all of them.

    Raises:
        UsageError: *policies* is empty, or *component* is not an extended one (2 to 62).
        CannotTell: the source of *cpu* lacks a number that a boot depends on.
    """
    if not policies:
        raise UsageError("there must be at least one policy to compare")
    if not 2 <= component <= LAST:
        raise UsageError(
            f"component {component} has no home to choose: x87 and SSE lie in the legacy region of every image",
            cure=f"give an extended component, 2 to {LAST}",
        )
    columns = tuple(_column(boot(cpu, policy, cmdline, debug_fpu=debug_fpu), component) for policy in policies)
    present = bool(cpu.mask >> component & 1)
    return Comparison(cpu=cpu, component=component, present=present, columns=columns)


def _column(config: BootConfig, bit: int) -> Column:
    home = _home(config, bit)
    view = kvm_view(config)
    size = config.cpu.components[bit].size if bit in config.cpu.components else 0
    task_cost, task_hidden = _share(config, config.save_rfbm, bit)
    guest_cost, guest_hidden = _share(config, config.guest_save_rfbm, bit)
    task_slab = _lines(config.kernel.default_size)
    msrs = size // MSR_SIZE if home == "MSRs" else 0
    return Column(
        policy=config.policy,
        config=config,
        abi=user_abi(config),
        kvm=view,
        home=home,
        task_size=config.kernel.default_size,
        guest_size=config.guest.size,
        task_cost=task_cost,
        guest_cost=guest_cost,
        task_hidden=task_hidden,
        guest_hidden=guest_hidden,
        task_slab=task_slab,
        slab_cost=task_slab - _lines(config.kernel.default_size - task_cost),
        after_load=_after(config, bit, home),
        msr_reads=msrs,
        msr_writes=msrs,
        extra_xsaves=2 if home == "own buffer" else 0,
        kvm_get_xsave=bool(config.user.max_features >> bit & 1),
        guest_may_use=home == "MSRs" or bool((view.supported_xcr0 | view.supported_xss) >> bit & 1),
    )


def _home(config: BootConfig, bit: int) -> Home:
    if config.save_rfbm >> bit & 1:
        return "every fpstate"
    if config.guest_save_rfbm >> bit & 1:
        return "guest fpstates"
    if config.xfd >> bit & 1:
        return "fpstates on permission"
    if config.xss >> bit & 1 and config.policy.independent >> bit & 1:
        return "own buffer"
    row = config.cpu.catalogue.get(bit)
    gated = row is not None and row.flag in config.flags
    if config.policy.raw_msr & config.cpu.mask & 1 << bit and gated and config.fate == "xsave":
        return "MSRs"
    return "nowhere"


def _share(config: BootConfig, mask: int, bit: int) -> tuple[int, int]:
    """Return what component *bit* adds to an fpstate of *mask*, and how many of its bytes alignment hides."""
    component = config.cpu.components.get(bit)  # a policy may force a bit that the CPU does not have
    if component is None or not mask >> bit & 1 or not config.compacted:
        return 0, 0
    hidden = hidden_by_alignment(config.cpu, mask, bit)
    return component.size - hidden, hidden


def _lines(size: int) -> int:
    return (size + CACHE_LINE - 1) & ~(CACHE_LINE - 1)


def _after(config: BootConfig, bit: int, home: Home) -> After:
    """Say what the registers hold after fpu_swap_kvm_fpstate() left the guest: what the restore's RFBM does to them."""
    if home == "MSRs":
        return "as KVM leaves them"
    if home == "nowhere":
        return "untouched"
    if config.policy.never_restored >> bit & 1:
        return "switched apart"
    if not config.restore_rfbm >> bit & 1:
        return "the guest's"
    return "the task's" if home == "every fpstate" else "initial"


def _verdict(table: Comparison) -> list[str]:
    if not table.present and table.cpu.log_only:
        absent = f"the boot log does not show {table.name} (component {table.component})"
        return [f"{absent}, but it shows only what a kernel enabled: whether the CPU has it cannot be told."]
    if not table.present:
        absent = f"{table.cpu.name} does not enumerate {table.name} (component {table.component})"
        return [f"{absent}: the designs do not differ on it."]
    sentences: dict[str, list[str]] = {}
    for column in table.columns:
        for sentence in _sentences(table, column):
            sentences.setdefault(sentence, []).append(column.policy.name)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in sentences.items()]


def _sentences(table: Comparison, column: Column) -> list[str]:
    """Say what one column means; columns that mean the same say the same."""
    if column.config.fate != "xsave":
        return [f"no XSAVE: {column.config.panic or column.config.xsave_disabled}."]
    name = table.name
    task, guest = _price(table, column.task_cost), _price(table, column.guest_cost)
    lines = {
        "nowhere": f"{name} is in no buffer{'' if column.guest_may_use else ', and KVM offers its bit to no guest'}.",
        "every fpstate": f"{name} is in every fpstate: {task} a task ({column.slab_cost} in its slab object), "
        f"{guest} a vCPU.",
        "fpstates on permission": f"{name} is in the fpstates of processes that were permitted to use it, from their "
        "first use on.",
        "guest fpstates": f"{name} is in guest fpstates alone: 0 bytes a task, {guest} a vCPU.",
        "own buffer": f"{name} is enabled, but the core neither saves nor restores it: whoever owns the buffer must, "
        f"in time ({column.extra_xsaves} more XSAVES or XRSTORS for a switch to the host and back).",
        "MSRs": f"{name} is moved by KVM, register by register: {column.msr_reads} RDMSR and {column.msr_writes} "
        "WRMSR for a switch to the host and back.",
    }
    said = [lines[column.home]]
    if column.after_load == "initial":
        said.append(f"loading a task's fpstate puts {name} into its initial state: nothing of a guest's is left.")
    if column.after_load == "the guest's":
        said.append(
            f"a guest's {name} stays in the registers while the host runs: safe only while the host never uses it and "
            "every guest's own is loaded before it runs."
        )
    if column.kvm.overrun:
        said.append(f"the guest image is {column.kvm.overrun} bytes larger than the buffer allocated for it.")
    return said


def _price(table: Comparison, cost: int) -> str:
    """Return a cost in words, and what hides the rest of the component's size or adds to it."""
    if cost == table.size:
        return f"{cost} bytes"
    if cost > table.size:
        return f"{cost} bytes ({cost - table.size} of them for its own alignment)"
    aligned = (c.bit for c in table.cpu.components.values() if c.aligned and c.bit > table.component)
    behind = next((table.cpu.catalogue.name(bit) for bit in aligned), "what follows")
    return f"{cost} of its {table.size} bytes (the alignment of {behind} hides the rest)"
