"""connection: one TCP connection (RFC 9293), without a clock, a network, or chance. Pure.

What happens comes in by the methods below, with the time in microseconds; what is to be sent is
put into `out`. The owner makes a step, commits `pack()`, sends `out` and clears it, and answers
users: whatever a peer or a user was told is then in the record, and `restore` goes on from there
after a death at any instruction.

Bytes that a step has freed, before `acked` in the send ring or before `consumed_to` in the receive
ring, may be overwritten only after that step was committed.
"""

from __future__ import annotations

from servers.net.ring import Ring
from servers.net.tcp import arrival, handshake, record, timers
from servers.net.tcp.block import (
    Block,
    Budget,
    Config,
    Error,
    Outgoing,
    Residue,
    State,
    close,
    settle,
    window_scale,
)
from servers.net.tcp.output import output, reset
from servers.net.tcp.segment import MASK, NO_OPTIONS, Options, Segment
from servers.net.tcp.window import due

RECORD_BYTES = record.RECORD_BYTES

__all__ = [
    "RECORD_BYTES",
    "Budget",
    "Config",
    "Connection",
    "Error",
    "Outgoing",
    "Residue",
    "State",
    "window_scale",
]


class Connection(Block):
    """A connection. To be read by its owner:

    state, error            `error` is set when it is over without having been closed
    deadline                call `tick` then; 0: never
    acked, queued_end       of the send ring, acked .. queued_end is in use
    received, consumed_to   of the receive ring, consumed_to .. received can be read
    peer_done               after `received` nothing more will come
    out                     segments to be sent; taken and cleared by the owner
    changed                 the record holds something new; cleared by the owner
    retransmits, srtt_us, cwnd, lives    statistics
    challenges              a budget of the host's, if there is one
    """

    __slots__ = ()

    def active(self, iss: int, now: int, ts_offset: int = 0) -> None:
        """Connect: our SYN goes out with sequence number `iss`. Our timestamps are those of the
        clock in milliseconds, and `ts_offset`."""
        handshake.connect(self, iss, ts_offset, now)
        settle(self)

    def passive(self, segment: Segment, iss: int, now: int, ts_offset: int = 0) -> None:
        """Answer the SYN `segment`."""
        handshake.answer(self, segment, iss, ts_offset, now)
        settle(self)

    def from_cookie(
        self, segment: Segment, now: int, options: Options = NO_OPTIONS, ts_offset: int = 0
    ) -> None:
        """Take the third segment of a handshake of which nothing was kept, and which has been
        found to be good. `options` are those of the SYN; its timestamp is taken from here."""
        options = options._replace(timestamp=segment.options.timestamp)
        handshake.resume(self, segment, options, ts_offset, now)
        arrival.arrived(self, segment, now)

    def arrived(self, segment: Segment, now: int) -> None:
        """A segment has come for this connection. What is new of its payload is copied."""
        arrival.arrived(self, segment, now)

    def tick(self, now: int) -> None:
        """The deadline has come."""
        timers.tick(self, now)

    def queued(self, end: int, now: int) -> None:
        """The user has put bytes into the send ring up to position `end`. Not after `shutdown`."""
        if self.closing or end <= self.queued_end:
            return
        self.queued_end = end
        self.changed = True
        self._output(now)

    def consumed(self, start: int, now: int) -> None:
        """The user needs nothing before position `start` any more."""
        start = min(start, self.received)
        if start <= self.consumed_to:
            return
        self.consumed_to = start
        self.changed = True
        if due(self) and not self.peer_done:
            self.ack_now = True
            self._output(now)

    def shutdown(self, now: int) -> None:
        """Nothing more will be queued: our FIN follows what is. Receiving goes on."""
        if self.closing or self.state == State.CLOSED:
            return
        if self.state == State.SYN_SENT:
            close(self)
            return
        self.closing = self.changed = True
        if self.state == State.ESTABLISHED:
            self.state = State.FIN_WAIT_1
        elif self.state == State.CLOSE_WAIT:
            self.state = State.LAST_ACK
        self._output(now)

    def close(self, now: int) -> None:
        """The user is gone: shut down. What he has not read, or what still comes, is answered by
        a reset (RFC 9293 §3.6.1), and FIN-WAIT-2 does not last for ever."""
        if self.received > self.consumed_to and self.state != State.TIME_WAIT:
            self.abort(now)
            return
        self.closed = self.changed = True
        self.shutdown(now)
        if self.state == State.FIN_WAIT_2:
            arrival.wait_for_fin(self, now)
        settle(self)

    def abort(self, now: int) -> None:
        """Break it off with a reset."""
        if State.SYN_RECEIVED <= self.state < State.TIME_WAIT:
            reset(self)
        close(self)

    def unreachable(self, now: int) -> None:
        """ICMP says that no way leads there. Once established, that passes (RFC 5927 §4.1)."""
        if self.state in (State.SYN_SENT, State.SYN_RECEIVED):
            close(self, Error.UNREACHABLE)

    def link_restored(self, now: int) -> None:
        """Frames may have been lost with the card's driver: what is under way goes out again at
        once, and the congestion window stays as it is."""
        record.again(self, now)

    def pack(self) -> bytes:
        """The record, RECORD_BYTES."""
        return record.pack(self)

    @classmethod
    def restore(
        cls, config: Config, send: Ring, receive: Ring, data: bytes, now: int
    ) -> Connection:
        """The connection of a record, in its next life; what may be lost is in `out` already."""
        connection = cls(config, send, receive)
        record.revive(connection, bytes(data[:RECORD_BYTES]), now)
        return connection

    def residue(self) -> Residue:
        """What is to be known of it in TIME-WAIT."""
        return Residue(
            (self.iss1 + self.max) & MASK,
            self.receive_next,
            min((self.adv - self.received) >> self.rcv_scale, 0xFFFF),
            self.stamps,
            self.ts_recent,
            self.ts_offset,
        )

    def _output(self, now: int) -> None:
        if self.state >= State.ESTABLISHED:
            output(self, now)
            settle(self)
