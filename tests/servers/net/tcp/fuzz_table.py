"""fuzz_table: random segments, calls, deaths and time at a table of connections. Nothing raises,
nothing is kept that should not be, and no slot is lost.

By hand: python -m tests.servers.net.tcp.fuzz_table 1000000 [seed]
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from servers.net.tcp.connection import Config, State
from servers.net.tcp.deadlines import SPARE
from servers.net.tcp.entries import Entry, TableError
from servers.net.tcp.limits import Limits
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import ACK, FIN, MASK, PSH, RST, SYN, Options, Segment
from tests.servers.net.tcp.hosts import CLIENT, SECOND, SERVER, Host, on_wire

LIMITS = Limits(half_open=3, listeners=4, backlog=3, time_waits=5, replies=20)
SLOTS = 6
LOCAL = (80, 81, 49_152, 7)
PEERS = (CLIENT, CLIENT + 1, SERVER, 0, 0xFFFF_FFFF)
FLAGS = (SYN, ACK, ACK, ACK | PSH, ACK | FIN, SYN | ACK, RST, RST | ACK, FIN, 0, 63)


class Fuzz:
    """One run. Like a peer, it mostly goes by what was sent to it."""

    def __init__(self, seed: int) -> None:
        self.numbers = random.Random(seed)
        self.sense = self.numbers.choice((0.5, 0.9, 0.97, 0.99))  # how often a peer makes some
        self.host = Host(slots=SLOTS, limits=LIMITS, config=Config(keepalive=100 * SECOND))
        self.held: list[Entry] = []
        self.heard: dict[tuple[int, int, int], Segment] = {}  # by peer and ports, the last
        self.calls: tuple[tuple[int, Callable[[], None]], ...] = (
            (800, self.segment),
            (60, self.pass_time),
            (40, self.accept),
            (40, self.write),
            (80, self.read),
            (40, self.release),
            (20, self.connect),
            (10, self.break_off),
            (10, self.listen),
            (4, self.unlisten),
            (3, self.unreachable),
            (2, self.restore_link),
            (2, self.die),
        )
        self.listen()

    def run(self, steps: int) -> None:
        weights = [weight for weight, _ in self.calls]
        chosen = self.numbers.choices([call for _, call in self.calls], weights, k=steps)
        for number, call in enumerate(chosen):
            call()
            if self.numbers.random() < 0.7:
                self.send()
            if number % 50 == 0:
                self.check()
        self.check()

    # --- what happens ---------------------------------------------------------------------------

    def segment(self) -> None:
        numbers = self.numbers
        if self.heard and numbers.random() < min(0.9, self.sense):
            (peer, port, local), last = numbers.choice(list(self.heard.items()))
        else:
            peer, port = numbers.choice(PEERS), numbers.choice((0, 1, 2, 80, 40_000))
            local, last = numbers.choice(LOCAL), None
        segment = Segment(
            port, local, self.number(last and last.ack), self.number(self.after(last)),
            self.flags(last), numbers.choice((0, 1, 1000, 65_535)), self.options(last),
            memoryview(bytes(numbers.choice((0, 0, 0, 1, 100, 3000)))),
        )  # fmt: skip
        target = SERVER if numbers.random() < 0.99 else CLIENT
        self.host.table.arrived(peer, target, segment, self.host.now)

    def flags(self, last: Segment | None) -> int:
        if self.numbers.random() > self.sense:
            return self.numbers.choice(FLAGS)
        if last is None:
            return SYN
        if last.flags & (SYN | ACK) == SYN:
            return SYN | ACK
        return self.numbers.choice((*[ACK] * 8, ACK | PSH, ACK | FIN))

    @staticmethod
    def after(last: Segment | None) -> int | None:
        """What acknowledges it."""
        if last is None:
            return None
        return last.seq + len(last.payload) + bool(last.flags & SYN) + bool(last.flags & FIN)

    def number(self, likely: int | None) -> int:
        if likely is not None and self.numbers.random() < self.sense:
            return likely & MASK
        near = (likely or 0) + self.numbers.randrange(-3000, 3000)
        return (near if self.numbers.random() < 0.5 else self.numbers.getrandbits(32)) & MASK

    def options(self, last: Segment | None) -> Options:
        numbers = self.numbers
        if numbers.random() > self.sense + 0.05:
            return Options()
        echo = last.options.timestamp[0] if last and last.options.timestamp else 0
        clock = self.host.now // 1000 & MASK
        stamp = (clock if numbers.random() < self.sense else numbers.getrandbits(32), echo)
        mss, scale = numbers.choice((0, 1, 536, 1460)), numbers.choice((-1, 0, 7, 14))
        edge = numbers.getrandbits(32)
        sack = ((edge, (edge + 100) & MASK),) if numbers.random() < 0.1 else ()
        return Options(mss, scale, numbers.random() < 0.5, stamp, sack)

    def pass_time(self) -> None:
        host = self.host
        most = self.numbers.choice((1000, 1000, SECOND, SECOND, SECOND, 100 * SECOND))
        host.now += self.numbers.randrange(most)
        if self.numbers.random() < 0.5:
            host.now = max(host.now, host.table.deadline)
        host.table.tick(host.now)
        assert not 0 < host.table.deadline <= host.now, "it would be woken for ever"

    def accept(self) -> None:
        for listener in self.host.table.listeners:
            entry = self.host.table.accepted(listener)
            if entry:
                assert entry.connection.state >= State.ESTABLISHED
                self.held.append(entry)

    def write(self) -> None:
        for entry in self.some():
            connection = entry.connection
            room = connection.send.size - (connection.queued_end - connection.acked)
            if room and connection.state >= State.ESTABLISHED and not connection.closing:
                self.host.write(entry, bytes(self.numbers.randint(1, room)))

    def read(self) -> None:
        for entry in self.some():
            self.host.read(entry)

    def release(self) -> None:
        for entry in self.some():
            self.held.remove(entry)
            self.host.table.release(entry, self.host.now)

    def connect(self) -> None:
        with suppress(TableError):
            peer, port = self.numbers.choice(PEERS), self.numbers.choice((80, 40_000))
            local = self.numbers.choice((0, *LOCAL))
            self.held.append(self.host.table.connect(peer, port, self.host.now, local))

    def break_off(self) -> None:
        for entry in self.some():
            end = self.numbers.choice((entry.connection.abort, entry.connection.shutdown))
            end(self.host.now)
            self.host.table.touched(entry, self.host.now)

    def listen(self) -> None:
        with suppress(TableError):
            port, address = self.numbers.choice(LOCAL), self.numbers.choice((0, SERVER))
            self.host.table.listen(port, address, self.numbers.randrange(5))

    def unlisten(self) -> None:
        listeners = list(self.host.table.listeners)
        if listeners:
            self.host.table.unlisten(self.numbers.choice(listeners), self.host.now)

    def unreachable(self) -> None:
        for entry in self.some():
            self.host.table.unreachable(entry.quad, self.host.now)
        self.host.table.unreachable(Quad(1, 2, 3, 4), self.host.now)

    def restore_link(self) -> None:
        self.host.table.link_restored(self.host.now)

    def die(self) -> None:
        """Another life with the same listeners at any address."""
        self.send()
        for number, entry in enumerate(self.held):
            entry.user = number
        ports = {listener.port for listener in self.host.table.listeners}
        entries = self.host.die([(port, 3) for port in sorted(ports)])
        self.held = [each for each in entries if not each.released and each.listener is None]
        self.heard.clear()

    # --- what must hold -------------------------------------------------------------------------

    def some(self) -> list[Entry]:
        return [self.numbers.choice(self.held)] if self.held else []

    def send(self) -> None:
        for sending in self.host.commit():
            segment = on_wire(sending)
            key = (sending.quad.remote, segment.destination, segment.source)
            self.heard.pop(key, None)
            if not segment.flags & RST or self.numbers.random() < 0.1:
                self.heard[key] = segment
            if len(self.heard) > 30:
                del self.heard[next(iter(self.heard))]

    def check(self) -> None:
        self.send()
        host, table = self.host, self.host.table
        alive = {id(entry) for entry in (*table.entries, *self.held)}
        assert len(alive) == len(host.pool.held) <= SLOTS
        assert table.half_open <= LIMITS.half_open * len(table.listeners)
        assert len(table.listeners) <= LIMITS.listeners
        assert len(table.time_waits) <= LIMITS.time_waits
        assert all(len(each.waiting) <= LIMITS.backlog for each in table.listeners)
        assert not any(entry.gone for entry in self.held)
        assert len(table._deadlines) <= SLOTS
        assert len(table._deadlines._heap) <= 2 * SLOTS + SPARE + 1
        assert not table._last
        assert not table._sending


def main(steps: int, seed: int) -> None:
    """Several runs, as what has become of a table soon is always the same."""
    began, each = time.monotonic(), 5000
    for number in range(-(-steps // each)):
        try:
            Fuzz(seed + number).run(each)
        except Exception:
            print(f"seed {seed + number}")
            raise
    print(f"{steps} steps from seed {seed}: {steps / (time.monotonic() - began):,.0f} a second")


if __name__ == "__main__":
    main(*(int(word) for word in (*sys.argv[1:], "1000000", "1")[:2]))
