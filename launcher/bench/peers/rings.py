"""rings: what a channel is made of, without the library around it: two rings, and bells.

No stub, no dispatcher, no capability: bytes in memory and msgpack at both ends, as the other direct
peers have it. A channel's own path minus this is the price of being called like any other server.
"""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from launcher.bench.job import Client
from launcher.bench.peers import Answer, Peer, hand_over, pack, taken, unpack
from ukernel.lib import bell, ring
from ukernel.lib.ring import Receiver, Rings, Sender

ENDLESS = 1 << 62  # looks before sleeping


class Waiter:
    """One end's waiting for the other: so many looks, then sleep until its bell rings."""

    def __init__(self, rings: Rings, receiver: Receiver, sleeps: int, fd: int, looks: int) -> None:
        self._words = rings.words
        self._receiver = receiver
        self._sleeps = sleeps
        self._looks = looks
        self._poll = select.epoll()
        self._poll.register(fd, bell.RUNG)

    def next(self) -> tuple[int, int, int, bytes]:
        receiver = self._receiver
        while True:
            looks = self._looks
            while not (got := receiver.receive()) and looks:
                looks -= 1
            if got:
                return got
            self._words[self._sleeps] = 1
            bell.fence()
            if not receiver.ready:
                self._poll.poll()
            self._words[self._sleeps] = 0


def send(sender: Sender, number: int, body: bytes, wake: Callable[[], None]) -> None:
    """All of a body, however long the other end takes to make room."""
    sent = sender.send(0, number, 0, body)
    wake()
    while sent < len(body):
        os.sched_yield()
        sent = sender.send(0, number, 0, body, sent)
        wake()


def waker(rings: Rings, sleeps: int, fd: int) -> Callable[[], None]:
    """Wakes the other end if it sleeps."""
    words = rings.words

    def wake() -> None:
        bell.fence()
        if words[sleeps]:
            bell.ring(fd)

    return wake


def server(looks: int, address: str, answer: Answer) -> NoReturn:
    fd = os.memfd_create("bench-rings")
    os.ftruncate(fd, ring.CHANNEL_BYTES)
    ours, theirs = (os.eventfd(1, os.EFD_NONBLOCK) for _ in range(2))
    rings = _mapped(fd)
    hand_over(address, fd, ours, theirs)
    requests = Receiver(rings.words, rings.requests, ring.REQUEST_TAIL, ring.REQUEST_HEAD)
    replies = Sender(rings.words, rings.replies, ring.REPLY_TAIL, ring.REPLY_HEAD)
    waiter = Waiter(rings, requests, ring.SERVER_SLEEPS, ours, looks)
    wake = waker(rings, ring.CLIENT_SLEEPS, theirs)
    while True:
        _, number, _, body = waiter.next()
        send(replies, number, answer(body), wake)


def client(looks: int, address: str) -> Client:
    fd, theirs, ours = taken(address, 3)
    rings = _mapped(fd)
    requests = Sender(rings.words, rings.requests, ring.REQUEST_TAIL, ring.REQUEST_HEAD)
    replies = Receiver(rings.words, rings.replies, ring.REPLY_TAIL, ring.REPLY_HEAD)
    waiter = Waiter(rings, replies, ring.CLIENT_SLEEPS, ours, looks)
    wake = waker(rings, ring.SERVER_SLEEPS, theirs)

    def call(data: bytes) -> bytes:
        send(requests, 1, pack((data,)), wake)
        echoed: bytes = unpack(waiter.next()[3])
        return echoed

    return Client(call)


def _mapped(fd: int) -> Rings:
    return ring.rings(memoryview(mmap.mmap(fd, ring.CHANNEL_BYTES)))


PEERS = {
    "ring_spin": Peer(partial(client, ENDLESS), partial(server, ENDLESS)),
    "ring_block": Peer(partial(client, 0), partial(server, 0)),
}
