"""The UDP sockets of a host: ports, queues and what did not get there."""

from __future__ import annotations

import pytest

from servers.net import ipv4, udp
from servers.net.events import Unreachable
from ukernel.abi.network import AddressInUse, NoBuffers

PACKET = ipv4.Packet(1, 2, ipv4.UDP, 0, 0, 64, 20, memoryview(b""))


def come(sockets: udp.Sockets, port: int, data: bytes) -> bool:
    return sockets.arrived(PACKET, udp.Udp(9, port, memoryview(data)))


def test_a_datagram_goes_to_its_port() -> None:
    sockets = udp.Sockets()
    socket = sockets.bind(53)
    assert come(sockets, 53, b"data")
    assert not come(sockets, 54, b"data")
    assert sockets.changed == {socket}
    assert socket.take() == (1, 9, 2, b"data")
    assert socket.take() is None


def test_a_socket_bound_to_another_address_gets_nothing() -> None:
    sockets = udp.Sockets()
    sockets.bind(53, address=3)
    assert not come(sockets, 53, b"data")


def test_a_port_has_one_socket() -> None:
    sockets = udp.Sockets()
    first = sockets.bind(53)
    with pytest.raises(AddressInUse):
        sockets.bind(53)
    sockets.close(first)
    second = sockets.bind(53)
    sockets.close(first)  # again: not the one that has the port now
    assert sockets.ports == {53: second}


def test_free_ports_are_looked_for_from_a_random_one() -> None:
    sockets = udp.Sockets()
    assert sockets.bind(random=5).port == 49157
    assert sockets.bind(random=5).port == 49158
    assert sockets.bind(random=16383).port == 65535
    assert sockets.bind(random=16383).port == 49152


def test_no_port_is_free() -> None:
    sockets = udp.Sockets()
    for _ in udp.EPHEMERAL:
        sockets.bind(random=len(sockets.ports))
    with pytest.raises(NoBuffers):
        sockets.bind()


def test_a_queue_is_bounded_and_counts_what_it_drops() -> None:
    sockets = udp.Sockets()
    socket = sockets.bind(53, limit=4 * (1000 + udp.KEPT_BYTES))
    for _ in range(6):
        assert come(sockets, 53, bytes(1000))
    assert (len(socket.queue), socket.waiting_bytes) == (4, 4000)
    assert (socket.dropped, sockets.dropped) == (2, 2)
    socket.take()
    come(sockets, 53, b"")
    assert len(socket.queue) == 4


def test_empty_datagrams_fill_a_queue_too() -> None:
    sockets = udp.Sockets()
    socket = sockets.bind(53)
    for _ in range(2000):
        come(sockets, 53, b"")
    assert len(socket.queue) == udp.QUEUE_BYTES // udp.KEPT_BYTES


def test_an_error_is_told_once_to_the_socket_that_sent() -> None:
    sockets = udp.Sockets()
    socket = sockets.bind(53)
    event = Unreachable(ipv4.UDP, (2, 53, 1, 9), 3, 3, 0)
    sockets.unreachable(event)
    sockets.unreachable(event._replace(quad=(2, 54, 1, 9)))
    assert sockets.changed == {socket}
    assert socket.take_error() == event
    assert socket.take_error() is None


def test_a_closed_socket_is_not_among_the_changed() -> None:
    sockets = udp.Sockets()
    socket = sockets.bind(53)
    come(sockets, 53, b"data")
    sockets.close(socket)
    assert not sockets.changed
