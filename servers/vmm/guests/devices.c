/* devices: disk, network card and random numbers, one request at a time. */

#include "guest.h"

/* --- disk (virtio 1.2 5.2) --------------------------------------------------------------------- */

#define BLK_F_FLUSH (1UL << 9)
#define IN 0
#define OUT 1
#define FLUSH 4

static struct virtio disk;
static struct queue diskq;
static struct {
    u32 type, reserved;
    u64 sector;
} request;
static volatile u8 status;

int blk_open(void)
{
    if (!virtio_open(&disk, BLOCK, BLK_F_FLUSH))
        return 0;
    virtio_queue(&disk, 0, &diskq);
    virtio_start(&disk);
    return 1;
}

u64 blk_sectors(void)
{
    return disk.registers[0x100 / 4] | (u64)disk.registers[0x104 / 4] << 32;
}

static int transfer(u32 type, u64 sector, u64 data, u32 bytes)
{
    u16 kind = type == IN ? DESC_WRITE : 0;
    request.type = type;
    request.sector = sector;
    status = 0xff;
    diskq.desc[0] = (struct descriptor){here(&request), sizeof request, DESC_NEXT, bytes ? 1 : 2};
    diskq.desc[1] = (struct descriptor){data, bytes, DESC_NEXT | kind, 2};
    diskq.desc[2] = (struct descriptor){here((const void *)&status), 1, DESC_WRITE, 0};
    queue_offer(&diskq, 0);
    queue_wait(&diskq);
    return status;
}

int blk_read(u64 sector, void *into, u32 bytes) { return transfer(IN, sector, here(into), bytes); }

int blk_write(u64 sector, const void *from, u32 bytes)
{
    return transfer(OUT, sector, here(from), bytes);
}

int blk_flush(void) { return transfer(FLUSH, 0, 0, 0); }

/* --- network card (5.1) ------------------------------------------------------------------------ */

#define NET_F_MAC (1UL << 5)
#define HEADER 12
#define FRAME 1526 /* a header and the longest frame */
#define BUFFERS 8

static struct virtio card;
static struct queue receiveq, transmitq;
static u8 incoming[BUFFERS][FRAME] __attribute__((aligned(8)));
static u8 outgoing[FRAME] __attribute__((aligned(8)));

int net_open(u8 mac[6])
{
    if (!virtio_open(&card, NET, NET_F_MAC))
        return 0;
    for (u32 at = 0; at < 6; at++)
        mac[at] = ((volatile u8 *)card.registers)[0x100 + at];
    virtio_queue(&card, 0, &receiveq);
    virtio_queue(&card, 1, &transmitq);
    virtio_start(&card);
    for (u16 at = 0; at < BUFFERS; at++) {
        receiveq.desc[at] = (struct descriptor){here(incoming[at]), FRAME, DESC_WRITE, 0};
        queue_offer(&receiveq, at);
    }
    return 1;
}

void net_send(const u8 *frame, u32 length)
{
    memset(outgoing, 0, HEADER);
    memcpy(outgoing + HEADER, frame, length);
    transmitq.desc[0] = (struct descriptor){here(outgoing), HEADER + length, 0, 0};
    queue_offer(&transmitq, 0);
    queue_wait(&transmitq);
}

u32 net_receive(u8 *frame, u32 most)
{
    u32 length;
    int head;
    u64 before = interrupts_off();
    while ((head = queue_take(&receiveq, &length)) < 0)
        wait_interrupt();
    interrupts_restore(before);
    length = length > HEADER ? length - HEADER : 0;
    if (length > most)
        length = most;
    memcpy(frame, incoming[head] + HEADER, length);
    queue_offer(&receiveq, head);
    return length;
}

/* --- random numbers (5.4) ---------------------------------------------------------------------- */

u64 random_u64(void)
{
    static struct virtio device;
    static struct queue q;
    static int state; /* 0: not tried yet, 1: there is one, 2: there is none */
    static volatile u64 number;
    if (!state) {
        state = virtio_open(&device, RNG, 0) ? 1 : 2;
        if (state == 1) {
            virtio_queue(&device, 0, &q);
            virtio_start(&device);
        }
    }
    number = now() * 0x9e3779b97f4a7c15UL;
    if (state == 1) {
        q.desc[0] = (struct descriptor){here((const void *)&number), sizeof number, DESC_WRITE, 0};
        queue_offer(&q, 0);
        queue_wait(&q);
    }
    return number;
}
