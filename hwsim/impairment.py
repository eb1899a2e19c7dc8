"""impairment: a link that loses, repeats, reorders, corrupts, delays and slows down frames.

`Lane`, one direction, is pure: chance and the time come in, so the same seed and the same frames
have the same fate. `Impairment` is the stage that has two of them. What passes it are real frames,
cut and with complete checksums, so that each may be lost alone, and corruption shows.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from hwsim.inbox import ROOM, Inbox
from ukernel.abi.faults import CORRUPT_FRAME, DUPLICATE_FRAME, LOSE_FRAME, REORDER_FRAME
from ukernel.abi.virtio import NET_HEADER_BYTES, NET_MOST_BYTES
from ukernel.lib.virtio.cable import NONE, Cable, Stage
from ukernel.lib.virtio.offload import CAME, ETHERNET, IPV4, PLAIN, BadFrame, Frame, real
from ukernel.lib.virtio.queue import Views

HOLD_NS = 10_000_000  # a frame that is to come after the next waits no longer for it
UNDER_WAY = 4096  # frames of one direction
QUEUE_BYTES = ROOM * 1514  # that wait before a slow link
MS = 1_000_000

Strikes = Callable[[str], bool]  # whether the next frame meets this fault


class Pace(NamedTuple):
    """How long a link takes."""

    delay_ns: int = 0
    jitter_ns: int = 0
    rate: int = 0  # bytes in a second; 0: at once


AT_ONCE = Pace()


class Due(NamedTuple):
    """A frame and when it arrives."""

    at_ns: int
    frame: Frame


class Lane:
    """One direction of a link. `shape` decides how much later, and which bit is another."""

    def __init__(self, strikes: Strikes, shape: random.Random, pace: Pace = AT_ONCE) -> None:
        self._strikes = strikes
        self._shape = shape
        self._pace = pace
        self._under_way: deque[Due] = deque()  # by their time
        self._held: Due | None = None  # goes after the next one, or at this time
        self._free_ns = 0  # when the link has sent what waits for it
        self.dropped = 0  # without room

    def __len__(self) -> int:
        return len(self._under_way) + (self._held is not None)

    def offer(self, frame: Frame, now_ns: int) -> None:
        """A frame is sent."""
        strikes = self._strikes
        if strikes(LOSE_FRAME):
            return
        if strikes(CORRUPT_FRAME):
            frame = damaged(frame, self._shape)
            if not frame:
                return
        twice = strikes(DUPLICATE_FRAME)
        if self._held is None and strikes(REORDER_FRAME):
            self._held = Due(now_ns + HOLD_NS, frame)
        else:
            self._go(frame, now_ns)
            self._let_go(now_ns)
        if twice:
            self._go(frame, now_ns)
            self._let_go(now_ns)

    def due(self, now_ns: int) -> list[Frame]:
        """Frames that have arrived."""
        if self._held is not None and self._held.at_ns <= now_ns:
            self._let_go(now_ns)
        arrived = []
        while self._under_way and self._under_way[0].at_ns <= now_ns:
            arrived.append(self._under_way.popleft().frame)
        return arrived

    @property
    def deadline_ns(self) -> int | None:
        """When the next one arrives, unless another is sent before."""
        times = [self._held.at_ns] if self._held is not None else []
        if self._under_way:
            times.append(self._under_way[0].at_ns)
        return min(times, default=None)

    def _let_go(self, now_ns: int) -> None:
        if self._held is not None:
            frame, self._held = self._held.frame, None
            self._go(frame, now_ns)

    def _go(self, frame: Frame, now_ns: int) -> None:
        """Onto the link. Frames stay in their order, however late one is."""
        delay_ns, jitter_ns, rate = self._pace
        sent_ns = now_ns
        if rate:
            begins_ns = max(now_ns, self._free_ns)
            if (begins_ns - now_ns) * rate > QUEUE_BYTES * 1_000_000_000:
                self.dropped += 1
                return
            sent_ns = self._free_ns = begins_ns + len(frame) * 1_000_000_000 // rate
        if len(self._under_way) >= UNDER_WAY:
            self.dropped += 1
            return
        if jitter_ns:
            delay_ns = max(0, delay_ns + self._shape.randint(-jitter_ns, jitter_ns))
        last_ns = self._under_way[-1].at_ns if self._under_way else 0
        self._under_way.append(Due(max(sent_ns + delay_ns, last_ns), frame))


def damaged(frame: Frame, shape: random.Random) -> bytes:
    """The frame with another value in one bit of its IPv4 packet, which checksums protect. Of any
    other frame only Ethernet's would tell, and a card drops it: nothing."""
    if len(frame) <= ETHERNET or int.from_bytes(frame[12:14], "big") != IPV4:
        return b""
    most = min(len(frame), ETHERNET + int.from_bytes(frame[16:18], "big"))
    at = shape.randrange(ETHERNET, max(most, ETHERNET + 1))
    other = bytearray(frame)
    other[at] ^= 1 << shape.randrange(8)
    return bytes(other)


class Dice:
    """Faults by their probability."""

    def __init__(self, chances: dict[str, float], chance: random.Random) -> None:
        self._chances = chances
        self._chance = chance

    def strikes(self, fault: str) -> bool:
        probability = self._chances[fault]
        return probability > 0 and self._chance.random() < probability


class Impairment(Stage):
    """A link with two lanes. `at` does something at a time of `clock` (nanoseconds)."""

    def __init__(
        self,
        going: Lane,
        coming: Lane,
        clock: Callable[[], int],
        at: Callable[[int, Callable[[], None]], None],
    ) -> None:
        super().__init__()
        self._going = going
        self._coming = coming
        self._clock = clock
        self._at = at
        self._armed_ns = 0  # of the alarm that is on its way
        self._wanted = False
        self._inbox = Inbox()  # arrived, for the card
        self._scratch = memoryview(bytearray(NET_HEADER_BYTES + NET_MOST_BYTES))
        self._bad = 0

    def plug(self, inner: Cable) -> None:
        super().plug(inner)
        inner.accept(0)
        inner.listen(True)

    def accept(self, features: int) -> None:
        """Whatever the driver takes: what comes out here has nothing left to be done."""

    def listen(self, wanted: bool) -> None:
        self._wanted = wanted
        self.inner.listen(self._has_room())

    def send(self, header: bytes, parts: Views) -> None:
        now_ns = self._clock()
        for frame in self._real(header, b"".join(parts)):
            self._going.offer(frame, now_ns)

    def flush(self) -> None:
        for frame in self._going.due(self._clock()):
            self.inner.send(PLAIN, [memoryview(frame)])
        self.inner.flush()
        self._arm()

    def receive(self, into: Views) -> int:
        length = self._inbox.take(into)
        if length == NONE and self._has_room():
            self._pull()
            length = self._inbox.take(into)
        return length

    def stirred(self) -> None:
        self._pull()
        if self._inbox and self._wanted:
            self.arrived()

    def drops(self) -> int:
        lanes = self._going.dropped + self._coming.dropped
        return lanes + self._bad + self._inbox.dropped + self.inner.drops()

    def _pull(self) -> None:
        """What has come over the cable, into the lane; what has passed that, to the card."""
        now_ns = self._clock()
        for _ in range(2 * ROOM):
            length = self.inner.receive([self._scratch]) if self._has_room() else NONE
            if length == NONE:
                break
            frame = bytes(self._scratch[NET_HEADER_BYTES:length])
            for piece in self._real(self._scratch[:NET_HEADER_BYTES], frame):
                self._coming.offer(piece, now_ns)
        else:
            self._armed_ns = now_ns  # there are more, after others had their turn
            self._at(now_ns, self._time)
        self.inner.listen(self._has_room())
        for arrived in self._coming.due(now_ns):
            self._inbox.put(CAME + arrived)
        self._arm()

    def _has_room(self) -> bool:
        return len(self._inbox) < ROOM // 2 and len(self._coming) < UNDER_WAY // 2

    def _real(self, header: bytes | memoryview, frame: bytes) -> list[Frame]:
        try:
            return real(header, frame)
        except BadFrame:
            self._bad += 1
            return []

    def _arm(self) -> None:
        times = [t for t in (self._going.deadline_ns, self._coming.deadline_ns) if t is not None]
        if times and not (self._armed_ns and self._armed_ns <= min(times)):
            self._armed_ns = min(times)
            self._at(self._armed_ns, self._time)

    def _time(self) -> None:
        self._armed_ns = 0
        self.flush()
        self.stirred()


def impaired(
    inner: Cable,
    faults: dict[str, Any],
    clock: Callable[[], int],
    at: Callable[[int, Callable[[], None]], None],
) -> Cable:
    """The cable with the faults that a system file gives it; as it is when they are none."""
    chances = {
        LOSE_FRAME: faults["loss"],
        CORRUPT_FRAME: faults["corrupt"],
        DUPLICATE_FRAME: faults["duplicate"],
        REORDER_FRAME: faults["reorder"],
    }
    delay_ns, jitter_ns = int(faults["delay_ms"] * MS), int(faults["jitter_ms"] * MS)
    pace = Pace(delay_ns, jitter_ns, faults["rate"] or 0)
    if not any(chances.values()) and pace == AT_ONCE:
        return inner

    def lane(direction: str) -> Lane:
        chance = random.Random(f"{faults['seed']} {direction}")
        return Lane(Dice(chances, chance).strikes, chance, pace)

    stage = Impairment(lane("going"), lane("coming"), clock, at)
    stage.plug(inner)
    return stage
