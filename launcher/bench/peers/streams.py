"""streams: byte streams of Linux between two processes, and Python's own pipe on top of one.

The first two are floors and carry bare bytes behind their length.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NoReturn

from launcher.bench.job import Client
from launcher.bench.peers import Answer, Peer, accepted, call_packed, dial, hand_over, taken

LENGTH = struct.Struct("<I")
CHUNK = 64 * 1024


def received(read: Callable[[int], bytes]) -> bytes:
    """The next message of a stream; one chunk has all of a short one."""
    chunk = read(CHUNK)
    if not chunk:
        raise SystemExit  # the other end is gone
    missing = LENGTH.unpack_from(chunk)[0] + LENGTH.size - len(chunk)
    if not missing:
        return chunk[LENGTH.size :]
    parts = [chunk[LENGTH.size :]]
    while missing:
        parts.append(read(min(missing, CHUNK)))
        missing -= len(parts[-1])
    return b"".join(parts)


def serve(
    read: Callable[[int], bytes], write: Callable[[bytes], object], answer: Answer
) -> NoReturn:
    while True:
        data = answer(received(read))
        write(LENGTH.pack(len(data)) + data)


def client(read: Callable[[int], bytes], write: Callable[[bytes], object]) -> Client:
    def call(data: bytes) -> bytes:
        write(LENGTH.pack(len(data)) + data)
        return received(read)

    return Client(call)


# --- pipe ---------------------------------------------------------------------------------------


def pipe_server(address: str, answer: Answer) -> NoReturn:
    (ping, their_ping), (their_pong, pong) = os.pipe(), os.pipe()
    hand_over(address, their_ping, their_pong)
    serve(lambda size: os.read(ping, size), lambda data: os.write(pong, data), answer)


def pipe_client(address: str) -> Client:
    ping, pong = taken(address, 2)
    return client(lambda size: os.read(pong, size), lambda data: os.write(ping, data))


# --- unix_socket --------------------------------------------------------------------------------


def socket_server(address: str, answer: Answer) -> NoReturn:
    line = accepted(address)
    serve(line.recv, line.sendall, answer)


def socket_client(address: str) -> Client:
    line = dial(f"{address}/line")
    return client(line.recv, line.sendall)


# --- mp_pipe ------------------------------------------------------------------------------------


def multiprocessing_server(address: str, answer: Answer) -> NoReturn:
    ours, theirs = socket.socketpair()  # what multiprocessing.Pipe() is made of
    hand_over(address, theirs.fileno())
    theirs.close()
    line = Connection(ours.detach())
    while True:
        line.send_bytes(answer(line.recv_bytes()))


def multiprocessing_client(address: str) -> Client:
    line = Connection(taken(address, 1)[0])
    return call_packed(line.send_bytes, line.recv_bytes)


PEERS = {
    "pipe": Peer(pipe_client, pipe_server, packed=False),
    "unix_socket": Peer(socket_client, socket_server, packed=False),
    "mp_pipe": Peer(multiprocessing_client, multiprocessing_server),
}
