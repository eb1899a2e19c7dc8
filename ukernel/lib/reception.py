"""reception: how a server opens channels, for those who may call it anyway."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ukernel.abi.channels import Channels, Opened
from ukernel.abi.errors import Overload, Protocol
from ukernel.abi.interface import Lent
from ukernel.lib.channel import NoParts, take_parts
from ukernel.lib.door import Door
from ukernel.lib.ring import CHANNEL_BYTES
from ukernel.lib.stub import kernel

if TYPE_CHECKING:
    from ukernel.lib.server import Server

MOST_DOORS = 48  # of one server: each costs it two descriptors
LONGEST_SPIN_NS = 1_000_000


class Reception(Channels):
    """Serves `Channels` for the call under way of a server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def open(self, spin_ns: int, cores: list[int]) -> Opened:
        server, connection = self._server, self._server.connection
        if len(server.doors) >= MOST_DOORS:
            raise Overload(f"{connection.slot} has {MOST_DOORS} channels")
        if len(os.sched_getaffinity(0) | set(cores)) < 2:
            spin_ns = 0  # who spins keeps the other from running
        spin_ns = min(spin_ns, LONGEST_SPIN_NS)
        tag, theirs = kernel(connection).channel(server.number_in_hand, CHANNEL_BYTES)
        try:
            parts = take_parts(connection.descriptors(tag))
        except NoParts:
            raise Overload(f"{connection.slot} has no room for one more channel") from None
        badge, client, _ = server.caller
        door = Door(tag, badge, client, parts, spin_ns, connection.info.window)
        server.admit(door)
        return Opened(door.number, theirs, spin_ns)

    def register(self, channel: int, memory: Lent) -> int:
        client = self._server.caller.client
        for door in self._server.doors:
            if (door.number, door.client) == (channel, client):
                if door.full:
                    raise Overload(f"channel {channel} knows as many regions as it can")
                return door.register(memory.token)
        raise Protocol(f"there is no channel {channel} of this client")
