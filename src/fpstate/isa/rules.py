"""The rules by which an instruction faults: one row each, with the vector, the words, the source and the cure."""

from __future__ import annotations

from typing import Final, NamedTuple

from fpstate.cpu import xcr0

__all__ = ["RULES", "Fault", "Rule"]


class Rule(NamedTuple):
    """One reason for a fault.

    Attributes:
        id: a short name, stable.
        vector: what is raised: "#GP", "#UD", ...
        text: what must hold.
        source: where the manual, or the measurement, says so.
        cure: what to do about an input that breaks it; empty if that depends.
    """

    id: str
    vector: str
    text: str
    source: str
    cure: str = ""

    @property
    def ops(self) -> tuple[str, ...]:
        """The instructions that can break it, without the 64-bit forms."""
        return _ops(self.id)


_XSAVE = "xsave xsaveopt xsavec xsaves xrstor xrstors"
_AREA = f"{_XSAVE} fxsave fxrstor"
_READS = "xrstor xrstors fxrstor"
_SUPERVISOR = "xrstors wrmsr"

_OPS: Final = {
    "cpuid": _AREA,
    "osxsave": f"{_XSAVE} xgetbv xsetbv",
    "ts": _AREA,
    "em": "fxsave fxrstor",
    "cpl": "xsaves xrstors xsetbv rdmsr wrmsr",
    "canonical": _AREA,
    "alignment": _AREA,
    "alignment-check": _AREA,
    "page-read": _READS,
    "page-write": "xsave xsaveopt xsavec xsaves fxsave",
    "standard-xstate-bv": "xrstor",
    "standard-header": "xrstor",
    "compaction": "xrstor",
    "xcomp-bv-format": "xrstors",
    "xcomp-bv": "xrstor xrstors",
    "xstate-bv": "xrstor xrstors",
    "compacted-header": "xrstor xrstors",
    "mxcsr": _READS,
    "xfd": "xrstor xrstors",
    "reserved": "xrstors",
    "pt-enabled": _SUPERVISOR,
    "uinv": "xrstors",
    "xcr-index": "xgetbv xsetbv",
    "xss-unsupported": "wrmsr",
    "xfd-unsupported": "wrmsr",
    "msr": "rdmsr wrmsr",
}
"""The instructions that can break a rule, without the 64-bit forms; those not named: by prefix, see `_ops`."""


def _ops(rule: str) -> tuple[str, ...]:
    return tuple(_OPS.get(rule, "xsetbv" if rule.startswith("xcr0-") else _SUPERVISOR).split())


def _rows() -> tuple[Rule, ...]:
    header = "zero the reserved bytes: a buffer must be cleared before its first use"
    return (
        Rule("cpuid", "#UD", "the CPU must enumerate the instruction", "SDM vol. 1, 13.2", "use an older form"),
        Rule("osxsave", "#UD", "CR4.OSXSAVE must be 1", "SDM vol. 1, 13.7", "set CR4 bit 18"),
        Rule("ts", "#NM", "CR0.TS must be 0", "SDM vol. 1, 13.7", "execute CLTS"),
        Rule("em", "#NM", "CR0.EM must be 0 for FXSAVE and FXRSTOR", "SDM vol. 2, FXSAVE", "clear CR0 bit 2"),
        Rule(
            "cpl",
            "#GP",
            "CPL must be 0",
            "SDM vol. 1, 13.11, 13.12; vol. 2, XSETBV, RDMSR, WRMSR",
            "execute it in the kernel",
        ),
        Rule("canonical", "#GP", "the address must be canonical", "SDM vol. 1, 3.3.7.1", "sign-extend the address"),
        Rule(
            "alignment-check",
            "#AC",
            "with alignment checking on, the area must be aligned",
            "SDM vol. 1, 13.7, footnote",
            "round the address up",
        ),
        Rule(
            "alignment",
            "#GP",
            "the area must be aligned on 64 bytes, FXSAVE's on 16",
            "SDM vol. 1, 13.7; vol. 2, FXSAVE",
            "round the address up",
        ),
        Rule(
            "standard-xstate-bv",
            "#GP",
            "XSTATE_BV must set no bit outside XCR0",
            "SDM vol. 1, 13.8.1",
            "clear the bit, or enable the component in XCR0",
        ),
        Rule(
            "standard-header", "#GP", "header bytes 8 to 23 must be 0 in standard format", "SDM vol. 1, 13.8.1", header
        ),
        Rule(
            "compaction",
            "#GP",
            "the CPU must have XSAVEC for XCOMP_BV[63] to be set",
            "SDM vol. 1, 13.8, footnote 2",
            "convert the image to standard format",
        ),
        Rule(
            "xcomp-bv-format",
            "#GP",
            "XCOMP_BV[63] must be 1 for XRSTORS",
            "SDM vol. 1, 13.12",
            "set XCOMP_BV to bit 63 and the components, or convert the image to compacted format",
        ),
        Rule(
            "xcomp-bv",
            "#GP",
            "XCOMP_BV must set no bit outside XCR0, for XRSTORS outside XCR0 and IA32_XSS",
            "SDM vol. 1, 13.8.2 and 13.12",
            "enable the component, or strip it from the image",
        ),
        Rule(
            "xstate-bv",
            "#GP",
            "XSTATE_BV must set no bit outside XCOMP_BV[62:0]",
            "SDM vol. 1, 13.8.2 and 13.12; Zen 4 for bit 63",
            "clear the bit, or give the component a place: set it in XCOMP_BV and move what follows",
        ),
        Rule(
            "compacted-header",
            "#GP",
            "header bytes 16 to 63 must be 0 in compacted format",
            "SDM vol. 1, 13.8.2 and 13.12",
            header,
        ),
        Rule(
            "xfd",
            "#NM",
            "a component that XFD disables must not be loaded",
            "SDM vol. 1, 13.14",
            "clear its bit in IA32_XFD, or in XSTATE_BV if it may be lost",
        ),
        Rule(
            "page-read",
            "#PF",
            "the area must be readable",
            "SDM vol. 1, 13.13",
            "map the page; where the image is a file, give all of it",
        ),
        Rule(
            "page-write",
            "#PF",
            "the area must be writable, even where nothing would be written",
            "SDM vol. 1, 13.13; Zen 4",
            "map the page writable",
        ),
        Rule(
            "mxcsr", "#GP", "MXCSR must set no bit outside MXCSR_MASK", "SDM vol. 1, 13.8.1 and 11.6.6", "clear the bit"
        ),
        Rule(
            "pt-enabled",
            "#GP",
            "IA32_RTIT_CTL.TraceEn must be 0 when XRSTORS loads or initialises PT",
            "SDM vol. 1, 13.5.6",
            "clear TraceEn first",
        ),
        Rule(
            "uinv",
            "#GP",
            "UINV must be 0 when XRSTORS loads or initialises user-interrupt state",
            "SDM vol. 1, 13.5.11",
            "clear IA32_UINTR_MISC[39:32] first",
        ),
        Rule(
            "reserved",
            "#GP",
            "reserved parts of a supervisor component must be 0",
            "SDM vol. 1, 13.12",
            "clear the bytes",
        ),
        Rule(
            "ssp-alignment",
            "#GP",
            "bits 1:0 of a shadow-stack pointer must be 0",
            "SDM vol. 4, IA32_PL0_SSP",
            "align it on 4",
        ),
        Rule(
            "ssp-canonical",
            "#GP",
            "a shadow-stack pointer must be canonical",
            "SDM vol. 4, IA32_PL0_SSP",
            "sign-extend it",
        ),
        Rule(
            "cet-reserved",
            "#GP",
            "bits 9:6 of IA32_U_CET and IA32_S_CET, and the bits of an absent feature, must be 0",
            "SDM vol. 4, IA32_U_CET",
            "clear the bits",
        ),
        Rule(
            "cet-tracker",
            "#GP",
            "SUPPRESS (bit 10) and TRACKER (bit 11) must not both be set",
            "SDM vol. 4, IA32_U_CET",
            "clear one of them",
        ),
        Rule(
            "cet-canonical",
            "#GP",
            "IA32_U_CET and IA32_S_CET must be canonical",
            "SDM vol. 4, IA32_U_CET",
            "sign-extend it",
        ),
        Rule(
            "uintr-canonical",
            "#GP",
            "UINTR handler, stack adjustment, UPID and UITT addresses must be canonical",
            "SDM vol. 1, 13.5.11",
            "sign-extend it",
        ),
        Rule(
            "uintr-reserved",
            "#GP",
            "bits 62:40 of UINTR_MISC, 5:0 of UINTR_PD and 3:1 of UINTR_TT must be 0",
            "SDM vol. 1, 13.5.11",
            "clear the bits",
        ),
        Rule(
            "lbr-depth",
            "#GP",
            "IA32_LBR_DEPTH must be the current depth, or one that CPUID.1CH:EAX[7:0] allows: 8, 16, 24, 32",
            "SDM vol. 1, 13.5.12",
            "give a depth of this CPU",
        ),
        Rule(
            "lbr-reserved",
            "#GP",
            "reserved bits of IA32_LBR_CTL must be 0",
            "SDM vol. 4, IA32_LBR_CTL",
            "clear the bits",
        ),
        Rule(
            "hwp-reserved",
            "#GP",
            "reserved bits of IA32_HWP_REQUEST must be 0",
            "SDM vol. 4, IA32_HWP_REQUEST",
            "clear the bits",
        ),
        Rule(
            "hdc-reserved", "#GP", "bits 63:1 of IA32_PM_CTL1 must be 0", "SDM vol. 4, IA32_PM_CTL1", "clear the bits"
        ),
        Rule(
            "pasid-reserved",
            "#GP",
            "bits 30:20 and 63:32 of IA32_PASID must be 0",
            "SDM vol. 4, IA32_PASID",
            "clear the bits",
        ),
        Rule(
            "pt-reserved",
            "#GP",
            "addresses of Intel PT must be canonical, and the reserved bits of its MSRs 0",
            "SDM vol. 4, IA32_RTIT_CTL",
            "clear the bits",
        ),
        Rule(
            "xcr-index",
            "#GP",
            "ECX must name an extended control register: 0, for XGETBV also 1",
            "SDM vol. 2, XSETBV, XGETBV",
        ),
        Rule("msr", "#GP", "the MSR must exist on this CPU", "SDM vol. 2, RDMSR, WRMSR"),
        Rule(
            "xcr0-unsupported",
            "#GP",
            "XCR0 must set no bit that CPUID.0DH.0:EDX:EAX does not",
            "SDM vol. 1, 13.3",
            "clear the bit",
        ),
        *(Rule(f"xcr0-{rule.name}", "#GP", rule.text, rule.source) for rule in xcr0.RULES),
        Rule(
            "xss-unsupported",
            "#GP",
            "IA32_XSS must set no bit that CPUID.0DH.1:EDX:ECX does not",
            "SDM vol. 1, 13.3",
            "clear the bit",
        ),
        Rule(
            "xfd-unsupported",
            "#GP",
            "IA32_XFD and IA32_XFD_ERR must set no bit whose sub-leaf has ECX[2] = 0",
            "SDM vol. 1, 13.14",
            "clear the bit",
        ),
    )


RULES: Final = {rule.id: rule for rule in _rows()}
"""Every rule by its id, in the order in which an instruction checks them, but for the page of the header itself."""


class Fault(Exception):
    """The fault that an instruction raised.

    Attributes:
        rule: the rule that was broken.
        vector: "#GP" and so on.
        error_code: what the CPU pushes; None for a vector that has none.
        bit: the offending bit of a mask or register, or None.
        offset: the offending byte of the image, from its start, or None.
        address: for #PF, the linear address: CR2.
        detail: what was found.
    """

    def __init__(
        self,
        rule: str,
        detail: str,
        *,
        bit: int | None = None,
        offset: int | None = None,
        address: int | None = None,
        error_code: int | None = None,
    ) -> None:
        self.rule = RULES[rule]
        self.vector = self.rule.vector
        if error_code is None and self.vector in {"#GP", "#AC", "#SS"}:
            error_code = 0
        self.error_code = error_code
        self.detail = detail
        self.bit = bit
        self.offset = offset
        self.address = address
        super().__init__(detail)

    def __str__(self) -> str:
        cure = f"; {self.rule.cure}" if self.rule.cure else ""
        return f"{self.vector}: {self.detail}: {self.rule.text} ({self.rule.id}; {self.rule.source}){cure}"
