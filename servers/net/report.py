"""report: what people are shown of the stack. Pure."""

from __future__ import annotations

from servers.net.addresses import dotted
from servers.net.datagrams import OpenDatagrams
from servers.net.held import Socket
from servers.net.host import Host
from servers.net.port import Port
from servers.net.stack import Stack
from servers.net.streams import OpenListener, OpenStream
from servers.net.tcp.entries import Entry
from ukernel.abi.network import Address, InterfaceRow, Neighbour, SocketRow

PAGE = 64  # rows of one answer
NOBODY = Address("0.0.0.0", 0)


def interface(name: str, stack: Stack, port: Port) -> InterfaceRow:
    """The card that the server `name` works on."""
    settings, counts = stack.settings, stack.host.counts
    return InterfaceRow(
        name,
        port.card.mac,
        dotted(settings.address),
        settings.prefix,
        dotted(settings.gateway) if settings.gateway else "",
        port.card.mtu,
        port.up,
        counts.frames_in,
        counts.frames_out,
        counts.bytes_in,
        counts.bytes_out,
        counts.dropped_in + port.dropped,
        port.lives,
    )


def sockets(stack: Stack, bound: list[Socket]) -> list[SocketRow]:
    """Connections, then what is bound."""
    rows = [_stream(entry) for entry in stack.table.entries]
    for socket in bound:
        match socket:
            case OpenListener(port=port):
                local = Address(dotted(port.address), port.port)
                waiting = len(port.waiting)
                rows.append(SocketRow("tcp", local, NOBODY, "LISTEN", waiting, 0, 0, 0, 0, 1))
            case OpenDatagrams(socket=udp):
                local, waiting = Address(dotted(udp.address), udp.port), udp.waiting_bytes
                rows.append(SocketRow("udp", local, NOBODY, "", waiting, 0, 0, 0, 0, 1))
            case OpenStream():
                pass
    return rows


def _stream(entry: Entry) -> SocketRow:
    c, quad = entry.connection, entry.quad
    return SocketRow(
        "tcp",
        Address(dotted(quad.local), quad.local_port),
        Address(dotted(quad.remote), quad.remote_port),
        c.state.name,
        c.received - c.consumed_to,
        c.queued_end - c.acked,
        c.retransmits,
        c.srtt_us,
        c.cwnd,
        c.lives,
    )


def neighbours(host: Host, now: int) -> list[Neighbour]:
    """Who is where on the link, the longest unconfirmed first."""
    return [
        Neighbour(dotted(entry.address), entry.mac, max(0, now - entry.confirmed) // 1000)
        for entry in host.neighbours.entries.values()
    ]
