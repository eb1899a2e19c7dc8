"""limits: how much strangers may cost us, and what became of what they sent. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Limits(NamedTuple):
    """The bounds of a table."""

    half_open: int = 64  # handshakes that a listener remembers; further ones get cookies
    listeners: int = 256
    backlog: int = 1024  # connections that wait to be accepted, whatever was asked for
    time_waits: int = 4096
    replies: int = 1024  # segments of no connection that wait to be sent
    resets: int = 200  # a second
    challenges: int = 1000  # acknowledgements to who is lost, a second (RFC 5961 §7); a low limit
    # would tell strangers what others get (CVE-2016-5696)
    repeats: int = 5  # of a SYN-ACK, after 1, 2, 4 .. s


@dataclass(slots=True)
class Counters:
    """How often things happened that somebody may want to know of."""

    unknown: int = 0  # segments that belong to no connection
    foreign: int = 0  # not for this host, or from nowhere an answer can go
    resets_sent: int = 0
    challenges_sent: int = 0
    held_back: int = 0  # resets, challenges and other replies, by their limits
    syns: int = 0  # that began a handshake
    cookies_sent: int = 0
    cookies_accepted: int = 0
    cookies_refused: int = 0  # forged, too old, or of another secret
    handshakes_expired: int = 0
    handshakes_reset: int = 0
    backlog_overflows: int = 0
    slots_missing: int = 0
    established: int = 0
    broken: int = 0  # connections that ended with an error
    time_waits_reused: int = 0
