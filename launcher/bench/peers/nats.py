"""nats: a NATS server on loopback, and the little of its protocol that a call needs.

The client is ours, and synchronous: the official one for Python is asynchronous, which would be
most of what is measured.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, NoReturn

from launcher.bench.job import Client
from launcher.bench.peers import Answer, Peer, become, dial, found, pack, ready, unpack

CALLS, ANSWERS = b"calls", b"answers"
HELLO = b'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"1"}\r\n'


def broker(address: str) -> NoReturn:
    ready()
    become("nats-server", "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", address)


class Line:
    """One connection: subscribed to one subject."""

    def __init__(self, address: str, subject: bytes) -> None:
        self._socket = dial(("127.0.0.1", _port(address)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in = self._socket.makefile("rb")
        self._send = self._socket.sendall
        self._in.readline()  # INFO
        self._send(HELLO + b"SUB " + subject + b" 1\r\nPING\r\n")
        while self._in.readline() != b"PONG\r\n":
            pass  # the subscription is known when this comes

    def publish(self, subject: bytes, body: bytes) -> None:
        self._send(b"PUB %b %d\r\n%b\r\n" % (subject, len(body), body))

    def next_body(self) -> bytes:
        while True:
            words = self._in.readline().split()
            if not words:
                raise SystemExit  # the server is gone
            if words[0] == b"MSG":
                size = int(words[-1])
                return self._in.read(size + 2)[:size]
            if words[0] == b"PING":
                self._send(b"PONG\r\n")


def server(address: str, answer: Answer) -> NoReturn:
    line = Line(address, CALLS)
    ready()
    while True:
        line.publish(ANSWERS, answer(line.next_body()))


def client(address: str) -> Client:
    line = Line(address, ANSWERS)

    def call(data: bytes) -> Any:
        line.publish(CALLS, pack((data,)))
        return unpack(line.next_body())

    return Client(call)


def _port(address: str) -> int:
    """The port that the server chose, once it has said so in a file."""

    def told() -> int | None:
        texts = (path.read_text() for path in Path(address).glob("*.ports"))
        text = next(filter(None, texts), "")
        return int(json.loads(text)["nats"][0].rpartition(":")[2]) if text else None

    return found(told, f"nats-server has not said its port in {address}")


PEERS = {"nats": Peer(client, server, broker)}
