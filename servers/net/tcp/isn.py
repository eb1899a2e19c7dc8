"""isn: where the sequence numbers of a connection begin (RFC 6528). Pure: `now` comes in.

ISN = M + F(quad, secret), where M is a clock of 4 us: the numbers of one quad never go back, so
that a later connection is not confused with an earlier one, and nobody can tell those of another
quad. The clock of the timestamps has an offset for each quad likewise (RFC 7323 §5.4).
"""

from __future__ import annotations

from servers.net.tcp.keyed import Keyed
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import MASK

TICK_US = 4  # of M


class Isn:
    """The initial sequence numbers of a host."""

    def __init__(self, secret: bytes) -> None:
        self._sequence = Keyed(secret, b"isn")
        self._timestamp = Keyed(secret, b"tsval")

    def offset(self, quad: Quad) -> int:
        """F: where the quad's sequence numbers begin at M = 0."""
        return self._sequence(quad.pack())

    def generate(self, quad: Quad, now: int) -> int:
        """The first sequence number of a connection that begins now."""
        return (now // TICK_US + self.offset(quad)) & MASK

    def timestamp_offset(self, quad: Quad) -> int:
        """What the quad's timestamps are ahead of the clock."""
        return self._timestamp(quad.pack())
