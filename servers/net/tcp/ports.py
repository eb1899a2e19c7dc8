"""ports: the local port of a connection that we begin (RFC 6056 §3.3.4, Algorithm 4). Pure.

To one service the ports go up one by one, which keeps a port that was just used away longest;
where they begin, and how far they have got, nobody can tell from what another service has seen.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from servers.net.tcp.keyed import Keyed
from servers.net.tcp.quad import Quad

FIRST, LAST = 49_152, 65_535  # dynamic ports (RFC 6335 §6)
COUNT = LAST - FIRST + 1
COUNTERS = 64  # services that share a counter learn a little of one another


class Ports:
    """The ephemeral ports of a host."""

    def __init__(self, secret: bytes) -> None:
        self._offset = Keyed(secret, b"port")
        self._index = Keyed(secret, b"counter")
        self._begin = Keyed(secret, b"begin")
        self._counters: dict[int, int] = {}

    def choose(self, service: Quad, free: Callable[[int], bool], now: int) -> int:
        """A free port to reach the remote end of `service`, whose local port does not matter; 0
        when there is none. `now` makes another life begin elsewhere."""
        name = service._replace(local_port=0).pack()
        offset, index = self._offset(name), self._index(name) % COUNTERS
        if index not in self._counters:
            self._counters[index] = self._begin(struct.pack("<BQ", index, now))
        for _ in range(COUNT):
            port = FIRST + (offset + self._counters[index]) % COUNT
            self._counters[index] += 1
            if free(port):
                return port
        return 0
