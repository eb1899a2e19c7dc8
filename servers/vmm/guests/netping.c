/* netping: answers ARP, ICMP echo and UDP to port 7. It sends each answer back where the question
   came from, so it needs neither routes nor a table. Its address is the one that the monitor has
   filled in (start.S), or 10.0.0.N, where N is the last byte of the card's. */

#include "guest.h"

#define FRAME 1514
#define ETHERTYPE(f) ((f)[12] << 8 | (f)[13])
#define ARP 0x0806
#define IPV4 0x0800
#define ICMP 1
#define UDP 17
#define ECHO_PORT 7

extern const u8 config_ip[4];

static u8 mac[6], ip[4], frame[FRAME + 2] __attribute__((aligned(4)));
static u64 answered;

static int same(const u8 *a, const u8 *b, u32 count)
{
    while (count--)
        if (*a++ != *b++)
            return 0;
    return 1;
}

static void swap(u8 *a, u8 *b, u32 count)
{
    while (count--) {
        u8 kept = *a;
        *a++ = *b;
        *b++ = kept;
    }
}

static u32 sum(const u8 *at, u32 count)
{
    u32 total = 0;
    for (; count > 1; count -= 2, at += 2)
        total += at[0] << 8 | at[1];
    if (count)
        total += at[0] << 8;
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return total;
}

static void back(u32 length)
{
    memcpy(frame, frame + 6, 6);
    memcpy(frame + 6, mac, 6);
    net_send(frame, length);
    answered++;
    if ((answered & (answered - 1)) == 0) { /* now and then */
        put("netping: ");
        put_u64(answered);
        put(" answered\n");
    }
}

static void arp(u32 length)
{
    static const u8 request[8] = {0, 1, 8, 0, 6, 4, 0, 1};
    u8 *a = frame + 14;
    if (length < 42 || !same(a, request, 8) || !same(a + 24, ip, 4))
        return;
    a[7] = 2;
    memcpy(a + 18, a + 8, 10); /* the sender becomes the target */
    memcpy(a + 8, mac, 6);
    memcpy(a + 14, ip, 4);
    back(42);
}

static void ipv4(u32 length)
{
    u8 *h = frame + 14, *l4 = h + 20;
    u32 total = h[2] << 8 | h[3];
    if (length < 42 || h[0] != 0x45 || total < 28 || total + 14 > length)
        return;
    if ((h[6] & 0x3f) || h[7] || !same(h + 16, ip, 4) || sum(h, 20) != 0xffff)
        return; /* fragments are not put together */
    if (h[9] == ICMP && l4[0] == 8 && sum(l4, total - 20) == 0xffff) {
        u32 check = (l4[2] << 8 | l4[3]) + 0x0800; /* the type goes from 8 to 0 */
        check = (check & 0xffff) + (check >> 16);
        l4[0] = 0;
        l4[2] = check >> 8;
        l4[3] = check;
    } else if (h[9] == UDP && (l4[2] << 8 | l4[3]) == ECHO_PORT) {
        swap(l4, l4 + 2, 2);
    } else {
        return;
    }
    swap(h + 12, h + 16, 4); /* which changes no checksum */
    back(14 + total);
}

static void announce(void)
{
    static const u8 head[22] = {255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0,
                                0,   8,   6,   0,   1,   8,   0, 6, 4, 0, 1};
    memset(frame, 0, 42);
    memcpy(frame, head, 22);
    memcpy(frame + 6, mac, 6);
    memcpy(frame + 22, mac, 6);
    memcpy(frame + 28, ip, 4);
    memcpy(frame + 38, ip, 4);
    net_send(frame, 42);
}

int main(void)
{
    if (!net_open(mac)) {
        put("netping: there is no network card\n");
        return 1;
    }
    memcpy(ip, config_ip, 4);
    if (!(ip[0] | ip[1] | ip[2] | ip[3])) {
        ip[0] = 10;
        ip[3] = mac[5];
    }
    put("netping at ");
    for (u32 at = 0; at < 4; at++) {
        put_u64(ip[at]);
        put(at < 3 ? "." : "\n");
    }
    announce();
    for (;;) {
        u32 length = net_receive(frame, FRAME);
        if (length >= 42 && ETHERTYPE(frame) == ARP)
            arp(length);
        else if (length >= 42 && ETHERTYPE(frame) == IPV4)
            ipv4(length);
    }
}
