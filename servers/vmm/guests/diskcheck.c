/* diskcheck: fills its whole disk with a pattern and verifies it, for ever, with another pattern
   each time. After each pass it says

       diskcheck PASS sectors N wrong N errors N

   where wrong counts bytes, and errors counts requests that the disk has refused. */

#include "guest.h"

#define CHUNK (8 * SECTOR)
#define TOLD 8 /* of what is wrong, in one life */

static u64 buffer[CHUNK / 8], seed;
static u64 wrong, errors, told;

static u64 pattern(u64 pass, u64 sector, u64 word)
{
    u64 x = seed + pass * 0x9e3779b97f4a7c15UL + sector * 0xbf58476d1ce4e5b9UL + word;
    x ^= x >> 31;
    x *= 0x94d049bb133111ebUL;
    return x ^ x >> 29;
}

static void refused(const char *what, u64 sector, int status)
{
    errors++;
    if (told++ >= TOLD)
        return;
    put("diskcheck: ");
    put(what);
    put(" of sector ");
    put_u64(sector);
    put(" ended with status ");
    put_u64(status);
    put("\n");
}

static void differs(u64 pass, u64 sector, u64 offset, u8 found, u8 expected)
{
    wrong++;
    if (told++ >= TOLD)
        return;
    put("diskcheck: pass ");
    put_u64(pass);
    put(" sector ");
    put_u64(sector);
    put(" byte ");
    put_u64(offset);
    put(": ");
    put_byte(found);
    put(" instead of ");
    put_byte(expected);
    put("\n");
}

static void fill(u64 pass, u64 sector, u32 bytes)
{
    for (u32 word = 0; word < bytes / 8; word++)
        buffer[word] = pattern(pass, sector, word);
    int status = blk_write(sector, buffer, bytes);
    if (status)
        refused("the write", sector, status);
}

static void verify(u64 pass, u64 sector, u32 bytes)
{
    memset(buffer, 0xa5, bytes);
    int status = blk_read(sector, buffer, bytes);
    if (status) {
        refused("the read", sector, status);
        return;
    }
    for (u32 word = 0; word < bytes / 8; word++) {
        u64 expected = pattern(pass, sector, word);
        for (u32 at = 0; buffer[word] != expected && at < 8; at++) {
            u8 found = buffer[word] >> 8 * at, should = expected >> 8 * at;
            if (found != should)
                differs(pass, sector + word / 64, word % 64 * 8 + at, found, should);
        }
    }
}

static void all(u64 sectors, u64 pass, void (*what)(u64, u64, u32))
{
    for (u64 sector = 0; sector < sectors; sector += CHUNK / SECTOR) {
        u64 left = (sectors - sector) * SECTOR;
        what(pass, sector, left < CHUNK ? left : CHUNK);
    }
}

int main(void)
{
    if (!blk_open()) {
        put("diskcheck: there is no disk\n");
        return 1;
    }
    u64 sectors = blk_sectors();
    seed = random_u64();
    put("diskcheck of ");
    put_u64(sectors);
    put(" sectors\n");
    for (u64 pass = 1;; pass++) {
        all(sectors, pass, fill);
        int status = blk_flush();
        if (status)
            refused("a flush", 0, status);
        all(sectors, pass, verify);
        put("diskcheck ");
        put_u64(pass);
        put(" sectors ");
        put_u64(sectors);
        put(" wrong ");
        put_u64(wrong);
        put(" errors ");
        put_u64(errors);
        put("\n");
    }
}
