"""Two connections over a bad link, each of which may die at any step: every byte arrives, once and
in order, both ways."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from servers.net.tcp.block import Config, State
from tests.servers.net.tcp.pair import MS, End, Link, Pair


def run(seed: int, total: int, link: Link, config: Config, deaths: float, size: int) -> Pair:
    r = random.Random(seed)
    pair = Pair(End(config, size), End(config, size), link).open((2**32 - 5, 2**31 - 9))
    streams = [r.randbytes(total), r.randbytes(total)]
    again = [0, 0]
    for _ in range(300_000):
        if all(e.connection.state in (State.TIME_WAIT, State.CLOSED) for e in pair.ends):
            break
        pair.next()
        for who, end in enumerate(pair.ends):
            if who == pair.last or r.random() < 0.3:
                use(pair, who, streams[who], r)
            if r.random() < deaths and pair.now > again[who]:
                end.die(pair.now)
                again[who] = pair.now + r.randrange(5 * MS)  # a life lasts longer than its start
            pair.commit(who)
    for who, end in enumerate(pair.ends):
        assert end.connection.error is None
        end.read()
        assert len(end.taken) == total
        assert end.taken == streams[1 - who]
    return pair


def use(pair: Pair, who: int, stream: bytes, r: random.Random) -> None:
    """What is in the record is known to the users: each step is one of theirs, or one of the
    link's."""
    end, now = pair.ends[who], pair.now
    c = end.connection
    pair.commit(who)
    what = r.random()
    if what < 0.5:
        c.queued(end.write(stream[c.queued_end :][: r.randrange(1, 100_000)]), now)
        pair.commit(who)
        if c.queued_end == len(stream):
            c.shutdown(now)
    else:
        c.consumed(end.read(r.randrange(1, 60_000)), now)


BAD = Link(loss=0.02, duplicate=0.01, reorder=0.05)
LONG = Config(longest=65_000)


@pytest.mark.parametrize(
    ("link", "config", "deaths", "total"),
    [
        (Link(), LONG, 0.0, 1_000_000),
        (Link(cut=False), LONG, 0.0, 5_000_000),
        (BAD, LONG, 0.0, 1_000_000),
        (replace(BAD, cut=False), LONG, 0.05, 5_000_000),
        (BAD, LONG, 0.02, 500_000),
        (BAD, Config(timestamps=False), 0.005, 500_000),
        (BAD, Config(timestamps=False, sack=False, scale=False), 0.01, 500_000),
        (Link(loss=0.2, delay=20 * MS), Config(mss=536), 0.01, 100_000),
    ],
    ids=["good", "long", "bad", "deaths", "deaths-cut", "sack", "plain", "awful"],
)
def test_every_byte_arrives_both_ways(
    link: Link, config: Config, deaths: float, total: int
) -> None:
    pair = run(7, total, link, config, deaths, 1 << 18)
    assert not deaths or all(end.connection.lives > 1 for end in pair.ends)


@pytest.mark.parametrize("seed", range(12))
def test_the_ring_may_be_small_and_death_frequent(seed: int) -> None:
    config = Config(longest=65_000 * (seed & 1), sack=seed % 3 > 0, timestamps=seed % 4 > 0)
    link = Link(loss=0.05, duplicate=0.05, reorder=0.1, random=random.Random(seed))
    run(seed, 60_000, link, config, 0.1, (3000, 9001, 20_000)[seed % 3])
