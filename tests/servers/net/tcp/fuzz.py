"""fuzz: segments at random, and good ones gone bad, into connections in every state.

python -m tests.servers.net.tcp.fuzz 1000000 [seed]
"""

from __future__ import annotations

import random
import sys
from contextlib import suppress

from servers.net.malformed import Malformed
from servers.net.ring import Ring
from servers.net.tcp.block import ISLANDS, Config, State
from servers.net.tcp.connection import RECORD_BYTES, Connection
from servers.net.tcp.sack import MOST
from servers.net.tcp.segment import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Options,
    Segment,
    pack_header,
    pack_options,
    parse,
)

SIZE = 1 << 14
DAY = 24 * 3600 * 1_000_000
PAYLOAD = bytes(range(256)) * 300
FLAGS = (ACK, ACK, ACK, ACK | PSH, FIN | ACK, SYN, SYN | ACK, RST, RST | ACK, 0)


def near(r: random.Random, value: int) -> int:
    """A number that is probably near, modulo 2**32."""
    spread = r.choice((0, 0, 0, 1, 2, 1460, 5000, SIZE, 1 << 20, 1 << 32))
    return (value + r.randint(-spread, spread)) % 2**32


def options(r: random.Random, c: Connection) -> bytes:
    """Options such as may come, in good order or not."""
    if r.random() < 0.05:
        return r.randbytes(4 * r.randrange(11))
    una, top = c.iss1 + max(c.una, 0), c.iss1 + max(c.max, 0)
    blocks = tuple(
        (near(r, r.randint(una, top)), near(r, r.randint(una, top))) for _ in range(r.randrange(4))
    )
    stamps = (near(r, c.ts_recent), near(r, c.ts_offset)) if r.random() < 0.7 else None
    syn = r.random() < 0.2
    return pack_options(
        mss=r.choice((0, 1, 88, 536, 1460, 65_535)) if syn else 0,
        scale=r.randint(-1, 14) if syn else -1,
        sack_permitted=syn and r.random() < 0.5,
        timestamp=stamps,
        sack=() if syn else blocks,
    )


def foreign(r: random.Random, c: Connection) -> bytes:
    """A segment that a bad peer might send."""
    length = r.choice((0, 0, 0, 1, 10, 1460, 1460, 5000, 65_000))
    seq = near(r, c.irs1 + c.received)
    ack = near(r, c.iss1 + r.choice((c.una, c.max)))
    flags = r.choice(FLAGS) if r.random() < 0.95 else r.randrange(64)
    if flags & (RST | SYN | FIN) and r.random() < 0.8:
        flags = ACK  # otherwise nothing lives for long
    window = r.choice((0, 1, 100, 5000, 65_535))
    data = pack_header(9, 9, seq, ack, flags, window, options(r, c))
    data += PAYLOAD[r.randrange(256) :][:length]
    if r.random() < 0.95:
        return data
    bad = bytearray(data)
    bad[r.randrange(len(bad))] ^= 1 << r.randrange(8)
    return bytes(bad)


def fresh(r: random.Random, now: int) -> Connection:
    """A connection at its beginning."""
    config = Config(
        mss=r.choice((88, 536, 1460, 8960)),
        longest=r.choice((0, 65_000)),
        timestamps=r.random() < 0.6,
        sack=r.random() < 0.8,
        keepalive=r.choice((0, DAY // 24)),
    )
    size = r.choice((1, 1000, SIZE, 100_003))
    rings = [Ring(memoryview(bytearray(size))) for _ in range(2)]
    c = Connection(config, *rings)
    iss = r.choice((0, 2**31 - 3, 2**32 - 5000, 2**32 - 1))
    if r.random() < 0.4:
        c.active(iss, now, r.randrange(1 << 32))
        return c
    offer = Options(r.randrange(65_536), r.randint(-1, 14), r.random() < 0.5)
    if r.random() < 0.5:
        offer = offer._replace(timestamp=(r.randrange(1 << 32), 0))
    syn = Segment(9, 9, r.randrange(1 << 32), 0, SYN, 60_000, offer, memoryview(b""))
    c.passive(syn, iss, now, r.randrange(1 << 32))
    if r.random() < 0.8:
        third = Segment(9, 9, c.irs1, c.iss1, ACK, 500, offer, memoryview(b""))
        c.arrived(third, now)
    return c


def user(r: random.Random, c: Connection, now: int) -> Connection:
    """Whatever the owner may do."""
    what = r.random()
    room = c.send.size - (c.queued_end - c.acked)
    if what < 0.5:
        c.queued(c.queued_end + r.randint(0, room), now)
    elif what < 0.9:
        c.consumed(r.randint(c.consumed_to, c.received), now)
    elif what < 0.92:
        c.shutdown(now)
    elif what < 0.94:
        c.link_restored(now)
    elif what < 0.945:
        c.close(now)
    elif what < 0.95:
        r.choice((c.abort, c.unreachable))(now)
    elif what < 0.97:
        return Connection.restore(c.config, c.send, c.receive, c.pack(), now)
    return c


def check(c: Connection, before: tuple[int, ...], now: int) -> None:
    """What must always hold."""
    after = (c.received, c.consumed_to, c.adv, c.una, c.max, c.acked)
    assert all(a >= b for a, b in zip(after, before, strict=True)), (before, after)
    assert c.consumed_to <= c.received <= c.consumed_to + c.receive.size
    assert c.adv <= c.consumed_to + c.receive.size
    assert c.una <= c.max <= c.queued_end + 1
    assert c.acked <= c.queued_end <= c.acked + c.send.size
    assert len(c.islands) <= ISLANDS
    assert all(c.received < s < e <= c.adv for s, e in c.islands)
    assert len(c.sacked) <= MOST
    assert c.sacked_bytes == sum(e - s for s, e in c.sacked) or not c.sack_ok
    assert 0 <= c.sacked_bytes <= max(0, c.max - c.una)
    assert 0 < c.mss <= c.burst
    assert c.cwnd >= c.mss or c.state < State.ESTABLISHED
    assert c.deadline == 0 or now - DAY < c.deadline < now + DAY
    assert bool(c.deadline) or c.una == c.max or c.state == State.CLOSED
    if c.queued_end + c.closing > c.una and c.state >= State.ESTABLISHED:
        assert c.deadline or c.state == State.TIME_WAIT
    total = 0
    for o in c.out:
        assert 0 <= o.seq < 1 << 32 > o.ack >= 0
        assert 0 <= o.window <= 65_535
        assert len(o.options) <= 40
        total += o.length
        if o.length:
            assert c.acked <= o.at < o.at + o.length <= c.queued_end
            assert o.at % c.send.size + o.length <= c.send.size
            assert o.length <= (65_000 if c.config.longest else c.config.mss)
            assert bool(o.gso) == (o.length > c.mss)
    assert len(c.out) <= 8 + 3 * (total // c.mss + 3)


def step(r: random.Random, c: Connection, now: int) -> Connection:
    """One thing happens."""
    before = (c.received, c.consumed_to, c.adv, c.una, c.max, c.acked)
    with suppress(Malformed):
        c.arrived(parse(memoryview(foreign(r, c))), now)
    check(c, before, now)
    c.out.clear()
    if r.random() < 0.2:
        c = user(r, c, now)
        check(c, before, now)
        c.out.clear()
    return c


def run(count: int, seed: int) -> dict[State, int]:
    """So many segments; how many there were in each state."""
    r = random.Random(seed)
    now, connections = DAY, [fresh(r, DAY) for _ in range(20)]
    seen = dict.fromkeys(State, 0)
    for _ in range(count):
        now += r.choice((0, 1, 1000, 50_000, 300_000))
        number = r.randrange(len(connections))
        c = connections[number]
        if 0 < c.deadline <= now:
            before = (c.received, c.consumed_to, c.adv, c.una, c.max, c.acked)
            c.tick(now)
            check(c, before, now)
            assert c.deadline == 0 or c.deadline > now
            c.out.clear()
        seen[c.state] += 1
        c = step(r, c, now)
        assert len(c.pack()) == RECORD_BYTES
        over = c.state in (State.CLOSED, State.TIME_WAIT) and r.random() < 0.2
        connections[number] = fresh(r, now) if over or r.random() < 0.002 else c
    return seen


if __name__ == "__main__":
    print(run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
