"""The cases of the goldens: a seeded generator of what only ring 0 can judge, and of its neighbours.

Each family is a generator method; ``cases`` runs them all.  The seed is the model's name, so that a model's cases do
not depend on the other models.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from bochs_oracle.areas import COMPACTED, compacted_image, fxsave_image, standard_image
from bochs_oracle.machine import HEADER_END, Machine
from bochs_oracle.palette import registers, tile_config
from bochs_oracle.registers import CET_MSRS, State, normalised, show
from bochs_oracle.wire import WINDOW

__all__ = ["cases"]

Case = dict[str, Any]

_PAGE: Final = 0x1000
_AT: Final = WINDOW.start
_ALL: Final = (1 << 64) - 1
_SSE_BIT, _AVX_BIT, _PKRU_BIT = 1 << 1, 1 << 2, 1 << 9
_AVX512: Final = 0xE0
_CET_U, _CET_S, _UINTR = 11, 12, 14
_CET: Final = 1 << _CET_U | 1 << _CET_S
_XTILECFG, _XTILEDATA = 17, 18
_AMX: Final = 1 << _XTILECFG | 1 << _XTILEDATA
_FILL: Final = 0xA5
_XSS: Final = 0xDA0

_BAD_U_CET: Final = (0x40, 0x80, 0x100, 0x200, 0xC00, 0x3C0, 0x0000_8000_0000_0000, 0x0100_0000_0000_0000, 1 << 63)
_BAD_SSP: Final = (0x1, 0x2, 0x3, 0x0000_8000_0000_0000, 0x0100_0000_0000_0000, 1 << 63, 0xFFFF_7FFF_FFFF_FFF8)
_EDGE_CET: Final = (
    0x0,
    0x4,
    0x3F,
    0x400,
    0x800,
    0x1000,
    0x2000,
    0x7FFF_FFFF_F000,
    0xFFFF_8000_0000_0000,
    0xFFFF_FFFF_FFFF_F000,
)


def cases(machine: Machine, share: float) -> list[Case]:
    """Return the cases for *machine*; *share* of them, as far as they can be told from random."""
    maker = _Maker(machine, share)
    found = list(itertools.chain.from_iterable(family() for family in maker.random_families()))
    thin = random.Random(machine.model)  # noqa: S311 - wanted: the same cases each time
    for family in maker.systematic_families():
        found += [case for case in family() if thin.random() < share or case["op"] in maker.always]
    return found


class _Maker:
    """Makes the cases of one machine.

    Attributes:
        always: instructions whose cases are never thinned out, because there are few.
    """

    def __init__(self, machine: Machine, share: float) -> None:
        self._machine = machine
        self._share = share
        self._random = random.Random(machine.model)  # noqa: S311 - wanted: the same cases each time
        self._counts: dict[str, int] = {}
        self._cpu = machine.described()
        self._profile = "bochs-amd" if machine.is_amd else "bochs"
        self._plain = machine.user & ~_AMX
        self.always = frozenset({"xsavec", "xsaves", "xrstors"} if not machine.has_xsaves else ())
        self._components = [i for i in range(63) if (self._plain | machine.supervisor) >> i & 1]

    def random_families(self) -> list[Callable[[], Iterator[Case]]]:
        """Return the families that make as many cases as they are asked for."""
        found = [self._saves, self._standard_restores, self._fxsaves, self._fxrstors]
        if self._machine.has_xsavec:
            found.append(self._compacted_restores)
        if self._machine.has_amx:
            found += [self._amx_saves, self._amx_restores]
        return found

    def systematic_families(self) -> list[Callable[[], Iterator[Case]]]:
        """Return the families that go through a table."""
        found = [self._x87, self._faults, self._mode_32, self._xgetbv, self._xsetbv, self._msrs, self._mxcsr]
        found += [self._standard_headers, self._absent, self._mxcsr_saves]
        if self._machine.has_xsavec:
            found.append(self._compacted_headers)
        if self._machine.has_xsaves and self._machine.has_cet:
            found.append(self._cet_values)
        return found

    # -------------------------------------------------------------------------------------------------- building blocks

    def _case(self, family: str, op: str, **fields: Any) -> Case:
        """Return a case; numbers among *fields* are shown as hex, bytes as hex, None is left out."""
        self._counts[family] = number = self._counts.get(family, 0) + 1
        case: Case = {
            "id": f"{self._machine.model}/{family}/{number:03}",
            **self._cpu,
            "profile": self._profile,
            "op": op,
        }
        for name, value in fields.items():
            if isinstance(value, bytes):
                case[name] = value.hex()
            elif value is not None:
                plain = isinstance(value, (bool, dict)) or name in {"mode", "cpl"}
                case[name] = value if plain else show(value)
        return case

    def _masks(self, *, amx: bool = False) -> tuple[int, int]:
        """Return XCR0 and IA32_XSS, most often with everything in them."""
        rng, user = self._random, self._machine.user if amx else self._plain
        xcr0 = user
        if not amx and rng.random() < 0.3:
            xcr0 = rng.choice((1, 3, 7, 7 | _AVX512, 3 | _PKRU_BIT, 7 | _PKRU_BIT)) & user
        choices = (0x1800, 0x1800, 0x1800, 0x800, 0x1000, 0, self._machine.supervisor)
        return xcr0, rng.choice(choices) & self._machine.supervisor

    def _rfbm(self, enabled: int) -> int:
        """Return a mask for EDX:EAX: all, one, all but one, or some of the *enabled* components."""
        rng = self._random
        bits = [1 << i for i in range(63) if enabled >> i & 1]
        kind = rng.randrange(8)
        if kind == 0:
            return _ALL
        if kind == 1:
            return rng.choice(bits)
        if kind == 2:
            return enabled & ~rng.choice(bits)
        if kind == 3:
            return enabled & rng.choice((_CET | _SSE_BIT, _CET | _AVX_BIT, _CET, _SSE_BIT | _AVX_BIT))
        return sum(bit for bit in bits if rng.random() < 0.5) | rng.choice((0, 0, 0, COMPACTED, 1 << 40))

    def _registers(self, *, p: float = 0.7) -> State:
        """Return registers of which each component is in use with probability *p*; rarely with every register."""
        rng = self._random
        wanted = [i for i in self._components if rng.random() < p]
        named = registers(self._machine, rng, wanted, full=rng.random() < 0.06)
        if rng.random() < 0.1:  # MXCSR alone, or XMM alone
            named["mxcsr"] = show(rng.choice((0x1F80, 0x1FBF)))
        return named

    def _state(self) -> State:
        """Return what an image holds: something in every component."""
        return normalised(self._machine, registers(self._machine, self._random, self._components))

    def _times(self, count: int) -> range:
        return range(max(1, round(count * self._share)))

    def _ops(self, *names: str) -> list[str]:
        """Return those of *names*, and their 64-bit forms, that the machine has."""
        machine = self._machine
        have = {"xsaveopt": machine.has_xsaveopt, "xsavec": machine.has_xsavec}
        have |= dict.fromkeys(("xsaves", "xrstors"), machine.has_xsaves)
        return [form for name in names if have.get(name, True) for form in (name, name + "64")]

    def _save_size(self, op: str, mask: int) -> int:
        """Return how long the area of a save of *mask* must be."""
        if op.startswith("fx"):
            return 512
        if op.startswith(("xsavec", "xsaves")):
            return self._machine.compacted(mask)[1]
        return self._machine.standard_size(mask)

    def _blank(self, op: str, mask: int) -> bytes:
        """Return the memory before a save."""
        held = bytearray([_FILL]) * self._save_size(op, mask)
        if (
            op.startswith(("xsave", "xsaveopt"))
            and not op.startswith(("xsavec", "xsaves"))
            and self._random.random() < 0.7
        ):
            old = self._random.choice((0, self._machine.user, 0x2, 0x5, 1 << 62, 1 << 63))
            held[512:520] = old.to_bytes(8, "little")  # XSAVE keeps the bits outside RFBM
        return bytes(held)

    # -------------------------------------------------------------------------------------------------- saves, restores

    def _saves(self) -> Iterator[Case]:
        """Saves of random components of random registers."""
        counts = {"xsaves64": 90, "xsaves": 30, "xsavec64": 40, "xsavec": 16, "xsaveopt64": 30, "xsaveopt": 12}
        counts |= {"xsave64": 30, "xsave": 14}
        for op in self._ops("xsaves", "xsavec", "xsaveopt", "xsave"):
            for _ in self._times(counts[op]):
                yield self._save("save", op)

    def _save(self, family: str, op: str, **fields: Any) -> Case:
        """Return one save."""
        xcr0, xss = self._masks()
        enabled = xcr0 | (xss if op.startswith("xsaves") else 0)
        rfbm = self._rfbm(enabled)
        memory = self._blank(op, enabled & rfbm)
        masks = {"xcr0": xcr0, "xss": xss, "registers": self._registers(), "rfbm": rfbm}
        return self._case(family, op, **masks, address=_AT, memory=memory, **fields)

    def _compacted_restores(self) -> Iterator[Case]:
        """Restores of compacted images whose masks are independent of RFBM."""
        counts = {"xrstors64": 120, "xrstors": 30, "xrstor64": 50, "xrstor": 16}
        for op in self._ops("xrstors", "xrstor"):
            for _ in self._times(counts[op]):
                yield self._compacted_restore("compacted", op)

    def _compacted_restore(self, family: str, op: str, **fields: Any) -> Case:
        """Return one restore of a compacted image."""
        rng = self._random
        xcr0, xss = self._masks()
        enabled = xcr0 | (xss if op.startswith("xrstors") else 0)
        xcomp = enabled if rng.random() < 0.4 else self._rfbm(enabled) & enabled
        xstate = (
            xcomp if rng.random() < 0.3 else sum(1 << i for i in range(63) if xcomp >> i & 1 and rng.random() < 0.6)
        )
        rfbm = _ALL if rng.random() < 0.3 else self._rfbm(enabled)
        memory = compacted_image(self._machine, self._state(), xstate, xcomp)
        masks = {"xcr0": xcr0, "xss": xss, "registers": self._registers(), "rfbm": rfbm}
        return self._case(family, op, **masks, address=_AT, memory=memory, **fields)

    def _standard_restores(self) -> Iterator[Case]:
        """Restores of standard images."""
        for op, count in (("xrstor64", 50), ("xrstor", 20)):
            for _ in self._times(count):
                yield self._standard_restore("standard", op)

    def _standard_restore(self, family: str, op: str, **fields: Any) -> Case:
        """Return one restore of a standard image."""
        rng = self._random
        xcr0, xss = self._masks()
        xstate = xcr0 if rng.random() < 0.3 else sum(1 << i for i in range(63) if xcr0 >> i & 1 and rng.random() < 0.6)
        rfbm = _ALL if rng.random() < 0.3 else self._rfbm(xcr0)
        memory = standard_image(self._machine, self._state(), xstate, xcr0)
        masks = {"xcr0": xcr0, "xss": xss, "registers": self._registers(), "rfbm": rfbm}
        return self._case(family, op, **masks, address=_AT, memory=memory, **fields)

    def _absent(self) -> Iterator[Case]:
        """Instructions and forms that the machine does not have."""
        machine = self._machine
        small = {"xcr0": 3, "registers": {}, "rfbm": 3, "address": _AT}
        missing = [name for name in ("xsaveopt", "xsavec", "xsaves", "xrstors") if name not in self._ops(name)]
        for op in itertools.chain.from_iterable((name, name + "64") for name in missing):
            yield self._case("absent", op, **small, memory=bytes(HEADER_END))
            yield self._case("absent", op, **small, memory=bytes(HEADER_END), ts=True)
        if not machine.has_xsavec:
            memory = bytearray(HEADER_END)
            memory[527] = 0x80  # XCOMP_BV[63]
            yield self._case("absent", "xrstor64", **small, memory=bytes(memory))

    # ---------------------------------------------------------------------------------------------------------- headers

    def _small_image(self, op: str) -> tuple[dict[str, Any], bytearray]:
        """Return the fields of a restore of a small image, and the image."""
        machine = self._machine
        xcr0, xss = self._plain, 0x1800 & machine.supervisor
        mask = 3 | (xss if op.startswith("xrstors") else 0)
        named = registers(machine, random.Random(op), (_SSE_BIT >> 1, _CET_S))  # noqa: S311 - the same each time
        state = normalised(machine, {"xmm1": "11" * 16, "mxcsr": "0x1fa0"})
        if machine.has_cet:
            state |= {"u_cet": "0x5", "pl3_ssp": "0x3000", "pl1_ssp": "0x2000"}
        image = compacted_image(machine, state, mask, mask)
        return {"xcr0": xcr0, "xss": xss, "registers": named, "rfbm": mask, "address": _AT}, bytearray(image)

    def _compacted_headers(self) -> Iterator[Case]:
        """Damage of each kind to the header of a compacted image."""
        for op in self._ops("xrstors", "xrstor"):
            if not op.endswith("64"):
                continue
            fields, image = self._small_image(op)
            mask = int.from_bytes(image[512:520], "little")
            yield self._case("header", op, **fields, memory=bytes(image))
            for xstate, xcomp in self._bad_bits(mask, fields["xcr0"] | (fields["xss"] if op == "xrstors64" else 0)):
                damaged = image.copy()
                damaged[512:528] = xstate.to_bytes(8, "little") + xcomp.to_bytes(8, "little")
                yield self._case("header", op, **fields, memory=bytes(damaged))
            for at in range(528, 576):
                damaged = image.copy()
                damaged[at] = 1 << at % 8
                yield self._case("header", op, **fields, memory=bytes(damaged))

    def _bad_bits(self, mask: int, enabled: int) -> Iterator[tuple[int, int]]:
        """Yield pairs of XSTATE_BV and XCOMP_BV, each wrong in one way, for an image of *mask*."""
        yield mask, mask  # XCOMP_BV[63] = 0
        yield mask, 0
        yield 0, 0
        yield mask | COMPACTED, mask | COMPACTED
        yield COMPACTED, COMPACTED
        for bit in range(63):
            if not enabled >> bit & 1:
                yield mask, mask | 1 << bit | COMPACTED  # a component that is not enabled
        for bit in range(63):
            if mask >> bit & 1:
                yield mask, mask & ~(1 << bit) | COMPACTED  # XSTATE_BV has what XCOMP_BV lacks
            elif bit % 5 == 0 or enabled >> bit & 1:
                yield mask | 1 << bit, mask | COMPACTED

    def _standard_headers(self) -> Iterator[Case]:
        """Damage to the header of a standard image; its bytes 24-63 may hold anything."""
        fields, _ = self._small_image("xrstor64")
        state = normalised(self._machine, {"xmm1": "22" * 16, "mxcsr": "0x1fa0"})
        image = standard_image(self._machine, state, 3, 3)
        for at in range(520, 576):
            damaged = bytearray(image)
            damaged[at] = 1 << at % 7
            yield self._case("header", "xrstor64", **fields, memory=bytes(damaged))
        for bit in range(64):
            damaged = bytearray(image)
            damaged[512:520] = (3 | 1 << bit).to_bytes(8, "little")
            if not fields["xcr0"] >> bit & 1:
                yield self._case("header", "xrstor64", **fields, memory=bytes(damaged))
                if bit < 20:  # the same bit when it is not asked for
                    yield self._case("header", "xrstor64", **fields | {"rfbm": 1}, memory=bytes(damaged))

    # ----------------------------------------------------------------------------------------------------------- values

    def _mxcsr(self) -> Iterator[Case]:
        """Reserved bits of MXCSR, loaded and not loaded."""
        forms = [("xrstor64", False), *((op, True) for op in self._ops("xrstors", "xrstor") if op.endswith("64"))]
        for op, compacted in forms:
            if compacted and not self._machine.has_xsavec:
                continue
            for value in [*(0x1F80 | 1 << bit for bit in range(16, 32)), 0xFFFF, 0, 0xFFFF_FFFF]:
                yield self._mxcsr_case(op, compacted=compacted, value=value, xstate=3, rfbm=3)
            for xstate, rfbm in itertools.product((0, 1, 2, 5, 7), (1, 2, 4, 6, 0)):
                yield self._mxcsr_case(op, compacted=compacted, value=0x1F80 | 1 << 16, xstate=xstate, rfbm=rfbm)
                yield self._mxcsr_case(op, compacted=compacted, value=0x1FA0, xstate=xstate, rfbm=rfbm)

    def _mxcsr_saves(self) -> Iterator[Case]:
        """Saves where MXCSR alone, or a register that 32-bit code does not reach, is not in its initial state."""
        states: Sequence[State] = ({"mxcsr": "0x1fa0"}, {"xmm8": "88" * 16}, {"mxcsr": "0x1fa0", "xmm8": "88" * 16})
        for op, named, rfbm in itertools.product(self._ops("xsaves", "xsavec", "xsaveopt", "xsave"), states, (2, 6, 4)):
            fields = {"xcr0": self._plain, "registers": named, "rfbm": rfbm, "address": _AT}
            memory = bytes([_FILL]) * self._save_size(op, rfbm)
            yield self._case("mxcsr-save", op, **fields, memory=memory)
            if not op.endswith("64"):
                yield self._case("mxcsr-save", op, **fields, memory=memory, mode=32)

    def _mxcsr_case(self, op: str, *, compacted: bool, value: int, xstate: int, rfbm: int) -> Case:
        """Return a restore of an image with an MXCSR of *value*."""
        fields, _ = self._small_image(op)
        state = normalised(self._machine, {"xmm2": "33" * 16})
        make = compacted_image if compacted else standard_image
        image = bytearray(make(self._machine, state, xstate, xstate | rfbm | 3))
        image[24:28] = value.to_bytes(4, "little")
        return self._case("mxcsr", op, **fields | {"rfbm": rfbm}, memory=bytes(image))

    def _cet_values(self) -> Iterator[Case]:
        """Values of the CET MSRs in an image that WRMSR would refuse, and their neighbours."""
        for name, number in CET_MSRS.items():
            if name in {"s_cet", "interrupt_ssp_table"}:
                continue  # in no component
            component = _CET_U if number in {0x6A0, 0x6A7} else _CET_S
            for value in (*(_BAD_U_CET if name == "u_cet" else _BAD_SSP), *_EDGE_CET):
                for loaded, asked in ((True, True), (False, True), (True, False)):
                    if not (loaded and asked) and value % 3:
                        continue  # a third of the values shows what is not loaded
                    yield self._cet_case({name: show(value)}, component, loaded=loaded, asked=asked)
        # an element that is right before or behind one that is wrong
        for bad in ("pl0_ssp", "pl1_ssp", "pl2_ssp", "u_cet", "pl3_ssp"):
            values = dict.fromkeys(("pl0_ssp", "pl1_ssp", "pl2_ssp", "u_cet", "pl3_ssp"), "0x4000") | {bad: "0x41"}
            yield self._cet_case(values, _CET_S, loaded=True, asked=True)

    def _cet_case(self, values: State, component: int, *, loaded: bool, asked: bool) -> Case:
        """Return an XRSTORS of an image with CET *values*, its component in XSTATE_BV and RFBM or not."""
        fields, _ = self._small_image("xrstors64")
        state = normalised(self._machine, {"xmm3": "44" * 16}) | values
        xstate = (_CET | 3) & ~(0 if loaded else 1 << component)
        rfbm = (_CET | 3) & ~(0 if asked else 1 << component)
        image = compacted_image(self._machine, state, xstate, _CET | 3)
        return self._case("cet", "xrstors64", **fields | {"rfbm": rfbm}, memory=image)

    def _x87(self) -> Iterator[Case]:
        """x87 state as no save would write it: control, status, tags, opcode, pointers; selectors where they live."""
        words = [
            (0x0000, 0x0000),
            (0xFFFF, 0x0000),
            (0x037F, 0xFFFF),
            (0x0000, 0x0001),
            (0x0340, 0x8080),
            (0x037F, 0x8080),
        ]
        pointers = (0x1122_3344_5566_7788, 0x0000_7FFF_FFFF_FFFF, 0xFFFF_8000_0000_0000, 0x0100_0000_0000_0000)
        ops = ["xrstor64", "xrstor", "fxrstor64", "fxrstor"]
        for (fcw, fsw), op in itertools.product(words, ops):
            yield self._x87_case(op, fcw=fcw, fsw=fsw, ftw=0xFF, fop=0xFFFF)
        for fip, op in itertools.product(pointers, ops):
            yield self._x87_case(op, fip=fip, fdp=fip ^ 0xFFFF, ftw=0x55, fop=0x7FF)
            yield self._x87_case(op, fip=fip, fdp=fip ^ 0xFFFF, fcw=0x340, fsw=0x8081, fop=0x123)
        named = {"fop": "0x123", "fioff": "0x89abcdef", "fooff": "0xfedcba98", "fiseg": "0x33", "foseg": "0x2b"}
        wide = {"fop": "0x7ff", "fioff": "0x7123456789ab", "fooff": "0xffff800000000010", "fstat": "0x3841"}
        held = [wide, named] if not self._machine.leaf(7)[1] & 1 << 13 else [wide]
        for op, named_ in itertools.product(("xsave64", "xsave", "fxsave64", "fxsave"), held):
            memory = self._blank(op, 3)
            rfbm = None if op.startswith("fx") else 3
            yield self._case("x87", op, xcr0=3, registers=named_, rfbm=rfbm, address=_AT, memory=memory)

    def _x87_case(
        self, op: str, *, fcw: int = 0x37F, fsw: int = 0, ftw: int = 0, fop: int = 0, fip: int = 0, fdp: int = 0
    ) -> Case:
        """Return a restore of an image with these x87 registers."""
        image = bytearray(fxsave_image(self._machine, normalised(self._machine, {"st0": "00" * 7 + "80ff3f"})))
        image[0:8] = (
            fcw.to_bytes(2, "little") + fsw.to_bytes(2, "little") + bytes([ftw, 0xEE]) + fop.to_bytes(2, "little")
        )
        image[8:24] = fip.to_bytes(8, "little") + fdp.to_bytes(8, "little")
        for k in range(8):
            image[42 + 16 * k : 48 + 16 * k] = b"\xee" * 6  # bytes that no restore looks at
        if not op.startswith("fx"):
            image += (3).to_bytes(8, "little") + bytes(56)
        named = {"fioff": "0x1111", "ftag": "0x1", "st1": "01" * 10}
        rfbm = None if op.startswith("fx") else 3
        return self._case("x87", op, xcr0=3, registers=named, rfbm=rfbm, address=_AT, memory=bytes(image))

    # ----------------------------------------------------------------------------------------------------------- faults

    def _faults(self) -> Iterator[Case]:
        """Faults that come before the instruction does anything, alone and two at a time."""
        for op in [*self._ops("xsave", "xsaveopt", "xsavec", "xsaves", "xrstor", "xrstors"), "fxsave64", "fxrstor64"]:
            if op.startswith("fx") or op.endswith("64") or self._share >= 1:
                fields, memory = self._fault_base(op)
                yield from self._fault_flags(op, fields, memory)
                yield from self._fault_addresses(op, fields, memory)

    def _fault_base(self, op: str) -> tuple[dict[str, Any], bytes]:
        """Return a case of *op* that does not fault: its fields, its memory."""
        if op.startswith("xrstor"):
            fields, image = self._small_image(op)
            if not op.startswith("xrstors"):
                state = normalised(self._machine, {"xmm1": "55" * 16})
                image = bytearray(standard_image(self._machine, state, 7, 7))
                fields |= {"rfbm": 7}
            return fields, bytes(image)
        fields = {"xcr0": self._plain, "xss": 0x1800 & self._machine.supervisor, "address": _AT}
        fields["registers"] = registers(self._machine, random.Random(1), (1, _CET_U))  # noqa: S311 - the same each time
        if op.startswith("fx"):
            state = normalised(self._machine, {"xmm1": "66" * 16})
            return fields, bytes([_FILL]) * 512 if op.startswith("fxsave") else fxsave_image(self._machine, state)
        fields["rfbm"] = 7 | (0x1800 & self._machine.supervisor if op.startswith("xsaves") else 0)
        return fields, bytes([_FILL]) * self._save_size(op, fields["rfbm"])

    def _fault_flags(self, op: str, fields: Mapping[str, Any], memory: bytes) -> Iterator[Case]:
        """Control bits and privilege, alone and with a misaligned address."""
        user, aligned, astray = {"cpl": 3}, {"address": _AT}, {"address": _AT + 4}
        flags: Sequence[dict[str, Any]] = (
            {},
            {"ts": True},
            {"em": True},
            {"osxsave": False},
            {"osfxsr": False},
            user,
            {"ts": True, "em": True},
            {"ts": True, "osxsave": False},
            {"em": True, "osxsave": False},
            {"ts": True, **user},
            {"osxsave": False, **user},
            {"am": True, "ac": True},
            {"am": True, "ac": True, **user},
        )
        for place, flag in itertools.product((aligned, astray), flags):
            yield self._case("fault", op, **{**fields, **place}, memory=memory, **flag)

    def _fault_addresses(self, op: str, fields: Mapping[str, Any], memory: bytes) -> Iterator[Case]:
        """Misaligned, non-canonical and unmapped addresses."""
        for by in (1, 2, 8, 16, 32, 48):
            at = {"address": _AT + by}
            yield self._case("fault", op, **{**fields, **at}, memory=memory)
            yield self._case("fault", op, **{**fields, **at}, memory=memory, cpl=3, am=True, ac=True)
        beyond = 1 << self._machine.linear_bits - 1
        for address in (beyond, beyond + 4, 1 << 47, 1 << 63, -beyond - 64 & _ALL):
            yield self._case("fault", op, **{**fields, "address": address}, memory=b"")
        yield self._case("fault", op, **{**fields, "address": beyond}, memory=b"", ts=True)
        for mapped in (0, 64, 512, 576, len(memory) - 1 & -64):
            yield from self._hole(op, fields, memory, mapped)
        if op.startswith("xrstor"):
            bad = bytearray(memory)
            bad[540 if op.startswith("xrstors") else 530] = 1
            yield from self._hole(op, fields, bytes(bad), 576)
            bad = bytearray(memory)
            bad[27] = 0x80  # MXCSR
            yield from self._hole(op, fields, bytes(bad), 576)
            yield from self._hole(op, fields, bytes(bad), 512)

    def _hole(self, op: str, fields: Mapping[str, Any], memory: bytes, mapped: int) -> Iterator[Case]:
        """Yield a case whose area is *mapped* for so many bytes only: what follows is not present."""
        if mapped < len(memory):
            end = _AT + 4 * _PAGE
            yield self._case("fault", op, **{**fields, "address": end - mapped}, memory=memory[:mapped])
            if mapped in {0, 512}:
                yield self._case("fault", op, **{**fields, "address": end - mapped}, memory=memory[:mapped], cpl=3)
            if mapped == 576:
                yield self._case("fault", op, **{**fields, "address": end - mapped, "rfbm": 0}, memory=memory[:mapped])
                yield self._case("fault", op, **{**fields, "address": end - mapped, "rfbm": 3}, memory=memory[:mapped])

    def _mode_32(self) -> Iterator[Case]:
        """The same instructions in 32-bit code: registers 8 to 31 are out of reach."""
        for _ in self._times(14):
            for op in ("xsaves", "xsavec", "xsaveopt", "xsave"):
                if self._ops(op):
                    yield self._save("mode-32", op, mode=32)
            if self._machine.has_xsavec:
                yield self._compacted_restore("mode-32", "xrstor", mode=32)
            if self._machine.has_xsaves:
                yield self._compacted_restore("mode-32", "xrstors", mode=32)
            yield self._standard_restore("mode-32", "xrstor", mode=32)
        for op in (
            "xsave",
            "xrstor",
            "fxsave",
            "fxrstor",
            *(name for name in ("xsaves", "xrstors") if self._ops(name)),
        ):
            fields, memory = self._fault_base(op)
            flags: Sequence[dict[str, Any]] = ({}, {"ts": True}, {"cpl": 3}, {"address": _AT + 4}, {"osxsave": False})
            for flag in flags:
                yield self._case("mode-32", op, mode=32, memory=memory, **{**fields, **flag})

    # -------------------------------------------------------------------------------------------- FXSAVE, control, MSRs

    def _fxsaves(self) -> Iterator[Case]:
        """FXSAVE of random registers, and in 32-bit code."""
        for op, count, mode in (("fxsave64", 16, None), ("fxsave", 10, None), ("fxsave", 6, 32)):
            for _ in self._times(count):
                fields = {"registers": self._registers(), "osfxsr": None if self._random.random() < 0.8 else False}
                memory = bytes([_FILL]) * 512
                yield self._case("fxsave", op, xcr0=self._masks()[0], address=_AT, memory=memory, mode=mode, **fields)

    def _fxrstors(self) -> Iterator[Case]:
        """FXRSTOR of random images, with every reserved bit of MXCSR, and in 32-bit code."""
        for op, count, mode in (("fxrstor64", 16, None), ("fxrstor", 10, None), ("fxrstor", 6, 32)):
            for _ in self._times(count):
                fields = {"registers": self._registers(), "osfxsr": None if self._random.random() < 0.8 else False}
                memory = fxsave_image(self._machine, self._state())
                yield self._case("fxrstor", op, xcr0=self._masks()[0], address=_AT, memory=memory, mode=mode, **fields)
        for bit in range(16, 32):
            image = bytearray(fxsave_image(self._machine, normalised(self._machine, {"xmm2": "77" * 16})))
            image[24:28] = (0x1F80 | 1 << bit).to_bytes(4, "little")
            yield self._case("fxrstor", "fxrstor64", xcr0=3, registers={}, address=_AT, memory=bytes(image))

    def _xgetbv(self) -> Iterator[Case]:
        """XGETBV of XCR0, of XINUSE, and of what is not there."""
        for _ in self._times(16):
            xcr0, xss = self._masks()
            yield self._case("xgetbv", "xgetbv", xcr0=xcr0, xss=xss, registers=self._registers(p=0.4), ecx=1)
        plain = {"xcr0": self._plain, "registers": {}}
        for component in [i for i in self._components if self._plain >> i & 1]:
            named = registers(self._machine, self._random, (component,))
            yield self._case("xgetbv", "xgetbv", xcr0=self._plain, registers=named, ecx=1)
        yield self._case("xgetbv", "xgetbv", xcr0=self._plain, registers={"mxcsr": "0x1fa0"}, ecx=1)
        yield self._case("xgetbv", "xgetbv", xcr0=1, registers={"mxcsr": "0x1fa0"}, ecx=1)
        for ecx in (0, 1, 2, 3, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000):
            yield self._case("xgetbv", "xgetbv", **plain, ecx=ecx)
        flags: Sequence[dict[str, Any]] = ({"cpl": 3}, {"osxsave": False}, {"osxsave": False, "cpl": 3}, {"ts": True})
        for flag, ecx in itertools.product((*flags, {"mode": 32}), (0, 1, 2)):
            yield self._case("xgetbv", "xgetbv", **plain, ecx=ecx, **flag)

    def _xsetbv(self) -> Iterator[Case]:
        """XSETBV of legal and illegal values."""
        rng = self._random
        values = [*range(0x20), 0x27, 0x47, 0x67, 0x87, 0xA7, 0xC7, 0xE0, 0xE1, 0xE3, 0xE5, 0xE7, 0xFF, 0xF7, 0xEF]
        values += [self._machine.user, self._machine.user | 1 << 63, 0x200, 0x201, 0x203, 0x207, 0x2E7, 0x2E3]
        values += [3 | 1 << bit for bit in range(8, 64)]
        values += [low | amx << 17 for low in (1, 3, 7, 0xE7) for amx in (1, 2, 3)]
        values += [3 | 1 << 19, 7 | 0x18 | 1 << 19, 0x3 | 0x18, 0x2FF, _ALL]
        values += [rng.randrange(1 << 20) | 1 for _ in self._times(20)]
        fields = {"xcr0": self._plain, "registers": {}}
        for value in dict.fromkeys(values):
            yield self._case("xsetbv", "xsetbv", **fields, ecx=0, value=value)
        for ecx, value in itertools.product((1, 2, 0xDA0, 0x1_0000_0000, 0xFFFF_FFFF), (1, 3)):
            yield self._case("xsetbv", "xsetbv", **fields, ecx=ecx, value=value)
        flags: Sequence[dict[str, Any]] = ({"cpl": 3}, {"osxsave": False}, {"osxsave": False, "cpl": 3}, {"ts": True})
        for flag, value in itertools.product((*flags, {"mode": 32}), (0, 3)):
            yield self._case("xsetbv", "xsetbv", **fields, ecx=0, value=value, **flag)
        in_use = registers(self._machine, rng, self._components)
        for value in (1, 3, 7):  # the registers of a component outlive its bit
            yield self._case("xsetbv", "xsetbv", xcr0=self._plain, registers=in_use, ecx=0, value=value)

    def _msrs(self) -> Iterator[Case]:
        """WRMSR and RDMSR of IA32_XSS and of the CET MSRs."""
        fields: dict[str, Any] = {"xcr0": self._plain, "xss": 0, "registers": {}}
        masks = [0, *(1 << bit for bit in range(64)), 0x1800, 0x1900, 0x5800, self._machine.supervisor, _ALL]
        for value in dict.fromkeys(masks):
            yield self._case("msr", "wrmsr", **fields, ecx=_XSS, value=value)
        bits = [*(1 << bit for bit in range(12)), 0xC00, 0x3F, 0x7FFF_FFFF_FFFF, 1 << 56, 0x00FF_FFFF_FFFF_F000]
        values = dict.fromkeys((*_EDGE_CET, *_BAD_U_CET, *_BAD_SSP, *bits))
        for number, value in itertools.product(CET_MSRS.values(), values):
            yield self._case("msr", "wrmsr", **fields, ecx=number, value=value)
        has_cet = self._machine.has_cet
        held = {name: show(0x1004 + 0x1000 * n) for n, name in enumerate(CET_MSRS)} if has_cet else {}
        held_fields = {"xcr0": self._plain, "xss": 0x1800 & self._machine.supervisor, "registers": held}
        for number in (*CET_MSRS.values(), _XSS):
            for flag in ({}, {"cpl": 3}, {"ts": True}, {"osxsave": False}):
                yield self._case("msr", "rdmsr", **held_fields, ecx=number, **flag)
            yield self._case("msr", "wrmsr", **held_fields, ecx=number, value=0, cpl=3)

    # -------------------------------------------------------------------------------------------------------------- AMX

    def _amx_saves(self) -> Iterator[Case]:
        """Saves with XTILECFG and XTILEDATA, in use and in their initial state."""
        rng = self._random
        for op, count in (("xsaves64", 10), ("xsavec64", 6), ("xsave64", 4), ("xsaveopt64", 4), ("xsavec", 2)):
            for number in range(count):
                wanted = [_XTILECFG, _XTILEDATA] if number % 4 else rng.choice(([], [_XTILECFG]))
                named = registers(self._machine, rng, [*wanted, 1, _CET_U])
                xcr0, xss = self._masks(amx=True)
                rfbm = rng.choice((_AMX, _AMX | 2, _AMX | 0x1802, 1 << _XTILECFG | 6, 1 << _XTILEDATA | 0x800))
                enabled = xcr0 | (xss if op.startswith("xsaves") else 0)
                memory = bytes([_FILL]) * self._save_size(op, enabled & rfbm)
                fields = {"xcr0": xcr0, "xss": xss, "registers": named, "rfbm": rfbm, "address": _AT}
                yield self._case("amx-save", op, **fields, memory=memory)
        for wanted in ([], [_XTILECFG], [_XTILECFG, _XTILEDATA]):
            named = registers(self._machine, rng, wanted)
            for xcr0 in (self._machine.user, 3 | _AMX, 3):
                yield self._case("amx-save", "xgetbv", xcr0=xcr0, registers=named, ecx=1)

    def _amx_restores(self) -> Iterator[Case]:
        """Restores of XTILECFG and XTILEDATA, and of tile configurations that are not legal."""
        rng = self._random
        in_use = [_XTILECFG, _XTILEDATA, 1]
        for op, count in (("xrstors64", 10), ("xrstor64", 8)):
            for number in range(count):
                xcr0, xss = self._masks(amx=True)
                xcomp = 3 | _AMX | (xss if op.startswith("xrstors") else 0)
                xstate = rng.choice((xcomp, xcomp & ~(1 << _XTILEDATA), xcomp & ~_AMX, xcomp & ~(1 << _XTILECFG)))
                make = compacted_image if op.startswith("xrstors") or number % 2 else standard_image
                state = normalised(self._machine, registers(self._machine, rng, [*in_use, _CET_U]))
                rfbm = rng.choice((_ALL, _AMX, 1 << _XTILECFG, 1 << _XTILEDATA, 3))
                if make is standard_image:
                    xcomp, xstate = self._machine.user, xstate & self._machine.user
                memory = make(self._machine, state, xstate, xcomp)
                named = registers(self._machine, rng, in_use)
                fields = {"xcr0": xcr0, "xss": xss, "registers": named, "rfbm": rfbm, "address": _AT}
                yield self._case("amx-restore", op, **fields, memory=memory)
        for config in self._odd_configs():
            state = normalised(self._machine, {"tilecfg": config})
            mask = 1 << _XTILECFG
            memory = compacted_image(self._machine, state, mask, mask)
            named = {"tilecfg": tile_config(16)}
            fields = {"xcr0": self._machine.user, "xss": 0, "registers": named, "rfbm": mask, "address": _AT}
            yield self._case("amx-config", "xrstor64", **fields, memory=memory)

    def _odd_configs(self) -> Iterator[str]:
        """Yield tile configurations: one legal, the others not or at the edge."""
        legal = bytes.fromhex(tile_config(16))
        yield legal.hex()
        changes = ((0, 0), (0, 2), (1, 1), (1, 16), (2, 1), (15, 1), (16, 65), (16, 0), (17, 1), (48, 17), (48, 0))
        for at, value in (*changes, (32, 1), (47, 1), (56, 1), (63, 1)):
            held = bytearray(legal)
            held[at] = value
            yield held.hex()
