"""A guest's disk: what it asks is done, in any order, whatever dies below it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.vmm.blk import CALLS, VmBlk
from servers.vmm.guest_memory import GuestMemory
from tests.servers.vmm.harness import BASE, RAM, Guest, Server
from ukernel.abi import virtio
from ukernel.abi.errors import CallError, Denied, Overload, Poison, Unavailable
from ukernel.abi.services import SECTOR, DeviceFailed
from ukernel.abi.virtio import BLK_HEADER, BlkConfig, BlkStatus, BlkType, Reg, Status
from ukernel.lib.virtio.state import BadState
from ukernel.lib.virtqueue import Segment, Virtqueue, negotiate, start

SECTORS = 64
SLOTS = 8
SLOT_SECTORS = SECTORS // SLOTS
BYTES = SLOT_SECTORS * SECTOR
ROOM = BYTES + 64  # of a slot in the guest's memory
FEATURES = virtio.F_EVENT_IDX | virtio.BLK_F_FLUSH | virtio.BLK_F_RO


class Asked(NamedTuple):
    """A request of the guest."""

    slot: int
    data: list[memoryview]
    status: memoryview


class Rig:
    """A guest with a disk and its driver."""

    def __init__(self, features: int = FEATURES, read_only: bool = False) -> None:
        self.server = Server(SECTORS)
        self.guest = Guest(self.server)
        self.read_only = read_only
        self.guest.plug(self.make)
        self.bring_up(features)

    def make(self, memory: GuestMemory, interrupt: Callable[[], None]) -> VmBlk:
        server = self.server
        block = server.block
        self.blk = VmBlk("vda", memory, interrupt, server, block, block, SECTORS, self.read_only)
        return self.blk

    def bring_up(self, features: int = FEATURES) -> None:
        self.features = negotiate(self.guest, features)
        self.queue: Virtqueue[Asked] = Virtqueue(self.guest, virtio.BLK_QUEUE, 64, self.features)
        self.heads = self.guest.dma(SLOTS * 32)
        self.memory = self.guest.dma(SLOTS * ROOM)
        start(self.guest)

    def ask(
        self, kind: int, slot: int = 0, data: bytes | int = b"", cuts: Sequence[int] = (),
        first: int | None = None, gap: int = 0,
    ) -> Asked:  # fmt: skip
        """A request for the sectors of a slot; `data` is what to write, or how much to read. It is
        cut into buffers that lie `gap` bytes apart."""
        first = slot * SLOT_SECTORS if first is None else first
        size = data if isinstance(data, int) else len(data)
        at, head = slot * ROOM, 32 * slot
        BLK_HEADER.pack_into(self.heads.view, head, kind, 0, first)
        self.heads.view[head + 16] = 0xEE
        edges = [0, *sorted({c for c in cuts if 0 < c < size}), size]
        into, views, middle = isinstance(data, int), [], []
        for number, (a, b) in enumerate(pairwise(edges)):
            place = at + a + gap * number
            views.append(self.memory.view[place : place + b - a])
            if not isinstance(data, int):
                views[-1][:] = data[a:b]
            if b > a:
                middle.append(Segment(self.memory.iova + place, b - a, into))
        header = Segment(self.heads.iova + head, 16, False)
        status = Segment(self.heads.iova + head + 16, 1, True)
        asked = Asked(slot, views, self.heads.view[head + 16 : head + 17])
        self.queue.submit([header, *middle, status], asked)
        self.queue.kick()
        return asked

    def finished(self) -> list[tuple[Asked, int]]:
        self.guest.acknowledge()
        return list(self.queue.completed())

    def run(self, kind: int, data: bytes | int = b"", first: int | None = None) -> tuple[int, int]:
        """One request alone: its status and used.len."""
        asked = self.ask(kind, 0, data, first=first)
        self.server.do_all()
        [(done, written)] = self.finished()
        assert done is asked
        return asked.status[0], written

    @property
    def broken(self) -> bool:
        return bool(self.guest.load(Reg.STATUS) & Status.NEEDS_RESET)

    def restart(self) -> None:
        """The monitor dies and comes back: the device goes on from what was saved."""
        saved = self.guest.window.save()
        self.server.calls.clear()
        self.server.asked.clear()
        self.guest.plug(self.make)
        self.guest.window.restore(saved)


def fill(slot: int, number: int) -> bytes:
    return b"".join(bytes((slot, number & 255, at, 7)) * 128 for at in range(SLOT_SECTORS))


def test_what_is_written_is_read_again() -> None:
    rig = Rig()
    assert BlkConfig.unpack(rig.guest.config(0, virtio.BLK_CONFIG_BYTES)).capacity == SECTORS
    assert rig.run(BlkType.OUT, fill(0, 1)) == (BlkStatus.OK, 1)
    assert rig.run(BlkType.FLUSH) == (BlkStatus.OK, 1)
    assert not rig.server.unflushed
    assert rig.run(BlkType.IN, BYTES) == (BlkStatus.OK, BYTES + 1)
    assert rig.memory.view[:BYTES] == fill(0, 1)


def test_memory_of_the_guest_is_lent_in_one_piece() -> None:
    """However it is described: parts that adjoin are one."""
    rig = Rig()
    rig.ask(BlkType.IN, 1, BYTES, cuts=(100, 512, 1000))
    [call] = rig.server.calls
    first, lent = call.args
    assert (call.name, first, lent.token) == ("read", SLOT_SECTORS, b"ram")
    assert (lent.offset, lent.length) == (rig.memory.iova - BASE + ROOM, BYTES)


STEPS = st.tuples(
    st.sampled_from(["ask", "ask", "end", "end", "end", "die", "revive", "refill", "restart"]),
    st.integers(0, 1 << 16),
    st.lists(st.integers(1, BYTES - 1), max_size=4),
)


class Chaos:
    """Requests in every slot, calls that end in any order, deaths, and a restart in between."""

    def __init__(self, features: int) -> None:
        self.rig = Rig(features)
        self.wanted = [bytes(BYTES) for _ in range(SLOTS)]
        self.busy: dict[int, tuple[Asked, int]] = {}
        self.count = 0

    def step(self, what: str, number: int, cuts: list[int]) -> None:
        getattr(self, what)(number, cuts)
        self.collect()

    def ask(self, number: int, cuts: list[int]) -> None:
        slot, kind = number % SLOTS, (BlkType.OUT, BlkType.IN, BlkType.FLUSH)[number // SLOTS % 3]
        if slot in self.busy:
            return
        self.count += 1
        data: bytes | int = b""
        if kind == BlkType.OUT:
            data = self.wanted[slot] = fill(slot, self.count)
        elif kind == BlkType.IN:
            data = BYTES
            at = slot * ROOM
            self.rig.memory.view[at : at + ROOM] = bytes(ROOM)
        self.busy[slot] = self.rig.ask(kind, slot, data, cuts, gap=number % 3), kind

    def end(self, number: int, _: list[int]) -> None:
        if self.rig.server.calls:
            self.rig.server.do(number % len(self.rig.server.calls))

    def die(self, number: int, _: list[int]) -> None:
        bits = iter(range(1 << 16))
        self.rig.server.die(lambda: bool(number >> next(bits) % 16 & 1))

    def revive(self, number: int, _: list[int]) -> None:
        self.rig.server.revive()

    def refill(self, number: int, _: list[int]) -> None:
        """For once there is no room below."""
        if self.rig.server.calls:
            self.rig.server.end(self.rig.server.calls[0], Overload("full"))

    def restart(self, number: int, _: list[int]) -> None:
        for call in self.rig.server.calls[: number % 3]:
            self.rig.server.perform(call)
        self.rig.restart()

    def collect(self) -> None:
        for asked, written in self.rig.finished():
            expected, kind = self.busy.pop(asked.slot)
            assert asked is expected
            assert asked.status[0] == BlkStatus.OK
            assert written == (BYTES + 1 if kind == BlkType.IN else 1)
            if kind == BlkType.IN:
                assert b"".join(asked.data) == self.wanted[asked.slot]

    def settle(self) -> None:
        while self.busy:
            before = len(self.busy)
            self.rig.server.revive()
            if self.rig.blk.upstream.wants_retry:
                self.rig.blk.upstream.retry()
                self.rig.server.revive()
            self.rig.server.do_all()
            self.collect()
            assert len(self.busy) < before, "nothing is for ever"
        assert self.rig.blk.idle
        assert self.rig.server.disk == b"".join(self.wanted)


@given(st.booleans(), st.lists(STEPS, max_size=40))
def test_whatever_happens_below_the_guest_sees_only_a_delay(
    flushes: bool, steps: list[tuple[str, int, list[int]]]
) -> None:
    chaos = Chaos(FEATURES if flushes else virtio.F_EVENT_IDX)
    for step in steps:
        chaos.step(*step)
    chaos.settle()


@given(st.lists(st.integers(1, 1500), min_size=1, max_size=12), st.booleans())
def test_buffers_that_lie_apart_may_be_cut_anywhere(lengths: list[int], swap: bool) -> None:
    rig = Rig()
    total = sum(lengths) // SECTOR * SECTOR
    rig.server.disk[:] = bytes(at * 7 & 255 for at in range(SECTORS * SECTOR))
    chunk = rig.guest.dma(40_000)
    places, at, left = [], 0, total
    for length in lengths:
        if part := min(length, left):
            places.append((at, part))
            at, left = at + part + 3, left - part  # 3 bytes lie between
    if not places:
        return
    order = places[::-1] if swap else places
    middle = [Segment(chunk.iova + a, n, True) for a, n in order]
    BLK_HEADER.pack_into(rig.heads.view, 0, BlkType.IN, 0, 5)
    asked = Asked(0, [chunk.view], rig.heads.view[16:17])
    head = rig.heads.iova
    rig.queue.submit([Segment(head, 16, False), *middle, Segment(head + 16, 1, True)], asked)
    rig.queue.kick()
    while rig.server.calls:
        rig.server.do(-1)
    assert [written for _, written in rig.finished()] == [total + 1]
    read = b"".join(chunk.view[a : a + n] for a, n in order)
    assert read == rig.server.disk[5 * SECTOR : 5 * SECTOR + total]
    between = [chunk.view[a + n : a + n + 3].tobytes() for a, n in places]
    assert between == [bytes(3)] * len(places)


def scattered(rig: Rig, slot: int, sectors: int = 20) -> None:
    """A request whose sectors lie together nowhere: each half follows the half of another."""
    head, iova = rig.heads.iova + 32 * slot, rig.memory.iova
    BLK_HEADER.pack_into(rig.heads.view, 32 * slot, BlkType.IN, 0, 0)
    halves = [Segment(iova + 600 * at, SECTOR // 2, True) for at in range(2 * sectors)]
    chain = [Segment(head, 16, False), *halves, Segment(head + 16, 1, True)]
    rig.queue.submit(chain, Asked(slot, [rig.memory.view], rig.heads.view[head:]))
    rig.queue.kick()


def test_many_are_under_way_but_not_too_many() -> None:
    rig = Rig()
    asked = [rig.ask(BlkType.IN, slot, BYTES) for slot in range(SLOTS)]
    assert len(rig.server.calls) == SLOTS
    rig.server.do(5)
    assert [done for done, _ in rig.finished()] == [asked[5]]
    for slot in (5, *range(5), 6, 7):
        rig.server.do_all()
        rig.finished()
        assert rig.queue.room == rig.queue.size
        scattered(rig, slot)
        assert rig.blk.under_way == len(rig.server.calls) == CALLS


@pytest.mark.parametrize("error", [DeviceFailed("bad"), Poison("two lives"), Denied("no")])
def test_what_is_refused_is_the_status(error: CallError) -> None:
    rig = Rig()
    asked = rig.ask(BlkType.OUT, 0, fill(0, 1))
    rig.server.end(rig.server.calls[0], error)
    assert [written for _, written in rig.finished()] == [1]
    assert asked.status[0] == BlkStatus.IOERR
    assert rig.run(BlkType.OUT, fill(0, 2)) == (BlkStatus.OK, 1)


def test_a_server_that_was_given_up_is_asked_for_again() -> None:
    rig = Rig()
    rig.ask(BlkType.FLUSH)
    rig.server.end(rig.server.calls[0], Unavailable("stopped"))
    rig.server.revive(Unavailable("stopped"))
    upstream = rig.blk.upstream
    assert (upstream.up, upstream.wants_retry, upstream.deaths) == (False, True, 1)
    upstream.retry()
    upstream.retry()
    assert len(rig.server.asked) == 1
    rig.server.revive()
    assert (upstream.up, upstream.wants_retry) == (True, False)
    rig.server.do_all()
    assert [asked.status[0] for asked, _ in rig.finished()] == [BlkStatus.OK]


def test_another_disk_in_its_place_is_a_reason_to_begin_anew() -> None:
    rig = Rig()
    rig.ask(BlkType.FLUSH)
    rig.server.die()
    with pytest.raises(SystemExit, match="another one: 65, and it was 64"):
        rig.server.revive(65)


def test_a_call_that_cannot_be_begun_waits() -> None:
    rig = Rig()
    rig.server.deaf = Unavailable("gone")
    rig.ask(BlkType.FLUSH)
    assert rig.blk.upstream.wants_retry
    rig.server.deaf = None
    rig.blk.upstream.retry()
    rig.server.revive()
    rig.server.do_all()
    assert len(rig.finished()) == 1


@pytest.mark.parametrize(
    ("kind", "data", "first", "status"),
    [
        (BlkType.IN, SECTOR + 1, 0, BlkStatus.IOERR),
        (BlkType.IN, 0, 0, BlkStatus.IOERR),
        (BlkType.IN, SECTOR, SECTORS, BlkStatus.IOERR),
        (BlkType.OUT, bytes(SECTOR), (1 << 64) - 1, BlkStatus.IOERR),
        (BlkType.DISCARD, bytes(16), 0, BlkStatus.UNSUPP),
        (99, b"", 0, BlkStatus.UNSUPP),
    ],
)
def test_what_cannot_be_done(kind: int, data: bytes | int, first: int, status: int) -> None:
    rig = Rig()
    assert rig.run(kind, data, first)[0] == status
    assert not rig.server.unflushed


def test_a_disk_that_is_not_to_be_written() -> None:
    rig = Rig(read_only=True)
    assert rig.features & virtio.BLK_F_RO
    assert rig.run(BlkType.OUT, bytes(SECTOR))[0] == BlkStatus.IOERR
    assert rig.run(BlkType.IN, SECTOR)[0] == BlkStatus.OK


def test_its_name_is_its_serial() -> None:
    rig = Rig()
    assert rig.run(BlkType.GET_ID, 20) == (BlkStatus.OK, 21)
    assert rig.memory.view[:20] == b"vda".ljust(20, b"\0")


def test_without_flushes_a_write_is_durable_at_once() -> None:
    rig = Rig(features=0)
    rig.ask(BlkType.OUT, 0, fill(0, 1))
    rig.server.do()
    assert rig.finished() == []
    assert [call.name for call in rig.server.calls] == ["flush"]
    rig.server.do()
    assert len(rig.finished()) == 1


def test_memory_that_the_guest_does_not_have() -> None:
    rig = Rig()
    BLK_HEADER.pack_into(rig.heads.view, 0, BlkType.IN, 0, 0)
    head = rig.heads.iova
    for iova in (BASE + RAM - 1, BASE - 1, 0, (1 << 64) - 1):
        chain = [Segment(head, 16, False), Segment(iova, SECTOR, True), Segment(head + 16, 1, True)]
        rig.queue.submit(chain, Asked(0, [rig.heads.view], rig.heads.view[16:17]))
    rig.queue.kick()
    assert [asked.status[0] for asked, _ in rig.finished()] == [BlkStatus.IOERR] * 4
    assert rig.guest.memory.faults.total == 4
    assert "the guest has memory from 0x80000000" in rig.guest.memory.faults.recent[0].why
    assert not rig.broken


def test_a_chain_is_in_flight_once() -> None:
    """So the monitor never remembers more requests than the queue is long."""
    rig = Rig()
    rig.ask(BlkType.FLUSH)
    ring = rig.queue._avail
    ring[virtio.AVAIL_RING + 1] = ring[virtio.AVAIL_RING]
    ring[virtio.RING_IDX] = 2
    rig.guest.ring_doorbell()
    assert rig.broken
    assert "in flight already" in rig.guest.memory.faults.recent[-1].why
    rig.server.do_all()
    assert rig.queue._used_idx[virtio.RING_IDX] == 0, "a broken device is silent"


def test_a_reset_is_complete_when_nobody_has_the_memory() -> None:
    rig = Rig()
    rig.ask(BlkType.IN, 0, BYTES)
    rig.guest.store(Reg.STATUS, 0)
    assert rig.guest.load(Reg.STATUS) != 0
    used = rig.queue._used_idx[virtio.RING_IDX]
    rig.server.do_all()
    assert rig.guest.load(Reg.STATUS) == 0
    assert rig.queue._used_idx[virtio.RING_IDX] == used
    assert not rig.guest.high
    rig.bring_up()
    assert rig.run(BlkType.FLUSH) == (BlkStatus.OK, 1)


def test_what_died_with_a_reset_is_not_asked_again() -> None:
    rig = Rig()
    rig.ask(BlkType.OUT, 0, fill(0, 1))
    rig.guest.store(Reg.STATUS, 0)
    rig.server.die()
    rig.server.revive()
    assert rig.server.calls == []
    assert rig.guest.load(Reg.STATUS) == 0


def test_a_driver_that_turns_its_queue_off_and_on_fills_nothing() -> None:
    rig = Rig()
    rig.ask(BlkType.FLUSH)
    rig.server.die()
    for _ in range(50):
        rig.guest.store(Reg.QUEUE_READY, 0)
        rig.guest.store(Reg.QUEUE_READY, 1)
        rig.guest.ring_doorbell()
        assert len(rig.blk._waiting) <= CALLS + 1


def test_the_line_is_high_until_it_is_acknowledged() -> None:
    rig = Rig()
    rig.ask(BlkType.FLUSH)
    levels = [rig.guest.high]
    for step in (rig.server.do_all, rig.guest.acknowledge):
        step()
        levels.append(rig.guest.high)
    assert levels == [False, True, False]


@given(st.binary(max_size=200))
def test_no_bytes_are_believed(noise: bytes) -> None:
    rig = Rig()
    rig.ask(BlkType.IN, 0, BYTES)
    saved = rig.guest.window.save()
    for data in (noise, noise + saved[len(noise) :], saved[: len(noise)]):
        if data != saved:
            rig.guest.plug(rig.make)
            try:
                rig.guest.window.restore(data)
            except BadState:
                assert rig.guest.load(Reg.STATUS) == 0
