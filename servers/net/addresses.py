"""addresses: IPv4 addresses are integers here, dotted only where people read them. Pure."""

from __future__ import annotations

import socket

from ukernel.abi.network import Address, BadAddress

ANY = 0
EVERYBODY = 0xFFFFFFFF  # the limited broadcast: on this link


def number(dotted: str) -> int:
    """Of "192.0.2.1"; raises BadAddress for anything else."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, dotted), "big")
    except (OSError, ValueError) as error:  # ValueError: a NUL within
        raise BadAddress(f"{dotted!r} is no IPv4 address") from error


def dotted(address: int) -> str:
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def netmask(prefix: int) -> int:
    return EVERYBODY << (32 - prefix) & EVERYBODY


def is_multicast(address: int) -> bool:
    return address >> 28 == 14


def never_a_source(address: int) -> bool:
    """Whether this cannot be who sent a packet: 0/8, 127/8, multicast, 240/4 and broadcast
    (RFC 1122 §3.2.1.3)."""
    top = address >> 24
    return top >= 224 or top in (0, 127)


def port_of(at: Address) -> int:
    """Raises BadAddress for 0, which is none."""
    if not at.port:
        raise BadAddress("port 0 is no port")
    return at.port


def peer(to: Address) -> tuple[int, int]:
    """Address and port of somebody else. Raises BadAddress for nobody's."""
    address = number(to.host)
    if not address:
        raise BadAddress("0.0.0.0 is nobody's address")
    return address, port_of(to)
