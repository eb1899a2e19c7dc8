"""peers: what the kernel's path is measured beside. One module per family, each with a table PEERS.

A peer is up to three functions, each for a process of its own. They meet at an address, which is
a directory of their own. A server and a broker say `ready` and never return. A broker in another
language becomes its process by `exec`, and so stays on the core that it was put on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import msgpack

from launcher.bench.job import Client

pack, unpack = msgpack.packb, msgpack.unpackb
Answer = Callable[[bytes], bytes]  # what a server makes of a request
PATIENCE_S = 10.0  # for a broker to listen


class Peer(NamedTuple):
    """The processes of a path. `packed`: the server is to see msgpack, as one of ours does."""

    client: Callable[[str], Client]
    server: Callable[[str, Answer], NoReturn] | None = None
    broker: Callable[[str], NoReturn] | None = None
    packed: bool = True


def ready() -> None:
    print("ready", flush=True)


def become(program: str, *arguments: str) -> NoReturn:
    """Go on as another program, whose words go to the log."""
    os.dup2(2, 1)
    os.execvp(program, [program, *arguments])


def dial(address: str | tuple[str, int]) -> socket.socket:
    """A connection to a broker, which may not listen yet. Raises OSError when it never does."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    enough = time.monotonic() + PATIENCE_S
    while True:
        line = socket.socket(family)
        try:
            line.connect(address)
        except OSError:
            line.close()
            if time.monotonic() > enough:
                raise
            time.sleep(0.002)
        else:
            return line


def hand_over(address: str, *fds: int) -> None:
    """Give descriptors to the client, who asks for them with `taken`."""
    with contextlib.closing(accepted(address)) as line:
        socket.send_fds(line, [b"f"], list(fds))


def taken(address: str, count: int) -> list[int]:
    with contextlib.closing(dial(f"{address}/line")) as line:
        return socket.recv_fds(line, 1, count)[1]


def accepted(address: str) -> socket.socket:
    """The server's end of a Unix socket, once the client has come."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{address}/line")
        listener.listen()
        ready()
        return listener.accept()[0]


def call_packed(send: Callable[[bytes], Any], receive: Callable[[], bytes]) -> Client:
    """A client that packs what it sends and unpacks what it gets, as a stub does."""

    def call(data: bytes) -> bytes:
        send(pack((data,)))
        answer: bytes = unpack(receive())
        return answer

    return Client(call)
