# A boot sector that puts known values into the registers and halts: what qemu-7.2-tcg.stream.gz was made of.
#
#   gcc -c qemu_guest.S -o guest.o && ld -Ttext 0 --oformat binary -o guest.bin guest.o
#   qemu-system-x86_64 -machine pc,accel=tcg -cpu max -m 16 -display none -net none -monitor stdio \
#     -drive file=guest.bin,format=raw,if=floppy -boot a
#   (qemu) info registers
#   (qemu) migrate exec:cat>stream
#
# qemu-7.2-kvm.stream.gz: a stream with values in env.fpregs, env.xmm_regs and cpu/avx512 was given to a QEMU with
# -S -accel kvm -cpu host -incoming exec:cat\ FILE, which was asked the same two questions.
#
# Guest memory, which no reader looks at, was then cut out: the first 8 bytes, and all from the first device on.
.code16
start:
  cli
  xor %ax,%ax
  mov %ax,%ds
  mov %ax,%es
  mov $0x7c00,%sp
  mov $0x1000,%di
  mov $0x1800,%cx
  rep stosw
  movw $0x2003,0x1000
  movw $0x3003,0x2000
  movw $0x0083,0x3000
  mov $0x1000,%eax
  mov %eax,%cr3
  mov $0x40620,%eax
  mov %eax,%cr4
  mov $0xC0000080,%ecx
  rdmsr
  or $0x100,%eax
  wrmsr
  lgdtl gdtd+0x7c00
  mov %cr0,%eax
  and $~0xc,%eax
  or $0x80000003,%eax
  mov %eax,%cr0
  ljmpl $8,$(prot+0x7c00)
.code64
prot:
  mov $16,%ax
  mov %ax,%ds
  mov %ax,%es
  mov %ax,%ss
  mov $0xd,%eax
  xor %ecx,%ecx
  cpuid
  xor %edx,%edx
  xor %ecx,%ecx
  xsetbv
  fninit
  fld1
  fldpi
  ldmxcsr mx+0x7c00
  movdqu vals+0x7c00,%xmm3
  vinsertf128 $1, vals+0x7c10, %ymm3, %ymm3
  vmovdqu vals+0x7c00, %ymm12
  mov $7,%eax
  xor %ecx,%ecx
  cpuid
  bt $16,%ebx
  jnc 1f
  vmovdqu64 wide+0x7c00,%zmm5
  vmovdqu64 wide+0x7c00,%zmm17
  kmovq wide+0x7c08,%k3
1: mov $0x3f8,%dx
  mov $'K',%al
  outb %al,%dx
2: hlt
  jmp 2b
.align 8
gdt: .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdtd: .word 23
  .long gdt+0x7c00
mx: .long 0x1fa0
.align 8
vals: .quad 0x1122334455667788,0x99aabbccddeeff00,0x0123456789abcdef,0xfedcba9876543210
wide: .quad 0x0101010101010101,0x0202020202020202,0x0303030303030303,0x0404040404040404
 .quad 0x0505050505050505,0x0606060606060606,0x0707070707070707,0x0808080808080808
.org 510
.word 0xaa55
