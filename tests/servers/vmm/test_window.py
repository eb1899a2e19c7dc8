"""Registers in a guest's address space, its memory by address, and going on elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.vmm.guest_memory import GuestMemory, Span
from servers.vmm.pieces import cut
from tests.servers.vmm.harness import BASE, RAM, Guest, Server
from ukernel.abi import virtio
from ukernel.abi.services import SECTOR
from ukernel.abi.virtio import Reg
from ukernel.lib.virtio.console import Console
from ukernel.lib.virtio.dma import DmaFault
from ukernel.lib.virtio.rng import Rng
from ukernel.lib.virtio.state import BadState
from ukernel.lib.virtqueue import Segment, Virtqueue, negotiate, start


class Terminal:
    """A guest with a console."""

    def __init__(self) -> None:
        self.shown: list[bytes] = []
        self.guest = Guest(Server())
        self.guest.plug(self.make)
        features = negotiate(self.guest, virtio.F_EVENT_IDX)
        self.coming: Virtqueue[int] = Virtqueue(self.guest, virtio.CONSOLE_RECEIVEQ, 8, features)
        self.going: Virtqueue[int] = Virtqueue(self.guest, virtio.CONSOLE_TRANSMITQ, 8, features)
        self.memory = self.guest.dma(4096)
        start(self.guest)

    def make(self, memory: GuestMemory, interrupt: Callable[[], None]) -> Console:
        self.console = Console("console", memory, interrupt, self.shown.append)
        return self.console

    def show(self, text: bytes) -> None:
        self.memory.view[: len(text)] = text
        self.going.submit([Segment(self.memory.iova, len(text), False)], 0)
        self.going.kick()
        assert len(list(self.going.completed())) == 1

    def typed(self) -> bytes:
        self.coming.submit([Segment(self.memory.iova + 1024, 64, True)], 0)
        self.coming.kick()
        return b"".join(
            self.memory.view[1024 : 1024 + length].tobytes()
            for _, length in self.coming.completed()
        )


def test_a_console_goes_on_elsewhere() -> None:
    terminal = Terminal()
    terminal.show(b"before")
    assert terminal.console.feed(b"typed") == 5
    saved = terminal.guest.window.save()
    terminal.guest.plug(terminal.make)
    terminal.guest.window.restore(saved)
    assert terminal.typed() == b"typed"
    terminal.show(b"after")
    assert terminal.shown == [b"before", b"after"]


def test_the_line_goes_the_same_way() -> None:
    terminal = Terminal()
    terminal.show(b"x")
    edges = terminal.guest.edges
    assert terminal.guest.high
    saved = terminal.guest.window.save()
    terminal.guest.plug(terminal.make)
    terminal.guest.window.restore(saved)
    assert terminal.guest.edges == edges + 1
    terminal.guest.window.reset()
    assert not terminal.guest.high


def test_bytes_of_the_configuration_space_are_read_by_any_size() -> None:
    guest = Guest(Server())
    guest.plug(lambda memory, interrupt: Rng("rng", memory, interrupt, seed=1))
    guest.window.device.config_space = bytes(range(1, 7))
    assert guest.window.load(Reg.CONFIG + 1, 2) == 0x0302
    assert guest.window.load(Reg.CONFIG, 8) == 0x060504030201
    assert guest.window.load(Reg.CONFIG + 100, 4) == 0
    assert (guest.window.load(Reg.MAGIC, 4), guest.window.load(Reg.MAGIC, 1)) == (virtio.MAGIC, 0)
    guest.window.store(Reg.STATUS, 1, 1)
    assert guest.load(Reg.STATUS) == 0


def test_random_bytes_for_a_guest() -> None:
    guest = Guest(Server())
    guest.plug(lambda memory, interrupt: Rng("rng", memory, interrupt, seed=1))
    queue: Virtqueue[int] = Virtqueue(guest, 0, 8, negotiate(guest, 0))
    start(guest)
    memory = guest.dma(64)
    queue.submit([Segment(memory.iova, 64, True)], 0)
    queue.kick()
    assert [length for _, length in queue.completed()] == [64]
    assert bytes(memory.view) != bytes(64)


def test_another_device_does_not_go_on() -> None:
    saved = Terminal().guest.window.save()
    guest = Guest(Server())
    guest.plug(lambda memory, interrupt: Rng("rng", memory, interrupt, seed=1))
    with pytest.raises(BadState):
        guest.window.restore(saved)


@given(st.binary(max_size=120), st.integers(0, 120))
def test_no_bytes_break_a_device(noise: bytes, at: int) -> None:
    terminal = Terminal()
    terminal.console.feed(b"typed")
    saved = terminal.guest.window.save()
    terminal.guest.plug(terminal.make)
    try:
        terminal.guest.window.restore(saved[:at] + noise + saved[at + len(noise) :])
    except BadState:
        assert terminal.guest.load(Reg.STATUS) == 0


@pytest.mark.parametrize(
    ("iova", "length"), [(BASE - 1, 1), (BASE + RAM, 1), (BASE, RAM + 1), (0, 8), (1 << 63, 8)]
)
def test_memory_that_is_not_the_guests(iova: int, length: int) -> None:
    guest = Guest(Server())
    memory = GuestMemory("vda", guest.ram, "vm-a")
    with pytest.raises(DmaFault):
        memory.view(iova, length, write=False)
    assert memory.faults.total == 1
    assert memory.faults.recent[0].driver == "vm-a"
    assert len(memory.view(BASE, RAM, write=True)) == RAM


def test_where_views_lie() -> None:
    ram = Guest(Server()).ram
    views = [ram.view[10:20], ram.view[20:25], ram.view[30:31], ram.view[5:30]]
    spans = ram.spans(views)
    assert spans == [Span(10, 15), Span(30, 1), Span(5, 25)]
    assert [len(view) for view in ram.views(spans)] == [15, 1, 25]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3000)), max_size=12))
def test_pieces_are_whole_sectors_and_all_of_them(parts: list[tuple[int, int]]) -> None:
    spans = [Span(place * 10_000, length) for place, length in parts]
    spare = -sum(length for _, length in spans) % SECTOR
    spans += [Span(0, spare)] if spare else []
    pieces = cut(spans)
    flat = [byte for _, some in pieces for o, n in some for byte in range(o, o + n)]
    assert flat == [byte for o, n in spans for byte in range(o, o + n)]
    at = 0
    for first, some in pieces:
        sectors, rest = divmod(sum(n for _, n in some), SECTOR)
        assert (first, rest) == (at, 0)
        assert len(some) == 1 or sectors == 1
        at += sectors
