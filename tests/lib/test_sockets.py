"""sockets: positions go on across calls, windows are given once, after a death it asks again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from ukernel.abi.errors import DeadNotRun, DeadUnknown, Overload
from ukernel.abi.interface import Lent
from ukernel.abi.network import READABLE, Address, Network, NoBuffers, Ready, Stream
from ukernel.lib.memory import Region
from ukernel.lib.server import Server
from ukernel.lib.sockets import Port, SocketMemory, TcpStream, Watch, Window


class Memory:
    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))

    def lend(self, offset: int, length: int) -> Lent:
        return Lent(b"", offset, length)

    show = lend


class Echo:
    """A connection that takes three bytes of each call, and gives back what it took."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.taken = b""

    def send(self, at: int, data: Lent) -> int:
        assert at == len(self.taken)
        end = data.offset + min(3, data.length)
        self.taken += bytes(self.memory.view[data.offset : end])
        return len(self.taken)

    def recv(self, at: int, into: Lent) -> int:
        piece = self.taken[at : at + into.length]
        self.memory.view[into.offset : into.offset + len(piece)] = piece
        return len(piece)


def test_a_stream_keeps_its_positions() -> None:
    memory = Memory(64)
    windows = SocketMemory(cast(Region, memory), 8)
    windows.take()
    echo = Echo(memory)
    stream = TcpStream(cast(Stream, echo), windows.take())
    stream.send_all(b"a longer text")
    assert stream.sent == len(b"a longer text")
    assert bytes(stream.recv(2)) == b"a "
    assert bytes(stream.recv()) == b"longer t"
    assert bytes(stream.recv()) == b"ext"
    assert bytes(stream.recv()) == b""
    assert stream.received == stream.sent


def test_windows_are_whole_and_nobody_elses() -> None:
    windows = SocketMemory(cast(Region, Memory(100)), 32)
    taken = [windows.take() for _ in range(3)]
    assert sorted(window.offset for window in taken) == [0, 32, 64]
    with pytest.raises(Overload):
        windows.take()
    windows.give_back(taken[1])
    assert windows.take() == taken[1]
    assert taken[1].lend(4, 8) == Lent(b"", taken[1].offset + 4, 8)
    assert len(Window(cast(Region, Memory(9)), 4, 5).view) == 5


class Call:
    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name = name
        self.args = args
        self.outcome: Any = None

    def result(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class World:
    """A server with its loop, the network and a listener of it; the test says the outcomes."""

    def __init__(self) -> None:
        self.begun: list[tuple[Call, Callable[[Any], None]]] = []

    def when(self, call: Call, done: Callable[[Any], None]) -> None:
        self.begun.append((call, done))

    def ready(self) -> None: ...

    def accept(self, tag: int) -> None: ...

    def listen(self, at: Address, backlog: int, tag: int) -> World:
        assert tag == 0
        return self

    def _begun(self, name: str, args: tuple[Any, ...]) -> Call:
        return Call(name, args)

    def end(self, name: str, outcome: Any) -> Call:
        """Give the one call of this name its outcome."""
        ((call, done),) = [begun for begun in self.begun if begun[0].name == name]
        self.begun.remove((call, done))
        call.outcome = outcome
        done(call)
        return call

    @property
    def names(self) -> list[str]:
        return sorted(call.name for call, _ in self.begun)


def test_a_death_is_asked_again_and_nobody_is_told() -> None:
    world = World()
    told: list[int] = []
    watch = Watch(cast(Server, world), cast(Network, world))
    tag = watch.tag()
    watch.tell(tag, told.append)
    for error in (DeadUnknown("died"), DeadNotRun("died")):
        world.end("ready", error)
        assert (world.names, told) == (["ready"], [])
    world.end("ready", [Ready(tag, READABLE), Ready(tag + 1, READABLE)])
    assert told == [READABLE]
    watch.forget(tag)
    world.end("ready", [Ready(tag, READABLE)])
    assert (world.names, told) == (["ready"], [READABLE])
    with pytest.raises(NoBuffers):
        world.end("ready", NoBuffers("that is no outcome of this call"))


def test_a_port_takes_one_connection_after_the_other() -> None:
    world = World()
    came: list[tuple[Any, int]] = []
    watch = Watch(cast(Server, world), cast(Network, world))
    port = Port(watch, Address("0.0.0.0", 7), 4, lambda stream, tag: came.append((stream, tag)))
    first = world.end("accept", DeadUnknown("died"))
    again = world.end("accept", "stream")
    assert first.args == again.args
    assert came == [("stream", first.args[0])]
    assert world.names == ["ready"]
    port.more()
    port.more()
    assert world.end("accept", NoBuffers("later")).args != first.args
    assert world.names == ["ready"]
    port.more()
    assert world.names == ["accept", "ready"]
