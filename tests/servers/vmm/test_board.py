"""The bus: who gets an access, interrupt lines, the clock, and what is saved of them."""

from __future__ import annotations

import pytest

from servers.vmm.board import (
    CLINT,
    FINISHER,
    PLIC,
    REMEMBERED,
    SLOT_BYTES,
    UART,
    UART_IRQ,
    VIRTIO,
    VIRTIO_IRQ,
    BadBoard,
    Board,
    Wild,
)
from servers.vmm.clint import MTIME, MTIMECMP
from servers.vmm.plic import CLAIM, CONTEXT, ENABLE
from servers.vmm.traps import Line
from ukernel.abi.virtio import MAGIC, Reg
from ukernel.abi.wire import pack


class Clock:
    def __init__(self) -> None:
        self.ns = 5_000_000

    def __call__(self) -> int:
        return self.ns


class Card:
    """A device that notes what is done with it."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.turns = 2
        self.kept = b"card"

    def load(self, offset: int, size: int) -> int:
        self.seen.append((offset, size))
        return 7

    def store(self, offset: int, size: int, value: int) -> None:
        self.seen.append((offset, size, value))

    def turn(self) -> bool:
        self.turns -= 1
        return self.turns > 0

    def reset(self) -> None:
        self.seen.append(())

    def save(self) -> bytes:
        return self.kept

    def restore(self, data: bytes) -> None:
        self.kept = data


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shown() -> bytearray:
    return bytearray()


@pytest.fixture
def board(clock: Clock, shown: bytearray) -> Board:
    return Board(shown.extend, clock)


def listen(board: Board, irq: int) -> None:
    board.store(PLIC + 4 * irq, 4, 1)
    board.store(PLIC + ENABLE, 4, 1 << irq)


def test_slots(board: Board) -> None:
    card = Card()
    board.plug(3, card)
    at = VIRTIO + 3 * SLOT_BYTES
    assert board.load(at + 0x10, 4) == 7
    board.store(at + 0x50, 4, 1)
    assert card.seen == [(0x10, 4), (0x50, 4, 1)]
    empty = VIRTIO + 4 * SLOT_BYTES
    assert [board.load(empty + offset, 4) for offset in (Reg.MAGIC, Reg.VERSION)] == [MAGIC, 2]
    assert board.load(empty + Reg.DEVICE_ID, 4) == 0
    board.store(empty + Reg.STATUS, 4, 1)
    assert not board.wild_times
    assert [board.work(), board.work()] == [True, False]
    board.reset()
    assert card.seen[-1] == ()


def test_the_line_of_a_device(board: Board) -> None:
    line = board.line(2)
    listen(board, VIRTIO_IRQ + 2)
    line(True)
    assert board.lines == Line.MEI
    assert board.load(PLIC + CONTEXT + CLAIM, 4) == VIRTIO_IRQ + 2
    assert board.lines == 0
    line(False)
    board.store(PLIC + CONTEXT + CLAIM, 4, VIRTIO_IRQ + 2)
    assert board.lines == 0


def test_typing_interrupts(board: Board, shown: bytearray) -> None:
    listen(board, UART_IRQ)
    board.store(UART + 1, 1, 1)
    assert board.feed(b"q") == 1
    assert board.lines == Line.MEI
    assert board.load(UART, 1) == ord("q")
    assert board.lines == 0
    board.store(UART, 1, ord("!"))
    assert shown == b"!"


def test_the_timer(board: Board, clock: Clock) -> None:
    assert board.load(CLINT + MTIME, 8) == 0
    board.store(CLINT + MTIMECMP, 8, 1000)
    assert (board.poll(), board.lines) == (100_000, 0)
    clock.ns += 100_000
    assert (board.poll(), board.lines) == (None, Line.MTI)
    assert board.time() == 1000
    board.store(CLINT + MTIMECMP, 8, 2000)
    assert board.lines == 0


def test_a_paused_guest_has_a_clock_that_stands(board: Board, clock: Clock) -> None:
    clock.ns += 1000
    board.pause()
    board.pause()
    clock.ns += 50_000
    assert board.now_ns() == 1000
    board.resume()
    clock.ns += 200
    assert board.now_ns() == 1200


def test_the_end(board: Board) -> None:
    ends = []
    for value in (0, 0x7777):
        board.store(FINISHER, 4, value)
        ends.append(board.halted)
    board.reset()
    assert [*ends, board.halted] == ["", "reset", ""]


def test_wild_accesses_are_counted(board: Board) -> None:
    assert board.load(0x4000, 8) == 0
    board.store(0x7FFF_FFFF, 1, 5)
    board.load(UART, 4)  # too wide
    board.load(PLIC + 2, 4)
    assert list(board.wild)[:2] == [Wild(0x4000, 8, False), Wild(0x7FFF_FFFF, 1, True)]
    for at in range(100):
        board.load(at, 1)
    assert (board.wild_times, len(board.wild)) == (104, REMEMBERED)


def test_a_board_comes_back(board: Board, clock: Clock) -> None:
    board.plug(1, Card())
    listen(board, VIRTIO_IRQ + 1)
    board.line(1)(True)
    board.store(CLINT + MTIMECMP, 8, 1000)
    clock.ns += 40_000
    board.load(0, 1)
    saved = board.save()
    later = Clock()
    later.ns = 7
    again, card = Board(lambda _: None, later), Card()
    card.kept = b"another"
    again.plug(1, card)
    again.restore(saved)
    assert card.kept == b"card"
    assert (again.now_ns(), again.lines, again.wild_times) == (40_000, Line.MEI, 1)
    later.ns += 5_000_000
    again.resume()
    assert again.poll() == 60_000
    assert again.load(PLIC + CONTEXT + CLAIM, 4) == VIRTIO_IRQ + 1


@pytest.mark.parametrize(
    "state", [b"", b"\xc1", pack([1, 2]), pack([0, "", 0, b"", b"", b"", [b""] * 8]), pack([0] * 7)]
)
def test_what_is_no_board(board: Board, state: bytes) -> None:
    with pytest.raises(BadBoard):
        board.restore(state)


def test_a_board_with_other_devices(board: Board) -> None:
    saved = board.save()
    board.plug(0, Card())
    with pytest.raises(BadBoard, match="devices"):
        board.restore(saved)
