"""python -m launcher.bench.net.sender: the servers of the bench on Linux sockets: bulk and echo.

Says `ready`, and ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable

from launcher.bench.net import ends

Serve = Callable[[socket.socket], None]


def bulk(line: socket.socket) -> None:
    left = int.from_bytes(line.recv(ends.WANTED_BYTES, socket.MSG_WAITALL), "big")
    piece = memoryview(bytes(ends.PIECE))
    while left:
        left -= line.send(piece[:left])


def echo(line: socket.socket) -> None:
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := line.recv(ends.PIECE):
        line.sendall(data)


def _accept(listener: socket.socket, serve: Serve) -> None:
    while True:
        line, _ = listener.accept()
        threading.Thread(target=_served, args=(line, serve), daemon=True).start()


def _served(line: socket.socket, serve: Serve) -> None:
    with line, contextlib.suppress(OSError):  # the client has gone
        serve(line)


def main() -> None:
    for port, serve in ((ends.BULK, bulk), (ends.ECHO, echo)):
        listener = socket.create_server(("", port))
        threading.Thread(target=_accept, args=(listener, serve), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
