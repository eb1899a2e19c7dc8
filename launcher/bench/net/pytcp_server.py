"""python pytcp_server.py INTERFACE ADDRESS/PREFIX: the servers of the bench on PyTCP's sockets.

PyTCP (PyPI pmd-pytcp, GPL-3.0-or-later) is a TCP/IP stack in Python with an API of its own, in the
process of who uses it. This file runs in a virtual environment of its own, with nothing of
ours but `ends`. Says `ready`, and ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from pmd_net_addr import Ip4IfAddr  # type: ignore[import-not-found,unused-ignore]
from pmd_pytcp import socket, stack  # type: ignore[import-not-found,unused-ignore]

from launcher.bench.net import ends

Serve = Callable[[Any], Awaitable[None]]


async def bulk(line: Any) -> None:
    wanted = b""
    while len(wanted) < ends.WANTED_BYTES:
        wanted += await line.recv(ends.WANTED_BYTES - len(wanted))
    left = int.from_bytes(wanted, "big")
    while left:  # it takes everything at once, and sends it when it can
        left -= await line.send(bytes(min(left, ends.PIECE)))


async def echo(line: Any) -> None:
    while data := await line.recv(ends.PIECE):
        await line.send(data)


async def _accept(port: int, serve: Serve) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("0.0.0.0", port))
    listener.listen()
    conversations = set()
    while True:
        line, _ = await listener.accept()
        conversations.add(task := asyncio.create_task(_served(line, serve)))
        task.add_done_callback(conversations.discard)


async def _served(line: Any, serve: Serve) -> None:
    await serve(line)
    line.close()


async def main(interface: str, address: str) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, over.set)
    stack.init()
    number = stack.add_interface(**stack.initialize_interface__tap(interface), ip6_support=False)
    await stack.start()
    # Not with the interface: then it would look for seconds whether anybody else has it (RFC 5227)
    stack.address.interface(number).add(ifaddr=Ip4IfAddr(address))
    servers = [
        asyncio.create_task(_accept(port, serve))
        for port, serve in ((ends.BULK, bulk), (ends.ECHO, echo))
    ]
    await asyncio.sleep(0)
    print("ready", flush=True)
    os.dup2(2, 1)  # nobody reads there any more
    await over.wait()
    os._exit(0 if servers else 1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
