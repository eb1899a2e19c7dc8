"""python -m launcher.bench.lone_echo ADDRESS: an echo server without a microkernel.

What others restart in `ukernel bench recovery`. It imports what a server of ours imports, so that
an interpreter takes as long to come up. Its socket takes the place of its predecessor's when it
listens, and not before: whoever sees it can connect. An echo says which process gave it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
from pathlib import Path

from ukernel.abi import wire
from ukernel.lib.confine import live_under

OF_A_SERVER = ("ukernel.abi.services", "ukernel.lib.server")
MAX_MESSAGE = 64 * 1024


def listen(address: str) -> socket.socket:
    """Datagrams in order over a connection: whole messages, and its end is seen at once."""
    fresh = Path(f"{address}.new")
    fresh.unlink(missing_ok=True)  # of a predecessor that was killed here
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.bind(str(fresh))
    made.listen()
    fresh.rename(address)
    return made


def serve(line: socket.socket) -> None:
    """Echo until the client is gone."""
    while request := line.recv(MAX_MESSAGE):
        (data,) = wire.unpack(request)
        line.send(wire.pack((data, os.getpid())))


def main() -> None:
    live_under(os.getppid(), "lone_echo", 0)
    for module in OF_A_SERVER:
        importlib.import_module(module)
    with listen(sys.argv[1]) as listening:
        while True:
            line, _ = listening.accept()
            with line, contextlib.suppress(ConnectionError):
                serve(line)


if __name__ == "__main__":
    main()
