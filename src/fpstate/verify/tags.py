"""The hardware and the specification over tags: whose value is in a place, and is it the newest.

A verification looks at one component (or a class of components that are always treated alike), and at one context, the
*focus*: a task's program, or a guest.  Every place that can hold the component's registers, those of a CPU, an image, a
buffer, holds a *tag* in place of bytes:

- ``INITIAL``: the initial configuration.  In an image that is XSTATE_BV[i] = 0.
- ``FOREIGN``: a value of anybody else: another task or guest, the kernel, somebody who is gone.
- ``STALE``, ``FRESH``: an older value of the focus, and its newest.
- ``DEFAULT``: of PKRU alone, what the kernel starts programs with.

That is exact for whatever the bytes are: the kernel never looks at them, and for the focus it matters of a value only
whether it is its own, and the newest.  What holds with every context as the focus holds for all of them together (see
docs/explanation/the-proof.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from fpstate.isa import masks
from fpstate.isa.rules import Fault
from fpstate.linux.kernel import Cpu, Fpstate, Guest, Sets, Task
from fpstate.verify.expr import as_expr, where
from fpstate.xfeatures import AVX, AVX512, LEGACY, XTILE

__all__ = [
    "ANY",
    "DEFAULT",
    "DEFAULTED",
    "FOREIGN",
    "FRESH",
    "INITIAL",
    "KINDS",
    "OWN",
    "STALE",
    "TAGS",
    "Places",
    "TagHardware",
    "TagSpecification",
]

TAGS: Final = ("initial", "foreign", "stale", "fresh", "default")
INITIAL, FOREIGN, STALE, FRESH, DEFAULT = range(len(TAGS))
KINDS: Final = ("initial", "own", "any", "default")
"""What the focus must see: the initial configuration, its fresh value, any value of its own or the initial one, or
what programs start with."""
OWN, ANY, DEFAULTED = 1, 2, 3

VECTOR: Final = LEGACY | AVX | AVX512
"""What vector code of the kernel overwrites."""


Places = Callable[[], Iterator[tuple[Any, str]]]
"""Yields every place that holds a tag: an object and the name of its attribute."""


class TagHardware:
    """`fpstate.linux.kernel.Hardware` over tags of the components in *watched*, which are treated alike."""

    def __init__(self, sets: Sets, watched: int) -> None:
        self.sets = sets
        self.watched = watched

    def enabled(self, cpu: Cpu) -> Any:
        """With a guest's XCR0 and IA32_XSS loaded, nothing: the guest may have enabled as little as that."""
        return 0 if cpu.guest_xstate else self.sets.xcr0 | self.sets.xss

    def _has(self, mask: Any) -> Any:
        return mask & self.watched != 0

    def _bits(self, tag: Any) -> Any:
        """Return the XSTATE_BV that goes with *tag*."""
        return where(tag != INITIAL, self.watched, 0)

    def xsave(self, cpu: Cpu, fpstate: Fpstate) -> None:
        """XSAVES."""
        rfbm = self.enabled(cpu) & fpstate.xfeatures
        xinuse = self._bits(cpu.regs) & masks.complement(masks.disabled(self.sets.xcr0, cpu.xfd))
        xstate_bv = masks.saved_compacted(rfbm, xinuse, 0)
        fpstate.image = where(self._has(xstate_bv), cpu.regs, INITIAL)

    def xrstor(self, cpu: Cpu, fpstate: Fpstate, mask: int) -> None:
        """XRSTORS."""
        enabled = self.enabled(cpu)
        xstate_bv = self._bits(fpstate.image)
        if masks.bad_xcomp_bv(fpstate.xfeatures, enabled) != 0:
            raise Fault("xcomp-bv", "XCOMP_BV has a component that XCR0 | IA32_XSS lacks")
        if masks.bad_xstate_bv(xstate_bv, fpstate.xfeatures) != 0:
            raise Fault("xstate-bv", "XSTATE_BV has a component that XCOMP_BV lacks")
        self._load(cpu, fpstate.image, xstate_bv, enabled & mask)

    def _load(self, cpu: Cpu, tag: Any, xstate_bv: Any, rfbm: Any) -> None:
        if masks.needed_but_disabled(rfbm, xstate_bv, self.sets.xcr0, cpu.xfd) != 0:
            raise Fault("xfd", "XSTATE_BV and IA32_XFD have the same component")
        kept = where(self._has(masks.initialised(rfbm, xstate_bv)), INITIAL, cpu.regs)
        cpu.regs = where(self._has(masks.loaded(rfbm, xstate_bv)), tag, kept)

    def xsave_to_user(self, cpu: Cpu, fpstate: Fpstate) -> Any:
        """XSAVE to the frame; PKRU goes there by hand."""
        return where(self._has(fpstate.user_xfeatures & self.enabled(cpu)), cpu.regs, INITIAL)

    def xrstor_from_user(self, cpu: Cpu, image: Any, mask: int) -> None:
        """XRSTOR from the frame."""
        self._load(cpu, image, self._bits(image), self.enabled(cpu) & mask)

    def fxrstor_from_user(self, cpu: Cpu, image: Any) -> None:
        """FXRSTOR from the frame: XSTATE_BV is not looked at, nor IA32_XFD."""
        cpu.regs = where(self._has(LEGACY), image, cpu.regs)

    def partly_restored(self, cpu: Cpu, mask: int, *, own: Any) -> None:
        """Somebody else's registers are changed in part: they are nobody's.  PKRU always is the current task's."""
        if not self.sets.pkru and not own:
            cpu.regs = where(self._has(mask), FOREIGN, cpu.regs)

    def kernel_code(self, cpu: Cpu) -> None:
        """x87, SSE, AVX and AVX-512 registers are the kernel's."""
        cpu.regs = where(self._has(VECTOR), FOREIGN, cpu.regs)

    def reset(self, cpu: Cpu) -> None:
        """Everything is initial, IA32_XFD is 0."""
        cpu.regs = INITIAL
        cpu.xfd = 0

    def write_xfd(self, cpu: Cpu, mask: int) -> None:
        """IA32_XFD."""
        cpu.xfd = mask

    def xfeatures_in_use(self, cpu: Cpu, mask: int) -> Any:
        """XINUSE of what is watched; other components may be in use."""
        return self._bits(cpu.regs) & mask if self._has(mask) else mask

    def tile_release(self, cpu: Cpu) -> None:
        """TILERELEASE."""
        cpu.regs = where(self._has(XTILE), INITIAL, cpu.regs)

    def xsaves(self, cpu: Cpu, buffer: Any, mask: int) -> Any:
        """XSAVES of an independent component."""
        return where(self._has(mask & self.enabled(cpu)), cpu.regs, buffer)

    def xrstors(self, cpu: Cpu, buffer: Any, mask: int) -> None:
        """XRSTORS of an independent component."""
        cpu.regs = where(self._has(mask & self.enabled(cpu)), buffer, cpu.regs)

    def read_msrs(self, cpu: Cpu, mask: int) -> Any:
        """RDMSR, which no XCR0 or IA32_XSS stands in the way of."""
        return where(self._has(mask), cpu.regs, INITIAL)

    def write_msrs(self, cpu: Cpu, mask: int, values: Any) -> None:
        """WRMSR."""
        cpu.regs = where(self._has(mask), values, cpu.regs)

    def rdpkru(self, cpu: Cpu) -> Any:
        """RDPKRU; INITIAL where PKRU is not watched."""
        return cpu.regs if self.sets.pkru else INITIAL

    def wrpkru(self, cpu: Cpu, value: Any) -> None:
        """WRPKRU."""
        if self.sets.pkru:
            cpu.regs = value

    @property
    def nothing(self) -> Any:
        """A zeroed buffer."""
        return INITIAL

    @property
    def pkru_default(self) -> Any:
        """``init_pkru_value``."""
        return DEFAULT

    @property
    def pkru_initial(self) -> Any:
        """0."""
        return INITIAL

    def new_image(self, fpstate: Fpstate) -> Any:  # noqa: ARG002  bytes need it
        """XSTATE_BV is 0."""
        return INITIAL

    def copy_init(self, fpstate: Fpstate) -> None:
        """XSTATE_BV is 0."""
        fpstate.image = INITIAL

    def drop(self, fpstate: Fpstate, mask: int) -> None:
        """Clear XSTATE_BV[i]."""
        fpstate.image = where(self._has(mask), INITIAL, fpstate.image)

    def zero(self, fpstate: Fpstate, mask: int) -> None:
        """Zeros are the initial configuration, XSTATE_BV[i] or not."""
        fpstate.image = where(self._has(mask), INITIAL, fpstate.image)

    def to_user(self, fpstate: Fpstate, mask: int, pkru: Any, *, always: bool) -> Any:
        """Copy out; PKRU is the one that is passed."""
        if not self.sets.pkru:
            return where(self._has(mask), fpstate.image, INITIAL)
        shown = 1 if always else as_expr(fpstate.image) != INITIAL
        return where(self._has(mask) & where(shown, 1, 0), pkru, INITIAL)

    def from_user(self, fpstate: Fpstate, image: Any) -> Any:
        """Copy in: supervisor components stay."""
        fpstate.image = where(self._has(fpstate.user_xfeatures), image, fpstate.image)
        return image if self.sets.pkru else INITIAL

    def to_user_fx(self, fpstate: Fpstate) -> Any:
        """Copy out x87 and SSE."""
        return where(self._has(LEGACY), fpstate.image, INITIAL)

    def check_regset(self, image: Any) -> None:
        """Images are whole."""

    def component(self, fpstate: Fpstate, bit: int) -> Any:  # noqa: ARG002  bytes need it
        """The tag of what is watched."""
        return fpstate.image

    def standard_places(self, mask: int) -> list[tuple[int, int, int]]:  # noqa: ARG002  bytes need it
        """Tags lie nowhere."""
        return []

    def in_user_image(self, image: Any, mask: int) -> Any:
        """XSTATE_BV of a user's image."""
        return self._bits(image) & mask

    def without(self, image: Any, mask: int) -> Any:
        """Clear XSTATE_BV[i] of a user's image."""
        return where(self._has(mask), INITIAL, image)

    def in_image(self, fpstate: Fpstate, mask: int) -> Any:
        """XSTATE_BV."""
        return self._bits(fpstate.image) & mask

    def size(self, mask: int) -> int:
        """A size stands for the set that it was calculated for: one fits into the other if the sets do."""
        return mask

    def user_size(self, mask: int) -> int:
        """Likewise."""
        return mask

    def fits(self, size: int, mask: int) -> Any:
        """Whether *mask* is in the set that *size* was calculated for."""
        return mask & masks.complement(size) == 0

    def altstack_too_small(self, task: Task, mask: int) -> Any:  # noqa: ARG002  bytes need them
        """Alternate stacks are large enough, or none."""
        return False

    def sigframe_size(self, mask: int) -> int:  # noqa: ARG002  bytes need it
        """Likewise."""
        return 0

    @property
    def strict_sas_size(self) -> bool:
        """Nobody asked for it."""
        return False

    def set_ssp(self, fpstate: Fpstate, cet_user: Any) -> None:
        """The value of another shadow stack."""
        fpstate.image = where(self._has(self.sets.cet_user), cet_user, fpstate.image)

    def load_xsave_state(self, cpu: Cpu, guest: Guest | None) -> None:
        """The guest's, or the host's."""
        cpu.guest_xstate = int(guest is not None)


class TagSpecification:
    """`fpstate.linux.steps.Spec` over tags; what it hears is left to who derives from it.

    Attributes:
        is_focus: tells whether a task or a guest is the focus.
        newest: what the focus must see, one of `KINDS`.
    """

    def __init__(self, sets: Sets, hw: TagHardware, places: Places, is_focus: Callable[[Any], bool]) -> None:
        self.sets, self.hw, self.places, self.is_focus = sets, hw, places, is_focus
        self.newest: Any = INITIAL

    def watches(self, mask: Any) -> Any:
        """Return whether *mask* has what is watched."""
        return mask & self.hw.watched != 0

    def _replace(self, old: int, new: int, when: Any = 1) -> None:
        for holder, name in self.places():
            tag = getattr(holder, name)
            setattr(holder, name, where((tag == old) & where(when, 1, 0), new, tag))

    def _set_newest(self, who: Task | Guest, kind: int, when: Any) -> None:
        """If *who* is the focus, what was newest no longer is."""
        if self.is_focus(who):
            self._replace(FRESH, STALE, when)
            self.newest = where(when, kind, self.newest)

    def _value_of(self, who: Task | Guest) -> int:
        return FRESH if self.is_focus(who) else FOREIGN

    def writes(self, cpu: Cpu, who: Task | Guest, mask: int) -> None:
        """See `Spec`."""
        when = self.watches(mask)
        self._set_newest(who, OWN, when)
        cpu.regs = where(when, self._value_of(who), cpu.regs)

    def initialises(self, cpu: Cpu, who: Task | Guest, mask: int) -> None:
        """See `Spec`."""
        when = self.watches(mask)
        self._set_newest(who, INITIAL, when)
        cpu.regs = where(when, INITIAL, cpu.regs)

    def makes_image(self, who: Task | Guest, mask: int) -> Any:
        """See `Spec`."""
        when = self.watches(mask)
        self._set_newest(who, OWN, when)
        return where(when, self._value_of(who), INITIAL)

    def makes_initial_image(self, who: Task | Guest, mask: int) -> Any:
        """See `Spec`."""
        self._set_newest(who, INITIAL, self.watches(mask))
        return INITIAL

    def forgets(self, who: Task | Guest, mask: int) -> None:
        """See `Spec`."""
        program = self.sets.pkru and isinstance(who, Task)
        self._set_newest(who, DEFAULTED if program else INITIAL, self.watches(mask))

    def disowns(self, who: Task | Guest, mask: int) -> None:
        """See `Spec`."""
        if self.is_focus(who):
            self.newest = where(self.watches(mask) & (self.newest != INITIAL), ANY, self.newest)

    def starts(self, who: Task | Guest) -> None:
        """See `Spec`."""
        self.forgets(who, self.hw.watched)

    def ends(self, who: Task | Guest) -> None:
        """See `Spec`."""
        if self.is_focus(who):
            self._replace(FRESH, FOREIGN)
            self._replace(STALE, FOREIGN)
            self.newest = INITIAL

    def inherits(self, child: Task, parent: Task) -> None:
        """See `Specification`.  That what was copied is the parent's newest is checked with the parent as the focus."""
        holder, name = (child, "pkru") if self.sets.pkru else (child.own, "image")
        tag = getattr(holder, name)
        if not self.watches(self.sets.default & masks.complement(self.sets.pasid)):
            if self.is_focus(child):
                self.newest = INITIAL
            return
        if self.is_focus(parent):
            self.copied(tag)
            setattr(holder, name, where((tag == FRESH) | (tag == STALE), FOREIGN, tag))
        elif self.is_focus(child):
            setattr(holder, name, where(tag == FOREIGN, FRESH, tag))
            kind = where(tag == FOREIGN, OWN, INITIAL)
            self.newest = where(tag == DEFAULT, DEFAULTED, kind) if self.sets.pkru else kind

    def new_ssp(self, child: Task) -> Any:
        """See `Specification`."""
        self._set_newest(child, OWN, self.watches(self.sets.cet_user))
        return self._value_of(child)

    def uses(self, who: Task, mask: int) -> Any:
        """See `fpstate.linux.steps.Spec`."""
        if not self.watches(mask):
            return 1
        return as_expr(self.newest == OWN) if self.is_focus(who) else 1

    def copied(self, tag: Any) -> None:
        """The focus forks, and its child gets *tag*."""
        raise NotImplementedError

    def is_newest(self, tag: Any) -> Any:
        """Whether *tag* is what the focus must see."""
        own = tag == FRESH
        mine = own | (tag == STALE) | (tag == INITIAL)
        if self.sets.pkru:
            mine |= tag == DEFAULT
        right = where(self.newest == OWN, own, where(self.newest == ANY, mine, tag == INITIAL))
        return where(self.newest == DEFAULTED, tag == DEFAULT, right) if self.sets.pkru else right

    def is_nobody_elses(self, tag: Any) -> Any:
        """Whether *tag* gives nothing of anybody else away."""
        return as_expr(tag) != FOREIGN
