"""settings: what the system file says about the stack, checked. Pure.

args: {address: 10.0.0.2/24, gateway: 10.0.0.1, nameservers: [10.0.0.1]}
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

SMALLEST, LARGEST = 4096, 1 << 26  # bytes of a ring
MOST = 4096  # connections


class BadSettings(Exception):
    """An argument that the stack cannot work with; the text names it, and what would do."""


@dataclass(frozen=True)
class Settings:
    """Addresses are IPv4 as numbers; 0 is none."""

    address: int
    prefix: int
    gateway: int
    nameservers: tuple[int, ...]
    connections: int = 128  # at most, besides those that wait for their end
    send_buffer: int = 1 << 18  # bytes, of each connection
    receive_buffer: int = 1 << 18
    per_client: int = MOST  # connections, whether or not they have been accepted

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Settings:
        """Raises BadSettings."""
        names = [field.name for field in fields(cls) if field.name != "prefix"]
        if unknown := sorted(args.keys() - set(names)):
            raise BadSettings(f"args.{unknown[0]}: net knows {', '.join(names)}")
        address, prefix = _interface(args.get("address"))
        servers = args.get("nameservers", [])
        return cls(
            address,
            prefix,
            _gateway(args.get("gateway"), address, prefix),
            tuple(
                _host("nameservers", s) for s in (servers if type(servers) is list else [servers])
            ),
            _number(args, "connections", 1, MOST, cls.connections),
            _number(args, "send_buffer", SMALLEST, LARGEST, cls.send_buffer),
            _number(args, "receive_buffer", SMALLEST, LARGEST, cls.receive_buffer),
            _number(args, "per_client", 1, MOST, cls.per_client),
        )


def _interface(value: object) -> tuple[int, int]:
    try:
        found = ipaddress.IPv4Interface(str(value))
    except ValueError:
        found = None
    if found is None or "/" not in str(value) or not 0 < found.network.prefixlen < 32:
        raise BadSettings(f"args.address is {value!r}: say the host's address as 10.0.0.2/24")
    if found.ip in (found.network.network_address, found.network.broadcast_address):
        raise BadSettings(f"args.address is {value}: that is the address of the whole network")
    if found.ip.is_multicast or found.ip.is_loopback or found.ip.is_unspecified:
        raise BadSettings(f"args.address is {value}: no host can have it")
    return int(found.ip), found.network.prefixlen


def _gateway(value: object, address: int, prefix: int) -> int:
    if value is None:
        return 0
    gateway = _host("gateway", value)
    if gateway == address or (gateway ^ address) >> (32 - prefix):
        raise BadSettings(f"args.gateway is {value}: it must be another host of our network")
    return gateway


def _host(name: str, value: object) -> int:
    try:
        return int(ipaddress.IPv4Address(str(value)))
    except ValueError:
        raise BadSettings(f"args.{name} has {value!r}: say an address as 10.0.0.1") from None


def _number(args: Mapping[str, Any], name: str, least: int, most: int, default: int) -> int:
    value = args.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise BadSettings(f"args.{name} is {value!r}: say a number from {least} to {most}")
    return value
