"""addresses: where an Ethernet address is. Pure; `now_s` comes from outside.

The address of a port's own card is there and nowhere else: whoever sends under another port's is
not believed. Any other address is where it was last seen; it moves only when it has been silent
there for a while, so nobody takes an address over while its owner talks. A port has a bounded
number of them and can push out its own only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

GROUP = 1  # in the first byte of an address: of several cards
MOST = 256  # addresses that were seen at one port
SILENT_S = 30.0  # after which an address may be seen elsewhere


class Addresses:
    """`owned` is the address of each port's card."""

    def __init__(self, owned: Mapping[bytes, int]) -> None:
        self._owned = dict(owned)
        self._port: dict[bytes, int] = {}
        self._seen_s: dict[int, OrderedDict[bytes, float]] = {}

    def seen(self, address: bytes, port: int, now_s: float) -> bool:
        """A frame from this address came in at this port; whether that may be."""
        if address[0] & GROUP:
            return False
        if address in self._owned:
            return self._owned[address] == port
        before = self._port.get(address, port)
        if before != port:
            if now_s - self._seen_s[before][address] < SILENT_S:
                return False
            del self._seen_s[before][address]
        self._note(address, port, now_s)
        return True

    def _note(self, address: bytes, port: int, now_s: float) -> None:
        here = self._seen_s.setdefault(port, OrderedDict())
        self._port[address], here[address] = port, now_s
        here.move_to_end(address)
        if len(here) > MOST:
            oldest, _ = here.popitem(last=False)
            del self._port[oldest]

    def port_of(self, address: bytes) -> int | None:
        """Where it is; None: not known, or an address of several."""
        return self._owned.get(address, self._port.get(address))
