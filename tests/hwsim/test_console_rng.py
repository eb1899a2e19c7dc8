"""The console and the entropy source through their drivers."""

from __future__ import annotations

from hwsim.iommu import Iommu
from tests.hwsim.harness import Line, Region, Wire
from ukernel.abi.virtio import CONSOLE_RECEIVEQ, CONSOLE_TRANSMITQ, RNG_QUEUE
from ukernel.lib.virtio.console import INPUT_ROOM, Console
from ukernel.lib.virtio.rng import MOST_BYTES, Rng
from ukernel.lib.virtqueue import Segment, Virtqueue, negotiate, start


class Terminal:
    """A console with both its queues up, and what it showed."""

    def __init__(self) -> None:
        self.shown = b""
        self.line = Line()
        self.console = Console("con0", Iommu("con0"), self.line, self.show)
        self.up()

    def up(self) -> None:
        self.wire = Wire(self.console)
        negotiate(self.wire, 0)
        self.receive: Virtqueue[Region] = Virtqueue(self.wire, CONSOLE_RECEIVEQ, 8)
        self.transmit: Virtqueue[None] = Virtqueue(self.wire, CONSOLE_TRANSMITQ, 8)
        start(self.wire)

    def show(self, data: bytes) -> None:
        self.shown += data

    def give_buffer(self, size: int) -> None:
        buffer = self.wire.dma(size)
        self.receive.submit([Segment(buffer.iova, size, True)], buffer)
        self.receive.kick()

    def received(self) -> list[bytes]:
        return [bytes(b.view[:written]) for b, written in self.receive.completed()]


def test_output_is_shown_in_order() -> None:
    terminal = Terminal()
    buffer = terminal.wire.dma(16)
    buffer.view[:10] = b"hello, you"
    terminal.transmit.submit(
        [Segment(buffer.iova, 7, False), Segment(buffer.iova + 7, 3, False)], None
    )
    terminal.transmit.submit([Segment(buffer.iova, 5, False)], None)
    terminal.transmit.kick()
    assert terminal.shown == b"hello, youhello"
    assert list(terminal.transmit.completed()) == [(None, 0), (None, 0)]


def test_input_fills_the_buffers_there_are() -> None:
    terminal = Terminal()
    terminal.give_buffer(4)
    terminal.give_buffer(4)
    assert not terminal.received()
    assert terminal.console.feed(b"abcdefghij") == 10
    assert terminal.received() == [b"abcd", b"efgh"]
    assert not terminal.console.backlog
    terminal.give_buffer(64)
    assert terminal.received() == [b"ij"]


def test_input_waits_for_the_next_driver() -> None:
    terminal = Terminal()
    terminal.console.reset()
    terminal.wire.domain.assign("console")
    assert terminal.console.feed(b"typed meanwhile") == 15
    terminal.up()
    terminal.give_buffer(64)
    assert terminal.received() == [b"typed meanwhile"]


def test_waiting_input_is_bounded() -> None:
    console = Terminal().console
    assert console.feed(b"x" * (INPUT_ROOM - 3)) == INPUT_ROOM - 3
    assert console.feed(b"12345") == 3
    assert console.feed(b"more") == 0


def entropy(seed: int | None, size: int) -> bytes:
    wire = Wire(Rng("rng0", Iommu("rng0"), Line(), seed))
    negotiate(wire, 0)
    queue: Virtqueue[str] = Virtqueue(wire, RNG_QUEUE, 4)
    start(wire)
    buffer = wire.dma(size)
    queue.submit([Segment(buffer.iova, 5, True), Segment(buffer.iova + 5, size - 5, True)], "c")
    queue.kick()
    [(cookie, written)] = queue.completed()
    assert cookie == "c"
    assert not any(buffer.view[written:])
    return bytes(buffer.view[:written])


def test_entropy_repeats_only_with_a_seed() -> None:
    assert entropy(7, 64) == entropy(7, 64)
    assert entropy(7, 64) != entropy(8, 64)
    assert entropy(None, 64) != entropy(None, 64)
    assert len(entropy(None, 64)) == 64


def test_entropy_is_given_in_portions() -> None:
    assert len(entropy(1, 3 * MOST_BYTES)) == MOST_BYTES
