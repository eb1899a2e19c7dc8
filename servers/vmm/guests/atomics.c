/* atomics: what `speed` does, in a program that has an atomic instruction. */

#include "guest.h"

#define ROUNDS 5
#define TURNS 10000000UL

static u32 lock;

int main(void)
{
    for (u32 round = 0; round < ROUNDS; round++) {
        u64 left = TURNS, begun = now();
        asm volatile("amoadd.w zero, %1, %0" : "+A"(lock) : "r"(1));
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
