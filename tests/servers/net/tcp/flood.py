"""flood: half-open attempts by the hundred thousand, while an honest connection goes on.

By hand: python -m tests.servers.net.tcp.flood 1000000
"""

from __future__ import annotations

import random
import sys
import time
from typing import NamedTuple

from servers.net.tcp.segment import ACK, NO_OPTIONS, SYN, Options, Segment
from tests.servers.net.tcp.hosts import CLIENT, NOTHING, SERVER, Host, on_wire, pump, stamps

BATCH = 32  # frames that come at once
ROUND = 10_000  # attempts between two signs of life
OFFERS = (NO_OPTIONS, Options(1460), Options(1460, 7, True), Options(1460, 7, True, (1, 0)))


class Outcome(NamedTuple):
    answered: int  # SYN-ACKs
    carried: int  # bytes of the honest connection, there and back
    by_cookie: int  # honest connections that were made meanwhile
    most_half_open: int
    blocks: int  # of memory that there are more of than after the first round


def flood(count: int, seed: int = 1) -> Outcome:
    """`count` SYNs from everywhere in the time of 20,000 a second; what became of the others."""
    numbers = random.Random(seed)
    client, server = Host(CLIENT), Host(slots=count // ROUND + 8)
    listener = server.table.listen(80, 0, 16)
    mine = client.table.connect(SERVER, 80, client.now)
    pump(client, server)
    theirs = server.table.accepted(listener)
    assert theirs is not None
    answered = carried = by_cookie = most = blocks = 0
    for attempt in range(0, count, BATCH):
        for _ in range(BATCH):
            arrive(server, numbers)
        most = max(most, server.table.half_open)
        if server.now >= server.table.deadline:
            server.table.tick(server.now)
        answered += len(server.commit())
        server.now += BATCH * 50
        client.now = server.now
        if attempt % ROUND < BATCH:
            client.write(mine, b"%08d" % attempt)
            pump(client, server)
            server.write(theirs, server.read(theirs))
            pump(client, server)
            carried += client.read(mine) == b"%08d" % attempt and 16
            by_cookie += honest(server, numbers)
            blocks = blocks or sys.getallocatedblocks()
    return Outcome(answered, carried, by_cookie, most, sys.getallocatedblocks() - blocks)


def arrive(server: Host, numbers: random.Random) -> None:
    """A SYN of somebody who will never be heard of again."""
    bits = numbers.getrandbits(80)
    source = 0x0B000000 | bits & 0xFFFFFF
    port = 1 + (bits >> 24) % 65_535
    options = OFFERS[bits >> 40 & 3]
    syn = Segment(port, 80, bits >> 48, 0, SYN, 1000, options, NOTHING)
    server.table.arrived(source, SERVER, syn, server.now)


def honest(server: Host, numbers: random.Random) -> bool:
    """One who means it: the whole handshake, accepted and broken off; whether that succeeded."""
    port, options = numbers.randrange(1, 65_536), Options(1460, 7, True, (9, 0))
    answers = server.get(CLIENT, Segment(port, 80, 1, 0, SYN, 1000, options, NOTHING))
    for answer in (each for each in answers if each.destination == port):
        value = answer.options.timestamp
        echo = stamps(10, value[0]) if value else NO_OPTIONS
        server.get(CLIENT, Segment(port, 80, 2, answer.seq + 1, ACK, 1000, echo, NOTHING))
    for listener in server.table.listeners:
        entry = server.table.accepted(listener)
        if entry is not None:
            entry.connection.abort(server.now)
            server.table.release(entry, server.now)
            [on_wire(each) for each in server.commit()]
            return True
    return False


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    began = time.monotonic()
    print(flood(wanted), f"{wanted / (time.monotonic() - began):,.0f} a second")
