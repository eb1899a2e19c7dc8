/* hello: says so, waits for three ticks of the timer, and switches the machine off. */

#include "guest.h"

static volatile u32 ticks;

void tick(void)
{
    ticks++;
    timer_at(now() + TICKS_PER_MS);
}

int main(void)
{
    u64 hart;
    asm("csrr %0, mhartid" : "=r"(hart));
    put("hello from hart ");
    put_u64(hart);
    put("\n");
    interrupts_off();
    timer_at(now() + TICKS_PER_MS);
    while (ticks < 3)
        wait_interrupt();
    put("three ticks, bye\n");
    return 0;
}
