"""frames: what goes out to the card, and what of the arrived the host does not deal with. Pure."""

from __future__ import annotations

from typing import NamedTuple

from servers.net.ring import Piece

NO_CARGO = Piece(0, 0)


class Frame(NamedTuple):
    """A frame to be sent: `header` and then `cargo`."""

    header: bytes  # Ethernet, IP and what is above; small payloads and those of UDP and ICMP too
    cargo: Piece = NO_CARGO  # of the persistent region
    gso: int = 0  # bytes of payload in each frame, if the card is to cut this one
    unchecked: int = 0  # where in `header` that of TCP begins, if the card is to add it up


class Packet(NamedTuple):
    """An IPv4 datagram for us, whole."""

    protocol: int
    source: int
    destination: int
    payload: memoryview  # of the frame that came, unless it came in fragments
    vouched: bool  # its TCP checksum is right, or the card says so; never False
