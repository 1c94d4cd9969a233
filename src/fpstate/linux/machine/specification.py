"""`fpstate.linux.steps.Spec` over bytes: what each context must see, held against what is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from fpstate.errors import UsageError
from fpstate.linux.kernel import Cpu, Guest, Sets, Task
from fpstate.linux.machine.area import Area
from fpstate.linux.machine.hardware import PKRU_DEFAULT, ByteHardware
from fpstate.linux.machine.values import CET_U, PKRU_BYTES, Ledger, Owner, component, put
from fpstate.linux.steps import Assumptions
from fpstate.xfeatures import LEGACY, PKRU, bits

__all__ = ["ByteSpecification", "Finding", "NotPossible", "Trace", "label"]

_PKRU: Final = 1 << PKRU
_STALE: Final = "an older value of its own"


class NotPossible(UsageError):
    """A step cannot be taken as things are.

    Attributes:
        step: its name.
        why: what would have to hold.
    """

    def __init__(self, step: str, why: str) -> None:
        super().__init__(f"{step} is not possible: {why}")
        self.step = step
        self.why = why


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be.

    Attributes:
        property: its id: ``ISO-RUN``, ``INT-BUF``, ``P1``, ``WARN: ...``, ``FAULT: ...``.
        text: in words.
        components: those that it is about; 0 if it is about none.
        context: the task or guest that it is about, or "".
    """

    property: str
    text: str
    components: int = 0
    context: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """A tracepoint that was passed.

    Attributes:
        event: its name.
        cpu, task: their numbers.
        load: TIF_NEED_FPU_LOAD.
        xfeatures, xcomp_bv: the header of the task's active image.
    """

    event: str
    cpu: int
    task: int
    load: int
    xfeatures: int
    xcomp_bv: int

    def __str__(self) -> str:
        if self.event.startswith("kvm_fpu"):
            return self.event.replace(" ", ": ")
        masks = f"xfeatures: {self.xfeatures:x} xcomp_bv: {self.xcomp_bv:x}"
        return f"{self.event}: x86/fpu: task{self.task} load: {self.load} {masks}"


def label(ledger: Ledger, bit: int, data: bytes | bytearray) -> str:
    """Return in words whose the value *data* of component *bit* is."""
    origin = ledger.origin(bit, data)
    owner = origin.owner
    if owner is None:
        return origin.kind
    if owner.gone:
        return f"{owner.name} (gone)"
    return f"{owner.name} (old)" if owner.newest.get(bit, data) != data else owner.name


class ByteSpecification:
    """Who wrote what last, and who may see what.

    Attributes:
        owners: of every task and guest, what it must see.
        found: the findings since somebody emptied it.
        traces: the tracepoints passed; None while nobody wants to know.
        step: the name of the step in progress.
    """

    def __init__(self, sets: Sets, hw: ByteHardware, assumptions: Assumptions) -> None:
        self.sets, self.hw, self.ledger = sets, hw, hw.ledger
        self.owners: dict[Task | Guest, Owner] = {}
        self.found: list[Finding] = []
        self.traces: list[Trace] | None = None
        self.step = ""
        self._host_sss = sets.cet_kernel if assumptions.host_sss and assumptions.fred else 0
        self._inherited = sets.default & ~sets.pasid
        self._default_pkru = PKRU_DEFAULT.to_bytes(PKRU_BYTES, "little")
        self._enabled = sets.xcr0 | sets.xss | sets.raw_msr | self._host_sss
        self._bits: dict[int, tuple[int, ...]] = {}

    def adopt(self, who: Task | Guest) -> Owner:
        """Return a new owner in the place of *who*'s: everything initial, PKRU of a task what programs start with."""
        name = f"{'task' if isinstance(who, Task) else 'guest'} {who.number}"
        owner = self.owners[who] = Owner(name, dict(self.ledger.initial))
        return owner

    def bits(self, mask: int) -> tuple[int, ...]:
        """Return the components of *mask* that are there."""
        found = self._bits.get(mask)
        if found is None:
            found = self._bits[mask] = tuple(bits(mask & self._enabled))
        return found

    # -- what the kernel says of itself -----------------------------------------------------------------------------

    def needs(self, condition: Any, why: str) -> None:
        """Refuse the step if *condition* does not hold.

        Raises:
            NotPossible: it does not.
        """
        if not condition:
            raise NotPossible(self.step, why)

    def warn(self, name: str, condition: Any, *, of: Task | None = None) -> bool:  # noqa: ARG002  it follows all
        """Note a WARN."""
        if condition:
            self.found.append(Finding(f"WARN: {name}", f"the kernel warns in {name}"))
        return bool(condition)

    def require(self, name: str, condition: Any) -> None:
        """Note a property that does not hold."""
        if not condition:
            self.found.append(Finding(name, "the property does not hold"))

    ensures = require

    def trace(self, event: str, cpu: Cpu, task: Task) -> None:
        """Note a tracepoint."""
        if self.traces is not None:
            image: Area = task.fpstate.image
            load = task.need_fpu_load
            self.traces.append(Trace(event, cpu.number, task.number, load, image.xstate_bv, image.xcomp_bv))

    # -- what contexts do -------------------------------------------------------------------------------------------

    def writes(self, cpu: Cpu, who: Task | Guest, mask: int) -> None:
        """See `fpstate.linux.steps.Spec`."""
        owner, p = self.owners[who], cpu.regs
        self._write(owner, mask)
        for bit in self.ledger.bits(mask & self._enabled):
            put(p, bit, owner.newest[bit])
        p.touch(mask)

    def _write(self, owner: Owner, mask: int) -> None:
        """Make a new value of *mask* the newest of *owner*."""
        ledger, newest = self.ledger, owner.newest
        number = ledger.fresh(owner, mask)
        for bit in ledger.bits(mask & self._enabled):
            newest[bit] = ledger.value(bit, number)
        owner.disowned &= ~mask

    def initialises(self, cpu: Cpu, who: Task | Guest, mask: int) -> None:
        """See `fpstate.linux.steps.Spec`."""
        self._reset(self.owners[who], mask)
        self.hw.initialise(cpu, mask & self._enabled)

    def _reset(self, owner: Owner, mask: int) -> None:
        initial = self.ledger.initial
        for bit in self.bits(mask):
            owner.newest[bit] = initial[bit]
        owner.disowned &= ~mask

    def makes_image(self, who: Task | Guest, mask: int) -> Area:
        """See `fpstate.linux.steps.Spec`."""
        owner = self.owners[who]
        self._write(owner, mask)
        area = self._blank(who, mask)
        area.xstate_bv = mask
        for bit in self.bits(mask):
            area.put(bit, owner.newest[bit])
        return area

    def makes_initial_image(self, who: Task | Guest, mask: int) -> Area:
        """See `fpstate.linux.steps.Spec`."""
        self._reset(self.owners[who], mask)
        return self._blank(who, mask)

    def _blank(self, who: Task | Guest, mask: int) -> Area:
        """Return an empty image with room for *mask*: a task's is as large as the regset, which takes no less."""
        whole = self.hw.config.user.max_size if isinstance(who, Task) else self.hw.user_size(mask | LEGACY)
        return self.hw.areas.user(whole)

    def forgets(self, who: Task | Guest, mask: int) -> None:
        """See `fpstate.linux.steps.Spec`."""
        owner = self.owners[who]
        self._reset(owner, mask)
        if mask & _PKRU & self._enabled and isinstance(who, Task):
            owner.newest[PKRU] = self._default_pkru

    def disowns(self, who: Task | Guest, mask: int) -> None:
        """See `fpstate.linux.steps.Spec`."""
        owner, initial = self.owners[who], self.ledger.initial
        for bit in self.bits(mask):
            if owner.newest[bit] != initial[bit]:
                owner.disowned |= 1 << bit

    def is_initial(self, who: Task | Guest, mask: int) -> bool:
        """See `fpstate.linux.steps.Spec`."""
        owner, initial = self.owners[who], self.ledger.initial
        return not owner.disowned & mask and all(owner.newest[bit] == initial[bit] for bit in self.bits(mask))

    def starts(self, who: Task | Guest) -> None:
        """See `fpstate.linux.steps.Spec`."""
        self.forgets(who, self._enabled)

    def ends(self, who: Task | Guest) -> None:
        """See `fpstate.linux.steps.Spec`."""
        self.owners[who].gone = True
        self.adopt(who)

    def inherits(self, child: Task, parent: Task) -> None:
        """See `fpstate.linux.kernel.hardware.Specification`.

        What was copied is the parent's newest.  Then the child's copy gets values of the child, so that from here on
        bytes say whose they are; the kernel never looks at them.
        """
        owner, image = self.owners[child], child.own.image
        before = self.owners[parent]
        self._reset(owner, self._enabled)
        copied = [(bit, image.component(bit)) for bit in self.bits(self._inherited & ~_PKRU)]
        if self._inherited & _PKRU & self._enabled:
            copied.append((PKRU, child.pkru.to_bytes(PKRU_BYTES, "little")))
        data = [(bit, self.ledger.initial[bit] if value is None else value) for bit, value in copied]
        self._hold("BUF", f"the child of {before.name} gets", before, data)
        self._pass_on(child, owner, image, data)

    def moves(self, source: Guest, target: Guest) -> None:
        """*target* goes on as *source*, whose vCPU must not run any more."""
        owner = self.owners[target] = self.owners[source]
        owner.name = f"guest {target.number}"
        self.adopt(source)

    def new_ssp(self, child: Task) -> bytes:
        """See `fpstate.linux.kernel.hardware.Specification`."""
        owner = self.owners[child]
        self._write(owner, self.sets.cet_user)
        return owner.newest[CET_U]

    def uses(self, who: Task, mask: int) -> bool:
        """See `fpstate.linux.steps.Spec`."""
        return not self.is_initial(who, mask)

    def _pass_on(self, child: Task, owner: Owner, image: Area, data: list[tuple[int, bytes | bytearray]]) -> None:
        known = [(bit, self.ledger.origin(bit, value).kind, value) for bit, value in data]
        mask = sum(1 << bit for bit, kind, _ in known if kind not in {"initial", "default"})
        self._write(owner, mask)
        for bit, kind, _ in known:
            if kind == "default":
                owner.newest[bit] = self._default_pkru
            elif bit == PKRU:
                child.pkru = int.from_bytes(owner.newest[bit], "little")
            elif kind != "initial":
                image.put(bit, owner.newest[bit])

    # -- what contexts see ------------------------------------------------------------------------------------------

    def observable(self, who: Task | Guest) -> int:
        """Return the components that *who* can see in registers."""
        if isinstance(who, Guest):
            return self.sets.kvm & (who.fpstate.xfeatures | self.sets.kvm_own)
        return self.sets.user_writable | self._host_sss

    def runs(self, cpu: Cpu, who: Task | Guest) -> None:
        """See `Spec`; what XFD disables is not seen, nor the PKRU of a guest while the host's is loaded."""
        owner, p = self.owners[who], cpu.regs
        newest = owner.newest
        hidden = cpu.xfd | (_PKRU if isinstance(who, Guest) and not cpu.guest_xstate else 0)
        seen = self.bits(self.observable(who) & ~hidden)
        differing = [(bit, data) for bit in seen if (data := component(p, bit)) != newest[bit]]
        if differing:
            self._hold("RUN", f"{owner.name} runs on CPU {cpu.number} with", owner, differing)

    def shows(self, image: Area, who: Task | Guest) -> None:
        """See `fpstate.linux.steps.Spec`."""
        owner, initial = self.owners[who], self.ledger.initial
        fpstate = who.own if isinstance(who, Task) else who.fpstate
        features = fpstate.user_xfeatures if isinstance(who, Task) else fpstate.user_xfeatures & self.sets.kvm
        held = [(bit, image.component(bit)) for bit in self.bits(self.sets.xcr0)]
        data = [(bit, initial[bit] if value is None else value) for bit, value in held]
        self._hold("BUF", f"an image of {owner.name} shows", owner, data, features)
        hidden = sum(1 << bit for bit, value in data if not features >> bit & 1 and value != initial[bit])
        if hidden:
            words = f"an image of {owner.name} has components that it has no permission for"
            self.found.append(Finding("P14", words, hidden, owner.name))

    def _hold(
        self, where: str, words: str, owner: Owner, data: Iterable[tuple[int, bytes | bytearray]], mask: int = -1
    ) -> None:
        """Hold *data* against what *owner* must see, the newest in *mask*; anybody else's is worse than old."""
        wrong: dict[tuple[str, str], int] = {}
        for bit, kind, whose in self._wrong(owner, data):
            if kind == "ISO" or mask >> bit & 1:
                wrong[kind, whose] = wrong.get((kind, whose), 0) | 1 << bit
        for (kind, whose), components in wrong.items():
            names = self.hw.config.cpu.catalogue.names(components)
            self.found.append(Finding(f"{kind}-{where}", f"{words} {whose} in {names}", components, owner.name))

    def _wrong(self, owner: Owner, data: Iterable[tuple[int, bytes | bytearray]]) -> Iterator[tuple[int, str, str]]:
        for bit, value in data:
            disowned = owner.disowned >> bit & 1
            if value == owner.newest[bit] and not disowned:
                continue
            origin = self.ledger.origin(bit, value)
            if origin.kind == "torn" or (origin.owner is not None and origin.owner is not owner):
                whose = "what nobody wrote" if origin.owner is None else f"values of {label(self.ledger, bit, value)}"
                yield bit, "ISO", whose
            elif not disowned:
                yield bit, "INT", _STALE if origin.owner is owner else f"the {origin.kind} value in place of its own"
