from __future__ import annotations

import pytest

from fpstate.silicon import encode
from fpstate.silicon.encode import R8, R9, R10, RAX, RBX, RCX, RDI, RDX, RSI, RSP, Assembler, At

_NEAR = At(RBX, 0x1234)


# Expected bytes: nasm 2.16 with 32-bit displacements; VEX in its three-byte form.
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (encode.xsave(_NEAR, wide=True), "480faea334120000"),
        (encode.xsave(_NEAR, wide=False), "0faea334120000"),
        (encode.xrstor(_NEAR, wide=True), "480faeab34120000"),
        (encode.xsaveopt(_NEAR, wide=True), "480faeb334120000"),
        (encode.xsavec(_NEAR, wide=True), "480fc7a334120000"),
        (encode.fxsave(_NEAR, wide=True), "480fae8334120000"),
        (encode.fxrstor(_NEAR, wide=True), "480fae8b34120000"),
        (encode.movdqu_load(13, _NEAR), "f3440f6fab34120000"),
        (encode.vinsertf128_high(13, _NEAR), "c4631518ab3412000001"),
        (encode.vextractf128_high(_NEAR, 13), "c4637d19ab3412000001"),
        (encode.vinserti64x4_high(13, _NEAR), "627395483aab3412000001"),
        (encode.vextracti64x4_high(_NEAR, 13), "6273fd483bab3412000001"),
        (encode.vmovdqu64_load(29, _NEAR), "6261fe486fab34120000"),
        (encode.vmovdqu64_store(_NEAR, 18), "62e1fe487f9334120000"),
        (encode.kmov_load(5, _NEAR, wide=True), "c4e1f890ab34120000"),
        (encode.kmov_store(_NEAR, 5, wide=True), "c4e1f891ab34120000"),
        (encode.kmov_load(5, _NEAR, wide=False), "c4e17890ab34120000"),
        (encode.paddd(1), "660ffec9"),
        (encode.vpaddd(1, long=False), "c4e171fec9"),
        (encode.vpaddd(1, long=True), "c4e175fec9"),
        (encode.vpaddd_zmm(20), "62a15d40fee4"),
        (encode.kxnorw(1), "c4e17446c9"),
        (encode.ldmxcsr(_NEAR), "0fae9334120000"),
        (encode.stmxcsr(_NEAR), "0fae9b34120000"),
        (encode.fldcw(_NEAR), "d9ab34120000"),
        (encode.fnstcw(_NEAR), "d9bb34120000"),
        (encode.mov(R8, At(RSI, 0x1234)), "4c8b8634120000"),
        (encode.mov(RAX, RCX, wide=False), "8bc1"),
        (encode.store(At(RSP, 0x1234), R9), "4c898c2434120000"),
        (encode.store_word(At(RDX, 0x1234), 0x33), "66c7823412000033" + "00"),
        (encode.store_number(_NEAR, 1), "48c7833412000001000000"),
        (encode.set_number(R10, 8), "41ba08000000"),
        (encode.set_number(RBX, 0x1122334455667788), "48bb8877665544332211"),
        (encode.lea(RSI, _NEAR), "488db334120000"),
        (encode.add(RSI, RCX), "4803f1"),
        (encode.bitor(R8, RDX), "4c0bc2"),
        (encode.clear(RDX), "33d2"),
        (encode.complement(RAX), "f7d0"),
        (encode.mask(RCX, 0xE7), "81e1e7000000"),
        (encode.shl(RDX, 32), "48c1e220"),
        (encode.compare(_NEAR, 0), "81bb3412000000000000"),
        (encode.compare_registers(RAX, R8), "493bc0"),
        (encode.test(_NEAR, 0x40), "f7833412000040000000"),
        (encode.push(13), "4155"),
        (encode.pop(RDI), "5f"),
        (encode.load_ds(_NEAR), "8e9b34120000"),
        (encode.load_ds(RAX), "8ed8"),
        (encode.store_ds(_NEAR), "8c9b34120000"),
        (encode.jump_memory(_NEAR), "ffa334120000"),
        (encode.far_jump_to_32(0x23, 0x12345678), "ff2d00000000785634122300"),
        (encode.far_jump_from_32(0x33, 0x12345678), "ea785634123300"),
    ],
)
def test_instruction_is_what_nasm_makes_of_it(code: bytes, expected: str) -> None:
    assert code.hex() == expected


def test_jumps_reach_labels_before_and_behind_them() -> None:
    code = Assembler(0x1000)
    code.label("back")
    code.jump(Assembler.JUMP, "ahead")
    code.jump(Assembler.JUMP_ZERO, "back")
    code.label("ahead")
    code.jump(Assembler.JUMP, "elsewhere")
    code.label("elsewhere", 0x2000)
    assert code.finish().hex() == "e906000000" + "0f84f5ffffff" + "e9f00f0000"
    assert code.address("ahead") == 0x100B
