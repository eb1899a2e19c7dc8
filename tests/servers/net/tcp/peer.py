"""peer: a connection whose other end is played by hand, in positions of the two streams."""

from __future__ import annotations

from servers.net.tcp.block import Config, State
from servers.net.tcp.connection import Connection, Outgoing
from servers.net.tcp.segment import ACK, FIN, NO_OPTIONS, RST, SYN, Options, Segment
from tests.servers.net.tcp.pair import SECOND, End, segment

OFFER = Options(mss=1460, scale=7, sack_permitted=True)  # no timestamps: simpler to play
WINDOW = 1000  # scaled, 128,000 bytes


class Peer:
    """Plays the other end. `step` makers return what the connection sends for it."""

    def __init__(
        self,
        config: Config | None = None,
        size: int = 1 << 17,
        options: Options = OFFER,
        iss: int = 5000,
        irs: int = 2**32 - 50,
    ) -> None:
        self.end = End(config or Config(), size)
        self.iss, self.irs = iss, irs
        self.now = SECOND
        self.window = WINDOW
        self.syn = segment(SYN, irs, options=options)
        self.stamp: tuple[int, int] | None = options.timestamp

    @property
    def c(self) -> Connection:
        return self.end.connection

    def open(self) -> Peer:
        """The connection answered our SYN, and is established."""
        self.c.passive(self.syn, self.iss, self.now)
        self.take()
        self.gets(ACK)
        assert self.c.state == State.ESTABLISHED
        return self

    def take(self) -> list[Outgoing]:
        return self.end.commit()

    def made(
        self,
        flags: int = ACK,
        at: int = 0,
        ack: int = 0,
        payload: bytes = b"",
        sack: tuple[tuple[int, int], ...] = (),
    ) -> Segment:
        """A segment whose text begins at `at`, which acknowledges everything before `ack`."""
        blocks = tuple(((self.iss + 1 + s) % 2**32, (self.iss + 1 + e) % 2**32) for s, e in sack)
        options = NO_OPTIONS._replace(timestamp=self.stamp, sack=blocks)
        number = self.iss + 1 + ack if flags & ACK else 0
        return segment(flags, self.irs + 1 + at, number, self.window, options, payload)

    def gets(
        self,
        flags: int = ACK,
        at: int = 0,
        ack: int = 0,
        payload: bytes = b"",
        sack: tuple[tuple[int, int], ...] = (),
        after: int = 0,
    ) -> list[Outgoing]:
        """The connection gets a segment, `after` so many microseconds."""
        self.now += after
        self.c.arrived(self.made(flags, at, ack, payload, sack), self.now)
        return self.take()

    def writes(self, count: int) -> list[Outgoing]:
        """The user writes so many bytes, whose values tell their positions."""
        at = self.c.queued_end
        end = self.end.write(bytes((at + i) % 251 for i in range(count)))
        assert end == at + count
        self.c.queued(end, self.now)
        return self.take()

    def reads(self, most: int = 1 << 30) -> list[Outgoing]:
        self.c.consumed(self.end.read(most), self.now)
        return self.take()

    def shuts(self) -> list[Outgoing]:
        self.c.shutdown(self.now)
        return self.take()

    def waits(self, time: int) -> list[Outgoing]:
        """So many microseconds pass."""
        until, out = self.now + time, []
        while 0 < self.c.deadline <= until:
            assert self.c.deadline >= self.now or self.c.deadline > 0
            self.now = max(self.now, self.c.deadline)
            self.c.tick(self.now)
            out += self.take()
        self.now = until
        return out

    def ends(self) -> list[Outgoing]:
        """Until the connection's deadline."""
        return self.waits(self.c.deadline - self.now)

    def at(self, o: Outgoing) -> int:
        """The position that a segment of the connection begins at."""
        return (o.seq - self.iss - 1 + 2**31) % 2**32 - 2**31

    def acks(self, o: Outgoing) -> int:
        """The position of our stream that it acknowledges."""
        return (o.ack - self.irs - 1 + 2**31) % 2**32 - 2**31


def spans(peer: Peer, out: list[Outgoing]) -> list[tuple[int, int]]:
    """What was sent: (position, length)."""
    return [(peer.at(o), o.length) for o in out]


def in_state(state: State) -> Peer:
    """A connection that is in `state`."""
    peer = Peer()
    if state == State.SYN_SENT:
        peer.c.active(peer.iss, peer.now)
        peer.take()
        return peer
    if state == State.SYN_RECEIVED:
        peer.c.passive(peer.syn, peer.iss, peer.now)
        peer.take()
        return peer
    peer.open()
    if state in (State.CLOSE_WAIT, State.LAST_ACK):
        peer.gets(FIN | ACK)
    if state in (State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING, State.LAST_ACK):
        peer.shuts()
    if state == State.FIN_WAIT_2:
        peer.gets(ACK, ack=1)
    elif state == State.CLOSING:
        peer.gets(FIN | ACK)
    elif state == State.TIME_WAIT:
        peer.shuts()
        peer.gets(FIN | ACK, ack=1)
    elif state == State.CLOSED:
        peer.gets(RST)
    assert peer.c.state == state
    return peer


LIVE = [
    State.SYN_RECEIVED,
    State.ESTABLISHED,
    State.FIN_WAIT_1,
    State.FIN_WAIT_2,
    State.CLOSE_WAIT,
    State.CLOSING,
    State.LAST_ACK,
    State.TIME_WAIT,
]
