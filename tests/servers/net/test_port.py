"""The edge to the driver: it may refuse, answer late, say nonsense, and die."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from servers.net.frames import Frame
from servers.net.places import Places
from servers.net.port import BACKLOG, RECEIVES, SENDS, Port
from servers.net.ring import Piece
from servers.net.store import Geometry, Store
from ukernel.abi.errors import DeadNotRun, DeadUnknown, Overload, Unavailable
from ukernel.abi.interface import Lent
from ukernel.abi.network import Card, Ethernet, TooLong
from ukernel.abi.virtio import NET_HEADER_BYTES
from ukernel.lib import upstream

CARD = Card(b"\x02\0\0\0\0\1", 1500, 0)


class Memory:
    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))

    def lend(self, offset: int, length: int) -> Lent:
        return Lent(b"", offset, length)

    show = lend


class Nic(Ethernet):
    def card(self) -> Card:
        return CARD


class Begun:
    """A call under way."""

    def __init__(self, name: str, args: tuple[Lent, ...]) -> None:
        self.name, self.args = name, args
        self.outcome: Any = None
        self.over = False
        self.done: Callable[[Any], None] | None = None

    def result(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def forget(self) -> None:
        self.over = True

    def end(self, outcome: Any) -> None:
        self.outcome, self.over = outcome, True
        assert self.done is not None
        self.done(self)


class Bench:
    """A port, and everything around it."""

    def __init__(self) -> None:
        self.calls: list[Begun] = []
        self.came: list[tuple[bytes, bool]] = []
        self.lives = 0
        self.memory: dict[str, Memory] = {}
        nic = Nic()
        loop, rings = cast(Any, self), cast(Any, Memory(1 << 16))
        self.port = Port(loop, nic, nic, rings, self._arrived, self._restored)

    def _arrived(self, frame: memoryview, vouched: bool) -> None:
        self.came.append((bytes(frame), vouched))

    def _restored(self) -> None:
        self.lives += 1

    def region(self, name: str, size: int, *, persistent: bool = False) -> Memory:
        return self.memory.setdefault(name, Memory(size))

    def when(self, call: Begun, done: Callable[[Any], None]) -> None:
        call.done = done

    def begin(self, method: Any, *args: Lent) -> Begun:
        self.calls.append(Begun(method.__name__, args))
        return self.calls[-1]

    def open(self, name: str) -> list[Begun]:
        return [call for call in self.calls if call.name == name and not call.over]

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.port.send(Frame(bytes(60)))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(upstream, "begin", made.begin)
    made.port.start()
    return made


def test_a_frame_comes_and_its_memory_is_lent_again(bench: Bench) -> None:
    call = bench.open("receive")[3]
    at = call.args[0].offset
    bench.memory["frames"].view[at : at + NET_HEADER_BYTES + 5] = b"\2".ljust(12, b"\0") + b"hello"
    call.end(NET_HEADER_BYTES + 5)
    assert bench.came == [(b"hello", True)]
    assert bench.calls[-1].args == call.args
    assert len(bench.open("receive")) == RECEIVES


@pytest.mark.parametrize("length", [0, 1, NET_HEADER_BYTES, 1 << 20])
def test_no_length_makes_it_look_beyond_its_memory(bench: Bench, length: int) -> None:
    call = bench.open("receive")[-1]
    call.end(length)
    assert all(len(frame) <= call.args[0].length for frame, _ in bench.came)
    assert len(bench.open("receive")) == RECEIVES


def test_frames_wait_for_their_turn_and_not_without_end(bench: Bench) -> None:
    bench.send(SENDS + BACKLOG + 3)
    assert bench.port.dropped == 3
    for _ in range(SENDS + BACKLOG):
        bench.open("transmit")[0].end(None)
    assert bench.port.gone == bench.port.begun == SENDS + BACKLOG
    assert not bench.open("transmit")


def test_what_is_refused_is_lost_but_says_nothing_of_those_before(bench: Bench) -> None:
    bench.send(3)
    bench.open("transmit")[2].end(TooLong("by a byte"))
    assert bench.port.gone == 0
    bench.open("transmit")[0].end(None)
    assert bench.port.gone == 1
    bench.open("transmit")[0].end(None)
    assert bench.port.gone == 3
    assert bench.port.up


def test_a_driver_that_refuses_is_asked_again_later(bench: Bench) -> None:
    for call in bench.open("receive")[:2]:
        call.end(Overload("so many"))
    assert bench.port.wants_retry
    assert len(bench.open("receive")) == RECEIVES - 2
    bench.port.retry()
    assert len(bench.open("receive")) == RECEIVES


def test_a_driver_dies_and_its_next_life_is_found(bench: Bench) -> None:
    bench.send(SENDS + 2)
    old = bench.open("receive") + bench.open("transmit")
    for call in old:
        call.end(DeadUnknown("in the middle"))
    assert not bench.port.up
    assert bench.port.gone == bench.port.begun
    bench.send()
    assert not bench.open("transmit"), "as on a cable that was pulled out"
    (asked,) = bench.open("card")
    asked.end(DeadNotRun("before it began"))
    (asked,) = bench.open("card")
    asked.end(Unavailable("given up"))
    assert not bench.open("card")
    assert bench.port.wants_retry
    bench.port.retry()
    bench.open("card")[0].end(CARD)
    assert (bench.lives, bench.port.lives, bench.port.up) == (1, 1, True)
    assert len(bench.open("receive")) == RECEIVES
    bench.send()
    assert len(bench.open("transmit")) == 1


def test_another_card_is_a_reason_to_begin_anew(bench: Bench) -> None:
    bench.open("receive")[0].end(DeadUnknown("in the middle"))
    with pytest.raises(SystemExit):
        bench.open("card")[0].end(CARD._replace(mtu=9000))


def test_a_slot_rests_until_its_last_frame_has_gone(bench: Bench) -> None:
    shape = Geometry(1, 64, 64)
    places = Places(Store(memoryview(bytearray(shape.total)), shape, bytes(32)), bench.port, 1)
    taken = places.take(7)
    assert taken is not None
    send, _, slot = taken
    assert places.take(7) is None
    places.give_back(slot)
    places.commit()
    bench.port.send(Frame(bytes(60), Piece(send.base, 10)))  # had waited for a neighbour
    assert places.take(7) is None
    bench.send()
    bench.open("transmit")[1].end(None)
    assert places.take(7) is None
    bench.open("transmit")[0].end(None)
    assert places.take(7) is not None
