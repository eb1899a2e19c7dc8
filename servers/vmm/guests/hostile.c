/* hostile: does what no guest should, a phase at a time, and says so before each. On its way it
   counts the exceptions that it was given, and what it tried:

       hostile: tried BELOW below memory, ABOVE above, DESCRIPTORS descriptors, QUEUES queues, DMA DMA

   accesses of nothing below its memory; those above it, and jumps to where no program is; chains
   that are none; queues where no memory is; disk requests with data outside of it. In the end it
   destroys its own trap handler, from which only a reset by the monitor leads out: then it begins
   again. */

#include "guest.h"

#define RAM 0x80000000UL
#define FAR 0x90000000UL /* no memory */
#define SLOTS 8
#define SLOT(n) ((volatile u32 *)(0x10001000UL + 0x1000 * (n)))
#define DEVICE_ID (0x08 / 4)
#define QUEUE_SEL (0x30 / 4)
#define QUEUE_NUM (0x38 / 4)
#define QUEUE_READY (0x44 / 4)
#define QUEUE_NOTIFY (0x50 / 4)
#define STATUS (0x70 / 4)
#define QUEUE_DESC (0x80 / 4)

extern void trap_entry(void);

static volatile u64 exceptions;
static u64 below, above, chains, queues, dma; /* tried */
static u64 resume_at; /* after a jump to nowhere */
static u8 data[4096] __attribute__((aligned(4096)));

u64 exception(u64 cause, u64 pc, u64 value)
{
    (void)value;
    exceptions++;
    if (cause == 1 || cause == 0) /* of the jump, not of a load */
        return resume_at;
    return pc + ((*(volatile u16 *)pc & 3) == 3 ? 4 : 2);
}

static void phase(u32 number, const char *what)
{
    put("hostile: phase ");
    put_u64(number);
    put(", ");
    put(what);
    put("\n");
}

/* --- wild accesses ------------------------------------------------------------------------------ */

static int spared(u64 address) /* the console, and what would end the machine */
{
    return (address >= 0x100000 && address < 0x101000) || (address >= 0x10000000 && address < 0x10009000);
}

static void wild_mmio(void)
{
    for (u64 at = 0; at < RAM; at += 0x00fff000 + 8) {
        if (spared(at))
            continue;
        volatile u64 *where = (volatile u64 *)at;
        below += 4;
        *where = ~*where;
        (void)*(volatile u8 *)(at + 3);
        asm volatile("sh %0, 5(%1)" ::"r"(0xdead), "r"(at) : "memory"); /* at an odd address */
    }
}

static void wild_memory(void)
{
    static const u64 where[] = {FAR, RAM + (1UL << 40), ~0UL - 7, 1UL << 63, RAM - 4, FAR - 4};
    for (u32 n = 0; n < sizeof where / sizeof *where; n++) {
        *(where[n] < RAM ? &below : &above) += 2;
        (void)*(volatile u64 *)where[n];
        *(volatile u64 *)where[n] = 1;
        above++; /* nowhere can that be done but in memory */
        (void)__atomic_fetch_add((int *)where[n], 1, __ATOMIC_SEQ_CST);
    }
}

static void jump(u64 where)
{
    above++;
    asm volatile("lla t0, 1f\n"
                 "sd t0, %0\n"
                 "jr %1\n"
                 "1:"
                 : "=m"(resume_at)
                 : "r"(where)
                 : "t0", "memory");
}

static void wild_jumps(void)
{
    jump(0);
    jump(0x02000000);
    jump(0x10001000);
    jump(FAR);
    jump(~0UL - 1);
}

/* --- bad descriptors ---------------------------------------------------------------------------- */

static struct virtio device;
static struct queue q;

static void one(u32 slot, const struct descriptor *desc, u32 count, u16 head, u16 advance)
{
    u16 number = SLOT(slot)[DEVICE_ID] == NET; /* what a card is to send: it looks at that at once */
    if (!virtio_open(&device, SLOT(slot)[DEVICE_ID], 0) || device.slot != slot)
        return;
    chains++;
    virtio_queue(&device, number, &q);
    virtio_start(&device);
    for (u32 n = 0; n < count; n++)
        q.desc[n] = desc[n];
    q.avail.ring[0] = head;
    asm volatile("fence" ::: "memory");
    *(volatile u16 *)&q.avail.idx = advance;
    device.registers[QUEUE_NOTIFY] = number;
    device.registers[QUEUE_NOTIFY] = 77;
    sleep_until(now() + TICKS_PER_MS);
    device.registers[STATUS] = 0;
}

static void bad_descriptors(u32 slot)
{
    u64 good = here(data);
    const struct descriptor loop[] = {{good, 16, DESC_NEXT, 1}, {good, 16, DESC_NEXT, 0}};
    const struct descriptor outside[] = {{0x1000, 64, DESC_WRITE, 0}};
    const struct descriptor beyond[] = {{FAR, 64, 0, 0}};
    const struct descriptor wraps[] = {{~0UL - 7, 64, DESC_WRITE, 0}};
    const struct descriptor absurd[] = {{good, ~0u, DESC_WRITE, 0}};
    const struct descriptor much[] = {{RAM, 1u << 31, DESC_NEXT, 1}, {RAM, 1u << 31, DESC_WRITE, 0}};
    const struct descriptor index[] = {{good, 16, DESC_NEXT, 0xffff}};
    const struct descriptor empty[] = {{good, 0, DESC_NEXT, 1}, {good, 0, DESC_WRITE, 0}};
    const struct descriptor indirect[] = {{good, 16, DESC_INDIRECT, 0}};
    const struct descriptor order[] = {{good, 16, DESC_WRITE | DESC_NEXT, 1}, {good, 16, 0, 0}};
    const struct descriptor flags[] = {{good, 16, 0xffff, 0xffff}};
    one(slot, loop, 2, 0, 1);
    one(slot, outside, 1, 0, 1);
    one(slot, beyond, 1, 0, 1);
    one(slot, wraps, 1, 0, 1);
    one(slot, absurd, 1, 0, 1);
    one(slot, much, 2, 0, 1);
    one(slot, index, 1, 0, 1);
    one(slot, empty, 2, 0, 1);
    one(slot, indirect, 1, 0, 1);
    one(slot, order, 2, 0, 1);
    one(slot, flags, 1, 0, 1);
    one(slot, outside, 1, 0xffff, 1);     /* a head that is none */
    one(slot, outside, 1, 0, 0x8000);     /* more chains than there are */
}

static void bad_queues(u32 slot)
{
    static const u64 where[] = {0, 1, FAR, ~0UL, RAM + 1, ~0UL << 12};
    volatile u32 *r = SLOT(slot);
    for (u32 n = 0; n < sizeof where / sizeof *where; n++) {
        if (!virtio_open(&device, r[DEVICE_ID], 0) || device.slot != slot)
            return;
        queues++;
        r[QUEUE_SEL] = n & 1 ? 0 : 0xffffffff;
        r[QUEUE_SEL] = 0;
        r[QUEUE_NUM] = n & 1 ? 3 : 0x80000000;
        r[QUEUE_NUM] = QUEUE_SIZE;
        for (u32 half = 0; half < 0x30 / 4; half++)
            r[QUEUE_DESC + half] = where[n] >> 32 * (half & 1);
        r[QUEUE_READY] = 1;
        virtio_start(&device);
        r[QUEUE_NOTIFY] = 0;
        r[STATUS] = 0xffffffff;
        r[STATUS] = 0;
    }
    for (u32 at = 0; at < 0x400; at++) /* every register, and far into the configuration */
        if (at != QUEUE_READY)
            r[at] = ~r[at];
    r[STATUS] = 0;
}

static void bad_devices(void (*what)(u32))
{
    for (u32 slot = 0; slot < SLOTS; slot++)
        if (SLOT(slot)[DEVICE_ID] && SLOT(slot)[DEVICE_ID] != CONSOLE)
            what(slot);
}

static void dma_outside(void)
{
    static const u64 where[] = {0x1000, 0x02004000, 0x0c000000, FAR, RAM - 256, ~0UL - 255};
    u64 before = chains;
    if (!blk_open())
        return;
    for (u32 n = 0; n < sizeof where / sizeof *where; n++) {
        if (!blk_open()) /* it may want a reset after each */
            return;
        struct descriptor chain[] = {
            {here(data), 16, DESC_NEXT, 1}, {where[n], SECTOR, DESC_NEXT | DESC_WRITE, 2},
            {here(data + 16), 1, DESC_WRITE, 0}};
        memset(data, 0, 32);
        for (u32 slot = 0; slot < SLOTS; slot++)
            if (SLOT(slot)[DEVICE_ID] == BLOCK)
                one(slot, chain, 3, 0, 1);
    }
    dma = chains - before;
}

/* --- the processor ------------------------------------------------------------------------------ */

static void deaf_loop(u64 ticks)
{
    u64 before = interrupts_off(), end = now() + ticks;
    while (now() < end)
        ;
    interrupts_restore(before);
}

static u32 code[2] __attribute__((aligned(8)));

static void run(u32 instruction)
{
    code[0] = instruction;
    code[1] = 0x00008067; /* ret */
    asm volatile("fence.i\njalr %0" ::"r"(code) : "ra", "t6", "memory");
}

static void all_csrs(void)
{
    for (u32 csr = 0; csr < 4096; csr++)
        run(csr << 20 | 0x2f73); /* csrrs t5, csr, zero */
    for (u32 csr = 0x5c0; csr < 0x600; csr++)
        run(csr << 20 | 0x1073); /* csrrw zero, csr, zero */
}

static void odd_instructions(void)
{
    static const u32 what[] = {0, ~0u, 0x00000073, 0x00100073, 0x10200073, 0x0000006b, 0xfff0707f,
                               0x00007053, 0xc0001073, 0x12000073, 0x0000100f, 0x9002, 0xf14f1073};
    for (u32 n = 0; n < sizeof what / sizeof *what; n++)
        if (what[n] != 0x10200073) /* sret would leave for elsewhere */
            run(what[n]);
}

static void say(const char *before, u64 number)
{
    put(before);
    put_u64(number);
}

static void destroy_the_handler(void)
{
    memset((void *)trap_entry, 0, 64);
    asm volatile("fence.i\n.word 0");
}

int main(void)
{
    u64 before;
    phase(1, "wild registers");
    wild_mmio();
    phase(2, "wild memory");
    wild_memory();
    phase(3, "wild jumps");
    wild_jumps();
    phase(4, "bad descriptors");
    bad_devices(bad_descriptors);
    phase(5, "bad queues");
    bad_devices(bad_queues);
    phase(6, "DMA outside");
    dma_outside();
    phase(7, "a loop without interrupts");
    deaf_loop(100 * TICKS_PER_MS);
    phase(8, "every CSR");
    before = exceptions;
    all_csrs();
    phase(9, "odd instructions");
    odd_instructions();
    say("hostile: ", exceptions - before);
    say(" exceptions in the last two, ", before);
    say(" before\nhostile: tried ", below);
    say(" below memory, ", above);
    say(" above, ", chains - dma);
    say(" descriptors, ", queues);
    say(" queues, ", dma);
    put(" DMA\n");
    sleep_until(now() + 300 * TICKS_PER_MS);
    phase(10, "without a handler");
    destroy_the_handler();
    put("hostile: still here\n");
    return 1;
}
