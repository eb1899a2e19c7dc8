"""server: a learning switch. Port n is the card of whoever calls under badge n.

    switch: {run: servers.switch, serves: ethernet, calls: [{nic: {via: channel}}], window: 64,
             args: {ports: 4}}
    net:    {calls: [{switch: {badge: 1, via: channel}}], ...}

Frames for an address that is known go where it is, all others everywhere; a server that it calls is
one more port, the way out. Nothing is kept: when it dies frames are lost, as they may be anywhere.
"""

from __future__ import annotations

import sys
import time
from _blake2 import blake2b  # hashlib would load OpenSSL
from collections.abc import Mapping
from typing import Any, NamedTuple

from servers.switch.addresses import GROUP, Addresses
from servers.switch.port import Port
from servers.switch.uplink import Uplink
from ukernel.abi.errors import Denied
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.interface import Interface, Lent
from ukernel.abi.network import Card, Ethernet
from ukernel.lib.server import Server
from ukernel.lib.upstream import Patience

OUT = 0  # the uplink as a port
MOST_PORTS = 64
AGAIN_NS = 200_000_000  # until a driver that was stopped or refuses is asked again
LEAST_MTU, MOST_MTU = 68, 65535
DESTINATION, SOURCE = slice(0, 6), slice(6, 12)
LOCAL = 2  # in the first byte of an address: given by nobody's register


class BadSettings(Exception):
    """An argument that the switch cannot work with; the text names it, and what would do."""


class Settings(NamedTuple):
    ports: int = 8
    mtu: int = 1500  # bytes of a frame after its Ethernet header; with an uplink its card's
    mac: str = ""  # the address of port 0: that of port n is n higher

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Settings:
        """Raises BadSettings."""
        if unknown := sorted(args.keys() - set(cls._fields)):
            raise BadSettings(f"args.{unknown[0]}: the switch knows {', '.join(cls._fields)}")
        made = cls(**args)
        for name, least, most in (("ports", 1, MOST_PORTS), ("mtu", LEAST_MTU, MOST_MTU)):
            value = getattr(made, name)
            if type(value) is not int or not least <= value <= most:
                raise BadSettings(f"args.{name} is {value!r}: from {least} to {most}")
        if made.mac:
            _base(made.mac)
        return made

    def address(self, switch: str, port: int) -> bytes:
        """Of the card at a port: always the same, and of the switch's name unless `mac` is said."""
        name = blake2b(switch.encode(), digest_size=5).digest()
        base = _base(self.mac) if self.mac else bytes([LOCAL]) + name
        last = int.from_bytes(base[3:]) + port & 0xFF_FFFF
        return base[:3] + last.to_bytes(3)


def _base(text: str) -> bytes:
    try:
        base = bytes.fromhex(str(text).replace(":", ""))
    except ValueError:
        base = b""
    if len(base) != 6 or base[0] & GROUP:
        raise BadSettings(f"args.mac is {text!r}: say an address such as 02:00:00:00:00:00")
    return base


class Switch(Server, Ethernet):
    def setup(self) -> None:
        try:
            settings = Settings.of(self.args)
        except BadSettings as error:
            print(f"{error} ({self.connection.info.origin})", file=sys.stderr)
            sys.exit(NO_RESTART)
        above = [name for name in self.connection.named if name != "self"]
        self.ports: dict[int, Port] = {}
        self.uplink = Uplink(self, above[0], self._came) if above else None
        self._patience = Patience(self.uplink, AGAIN_NS) if self.uplink is not None else None
        mtu = self.uplink.card.mtu if self.uplink is not None else settings.mtu
        for number in range(1, settings.ports + 1):
            address = settings.address(self.connection.slot, number)
            self.ports[number] = Port(self, number, Card(address, mtu, 0))
        owned = {port.card().mac: number for number, port in self.ports.items()}
        self.addresses = Addresses(owned)
        self.refused = 0  # frames under somebody else's address

    def restore(self, badge: int) -> Interface | None:
        port = self.ports.get(badge)
        if port is not None:
            self.export(port, badge)
        return port

    def before_waiting(self) -> None:
        if self._patience is not None:
            self.alarm_ns = self._patience.look(time.monotonic_ns())

    def most_readers(self) -> int:
        """Calls that may wait at a port, of the way that the call under way has come. What waits
        by the kernel's way takes up the one window that all of them share."""
        half = self.connection.info.window // 2
        return max(1, half // len(self.ports)) if self.by_kernel else max(1, half)

    # --- frames ---------------------------------------------------------------------------------

    def _came(self, frame: bytes) -> None:
        self.carry(OUT, frame)

    def carry(self, source: int, frame: bytes) -> None:
        """A frame, in at port `source`, to whom it is for."""
        if not self.addresses.seen(frame[SOURCE], source, time.monotonic()):
            self.refused += 1
            return
        known = self.addresses.port_of(frame[DESTINATION])
        ways = [known] if known is not None else [OUT, *self.ports]
        for way in ways:
            if way == source:
                continue
            if way != OUT:
                self.ports[way].put(source, frame)
            elif self.uplink is not None:
                self.uplink.send(frame)

    # --- badge 0: no port -----------------------------------------------------------------------

    def card(self) -> Card:
        raise self._no_port()

    def transmit(self, header: Lent, payload: Lent) -> None:
        raise self._no_port()

    def receive(self, into: Lent) -> int:
        raise self._no_port()

    def _no_port(self) -> Denied:
        me = self.connection.slot
        return Denied(f"{me} is called for one of its ports: `calls: [{{{me}: {{badge: 1}}}}]`")
