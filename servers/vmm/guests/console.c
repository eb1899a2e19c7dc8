/* console: lines of text, each one request of virtio-console, or byte by byte to the UART. */

#include "guest.h"

#define UART ((volatile u8 *)0x10000000)
#define LINE 256
#define RECEIVEQ 0
#define TRANSMITQ 1

static struct virtio device;
static struct queue receiveq, transmitq;
static int found;
static char line[LINE];
static u32 filled;

void console_init(void)
{
    found = virtio_open(&device, CONSOLE, 0);
    if (found) {
        virtio_queue(&device, RECEIVEQ, &receiveq);
        virtio_queue(&device, TRANSMITQ, &transmitq);
        virtio_start(&device);
    }
}

static void show(void)
{
    if (found) {
        transmitq.desc[0] = (struct descriptor){here(line), filled, 0, 0};
        queue_offer(&transmitq, 0);
        queue_wait(&transmitq);
    } else {
        for (u32 at = 0; at < filled; at++)
            UART[0] = line[at];
    }
    filled = 0;
}

static void put_char(char c)
{
    line[filled++] = c;
    if (c == '\n' || filled == LINE)
        show();
}

void put(const char *text)
{
    while (*text)
        put_char(*text++);
}

void put_u64(u64 number)
{
    char digits[21];
    u32 at = sizeof digits;
    digits[--at] = 0;
    do
        digits[--at] = '0' + number % 10;
    while (number /= 10);
    put(digits + at);
}

static void put_digits(u64 number, u32 count)
{
    while (count--)
        put_char("0123456789abcdef"[number >> 4 * count & 15]);
}

void put_byte(u8 byte) { put_digits(byte, 2); }

void put_hex(u64 number)
{
    put("0x");
    put_digits(number, number >> 32 ? 16 : 8);
}
