"""Names of VM exits as kvm:kvm_exit prints them, and their numbers.

Sources: the print format of kvm_exit in Linux 6.18, which is ``arch/x86/include/uapi/asm/vmx.h`` (VMX_EXIT_REASONS) and
``uapi/asm/svm.h`` (SVM_EXIT_REASONS).  VMX's names are capitals, SVM's are not: so a name tells the ``isa`` as well.
"""

from __future__ import annotations

from typing import Final

__all__ = ["EXITS", "SVM", "VMX"]

VMX: Final = 1
SVM: Final = 2
"""What ``isa`` holds (Linux ``arch/x86/kvm/trace.h``: KVM_ISA_VMX, KVM_ISA_SVM)."""


def _numbered(text: str) -> dict[str, int]:
    """Return the names of *text* by number: ``NUMBER: NAME NAME ...`` counts on from NUMBER, and "-" skips one."""
    found: dict[str, int] = {}
    for line in text.strip().splitlines():
        number, _, names = line.partition(":")
        found |= {name: at for at, name in enumerate(names.split(), int(number, 16)) if name != "-"}
    return found


_VMX: Final = _numbered("""
00: EXCEPTION_NMI EXTERNAL_INTERRUPT TRIPLE_FAULT INIT_SIGNAL SIPI_SIGNAL - - INTERRUPT_WINDOW
07: PENDING_INTERRUPT
08: NMI_WINDOW TASK_SWITCH CPUID - HLT INVD INVLPG RDPMC RDTSC - VMCALL VMCLEAR VMLAUNCH VMPTRLD VMPTRST VMREAD VMRESUME
19: VMWRITE VMOFF VMON CR_ACCESS DR_ACCESS IO_INSTRUCTION MSR_READ MSR_WRITE INVALID_STATE MSR_LOAD_FAIL
24: MWAIT_INSTRUCTION MONITOR_TRAP_FLAG - MONITOR_INSTRUCTION PAUSE_INSTRUCTION MCE_DURING_VMENTRY
2b: TPR_BELOW_THRESHOLD APIC_ACCESS EOI_INDUCED GDTR_IDTR LDTR_TR EPT_VIOLATION EPT_MISCONFIG INVEPT RDTSCP
34: PREEMPTION_TIMER INVVPID WBINVD XSETBV APIC_WRITE RDRAND INVPCID VMFUNC ENCLS RDSEED PML_FULL XSAVES XRSTORS
43: UMWAIT TPAUSE
4a: BUS_LOCK NOTIFY - TDCALL
54: MSR_READ_IMM MSR_WRITE_IMM
""")

_SVM: Final = _numbered("""
00: read_cr0 - read_cr2 read_cr3 read_cr4 - - - read_cr8
10: write_cr0 - write_cr2 write_cr3 write_cr4 - - - write_cr8
20: read_dr0 read_dr1 read_dr2 read_dr3 read_dr4 read_dr5 read_dr6 read_dr7
30: write_dr0 write_dr1 write_dr2 write_dr3 write_dr4 write_dr5 write_dr6 write_dr7
60: interrupt nmi smi init vintr cr0_sel_write read_idtr read_gdtr read_ldtr read_rt write_idtr write_gdtr write_ldtr
6d: write_rt rdtsc rdpmc pushf popf cpuid rsm iret swint invd pause hlt invlpg invlpga io msr task_switch ferr_freeze
7f: shutdown vmrun hypercall vmload vmsave stgi clgi skinit rdtscp icebp wbinvd monitor mwait
8d: xsetbv - write_efer_trap write_cr0_trap
94: write_cr4_trap
98: write_cr8_trap
a2: invpcid
a5: buslock idle-halt
400: npf avic_incomplete_ipi avic_unaccelerated_access vmgexit
80000001: vmgexit_mmio_read vmgexit_mmio_write vmgexit_nmi_complete vmgexit_ap_hlt_loop vmgexit_ap_jump_table
80000010: vmgexit_page_state_change vmgexit_guest_request vmgexit_ext_guest_request vmgexit_ap_creation
8000fffd: vmgexit_hypervisor_feature
ffffffff: invalid_guest_state
""")

_EXCEPTIONS: Final = _numbered("40: DE DB - BP OF BR UD NM DF - TS NP SS GP PF - MF AC MC XF")

EXITS: Final[dict[str, tuple[int, int]]] = (
    {name: (number, VMX) for name, number in _VMX.items()}
    | {name: (number, SVM) for name, number in _SVM.items()}
    | {f"{name} excp": (number, SVM) for name, number in _EXCEPTIONS.items()}
)
"""(exit_reason, isa) of each name; "PENDING_INTERRUPT" is what INTERRUPT_WINDOW was called before Linux 5.6."""
