"""stack: a network stack without a network. What it says is made up, and some of it is wrong.

What a ping meets is in its host: 10.0.0.SOMETHING, see `PING`.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from ukernel.abi.network import (
    Address,
    BadAddress,
    InterfaceRow,
    Neighbour,
    Network,
    NoSuchName,
    SocketRow,
    TimedOut,
    Unreachable,
)
from ukernel.lib.server import Server

SOCKETS = 70  # more than a page
PAGE = 64
MAC = bytes.fromhex("0200000000fe")
PING_NS = 1_234_567


class Stack(Server, Network):
    def setup(self) -> None:
        self.memory_of_lives = self.region("lives", 4096, persistent=True)
        self.pings = 0

    def interfaces(self) -> list[InterfaceRow]:
        return [
            InterfaceRow(
                "nic0", MAC, "10.0.0.1", 24, "", 1500, True, 7, 8, 700, 800, 1, 2
            )
        ]  # fmt: skip

    def sockets(self, start: int) -> list[SocketRow]:
        return [self._socket(number) for number in range(start, min(SOCKETS, start + PAGE))]

    def _socket(self, number: int) -> SocketRow:
        here, there = Address("10.0.0.1", 1000 + number), Address("10.0.0.2", 80)
        return SocketRow("tcp", here, there, "ESTABLISHED", 1, 2, 3, 40, 5000, 6)

    def neighbours(self) -> list[Neighbour]:
        return [Neighbour("10.0.0.2", MAC, 1500), Neighbour("10.0.0.9", b"", 10)]

    def resolve(self, name: str) -> list[str]:
        if name == "half":
            return [7]  # type: ignore[list-item]  # a wrong answer
        if name == "nobody":
            raise NoSuchName("no name server knows nobody")
        return ["10.0.0.2"] if name == "peer" else [name]

    def ping(self, host: str, size: int, timeout_ms: int) -> int:
        self.pings += 1
        outcome: int = PING[host](self)  # or none: see `Pending`
        return outcome


def _dies(stack: Stack) -> int:
    if not stack.memory_of_lives.view[0]:
        stack.memory_of_lives.view[0] = 1
        os.kill(os.getpid(), signal.SIGKILL)
    return PING_NS


def _every_second(stack: Stack) -> int:
    if stack.pings % 2:
        raise TimedOut("no reply")
    return PING_NS


def _raises(answer: Exception) -> Any:
    def act(_: Stack) -> int:
        raise answer

    return act


PING: dict[str, Any] = {
    "10.0.0.2": lambda _: PING_NS,
    "10.0.0.3": _every_second,
    "10.0.0.4": _raises(TimedOut("no reply")),
    "10.0.0.5": _raises(Unreachable("no neighbour has this address")),
    "10.0.0.6": _dies,
    "10.0.0.7": _raises(BadAddress("a broadcast")),
    "10.0.0.8": lambda stack: stack.pending(),  # and never an answer
}

if __name__ == "__main__":
    Stack.run()
