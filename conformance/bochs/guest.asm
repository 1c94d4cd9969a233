; The guest: runs a table of one-instruction cases in ring 0 (or 3) of an emulated x86-64 CPU and prints what each did.
;
;     nasm -f bin -o guest.bin guest.asm
;
; It is the last 64 KiB of a ROM that takes the place of the BIOS, so that nothing but this file and the CPU takes part.
; The ROM begins with the table of cases, at CASES (bochs_oracle/wire.py makes it).  Text goes to port 0xE9.  The lines:
;
;   L leaf subleaf eax ebx ecx edx   a leaf of CPUID, read with XCR0 = all that the CPU supports and IA32_XSS = 0
;   C number                         a case begins
;   F vector error cr2               it ended in this exception; vector 20 hex is the INT after the instruction: no fault
;   V edx:eax                        what the instruction left in EDX:EAX
;   0 xcr0  1 xgetbv(1)  S xss       read right after the instruction (1 and S where the CPU has them)
;   M offset bytes                   16 bytes of the area that changed
;   R offset bytes                   16 bytes of a standard XSAVE64 image of all user components, where not zero
;   X bytes                          bytes 8-23 of an FXSAVE image: FCS and FDS, which XSAVE64 does not show
;   T offset bytes                   16 bytes of the eight tiles, where not zero
;   P seven numbers                  the CET MSRs, 6A0 6A2 6A4 6A5 6A6 6A7 6A8
;   E                                the case ends
;   ! vector error rip cr2           an exception outside the instruction under test: the case could not be set up
;   Z                                the table ends
;
; Map of the memory (physical; the low 1 GiB is mapped to itself and once more at ALIAS):
;
;   01000-05FFF  page tables           06000  IDT            07000  TSS
;   08000        page table of the ROM
;   10000-1FFFF  a copy of these 64 KiB, in which they run (descriptors and variables want RAM)
;   20000        XSAVE image read back 24000  FXSAVE image   28000  tiles
;   7F000        top of the stack      7E000  top of the stack of the handlers
;   WINDOW       2 MiB for the area of a case; only the pages that the area touches are mapped there
;   CASES        the table, up to 64 KiB below 4 GiB

%define BASE    0x10000
%define WINDOW  0x400000
%define CASES   0xFFC00000
%define ALIAS   0x40000000

%define PML4    0x1000
%define PDPT    0x2000
%define PD_LOW  0x3000
%define PT_WIN  0x4000
%define PD_HIGH 0x5000
%define IDT     0x6000
%define TSS     0x7000
%define PD_ROM  0x8000
%define IMAGE   0x20000
%define LEGACY  0x24000
%define TILES   0x28000
%define IMAGE_SIZE 0x3000
%define TILECFG_AT 0xAC0        ; offset of XTILECFG in a standard image
%define STACK   0x7F000
%define ISTACK  0x7E000

; A case in the table; bochs_oracle/wire.py writes the same layout.
struc case
  .length   resd 1              ; of the whole record, a multiple of 64; 0 ends the table
  .number   resd 1
  .flags    resd 1              ; see below
  .tiles    resd 1              ; bit t: tile t is loaded
  .code     resb 16             ; the instruction, then INT 20H
  .mask     resq 1              ; EDX:EAX
  .index    resq 1              ; RCX
  .address  resq 1              ; RDI, which the instruction uses
  .size     resq 1              ; bytes of the area, up to the end of its last page; 0: no area, nothing is mapped
  .xcr0     resq 1
  .xss      resq 1
  .msrs     resq 7              ; values of cet_msrs
  .load     resd 1              ; offset of a standard XSAVE image to load, 64-byte aligned
  .rows     resd 1              ; offset of the tiles to load, 1 KiB each
  .area     resd 1              ; offset of the bytes of the area
endstruc

%define F_COMPAT  0             ; run in a 32-bit code segment (compatibility mode)
%define F_USER    1             ; run at CPL 3
%define F_LOAD32  2             ; load the image by XRSTOR, not XRSTOR64: FCS and FDS count
%define F_TS      3             ; CR0.TS
%define F_EM      4             ; CR0.EM
%define F_AM      5             ; CR0.AM
%define F_AC      6             ; EFLAGS.AC
%define F_NOXSAVE 7             ; CR4.OSXSAVE = 0
%define F_NOFXSR  8             ; CR4.OSFXSR = 0

%define SEL_CODE32  0x08
%define SEL_CODE64  0x10
%define SEL_DATA    0x18
%define SEL_USER32  0x23        ; with RPL 3
%define SEL_USER64  0x2B
%define SEL_UDATA   0x33
%define SEL_TSS     0x38

%define CR0_BASE  0x80000031    ; PG NE ET PE
%define CR0_TS    0x8
%define CR0_EM    0x4
%define CR0_AM    0x40000
%define CR4_BASE  0x620         ; PAE OSFXSR OSXMMEXCPT
%define CR4_OSFXSR 0x200
%define CR4_OSXSAVE 0x40000

%define HAS_XGETBV1 1           ; bits of [features]
%define HAS_XSAVES  2
%define HAS_CET     3
%define HAS_AMX     4

%define DONE  0x20              ; the vector of the INT after the instruction
%define STUB_SIZE 16            ; bytes of each of the 256 stubs of the handler

        org     BASE

; ---------------------------------------------------------------------------------------------------------------------
; From the reset vector to 64-bit mode
; ---------------------------------------------------------------------------------------------------------------------
        bits    16
start:  cli
        cld
        in      al, 0x92                ; open the A20 gate
        or      al, 2
        out     0x92, al
        mov     ax, 0xF000              ; copy the ROM to RAM, where descriptors and variables can be written
        mov     ds, ax
        mov     ax, BASE >> 4
        mov     es, ax
        xor     si, si
        xor     di, di
        mov     cx, 0x8000
        rep     movsw
        jmp     (BASE >> 4):(in_ram - BASE)
in_ram: mov     ds, ax
        o32 lgdt [gdt_register - BASE]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     dword SEL_CODE32:protected

        bits    32
protected:
        mov     ax, SEL_DATA
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     esp, STACK
        xor     eax, eax
        mov     edi, PML4
        mov     ecx, (PD_ROM + 0x1000 - PML4) / 4
        rep     stosd
        mov     dword [PML4], PDPT + 7  ; 7: present, writable, user
        mov     dword [PDPT], PD_LOW + 7
        mov     dword [PDPT + 8], PD_HIGH + 7
        mov     dword [PDPT + 24], PD_ROM + 7
        mov     dword [PD_ROM + 510 * 8], CASES + 0x87
        mov     dword [PD_ROM + 511 * 8], CASES + 0x200087
        mov     eax, 0x87               ; 80: a page of 2 MiB
        xor     ecx, ecx
.page:  mov     [PD_LOW + ecx * 8], eax
        mov     [PD_HIGH + ecx * 8], eax
        add     eax, 0x200000
        inc     ecx
        cmp     ecx, 512
        jb      .page
        mov     dword [PD_LOW + (WINDOW >> 21) * 8], PT_WIN + 7
        mov     eax, CR4_BASE
        mov     cr4, eax
        mov     eax, PML4
        mov     cr3, eax
        mov     ecx, 0xC0000080         ; EFER.LME
        rdmsr
        or      ah, 1
        wrmsr
        mov     eax, CR0_BASE
        mov     cr0, eax
        jmp     SEL_CODE64:long_mode

        bits    64
        default abs
long_mode:
        mov     ax, SEL_DATA
        mov     ss, ax
        mov     ax, SEL_UDATA           ; DPL 3, so that IRET to CPL 3 leaves it alone
        mov     ds, ax
        mov     es, ax
        mov     rsp, STACK
        ; IDT: 256 gates to the stubs, all through IST1; gate 20H may be used from CPL 3
        mov     edi, IDT
        mov     eax, stubs
.gate:  mov     [rdi], ax
        mov     word [rdi + 2], SEL_CODE64
        mov     word [rdi + 4], 0x8E01
        mov     edx, eax
        shr     edx, 16
        mov     [rdi + 6], edx
        add     eax, STUB_SIZE
        add     edi, 16
        cmp     edi, IDT + 0x1000
        jb      .gate
        mov     byte [IDT + DONE * 16 + 5], 0xEE
        lidt    [idt_register]
        mov     dword [TSS + 4], ISTACK ; RSP0
        mov     dword [TSS + 0x24], ISTACK ; IST1
        mov     ax, SEL_TSS
        ltr     ax
        call    find_features
        call    print_cpuid
        mov     r15d, CASES
.next:  cmp     dword [r15 + case.length], 0
        je      finish
        call    run_case
        mov     eax, [r15 + case.length]
        add     r15, rax
        jmp     .next
finish: mov     al, 'Z'
        call    put_char
        call    put_newline
shutdown:
        mov     esi, shutdown_word
        mov     dx, 0x8900
        mov     ecx, 8
.byte:  lodsb
        out     dx, al
        loop    .byte
        hlt
        jmp     shutdown

; ---------------------------------------------------------------------------------------------------------------------
; What the CPU has
; ---------------------------------------------------------------------------------------------------------------------

; Fill in [features] and [user_mask]; turn XSAVE on with all user components.
find_features:
        mov     eax, 1
        xor     ecx, ecx
        cpuid
        bt      ecx, 26
        jnc     finish                  ; no XSAVE: nothing here can run; the table's end without a case tells
        mov     rax, cr4
        or      eax, CR4_OSXSAVE
        mov     cr4, rax
        mov     eax, 0xD
        xor     ecx, ecx
        cpuid
        mov     [user_mask], eax
        mov     [user_mask + 4], edx
        mov     eax, 0xD
        mov     ecx, 1
        cpuid
        shr     eax, 1                  ; drop XSAVEOPT: bits 2:0 are now XSAVEC, XGETBV(1) and XSAVES
        and     eax, 7
        mov     [features], eax
        xor     eax, eax
        cpuid
        cmp     eax, 7
        jb      .enable
        mov     eax, 7
        xor     ecx, ecx
        cpuid
        bt      edx, 24                 ; AMX-TILE
        jnc     .no_amx
        bts     dword [features], HAS_AMX
.no_amx:
        bt      ecx, 7                  ; CET_SS
        jc      .cet
        bt      edx, 20                 ; CET_IBT
        jnc     .enable
.cet:   bts     dword [features], HAS_CET
.enable:
        mov     rax, [user_mask]
        jmp     set_xcr0

; Print the leaves of leaf_list, then leaf 0DH with its 64 sub-leaves; leaves above the CPU's greatest are left out.
print_cpuid:
        mov     r12d, leaf_list
.leaf:  mov     eax, [r12]
        mov     ecx, [r12 + 4]
        cmp     eax, -1
        je      .sub_leaves
        mov     r13d, eax
        mov     r14d, ecx
        call    .print_if
        add     r12, 8
        jmp     .leaf
.sub_leaves:
        mov     r13d, 0xD
        xor     r14d, r14d
.sub:   call    .print
        inc     r14d
        cmp     r14d, 64
        jb      .sub
        ret
.print_if:
        mov     eax, r13d
        and     eax, 0x80000000
        cpuid
        cmp     eax, r13d
        jae     .print
        ret
.print: mov     al, 'L'
        call    put_char
        mov     eax, r13d
        call    put_space_hex32
        mov     eax, r14d
        call    put_space_hex32
        mov     eax, r13d
        mov     ecx, r14d
        cpuid
        mov     [cpuid_out], eax
        mov     [cpuid_out + 4], ebx
        mov     [cpuid_out + 8], ecx
        mov     [cpuid_out + 12], edx
        mov     eax, [cpuid_out]
        call    put_space_hex32
        mov     eax, [cpuid_out + 4]
        call    put_space_hex32
        mov     eax, [cpuid_out + 8]
        call    put_space_hex32
        mov     eax, [cpuid_out + 12]
        call    put_space_hex32
        jmp     put_newline

; ---------------------------------------------------------------------------------------------------------------------
; One case; r15 = its record.  All registers but rsp and r15 are used.
; ---------------------------------------------------------------------------------------------------------------------
run_case:
        mov     [return_stack], rsp
        mov     al, 'C'
        call    put_char
        mov     eax, [r15 + case.number]
        call    put_space_hex32
        call    put_newline
        call    load_registers
        call    place_area
        ; the frame by which IRETQ enters the instruction: its address, CS, RFLAGS, RSP, SS
        mov     ebx, [r15 + case.flags]
        mov     eax, ebx
        and     eax, 3                  ; F_COMPAT, F_USER
        movzx   ecx, word [code_selectors + rax * 2]
        mov     edx, SEL_DATA
        bt      ebx, F_USER
        jnc     .kernel
        mov     edx, SEL_UDATA
.kernel:
        push    rdx
        mov     eax, STACK - 0x800
        push    rax
        mov     eax, 2
        bt      ebx, F_AC
        jnc     .no_ac
        or      eax, 1 << 18
.no_ac: push    rax
        push    rcx
        lea     rax, [r15 + case.code]
        push    rax
        ; IA32_XSS and XCR0 of the case, CR4 and CR0 last: from here on nothing may need XSAVE or the FPU
        mov     rax, [r15 + case.xss]
        call    set_xss
        mov     rax, [r15 + case.xcr0]
        call    set_xcr0
        mov     eax, CR4_BASE | CR4_OSXSAVE
        bt      ebx, F_NOXSAVE
        jnc     .osxsave
        and     eax, ~CR4_OSXSAVE
.osxsave:
        bt      ebx, F_NOFXSR
        jnc     .osfxsr
        and     eax, ~CR4_OSFXSR
.osfxsr:
        mov     cr4, rax
        mov     eax, CR0_BASE
        bt      ebx, F_TS
        jnc     .no_ts
        or      eax, CR0_TS
.no_ts: bt      ebx, F_EM
        jnc     .no_em
        or      eax, CR0_EM
.no_em: bt      ebx, F_AM
        jnc     .no_am
        or      eax, CR0_AM
.no_am: mov     cr0, rax
        mov     dword [testing], 1
        mov     eax, [r15 + case.mask]
        mov     edx, [r15 + case.mask + 4]
        mov     rcx, [r15 + case.index]
        mov     rdi, [r15 + case.address]
        iretq                           ; to the instruction; it comes back to tested below, by a fault or by INT 20H

; The instruction under test is over.  The handler has kept rax, rdx, CR2, the vector and the error code.
tested: mov     dword [testing], 0
        mov     eax, CR0_BASE
        mov     cr0, rax
        mov     eax, CR4_BASE | CR4_OSXSAVE
        mov     cr4, rax
        mov     rsp, [return_stack]
        ; first what the instruction may have changed and the reading back changes: XCR0, XINUSE, IA32_XSS
        xor     ecx, ecx
        xgetbv
        mov     [after_xcr0], eax
        mov     [after_xcr0 + 4], edx
        bt      dword [features], HAS_XGETBV1
        jnc     .no_xgetbv1
        mov     ecx, 1
        xgetbv
        mov     [after_xinuse], eax
        mov     [after_xinuse + 4], edx
.no_xgetbv1:
        bt      dword [features], HAS_XSAVES
        jnc     .no_xss
        mov     ecx, 0xDA0
        rdmsr
        mov     [after_xss], eax
        mov     [after_xss + 4], edx
.no_xss:
        call    read_registers
        jmp     print_case

; Set XCR0 to rax.
set_xcr0:
        mov     rdx, rax
        shr     rdx, 32
        xor     ecx, ecx
        xsetbv
        ret

; Set IA32_XSS to rax; without XSAVES only 0 is possible, and is what holds.
set_xss:
        bt      dword [features], HAS_XSAVES
        jnc     .done
        mov     rdx, rax
        shr     rdx, 32
        mov     ecx, 0xDA0
        wrmsr
.done:  ret

; Load tile %1 from rsi and advance, if the case has the tile; rcx = bytes a row.
%macro load_tile 1
        bt      dword [r15 + case.tiles], %1
        jnc     %%absent
        tileloadd tmm %+ %1, [rsi + rcx]
        add     rsi, 1024
%%absent:
%endmacro

; Bring every register to its initial state, then to that of the case.
load_registers:
        mov     rax, [user_mask]
        call    set_xcr0
        mov     edi, [r15 + case.load]
        add     rdi, r15
        mov     eax, -1
        mov     edx, -1
        bt      dword [r15 + case.flags], F_LOAD32
        jc      .load32
        xrstor64 [rdi]                  ; what the image does not hold is initialised; tiles are never in it
        jmp     .tiles
.load32:
        xrstor  [rdi]
.tiles: bt      dword [features], HAS_AMX
        jnc     .msrs
        cmp     dword [r15 + case.tiles], 0
        je      .msrs
        ldtilecfg [rdi + TILECFG_AT]    ; XRSTOR has set it, but has left the tiles in a state of its own
        mov     esi, [r15 + case.rows]
        add     rsi, r15
        mov     ecx, 64
%assign t 0
%rep 8
        load_tile t
%assign t t + 1
%endrep
.msrs:  bt      dword [features], HAS_CET
        jnc     .done
        xor     ebx, ebx
.msr:   mov     ecx, [cet_msrs + rbx * 4]
        mov     eax, [r15 + case.msrs + rbx * 8]
        mov     edx, [r15 + case.msrs + rbx * 8 + 4]
        wrmsr
        inc     ebx
        cmp     ebx, 7
        jb      .msr
.done:  ret

; Map the pages of the area, and no others, in the window; write the area through the alias.
place_area:
        mov     edi, PT_WIN
        mov     ecx, 512
        xor     eax, eax
        rep     stosq
        mov     rcx, [r15 + case.size]
        test    rcx, rcx
        jz      .flush
        mov     rax, [r15 + case.address]
        lea     rdx, [rax + rcx - 1]
        shr     rdx, 12
        shr     rax, 12
.map:   mov     rbx, rax
        shl     rbx, 12
        or      rbx, 7
        mov     [PT_WIN - (WINDOW >> 12) * 8 + rax * 8], rbx
        inc     rax
        cmp     rax, rdx
        jbe     .map
        mov     rdi, [r15 + case.address]
        add     rdi, ALIAS
        mov     esi, [r15 + case.area]
        add     rsi, r15
        rep     movsb
.flush: mov     rax, cr3
        mov     cr3, rax
        ret

; Store tile %1 at rdi, if TILECFG allows to do it whole, and advance; rcx = bytes a row.
%macro store_tile 1
        cmp     byte [IMAGE + TILECFG_AT + 1], 0 ; start_row
        jne     %%absent
        cmp     word [IMAGE + TILECFG_AT + 16 + 2 * %1], 0
        je      %%absent
        cmp     byte [IMAGE + TILECFG_AT + 48 + %1], 0
        je      %%absent
        tilestored [rdi + rcx], tmm %+ %1
%%absent:
        add     rdi, 1024
%endmacro

; Read every register back into IMAGE, LEGACY, TILES and [after_msrs].
read_registers:
        mov     edi, IMAGE
        mov     ecx, (TILES + 0x2000 - IMAGE) / 8
        xor     eax, eax
        rep     stosq
        mov     rax, [user_mask]
        call    set_xcr0
        mov     edi, IMAGE
        mov     eax, [user_mask]
        mov     edx, [user_mask + 4]
        xsave64 [rdi]
        fxsave  [LEGACY]
        bt      dword [features], HAS_AMX
        jnc     .msrs
        mov     edi, TILES
        mov     ecx, 64
%assign t 0
%rep 8
        store_tile t
%assign t t + 1
%endrep
.msrs:  bt      dword [features], HAS_CET
        jnc     .done
        xor     ebx, ebx
.msr:   mov     ecx, [cet_msrs + rbx * 4]
        rdmsr
        mov     [after_msrs + rbx * 8], eax
        mov     [after_msrs + rbx * 8 + 4], edx
        inc     ebx
        cmp     ebx, 7
        jb      .msr
.done:  ret

; ---------------------------------------------------------------------------------------------------------------------
; Print the outcome
; ---------------------------------------------------------------------------------------------------------------------
print_case:
        mov     al, 'F'
        call    put_char
        mov     eax, [after_vector]
        call    put_space_hex32
        mov     eax, [after_error]
        call    put_space_hex32
        mov     rax, [after_cr2]
        call    put_space_hex64
        call    put_newline
        mov     al, 'V'
        mov     ecx, [after_rax]
        mov     ebx, [after_rdx]
        shl     rbx, 32
        or      rbx, rcx
        call    put_number_line
        mov     al, '0'
        mov     rbx, [after_xcr0]
        call    put_number_line
        bt      dword [features], HAS_XGETBV1
        jnc     .no_xinuse
        mov     al, '1'
        mov     rbx, [after_xinuse]
        call    put_number_line
.no_xinuse:
        bt      dword [features], HAS_XSAVES
        jnc     .no_xss
        mov     al, 'S'
        mov     rbx, [after_xss]
        call    put_number_line
.no_xss:
        ; the area: compared with what was written there, 16 bytes at a time
        mov     rcx, [r15 + case.size]
        mov     rsi, [r15 + case.address]
        add     rsi, ALIAS
        mov     edi, [r15 + case.area]
        add     rdi, r15
        mov     bl, 'M'
        call    put_lines
        mov     esi, IMAGE
        mov     edi, zeros
        mov     ecx, IMAGE_SIZE
        mov     bl, 'R'
        call    put_lines_not_zero
        mov     al, 'X'
        call    put_char
        mov     esi, LEGACY + 8
        call    put_space_16_bytes
        call    put_newline
        bt      dword [features], HAS_AMX
        jnc     .no_tiles
        mov     esi, TILES
        mov     ecx, 0x2000
        mov     bl, 'T'
        call    put_lines_not_zero
.no_tiles:
        bt      dword [features], HAS_CET
        jnc     .no_cet
        mov     al, 'P'
        call    put_char
        xor     ebx, ebx
.msr:   mov     rax, [after_msrs + rbx * 8]
        call    put_space_hex64
        inc     ebx
        cmp     ebx, 7
        jb      .msr
        call    put_newline
.no_cet:
        mov     al, 'E'
        call    put_char
        jmp     put_newline

; Print each 16 bytes of the rcx at rsi that differ from those at rdi, in lines that begin with bl.
put_lines:
        xor     ebp, ebp                ; what rdi advances beyond 16 - 16
        jmp     put_lines_from
; The same, where they are not zero.
put_lines_not_zero:
        mov     edi, zeros
        mov     rbp, -16
put_lines_from:
        xor     r8d, r8d                ; the offset
.line:  cmp     r8, rcx
        jae     .done
        mov     rax, [rsi]
        cmp     rax, [rdi]
        jne     .differs
        mov     rax, [rsi + 8]
        cmp     rax, [rdi + 8]
        je      .same
.differs:
        mov     al, bl
        call    put_char
        mov     eax, r8d
        call    put_space_hex32
        call    put_space_16_bytes      ; moves rsi on
        call    put_newline
        sub     rsi, 16
.same:  add     rsi, 16
        lea     rdi, [rdi + rbp + 16]
        add     r8, 16
        jmp     .line
.done:  ret

; Print a line of the letter al and the number rbx.
put_number_line:
        call    put_char
        mov     rax, rbx
        call    put_space_hex64
        jmp     put_newline

; Print a blank and the 16 bytes at rsi, in memory order; rsi moves on.
put_space_16_bytes:
        mov     al, ' '
        call    put_char
        mov     r10d, 16
.byte:  lodsb
        mov     r11d, eax
        shr     eax, 4
        call    put_digit
        mov     eax, r11d
        call    put_digit
        dec     r10d
        jnz     .byte
        ret

; Print a blank and the number eax or rax, all its digits.
put_space_hex32:
        mov     r9d, 32
        jmp     put_space_hex
put_space_hex64:
        mov     r9d, 64
put_space_hex:
        mov     r10, rax
        mov     al, ' '
        call    put_char
        mov     r11d, ecx
.digit: sub     r9d, 4
        mov     ecx, r9d
        mov     rax, r10
        shr     rax, cl
        call    put_digit
        test    r9d, r9d
        jnz     .digit
        mov     ecx, r11d
        ret

put_newline:
        mov     al, 10
        jmp     put_char
; Print the hex digit in the low four bits of eax.
put_digit:
        and     eax, 15
        mov     al, [digits + rax]
put_char:
        out     0xE9, al
        ret

; ---------------------------------------------------------------------------------------------------------------------
; Exceptions
; ---------------------------------------------------------------------------------------------------------------------

; 256 stubs of STUB_SIZE bytes: push an error code of 0 where the CPU pushes none, push the vector.
%define HAS_ERROR_CODE(v) ((v) == 8 || ((v) >= 10 && (v) <= 14) || (v) == 17 || (v) == 21 || (v) == 29 || (v) == 30)
%macro stub 1
  %%stub:
  %if !HAS_ERROR_CODE(%1)
        push    qword 0
  %endif
        push    qword %1
        jmp     strict near handler
        times   STUB_SIZE - ($ - %%stub) int3
%endmacro
        align   16
stubs:
%assign v 0
%rep 256
        stub    v
%assign v v + 1
%endrep

handler:
        cmp     dword [testing], 1
        jne     unexpected
        mov     [after_rax], rax
        mov     [after_rdx], rdx
        pop     rax
        mov     [after_vector], rax
        pop     rax
        mov     [after_error], rax
        mov     rax, cr2
        mov     [after_cr2], rax
        jmp     tested

; An exception where none may be: tell, give up.
unexpected:
        mov     al, '!'
        call    put_char
        pop     rax
        call    put_space_hex32
        pop     rax
        call    put_space_hex32
        pop     rax
        call    put_space_hex64
        mov     rax, cr2
        call    put_space_hex64
        call    put_newline
        jmp     shutdown

; ---------------------------------------------------------------------------------------------------------------------
; Tables and variables
; ---------------------------------------------------------------------------------------------------------------------
zeros:  times   16 db 0

        align   8
gdt:    dq      0
        dq      0x00CF9B000000FFFF      ; SEL_CODE32
        dq      0x00AF9B000000FFFF      ; SEL_CODE64
        dq      0x00CF93000000FFFF      ; SEL_DATA
        dq      0x00CFFB000000FFFF      ; SEL_USER32
        dq      0x00AFFB000000FFFF      ; SEL_USER64
        dq      0x00CFF3000000FFFF      ; SEL_UDATA
        dq      0x0000890000000067 | (TSS << 16), 0 ; SEL_TSS
gdt_register:
        dw      $ - gdt - 1
        dd      gdt
idt_register:
        dw      0xFFF
        dq      IDT
code_selectors:                         ; by F_COMPAT + 2 * F_USER
        dw      SEL_CODE64, SEL_CODE32, SEL_USER64, SEL_USER32
        align   4
cet_msrs:
        dd      0x6A0, 0x6A2, 0x6A4, 0x6A5, 0x6A6, 0x6A7, 0x6A8
leaf_list:                              ; leaf, sub-leaf
        dd      0, 0, 1, 0, 7, 0, 7, 1, 0x1D, 0, 0x1D, 1, 0x1E, 0
        dd      0x80000000, 0, 0x80000001, 0, 0x80000008, 0, -1, -1
digits: db      "0123456789abcdef"
shutdown_word:
        db      "Shutdown"

        align   8
features:        dq 0
user_mask:       dq 0
testing:         dq 0                   ; 1 while the instruction under test runs
return_stack:    dq 0
cpuid_out:       times 4 dd 0
after_rax:       dq 0
after_rdx:       dq 0
after_vector:    dq 0
after_error:     dq 0
after_cr2:       dq 0
after_xcr0:      dq 0
after_xinuse:    dq 0
after_xss:       dq 0
after_msrs:      times 7 dq 0

; ---------------------------------------------------------------------------------------------------------------------
; The reset vector, 16 bytes below the end of the ROM
; ---------------------------------------------------------------------------------------------------------------------
        times   0xFFF0 - ($ - $$) db 0
        bits    16
        jmp     0xF000:(start - BASE)
        times   0x10000 - ($ - $$) db 0
