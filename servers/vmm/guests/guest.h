/* guest: what every guest program stands on. Bare metal, machine mode, one hart, polite waiting. */

#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define TICKS_PER_MS 10000UL /* mtime counts ten million a second */
#define SECTOR 512

/* --- machine.c: time, interrupts, the end --------------------------------------------------- */

u64 now(void);
void timer_at(u64 when);   /* call tick() when mtime is there; interrupts must be on */
void interrupts_on(void);
u64 interrupts_off(void);  /* what interrupts_restore takes */
void interrupts_restore(u64 before);
void wait_interrupt(void); /* to be called with interrupts off: one is served, then they are off */
void sleep_until(u64 when);
void listen_irq(u32 irq);
void finish(u32 code) __attribute__((noreturn)); /* power off; 0 is well */

/* A guest may have its own of these. */
void tick(void);                                 /* the timer that was set */
u64 exception(u64 cause, u64 pc, u64 value);     /* where to go on */

void *memset(void *to, int byte, u64 count);
void *memcpy(void *to, const void *from, u64 count);

/* --- console.c: lines, by virtio-console or the UART ----------------------------------------- */

void console_init(void);
void put(const char *text); /* shown when a line is complete */
void put_u64(u64 number);
void put_hex(u64 number);
void put_byte(u8 byte);

/* --- virtio.c: virtio-mmio version 2, split queues without event indices ---------------------- */

#define QUEUE_SIZE 16
#define DESC_NEXT 1
#define DESC_WRITE 2
#define DESC_INDIRECT 4

enum { NET = 1, BLOCK = 2, CONSOLE = 3, RNG = 4 };

struct descriptor {
    u64 address;
    u32 length;
    u16 flags, next;
};

struct queue {
    struct descriptor desc[QUEUE_SIZE];
    struct {
        u16 flags, idx, ring[QUEUE_SIZE], used_event;
    } avail;
    struct {
        u16 flags, idx;
        struct {
            u32 id, length;
        } ring[QUEUE_SIZE];
        u16 avail_event;
    } used __attribute__((aligned(4)));
    struct virtio *device;
    u16 number, seen;
} __attribute__((aligned(16)));

struct virtio {
    volatile u32 *registers;
    u32 slot;
};

int virtio_open(struct virtio *v, u32 id, u64 features); /* 0: there is no such device */
void virtio_queue(struct virtio *v, u16 number, struct queue *q);
void virtio_start(struct virtio *v);
void virtio_interrupt(u32 slot);                 /* acknowledge, from the interrupt */
void queue_offer(struct queue *q, u16 head);     /* make a chain available, and ring */
int queue_take(struct queue *q, u32 *length);    /* a head that came back; -1: none */
u32 queue_wait(struct queue *q);                 /* for one; how much was written into it */
u64 here(const void *where);                     /* its address */

int blk_open(void);
u64 blk_sectors(void);
int blk_read(u64 sector, void *into, u32 bytes); /* 0, or the status of virtio 1.2 5.2.6 */
int blk_write(u64 sector, const void *from, u32 bytes);
int blk_flush(void);

int net_open(u8 mac[6]);
void net_send(const u8 *frame, u32 length);
u32 net_receive(u8 *frame, u32 most);            /* waits for one; its length */

u64 random_u64(void);                            /* of the rng, or of the clock */

#endif
