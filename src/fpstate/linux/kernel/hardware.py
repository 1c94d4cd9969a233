"""What the kernel asks of the hardware, and what a specification is told: the two things behind `Kernel`.

There are two of each.  Over bytes, `fpstate.linux.machine` executes the instructions of `fpstate.isa` on processors;
over tags, `fpstate.verify.tags` moves the answer to "whose value is this, and is it the newest".
"""

from __future__ import annotations

from typing import Any, Protocol

from fpstate.linux.kernel.state import Cpu, Fpstate, Guest, Task

__all__ = ["Hardware", "Specification"]


class Hardware(Protocol):
    """Instructions, and memory that holds images.  Methods that execute XRSTOR raise `fpstate.isa.Fault`."""

    def xsave(self, cpu: Cpu, fpstate: Fpstate) -> None:
        """os_xsave(): save what *fpstate* has room for; what XCR0 | IA32_XSS lacks is left out."""

    def xrstor(self, cpu: Cpu, fpstate: Fpstate, mask: int) -> None:
        """os_xrstor(): load, or initialise, *mask* from *fpstate*."""

    def xsave_to_user(self, cpu: Cpu, fpstate: Fpstate) -> Any:
        """xsave_to_user_sigframe(): return the user image, in standard format."""

    def xrstor_from_user(self, cpu: Cpu, image: Any, mask: int) -> None:
        """xrstor_from_user_sigframe(): load, or initialise, *mask* from a user's image."""

    def fxrstor_from_user(self, cpu: Cpu, image: Any) -> None:
        """fxrstor_from_user_sigframe(): load x87 and SSE from a user's image, whatever its header says."""

    def partly_restored(self, cpu: Cpu, mask: int, *, own: int) -> None:
        """An XRSTOR of *mask* from user memory faulted on its way; *own*: the registers held the task's state."""

    def kernel_code(self, cpu: Cpu) -> None:
        """Vector code of the kernel's own overwrites x87, SSE, AVX and AVX-512 registers."""

    def reset(self, cpu: Cpu) -> None:
        """The CPU comes out of RESET: registers and IA32_XFD as the manual has them."""

    def write_xfd(self, cpu: Cpu, mask: int) -> None:
        """WRMSR of IA32_XFD."""

    def xfeatures_in_use(self, cpu: Cpu, mask: int) -> Any:
        """XGETBV with ECX = 1: the part of *mask* that is in use."""

    def tile_release(self, cpu: Cpu) -> None:
        """TILERELEASE."""

    def xsaves(self, cpu: Cpu, buffer: Any, mask: int) -> Any:
        """XSAVES of independent components; return the buffer."""

    def xrstors(self, cpu: Cpu, buffer: Any, mask: int) -> None:
        """XRSTORS of independent components."""

    def read_msrs(self, cpu: Cpu, mask: int) -> Any:
        """RDMSR of the registers of *mask*."""

    def write_msrs(self, cpu: Cpu, mask: int, values: Any) -> None:
        """WRMSR of the registers of *mask*."""

    def rdpkru(self, cpu: Cpu) -> Any:
        """RDPKRU."""

    def wrpkru(self, cpu: Cpu, value: Any) -> None:
        """WRPKRU."""

    @property
    def nothing(self) -> Any:
        """A zeroed buffer for independent components, or MSRs of 0."""

    @property
    def pkru_default(self) -> Any:
        """``init_pkru_value``."""

    @property
    def pkru_initial(self) -> Any:
        """PKRU in the initial configuration: 0."""

    def new_image(self, fpstate: Fpstate) -> Any:
        """A zeroed image for *fpstate*, its XCOMP_BV set, everything in its initial configuration."""

    def copy_init(self, fpstate: Fpstate) -> None:
        """Copy ``init_fpstate`` over the image, as much of it as it has."""

    def drop(self, fpstate: Fpstate, mask: int) -> None:
        """Clear *mask* in the image's XSTATE_BV."""

    def zero(self, fpstate: Fpstate, mask: int) -> None:
        """Write zeros over the components of *mask* that the image's XSTATE_BV has; the field stays."""

    def altstack_too_small(self, task: Task, mask: int) -> Any:
        """validate_sigaltstack(): whether the task has an alternate stack that a frame with *mask* would not fit on."""

    def sigframe_size(self, mask: int) -> int:
        """Bytes of the largest frame with user components of *mask*, as sigaltstack_size_valid() adds them up."""

    @property
    def strict_sas_size(self) -> bool:
        """Whether ``strict_sas_size`` was given on the command line."""

    def to_user(self, fpstate: Fpstate, mask: int, pkru: Any, *, always: bool) -> Any:
        """copy_xstate_to_uabi_buf(): return the standard-format copy of the *mask* of an image.

        Its PKRU is *pkru*, if the image's XSTATE_BV has the component, or *always*.
        """

    def from_user(self, fpstate: Fpstate, image: Any) -> Any:
        """copy_uabi_to_xstate(): take a standard-format image; return its PKRU, the initial value if it has none."""

    def to_user_fx(self, fpstate: Fpstate) -> Any:
        """copy_xstate_to_uabi_buf() with XSTATE_COPY_FX: return the 512 bytes of x87 and SSE."""

    def check_regset(self, image: Any) -> None:
        """ptrace_regset() and the first lines of xstateregs_set(): a whole image is needed."""

    def component(self, fpstate: Fpstate, bit: int) -> Any:
        """get_xsave_addr(): return the bytes of a component; None if the image has it in its initial configuration."""

    def standard_places(self, mask: int) -> list[tuple[int, int, int]]:
        """Return component, xstate_sizes[] and xstate_offsets[] of the extended components of *mask*, ascending."""

    def in_user_image(self, image: Any, mask: int) -> Any:
        """The part of *mask* that is set in the XSTATE_BV of a user's image."""

    def without(self, image: Any, mask: int) -> Any:
        """A user's image with *mask* cleared in its XSTATE_BV."""

    def in_image(self, fpstate: Fpstate, mask: int) -> Any:
        """The part of *mask* that is set in the image's XSTATE_BV."""

    def size(self, mask: int) -> int:
        """xstate_calculate_size(): bytes of a kernel image of *mask*."""

    def user_size(self, mask: int) -> int:
        """xstate_calculate_size() of the standard format."""

    def fits(self, size: int, mask: int) -> Any:
        """Whether an image of *mask* fits into *size* bytes."""

    def enabled(self, cpu: Cpu) -> int:
        """XCR0 | IA32_XSS as they are now."""

    def set_ssp(self, fpstate: Fpstate, cet_user: Any) -> None:
        """update_fpu_shstk(): write CET_U with a new shadow stack pointer into an image."""

    def load_xsave_state(self, cpu: Cpu, guest: Guest | None) -> None:
        """XSETBV and WRMSR of IA32_XSS: those of *guest*, or the host's."""


class Specification(Protocol):
    """Who listens to what the kernel claims about itself."""

    def warn(self, name: str, condition: Any, *, of: Task | None = None) -> bool:
        """A WARN of the kernel: *condition* must not hold.  Return whether the kernel goes the WARN's way.

        It is about values of the task *of*; who does not follow that task's values cannot judge it.
        """

    def require(self, name: str, condition: Any) -> None:
        """A property: *condition* must hold."""

    def trace(self, event: str, cpu: Cpu, task: Task) -> None:
        """A tracepoint of ``x86_fpu`` or ``kvm``."""

    def inherits(self, child: Task, parent: Task) -> None:
        """By the ABI, what *child*'s fpstate now holds of *parent* is *child*'s."""

    def new_ssp(self, child: Task) -> Any:
        """Return CET_U of *child* with the top of a shadow stack of its own."""
