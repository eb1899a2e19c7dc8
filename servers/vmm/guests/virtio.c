/* virtio: the driver's side of virtio-mmio (virtio 1.2 4.2) and of split queues (2.7). */

#include "guest.h"

#define SLOTS 8
#define SLOT(n) ((volatile u32 *)(0x10001000UL + 0x1000 * (n)))
#define IRQ(n) ((n) + 1)

enum {
    MAGIC = 0x00 / 4,
    VERSION = 0x04 / 4,
    DEVICE_ID = 0x08 / 4,
    DEVICE_FEATURES = 0x10 / 4,
    DEVICE_FEATURES_SEL = 0x14 / 4,
    DRIVER_FEATURES = 0x20 / 4,
    DRIVER_FEATURES_SEL = 0x24 / 4,
    QUEUE_SEL = 0x30 / 4,
    QUEUE_NUM = 0x38 / 4,
    QUEUE_READY = 0x44 / 4,
    QUEUE_NOTIFY = 0x50 / 4,
    INTERRUPT_STATUS = 0x60 / 4,
    INTERRUPT_ACK = 0x64 / 4,
    STATUS = 0x70 / 4,
    QUEUE_DESC = 0x80 / 4,
    QUEUE_DRIVER = 0x90 / 4,
    QUEUE_DEVICE = 0xa0 / 4,
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

#define F_VERSION_1 (1UL << 32)
#define fence() asm volatile("fence iorw, iorw" ::: "memory")

u64 here(const void *where) { return (u64)where; }

static int negotiate(volatile u32 *r, u64 wanted)
{
    r[STATUS] = 0;
    while (r[STATUS]) /* the device may still be at work */
        ;
    r[STATUS] = ACKNOWLEDGE;
    r[STATUS] = ACKNOWLEDGE | DRIVER;
    r[DEVICE_FEATURES_SEL] = 1;
    u64 offered = (u64)r[DEVICE_FEATURES] << 32;
    r[DEVICE_FEATURES_SEL] = 0;
    offered |= r[DEVICE_FEATURES];
    u64 agreed = offered & (wanted | F_VERSION_1);
    r[DRIVER_FEATURES_SEL] = 0;
    r[DRIVER_FEATURES] = agreed;
    r[DRIVER_FEATURES_SEL] = 1;
    r[DRIVER_FEATURES] = agreed >> 32;
    r[STATUS] = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    return r[STATUS] & FEATURES_OK;
}

int virtio_open(struct virtio *v, u32 id, u64 features)
{
    for (u32 n = 0; n < SLOTS; n++) {
        volatile u32 *r = SLOT(n);
        if (r[MAGIC] != 0x74726976 || r[VERSION] != 2 || r[DEVICE_ID] != id)
            continue;
        v->registers = r;
        v->slot = n;
        return negotiate(r, features);
    }
    return 0;
}

static void put_address(volatile u32 *registers, const void *part)
{
    registers[0] = here(part);
    registers[1] = here(part) >> 32;
}

void virtio_queue(struct virtio *v, u16 number, struct queue *q)
{
    volatile u32 *r = v->registers;
    q->device = v;
    q->number = number;
    q->seen = q->avail.idx = q->used.idx = 0;
    r[QUEUE_SEL] = number;
    r[QUEUE_NUM] = QUEUE_SIZE;
    put_address(r + QUEUE_DESC, q->desc);
    put_address(r + QUEUE_DRIVER, &q->avail);
    put_address(r + QUEUE_DEVICE, &q->used);
    r[QUEUE_READY] = 1;
}

void virtio_start(struct virtio *v)
{
    v->registers[STATUS] = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    listen_irq(IRQ(v->slot));
}

void virtio_interrupt(u32 slot)
{
    volatile u32 *r = SLOT(slot);
    r[INTERRUPT_ACK] = r[INTERRUPT_STATUS];
}

void queue_offer(struct queue *q, u16 head)
{
    q->avail.ring[q->avail.idx % QUEUE_SIZE] = head;
    fence();
    *(volatile u16 *)&q->avail.idx += 1;
    fence();
    q->device->registers[QUEUE_NOTIFY] = q->number;
}

int queue_take(struct queue *q, u32 *length)
{
    if (*(volatile u16 *)&q->used.idx == q->seen)
        return -1;
    fence();
    u32 at = q->seen++ % QUEUE_SIZE;
    *length = q->used.ring[at].length;
    return q->used.ring[at].id;
}

u32 queue_wait(struct queue *q)
{
    u32 length;
    u64 before = interrupts_off();
    while (queue_take(q, &length) < 0)
        wait_interrupt();
    interrupts_restore(before);
    return length;
}
