/* machine: CLINT, PLIC and finisher, at the addresses of QEMU's `virt`. */

#include "guest.h"

#define MMIO32(address) (*(volatile u32 *)(u64)(address))
#define MMIO64(address) (*(volatile u64 *)(u64)(address))
#define FINISHER 0x00100000
#define MTIMECMP 0x02004000
#define MTIME 0x0200bff8
#define PLIC 0x0c000000
#define PLIC_ENABLE (PLIC + 0x2000)
#define PLIC_THRESHOLD (PLIC + 0x200000)
#define PLIC_CLAIM (PLIC + 0x200004)

#define INTERRUPT (1UL << 63)
#define TIMER 7
#define EXTERNAL 11
#define MIE 8

u64 now(void) { return MMIO64(MTIME); }

void timer_at(u64 when)
{
    MMIO64(MTIMECMP) = when;
    asm volatile("csrs mie, %0" ::"r"(1UL << TIMER));
}

void interrupts_on(void) { asm volatile("csrsi mstatus, %0" ::"i"(MIE) : "memory"); }

u64 interrupts_off(void)
{
    u64 before;
    asm volatile("csrrci %0, mstatus, %1" : "=r"(before) : "i"(MIE) : "memory");
    return before & MIE;
}

void interrupts_restore(u64 before) { asm volatile("csrs mstatus, %0" ::"r"(before) : "memory"); }

void wait_interrupt(void)
{
    asm volatile("wfi" ::: "memory");
    interrupts_on();
    interrupts_off();
}

void sleep_until(u64 when)
{
    u64 before = interrupts_off();
    timer_at(when);
    while (now() < when)
        wait_interrupt();
    interrupts_restore(before);
}

void listen_irq(u32 irq)
{
    MMIO32(PLIC + 4 * irq) = 1;
    MMIO32(PLIC_ENABLE) |= 1u << irq;
    MMIO32(PLIC_THRESHOLD) = 0;
    asm volatile("csrs mie, %0" ::"r"(1UL << EXTERNAL));
}

void finish(u32 code)
{
    MMIO32(FINISHER) = code ? code << 16 | 0x3333 : 0x5555;
    for (;;)
        asm volatile("wfi");
}

__attribute__((weak)) void tick(void) {}

__attribute__((weak)) u64 exception(u64 cause, u64 pc, u64 value)
{
    put("exception ");
    put_u64(cause);
    put(" at ");
    put_hex(pc);
    put(", value ");
    put_hex(value);
    put("\n");
    finish(1);
}

static void external(void)
{
    u32 irq = MMIO32(PLIC_CLAIM);
    if (irq >= 1 && irq <= 8)
        virtio_interrupt(irq - 1);
    if (irq)
        MMIO32(PLIC_CLAIM) = irq;
}

u64 trap(u64 cause, u64 pc, u64 value)
{
    if (cause == (INTERRUPT | EXTERNAL)) {
        external();
    } else if (cause == (INTERRUPT | TIMER)) {
        MMIO64(MTIMECMP) = ~0UL; /* once, unless tick() sets it anew */
        tick();
    } else if (!(cause & INTERRUPT)) {
        return exception(cause, pc, value);
    }
    return pc;
}

void *memset(void *to, int byte, u64 count)
{
    u8 *at = to;
    while (count--)
        *at++ = byte;
    return to;
}

void *memcpy(void *to, const void *from, u64 count)
{
    u8 *at = to;
    const u8 *source = from;
    while (count--)
        *at++ = *source++;
    return to;
}
