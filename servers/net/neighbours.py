"""neighbours: who is where on the link, and packets that wait until it is known. Pure.

Believed is who asks for us, since it is about to be answered, and who answers what was asked.
Anything else that tells where somebody is (gratuitous ARP) may move an entry, as when an address
fails over to another machine, but never makes one: nobody can fill this table by talking.

An entry is taken for right for 60 s. Used after that it is still used, and asked for by unicast
(RFC 1122 §2.3.2.1); after three questions without an answer it is forgotten and everybody is
asked; after three more those who wait are told that the host is unreachable.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from servers.net.frames import Frame

SECOND = 1_000_000
FRESH_US = 60 * SECOND
ASK_EACH_US = SECOND
MOST_QUESTIONS = 3
MOST_ENTRIES = 1024
MOST_WAITING = 64  # packets in all; RFC 1122 §2.3.2.2 wants at least one for each
MOST_WAITING_FOR_ONE = 16


class Waiting(NamedTuple):
    """A packet, in as many frames as it has fragments, whose Ethernet headers lack the address."""

    frames: tuple[Frame, ...]


class Question(NamedTuple):
    """An ARP request to be sent; `mac` is empty if everybody is asked."""

    address: int
    mac: bytes


class Neighbour:
    """One entry."""

    def __init__(self, address: int, now: int) -> None:
        self.address = address
        self.mac = b""  # while it is not known
        self.confirmed = now  # when it was last right, or first asked for
        self.fresh_until = 0  # until then it need not be asked for
        self.questions = 0  # that were asked without an answer
        self.ask_at = 0  # when the next one is due; 0: none is under way
        self.waiting: deque[Waiting] = deque()


class Neighbours:
    """The table. `questions` and `failed` are for the caller, who takes and clears them."""

    def __init__(self) -> None:
        self.entries: dict[int, Neighbour] = {}  # the longest unconfirmed first
        self.questions: list[Question] = []
        self.failed: list[Waiting] = []  # waited in vain
        self.waiting = 0
        self.dropped = 0  # of those that waited, for want of room
        self.deadline = 0

    def find(self, address: int, now: int) -> Neighbour:
        """The entry, made if need be and asked for if it is unknown or old."""
        entry = self.entries.get(address)
        if entry is None:
            entry = self._make(address, now)
        if not entry.ask_at and now >= entry.fresh_until:
            self._ask(entry, now)
        return entry

    def wait(self, entry: Neighbour, packet: Waiting) -> None:
        """Keep a packet until the address is known; the oldest has to make room."""
        if self.waiting >= MOST_WAITING or len(entry.waiting) >= MOST_WAITING_FOR_ONE:
            self.dropped += 1
            if not entry.waiting:
                return
            entry.waiting.popleft()
            self.waiting -= 1
        entry.waiting.append(packet)
        self.waiting += 1

    def asked(self, address: int, mac: bytes, now: int) -> Neighbour:
        """Somebody asks for us."""
        entry = self.entries.get(address) or self._make(address, now)
        self._confirm(entry, mac, now)
        return entry

    def told(self, address: int, mac: bytes, now: int) -> Neighbour | None:
        """Somebody says where it is. None if nobody wanted to know."""
        entry = self.entries.get(address)
        if entry is not None:
            self._confirm(entry, mac, now)
        return entry

    def take_waiting(self, entry: Neighbour) -> list[Waiting]:
        packets = list(entry.waiting)
        entry.waiting.clear()
        self.waiting -= len(packets)
        return packets

    def doubt_all(self, now: int) -> None:
        """The link was cut and may lead elsewhere: ask again for everybody who is used. Who is
        waited for is asked for at once."""
        for entry in self.entries.values():
            entry.fresh_until = 0
            if entry.ask_at:
                entry.questions = 0
                self._ask(entry, now)

    def withdraw(self, first: int, end: int) -> None:
        """Forget waiting packets with cargo within these offsets of the region."""
        for entry in self.entries.values() if self.waiting else ():
            kept = [packet for packet in entry.waiting if not _carries(packet, first, end)]
            self.waiting -= len(entry.waiting) - len(kept)
            entry.waiting = deque(kept)

    def tick(self, now: int) -> None:
        """Ask again, or give up."""
        for entry in [entry for entry in self.entries.values() if 0 < entry.ask_at <= now]:
            if entry.questions < MOST_QUESTIONS:
                self._ask(entry, now)
            elif entry.mac:
                entry.mac, entry.questions = b"", 0
                self._ask(entry, now)
            else:
                self._remove(entry)
        times = [entry.ask_at for entry in self.entries.values() if entry.ask_at]
        self.deadline = min(times, default=0)

    def _make(self, address: int, now: int) -> Neighbour:
        if len(self.entries) >= MOST_ENTRIES:
            self._remove(next(iter(self.entries.values())))
        entry = self.entries[address] = Neighbour(address, now)
        return entry

    def _ask(self, entry: Neighbour, now: int) -> None:
        entry.questions += 1
        entry.ask_at = now + ASK_EACH_US
        self.deadline = min(self.deadline or entry.ask_at, entry.ask_at)
        self.questions.append(Question(entry.address, entry.mac))

    def _confirm(self, entry: Neighbour, mac: bytes, now: int) -> None:
        entry.mac = mac
        entry.confirmed = now
        entry.fresh_until = now + FRESH_US
        entry.questions = entry.ask_at = 0
        self.entries[entry.address] = self.entries.pop(entry.address)  # to the end

    def _remove(self, entry: Neighbour) -> None:
        del self.entries[entry.address]
        self.failed += self.take_waiting(entry)


def _carries(packet: Waiting, first: int, end: int) -> bool:
    cargo = packet.frames[0].cargo
    return cargo.length > 0 and cargo.offset < end and cargo.offset + cargo.length > first
