"""block: what a connection knows, its transmission control block (RFC 9293 §3.3.1). Pure data.

Both streams are counted by positions: 0 is the first byte, the SYN stands before it at -1, and the
FIN after the last byte. `iss1` and `irs1` are the sequence numbers of position 0.

    sent:      una <= everything that is under way < max; una .. queued_end lies in the send ring
    received:  consumed_to .. received, and the `islands` beyond it, lie in the receive ring;
               nobody may send beyond `adv`, which never goes back

Times are microseconds; 0 is no time at all.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, Protocol

from servers.net.ring import Ring
from servers.net.tcp.segment import MASK

SECOND = 1_000_000
DEFAULT_MSS = 536  # RFC 9293 §3.7.1, of a peer that names none
LEAST_MSS = 88  # less than this is an attack (CVE-2019-11479)
TIMESTAMP_BYTES = 12
LARGEST_WINDOW = 65_535  # without scaling
ISLANDS = 8  # pieces out of order that are kept


class State(IntEnum):
    """RFC 9293 §3.3.2."""

    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    LAST_ACK = 9
    TIME_WAIT = 10


class Error(IntEnum):
    """Why a connection is over that was not closed."""

    RESET = 1
    TIMED_OUT = 2
    REFUSED = 3
    UNREACHABLE = 4


class Mode(IntEnum):
    """What the sender is doing about losses."""

    OPEN = 0
    RECOVERY = 1  # fast recovery, RFC 6582 and RFC 6675
    LOSS = 2  # everything that was under way is sent again


class Config(NamedTuple):
    """What is the same for many connections; times in microseconds."""

    mss: int = 1460  # ours, of the MTU, without TCP options
    longest: int = 0  # bytes of one long segment that the card cuts; 0 when it does not
    timestamps: bool = True
    sack: bool = True
    scale: bool = True
    nodelay: bool = False  # no Nagle
    rto_initial: int = SECOND
    rto_min: int = 200_000
    rto_max: int = 60 * SECOND
    user_timeout: int = 120 * SECOND  # without any acknowledgement, RFC 9293 §3.8.3
    syn_timeout: int = 180 * SECOND
    delayed_ack: int = 40_000
    keepalive: int = 0  # idle for that long; 0: never
    keepalive_interval: int = 75 * SECOND
    keepalive_probes: int = 9
    fin_wait_2: int = 60 * SECOND  # when the user is gone
    time_wait: int = 60 * SECOND  # 2 MSL
    challenge_interval: int = 200_000  # between answers to segments that cannot be right


class Outgoing(NamedTuple):
    """A segment to be sent: its payload are positions at .. at + length of the send ring, which
    lie together. `gso` is the payload of each frame when it must be cut into several, else 0."""

    flags: int
    seq: int
    ack: int
    window: int  # as on the wire
    options: bytes
    at: int
    length: int
    gso: int


class Residue(NamedTuple):
    """What TIME-WAIT must know."""

    send_next: int  # sequence numbers
    receive_next: int
    window: int  # as on the wire
    timestamps: bool
    recent: int  # the peer's last timestamp
    offset: int  # of ours, from the clock in milliseconds


class Budget(Protocol):
    """How many challenge ACKs the host may still send (RFC 5961 §7)."""

    def take(self, now: int) -> bool: ...


class Block:
    """The state of one connection. Functions beside this module work on it."""

    __slots__ = (
        *("config", "send", "receive", "state", "error", "active_open", "closing", "closed"),
        *("iss1", "irs1", "una", "max", "queued_end", "snd_edge", "wl1", "wl2", "max_wnd"),
        *("snd_scale", "rcv_scale", "peer_mss", "mss", "burst"),
        *("stamps", "sack_ok", "scaled"),
        *("ts_offset", "ts_recent", "ts_recent_at", "received", "consumed_to", "adv", "ack_sent"),
        *("peer_done", "fin_at", "islands", "ack_pending", "ack_now", "ack_at", "rcv_mss"),
        *("cwnd", "ssthresh", "credit", "mode", "recover", "dupacks", "sacked", "sacked_bytes"),
        *("lost_edge", "high_rxt", "rescue", "srtt_us", "rttvar", "rto", "backoff", "timed_end"),
        *("timed_at", "karn", "retransmit_at", "linger_at", "deadline", "since", "sent_at"),
        *("heard_at", "probes", "unanswered", "challenge_at", "challenges", "out", "changed"),
        *("retransmits", "lives"),
    )

    def __init__(self, config: Config, send: Ring, receive: Ring) -> None:
        self.config = config
        self.send = send
        self.receive = receive
        self.state = State.CLOSED
        self.error: Error | None = None
        self.active_open = False
        self.closing = False  # our FIN stands at `queued_end`
        self.closed = False  # the user is gone
        self._begin_sender(config)
        self._begin_receiver(config)
        self._begin_timers(config)
        self.out: list[Outgoing] = []
        self.changed = False
        self.challenges: Budget | None = None
        self.retransmits = 0
        self.lives = 1

    def _begin_sender(self, config: Config) -> None:
        self.iss1 = 0
        self.una = -1
        self.max = -1  # the highest that was ever sent, and one
        self.queued_end = 0
        self.snd_edge = 0  # the peer takes nothing from there on
        self.wl1 = self.wl2 = -1  # positions of the segment that said so
        self.max_wnd = 0
        self.snd_scale = 0
        self.peer_mss = DEFAULT_MSS
        self.mss = DEFAULT_MSS  # payload of one frame
        self.burst = DEFAULT_MSS  # payload of one long segment
        self.cwnd = self.mss
        self.ssthresh = 1 << 30
        self.credit = 0  # bytes acknowledged since the window grew last
        self.mode = Mode.OPEN
        self.recover = -1  # recovery ends there, RFC 6582
        self.dupacks = 0
        self.sacked: list[tuple[int, int]] = []  # in order
        self.sacked_bytes = 0  # without SACK: guessed from duplicate ACKs
        self.lost_edge = 0  # before it, everything that is not SACKed is lost
        self.high_rxt = 0  # before it, what was lost has been sent again
        self.rescue = False  # one segment goes out whatever is under way

    def _begin_receiver(self, config: Config) -> None:
        self.irs1 = 0
        self.received = 0
        self.consumed_to = 0
        self.adv = 0
        self.ack_sent = 0
        self.rcv_scale = 0
        self.peer_done = False
        self.fin_at = -1  # where a FIN was seen
        self.islands: list[tuple[int, int]] = []  # the newest first, as SACK tells them
        self.ack_pending = 0  # bytes that came since the last ACK
        self.ack_now = False
        self.ack_at = 0
        self.rcv_mss = DEFAULT_MSS  # what the peer seems to send
        self.stamps = config.timestamps
        self.sack_ok = config.sack
        self.scaled = config.scale
        self.ts_offset = 0
        self.ts_recent = 0
        self.ts_recent_at = 0

    def _begin_timers(self, config: Config) -> None:
        self.srtt_us = 0  # 0: not measured yet
        self.rttvar = 0
        self.rto = config.rto_initial
        self.backoff = 0
        self.timed_end = -1  # when this position is acknowledged, a round trip is measured
        self.timed_at = 0
        self.karn = False  # something was sent twice: only timestamps can tell
        self.retransmit_at = 0  # retransmission, or persist when nothing is under way
        self.linger_at = 0  # keep-alive, FIN-WAIT-2 or TIME-WAIT
        self.deadline = 0
        self.since = 0  # the last progress
        self.sent_at = 0
        self.heard_at = 0
        self.probes = 0
        self.unanswered = 0  # keep-alives
        self.challenge_at = 0

    @property
    def acked(self) -> int:
        """Everything of ours before it is acknowledged."""
        return max(0, min(self.una, self.queued_end))

    @property
    def receive_next(self) -> int:
        """The sequence number that is expected."""
        return (self.irs1 + self.received + self.peer_done) & MASK


def window_scale(size: int) -> int:
    """The scale that a window of `size` bytes needs (RFC 7323 §2.2)."""
    return min(14, ((max(size, 1) - 1) // LARGEST_WINDOW).bit_length())


def settle(c: Block) -> None:
    """The next time that something is to be done."""
    deadline = c.retransmit_at
    if c.ack_at > 0 and (c.ack_at < deadline or not deadline):
        deadline = c.ack_at
    if c.linger_at > 0 and (c.linger_at < deadline or not deadline):
        deadline = c.linger_at
    c.deadline = deadline


def close(c: Block, error: Error | None = None) -> None:
    """It is over."""
    c.state = State.CLOSED
    if error is not None:
        c.error = error
    c.retransmit_at = c.ack_at = c.linger_at = c.deadline = 0
    c.ack_now = False
    c.changed = True
