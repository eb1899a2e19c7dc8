/* heartbeat: counts the periods of 10 ms, without drift. Every tenth it says on its console

       heartbeat COUNT MTIME LATE

   and puts the same into the next sector of its disk, if it has one. LATE is the worst delay of a
   tick since the line before, in microseconds. */

#include "guest.h"

#define PERIOD (10 * TICKS_PER_MS)
#define EVERY 10

static volatile u64 count, worst;
static u64 due;
static struct {
    char magic[8];
    u64 count, mtime, late;
    u8 rest[SECTOR - 32];
} record = {.magic = "heartbea"};

void tick(void)
{
    u64 late = now() - due;
    if (late > worst)
        worst = late;
    count++;
    due += PERIOD;
    timer_at(due); /* at once, if that is over: no period is left out */
}

static void beat(u64 sectors)
{
    u64 before = interrupts_off();
    record.count = count;
    record.mtime = now();
    record.late = worst / 10;
    worst = 0;
    interrupts_restore(before);
    put("heartbeat ");
    put_u64(record.count);
    put(" ");
    put_u64(record.mtime);
    put(" ");
    put_u64(record.late);
    put("\n");
    if (!sectors)
        return;
    int status = blk_write((record.count / EVERY - 1) % sectors, &record, SECTOR);
    if (status) {
        put("heartbeat: the disk says ");
        put_u64(status);
        put("\n");
    }
}

int main(void)
{
    u64 sectors = blk_open() ? blk_sectors() : 0, next = EVERY;
    put(sectors ? "heartbeat with a disk\n" : "heartbeat without a disk\n");
    due = now() + PERIOD;
    timer_at(due);
    interrupts_on();
    for (;;) {
        u64 before = interrupts_off();
        while (count < next)
            wait_interrupt();
        interrupts_restore(before);
        beat(sectors);
        next += EVERY;
    }
}
