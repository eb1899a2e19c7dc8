"""workload: what the tests of its clients share: a history that can be read here, and memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from launcher.chaos import history
from launcher.chaos.evidence import Operation
from servers.workload.client import Client, Setting
from servers.workload.history import History
from servers.workload.memory import Memory
from ukernel.abi.interface import Lent
from ukernel.lib.memory import Region

C = TypeVar("C", bound=Client)


class Kept(History):
    """A history that can be read here."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.text = ""

    def say(self, **fields: object) -> None:
        self.text += json.dumps(fields) + "\n"

    def operations(self) -> list[Operation]:
        return history.read(self.text, "client")


class Window:
    """A region of this process."""

    def __init__(self, number: int, size: int) -> None:
        self.token = number.to_bytes(16, "little")
        self.view = memoryview(bytearray(size))

    def lend(self, offset: int, length: int) -> Lent:
        return Lent(self.token, offset, length)

    show = lend


class Windows(Memory):
    """Where a server finds what it was lent, until it is taken back."""

    def __init__(self) -> None:
        self.made: dict[bytes, Window] = {}
        self.taken_back: list[memoryview] = []

    def make(self, size: int) -> Region:
        window = Window(len(self.made) + len(self.taken_back), size)
        self.made[window.token] = window
        return cast(Region, window)

    def take_back(self, region: Region) -> None:
        self.taken_back.append(self.made.pop(region.token).view)

    def view(self, lent: Lent) -> memoryview:
        return self.made[lent.token].view[lent.offset : lent.offset + lent.length]


class Whims:
    """What a server does instead of what it is asked: `next` is called before each operation, and
    again after it with `done`, and may raise."""

    def __init__(self) -> None:
        self.next: Callable[[str, bool], None] = lambda op, done: None

    @contextmanager
    def around(self, op: str) -> Iterator[None]:
        self.next(op, False)
        yield
        self.next(op, True)


def client_of(run: type[C], server: object, memory: Memory | None = None, **options: Any) -> C:
    """A client called `client` of a server in this process."""
    return run(Setting("client", options, Kept(), server, memory or Windows()))


def told(client: Client) -> list[Operation]:
    assert isinstance(client.history, Kept)
    return client.history.operations()


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Its two ends; whoever closes one of them says so by closing both."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)
