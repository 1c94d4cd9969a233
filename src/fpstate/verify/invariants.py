"""What is true of every state the kernel can reach: the invariants by which the proof for any number goes.

Each clause speaks of at most two CPUs and one task, beside the task of the focus.  The first few are about who runs
where, the next about who owns the registers; the rest says where the newest value of the focus is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fpstate.linux.kernel import FREE, GUEST, KERNEL, NULL, USER, Cpu, Task
from fpstate.linux.kernel.sets import GUEST_PERM_LOCKED
from fpstate.linux.steps import World
from fpstate.verify.expr import Expr, as_expr, negate, where
from fpstate.verify.model import SymbolicSpecification
from fpstate.verify.tags import FRESH, INITIAL, OWN, STALE

__all__ = ["invariants"]

Clause = tuple[str, Any]


def implies(condition: Any, consequence: Any) -> Expr:
    """Return *condition* → *consequence*."""
    return where(_truth(condition), _truth(consequence), 1)


def same(first: Any, second: Any) -> Expr:
    """Return *first* ↔ *second*."""
    return as_expr(_truth(first) == _truth(second))


def _truth(value: Any) -> Expr:
    e = as_expr(value)
    return e if e.boolean else e != 0


def valid(cpu: Cpu, task: Task) -> Any:
    """fpregs_state_valid()."""
    return (cpu.fpregs_owner_ctx == task.ref) & (task.last_cpu == cpu.ref)


def in_memory(task: Task) -> Expr:
    """Whether the newest state of *task* is in its active fpstate; until 6.15 the flag was set on the way back only."""
    return _truth(task.need_fpu_load) | negate(_truth(task.on_cpu))


def invariants(w: World) -> Iterator[Clause]:
    """Yield the clauses, each with its name."""
    for cpu in w.cpus:
        yield from _idle(cpu)
        for task in w.tasks:
            yield from _running(cpu, task)
            yield from _owning(cpu, task)
            for other in w.cpus:
                if other is not cpu:
                    yield "runs-once", negate(_truth((cpu.curr == task.ref) & (other.curr == task.ref)))
    for task in w.tasks:
        yield from _task(task, marks_next=w.kernel.policy.switch_marks_next)
        yield from _holds_what_it_has_room_for(w, task)
    if w.kernel.sets.dynamic:
        yield from _dynamic(w)
    if w.kernel.sets.dynamic and w.kernel.sets.supervisor:
        yield from _permissions(w)
    yield from _gone(w)
    yield from _newest(w)


def _idle(cpu: Cpu) -> Iterator[Clause]:
    yield "P10", implies(cpu.curr == NULL, negate(_truth(cpu.guest_xstate)))
    yield "kernel-fpu-owns", implies(cpu.in_kernel_fpu, cpu.fpregs_owner_ctx == NULL)


def _running(cpu: Cpu, task: Task) -> Iterator[Clause]:
    here = cpu.curr == task.ref
    yield "current-is-on-cpu", implies(here, task.on_cpu)
    yield "current-is-not-free", implies(here, task.mode != FREE)
    yield "P10", implies(here, same(cpu.guest_xstate, task.mode == GUEST))
    yield "kernel-fpu-in-kernel", implies(here & _truth(cpu.in_kernel_fpu), task.mode == KERNEL)
    yield "kernel-fpu-saved", implies(here & _truth(cpu.in_kernel_fpu), task.need_fpu_load)


def _owning(cpu: Cpu, task: Task) -> Iterator[Clause]:
    here = cpu.curr == task.ref
    yield "P11", implies(here & negate(_truth(task.need_fpu_load)), valid(cpu, task))


def _task(task: Task, *, marks_next: bool) -> Iterator[Clause]:
    on_cpu = _truth(task.on_cpu)
    yield "user-mode-on-cpu", implies((task.mode == USER) | (task.mode == GUEST), on_cpu)
    yield "free-off-cpu", implies(task.mode == FREE, negate(on_cpu))
    if not marks_next:
        yield "loaded-on-cpu", implies(negate(_truth(task.need_fpu_load)) & (task.mode != FREE), on_cpu)
    yield "user-mode-loaded", implies((task.mode == USER) | (task.mode == GUEST), negate(_truth(task.need_fpu_load)))
    if task.guest is None:
        return
    guest = task.guest
    yield "P13", same(task.plugged, guest.fpstate.in_use)
    yield "plugged-exists", implies(task.plugged, guest.exists)
    yield "plugged-in-kernel", implies(task.plugged, (task.mode == KERNEL) | (task.mode == GUEST))
    yield "guest-plugged", implies(task.mode == GUEST, task.plugged)
    yield "free-has-no-vcpu", implies(task.mode == FREE, negate(_truth(guest.exists)))
    if not isinstance(guest.loaded, int):
        yield "loaded-plugged", same(guest.loaded, task.plugged)


def _holds_what_it_has_room_for(w: World, task: Task) -> Iterator[Clause]:
    """P2: XSTATE_BV is within XCOMP_BV."""
    for fpstate in (task.own, *((task.guest.fpstate,) if task.guest is not None else ())):
        absent = fpstate.xfeatures & w.kernel.sets.watched == 0
        yield "P2", implies(absent, fpstate.image == INITIAL)


def _gone(w: World) -> Iterator[Clause]:
    """Of a task or guest that is no more, nothing is left anywhere under its name."""
    spec = w.spec
    assert isinstance(spec, SymbolicSpecification)  # noqa: S101  for the type checker
    for task in w.tasks:
        if spec.is_focus(task):
            gone: Any = task.mode == FREE
        elif task.guest is not None and spec.is_focus(task.guest):
            gone = task.guest.exists == 0
        else:
            continue
        yield "gone-wants-nothing", implies(gone, spec.newest == INITIAL)
        for holder, name in spec.places():
            tag = as_expr(getattr(holder, name))
            yield "gone-left-nothing", implies(gone, negate((tag == FRESH) | (tag == STALE)))


def _dynamic(w: World) -> Iterator[Clause]:
    """P7, P8 and P9: XFD, its shadow, and the fpstates."""
    dynamic = w.kernel.sets.dynamic
    for cpu in w.cpus:
        shadowed = same(cpu.xfd & dynamic, cpu.xfd_state & dynamic)
        yield "P8", implies(negate(_truth(cpu.guest_xstate)), shadowed)
        for task in w.tasks:
            yield from _dynamic_registers(cpu, task, dynamic)
            if task.guest is not None:
                inside = (cpu.curr == task.ref) & (task.mode == GUEST)
                yield "P8", implies(inside & _truth(task.guest.xfd_intercepted), shadowed)
    for task in w.tasks:
        yield "P7", same(task.own.xfd & dynamic, task.own.xfeatures & dynamic == 0)
        if task.guest is not None:
            fpstate = task.guest.fpstate
            small = fpstate.xfeatures & dynamic == 0
            yield "P7", implies(small, fpstate.xfd & dynamic == 0)
            yield "small-guest-exits", implies(small, task.guest.xfd_intercepted)
            stored = negate(_truth(task.plugged)) | in_memory(task)
            yield "P9", implies(_truth(fpstate.xfd & dynamic) & stored, fpstate.image == INITIAL)


def _dynamic_registers(cpu: Cpu, task: Task, dynamic: int) -> Iterator[Clause]:
    held = valid(cpu, task)
    plugged = _truth(task.plugged)
    own = held & negate(plugged)
    yield "P8", implies(own, same(cpu.xfd & dynamic, task.own.xfd & dynamic))
    yield "small-is-initial", implies(own & (task.own.xfeatures & dynamic == 0), cpu.regs == INITIAL)
    if task.guest is None:
        return
    fpstate = task.guest.fpstate
    guest = held & plugged
    seen = _truth(task.guest.xfd_intercepted) | (task.mode != GUEST)
    yield "P8", implies(guest & seen, same(cpu.xfd & dynamic, fpstate.xfd & dynamic))
    yield "small-guest-is-initial", implies(guest & (fpstate.xfeatures & dynamic == 0), cpu.regs == INITIAL)


def _permissions(w: World) -> Iterator[Clause]:
    """Permissions keep what boot put into them, and the sizes stored with them are sizes of what they permit."""
    sets = w.kernel.sets
    dynamic, supervisor = sets.dynamic, sets.supervisor
    for task in w.tasks:
        pairs = [(task.own, task.state_perm, task.state_size)]
        if task.guest is not None:
            locked = task.guest_perm & GUEST_PERM_LOCKED != 0
            yield "P18", implies(task.guest.exists, locked)
            pairs.append((task.guest.fpstate, task.guest_perm, task.guest_size))
        for fpstate, perm, size in pairs:
            grown = fpstate.xfeatures & dynamic != 0
            yield "PERM", perm & supervisor == supervisor
            yield "P18", implies(perm & dynamic, (size & dynamic != 0) & (size & supervisor == supervisor))
            yield "P4", implies(grown, (fpstate.size & dynamic != 0) & (fpstate.size & supervisor == supervisor))


# -- where the newest value is ----------------------------------------------------------------------------------------


def _newest(w: World) -> Iterator[Clause]:
    spec = w.spec
    assert isinstance(spec, SymbolicSpecification)  # noqa: S101  for the type checker
    sets = w.kernel.sets
    for task in w.tasks:
        if spec.is_focus(task):
            if sets.pkru:
                yield from _newest_pkru(w, spec, task)
            elif sets.independent & ~sets.kvm_own:
                yield from _newest_lbr(w, spec, task)
            elif sets.watched & (sets.default | sets.dynamic) or sets.watched & spec.observable(task):
                yield from _newest_of_task(w, spec, task)
        elif task.guest is not None and spec.is_focus(task.guest):
            if sets.pkru:
                yield from _newest_guest_pkru(w, spec, task)
            elif sets.kvm_own:
                yield from _newest_own(w, spec, task)
            elif sets.watched & (sets.guest_default | sets.dynamic):
                yield from _newest_of_guest(w, spec, task)


def _newest_of_task(w: World, spec: SymbolicSpecification, task: Task) -> Iterator[Clause]:
    """In the registers where they are valid; in the image once it was saved, and while a guest's is plugged in."""
    plugged = _truth(task.plugged)
    exists = task.mode != FREE
    for cpu in w.cpus:
        yield "P12", implies(valid(cpu, task) & negate(plugged) & exists, spec.is_newest(cpu.regs))
    saved = in_memory(task) & (task.mode != FREE)
    yield "P12", implies(saved | plugged, spec.is_newest(task.own.image))


def _newest_of_guest(w: World, spec: SymbolicSpecification, task: Task) -> Iterator[Clause]:
    guest = task.guest
    assert guest is not None  # noqa: S101  for the type checker
    plugged = _truth(task.plugged)
    for cpu in w.cpus:
        seen = valid(cpu, task) & plugged
        yield "P12", implies(seen, spec.is_newest(cpu.regs))
        yield "nobody-elses-in-registers", implies(seen, spec.is_nobody_elses(cpu.regs))
        inside = (cpu.curr == task.ref) & (task.mode == GUEST)
        yield "armed-owns-nothing", implies(inside & _truth(cpu.xfd), spec.newest != OWN)
    stored = negate(plugged) | in_memory(task)
    exists = _truth(guest.exists)
    yield "P12", implies(stored & exists, spec.is_newest(guest.fpstate.image))
    outside = (task.mode != GUEST) & exists
    yield "armed-owns-nothing", implies(outside & _truth(guest.fpstate.xfd), spec.newest != OWN)


def _newest_own(w: World, spec: SymbolicSpecification, task: Task) -> Iterator[Clause]:
    """What KVM keeps itself: in the registers while the vCPU is loaded and on a CPU, else in KVM's own place."""
    guest = task.guest
    assert guest is not None  # noqa: S101  for the type checker
    loaded = _truth(guest.loaded)
    for cpu in w.cpus:
        yield "P12", implies((cpu.curr == task.ref) & loaded, spec.is_newest(cpu.regs))
    put = negate(loaded) | negate(_truth(task.on_cpu))
    yield "newest-kept", implies(put & _truth(guest.exists), spec.is_newest(guest.own))


def _newest_pkru(w: World, spec: SymbolicSpecification, task: Task) -> Iterator[Clause]:
    for cpu in w.cpus:
        here = cpu.curr == task.ref
        yield "newest-in-register", implies(here & (task.mode != GUEST), spec.is_newest(cpu.regs))
        if task.guest is not None:
            sampled = here & _truth(task.guest.loaded)
            yield "newest-host-pkru", implies(sampled, spec.is_newest(task.guest.host_pkru))
    away = negate(_truth(task.on_cpu)) & (task.mode != FREE)
    yield "newest-in-thread", implies(away, spec.is_newest(task.pkru))


def _newest_guest_pkru(w: World, spec: SymbolicSpecification, task: Task) -> Iterator[Clause]:
    guest = task.guest
    assert guest is not None  # noqa: S101  for the type checker
    inside = task.mode == GUEST
    for cpu in w.cpus:
        yield "newest-in-register", implies((cpu.curr == task.ref) & inside, spec.is_newest(cpu.regs))
    yield "newest-kept", implies(negate(_truth(inside)) & _truth(guest.exists), spec.is_newest(guest.pkru))


def _newest_lbr(w: World, spec: SymbolicSpecification, task: Task) -> Iterator[Clause]:
    for cpu in w.cpus:
        yield "P12", implies(cpu.curr == task.ref, spec.is_newest(cpu.regs))
    away = negate(_truth(task.on_cpu)) & (task.mode != FREE)
    yield "newest-in-buffer", implies(away, spec.is_newest(task.lbr))
