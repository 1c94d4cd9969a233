"""Boot Linux on a CPU: what ``fpu__init_system_xstate()`` makes of CPUID, in the kernel's own order.

The steps are those of Linux 7.2 ``arch/x86/kernel/fpu/xstate.c`` and ``init.c``; where kernels or designs differ the
difference is a field of `Policy`.  Nothing here knows a CPU or a release by name.
"""

from __future__ import annotations

from fpstate.cpu import flags as cpu_flags
from fpstate.cpu.model import Component, Cpu, compacted_places, compacted_size
from fpstate.cpu.sizes import compacted_rule, standard_rule
from fpstate.cpu.xcr0 import fault
from fpstate.errors import CannotTell
from fpstate.linux import cmdline as kernel_cmdline
from fpstate.linux import errata
from fpstate.linux.abi import max_sigframe
from fpstate.linux.config import BootConfig, Fate, GuestConfig, StateConfig
from fpstate.linux.policy import Policy
from fpstate.xfeatures import APX, LBR, LEGACY, MIN_SIZE, MPX, XTILEDATA, Xfeature, bits

__all__ = ["boot"]

FXSAVE_SIZE = 512
"""Bytes of the legacy image.  A 64-bit kernel requires FXSR, so that clearing it leaves FXSAVE in use."""
INIT_FPSTATE_ROOM = 4096
"""sizeof(init_fpstate.regs): the static union is padded to a page."""
_TILE_BYTES = 1024


class _DisabledError(Exception):
    """The kernel takes the path out_disable; the argument is the line it prints, or None."""


class _PanicError(Exception):
    """The kernel dies; the argument says where."""


def boot(cpu: Cpu, policy: Policy, cmdline: str = "", *, debug_fpu: bool = True) -> BootConfig:
    """Return what a kernel that follows *policy* configures on *cpu* with *cmdline*.

    Args:
        cpu: the CPU, as CPUID tells it.
        policy: the design or release.
        cmdline: a kernel command line; only what concerns xstate is read.
        debug_fpu: CONFIG_X86_DEBUG_FPU, on by default in Kconfig and in distributions.

    Raises:
        CannotTell: the source of *cpu* lacks a number that the outcome depends on.
    """
    run = _Boot(cpu, policy, kernel_cmdline.parse(cmdline), debug_fpu=debug_fpu)
    run.run()
    return run.config()


class _Boot:
    """The kernel's variables while it boots; one method a step."""

    def __init__(self, cpu: Cpu, policy: Policy, parameters: kernel_cmdline.Parameters, *, debug_fpu: bool) -> None:
        self.cpu, self.policy, self.parameters, self.debug_fpu = cpu, policy, parameters, debug_fpu
        self.log: list[str] = []
        self.assumptions: list[str] = []
        self.flags = self._flags()
        self.kernel_max = self.kernel_default = self.user_max = self.user_default = 0
        self.guest_features = self.independent = self.supervisor = 0
        self.xcr0 = self.xss = self.xfd = 0
        self.compacted = False
        self.fate: Fate = "fxsave"
        self.disabled: str | None = None
        self.panic: str | None = None
        self._legacy_sizes()

    # -- before xstate -------------------------------------------------------------------------------------------

    def _flags(self) -> frozenset[str]:
        """Return the boot CPU's flags: CPUID's, less what errata and the command line clear, with what needs it."""
        cpu = self.cpu
        flags = set(cpu.flags)
        for name in cpu.flags_unknown:
            if self._assume(name):
                flags.add(name)
        assumed = sorted(flags - cpu.flags)
        if assumed:
            self.assumptions.append(f"CPU flags not in the source, taken as set: {' '.join(assumed)}")
        absent = sorted({"XSAVEC", "XSAVES"} & cpu.flags_unknown - flags)
        if absent and "XSAVE" in flags:
            self.assumptions.append(f"CPU flags not in the source, taken as clear: {' '.join(absent)}")
        cleared = set(self.parameters.cleared)
        for erratum in errata.apply(cpu.leaves, frozenset(flags)):
            cleared.add(erratum.clears)
            self.assumptions.append(f"{erratum.name}: {erratum.clears} cleared, as without fixed microcode")
        top = cpu.register(0, 0)
        if top is not None and top[0] < 0xD and "XSAVE" in flags - cpu_flags.cascade(cleared):
            cleared.add("XSAVE")
            self.log.append("CPU: CPU feature xsave disabled, no CPUID level 0xd")
        return frozenset(flags) - cpu_flags.cascade(cleared)

    def _assume(self, name: str) -> bool:
        """Tell whether a flag that the source is silent about is to be taken as set: if its components are there."""
        if name in {"FPU", "FXSR", "XMM", "XMM2"}:
            return True
        if name == "XSAVE":
            return bool(self.cpu.xcr0_mask)
        if cpu_flags.FLAGS[name].leaf == 0xD:
            # AMX is not usable without XFD: a source that shows the one and is silent on the other means both.
            return bool(self.cpu.mask >> XTILEDATA & 1) and name in {"XSAVEC", "XGETBV1", "XSAVES", "XFD"}
        gated = {"PKU": "OSPKE"}.get(name, name)
        return any(row.flag == gated and self.cpu.mask & row.mask for row in self.cpu.catalogue)

    def _legacy_sizes(self) -> None:
        """Step 5, and the disable path: every size is the legacy size."""
        self.kernel_max_size = self.kernel_default_size = FXSAVE_SIZE
        self.user_max_size = self.user_default_size = self.user_permitted_size = FXSAVE_SIZE
        self.guest_size = self.guest_allocated = FXSAVE_SIZE

    # -- fpu__init_system_xstate() -------------------------------------------------------------------------------

    def run(self) -> None:
        """Boot, to whichever end."""
        if "FPU" not in self.flags:
            line = "x86/fpu: Giving up, no FPU found and no math emulation present"
            self.log.append(line)
            self.fate, self.disabled, self.panic = "panic", line, "the kernel halts: it has no FPU"
            return
        if "XSAVE" not in self.flags:
            self._without_xsave()
            return
        try:
            self._enumerate()
            self._set_defaults()
            self._enable()
            self._size()
            self._build_init_image()
            self.fate = "xsave"
            self._print_summary()
        except _DisabledError as path:
            self._disable(path.args[0], path.args[1])
        except _PanicError as path:
            self.fate, self.panic = "panic", path.args[0]
        if self.panic is None:
            xsave = self.fate == "xsave"
            self.log.append(f"signal: max sigframe size: {max_sigframe(self.user_max_size, xsave=xsave)}")

    def _without_xsave(self) -> None:
        had = self.cpu.has_xsave
        self.log.append("x86/fpu: x87 FPU will use FXSAVE")
        self.log.append(f"signal: max sigframe size: {max_sigframe(FXSAVE_SIZE, xsave=False)}")
        self.disabled = "XSAVE was cleared by the kernel" if had else "the CPU has no XSAVE (CPUID.1:ECX[26] = 0)"
        if had and "XSAVE" not in self.parameters.cleared and len(self.log) > 2:
            self.disabled = self.log[0]
        elif had:
            self.disabled = f"XSAVE is cleared by the command line: {self.parameters.text}"

    def _enumerate(self) -> None:
        """Steps 2 to 9: from CPUID's masks to fpu_kernel_cfg.max_features."""
        policy, mask = self.policy, self.cpu.mask
        if mask & LEGACY != LEGACY:
            line = f"x86/fpu: FP/SSE not present amongst the CPU's xstate features: {mask:#x}."
            raise _DisabledError(line, line)
        if policy.apx_excludes_mpx and mask & 1 << APX and mask & MPX:
            line = f"x86/fpu: Both APX/MPX present in the CPU's xstate features: {mask:#x}."
            raise _DisabledError(line, line)
        self.independent = mask & policy.independent if policy.independent_needs_cpuid else policy.independent
        if "ARCH_LBR" not in self.flags:
            self.independent &= ~(1 << LBR)
        for row in self.cpu.catalogue:
            if row.bit < policy.xfeature_max and not self._gate_open(row):
                mask &= ~row.mask
        for bit, flags in policy.forced.items():
            if not self.flags.isdisjoint(flags):
                mask |= 1 << bit
        if "XFD" not in self.flags:
            mask &= ~policy.user_dynamic
        allowed = policy.user
        if "XSAVES" in self.flags:
            allowed |= policy.supervisor_supported
        self.kernel_max = mask & allowed
        self.user_max = self.kernel_max & policy.user

    def _gate_open(self, row: Xfeature) -> bool:
        """Tell whether ``xsave_cpuid_features[]`` lets component *row* pass on this CPU.

        Without an entry the bit is dropped; x87's entry is flag 0, which counts as one.
        """
        flag = self.policy.gates.get(row.bit, row.flag)
        return flag is not None and flag in self.flags

    def _set_defaults(self) -> None:
        """Step 10: the default sets, and the guest's."""
        dynamic, guest_only = self.policy.user_dynamic, self.policy.guest_only
        self.guest_features = self.kernel_max & ~dynamic
        self.kernel_default = self.guest_features & ~guest_only
        self.user_default = self.user_max & ~dynamic
        self.supervisor = self.kernel_max & self.policy.supervisor_supported
        self.xfd = self.user_max & dynamic
        self.compacted = not self.flags.isdisjoint({"XSAVEC", "XSAVES"})

    def _enable(self) -> None:
        """Step 14, fpu__init_cpu_xstate(): CR4.OSXSAVE, IA32_XFD, XCR0, IA32_XSS; any of them may fault."""
        broken = fault(self.user_max)
        absent = self.user_max & ~self.cpu.xcr0_mask
        if broken or absent:
            why = broken.text if broken else f"CPUID.0DH.0 does not enumerate {absent:#x}"
            raise _PanicError(f"general protection fault at XSETBV of {self.user_max:#x}: {why}")
        self.xcr0 = self.user_max
        if "XSAVES" not in self.flags:
            return
        self.xss = self.supervisor | self.independent
        unsupported = self.xss & ~(self.cpu.xss_mask or 0)
        if not unsupported:
            return
        failed = f"WRMSR of {self.xss:#x} to IA32_XSS faults, for the CPU lacks {unsupported:#x}; IA32_XSS stays 0"
        if self.supervisor:
            raise _PanicError(f"{failed}, and the first XRSTORS of a supervisor component faults without end")
        self.assumptions.append(f"{failed} (unchecked MSR access error), which harms nothing here")
        self.xss = 0

    def _size(self) -> None:
        """Steps 15, 16 and 18: sizes from CPUID, sizes by addition, and whether they agree."""
        self.user_max_size = self._reported(standard=True)
        self.kernel_max_size = self._reported(standard=False) if self.compacted else self.user_max_size
        self._check_components()
        size = self._calculate(self.kernel_max, compacted=self.compacted)
        if size != self.kernel_max_size:
            line = f"XSAVE consistency problem: size {size} != kernel_size {self.kernel_max_size}"
            raise _DisabledError(line, line)
        self.kernel_default_size = self._calculate(self.kernel_default, compacted=self.compacted)
        self.user_default_size = self._calculate(self.user_default, compacted=False)
        self.user_permitted_size = self._calculate(self.user_max, compacted=False)
        self.guest_size = self._calculate(self.guest_features, compacted=self.compacted)
        self.guest_allocated = self.guest_size
        if self.policy.guest_allocation == "user-default":
            self.guest_allocated = self.user_default_size

    def _reported(self, *, standard: bool) -> int:
        """Return what CPUID.0DH answers now that XCR0 and IA32_XSS are set (get_xsave_compacted_size())."""
        rule = standard_rule(self.cpu) if standard else compacted_rule(self.cpu)
        explanation = rule.explanation
        if explanation.rule not in {"sum", "unknown"}:
            leaf = "CPUID.0DH.0:EBX" if standard else "CPUID.0DH.1:EBX"
            self.assumptions.append(f"{leaf} as this CPU reports it: {explanation.rule}")
        return rule(self.user_max if standard else self.user_max | self.supervisor)

    def _calculate(self, mask: int, *, compacted: bool) -> int:
        """Return xstate_calculate_size(*mask*, *compacted*)."""
        components = self.cpu.components
        if compacted:
            return compacted_size(components, mask)
        extended = [components[bit] for bit in bits(mask & ~LEGACY) if bit in components]
        extended = [component for component in extended if not component.supervisor]
        if not extended:
            return MIN_SIZE
        for component in extended:
            if component.offset is None:
                raise CannotTell(
                    f"where {self.cpu.catalogue.name(component.bit)} (component {component.bit}) lies in standard "
                    f"format is not known for {self.cpu.name}",
                    cure="give a source with its CPUID leaf 0DH, or the CPU's name (--cpu)",
                )
        top = max(extended, key=_offset) if self.policy.sizes_by_offset else extended[-1]
        return _offset(top) + top.size

    def _check_components(self) -> None:
        """paranoid_xstate_size_valid(): each component against the kernel's C struct."""
        for bit in bits(self.kernel_max & ~LEGACY):
            component, row = self.cpu.components.get(bit), self.cpu.catalogue.get(bit)
            if component is None:
                raise CannotTell(f"the size of component {bit} is not known for {self.cpu.name}")
            if row is None or row.struct_size is None:
                if component.origin != "user":
                    line = f"XSAVE consistency problem: No structure for xstate: {bit}"
                    raise _DisabledError(line, line)
            elif bit == XTILEDATA:
                self._check_tiles(component.size)
            elif component.size != row.struct_size:
                name = self._boot_string(row)
                self.log.append(f"[{name}]: struct is {row.struct_size} bytes, cpu state {component.size} bytes")
            if component.supervisor and "XSAVES" not in self.flags:
                line = f"XSAVE consistency problem: Got supervisor feature {bit}, but XSAVES not advertised"
                raise _DisabledError(line, line)

    def _check_tiles(self, size: int) -> None:
        """check_xtile_data_against_struct(): leaf 1DH's tiles against sub-leaf 18; its verdict is not acted on."""
        top = self.cpu.register(0x1D, 0)
        if top is None:
            return
        most = 0
        for palette in self.cpu.palettes():
            if palette.tile != _TILE_BYTES:
                self.log.append(f"XFEATURE_XTILE_DATA: struct is {_TILE_BYTES} bytes, cpu xtile {palette.tile} bytes")
                return
            most = max(most, palette.tiles)
        if size != most * _TILE_BYTES:
            self.log.append(
                f"XFEATURE_XTILE_DATA: calculated size is {most * _TILE_BYTES} bytes, cpu state {size} bytes"
            )

    def _build_init_image(self) -> None:
        """Step 18: init_fpstate must fit its static room."""
        if self.kernel_default_size > INIT_FPSTATE_ROOM:
            line = f"x86/fpu: init_fpstate buffer too small ({INIT_FPSTATE_ROOM} < {self.kernel_default_size})"
            raise _DisabledError(line, line + self.policy.disable_message)

    def _print_summary(self) -> None:
        """Steps 19 and 21: print_xstate_features(), print_xstate_offset_size() and the summary."""
        for bit in bits(self.kernel_max):
            row = self.cpu.catalogue.get(bit)
            name = self._boot_string(row) if row else "unknown xstate feature"
            self.log.append(f"x86/fpu: Supporting XSAVE feature 0x{1 << bit:03x}: '{name}'")
        compacted = {c.bit: offset for c, offset in compacted_places(self.cpu.components, self.kernel_max)}
        for bit in bits(self.kernel_max & ~LEGACY):
            component = self.cpu.components[bit]
            offset = compacted[bit] if self.compacted else _offset(component)
            self.log.append(f"x86/fpu: xstate_offset[{bit}]: {offset:4d}, xstate_sizes[{bit}]: {component.size:4d}")
        form = "compacted" if self.compacted else "standard"
        self.log.append(
            f"x86/fpu: Enabled xstate features {self.kernel_max:#x}, "
            f"context size is {self.kernel_max_size} bytes, using '{form}' format."
        )

    def _boot_string(self, row: Xfeature) -> str:
        return self.policy.boot_strings.get(row.bit) or row.boot_string or "unknown xstate feature"

    def _disable(self, reason: str, line: str) -> None:
        """fpu__init_disable_system_xstate(): back to FXSAVE; the feature masks but one stay as they are."""
        self.log.append(line)
        if self.policy.disable_line:
            self.log.append("x86/fpu: XSAVE disabled")
        self.disabled = reason
        self.kernel_max = self.xcr0 = self.xss = self.xfd = self.supervisor = 0
        self.compacted = False
        self._legacy_sizes()
        if self.policy.disable_oopses and self.debug_fpu:
            self.fate = "panic"
            self.panic = (
                "NULL pointer dereference in fpstate_reset() with CONFIG_X86_DEBUG_FPU; "
                "without it the kernel goes on with FXSAVE"
            )

    # -- the records ---------------------------------------------------------------------------------------------

    def config(self) -> BootConfig:
        """Return the records as they stand."""
        xsave = self.fate == "xsave"
        save, restore = self._instructions(xsave=xsave)
        return BootConfig(
            cpu=self.cpu,
            policy=self.policy,
            parameters=self.parameters,
            kernel=StateConfig(
                max_features=self.kernel_max,
                default_features=self.kernel_default,
                max_size=self.kernel_max_size,
                default_size=self.kernel_default_size,
                independent_features=self.independent,
            ),
            user=StateConfig(
                max_features=self.user_max,
                default_features=self.user_default,
                max_size=self.user_max_size,
                default_size=self.user_default_size,
                legacy_features=LEGACY,
            ),
            user_permitted_size=self.user_permitted_size,
            flags=self.flags,
            guest=GuestConfig(features=self.guest_features, size=self.guest_size, allocated=self.guest_allocated),
            xcr0=self.xcr0,
            xss=self.xss,
            xfd=self.xfd,
            supervisor=self.supervisor,
            compacted=self.compacted,
            save_instruction=save,
            restore_instruction=restore,
            fate=self.fate,
            xsave_disabled=self.disabled,
            panic=self.panic,
            boot_log=tuple(self.log),
            assumptions=(*self.assumptions, *self.parameters.notes),
        )

    def _instructions(self, *, xsave: bool) -> tuple[str, str]:
        """Return what the save and restore primitives were patched to."""
        if not xsave:
            return "FXSAVE", "FXRSTOR"
        save = next((name for name in ("XSAVES", "XSAVEC", "XSAVEOPT") if name in self.flags), "XSAVE")
        return save, "XRSTORS" if "XSAVES" in self.flags else "XRSTOR"


def _offset(component: Component) -> int:
    return component.offset or 0
