# From the PVH entry point to main() at CPL 3, and the way back for interrupts.
#
# CPL 0 is left as soon as possible and entered for as few instructions as possible: where KVM runs
# without hardware assistance, code at CPL 0 is interpreted and code at CPL 3 is not. All memory is
# mapped user-accessible, so main() needs nothing from here but interrupts and sleep.

.set STUBS, 0x200000
.set STUB_LEN, 32
.set TABLES, 0x201000
.set VECTORS, 0x70

.set PINS, 16                   # the platform's interrupts that pins can raise, from PIN_VECTOR on
.set PIN_VECTOR, 0x20
.set DEVICE_VECTOR, 0x40        # the platform's interrupts 0 to 31, when messages raise them
.set TIMER_VECTOR, 0x60
.set SPURIOUS_VECTOR, 0x6f

.set KERNEL_CS, 0x08
.set TSS, 0x10                  # two slots
.set USER_DS, 0x23
.set USER_CS, 0x2b

.set XEN_ELFNOTE_PHYS32_ENTRY, 18

.section .note.pvh, "a", @note
    .long 4, 8, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

# One stub for each vector, at STUBS + STUB_LEN * vector.
.section .stubs, "ax", @progbits
.global stubs
.code64
stubs:

.macro exception vector
    .balign STUB_LEN
    .if (\vector == 8) || (\vector >= 10 && \vector <= 14) || (\vector == 17) || (\vector == 21) || (\vector == 29) || (\vector == 30)
    .else
    push 0
    .endif
    .if \vector == 13
    cmp qword ptr [rsp + 8], offset sleep
    je go_to_sleep
    .endif
    push \vector
    jmp exception
.endm

# Counts and acknowledges. Any value written to the local APIC's EOI register will do.
.macro interrupt number
    .balign STUB_LEN
    inc qword ptr [interrupt_counts + 8 * \number]
    movabs dword ptr [0xfee000b0], eax
    iretq
.endm

# Counts, but does not acknowledge: the pin stays asserted until its driver has seen to the cause, so
# that this would only bring the interrupt back. Until the driver ends it, it is not taken again.
.macro pin number
    .balign STUB_LEN
    cmp byte ptr [pins_in_service + \number], 0
    jne taken_again
    inc byte ptr [pins_in_service + \number]
    inc qword ptr [interrupt_counts + 8 * \number]
    iretq
.endm

.altmacro
.set vector, 0
.rept 32
    exception %vector
    .set vector, vector + 1
.endr
.set number, 0
.rept PINS
    pin %number
    .set number, number + 1
    .set vector, vector + 1
.endr
# Nobody has been given these.
.rept DEVICE_VECTOR - PIN_VECTOR - PINS
    .balign STUB_LEN
    push 0
    push vector
    jmp exception
    .set vector, vector + 1
.endr
.set number, 0
.rept 33
    interrupt %number
    .set number, number + 1
.endr
.set vector, TIMER_VECTOR + 1
.rept SPURIOUS_VECTOR - TIMER_VECTOR - 1
    .balign STUB_LEN
    push 0
    push vector
    jmp exception
    .set vector, vector + 1
.endr
    .balign STUB_LEN
    iretq                       # a spurious interrupt is not acknowledged
.noaltmacro

.section .tables, "aw", @progbits
.global tables
tables:
.balign 4096
pml4:
    .quad pdpt + 0x67
    .fill 511, 8, 0
.global pdpt
pdpt:
    .quad pd + 0x67, pd + 0x1067, pd + 0x2067, pd + 0x3067
    .fill 508, 8, 0
# The first 4 GiB in pages of 2 MiB: present, writable, user, accessed, dirty.
pd:
.set page, 0
.rept 2048
    .quad page + 0xe7
    .set page, page + 0x200000
.endr

idt:
.set vector, 0
.rept VECTORS
    .set at, STUBS + STUB_LEN * vector
    .word at & 0xffff, KERNEL_CS
    .word 0x8e00                # present, DPL 0, interrupt gate
    .word at >> 16
    .quad 0
    .set vector, vector + 1
.endr
idt_end:

.set TSS_AT, TABLES + (tss - tables)
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08: code, CPL 0, 64 bits
    .word tss_end - tss - 1, TSS_AT & 0xffff
    .byte (TSS_AT >> 16) & 0xff, 0x89, 0, TSS_AT >> 24
    .quad 0
    .quad 0x00cff3000000ffff    # 0x20: data, CPL 3
    .quad 0x00affb000000ffff    # 0x28: code, CPL 3, 64 bits
gdt_end:

.balign 16
tss:
    .long 0
    .quad interrupt_stack_top   # RSP0
    .quad 0, 0
    .quad 0
    .fill 7, 8, 0              # IST, not used
    .quad 0
    .word 0, io_bitmap - tss
io_bitmap:
    .fill 0xd00 / 8, 1, 0       # ports up to PCI's configuration data
    .byte 0xff
tss_end:

gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
idt_pointer:
    .word idt_end - idt - 1
    .quad idt

# Entered with EBX at the start info; flat 32-bit segments, no paging, interrupts off.
.section .text.pvh_start, "ax", @progbits
.global pvh_start
.code32
pvh_start:
    cld
    mov edi, ebx                # main's argument
    mov al, 0xff                # a firmware may have left the 8259s to interrupt
    out 0x21, al
    out 0xa1, al
    lgdt [gdt_pointer]
    mov eax, offset pml4
    mov cr3, eax
    mov eax, cr4
    or eax, 0x620               # PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov ecx, 0xc0000080         # EFER
    rdmsr
    or eax, 0x100               # LME
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffff3         # CD, NW, TS, EM off
    or eax, 0x80000003          # PG, MP, PE
    mov cr0, eax
    .byte 0xea                  # ljmp
    .long long_mode
    .word KERNEL_CS
.code64
long_mode:
    # Here, since not every KVM intercepts CPUID at CPL 3.
    mov eax, 1
    cpuid
    test ecx, ecx
    jns 1f                      # bit 31: there is a hypervisor
    mov eax, 0x40000000
    cpuid
    cmp eax, 0x40000010
    jb 1f
    mov eax, 0x40000010
    cpuid
    mov dword ptr [hypervisor_tsc_khz], eax
1:
    lidt [idt_pointer]
    mov eax, TSS
    ltr ax
    mov eax, USER_DS
    mov ds, eax
    mov es, eax
    mov esp, offset interrupt_stack_top
    push USER_DS
    push offset stack_top - 8   # as if it had been called
    push 0x202                  # interrupts on
    push USER_CS
    push offset main
    iretq

# On the stack: vector, error code, RIP, CS, RFLAGS, RSP, SS. Returns to on_exception() instead.
exception:
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    mov r8, cr2
    mov r9, qword ptr [rsp + 8]
    mov rsp, offset interrupt_stack_top
    push USER_DS
    push offset exception_stack_top - 8
    push 2                      # interrupts off
    push USER_CS
    push offset on_exception
    iretq

# sleep(counter, seen): returns after the next interrupt, at once if `counter` is not `seen`. HLT is
# a general protection fault at CPL 3; its handler comes by with interrupts off, so that none is
# missed between the comparison and the HLT that counts.
.global sleep
sleep:
    hlt
    ret

go_to_sleep:
    add rsp, 8                  # the error code
    inc qword ptr [rsp]         # past the HLT
    cmp qword ptr [rdi], rsi
    jne 1f
    sti
    hlt
1:  iretq

# Only a local APIC that does not keep interrupts in service lets a pin's interrupt come here. While its
# redirection is level-triggered, which it then is for an instant, it would come for ever.
taken_again:
    push rax
    mov eax, dword ptr [edge_redirection]
    test eax, eax
    jz 1f
    movabs dword ptr [0xfec00010], eax
1:  pop rax
    iretq

.section .bss.boot, "aw", @nobits
.balign 64
.global interrupt_counts
interrupt_counts:
    .skip 8 * 33                # the platform's, and the timer's
.global pins_in_service
pins_in_service:
    .skip PINS
.global edge_redirection
edge_redirection:
    .skip 16
.global hypervisor_tsc_khz
hypervisor_tsc_khz:
    .skip 8
.balign 4096
    .skip 4096
interrupt_stack_top:
    .skip 65536
exception_stack_top:
    .skip 262144
stack_top:
