/* full: writes all the memory that there is, no two words alike, says how much that was, and then
   `full COUNT` every 5 ms. */

#include "guest.h"

#define PERIOD (5 * TICKS_PER_MS)
#define STEP (1UL << 20)
#define LOAD_ACCESS 5

extern u64 stack_end[];

static volatile int beyond;

u64 exception(u64 cause, u64 pc, u64 value)
{
    (void)value;
    if (cause != LOAD_ACCESS)
        finish(1);
    beyond = 1;
    return pc + 4;
}

/* Where memory ends: the first MiB whose first word cannot be read. */
static u64 *memory_end(void)
{
    u64 at = (u64)stack_end & ~(STEP - 1);
    while (!beyond) {
        at += STEP;
        asm volatile(".option push\n.option norvc\nld t0, 0(%0)\n.option pop" ::"r"(at) : "t0");
    }
    return (u64 *)at;
}

int main(void)
{
    u64 *end = memory_end(), number = 0;
    for (u64 *word = stack_end; word < end; word++)
        *word = (number += 0x9e3779b97f4a7c15UL);
    put("full of ");
    put_u64((u64)end - (u64)stack_end);
    put(" bytes\n");
    u64 due = now();
    for (u64 count = 1;; count++) {
        sleep_until(due += PERIOD);
        put("full ");
        put_u64(count);
        put("\n");
    }
}
