/* speed: five times it runs a tight loop and says how many instructions that was in a second. */

#include "guest.h"

#define ROUNDS 5
#define TURNS 50000000UL

int main(void)
{
    for (u32 round = 0; round < ROUNDS; round++) {
        u64 left = TURNS, begun = now();
        asm volatile("1: addi %0, %0, -1\n"
                     "   bnez %0, 1b"
                     : "+r"(left));
        u64 ticks = now() - begun;
        put("speed ");
        put_u64(2 * TURNS * (1000 * TICKS_PER_MS) / (ticks ? ticks : 1));
        put(" instructions per second\n");
    }
    return 0;
}
