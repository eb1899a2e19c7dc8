"""pair: two connections, their rings and users, and a link between them in virtual time."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

from servers.net.ring import Ring
from servers.net.tcp.block import Config
from servers.net.tcp.connection import Connection, Outgoing, State
from servers.net.tcp.segment import NO_OPTIONS, Options, Segment, pack_header, parse

MS = 1000
SECOND = 1_000_000


def frames(out: list[Outgoing], ring: Ring, cut: bool) -> list[bytes]:
    """The segments on the wire; long ones are cut as the card would, if `cut`."""
    made = []
    for o in out:
        step = o.gso if o.gso and cut else max(o.length, 1)
        for at in range(0, max(o.length, 1), step):
            length = min(step, o.length - at)
            payload = bytearray(length)
            ring.get(o.at + at, length, memoryview(payload))
            flags = o.flags if at + length >= o.length else o.flags & ~0x09
            header = pack_header(1, 2, (o.seq + at) % 2**32, o.ack, flags, o.window, o.options)
            made.append(header + payload)
    return made


def segment(
    flags: int,
    seq: int = 0,
    ack: int = 0,
    window: int = 65_535,
    options: Options = NO_OPTIONS,
    payload: bytes = b"",
) -> Segment:
    """A segment from nobody in particular."""
    return Segment(2, 1, seq % 2**32, ack % 2**32, flags, window, options, memoryview(payload))


class End:
    """A connection with its rings, its record as last committed, and a user at each direction."""

    def __init__(self, config: Config = Config(), size: int = 1 << 17) -> None:  # noqa: B008
        self.config = config
        self.send = Ring(memoryview(bytearray(size)))
        self.receive = Ring(memoryview(bytearray(size)))
        self.connection = Connection(config, self.send, self.receive)
        self.record = self.connection.pack()
        self.taken = bytearray()  # what the reader has read
        self.sent: list[Outgoing] = []

    def commit(self) -> list[Outgoing]:
        """The step is done: the record counts, and the segments go out."""
        c = self.connection
        if c.changed:
            self.record = c.pack()
            c.changed = False
        out, c.out = c.out, []
        assert all(0 <= o.window <= 65_535 and o.length <= self.send.size for o in out)
        self.sent += out
        return out

    def die(self, now: int) -> None:
        """Whatever was not committed has never been."""
        self.connection = Connection.restore(self.config, self.send, self.receive, self.record, now)

    def write(self, data: bytes) -> int:
        """Put bytes into the ring, as many as there is room for; the position after them."""
        c = self.connection
        room = self.send.size - (c.queued_end - c.acked)
        self.send.put(c.queued_end, data[:room])
        return c.queued_end + min(room, len(data))

    def read(self, most: int = 1 << 30) -> int:
        """Read what is in order; the position after it."""
        c = self.connection
        length = min(most, c.received - len(self.taken))
        data = bytearray(max(length, 0))
        self.receive.get(len(self.taken), len(data), memoryview(data))
        self.taken += data
        return len(self.taken)


@dataclass
class Link:
    """What a link does to frames: chances, and the time that they take."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: int = 1 * MS
    cut: bool = True
    random: random.Random = field(default_factory=lambda: random.Random(1))

    def times(self) -> list[int]:
        """How long each copy of a frame is under way."""
        r = self.random
        if r.random() < self.loss:
            return []
        copies = 2 if r.random() < self.duplicate else 1
        late = self.delay * 5
        return [
            self.delay + (r.randrange(late) if r.random() < self.reorder else 0)
            for _ in range(copies)
        ]


class Pair:
    """Two ends and a link."""

    def __init__(self, a: End, b: End, link: Link | None = None, now: int = SECOND) -> None:
        self.ends = (a, b)
        self.link = link or Link()
        self.now = now
        self._flying: list[tuple[int, int, int, bytes]] = []  # when, number, to whom, what
        self._number = 0

    def open(self, iss: tuple[int, int] = (100, 2**32 - 100)) -> Pair:
        """The handshake, over a link that is good."""
        a, b = self.ends
        a.connection.active(iss[0], self.now, 7)
        syn = parse(memoryview(frames(a.commit(), a.send, False)[0]))
        b.connection.passive(syn, iss[1], self.now, 2**32 - 1)
        self.commit(1)
        self.run(lambda: b.connection.state == State.ESTABLISHED)
        assert a.connection.state == State.ESTABLISHED
        return self

    def commit(self, who: int) -> None:
        """Commit the end's step, and let its frames fly."""
        end = self.ends[who]
        if not end.connection.out and not end.connection.changed:
            return
        for frame in frames(end.commit(), end.send, self.link.cut):
            for time in self.link.times():
                self._number += 1
                item = (self.now + time, self._number, 1 - who, frame)
                heapq.heappush(self._flying, item)

    def next(self) -> bool:
        """Let the next thing happen; False when nothing will."""
        times = [(e.connection.deadline, who) for who, e in enumerate(self.ends)]
        timers = sorted((time, who) for time, who in times if time)
        if self._flying and (not timers or self._flying[0][0] <= timers[0][0]):
            self.now, _, who, frame = heapq.heappop(self._flying)
            self.ends[who].connection.arrived(parse(memoryview(frame)), self.now)
        elif timers:
            self.now, who = max(self.now, timers[0][0]), timers[0][1]
            self.ends[who].connection.tick(self.now)
        else:
            return False
        self.last = who
        return True

    def run(self, until: object = None, most: int = 100_000) -> None:
        """Go on until the condition holds, or nothing happens any more."""
        for _ in range(most):
            if callable(until) and until():
                return
            if not self.next():
                assert until is None
                return
            self.commit(self.last)
        raise AssertionError("it does not come to an end")
