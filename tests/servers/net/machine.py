"""machine: a whole `net` without a process: its kernel, its card and its clients are played here.

Everything between them is the real thing: engine, sockets, store, stack. `Fuse` ends a life where
SIGKILL might: before, between and within the stores that matter, before a frame leaves, before an
answer does. What remains is what would: the region, the frames on the wire, and which capabilities
clients hold.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from servers.net import engine, store
from servers.net.frames import Frame
from servers.net.ring import Ring
from servers.net.server import NetServer
from servers.net.settings import Settings
from servers.net.store import GENERATION, LENGTH, Geometry, Record, Store
from ukernel.abi.errors import Answer, CallError
from ukernel.abi.interface import Interface, Lent, Operation
from ukernel.abi.network import Card, Ethernet
from ukernel.lib.connection import TaskInfo
from ukernel.lib.way import Caller, Current, Pending

WINDOW = 16
MTU = 576
RING = 1024
CONNECTIONS = 4  # which one client may have
CLIENT = 7
FEW = 8  # records of sockets, and of TIME-WAIT
PREFIX = 24
SECOND = 1_000_000


class Killed(BaseException):
    """SIGKILL."""


class Fuse:
    """Burns down by one at every place where a life may end; at 0 it does, and the next of its
    lengths is for the next life. `burnt` counts."""

    def __init__(self, *lengths: int) -> None:
        self._later = deque(lengths)
        self._left = self._later.popleft() if lengths else 0
        self.burnt = 0

    def due(self) -> bool:
        self.burnt += 1
        self._left -= 1
        over = self._left == 0
        if over and self._later:
            self._left = self._later.popleft()
        return over

    def burn(self) -> None:
        if self.due():
            raise Killed


FUSE: list[Fuse] = [Fuse()]  # of whoever runs


def _write(self: Record, data: bytes, real: Callable[[Record, bytes], None] = Record.write) -> None:
    FUSE[0].burn()
    if FUSE[0].due():  # everything is written, but not that it counts
        view = self._copies[1 - self._current]
        LENGTH.pack_into(view, GENERATION, len(data))
        start = GENERATION + LENGTH.size
        view[start : start + len(data)] = data
        raise Killed
    real(self, data)


def _put(self: Ring, at: int, data: Any, real: Callable[..., None] = Ring.put) -> None:
    FUSE[0].burn()
    if FUSE[0].due():
        real(self, at, memoryview(data)[: len(data) // 2])
        raise Killed
    real(self, at, data)


def _get(self: Ring, at: int, length: int, into: Any, real: Any = Ring.get) -> None:
    FUSE[0].burn()
    real(self, at, length, into)


def _past(self: Store, number: int, record: bytes, real: Any = Store.write_past) -> None:
    FUSE[0].burn()
    if FUSE[0].due():
        real(self, number, record[: len(record) // 2])
        raise Killed
    real(self, number, record)


class Handle(NamedTuple):
    """A capability in a client's hands."""

    badge: int


class Call:
    """A call that a client has made: its outcome, when there is one."""

    def __init__(self, badge: int, name: str, args: tuple[Any, ...]) -> None:
        self.badge, self.name, self.args = badge, name, args
        self.done = False
        self.value: Any = None
        self.error: Answer | CallError | None = None


class Region:
    """Memory that can be lent."""

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))


class EmptyNic(Ethernet):
    def __init__(self, mac: bytes) -> None:
        self._mac = mac

    def card(self) -> Card:
        return Card(self._mac, MTU, 0)


class WirePort:
    """Stands for servers.net.port.Port: what is sent is on the wire at once."""

    def __init__(self, net: Net, nic: Ethernet, _: Ethernet, rings: Region, *hears: Any) -> None:
        self.card = nic.card()
        self.up, self.wants_retry = True, False
        self.begun = self.gone = self.dropped = self.lives = 0
        self._net, self._rings = net, rings
        self.arrived, self.restored = hears

    def start(self) -> None:
        pass

    def drain(self, nic: Ethernet, last: Frame) -> None:
        self.send(last)

    def send(self, frame: Frame) -> None:
        FUSE[0].burn()
        self.begun += 1
        self.gone += 1
        offset, length = frame.cargo
        self._net.machine.sent.append(frame.header + self._rings.view[offset : offset + length])


class Answers:
    """The kernel's way back to clients, which insists that every call has one outcome."""

    closed = False

    def __init__(self, machine: Machine) -> None:
        self._open = machine.open
        self._held = machine.held

    def reply(self, operation: Operation, number: int, value: Any) -> None:
        FUSE[0].burn()
        call = self._open.pop(number)
        if isinstance(value, Interface):
            self._held[value.badge] += 1
            value = Handle(value.badge)
        call.value, call.done = value, True

    def refuse(self, number: int, error: Answer | CallError) -> None:
        FUSE[0].burn()
        call = self._open.pop(number)
        call.error, call.done = error, True


class Net(NetServer):
    """One life."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        info = TaskInfo("net", -1, 0, window=WINDOW)
        self.connection = cast(Any, type("", (), {"info": info, "slot": "net"}))
        self.objects = {}
        self._kernel = cast(Any, Answers(machine))
        self.alarm_ns = 0

    @property
    def now(self) -> int:
        return self.machine.clock[0]

    def region(self, name: str, size: int, *, persistent: bool = False) -> Any:
        return self.machine.region

    def memory(self, lent: Lent, *, write: bool = False) -> memoryview:
        return self.machine.memory[lent.offset : lent.offset + lent.length]

    def held_badges(self) -> list[int]:
        return [badge for badge, count in self.machine.held.items() if count]

    def _settings(self) -> Settings:
        most = self.machine.per_client
        return Settings(self.machine.address, PREFIX, 0, (), CONNECTIONS, RING, RING, most)

    def _card_name(self) -> str:
        return self.machine.mac.hex()

    def take(self, number: int, call: Call) -> None:
        """Serve a call, as Server.serve_one does."""
        target = self.object_behind(call.badge)
        operation = {each.name: each for each in target.ops.values()}[call.name]
        caller = Caller(call.badge, self.machine.client, 0)
        self._current = Current(self._kernel, operation, number, caller)
        try:
            result = getattr(target, call.name)(*call.args)
        except (Answer, CallError) as error:
            self._kernel.refuse(number, error)
        else:
            if type(result) is not Pending:
                self._kernel.reply(operation, number, result)


class Machine:
    """A station: what outlives its `net`, and the life at the moment."""

    def __init__(self, address: int, mac: bytes, clock: list[int]) -> None:
        self.address, self.mac, self.clock = address, mac, clock
        self.region = Region(Geometry(CONNECTIONS, RING, RING).total)
        self.memory = memoryview(bytearray(2 * RING))  # of its client
        self.client = CLIENT  # who calls
        self.per_client = CONNECTIONS
        self.held: Counter[int] = Counter()  # capabilities, by badge
        self.open: dict[int, Call] = {}
        self.sent: deque[bytes] = deque()
        self.fuse = Fuse()
        self.together = False  # its client dies with the first life
        self.deaths = 0
        self._number = 0
        self.start()

    def start(self) -> None:
        self.net = Net(self)
        self._live(self.net.setup)

    def _live(self, act: Callable[[], None]) -> None:
        """Do something that may be the last. Then calls without an outcome have none, and the next
        life begins."""
        FUSE[0] = self.fuse
        try:
            act()
        except Killed:
            self.deaths += 1
            self.open.clear()
            if self.together:
                self.held.clear()
            self.start()

    def call(self, badge: int, name: str, *args: Any) -> Call:
        call = Call(badge, name, args)
        self._number += 1
        self.open[self._number] = call
        self._live(lambda: self.net.take(self._number, call))
        return call

    def lost(self, call: Call) -> bool:
        """The life that had it is over."""
        return not call.done and call not in self.open.values()

    def release(self, handle: Handle) -> None:
        self.held[handle.badge] -= 1

        def tell() -> None:
            FUSE[0].burn()
            self.net.unheld(handle.badge)

        if not self.held[handle.badge]:
            self._live(tell)

    def frame(self, frame: bytes) -> None:
        port = cast(WirePort, self.net.port)
        self._live(lambda: port.arrived(memoryview(frame), False))

    def settle(self) -> None:
        self._live(self.net.before_waiting)

    @property
    def due(self) -> int:
        """When it wants to be woken, us; 0: never."""
        return self.net.alarm_ns // 1000

    def alarm(self) -> None:
        self._live(self.net.alarmed)


def install(patch: Any) -> None:
    """Put the fuse where lives may end, and machines where processes were."""
    patch.setattr(Record, "write", _write)
    patch.setattr(Ring, "put", _put)
    patch.setattr(Ring, "get", _get)
    patch.setattr(Store, "write_past", _past)
    patch.setattr(store, "SOCKETS", FEW)  # so that lives begin quickly
    patch.setattr(store, "PASTS", FEW)
    patch.setattr(engine, "Port", WirePort)
    patch.setattr(engine, "connect", lambda _, name, timeout_s: EmptyNic(bytes.fromhex(name)))
