"""netlink: makes a pair of virtual Ethernet interfaces, each end in a network namespace.

One message of rtnetlink(7); `ip link add A type veth peer name B netns ...` says the same.
"""

from __future__ import annotations

import os
import socket
import struct

RTM_NEWLINK = 16  # linux/rtnetlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL = 1, 4, 0x400, 0x200  # linux/netlink.h
IFLA_IFNAME, IFLA_LINKINFO, IFLA_NET_NS_FD = 3, 18, 28  # linux/if_link.h
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1  # linux/veth.h
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
INTERFACE = bytes(16)  # struct ifinfomsg: a new one
ANSWER = 4096


def veth_message(name: str, peer: str, namespace: int) -> bytes:
    """The request for an interface here, and its peer in the namespace of this descriptor."""
    other = _attribute(IFLA_IFNAME, peer.encode() + b"\0")
    other += _attribute(IFLA_NET_NS_FD, struct.pack("=I", namespace))
    info = _attribute(IFLA_INFO_KIND, b"veth")
    info += _attribute(IFLA_INFO_DATA, _attribute(VETH_INFO_PEER, INTERFACE + other))
    body = INTERFACE + _attribute(IFLA_IFNAME, name.encode() + b"\0")
    body += _attribute(IFLA_LINKINFO, info)
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return HEADER.pack(HEADER.size + len(body), RTM_NEWLINK, flags, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    """struct rtattr, and what fills it up to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def add_veth(name: str, peer: str, namespace: int) -> None:
    """Make the pair. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as line:
        line.send(veth_message(name, peer, namespace))
        answer = line.recv(ANSWER)
    (error,) = struct.unpack_from("=i", answer, HEADER.size)
    if error:
        raise OSError(-error, os.strerror(-error))
