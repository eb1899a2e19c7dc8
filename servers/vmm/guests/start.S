/* The first instruction, and the way into `trap` and back. Machine mode, hart 0. */

    .section .text.start, "ax"
    .globl _start
_start:
    j begin
    .balign 8
    /* At 0x80000008, for the monitor to fill in before the start. */
    .globl config_ip
config_magic:
    .ascii "UKCF"
config_ip:
    .word 0             /* IPv4, in network order; 0: whatever the guest chooses */

begin:
    csrw mie, zero
    csrci mstatus, 8
    lla sp, stack_end
    lla t0, trap_entry
    csrw mtvec, t0
    lla t0, bss_start
    lla t1, bss_end
1:  bgeu t0, t1, 2f
    sd zero, 0(t0)
    addi t0, t0, 8
    j 1b
2:  call console_init
    call main
    li a0, 0
    call finish

    .balign 4
    .globl trap_entry
trap_entry:
    addi sp, sp, -128
    sd ra, 0(sp)
    sd t0, 8(sp)
    sd t1, 16(sp)
    sd t2, 24(sp)
    sd t3, 32(sp)
    sd t4, 40(sp)
    sd t5, 48(sp)
    sd t6, 56(sp)
    sd a0, 64(sp)
    sd a1, 72(sp)
    sd a2, 80(sp)
    sd a3, 88(sp)
    sd a4, 96(sp)
    sd a5, 104(sp)
    sd a6, 112(sp)
    sd a7, 120(sp)
    csrr a0, mcause
    csrr a1, mepc
    csrr a2, mtval
    call trap
    csrw mepc, a0
    ld ra, 0(sp)
    ld t0, 8(sp)
    ld t1, 16(sp)
    ld t2, 24(sp)
    ld t3, 32(sp)
    ld t4, 40(sp)
    ld t5, 48(sp)
    ld t6, 56(sp)
    ld a0, 64(sp)
    ld a1, 72(sp)
    ld a2, 80(sp)
    ld a3, 88(sp)
    ld a4, 96(sp)
    ld a5, 104(sp)
    ld a6, 112(sp)
    ld a7, 120(sp)
    addi sp, sp, 128
    mret
