"""`fpstate.linux.kernel.Hardware` over bytes: processors that execute, and areas that hold what they save."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from fpstate import registers as regs
from fpstate.isa import Capabilities, Processor, Profile, execute, rdmsr, wrmsr
from fpstate.isa.control import IA32_XFD
from fpstate.isa.masks import ALL, initialised, loaded
from fpstate.linux.abi import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, MAGIC2_SIZE, fpu_part, max_sigframe
from fpstate.linux.config import BootConfig
from fpstate.linux.copyin import MXCSR_USERS, Finding, check_ptrace
from fpstate.linux.kernel import Cpu, Fpstate, Guest, Sets, Task
from fpstate.linux.machine.area import Area, Areas
from fpstate.linux.machine.values import CET_U, PKRU_BYTES, Ledger, Owner, put
from fpstate.xfeatures import AVX, AVX512, LEGACY, LEGACY_SIZE, PKRU, SOFTWARE, SSE, XTILE, bits

__all__ = ["PKRU_DEFAULT", "ByteHardware", "Instruction", "Refused"]

PKRU_DEFAULT: Final = 0x55555554
"""``init_pkru_value``: access disabled for every key but 0."""
VECTOR: Final = LEGACY | AVX | AVX512
"""What vector code of the kernel overwrites."""
_PKRU: Final = 1 << PKRU


class Refused(Exception):
    """The kernel refuses an image with an errno.

    Attributes:
        finding: why.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction that ran.

    Attributes:
        cpu: its number.
        name: in capitals.
        operand: the fpstate, the buffer, the frame, or the MSR.
        rfbm: the requested-feature bitmap; 0 for those that have none.
        before, after: XSTATE_BV of the image; for a register that is written, its value.
        loaded, initialised: components that a restore loaded and initialised.
        moved: bytes of components that went to memory or came from there.
    """

    cpu: int
    name: str
    operand: str
    rfbm: int = 0
    before: int = 0
    after: int = 0
    loaded: int = 0
    initialised: int = 0
    moved: int = 0


class ByteHardware:
    """The hardware of one machine.

    Attributes:
        config, sets: what booted.
        caps, profile: the CPU, and how it uses the freedom that the architecture leaves.
        areas: the allocator.
        ledger: who wrote what.
        kernel: the owner of what the kernel's own code leaves in registers.
        log: where instructions are noted; None while nobody wants to know.
    """

    def __init__(self, config: BootConfig, sets: Sets, profile: Profile | None = None) -> None:
        self.config, self.sets = config, sets
        self.caps = Capabilities(config.cpu)
        fresh = Processor(self.caps, profile)
        self.profile = fresh.profile
        self.areas = Areas(self.caps, self.profile.mxcsr_mask, compacted=config.compacted)
        self.ledger = Ledger(self.caps, PKRU_DEFAULT.to_bytes(PKRU_BYTES, "little"))
        self.kernel, self.nobody = Owner("the kernel"), Owner("nobody")
        self.log: list[Instruction] | None = None
        self._save = f"{config.save_instruction.lower()}64"
        self._restore = f"{config.restore_instruction.lower()}64"
        self._has_pkru = bool(sets.pkru & sets.xcr0)
        self._vectors = VECTOR & sets.xcr0
        self._sizes: dict[int, int] = {}
        if sets.guest_allocated not in {sets.default, sets.guest_default}:  # it lacks room
            self._sizes[sets.guest_allocated] = config.guest.allocated
        self._independent = self.caps.compacted(sets.independent).end
        self._initial = {bit: bytes(section) for bit, section in fresh.sections.items()}

    def processor(self) -> Processor:
        """Return a processor as the kernel has set it up."""
        p = Processor(self.caps, self.profile)
        p.xcr0, p.xss, p.xfd = self.sets.xcr0, self.sets.xss, self.sets.initial_xfd
        return p

    def enabled(self, cpu: Cpu) -> int:
        """XCR0 | IA32_XSS as they are now."""
        p: Processor = cpu.regs
        return p.enabled

    def load_xsave_state(self, cpu: Cpu, guest: Guest | None) -> None:
        """XSETBV and WRMSR, of what differs from the host's; the kernel has checked the values."""
        cpu.guest_xstate = int(guest is not None)
        p: Processor = cpu.regs
        xcr0, xss = (self.sets.xcr0, self.sets.xss) if guest is None else (guest.xcr0, guest.xss)
        if xcr0 != p.xcr0:
            p.xcr0 = xcr0
            self._note(cpu, "XSETBV", "XCR0", xcr0)
        if xss != p.xss:
            p.xss = xss
            self._note(cpu, "WRMSR", "IA32_XSS", xss)

    # -- saving and restoring ---------------------------------------------------------------------------------------

    def xsave(self, cpu: Cpu, fpstate: Fpstate) -> None:
        """os_xsave()."""
        self._saves(cpu, self._save, fpstate.image, fpstate.xfeatures, fpstate.name)

    def xrstor(self, cpu: Cpu, fpstate: Fpstate, mask: int) -> None:
        """os_xrstor()."""
        self._restores(cpu, self._restore, fpstate.image, mask, fpstate.name)

    def _saves(self, cpu: Cpu, op: str, area: Area, mask: int, operand: str) -> None:
        p: Processor = cpu.regs
        if self.log is None:
            execute(p, op, area.memory, area.address, mask)
            return
        same = p.profile.modified and p.info == (p.cpl, p.non_root, area.address, area.xcomp_bv)
        skipped = ~(p.modified | p.mxcsr_in_use) if same and op.startswith(("xsaves", "xsaveopt")) else 0
        before = area.xstate_bv
        execute(p, op, area.memory, area.address, mask)
        rfbm = mask & (p.enabled if op.startswith("xsaves") else p.xcr0)
        written = rfbm if op == "xsave64" else area.xstate_bv & rfbm & ~skipped
        name = op.upper()
        moved = self._bytes(written)
        self.log.append(Instruction(cpu.number, name, operand, rfbm, before, area.xstate_bv, moved=moved))

    def _restores(self, cpu: Cpu, op: str, area: Area, mask: int, operand: str) -> None:
        p: Processor = cpu.regs
        execute(p, op, area.memory, area.address, mask)
        if self.log is not None:
            rfbm = mask & (p.enabled if op.startswith("xrstors") else p.xcr0)
            bv = area.xstate_bv
            taken, cleared = loaded(rfbm, bv), initialised(rfbm, bv)
            moved = self._bytes(taken)
            self.log.append(Instruction(cpu.number, op.upper(), operand, rfbm, bv, bv, taken, cleared, moved))

    def _bytes(self, mask: int) -> int:
        return sum(len(self.ledger.initial.get(bit, b"")) for bit in bits(mask & ALL))

    def _note(self, cpu: Cpu, name: str, operand: str, value: int = 0) -> None:
        if self.log is not None:
            self.log.append(Instruction(cpu.number, name, operand, after=value))

    def xsave_to_user(self, cpu: Cpu, fpstate: Fpstate) -> Area:
        """xsave_to_user_sigframe(), and save_xstate_epilog(), which writes the words around it.

        What XSAVE does not write is what stood on the user's stack before: zeros here.  Tiles that are not in use are
        not written either (fpu/signal.c, XFEATURE_MASK_SIGFRAME_INITOPT).
        """
        area = self.areas.user(fpstate.user_size + MAGIC2_SIZE)
        mask = fpstate.user_xfeatures
        if self.sets.dynamic:
            mask &= cpu.regs.xinuse(mask) | ~XTILE
        self._saves(cpu, "xsave64", area, mask, "signal frame")
        words = (FP_XSTATE_MAGIC1, fpstate.user_size + MAGIC2_SIZE, fpstate.user_xfeatures, fpstate.user_size)
        struct.pack_into("<IIQI", area.data, SOFTWARE, *words)
        struct.pack_into("<I", area.data, fpstate.user_size, FP_XSTATE_MAGIC2)
        area.xstate_bv |= LEGACY
        if self._has_pkru:
            self._show_pkru(area, self.rdpkru(cpu))
        return area

    def _show_pkru(self, area: Area, pkru: int) -> None:
        area.xstate_bv |= _PKRU
        area.put(PKRU, pkru.to_bytes(PKRU_BYTES, "little"))

    def xrstor_from_user(self, cpu: Cpu, image: Area, mask: int) -> None:
        """xrstor_from_user_sigframe()."""
        self._restores(cpu, "xrstor64", image, mask, "signal frame")

    def fxrstor_from_user(self, cpu: Cpu, image: Area) -> None:
        """fxrstor_from_user_sigframe()."""
        execute(cpu.regs, "fxrstor64", image.memory, image.address)
        self._note(cpu, "FXRSTOR64", "signal frame")

    def partly_restored(self, cpu: Cpu, mask: int, *, own: int) -> None:
        """Of the task's own registers none is reached before the fault; of another's they all are."""
        if not own:
            self._overwrite(cpu, self.nobody, mask & self.sets.xcr0 & ~_PKRU)

    def xsaves(self, cpu: Cpu, buffer: Area, mask: int) -> Area:
        """XSAVES of independent components."""
        self._saves(cpu, "xsaves64", buffer, mask, "independent buffer")
        return buffer

    def xrstors(self, cpu: Cpu, buffer: Area, mask: int) -> None:
        """XRSTORS of independent components."""
        self._restores(cpu, "xrstors64", buffer, mask, "independent buffer")

    # -- single registers -------------------------------------------------------------------------------------------

    def kernel_code(self, cpu: Cpu) -> None:
        """Overwrite the vector registers."""
        self._overwrite(cpu, self.kernel, self._vectors)
        self._note(cpu, "vector code", "kernel")

    def _overwrite(self, cpu: Cpu, owner: Owner, mask: int) -> None:
        p, ledger = cpu.regs, self.ledger
        number = ledger.fresh(owner, mask)
        for bit in ledger.bits(mask):
            put(p, bit, ledger.value(bit, number))
        p.touch(mask)

    def reset(self, cpu: Cpu) -> None:
        """RESET, and the XCR0 and IA32_XSS with which the kernel brings a CPU up."""
        p: Processor = cpu.regs
        p.xcr0, p.xss = self.sets.xcr0, self.sets.xss
        for bit, initial in self._initial.items():
            p.sections[bit][:] = initial
        p.used, p.modified, p.info = 0, ALL, None
        p.xfd = cpu.xfd = 0
        self._note(cpu, "RESET", "")

    def write_xfd(self, cpu: Cpu, mask: int) -> None:
        """WRMSR of IA32_XFD."""
        wrmsr(cpu.regs, IA32_XFD, mask)
        cpu.xfd = mask
        self._note(cpu, "WRMSR", "IA32_XFD", mask)

    def xfeatures_in_use(self, cpu: Cpu, mask: int) -> int:
        """XGETBV with ECX = 1."""
        p: Processor = cpu.regs
        return p.xinuse(mask)

    def tile_release(self, cpu: Cpu) -> None:
        """TILERELEASE."""
        self.initialise(cpu, XTILE & self.sets.xcr0)
        self._note(cpu, "TILERELEASE", "")

    def initialise(self, cpu: Cpu, mask: int) -> None:
        """Put *mask* into its initial configuration, so that XINUSE says so."""
        p, initial = cpu.regs, self.ledger.initial
        for bit in bits(mask):
            put(p, bit, initial[bit])
        p.used &= ~mask
        p.modified |= mask

    def read_msrs(self, cpu: Cpu, mask: int) -> dict[int, int]:
        """RDMSR of the registers of *mask*, by number."""
        values = {msr: rdmsr(cpu.regs, msr) for msr in self.msrs(mask)}
        for msr, value in values.items():
            self._note(cpu, "RDMSR", f"{msr:#x}", value)
        return values

    def write_msrs(self, cpu: Cpu, mask: int, values: dict[int, int] | Area) -> None:
        """WRMSR of the registers of *mask*; an area stands for zeros."""
        for msr in self.msrs(mask):
            value = values.get(msr, 0) if isinstance(values, dict) else 0
            wrmsr(cpu.regs, msr, value)
            self._note(cpu, "WRMSR", f"{msr:#x}", value)

    def msrs(self, mask: int) -> list[int]:
        """Return the numbers of the MSRs of *mask*."""
        return [r.msr for bit in bits(mask) for r in regs.of_component(bit) if r.msr is not None]

    def rdpkru(self, cpu: Cpu) -> int:
        """RDPKRU; 0 where there is none."""
        return int.from_bytes(cpu.regs.sections[PKRU][:PKRU_BYTES], "little") if self._has_pkru else 0

    def wrpkru(self, cpu: Cpu, value: int) -> None:
        """WRPKRU."""
        if self._has_pkru:
            cpu.regs.sections[PKRU][:PKRU_BYTES] = value.to_bytes(PKRU_BYTES, "little")
            cpu.regs.touch(_PKRU)

    # -- images -----------------------------------------------------------------------------------------------------

    @property
    def nothing(self) -> Area:
        """A zeroed buffer; for MSRs it stands for zeros."""
        return self.areas.independent(self._independent)

    @property
    def pkru_default(self) -> int:
        """``init_pkru_value``."""
        return PKRU_DEFAULT

    @property
    def pkru_initial(self) -> int:
        """0."""
        return 0

    def new_image(self, fpstate: Fpstate) -> Area:
        """A zeroed image; that of a guest, or with a dynamic component, is vzalloc()ed."""
        pages = bool(fpstate.is_guest or fpstate.xfeatures & self.sets.dynamic)
        return self.areas.kernel(fpstate.xfeatures, fpstate.allocated, pages=pages)

    def copy_init(self, fpstate: Fpstate) -> None:
        """Copy the first 576 bytes of ``init_fpstate``."""
        xcomp_bv = self.sets.default if self.config.compacted else 0
        fpstate.image.data[:576] = self.areas.blank(xcomp_bv, 576)

    def drop(self, fpstate: Fpstate, mask: int) -> None:
        """Clear *mask* in XSTATE_BV."""
        fpstate.image.xstate_bv &= ~mask

    def zero(self, fpstate: Fpstate, mask: int) -> None:
        """Write zeros over the components of *mask*."""
        fpstate.image.zero(mask)

    @property
    def largest_sigframe(self) -> int:
        """get_sigframe_size(): what AT_MINSIGSTKSZ says."""
        return max_sigframe(self.config.user.max_size, xsave=True)

    def altstack_too_small(self, task: Task, mask: int) -> bool:
        """validate_sigaltstack(): no room for a frame whose image has *mask*; without a stack nothing is too small."""
        needed = self.largest_sigframe - self.config.user.max_size + self.user_size(mask)
        return 0 < task.sas_size < needed

    def sigframe_size(self, mask: int) -> int:
        """The size that an alternate stack must exceed."""
        return self.largest_sigframe - fpu_part(self.config.user.max_size, xsave=True) + self.user_size(mask)

    @property
    def strict_sas_size(self) -> bool:
        """From the command line."""
        return bool(self.config.parameters.strict_sas_size)

    def to_user(self, fpstate: Fpstate, mask: int, pkru: int, *, always: bool) -> Area:
        """copy_xstate_to_uabi_buf(): *pkru* is shown if the image's XSTATE_BV has PKRU, or *always*.

        A task's image fills the regset, which has room for every user component; a guest's what KVM_CAP_XSAVE2 says.
        """
        source: Area = fpstate.image
        shown = (source.xstate_bv | (_PKRU if always else 0)) & fpstate.user_xfeatures & mask
        whole = self.user_size(fpstate.user_xfeatures) if fpstate.is_guest else self.config.user.max_size
        area = self.areas.user(whole)
        area.data[SOFTWARE : SOFTWARE + 8] = self.config.user.max_features.to_bytes(8, "little")
        area.xstate_bv = shown
        for bit in bits(shown):
            value = source.component(bit)
            if value is not None:
                area.put(bit, value)
        if shown & (SSE | AVX):
            area.data[24:32] = source.data[24:32]
        if shown & _PKRU:
            self._show_pkru(area, pkru)
        return area

    def to_user_fx(self, fpstate: Fpstate) -> bytes:
        """XSTATE_COPY_FX: the legacy region without software bytes."""
        area = self.to_user(fpstate, LEGACY, 0, always=False)
        return bytes(area.data[:SOFTWARE]) + bytes(LEGACY_SIZE - SOFTWARE)

    def check_regset(self, image: Area) -> None:
        """ptrace_regset() cuts what is too long, xstateregs_set() takes nothing shorter than the regset.

        Raises:
            Refused: it is shorter, or no multiple of 8 bytes.
        """
        found = check_ptrace(bytes(image.data), features=ALL, size=self.config.user.max_size, mxcsr_mask=ALL)
        if found is not None and found.rule.id in {"ptrace-length", "ptrace-size"}:
            raise Refused(found)

    def component(self, fpstate: Fpstate, bit: int) -> bytes | bytearray | None:
        """get_xsave_addr()."""
        image: Area = fpstate.image
        return image.component(bit)

    def standard_places(self, mask: int) -> list[tuple[int, int, int]]:
        """xstate_sizes[] and xstate_offsets[]."""
        return [(bit, size, offset) for bit, offset, size in self.caps.standard(mask).slots]

    def from_user(self, fpstate: Fpstate, image: Area) -> int:
        """copy_uabi_to_xstate(): supervisor components stay.

        Raises:
            Refused: the image has what the fpstate has no room for.
        """
        found = check_ptrace(
            bytes(image.data), features=fpstate.user_xfeatures, size=0, mxcsr_mask=self.profile.mxcsr_mask
        )
        if found is not None:
            raise Refused(found)
        target: Area = fpstate.image
        brought = image.xstate_bv
        for bit in bits(brought):
            value = image.component(bit)
            if value is not None:
                target.put(bit, value)
        if brought & MXCSR_USERS:  # the kernel's x87 component ends behind MXCSR_MASK
            target.data[24:32] = image.data[24:32]
        target.xstate_bv = target.xstate_bv & self.caps.supervisor | brought
        value = image.component(PKRU) if self._has_pkru else None
        return int.from_bytes(value, "little") if value is not None else 0

    def in_user_image(self, image: Area, mask: int) -> int:
        """XSTATE_BV of a user's image."""
        return image.xstate_bv & mask

    def without(self, image: Area, mask: int) -> Area:
        """A copy of a user's image with *mask* cleared in XSTATE_BV."""
        if not image.xstate_bv & mask:
            return image
        area = self.areas.user(len(image.data))
        area.data[:] = image.data
        area.xstate_bv &= ~mask
        return area

    def in_image(self, fpstate: Fpstate, mask: int) -> int:
        """XSTATE_BV."""
        image: Area = fpstate.image
        return image.xstate_bv & mask

    def size(self, mask: int) -> int:
        """xstate_calculate_size()."""
        known = self._sizes.get(mask)
        if known is None:
            places = self.caps.compacted(mask & ALL >> 1) if self.config.compacted else self.caps.standard(mask)
            known = self._sizes[mask] = places.end
        return known

    def user_size(self, mask: int) -> int:
        """xstate_calculate_size() of the standard format."""
        return self.caps.standard(mask & self.caps.user).end

    def fits(self, size: int, mask: int) -> bool:
        """Whether an image of *mask* fits."""
        return self.size(mask) <= size

    def set_ssp(self, fpstate: Fpstate, cet_user: bytes) -> None:
        """update_fpu_shstk(): the top of a shadow stack of its own."""
        image: Area = fpstate.image
        image.put(CET_U, cet_user)
