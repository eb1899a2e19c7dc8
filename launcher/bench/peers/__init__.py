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
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgpack

from launcher.bench.job import Client

pack, unpack = msgpack.packb, msgpack.unpackb
Answer = Callable[[bytes], bytes]  # what a server makes of a request
PATIENCE_S = 10.0  # for a broker to listen
LOOK_AGAIN_S = 0.002

T = TypeVar("T")


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
    """A connection to a broker, which may not listen yet. Raises TimeoutError if it never does."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET

    def connected() -> socket.socket | None:
        line = socket.socket(family)
        if line.connect_ex(address):
            line.close()
            return None
        return line

    return found(connected, f"nobody listens on {address}")


def found(look: Callable[[], T | None], otherwise: str) -> T:
    """What `look` finds, as soon as it does: a foreign program tells nobody when it is ready.
    Raises TimeoutError, saying `otherwise`."""
    enough = time.monotonic() + PATIENCE_S
    while (seen := look()) is None:
        if time.monotonic() > enough:
            raise TimeoutError(otherwise)
        time.sleep(LOOK_AGAIN_S)
    return seen


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
