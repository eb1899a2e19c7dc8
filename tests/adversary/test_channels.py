"""57: who writes nonsense into shared memory hurts itself: its peer lives, others are served."""

from __future__ import annotations

import fcntl
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.adversary.world import Intruder, World, channel_of, linked
from ukernel.abi import wire
from ukernel.abi.channels import Opened
from ukernel.abi.errors import Answer, CallError, Code
from ukernel.abi.services import Echo
from ukernel.abi.syscalls import CALL
from ukernel.lib import ring
from ukernel.lib.bell import ring as ring_bell
from ukernel.lib.channel import take_parts
from ukernel.lib.link import OPEN, REGISTER
from ukernel.lib.memory import Region
from ukernel.lib.stub import kernel

ECHO = next(iter(Echo.ops))
SOME = wire.pack([b"some"])
FULL = 2**64 - 2  # the highest count of an eventfd
MANY = 300  # requests that are changed while they are read
LITTLE = 16 << 20  # bytes that a server may grow by


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except (Answer, CallError) as error:
        return error.code if isinstance(error, CallError) else error


class Attack:
    """A channel to echo, and its memory without any rules."""

    def __init__(self, attacker: Intruder) -> None:
        token = attacker.kernel("echo").mint(CALL, 0)
        self.stub = linked(attacker, Echo, token)
        assert self.stub.echo(b"as if it were honest") == b"as if it were honest"
        self.channel = channel_of(self.stub)
        self.words: Any = self.channel._words
        self.requests: Any = self.channel._requests._data
        self.tail = self.channel._requests.tail

    def put(self, slots: int, size: int, flags: int = 0, number: int = 9) -> None:
        """A head at the next slot that says anything, and a tail that says that it is there."""
        at = (self.tail & ring.MASK) << ring.SHIFT
        ring.HEAD.pack_into(self.requests, at, size, ECHO, flags, number, 0)
        self.tail += slots
        self.words[ring.REQUEST_TAIL] = self.tail
        self.ring()

    def ring(self) -> None:
        ring_bell(self.channel._bell)

    def noise(self) -> None:
        noise = random.Random(57).randbytes(len(self.requests))
        self.requests[:] = noise
        for at in range(8):
            self.words[at * ring.LINE] = int.from_bytes(noise[at * 8 : at * 8 + 8], "little")
        self.ring()

    def goes_back(self) -> None:
        self.words[ring.REQUEST_TAIL] = 0
        self.ring()

    def reads_what_was_never_written(self) -> None:
        self.words[ring.REPLY_HEAD] = 2**40
        for _ in range(ring.SLOTS):  # as soon as the server wonders whether there is room
            if not self.channel._requests.send(ECHO, 1, 0, SOME):
                break
            self.ring()


CLOSES: dict[str, Callable[[Attack], None]] = {
    "more than the ring has": lambda a: a.put(ring.SLOTS + 1, 10),
    "a tail near the end of the world": lambda a: a.put(2**63, 10),
    "a body beyond the tail": lambda a: a.put(1, 4000),
    "a body beyond the ring": lambda a: a.put(ring.SLOTS, ring.RING_BYTES),
    "a body beyond all memory": lambda a: a.put(1, 2**32 - 1),
    "a body of nothing": lambda a: a.put(1, 0),
    "going backwards": Attack.goes_back,
    "noise": Attack.noise,
    "reads what was never written": Attack.reads_what_was_never_written,
}


def test_57_nonsense_closes_the_channel_of_who_wrote_it(world: World) -> None:
    attacker, victim = world.intrude(), world.intrude("victim")
    honest = linked(victim, Echo, victim.named["echo"])
    assert honest.echo(b"1") == b"1"
    echo = psutil.Process(world.slot("echo").pid)
    before, log = echo.num_fds(), world.system.run.log("echo")
    for number, (what, attack) in enumerate(CLOSES.items(), 1):
        made = Attack(attacker)
        attack(made)

        def closed(number: int = number) -> bool:
            assert honest.echo(b"2") == b"2"
            return bool(log.read_text().count("closed: ") == number)

        world.until(closed, f"the end of {what}")
        assert echo.num_fds() == before, what
    world.check()
    assert linked(attacker, Echo, attacker.named["echo"]).echo(b"3") == b"3", "it may try again"


def endless_parts(attack: Attack) -> None:
    """Of a message that never ends, as fast as it can."""
    part = ring.HEAD.pack(1, ECHO, ring.MORE, 1, 0).ljust(ring.SLOT, b"\0")
    attack.requests[:] = part * ring.SLOTS
    for _ in range(MANY):
        attack.words[ring.REQUEST_TAIL] = attack.words[ring.REQUEST_HEAD] + ring.SLOTS
        attack.ring()


def repeated_numbers(attack: Attack) -> None:
    for _ in range(MANY // 10):
        attack.channel._requests.send(ECHO, 1, 0, SOME)
    attack.ring()


def changed_while_read(attack: Attack) -> None:
    """Heads and bodies that are right when they are checked, perhaps, and wrong when they are
    used: what is checked is a copy."""
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            for size in (6, 2**31, 0, 600):
                for at in range(0, 64 * ring.SLOT, ring.SLOT):
                    ring.HEAD.pack_into(attack.requests, at, size, ECHO, size & 1, 1, 0)

    changer = threading.Thread(target=change)
    changer.start()
    for _ in range(MANY):
        attack.words[ring.REQUEST_TAIL] = attack.words[ring.REQUEST_HEAD] + 1
        attack.ring()
    over.set()
    changer.join()


def never_reads(attack: Attack) -> None:
    body, sender = wire.pack([bytes(20_000)]), attack.channel._requests
    for _ in range(MANY):
        at = 0
        while at < len(body):
            sent = sender.send(ECHO, 1, 0, body, at)
            attack.ring()
            if sent == at and attack.words[ring.SERVER_WANTS_ROOM]:
                return
            at = sent
    pytest.fail("there was always room")


def bells(attack: Attack) -> None:
    """Blocking, full, empty: the same open file as the server's and the kernel's."""
    for bell in (attack.channel._bell, attack.channel._own_bell):
        flags = fcntl.fcntl(bell, fcntl.F_GETFL)
        for count in (FULL, 0):
            os.eventfd_read(bell)
            os.eventfd_write(bell, count)
            fcntl.fcntl(bell, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
            attack.channel._requests.send(ECHO, 1, 0, SOME)
            attack.words[ring.CLIENT_SLEEPS] = attack.words[ring.CLIENT_WANTS_ROOM] = 1
            attack.ring()
            fcntl.fcntl(bell, fcntl.F_SETFL, flags)
            if not count:
                os.eventfd_write(bell, 1)
        fcntl.fcntl(bell, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
        os.eventfd_write(bell, FULL - 1)


def all_words(attack: Attack) -> None:
    """Whoever sleeps and whoever wants room, whatever is true."""
    for value in (1, 0, 2**64 - 1):
        for word in (ring.SERVER_SLEEPS, ring.CLIENT_SLEEPS, ring.CLIENT_WANTS_ROOM):
            attack.words[word] = value
            attack.words[ring.SERVER_WANTS_ROOM] = value
            attack.channel._requests.send(ECHO, 1, 0, SOME)
            attack.ring()


@pytest.mark.parametrize(
    "attacks",
    [(endless_parts, repeated_numbers, changed_while_read, never_reads), (bells, all_words)],
    ids=["requests", "words_and_bells"],
)
def test_57_others_are_served_meanwhile(
    world: World, attacks: tuple[Callable[[Attack], None], ...]
) -> None:
    attacker, victim = world.intrude(), world.intrude("victim")
    honest = linked(victim, Echo, victim.named["echo"])
    assert honest.echo(b"1") == b"1"
    echo = psutil.Process(world.slot("echo").pid)
    before, size = echo.num_fds(), echo.memory_info().rss
    for attack in attacks:
        for _ in range(3):
            attack(Attack(attacker))
            assert honest.echo(b"2") == b"2"
        world.check()
    assert echo.memory_info().rss - size < LITTLE
    world.bury(attacker)

    def cleared() -> bool:
        assert honest.echo(b"3") == b"3"
        return bool(echo.num_fds() == before)

    world.until(cleared, "its doors to be taken away")


def test_57_channels_and_memory_of_others_cannot_be_named(world: World) -> None:
    attacker, victim = world.intrude(), world.intrude("victim")
    honest, attack = linked(victim, Echo, victim.named["echo"]), Attack(attacker)
    assert honest.echo(b"1") == b"1"
    token, box = attacker.named["echo"], Region(attacker, "box", 4096)
    for number in (channel_of(honest).number, 0, 1, 2**64 - 1):
        body = wire.pack([number, (0, 0, 0)])
        for caps in ((box.token,), ()):
            refused = attacker.ask(wire.CALL, opcode=REGISTER, token=token, body=body, caps=caps)
            assert refused.status == Code.E_PROTO
    for opcode, body in (
        (REGISTER, wire.pack([attack.channel.number, (0, 0, 0)])),
        (REGISTER, wire.pack([attack.channel.number, (255, 0, 2**63)])),
        (OPEN, wire.pack([0, [0]])),
        (OPEN, wire.pack([2**32 - 1, list(range(1000))])),
    ):
        number = attack.channel.post(opcode, body, 0)
        assert attack.channel.collect(number, 0).status == Code.E_PROTO
    assert attack.stub.echo(b"2") == b"2"
    assert honest.echo(b"3") == b"3"


def calls_of(target: Intruder, serve: Callable[[wire.Message], None]) -> None:
    """Serve what comes: channels as told, any echo with what it was given."""
    while (m := target.delivered()).opcode == OPEN:
        serve(m)
    target.put(wire.REPLY, seq=m.seq, body=wire.pack(wire.unpack(m.body)[0]))


class Liar:
    """A server's lies to who asks for a channel."""

    def __init__(self, target: Intruder) -> None:
        self.target = target
        self.parts: Any = None

    def opened(self, m: wire.Message, *opened: Any) -> None:
        self.target.put(wire.REPLY, seq=m.seq, body=wire.pack(list(opened)))

    def wrong_tag(self, m: wire.Message) -> None:
        self.opened(m, 1, 2**60, 0)

    def channel(self, m: wire.Message, size: int = ring.CHANNEL_BYTES) -> int:
        tag, theirs = kernel(self.target).channel(m.seq, size)
        if size == ring.CHANNEL_BYTES:
            self.parts = take_parts(self.target.descriptors(tag))
        return theirs

    def small(self, m: wire.Message) -> None:
        """Whoever maps more than there is dies when it touches it."""
        self.opened(m, 1, self.channel(m, 4096), 0)

    def garbage(self, m: wire.Message) -> None:
        theirs = self.channel(m)
        rings = ring.rings(self.parts.memory)
        rings.words[ring.REPLY_TAIL] = 2**40
        self.opened(m, 1, theirs, 2**32 - 1)

    def garbage_head(self, m: wire.Message) -> None:
        theirs = self.channel(m)
        rings = ring.rings(self.parts.memory)
        rings.replies[: ring.SLOT] = b"\xff" * ring.SLOT
        rings.words[ring.REPLY_TAIL] = 1
        self.opened(m, 1, theirs, 0)


@pytest.mark.parametrize("lie", ["wrong_tag", "small", "garbage", "garbage_head"])
def test_57_a_server_that_lies_is_called_by_the_kernel(world: World, lie: str) -> None:
    """Its client neither hangs nor dies."""
    target, victim = world.intrude("target"), world.intrude("victim")
    target.serve(credit=4)
    ours, results = linked(victim, Echo, victim.named["target"]), []
    liar = Liar(target)
    calling = threading.Thread(target=lambda: results.append(outcome(lambda: ours.echo(b"x"))))
    calling.start()
    calls_of(target, getattr(liar, lie))
    world.until(lambda: not calling.is_alive(), "the outcome")
    calling.join()
    assert results == [b"x"]
    assert world.slot("victim").errors == 0


def test_57_replies_that_nobody_asked_for_are_thrown_away(world: World) -> None:
    """Of other requests, and twice: the client gets its own."""
    target, victim = world.intrude("target"), world.intrude("victim")
    target.serve(credit=4)
    ours, results = linked(victim, Echo, victim.named["target"]), []
    calling = threading.Thread(target=lambda: results.append(outcome(lambda: ours.echo(b"x"))))
    calling.start()
    liar = Liar(target)
    m = target.delivered()
    theirs = liar.channel(m)
    rings = ring.rings(liar.parts.memory)
    sender = ring.Sender(rings.words, rings.replies, ring.REPLY_TAIL, ring.REPLY_HEAD)
    for number in (7, 0, 2**64 - 1, 1, 1):
        sender.send(0, number, 0, wire.pack(b"right" if number == 1 else b"wrong"))
    liar.opened(m, *Opened(1, theirs, 0))
    world.until(lambda: not calling.is_alive(), "the outcome")
    calling.join()
    assert results == [b"right"]
    assert channel_of(ours)._outcomes == {}
